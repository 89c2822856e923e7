//! Attempts to pay of whose end nobody has told us.

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::{AT_ONCE, Found, SLICE, end_of_round, is_silence, offered, tell};
use crate::{
    checkout::{CheckoutError, cancel_payment, capture_payment, events::settle_news},
    context::Context,
    kernel::failpoint,
    orders::{self, Status},
    payments::{
        self, Payment, Provider, Standing, State, gateway,
        store::{look_again, take_due},
    },
};

/// Asks the providers about the attempts that are due, and acts on the answers.
///
/// None is ever given up while its provider may still collect money for it.
pub async fn reconcile_attempts(cx: &Context) -> Result<(), CheckoutError> {
    let until = end_of_round();
    let rounds = offered(cx).map(|provider| reconcile(cx, provider, until));
    // At the same time, so that one that is silent does not delay the other.
    futures_util::future::join_all(rounds).await.into_iter().collect()
}

async fn reconcile(cx: &Context, provider: Provider, until: Instant) -> Result<(), CheckoutError> {
    loop {
        let due = take_due(&cx.db, provider, SLICE).await?;
        let is_last = due.len() < usize::try_from(SLICE).unwrap_or(0);
        let asked: Vec<_> = due.into_iter().filter(is_asked_about).collect();
        let asked_about = asked.len();
        let answers: Vec<_> = stream::iter(asked)
            .map(|payment| async move { (payment.id, ask(cx, &payment).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut silent = Vec::new();
        let mut failure = None;
        for (id, answer) in answers {
            let Err(error) = answer else { continue };
            if is_silence(&error) {
                silent.push(id);
            } else {
                tracing::error!(payment.id = %id, %error, "a payment cannot be reconciled");
            }
            failure = Some(error);
        }
        if !silent.is_empty() {
            look_again(&cx.db, &silent).await?;
        }
        // Whoever says nothing at all is left alone until the next round.
        if let Some(error) = failure.filter(|_| silent.len() == asked_about) {
            return Err(error);
        }
        if is_last || Instant::now() > until {
            return Ok(());
        }
    }
}

/// Whether its provider may still know something new of it. Razorpay cancels nothing: money may be set
/// aside for days to come.
fn is_asked_about(payment: &Payment) -> bool {
    match payment.state {
        State::Creating
        | State::Open
        | State::Processing
        | State::Authorized
        | State::Cancelling => true,
        State::Cancelled => payment.provider == Provider::Razorpay,
        State::Captured | State::Rejected => false,
    }
}

async fn ask(cx: &Context, payment: &Payment) -> Result<(), CheckoutError> {
    let asked = look(cx, payment).await;
    let now = payments::store::find(&cx.db, payment.id).await?;
    let state = now.map_or(payment.state, |now| now.state);
    if state != payment.state {
        let found = if state == State::Captured { Found::Money } else { Found::Payment };
        tell(found, payment.provider, 1);
    }
    asked
}

async fn look(cx: &Context, payment: &Payment) -> Result<(), CheckoutError> {
    if payment.state == State::Cancelling {
        return still_under_way(cancel_payment(cx, payment.id).await);
    }
    let Some(news) = gateway::look(cx, payment).await? else { return Ok(()) };
    failpoint::pass("reconcile.after-call");
    let standing = news.standing.clone();
    if payment.state == State::Cancelled && !is_wanted(cx, payment, &standing).await? {
        return Ok(());
    }
    settle_news(cx, news).await?;
    match standing {
        Standing::Authorized(charge) if payment.asks_for(&charge) => {
            still_under_way(capture_payment(cx, payment.id, &charge.charge_ref).await)
        }
        Standing::Open { .. }
        | Standing::Processing
        | Standing::Authorized(_)
        | Standing::Captured(_)
        | Standing::Cancelled => Ok(()),
    }
}

/// Whether something follows from what became of a payment that nobody waited for any more. What is set
/// aside for an order that is over goes back by itself.
async fn is_wanted(
    cx: &Context,
    payment: &Payment,
    standing: &Standing,
) -> Result<bool, CheckoutError> {
    match standing {
        Standing::Captured(_) => Ok(true),
        Standing::Authorized(_) => {
            let orders = orders::store::standings(&cx.db, &[payment.order_id]).await?;
            Ok(orders.iter().any(|order| order.status == Status::AwaitingPayment))
        }
        Standing::Open { .. } | Standing::Processing | Standing::Cancelled => Ok(false),
    }
}

/// What is under way at the provider is asked about again.
fn still_under_way(outcome: Result<(), CheckoutError>) -> Result<(), CheckoutError> {
    match outcome {
        Err(CheckoutError::PaymentInProgress) => Ok(()),
        outcome => outcome,
    }
}
