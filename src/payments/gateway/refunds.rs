//! Money that goes back.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{is_past, razorpay, stripe, unreadable};
use crate::{
    clients::{CallError, refusal},
    context::Context,
    payments::{PaymentError, Provider},
};

/// What a provider calls a refund that it has not, under a key that it may have forgotten.
pub const KEY_EXPIRED: &str = "key_expired";

/// What a provider is asked to send back. A repeat must say the same.
#[derive(Debug, Clone, Copy)]
pub struct RefundRequest<'a> {
    pub provider: Provider,
    pub refund_id: Uuid,
    /// `pi_…` or `pay_…`.
    pub charge_ref: &'a str,
    pub amount_minor: i64,
    /// The charge's, in capital letters.
    pub currency: &'a str,
    /// Of ten letters, digits, hyphens and underscores at least, and two hundred at most.
    pub key: &'a str,
    /// When the first of its keys was made.
    pub created_at: OffsetDateTime,
}

/// A refund as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundAtProvider {
    /// `re_…` or `rfnd_…`.
    pub provider_ref: String,
    /// Which of our refunds it is; one that was made in the dashboard says nothing.
    pub refund_id: Option<Uuid>,
    /// `pi_…` or `pay_…`.
    pub charge_ref: String,
    pub amount_minor: i64,
    /// Three capital letters.
    pub currency: String,
    pub standing: RefundStanding,
}

/// How far a refund is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundStanding {
    Pending,
    /// As far as the provider knows: the shopper's bank may still send the money back.
    Succeeded,
    /// The money is ours again.
    Failed {
        reason: Option<String>,
    },
}

/// Sends money back, once, and tells how that stands.
///
/// A repeat finds what an earlier call made, also one whose outcome nobody learned. `Rejected` and
/// `Declined` are final: the provider has no such refund, and asking again changes nothing. With
/// [`KEY_EXPIRED`] it is too late to ask under this key, and there is no such refund either. After
/// `Unknown` and `Busy` the same request is worth repeating, under another key if [`is_key_spent`].
pub async fn refund(
    cx: &Context,
    request: &RefundRequest<'_>,
) -> Result<RefundAtProvider, PaymentError> {
    // What was made under an earlier key is not repeated under this one; nor is this one's, if its
    // provider keeps no failures.
    if let Some(made) = find(cx, request).await? {
        return Ok(made);
    }
    if is_past(request.created_at) {
        let code = Some(KEY_EXPIRED.to_owned());
        return Err(CallError::Rejected { status: 404, code }.into());
    }
    let first = ask(cx, request).await;
    if !matches!(first, Err(PaymentError::Provider(CallError::Unknown { .. }))) {
        return first;
    }
    // The same request under the same key is done once, and is told what came of the first.
    ask(cx, request).await
}

/// Whether the provider would repeat the error for as long as it knows the refund's key, although it may
/// say something else by then. It has no such refund, so that the next key makes no second one.
///
/// Stripe keeps failures and refusals under their key (docs.stripe.com, idempotent requests). Razorpay
/// does not say that it does: there the next key might make a second refund while the first request is
/// under way.
pub fn is_key_spent(provider: Provider, error: &CallError) -> bool {
    provider == Provider::Stripe
        && match error {
            CallError::Unknown { answered_5xx, .. } => *answered_5xx,
            CallError::Rejected { code, .. } => code.as_deref() == Some(refusal::DISPUTED),
            CallError::Declined { .. } | CallError::Busy { .. } => false,
        }
}

/// Tells how a refund stands; `None` where the provider has none of this name.
pub async fn look_at_refund(
    cx: &Context,
    provider: Provider,
    provider_ref: &str,
) -> Result<Option<RefundAtProvider>, PaymentError> {
    match provider {
        Provider::Stripe => stripe::look_at_refund(cx, provider_ref).await,
        Provider::Razorpay => razorpay::look_at_refund(cx, provider_ref).await,
    }
}

/// Every refund of a charge, the newest first, whoever made it.
pub async fn refunds_of(
    cx: &Context,
    provider: Provider,
    charge_ref: &str,
) -> Result<Vec<RefundAtProvider>, PaymentError> {
    match provider {
        Provider::Stripe => stripe::refunds_of(cx, charge_ref).await,
        Provider::Razorpay => razorpay::refunds_of(cx, charge_ref).await,
    }
}

/// Asks for the refund, and looks for it where no refund is the answer: an earlier call may have made
/// it, or this one in spite of its answer.
async fn ask(cx: &Context, request: &RefundRequest<'_>) -> Result<RefundAtProvider, PaymentError> {
    let made = match request.provider {
        Provider::Stripe => stripe::refund(cx, request).await,
        Provider::Razorpay => razorpay::refund(cx, request).await,
    };
    let Err(PaymentError::Provider(error)) = made else { return made };
    if matches!(error, CallError::Busy { .. }) {
        return Err(error.into());
    }
    find(cx, request).await?.ok_or_else(|| error.into())
}

/// Finds the refund by the id that we gave it.
///
/// What becomes of the search becomes of no refund, unless the provider does not know the charge.
async fn find(
    cx: &Context,
    request: &RefundRequest<'_>,
) -> Result<Option<RefundAtProvider>, PaymentError> {
    let refunds = match refunds_of(cx, request.provider, request.charge_ref).await {
        Err(PaymentError::Provider(error))
            if !error.is_not_found() && !matches!(error, CallError::Busy { .. }) =>
        {
            return Err(unreadable(&error.to_string()).into());
        }
        refunds => refunds?,
    };
    Ok(refunds.into_iter().find(|refund| refund.refund_id == Some(request.refund_id)))
}
