//! How a call to a provider ends.

use std::time::{Duration, Instant};

use super::http::Answer;

/// No provider means a longer pause; a mistaken one must not put a payment to sleep for days.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Longer than any provider's name for an error.
const CODE_MAX: usize = 64;

/// Why a provider did not do what it was asked.
///
/// Nothing of a request or of an answer's text is in it, so it may be logged and stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The payer's bank said no.
    #[error("the payment was declined: {code}")]
    Declined { code: String },
    /// The same request fails for ever.
    #[error("the provider refused the request with {status}{}", named(code.as_deref()))]
    Rejected { status: u16, code: Option<String> },
    /// It may have had its effect. `answered_5xx` says that the provider itself was at a loss, and
    /// it may repeat that answer for as long as it remembers the key.
    #[error("the outcome is unknown: {why}")]
    Unknown { why: String, answered_5xx: bool },
    /// Nothing was done.
    #[error("the provider has no time for the request")]
    Busy { retry_after: Option<Duration> },
}

/// What both clients call the refusals of a refund that somebody acts on. Stripe has names for two of
/// them, Razorpay for none.
pub mod refusal {
    pub const ALREADY_REFUNDED: &str = "charge_already_refunded";
    pub const DISPUTED: &str = "charge_disputed";
    /// More than is left of the charge.
    pub const REFUND_TOO_LARGE: &str = "refund_too_large";
}

impl CallError {
    /// Whether the provider has no such object.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Rejected { status: 404, .. })
    }

    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into(), answered_5xx: false }
    }

    /// What an answer says that is no success, for both providers. `code` is what its body calls it.
    pub(super) fn of(answer: &Answer, code: Option<String>) -> Self {
        match answer.status {
            // The same key or the same object is in another call's hands, or there are too many calls.
            409 | 429 => Self::Busy { retry_after: answer.retry_after },
            503 if answer.retry_after.is_some() => Self::Busy { retry_after: answer.retry_after },
            // Somebody between us and the provider gave up waiting, or sent us elsewhere.
            status @ (..400 | 408 | 424 | 502 | 504) => {
                Self::unknown(format!("answered with {status}"))
            }
            status @ 500.. => {
                Self::Unknown { why: format!("answered with {status}"), answered_5xx: true }
            }
            status => Self::Rejected { status, code },
        }
    }

    const fn outcome(&self) -> &'static str {
        match self {
            Self::Declined { .. } => "declined",
            Self::Rejected { .. } => "rejected",
            Self::Unknown { .. } => "unknown",
            Self::Busy { .. } => "busy",
        }
    }
}

fn named(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

/// The settings of a provider cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAccess {
    #[error("there is no key")]
    NoKey,
    #[error("the URL is not one of a server")]
    Url,
    #[error("the HTTP client cannot be built")]
    Http,
    #[error("the budget's rate is zero or its Redis URL is not one")]
    Budget,
}

/// Makes the call, counts it and takes its time.
pub(super) async fn measured<T>(
    provider: &'static str,
    operation: &'static str,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let begun = Instant::now();
    let result = call.await;
    let outcome = result.as_ref().map_or_else(CallError::outcome, |_| "ok");
    let labels = [("provider", provider), ("operation", operation)];
    metrics::histogram!("provider_call_seconds", &labels).record(begun.elapsed());
    let labels = [("provider", provider), ("operation", operation), ("outcome", outcome)];
    metrics::counter!("provider_calls_total", &labels).increment(1);
    result
}

/// What a provider calls an error, if that is a name: other text could repeat what we sent.
pub(super) fn code(text: Option<String>) -> Option<String> {
    text.filter(|text| is_name(text) && text.len() <= CODE_MAX && text != "NA")
}

/// An object's id as a part of a URL. What is not a name is no provider's, and would change the URL.
pub(super) fn id(text: &str) -> Result<&str, CallError> {
    let missing = CallError::Rejected { status: 404, code: None };
    if is_name(text) { Ok(text) } else { Err(missing) }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A `Retry-After` in seconds.
pub(super) fn retry_after(header: &str) -> Option<Duration> {
    let seconds = header.trim().parse().ok().map(Duration::from_secs)?;
    Some(seconds.min(RETRY_AFTER_MAX))
}
