//! The checkout's part of the background: the reaper's steps, and the jobs about payments.

use std::{collections::BTreeMap, time::Duration};

use jobs::checkout::{CancelPayment, CapturePayment, ReviewPayment, SettleEvent};

use super::{
    CheckoutError, cancel_payment, capture_payment, expire_overdue, review_payment, settle_events,
};
use crate::{
    context::Context,
    idempotency,
    kernel::{EventId, Fault},
    orders,
    payments::{PaymentError, inbox},
    worker::{Claimed, Handle, Verdict, each},
};

/// A wake-up that is this early is one of another clock; the sweep will see to its orders.
const EARLY_MAX: Duration = Duration::from_secs(5);

/// Ends the orders whose deadline is the given second; returns how many orders it ended.
///
/// A wake-up may fire a second early, because its clock is not the database's and knows whole
/// seconds only: it waits until the database agrees that the second has come.
pub async fn deadline(cx: &Context, epoch_second: i64) -> Result<usize, CheckoutError> {
    let ms = orders::store::milliseconds_until(&cx.db, epoch_second).await?;
    let early = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    if early > EARLY_MAX {
        return Ok(0);
    }
    tokio::time::sleep(early).await;
    sweep(cx).await
}

/// Ends every order whose deadline has passed, slice after slice; returns how many.
pub async fn sweep(cx: &Context) -> Result<usize, CheckoutError> {
    let mut ended = 0;
    loop {
        let slice = expire_overdue(cx).await?;
        ended += slice;
        if slice == 0 {
            return Ok(ended);
        }
    }
}

/// How many rows one statement removes: a delete that nobody waits for.
const PURGE_SLICE: i64 = 5_000;

/// Forgets idempotency keys that are older than 48 hours and webhooks that were finished 90 days ago;
/// returns how many.
pub async fn purge(cx: &Context) -> Result<u64, CheckoutError> {
    let keys = idempotency::purge(&cx.db, PURGE_SLICE).await?;
    Ok(keys + inbox::store::purge(&cx.db, PURGE_SLICE).await?)
}

/// How long a wake-up's calls to providers may take: each a few seconds, a few at once.
const CALLS_LIMIT: Duration = Duration::from_mins(1);

impl Handle for SettleEvent {
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        let ids: Vec<_> =
            claimed.iter().map(|claimed| EventId::from(claimed.job.event_id)).collect();
        settle_events(cx, &ids).await.into_iter().map(verdict).collect()
    }
}

impl Handle for ReviewPayment {
    const LIMIT: Duration = CALLS_LIMIT;

    /// Jobs about one object are one question.
    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        let objects: Vec<_> = claimed.iter().map(|claimed| object(&claimed.job)).collect();
        let mut events = BTreeMap::<_, Vec<EventId>>::new();
        let mut questions = Vec::new();
        for claimed in claimed {
            let events = events.entry(object(&claimed.job));
            let is_first = matches!(events, std::collections::btree_map::Entry::Vacant(_));
            events.or_default().extend(claimed.job.event_id.map(EventId::from));
            if is_first {
                questions.push(claimed);
            }
        }
        let asked: Vec<_> = questions.iter().map(|question| object(&question.job)).collect();
        let verdicts = each(questions, async |job: Self| {
            let events = events.get(&object(&job)).map_or(&[][..], Vec::as_slice);
            let Ok(provider) = job.provider.parse() else {
                return Verdict::Dead("no provider has this name".to_owned());
            };
            verdict(review_payment(cx, provider, &job.provider_ref, events).await)
        })
        .await;
        let verdicts: BTreeMap<_, _> = asked.into_iter().zip(verdicts).collect();
        objects.iter().filter_map(|object| verdicts.get(object).cloned()).collect()
    }
}

/// What a review is about.
fn object(job: &ReviewPayment) -> (String, String) {
    (job.provider.clone(), job.provider_ref.clone())
}

impl Handle for CancelPayment {
    const LIMIT: Duration = CALLS_LIMIT;

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| verdict(cancel_payment(cx, job.payment_id.into()).await))
            .await
    }
}

impl Handle for CapturePayment {
    const LIMIT: Duration = CALLS_LIMIT;

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| {
            verdict(capture_payment(cx, job.payment_id.into(), &job.charge_ref).await)
        })
        .await
    }
}

/// The verdict of the error's class, but for a provider that this process has no account with: a
/// setting will mend it.
fn verdict(outcome: Result<(), CheckoutError>) -> Verdict {
    match outcome {
        Err(error @ CheckoutError::Payment(PaymentError::ProviderNotOffered)) => {
            Verdict::Later { delay: None, error: format!("{}: {error}", error.code()) }
        }
        outcome => outcome.into(),
    }
}
