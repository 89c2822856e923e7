//! Cancelling an order that nobody has paid.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{
    CheckoutError, released_detail,
    withdraw::{Withdrawal, withdraw},
};
use crate::{
    context::Context,
    inventory::holds::{self, Cause},
    kernel::{OrderId, OwnerId, rerun},
    orders::{self, Event, Status},
    payments::{self, Payment, State},
};

/// How long providers are waited for in all: less than the edge waits.
const WITHDRAW_MAX: Duration = Duration::from_secs(9);

/// How many attempts of other tabs are withdrawn, before the shopper is told that a payment is under way.
const ROUNDS_MAX: usize = 3;

/// Gives up the owner's order and puts its stock back on sale.
///
/// An attempt to pay it is withdrawn at its provider first: an order that may yet be paid is not
/// cancelled. A repeat changes nothing. An order that is paid or whose deadline was enforced is refused.
pub async fn cancel_order(
    cx: &Context,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<(), CheckoutError> {
    let until = Instant::now() + WITHDRAW_MAX;
    for _ in 0..ROUNDS_MAX {
        let cancelled = rerun(|| cancel(cx, id, owner_id), CheckoutError::database).await?;
        let Some(attempt) = cancelled else { return Ok(()) };
        let order = orders::find_any_order(&cx.db, id).await?;
        match withdraw(cx, &attempt, &order.number, until).await? {
            Withdrawal::Over => {}
            Withdrawal::UnderWay => break,
            Withdrawal::Unknown(error) => return Err(error.into()),
        }
    }
    Err(CheckoutError::PaymentInProgress)
}

/// Cancels the order, unless an attempt to pay it is under way, which is returned instead.
async fn cancel(
    cx: &Context,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<Option<Payment>, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    match give_up(&mut tx, id, owner_id).await {
        Ok(attempt) => {
            tx.commit().await.map_err(CheckoutError::of_commit)?;
            Ok(attempt)
        }
        Err(error) => {
            // Not left to the drop, which would keep the order locked while the next attempt asks for it.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

async fn give_up(
    tx: &mut PgConnection,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<Option<Payment>, CheckoutError> {
    let order = orders::store::lock_owned(&mut *tx, id, owner_id)
        .await?
        .ok_or(CheckoutError::NoSuchOrder)?;
    if order.status == Status::Cancelled {
        return Ok(None);
    }
    let status =
        order.status.on(Event::Cancelled).ok_or(CheckoutError::NotCancellable(order.status))?;
    // Under the order's lock nobody opens another. Not locked: the holds' turn comes before theirs.
    let attempts = payments::store::of_order(&mut *tx, id).await?;
    let may_be_paid = |state: State| state.is_open() || state == State::Cancelling;
    if let Some(attempt) = attempts.into_iter().find(|attempt| may_be_paid(attempt.state)) {
        return Ok(Some(attempt));
    }
    let released = holds::release(&mut *tx, &[id], Cause::OrderCancelled).await?;
    let detail = released_detail(&released, id);
    orders::store::transition(tx, &[id], Event::Cancelled, status, &[detail]).await?;
    Ok(None)
}
