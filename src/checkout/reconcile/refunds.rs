//! Refunds of whose end nobody has told us.

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{AT_ONCE, Found, SLICE, end_of_round, is_silence, offered, tell};
use crate::{
    checkout::{
        CheckoutError,
        refund::{look, refund_payment},
    },
    context::Context,
    payments::{
        disputes,
        refunds::{
            Cause, Refund, State,
            store::{find, take_due},
        },
    },
};

/// Has the refunds made that are due, or asks how they stand.
///
/// One that waits for the end of a dispute is left to it.
pub async fn reconcile_refunds(cx: &Context) -> Result<(), CheckoutError> {
    let providers: Vec<_> = offered(cx).collect();
    let until = end_of_round();
    loop {
        let due = take_due(&cx.db, &providers, SLICE).await?;
        let taken = due.len();
        let answers: Vec<_> = stream::iter(due)
            .map(|refund| async move { (refund.id, ask(cx, &refund).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut failed = Vec::new();
        for (id, answer) in answers {
            let Err(error) = answer else { continue };
            if !is_silence(&error) {
                tracing::error!(refund.id = %id, %error, "a refund cannot be reconciled");
            }
            failed.push(error);
        }
        // Whoever says nothing at all is left alone until the next round.
        let has_failed = failed.len() == taken;
        if let Some(error) = failed.pop().filter(|_| has_failed) {
            return Err(error);
        }
        if taken < usize::try_from(SLICE).unwrap_or(0) || Instant::now() > until {
            return Ok(());
        }
    }
}

async fn ask(cx: &Context, refund: &Refund) -> Result<(), CheckoutError> {
    if is_withheld(cx, refund).await? {
        return Ok(());
    }
    let asked = match refund.state {
        // It may have come back.
        State::Succeeded => look(cx, refund).await,
        State::Requested | State::Pending | State::Failed => refund_payment(cx, refund.id).await,
    };
    let now = find(&cx.db, refund.id).await?;
    if now.is_some_and(|now| now.state != refund.state) {
        tell(Found::Refund, refund.provider, 1);
    }
    asked
}

/// Whether it waits for the end of a dispute, which has it made.
async fn is_withheld(cx: &Context, refund: &Refund) -> Result<bool, CheckoutError> {
    if refund.state != State::Requested || refund.cause == Cause::Staff {
        return Ok(false);
    }
    let disputes = disputes::store::of_orders(&cx.db, &[refund.order_id]).await?;
    Ok(disputes.iter().any(|dispute| {
        dispute.capture_id == refund.capture_id && dispute.state == disputes::State::Open
    }))
}
