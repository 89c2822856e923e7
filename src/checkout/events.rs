//! Acting on the webhooks of the inbox: what a webhook proves is settled, the rest is looked up at
//! its provider.

use std::collections::HashMap;

use jobs::{
    Delay,
    checkout::{ReviewDispute, ReviewPayment, ReviewRefund, ReviewRefundsOf},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    CheckoutError,
    settle::{Settled, Settlement, settle},
    withdraw::unanswered,
};
use crate::{
    context::Context,
    kernel::{self, EventId, failpoint, rerun},
    orders,
    payments::{
        Charge, News, Provider, Standing,
        findings::{self, store::NewFinding},
        gateway,
        inbox::{self, Outcome, Reading, StoredEvent},
        store::{Capture, captures_known, find_capture},
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
    let Judged { settlements, mut notes, mut failed } = judged;
    for (settlement, outcome) in settlements.iter().zip(settle(cx, &settlements).await) {
        let Some(event_id) = settlement.event_id else { continue };
        match outcome {
            Ok(Settled::Applied { .. }) => {}
            Ok(Settled::Unknown) => {
                let News { provider, provider_ref, .. } = &settlement.news;
                notes.review(event_id, *provider, About::Payment(provider_ref.clone()));
            }
            Err(error) => drop(failed.insert(event_id, error)),
        }
    }
    if let Err(error) = note(cx, &notes).await {
        failed.extend(notes.events().map(|id| (id, error.clone())));
    }
    Ok(failed)
}

/// What is to be done about a slice of webhooks.
#[derive(Default)]
struct Judged {
    settlements: Vec<Settlement>,
    notes: Notes,
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
        let about = match inbox::read(event, livemode, kernel::time::now()) {
            Reading::Settle(news) => {
                self.settlements.push(Settlement { news, event_id: Some(event.id) });
                return;
            }
            Reading::Ignore(reason) => {
                self.notes.finished.push((event.id, Outcome::Ignored(reason.to_owned())));
                return;
            }
            Reading::Park(reason) => {
                self.notes.park(event, reason);
                return;
            }
            Reading::Review { provider_ref } => About::Payment(provider_ref),
            Reading::ReviewRefund { provider_ref } => About::Refund(provider_ref),
            Reading::ReviewRefundsOf { charge_ref } => About::RefundsOf(charge_ref),
            Reading::ReviewDispute { provider_ref } => About::Dispute(provider_ref),
        };
        self.notes.review(event.id, event.provider, about);
    }
}

/// The provider's name for what a webhook is about.
enum About {
    Payment(String),
    Refund(String),
    RefundsOf(String),
    Dispute(String),
}

/// What is written of webhooks: those that need no more, and the reviews of the others.
#[derive(Default)]
struct Notes {
    finished: Vec<(EventId, Outcome)>,
    findings: Vec<NewFinding>,
    reviewed: Vec<EventId>,
    payments: Vec<ReviewPayment>,
    refunds: Vec<ReviewRefund>,
    refunds_of: Vec<ReviewRefundsOf>,
    disputes: Vec<ReviewDispute>,
}

impl Notes {
    fn park(&mut self, event: &StoredEvent, reason: String) {
        let provider = event.provider.name();
        tracing::error!(event.id = %event.id, event.kind, reason, "a webhook is parked");
        metrics::counter!("webhooks_parked_total", "provider" => provider).increment(1);
        self.findings.push(NewFinding {
            kind: findings::Kind::ParkedWebhook,
            subject: event.id.to_string(),
            order_id: None,
            detail: json!({ "provider": provider, "kind": event.kind, "reason": reason }),
        });
        self.finished.push((event.id, Outcome::Parked(reason)));
    }

    fn review(&mut self, event_id: EventId, provider: Provider, about: About) {
        let provider = provider.name().to_owned();
        self.reviewed.push(event_id);
        let event_id = Some(event_id.uuid());
        match about {
            About::Payment(provider_ref) => {
                self.payments.push(ReviewPayment { provider, provider_ref, event_id });
            }
            About::Refund(provider_ref) => {
                self.refunds.push(ReviewRefund { provider, provider_ref, event_id });
            }
            About::RefundsOf(charge_ref) => {
                self.refunds_of.push(ReviewRefundsOf { provider, charge_ref, event_id });
            }
            About::Dispute(provider_ref) => {
                self.disputes.push(ReviewDispute { provider, provider_ref, event_id });
            }
        }
    }

    /// The webhooks that something is written of.
    fn events(&self) -> impl Iterator<Item = EventId> {
        self.finished.iter().map(|(id, _)| *id).chain(self.reviewed.iter().copied())
    }
}

/// Finishes the events that need no more, and stages the reviews of the others.
async fn note(cx: &Context, notes: &Notes) -> Result<(), CheckoutError> {
    if notes.events().next().is_none() {
        return Ok(());
    }
    rerun(|| note_once(cx, notes), CheckoutError::database).await
}

