//! Money that goes back.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{is_past, razorpay, stripe, unreadable};
use crate::{
    clients::CallError,
    context::Context,
    payments::{PaymentError, Provider},
};

/// What a provider calls a refund that it has not, under a key that it may have forgotten.
pub const KEY_EXPIRED: &str = "key_expired";

/// As many keys as one refund may use up: after that the provider is left alone for a day.
const KEYS_MAX: u32 = 3;

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
    /// When the key was made.
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
/// `Unknown` and `Busy` the same request is worth repeating.
pub async fn refund(
    cx: &Context,
    request: &RefundRequest<'_>,
) -> Result<RefundAtProvider, PaymentError> {
    let is_expired = is_past(request.created_at);
    // Razorpay does not say that it keeps a failure under its key: the key alone might let a repeat
    // send the money twice.
    if (is_expired || request.provider == Provider::Razorpay)
        && let Some(made) = find(cx, request).await?
    {
        return Ok(made);
    }
    if is_expired {
        let code = Some(KEY_EXPIRED.to_owned());
        return Err(CallError::Rejected { status: 404, code }.into());
    }
    let mut key = request.key.to_owned();
    let mut used = 1;
    loop {
        let first = ask(cx, request, &key).await;
        if !is_unknown(&first) {
            return first;
        }
        // The same request under the same key is done once, and is told what came of the first.
        let second = ask(cx, request, &key).await;
        // A failure is kept under its key and would be repeated for a day. Nothing came of it, so that
        // another key makes no second refund; after a silence the first may still be made.
        if used == KEYS_MAX || !is_failure(&second) {
            return second;
        }
        // Whoever repeats this goes through the same keys, and learns of each what came of it.
        used += 1;
        key = format!("{}-{used}", request.key);
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
async fn ask(
    cx: &Context,
    request: &RefundRequest<'_>,
    key: &str,
) -> Result<RefundAtProvider, PaymentError> {
    let made = match request.provider {
        Provider::Stripe => stripe::refund(cx, request, key).await,
        Provider::Razorpay => razorpay::refund(cx, request, key).await,
    };
    let Err(PaymentError::Provider(error)) = made else { return made };
    if matches!(error, CallError::Busy { .. }) {
        return Err(error.into());
    }
    find(cx, request).await?.ok_or_else(|| error.into())
}

/// Finds the refund by the id that we gave it.
///
/// An unknown outcome of the search is none of the refund's.
async fn find(
    cx: &Context,
    request: &RefundRequest<'_>,
) -> Result<Option<RefundAtProvider>, PaymentError> {
    let refunds = match refunds_of(cx, request.provider, request.charge_ref).await {
        Err(PaymentError::Provider(CallError::Unknown { why, .. })) => {
            return Err(unreadable(&why).into());
        }
        refunds => refunds?,
    };
    Ok(refunds.into_iter().find(|refund| refund.refund_id == Some(request.refund_id)))
}

const fn is_unknown(result: &Result<RefundAtProvider, PaymentError>) -> bool {
    matches!(result, Err(PaymentError::Provider(CallError::Unknown { .. })))
}

/// Whether the provider answered that it was at a loss.
const fn is_failure(result: &Result<RefundAtProvider, PaymentError>) -> bool {
    matches!(result, Err(PaymentError::Provider(CallError::Unknown { answered_5xx: true, .. })))
}
