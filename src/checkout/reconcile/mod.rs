//! Reconciliation: what providers know and nobody told us.
//!
//! Every attempt to pay, refund and dispute without an end is asked about on a growing schedule, and the
//! providers' own lists are read for what has no row here. All of it is settled as if a webhook had told
//! of it, so that what both tell counts once. Any number of processes may do it at the same time.

mod attempts;
mod disputes;
mod lists;
mod refunds;

use std::{fmt::Display, time::Duration};

pub use attempts::reconcile_attempts;
pub use disputes::reconcile_disputes;
use futures_util::{StreamExt, future::join_all, stream};
pub use lists::{Listed, read_list, reconcile_lists};
pub use refunds::reconcile_refunds;
use sqlx::PgPool;
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

/// Something that its provider is asked about until it is over.
trait Looked: Sized {
    type Id: Copy + Display;

    const NAME: &'static str;

    fn id(&self) -> Self::Id;

    /// Whether its provider may still know something new of it.
    fn is_asked_about(&self) -> bool {
        true
    }

    /// Takes what is to be looked at now; each is due again later.
    async fn take_due(db: &PgPool, provider: Provider, limit: i64) -> sqlx::Result<Vec<Self>>;

    /// Asks about it, and acts on the answer.
    async fn ask(&self, cx: &Context) -> Result<(), CheckoutError>;

    /// Lets them be looked at soon: there was no answer.
    async fn look_again(db: &PgPool, ids: &[Self::Id]) -> sqlx::Result<()>;
}

/// Asks the providers about whatever is due, and acts on the answers.
async fn reconcile<T: Looked>(cx: &Context) -> Result<(), CheckoutError> {
    let round_end = end_of_round();
    let rounds = offered(cx).map(|provider| reconcile_at::<T>(cx, provider, round_end));
    // At the same time, so that one that is silent does not delay the other.
    join_all(rounds).await.into_iter().collect()
}

async fn reconcile_at<T: Looked>(
    cx: &Context,
    provider: Provider,
    round_end: Instant,
) -> Result<(), CheckoutError> {
    loop {
        let due = T::take_due(&cx.db, provider, SLICE).await?;
        let is_last = due.len() < usize::try_from(SLICE).unwrap_or(0);
        let asked: Vec<_> = due.into_iter().filter(T::is_asked_about).collect();
        let asked_about = asked.len();
        let answers: Vec<_> = stream::iter(asked)
            .map(|one| async move { (one.id(), one.ask(cx).await) })
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
                tracing::error!(kind = T::NAME, %id, %error, "what was due cannot be reconciled");
            }
            failure = Some(error);
        }
        if !silent.is_empty() {
            T::look_again(&cx.db, &silent).await?;
        }
        // Whoever says nothing at all is left alone until the next round.
        if let Some(error) = failure.filter(|_| silent.len() == asked_about) {
            return Err(error);
        }
        if is_last || Instant::now() > round_end {
            return Ok(());
        }
    }
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
