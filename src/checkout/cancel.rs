//! Cancelling an order that nobody has paid.

use sqlx::PgConnection;

use super::{CheckoutError, released_detail};
use crate::{
    context::Context,
    inventory::holds::{self, Cause},
    kernel::{OrderId, OwnerId, rerun},
    orders::{self, Event, Status},
};

/// Gives up the owner's order and puts its stock back on sale.
///
/// A repeat changes nothing. An order that is paid or whose deadline was enforced is refused.
pub async fn cancel_order(
    cx: &Context,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<(), CheckoutError> {
    rerun(|| cancel(cx, id, owner_id), CheckoutError::database).await
}

async fn cancel(cx: &Context, id: OrderId, owner_id: OwnerId) -> Result<(), CheckoutError> {
    let mut tx = cx.db.begin().await?;
    if let Err(error) = give_up(&mut tx, id, owner_id).await {
        // Not left to the drop, which would keep the order locked while the next attempt asks for it.
        let _ = tx.rollback().await;
        return Err(error);
    }
    tx.commit().await?;
    Ok(())
}

async fn give_up(
    tx: &mut PgConnection,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<(), CheckoutError> {
    let order = orders::store::lock_owned(&mut *tx, id, owner_id)
        .await?
        .ok_or(CheckoutError::NoSuchOrder)?;
    if order.status == Status::Cancelled {
        return Ok(());
    }
    let status =
        order.status.on(Event::Cancelled).ok_or(CheckoutError::NotCancellable(order.status))?;
    let released = holds::release(&mut *tx, &[id], Cause::OrderCancelled).await?;
    let detail = released_detail(&released, id);
    orders::store::transition(tx, &[id], Event::Cancelled, status, &[detail]).await?;
    Ok(())
}
