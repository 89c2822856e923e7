//! Reconciliation: what providers know and nobody told us.
//!
//! Every attempt to pay, refund and dispute without an end is asked about on a growing schedule, and the
//! providers' own lists are read for what has no row here. All of it is settled as if a webhook had told
//! of it, so that what both tell counts once. Any number of processes may do it at the same time.

mod attempts;
mod disputes;
mod lists;
mod refunds;

use std::time::Duration;

pub use attempts::reconcile_attempts;
pub use disputes::reconcile_disputes;
pub use lists::{Listed, read_list, reconcile_lists};
pub use refunds::reconcile_refunds;
use tokio::time::Instant;

use super::CheckoutError;
use crate::{
    clients::CallError,
    context::Context,
    payments::{PaymentError, Provider, gateway},
};

/// How many are taken together: what was taken and not asked about waits for its next look.
const SLICE: i64 = 10;

/// How many are asked about at once: the rest of the provider's budget is for shoppers.
const AT_ONCE: usize = 4;

/// After this time no more are taken: what was is done before the round is cut short.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// The providers that can be asked.
fn offered(cx: &Context) -> impl Iterator<Item = Provider> {
    Provider::ALL.into_iter().filter(|provider| gateway::is_offered(cx, *provider))
}

fn end_of_round() -> Instant {
    Instant::now() + ROUND_MAX
}

/// Whether the provider has said nothing, rather than something that we can do nothing with.
fn is_silence(error: &CheckoutError) -> bool {
    matches!(
        error,
        CheckoutError::Payment(PaymentError::Provider(
            CallError::Unknown { .. } | CallError::Busy { .. }
        ))
    )
}

/// What of a provider's knowledge was new to us.
#[derive(Debug, Clone, Copy)]
enum Found {
    Money,
    Payment,
    Refund,
    Dispute,
    Event,
}

impl Found {
    const fn name(self) -> &'static str {
        match self {
            Self::Money => "money",
            Self::Payment => "payment",
            Self::Refund => "refund",
            Self::Dispute => "dispute",
            Self::Event => "event",
        }
    }
}

/// Counts what nobody had told us: with all webhooks coming in time, next to nothing.
fn tell(found: Found, provider: Provider, count: usize) {
    if count == 0 {
        return;
    }
    let labels = [("kind", found.name()), ("provider", provider.name())];
    metrics::counter!("reconciler_found_total", &labels).increment(count as u64);
    tracing::warn!(kind = found.name(), provider = provider.name(), count, "found by asking");
}
