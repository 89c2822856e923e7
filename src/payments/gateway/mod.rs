//! What the shop asks of a payment provider, and what it makes of the answers: the same questions
//! for both. What follows from them for orders is decided elsewhere.
//!
//! No transaction is open while a provider is asked.

mod disputes;
mod history;
mod razorpay;
mod refunds;
mod stripe;

use std::time::Duration;

use secrecy::SecretString;
use time::OffsetDateTime;

pub use self::{
    disputes::{DisputeAtProvider, DisputeStanding, disputes_of, look_at_dispute},
    history::{Happened, History, happened_since},
    refunds::{
        KEY_EXPIRED, RefundAtProvider, RefundRequest, RefundStanding, is_key_spent, look_at_refund,
        refund, refunds_of,
    },
};
use super::{Charge, News, Payment, PaymentError, Provider};
use crate::{clients::CallError, context::Context, kernel};

/// Providers keep a key for 24 hours at least; afterwards the same key would make a second object.
const KEY_KEPT: Duration = Duration::from_hours(23);

/// A payment that the provider has.
#[derive(Debug)]
pub struct Opened {
    pub news: News,
    pub handover: Handover,
}

/// What the shopper's browser needs to pay. Nothing of it is stored here.
#[derive(Debug, Clone)]
pub enum Handover {
    Stripe { payment_intent_id: String, client_secret: SecretString },
    Razorpay { order_id: String, key_id: String },
}

impl Handover {
    /// The provider's name for the payment that it is for.
    pub fn provider_ref(&self) -> &str {
        match self {
            Self::Stripe { payment_intent_id, .. } => payment_intent_id,
            Self::Razorpay { order_id, .. } => order_id,
        }
    }
}

/// What Razorpay's checkout gave the shopper's browser.
#[derive(Debug, Clone)]
pub struct CheckoutProof {
    /// `pay_…`.
    pub charge_ref: String,
    pub signature: String,
}

/// Whether this process can ask the provider for anything.
pub const fn is_offered(cx: &Context, provider: Provider) -> bool {
    match provider {
        Provider::Stripe => cx.providers.stripe.is_some(),
        Provider::Razorpay => cx.providers.razorpay.is_some(),
    }
}

/// Whether the provider moves real money for us.
pub fn livemode(cx: &Context, provider: Provider) -> Result<bool, PaymentError> {
    match provider {
        Provider::Stripe => Ok(stripe::account(cx)?.livemode()),
        Provider::Razorpay => Ok(razorpay::account(cx)?.livemode()),
    }
}

/// Makes sure that the provider has the payment, once, and tells how it stands there.
///
/// A repeat finds what an earlier call made, also one whose outcome nobody learned.
pub async fn ensure(
    cx: &Context,
    payment: &Payment,
    order_number: &str,
) -> Result<Opened, PaymentError> {
    let opened = match payment.provider {
        Provider::Stripe => stripe::ensure(cx, payment, order_number).await?,
        Provider::Razorpay => razorpay::ensure(cx, payment, order_number).await?,
    };
    Ok(Opened { news: about(payment, opened.news), ..opened })
}

/// Tells how the payment stands; `None` where the provider has nothing under its name.
pub async fn look(cx: &Context, payment: &Payment) -> Result<Option<News>, PaymentError> {
    let news = match payment.provider {
        Provider::Stripe => stripe::look(cx, payment).await?,
        Provider::Razorpay => razorpay::look(cx, payment).await?,
    };
    Ok(news.map(|news| about(payment, news)))
}

/// Tells how an object of the provider stands, ours or not; `None` where the provider has none of this name.
pub async fn look_up(
    cx: &Context,
    provider: Provider,
    provider_ref: &str,
) -> Result<Option<News>, PaymentError> {
    match provider {
        Provider::Stripe => stripe::look_up(cx, provider_ref).await,
        Provider::Razorpay => razorpay::look_up(cx, provider_ref).await,
    }
}

