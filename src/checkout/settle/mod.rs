//! Settling: a slice of news from payment providers becomes money on record, paid orders and sold
//! stock, in one transaction.
//!
//! It is the one path for webhooks, the browser's confirmation and our own questions. It never asks
//! the time, only where orders, holds and payments stand; and it only moves forward, so the same
//! news twice, late or in another order ends where it would have ended anyway.

mod attempt;
mod decide;

use std::time::Duration;

use self::attempt::{Attempt, attempt};
pub(super) use self::attempt::{lock_stock, move_stock, serve};
use super::CheckoutError;
use crate::{
    context::Context,
    kernel::{EventId, OrderId, PaymentId, failpoint, halves::halves, rerun},
    payments::{Fate, News, store::NewCapture},
};

/// How far the deadline moves, once, for a payment that the provider is working on: most payments
/// that take longer than a hold are through within minutes, and stock is not kept for days.
pub const EXTENSION: Duration = Duration::from_hours(1);

/// What a provider says of a payment, and the webhook that said it.
#[derive(Debug, Clone)]
pub struct Settlement {
    pub news: News,
    /// The webhook to be noted as done; without one we asked ourselves.
    pub event_id: Option<EventId>,
}

/// What became of a provider's news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was acted on, now or before, as far as there was anything to do.
    Applied { payment_id: PaymentId, order_id: OrderId },
    /// No payment of ours is meant. Nothing was written, and the webhook is not done.
    Unknown,
}

/// Acts on each provider's news, in the order given, and answers each in its place.
///
/// All that follows from the slice (at most [`SLICE_MAX`](crate::kernel::batch::SLICE_MAX) news)
/// commits together, its webhooks noted as done included. However many they are, one attempt takes
/// 29 statements at most, `BEGIN` and `COMMIT` included. An error says that the news should be
/// brought again.
pub async fn settle(cx: &Context, slice: &[Settlement]) -> Vec<Result<Settled, CheckoutError>> {
    halves("payment news", slice, async |part: &[Settlement]| {
        rerun(|| settle_together(cx, part), CheckoutError::database).await
    })
    .await
}

/// One attempt: the whole slice in one transaction.
async fn settle_together(
    cx: &Context,
    slice: &[Settlement],
) -> Result<Vec<Settled>, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    let Attempt { settled, written } = match attempt(&mut tx, slice).await {
        Ok(attempt) => attempt,
        Err(error) => {
            // Not left to the drop, which would keep the orders locked while the next attempt, or
            // each half of the slice, asks for them.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    };
    let Some(written) = written else {
        tx.rollback().await?;
        return Ok(settled);
    };

    failpoint::pass("settle.before-commit");
    tx.commit().await.map_err(CheckoutError::of_commit)?;
    failpoint::pass("settle.after-commit");

    for expires_at in written.deadlines {
        cx.relay.deadline(expires_at.unix_timestamp());
    }
    cx.relay.wake(written.staged);
    metrics::counter!("orders_paid_total").increment(written.paid as u64);
    written.captures.iter().for_each(tell);
    Ok(settled)
}

/// Makes money that did not pay its order visible to whoever watches the shop.
fn tell(capture: &NewCapture) {
    let Some(reason) = capture.fate.reason() else { return };
    metrics::counter!("captures_not_accepted_total", "reason" => reason).increment(1);
    let NewCapture { order_id, payment_id, .. } = capture;
    match capture.fate {
        Fate::Accepted => {}
        Fate::RefundDue(_) => tracing::warn!(
            order.id = %order_id,
            payment.id = %payment_id,
            capture.provider_ref = capture.charge_ref,
            reason,
            "money came in that has to go back"
        ),
        Fate::Quarantined(_) => tracing::error!(
            order.id = %order_id,
            payment.id = %payment_id,
            capture.provider_ref = capture.charge_ref,
            reason,
            "money came in that is not what was asked for: somebody has to look"
        ),
    }
}
