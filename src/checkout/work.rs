//! The checkout's part of the background: the reaper's steps, and the jobs about payments.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use jobs::checkout::{
    CancelPayment, CapturePayment, RefundPayment, ReviewDispute, ReviewPayment, ReviewRefund,
    ReviewRefundsOf, SettleEvent,
};
use uuid::Uuid;

use super::{
    CheckoutError, cancel_payment, capture_payment, expire_overdue, refund_payment, review_dispute,
    review_payment, review_refund, review_refunds_of, settle_events,
};
use crate::{
    context::Context,
    idempotency,
    kernel::{EventId, Fault},
    orders,
    payments::{PaymentError, Provider, UnknownProvider, inbox},
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

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        ask(claimed, question_of_payment, async |asked: Asked| {
            review_payment(cx, asked.provider, &asked.name, &asked.events).await
        })
        .await
    }
}

fn question_of_payment(job: &ReviewPayment) -> Question {
    Question::new(&job.provider, &job.provider_ref, job.event_id)
}

impl Handle for ReviewDispute {
    const LIMIT: Duration = CALLS_LIMIT;

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        ask(claimed, question_of_dispute, async |asked: Asked| {
            review_dispute(cx, asked.provider, &asked.name, &asked.events).await.map(drop)
        })
        .await
    }
}

fn question_of_dispute(job: &ReviewDispute) -> Question {
    Question::new(&job.provider, &job.provider_ref, job.event_id)
}

impl Handle for ReviewRefund {
    const LIMIT: Duration = CALLS_LIMIT;

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        ask(claimed, question_of_refund, async |asked: Asked| {
            review_refund(cx, asked.provider, &asked.name, &asked.events).await.map(drop)
        })
        .await
    }
}

fn question_of_refund(job: &ReviewRefund) -> Question {
    Question::new(&job.provider, &job.provider_ref, job.event_id)
}

impl Handle for ReviewRefundsOf {
    const LIMIT: Duration = CALLS_LIMIT;

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        ask(claimed, question_of_charge, async |asked: Asked| {
            review_refunds_of(cx, asked.provider, &asked.name, &asked.events).await.map(drop)
        })
        .await
    }
}

fn question_of_charge(job: &ReviewRefundsOf) -> Question {
    Question::new(&job.provider, &job.charge_ref, job.event_id)
}

/// What a job asks a provider about.
struct Question {
    /// The provider, and its name for the object.
    object: (String, String),
    event_id: Option<EventId>,
}

impl Question {
    fn new(provider: &str, name: &str, event_id: Option<Uuid>) -> Self {
        let object = (provider.to_owned(), name.to_owned());
        Self { object, event_id: event_id.map(EventId::from) }
    }
}

/// A question, and all webhooks that it answers.
struct Asked {
    provider: Provider,
    name: String,
    events: Vec<EventId>,
}

/// Asks about each object once, however many jobs are about it.
async fn ask<J: Handle, Fut>(
    claimed: Vec<Claimed<J>>,
    question: fn(&J) -> Question,
    review: impl Fn(Asked) -> Fut + Send + Sync,
) -> Vec<Verdict>
where
    Fut: Future<Output = Result<(), CheckoutError>> + Send,
{
    let mut events = BTreeMap::<_, Vec<EventId>>::new();
    let (mut objects, mut firsts) = (Vec::new(), Vec::new());
    for claimed in claimed {
        let Question { object, event_id } = question(&claimed.job);
        objects.push(object.clone());
        match events.entry(object) {
            Entry::Occupied(known) => known.into_mut().extend(event_id),
            Entry::Vacant(new) => {
                new.insert(event_id.into_iter().collect());
                firsts.push(claimed);
            }
        }
    }
    let asked: Vec<_> = firsts.iter().map(|first| question(&first.job).object).collect();
    let verdicts = each(firsts, |job| {
        let object = question(&job).object;
        let events = events.get(&object).cloned().unwrap_or_default();
        let (provider, name) = object;
        let answer = provider.parse().map(|provider| review(Asked { provider, name, events }));
        async {
            match answer {
                Ok(answer) => verdict(answer.await),
                Err(UnknownProvider) => Verdict::Dead("no provider has this name".to_owned()),
            }
        }
    })
    .await;
    let verdicts: BTreeMap<_, _> = asked.into_iter().zip(verdicts).collect();
    objects.iter().filter_map(|object| verdicts.get(object).cloned()).collect()
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

impl Handle for RefundPayment {
    const LIMIT: Duration = CALLS_LIMIT;

    async fn handle(cx: &Context, claimed: Vec<Claimed<Self>>) -> Vec<Verdict> {
        each(claimed, async |job: Self| verdict(refund_payment(cx, job.refund_id.into()).await))
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