async fn note_once(cx: &Context, notes: &Notes) -> Result<(), CheckoutError> {
    let mut tx = cx.db.begin().await?;
    let staged = match write(&mut tx, notes).await {
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

async fn write(tx: &mut PgConnection, notes: &Notes) -> sqlx::Result<jobs::Staged> {
    if !notes.finished.is_empty() {
        inbox::store::finish(&mut *tx, &notes.finished).await?;
    }
    if !notes.findings.is_empty() {
        findings::store::open(&mut *tx, &notes.findings).await?;
    }
    let mut staged = jobs::stage(&mut *tx, &notes.payments, Delay::NONE).await?;
    staged.merge(jobs::stage(&mut *tx, &notes.refunds, Delay::NONE).await?);
    staged.merge(jobs::stage(&mut *tx, &notes.refunds_of, Delay::NONE).await?);
    staged.merge(jobs::stage(&mut *tx, &notes.disputes, Delay::NONE).await?);
    Ok(staged)
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
    let Some(news) = news else { return give_up(cx, events).await };
    let mut settlements: Vec<_> =
        events.iter().map(|&id| Settlement { news: news.clone(), event_id: Some(id) }).collect();
    if settlements.is_empty() {
        settlements.push(Settlement { news, event_id: None });
    }
    for (settlement, outcome) in settlements.iter().zip(settle(cx, &settlements).await) {
        match outcome? {
            Settled::Applied { .. } => {}
            Settled::Unknown => {
                report_lost(cx, &settlement.news).await?;
                ignore(cx, settlement.event_id.as_slice()).await?;
            }
        }
    }
    Ok(())
}

/// Tells people of money that was collected for a payment of ours that is not in our books: they were
/// restored from an old backup.
async fn report_lost(cx: &Context, news: &News) -> Result<(), CheckoutError> {
    let (Some(payment_id), Standing::Captured(charges)) = (news.payment_id, &news.standing) else {
        return Ok(());
    };
    let finding = |charge: &Charge| NewFinding {
        kind: findings::Kind::UnknownMoney,
        subject: charge.charge_ref.clone(),
        order_id: None,
        detail: json!({
            "provider": news.provider.name(),
            "provider_ref": news.provider_ref,
            "payment_id": payment_id.uuid(),
            "amount": charge.amount_minor,
            "currency": charge.currency,
        }),
    };
    let found: Vec<_> = charges.iter().map(finding).collect();
    findings::store::open(&cx.db, &found).await?;
    tracing::error!(payment.id = %payment_id, "money was collected for a payment that is unknown here");
    Ok(())
}

/// Ignores the webhooks whose object their provider does not know, or fails while one of them is young:
/// what was told of is there, and may be out of sight for a while.
pub(super) async fn give_up(cx: &Context, events: &[EventId]) -> Result<(), CheckoutError> {
    if !events.is_empty() && inbox::store::are_young(&cx.db, events).await? {
        return Err(unanswered("it does not know what it told of").into());
    }
    ignore(cx, events).await
}

/// Notes of the webhooks that they are about nothing of ours.
pub(super) async fn ignore(cx: &Context, events: &[EventId]) -> Result<(), CheckoutError> {
    let outcome = Outcome::Ignored(NOT_OURS.to_owned());
    let finished = events.iter().map(|&id| (id, outcome.clone())).collect();
    note(cx, &Notes { finished, ..Notes::default() }).await
}

/// The money that we have under the provider's name for it; `None` where it is not ours.
///
/// Where it is not on record its provider is asked about it: news of money may be lost, or come later
/// than news of what became of it.
pub(super) async fn money_under(
    cx: &Context,
    provider: Provider,
    charge_ref: &str,
) -> Result<Option<Capture>, CheckoutError> {
    let charge = [(provider, charge_ref)];
    let known = captures_known(&cx.db, &[], &charge).await?.pop();
    if known.is_some() {
        return Ok(known);
    }
    let Some(news) = gateway::look_up_charge(cx, provider, charge_ref).await? else {
        return Ok(None);
    };
    match settle_news(cx, news).await {
        Ok(()) => Ok(captures_known(&cx.db, &[], &charge).await?.pop()),
        Err(CheckoutError::NoSuchPayment) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Locks the order that the money is for, and returns the money as it stands then: a person may have had
/// it pay another order since it was read.
pub(super) async fn lock_order_of(tx: &mut PgConnection, money: &Capture) -> sqlx::Result<Capture> {
    orders::store::lock(&mut *tx, &[money.order_id]).await?;
    // A statement of its own: only one that starts after the lock sees what the last holder did.
    let now = find_capture(&mut *tx, money.id).await?.ok_or(sqlx::Error::RowNotFound)?;
    if now.order_id != money.order_id {
        // It moves once: under this lock it stays.
        orders::store::lock(tx, &[now.order_id]).await?;
    }
    Ok(now)
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
