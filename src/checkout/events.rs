//! Acting on the webhooks of the inbox: what a webhook proves is settled, the rest is looked up at
//! its provider.

use std::collections::HashMap;

use jobs::checkout::ReviewPayment;
use sqlx::PgConnection;

use super::{
    CheckoutError,
    settle::{Settled, Settlement, settle},
};
use crate::{
    context::Context,
    kernel::{EventId, failpoint, rerun},
    payments::{
        News, Provider, gateway,
        inbox::{self, Outcome, Reading, StoredEvent},
    },
};

/// Why an event is ignored whose object we did not make: others may share the account.
const NOT_OURS: &str = "not ours";

/// Acts on the webhooks, and says of each whether it is dealt with.
///
/// Money that they prove is settled in one slice. What cannot be judged from a webhook alone is left
/// to a review, which finishes it. The number of statements does not depend on how many they are.
pub async fn settle_events(cx: &Context, ids: &[EventId]) -> Vec<Result<(), CheckoutError>> {
    let mut failed = match judge_and_settle(cx, ids).await {
        Ok(failed) => failed,
        Err(error) => return vec![Err(error); ids.len()],
    };
    ids.iter().map(|id| failed.remove(id).map_or(Ok(()), Err)).collect()
}

/// The events that are not dealt with, each with the reason.
type Failed = HashMap<EventId, CheckoutError>;

async fn judge_and_settle(cx: &Context, ids: &[EventId]) -> Result<Failed, CheckoutError> {
    let events = inbox::store::load(&cx.db, ids).await?;
    let mut judged = Judged::default();
    for event in &events {
        judged.add(cx, event);
    }
    let Judged { settlements, mut reviews, finished, mut failed } = judged;
    for (settlement, outcome) in settlements.iter().zip(settle(cx, &settlements).await) {
        let Some(event_id) = settlement.event_id else { continue };
        match outcome {
            Ok(Settled::Applied { .. }) => {}
            Ok(Settled::Unknown) => {
                let news = &settlement.news;
                reviews.push(review_of(event_id, news.provider, &news.provider_ref));
            }
            Err(error) => drop(failed.insert(event_id, error)),
        }
    }
    if let Err(error) = note(cx, &finished, &reviews).await {
        let finished = finished.iter().map(|(id, _)| *id);
        let reviewed = reviews.iter().filter_map(|review| review.event_id.map(EventId::from));
        failed.extend(finished.chain(reviewed).map(|id| (id, error.clone())));
    }
    Ok(failed)
}

/// What is to be done about a slice of webhooks.
#[derive(Default)]
struct Judged {
    settlements: Vec<Settlement>,
    reviews: Vec<ReviewPayment>,
    finished: Vec<(EventId, Outcome)>,
    failed: Failed,
}

impl Judged {
    fn add(&mut self, cx: &Context, event: &StoredEvent) {
        let livemode = match gateway::livemode(cx, event.provider) {
            Ok(livemode) => livemode,
            Err(error) => {
                self.failed.insert(event.id, error.into());
                return;
            }
        };
        match inbox::read(event, livemode) {
            Reading::Settle(news) => {
                self.settlements.push(Settlement { news, event_id: Some(event.id) });
            }
            Reading::Review { provider_ref } => {
                self.reviews.push(review_of(event.id, event.provider, &provider_ref));
            }
            Reading::Ignore(reason) => {
                self.finished.push((event.id, Outcome::Ignored(reason.to_owned())));
            }
            Reading::Park(reason) => {
                tracing::error!(event.id = %event.id, event.kind, reason, "a webhook is parked");
                metrics::counter!("webhooks_parked_total", "provider" => event.provider.name())
                    .increment(1);
                self.finished.push((event.id, Outcome::Parked(reason)));
            }
        }
    }
}

fn review_of(event_id: EventId, provider: Provider, provider_ref: &str) -> ReviewPayment {
    ReviewPayment {
        provider: provider.name().to_owned(),
        provider_ref: provider_ref.to_owned(),
        event_id: Some(event_id.uuid()),
    }
}

/// Finishes the events that need no more, and stages the reviews of the others.
async fn note(
    cx: &Context,
    finished: &[(EventId, Outcome)],
    reviews: &[ReviewPayment],
) -> Result<(), CheckoutError> {
    if finished.is_empty() && reviews.is_empty() {
        return Ok(());
    }
    rerun(|| note_once(cx, finished, reviews), CheckoutError::database).await
}

async fn note_once(
    cx: &Context,
    finished: &[(EventId, Outcome)],
    reviews: &[ReviewPayment],
) -> Result<(), CheckoutError> {
    let mut tx = cx.db.begin().await?;
    let staged = match write(&mut tx, finished, reviews).await {
        Ok(staged) => staged,
        Err(error) => {
            // Not left to the drop, which would keep the events locked while the next attempt asks for them.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    };
    tx.commit().await?;
    cx.relay.wake(staged);
    Ok(())
}

async fn write(
    tx: &mut PgConnection,
    finished: &[(EventId, Outcome)],
    reviews: &[ReviewPayment],
) -> sqlx::Result<jobs::Staged> {
    inbox::store::finish(&mut *tx, finished).await?;
    jobs::stage(tx, reviews, jobs::Delay::NONE).await
}

/// Asks the provider how the object stands that the webhooks are about, acts on the answer, and
/// finishes the webhooks. What is not ours is ignored.
pub async fn review_payment(
    cx: &Context,
    provider: Provider,
    provider_ref: &str,
    events: &[EventId],
) -> Result<(), CheckoutError> {
    let news = gateway::look_up(cx, provider, provider_ref).await?;
    failpoint::pass("review.after-call");
    let Some(news) = news else { return ignore(cx, events).await };
    let mut settlements: Vec<_> =
        events.iter().map(|&id| Settlement { news: news.clone(), event_id: Some(id) }).collect();
    if settlements.is_empty() {
        settlements.push(Settlement { news, event_id: None });
    }
    for (place, outcome) in settle(cx, &settlements).await.into_iter().enumerate() {
        match outcome? {
            Settled::Applied { .. } => {}
            Settled::Unknown => ignore(cx, events.get(place..=place).unwrap_or_default()).await?,
        }
    }
    Ok(())
}

async fn ignore(cx: &Context, events: &[EventId]) -> Result<(), CheckoutError> {
    let outcomes: Vec<_> =
        events.iter().map(|&id| (id, Outcome::Ignored(NOT_OURS.to_owned()))).collect();
    note(cx, &outcomes, &[]).await
}

/// Settles what a provider said of a payment of ours.
pub(super) async fn settle_news(cx: &Context, news: News) -> Result<(), CheckoutError> {
    let settlement = Settlement { news, event_id: None };
    match settle(cx, &[settlement]).await.pop() {
        Some(Ok(Settled::Applied { .. })) => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(Settled::Unknown)) | None => Err(CheckoutError::NoSuchPayment),
    }
}
