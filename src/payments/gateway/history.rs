//! What happened at a provider, for whoever may not have been told.

use std::fmt;

use time::{Duration, OffsetDateTime};

use super::{razorpay, stripe};
use crate::{
    clients::CallError,
    context::Context,
    payments::{PaymentError, Provider},
};

/// By how much a time is shortened in which too much happened.
const SHORTER: i32 = 4;

/// What happened at a provider.
#[derive(Debug)]
pub struct History {
    /// The oldest first.
    pub happened: Vec<Happened>,
    /// How far it goes: to the end of the time that was asked for, unless too much happened in it.
    pub until: OffsetDateTime,
}

/// Something that happened at a provider.
#[derive(Clone, PartialEq, Eq)]
pub enum Happened {
    /// An event of Stripe as its webhook shows it, but for the order of the fields.
    Event { body: Vec<u8> },
    /// An order of Razorpay (`order_…`) for which money was set aside or collected. `charges` are its
    /// names for what was collected.
    Payment { provider_ref: String, charges: Vec<String> },
    /// A refund of Razorpay was made.
    Refund { provider_ref: String },
    /// A dispute was opened at Razorpay.
    Dispute { provider_ref: String },
}

/// Tells what happened from `from` to `to`.
///
/// A thousand events of Stripe at most, or a thousand payments, refunds and disputes each of Razorpay:
/// ask again from [`History::until`] for what is left. Both ends are rounded to whole seconds and
/// belong to the time, and the provider's clock may be behind ours: whoever asks again later should
/// begin some minutes before the last end, and is then told some things twice. Stripe forgets events
/// after 30 days. Razorpay lists what it made then, as it is now; what became later of something older
/// is not told.
pub async fn happened_since(
    cx: &Context,
    provider: Provider,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<History, PaymentError> {
    let mut until = to;
    loop {
        let happened = match provider {
            Provider::Stripe => stripe::happened(cx, from, until).await?,
            Provider::Razorpay => razorpay::happened(cx, from, until).await?,
        };
        if let Some(happened) = happened {
            return Ok(History { happened, until });
        }
        let time = until - from;
        if time <= Duration::SECOND {
            let why = "too much happened in a second".to_owned();
            return Err(CallError::Unknown { why, answered_5xx: false }.into());
        }
        // The lists begin with the newest: only a shorter time shows the oldest.
        until = from + (time / SHORTER).max(Duration::SECOND);
    }
}

/// A body names people, and may hold what a browser pays with.
impl fmt::Debug for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { body } => write!(f, "Event({} bytes)", body.len()),
            Self::Payment { provider_ref, charges } => {
                write!(f, "Payment({provider_ref}, {charges:?})")
            }
            Self::Refund { provider_ref } => write!(f, "Refund({provider_ref})"),
            Self::Dispute { provider_ref } => write!(f, "Dispute({provider_ref})"),
        }
    }
}
