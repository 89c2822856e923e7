//! Collecting money that is set aside.

use super::{
    CheckoutError,
    events::settle_news,
    withdraw::{cancel_payment, retire},
};
use crate::{
    clients::CallError,
    context::Context,
    kernel::{PaymentId, failpoint},
    orders::{self, Status},
    payments::{self, News, Payment, PaymentError, Provider, Standing, gateway},
};

/// Collects the money that is set aside under `charge_ref`, if the order waits for it still.
///
/// Otherwise Stripe is asked to let go of it; Razorpay does so by itself after some days. Fails with
/// [`CheckoutError::PaymentInProgress`] while the money stays where it is.
pub async fn capture_payment(
    cx: &Context,
    id: PaymentId,
    charge_ref: &str,
) -> Result<(), CheckoutError> {
    let payment = payments::store::find(&cx.db, id).await?.ok_or(CheckoutError::NoSuchPayment)?;
    let standing = orders::store::standings(&cx.db, &[payment.order_id]).await?;
    let status = standing.first().ok_or(CheckoutError::NoSuchOrder)?.status;
    match (status, payment.provider) {
        (Status::AwaitingPayment, Provider::Stripe | Provider::Razorpay) => {
            let news = collect(cx, &payment, charge_ref).await?;
            failpoint::pass("capture-payment.after-call");
            let standing = news.standing.clone();
            settle_news(cx, news).await?;
            match standing {
                // It is not what was asked for, and stays where it is.
                Standing::Authorized(charge) if !payment.asks_for(&charge) => Ok(()),
                Standing::Authorized(_) => Err(CheckoutError::PaymentInProgress),
                // The bank has let go of the money: the shopper may pay in another way.
                Standing::Open { .. } => retire(cx, &payment).await,
                Standing::Processing | Standing::Captured(_) | Standing::Cancelled => Ok(()),
            }
        }
        (
            Status::Cancelled | Status::Expired | Status::Paid | Status::Shipped,
            Provider::Stripe,
        ) => cancel_payment(cx, id).await,
        (
            Status::Cancelled | Status::Expired | Status::Paid | Status::Shipped,
            Provider::Razorpay,
        ) => Ok(()),
    }
}

/// Collects the money; where the provider refuses, because it let go of it or has not set aside what was
/// asked for, tells how it stands.
async fn collect(cx: &Context, payment: &Payment, charge_ref: &str) -> Result<News, PaymentError> {
    let refusal = match gateway::capture(cx, payment, charge_ref).await {
        Err(error @ PaymentError::Provider(CallError::Rejected { .. })) => error,
        answer => return answer,
    };
    let news = gateway::look_at_charge(cx, payment, charge_ref).await?;
    let news = news.filter(|news| match &news.standing {
        Standing::Authorized(charge) => !payment.asks_for(charge),
        Standing::Open { .. }
        | Standing::Processing
        | Standing::Captured(_)
        | Standing::Cancelled => true,
    });
    news.ok_or(refusal)
}
