//! Noting that an order has left the house.

use serde_json::json;
use sqlx::PgConnection;

use super::{CheckoutError, refund};
use crate::{
    audit,
    context::Context,
    kernel::{OrderId, UserId, rerun},
    orders::{self, Event, Status},
    payments::{
        self, Fate,
        disputes::{self, Dispute},
        refunds,
        store::Capture,
    },
};

/// A member of staff has handed the order's parcel over.
#[derive(Debug, Clone)]
pub struct ShipOrder {
    pub order_id: OrderId,
    pub staff_id: UserId,
    /// Names the request in the audit log.
    pub request_id: Option<String>,
}

/// Notes that the paid order is on its way: from then on its shopper cannot give it up, and only staff
/// give its money back. A repeat changes nothing.
///
/// An order is refused that is not paid, or of whose money nothing is left to the shop. While the money is
/// under dispute, whether to ship is for people to decide.
pub async fn ship_order(cx: &Context, wish: &ShipOrder) -> Result<(), CheckoutError> {
    rerun(|| ship(cx, wish), CheckoutError::database).await
}

async fn ship(cx: &Context, wish: &ShipOrder) -> Result<(), CheckoutError> {
    let mut tx = cx.db.begin().await?;
    match attempt(&mut tx, wish).await {
        Ok(()) => tx.commit().await.map_err(CheckoutError::of_commit),
        Err(error) => {
            // Not left to the drop, which would keep the order locked while the next attempt asks for it.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

async fn attempt(tx: &mut PgConnection, wish: &ShipOrder) -> Result<(), CheckoutError> {
    let id = wish.order_id;
    let locked = orders::store::lock(&mut *tx, &[id]).await?;
    let before = locked.first().ok_or(CheckoutError::NoSuchOrder)?.status;
    if before == Status::Shipped {
        return Ok(());
    }
    let status = before.on(Event::Shipped).ok_or(CheckoutError::NotShippable(before))?;
    let captures = payments::store::captures_of(&mut *tx, &[id]).await?;
    let refunds = refunds::store::of_orders(&mut *tx, &[id]).await?;
    let disputes = disputes::store::of_orders(&mut *tx, &[id]).await?;
    let is_lost = |capture: &Capture| {
        let is_of = |dispute: &Dispute| dispute.capture_id == capture.id;
        disputes.iter().any(|dispute| is_of(dispute) && dispute.state == disputes::State::Lost)
    };
    let mut accepted = captures.iter().filter(|capture| capture.fate == Fate::Accepted);
    if accepted.all(|capture| refund::refundable(capture, &refunds) == 0 || is_lost(capture)) {
        return Err(CheckoutError::MoneySpent);
    }
    orders::store::transition(&mut *tx, &[id], Event::Shipped, status, &[json!({})]).await?;
    let entry = audit::Entry {
        actor_id: wish.staff_id,
        action: "shipOrder".to_owned(),
        subject: format!("order:{id}"),
        before: Some(json!({ "status": before.name() })),
        after: Some(json!({ "status": status.name() })),
        request_id: wish.request_id.clone(),
    };
    audit::record(tx, &entry).await?;
    Ok(())
}
