//! Ending orders whose deadline has passed.

use jobs::notifications::SendReservationExpired;
use sqlx::PgConnection;

use super::{CheckoutError, released_detail, withdraw::give_up};
use crate::{
    context::Context,
    inventory::holds::{self, Cause},
    kernel::{failpoint, rerun},
    orders::{self, Event, Status},
    payments,
};

/// As many orders as one slice of any use case.
const SLICE_MAX_ROWS: i64 = 200;

/// Ends one slice of the orders whose deadline has passed and puts what they still hold back on
/// sale; returns how many.
///
/// Any number of processes may do it at once: an order that one of them works on is left out by
/// the others. The shopper is told by mail, once, and attempts to pay are withdrawn by jobs.
pub async fn expire_overdue(cx: &Context) -> Result<usize, CheckoutError> {
    rerun(|| expire_slice(cx), CheckoutError::database).await
}

async fn expire_slice(cx: &Context) -> Result<usize, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    let staged = match end_overdue(&mut tx).await {
        Ok(staged) => staged,
        Err(error) => {
            // Not left to the drop, which would keep the orders locked while the next attempt looks for them.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    };
    let Some((ended, staged)) = staged else { return Ok(0) };
    failpoint::pass("reaper.before-commit");
    tx.commit().await?;
    failpoint::pass("reaper.after-commit");

    cx.relay.wake(staged);
    metrics::counter!("orders_expired_total").increment(ended as u64);
    Ok(ended)
}

/// Ends a slice of orders within the transaction; `None` where none is overdue.
async fn end_overdue(tx: &mut PgConnection) -> sqlx::Result<Option<(usize, jobs::Staged)>> {
    let ids = orders::store::lock_overdue(&mut *tx, SLICE_MAX_ROWS).await?;
    let Some(status) = Status::AwaitingPayment.on(Event::DeadlinePassed) else {
        return Ok(None);
    };
    if ids.is_empty() {
        return Ok(None);
    }
    let released = holds::release(&mut *tx, &ids, Cause::OrderExpired).await?;
    let details: Vec<_> = ids.iter().map(|&id| released_detail(&released, id)).collect();
    orders::store::transition(&mut *tx, &ids, Event::DeadlinePassed, status, &details).await?;
    let mails: Vec<_> =
        ids.iter().map(|id| SendReservationExpired { order_id: id.uuid() }).collect();
    let attempts = payments::store::open_of(&mut *tx, &ids).await?;
    let mut staged = give_up(&mut *tx, &attempts).await?;
    staged.merge(jobs::stage(tx, &mails, jobs::Delay::NONE).await?);
    Ok(Some((ids.len(), staged)))
}
