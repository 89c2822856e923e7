//! Giving up attempts to pay: nobody may be able to pay for what nobody waits for.

use jobs::checkout::CancelPayment;
use sqlx::PgConnection;
use tokio::time::{Instant, timeout_at};

use super::{CheckoutError, events::settle_news};
use crate::{
    clients::CallError,
    context::Context,
    kernel::{PaymentId, failpoint, rerun},
    orders,
    payments::{
        self, Payment, PaymentError, Standing, State, gateway,
        store::{StateChange, lock, set_states},
    },
};

/// What came of an attempt that was to be withdrawn.
#[derive(Debug)]
pub(super) enum Withdrawal {
    /// It is over: nobody can pay it any more, or it was paid and the money is settled.
    Over,
    /// The provider works on it, or has the money set aside.
    UnderWay,
    /// The provider did not say.
    Unknown(PaymentError),
}

/// Withdraws the attempt at its provider, which has until then to answer, and notes what came of it.
pub(super) async fn withdraw(
    cx: &Context,
    payment: &Payment,
    order_number: &str,
    until: Instant,
) -> Result<Withdrawal, CheckoutError> {
    // Its money is about to be collected.
    if payment.state == State::Authorized {
        return Ok(Withdrawal::UnderWay);
    }
    let called_off = timeout_at(until, call_off(cx, payment, order_number)).await;
    let called_off = called_off.unwrap_or_else(|_| Err(unanswered("it took too long").into()));
    match called_off {
        Ok(None | Some(Standing::Cancelled | Standing::Captured(_))) => Ok(Withdrawal::Over),
        Ok(Some(Standing::Processing | Standing::Authorized(_))) => Ok(Withdrawal::UnderWay),
        Ok(Some(Standing::Open { .. })) => Ok(Withdrawal::Unknown(unanswered("it is open still"))),
        Err(CheckoutError::Payment(_)) if payment.state == State::Processing => {
            Ok(Withdrawal::UnderWay)
        }
        Err(CheckoutError::Payment(error)) => Ok(Withdrawal::Unknown(error)),
        Err(error) => Err(error),
    }
}

/// Withdraws the payment at its provider on behalf of nobody in particular.
///
/// Fails with [`CheckoutError::PaymentInProgress`] while the provider works on it.
pub async fn cancel_payment(cx: &Context, id: PaymentId) -> Result<(), CheckoutError> {
    let payment = payments::store::find(&cx.db, id).await?.ok_or(CheckoutError::NoSuchPayment)?;
    if matches!(payment.state, State::Captured | State::Cancelled | State::Rejected) {
        return Ok(());
    }
    let order = orders::find_any_order(&cx.db, payment.order_id).await?;
    match call_off(cx, &payment, &order.number).await? {
        None | Some(Standing::Cancelled | Standing::Captured(_)) => Ok(()),
        // Only Razorpay: whether it is collected is the order's affair by now, and what is not
        // collected goes back by itself.
        Some(Standing::Authorized(_)) => retire(cx, &payment).await,
        Some(Standing::Open { .. } | Standing::Processing) => Err(CheckoutError::PaymentInProgress),
    }
}

/// Asks the provider to withdraw the payment, and notes how it stands then; `None` where there was
/// nothing to withdraw.
async fn call_off(
    cx: &Context,
    payment: &Payment,
    order_number: &str,
) -> Result<Option<Standing>, CheckoutError> {
    let news = match gateway::cancel(cx, payment, order_number).await {
        Ok(news) => news,
        // The provider does not want to have it, so there is nothing to withdraw.
        Err(PaymentError::Provider(error @ CallError::Rejected { .. }))
            if payment.provider_ref.is_none() =>
        {
            tracing::error!(payment.id = %payment.id, %error, "a provider refused a payment");
            None
        }
        Err(error) => return Err(error.into()),
    };
    failpoint::pass("cancel-payment.after-call");
    let Some(news) = news else {
        retire(cx, payment).await?;
        return Ok(None);
    };
    let standing = news.standing.clone();
    settle_news(cx, news).await?;
    Ok(Some(standing))
}

/// Notes that nothing will be collected for the payment, unless it was collected meanwhile.
pub(super) async fn retire(cx: &Context, payment: &Payment) -> Result<(), CheckoutError> {
    rerun(|| retire_once(cx, payment), CheckoutError::database).await
}

async fn retire_once(cx: &Context, payment: &Payment) -> Result<(), CheckoutError> {
    let mut tx = cx.db.begin().await?;
    if let Err(error) = close(&mut tx, payment).await {
        // Not left to the drop, which would keep the order locked while the next attempt asks for it.
        let _ = tx.rollback().await;
        return Err(error.into());
    }
    tx.commit().await?;
    Ok(())
}

async fn close(tx: &mut PgConnection, payment: &Payment) -> sqlx::Result<()> {
    orders::store::lock(&mut *tx, &[payment.order_id]).await?;
    let locked = lock(&mut *tx, &[payment.id]).await?;
    let changes = changes(&locked, State::Cancelled);
    if !changes.is_empty() {
        set_states(tx, &changes).await?;
    }
    Ok(())
}

/// Gives up the locked attempts within the transaction: jobs will withdraw them at their providers.
pub(super) async fn give_up(
    tx: &mut PgConnection,
    attempts: &[Payment],
) -> sqlx::Result<jobs::Staged> {
    let changes = changes(attempts, State::Cancelling);
    if changes.is_empty() {
        return Ok(jobs::Staged::default());
    }
    set_states(&mut *tx, &changes).await?;
    let work: Vec<_> =
        changes.iter().map(|change| CancelPayment { payment_id: change.id.uuid() }).collect();
    jobs::stage(tx, &work, jobs::Delay::NONE).await
}

/// The changes of those that may go to the state.
fn changes(payments: &[Payment], state: State) -> Vec<StateChange> {
    payments
        .iter()
        .filter(|payment| payment.state.allows(state))
        .map(|payment| StateChange {
            id: payment.id,
            state,
            provider_ref: None,
            last_decline: None,
        })
        .collect()
}

/// The provider's silence as an error of it.
pub(super) fn unanswered(why: &str) -> PaymentError {
    CallError::Unknown { why: why.to_owned(), answered_5xx: false }.into()
}
