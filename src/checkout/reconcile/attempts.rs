//! Attempts to pay of whose end nobody has told us.

use sqlx::PgPool;

use super::{Found, Looked, tell};
use crate::{
    checkout::{CheckoutError, cancel_payment, capture_payment, events::settle_news},
    context::Context,
    kernel::{PaymentId, failpoint},
    orders::{self, Status},
    payments::{Payment, Provider, Standing, State, gateway, store},
};

/// Asks the providers about the attempts that are due, and acts on the answers.
///
/// None is ever given up while its provider may still collect money for it.
pub async fn reconcile_attempts(cx: &Context) -> Result<(), CheckoutError> {
    super::reconcile::<Payment>(cx).await
}

impl Looked for Payment {
    type Id = PaymentId;

    const NAME: &'static str = "payment";

    fn id(&self) -> PaymentId {
        self.id
    }

    /// Razorpay cancels nothing: money may be set aside for days to come.
    fn is_asked_about(&self) -> bool {
        match self.state {
            State::Creating
            | State::Open
            | State::Processing
            | State::Authorized
            | State::Cancelling => true,
            State::Cancelled => self.provider == Provider::Razorpay,
            State::Captured | State::Rejected => false,
        }
    }

    async fn take_due(db: &PgPool, provider: Provider, limit: i64) -> sqlx::Result<Vec<Self>> {
        store::take_due(db, provider, limit).await
    }

    async fn ask(&self, cx: &Context) -> Result<(), CheckoutError> {
        let asked = look(cx, self).await;
        let now = store::find(&cx.db, self.id).await?;
        let state = now.map_or(self.state, |now| now.state);
        if state != self.state {
            let found = if state == State::Captured { Found::Money } else { Found::Payment };
            tell(found, self.provider, 1);
        }
        asked
    }

    async fn look_again(db: &PgPool, ids: &[PaymentId]) -> sqlx::Result<()> {
        store::look_again(db, ids).await
    }
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