/// Tells how the payment stands that a charge belongs to, ours or not; `None` where the provider has
/// no such charge, or it belongs to no payment.
pub async fn look_up_charge(
    cx: &Context,
    provider: Provider,
    charge_ref: &str,
) -> Result<Option<News>, PaymentError> {
    match provider {
        Provider::Stripe => stripe::look_up(cx, charge_ref).await,
        Provider::Razorpay => razorpay::look_up_charge(cx, charge_ref).await,
    }
}

/// Checks that the browser's proof is signed for this payment. The proof says where to look; whether
/// money moved, only the provider says.
pub fn check_proof(
    cx: &Context,
    payment: &Payment,
    proof: &CheckoutProof,
) -> Result<(), PaymentError> {
    match payment.provider {
        Provider::Stripe => Err(PaymentError::BadSignature),
        Provider::Razorpay => razorpay::check_proof(cx, payment, proof),
    }
}

/// Tells how the one charge of the payment stands that the browser's checked proof names.
pub async fn look_at_charge(
    cx: &Context,
    payment: &Payment,
    charge_ref: &str,
) -> Result<Option<News>, PaymentError> {
    match payment.provider {
        Provider::Stripe => look(cx, payment).await,
        Provider::Razorpay => razorpay::look_at_charge(cx, payment, charge_ref).await.map(Some),
    }
}

/// Withdraws the payment at its provider as far as that is possible, and tells how it stands then.
///
/// `None` where the provider has nothing that anybody could pay and never will. Razorpay withdraws
/// nothing: its order counts as cancelled as long as no money is set aside or collected for it, and
/// what is authorised later is not captured.
pub async fn cancel(
    cx: &Context,
    payment: &Payment,
    order_number: &str,
) -> Result<Option<News>, PaymentError> {
    let news = match payment.provider {
        Provider::Stripe => stripe::cancel(cx, payment, order_number).await?,
        Provider::Razorpay => razorpay::cancel(cx, payment).await?,
    };
    Ok(news.map(|news| about(payment, news)))
}

/// Collects the money that is set aside, and tells how the payment stands then.
///
/// A repeat collects nothing more.
pub async fn capture(
    cx: &Context,
    payment: &Payment,
    charge_ref: &str,
) -> Result<News, PaymentError> {
    let news = match payment.provider {
        Provider::Stripe => stripe::capture(cx, charge_ref).await?,
        Provider::Razorpay => razorpay::capture(cx, payment, charge_ref).await?,
    };
    Ok(about(payment, news))
}

/// Whether the provider may have forgotten the payment's key.
fn is_past_its_key(payment: &Payment) -> bool {
    is_past(payment.created_at)
}

/// Whether the provider may have forgotten a key that was made then.
fn is_past(created_at: OffsetDateTime) -> bool {
    kernel::time::now() - created_at > KEY_KEPT
}

/// The provider was searched for a payment and has none.
const fn absent() -> CallError {
    CallError::Rejected { status: 404, code: None }
}

/// An outcome that stays unknown, without a failure that the provider would keep under a key.
fn unreadable(why: &str) -> CallError {
    CallError::Unknown { why: why.to_owned(), answered_5xx: false }
}

/// The money, unless its refunds come to less than what its provider says went back of it: one of them is
/// not listed yet, or one failed meanwhile.
fn complete(charge: Charge, refunded_minor: i64) -> Result<Charge, PaymentError> {
    if charge.refunded_minor() < refunded_minor {
        return Err(unreadable("refunds that are told of are not listed").into());
    }
    Ok(charge)
}

/// The answer to a question about the payment is about the payment, whether the provider repeats our id or not.
fn about(payment: &Payment, news: News) -> News {
    News { payment_id: news.payment_id.or(Some(payment.id)), ..news }
}

/// `None` in place of an error that says that there is no such object.
fn found<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
