//! The providers' own lists of what happened: they name what has no row here.

use std::collections::HashSet;

use jobs::{
    Delay, Staged,
    checkout::{ReviewDispute, ReviewPayment, ReviewRefund},
};
use sqlx::PgConnection;
use time::Duration;
use tokio::time::Instant;

use super::{Found, end_of_round, offered, tell};
use crate::{
    checkout::CheckoutError,
    context::Context,
    kernel::rerun,
    payments::{
        Provider, disputes,
        gateway::{Happened, History, happened_since},
        inbox,
        reconciliation::{Reading, store},
        refunds,
        store::captures_known,
    },
};

/// How much is read first, and noted before there is more: whatever waits, a round gets on. A reading that
/// comes in time is no longer.
const PIECE: Duration = Duration::minutes(15);

/// After a piece with less in it the next one is twice as long. In a list there is room for four times
/// as much.
const FEW: usize = 250;

/// How many old readings are forgotten with a new one: more than come.
const PURGE_SLICE: i64 = 10;

/// What came of reading a provider's lists.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    pub listed: usize,
    /// What nobody had told us.
    pub found: usize,
}

/// Reads the lists that are due, each by one process.
pub async fn reconcile_lists(cx: &Context) -> Result<(), CheckoutError> {
    let round_end = end_of_round();
    let readings = offered(cx).map(async |provider| {
        if let Some(reading) = store::claim(&cx.db, provider).await? {
            read_list(cx, &reading, round_end).await?;
        }
        Ok(())
    });
    futures_util::future::join_all(readings).await.into_iter().collect()
}

/// Reads what happened at the provider and sees to it that what is unknown here will be worked on:
/// Stripe's events as if their webhooks had come, Razorpay's objects by asking how they stand.
///
/// After `round_end` what is left is due at once. Whoever is cut off has noted all pieces but the last.
/// A repeat finds nothing that was found before, but what is being worked on at Razorpay.
pub async fn read_list(
    cx: &Context,
    reading: &Reading,
    round_end: Instant,
) -> Result<Listed, CheckoutError> {
    let Reading { provider, mut from, until } = *reading;
    let mut length = PIECE;
    let mut total = Listed::default();
    loop {
        let history = happened_since(cx, provider, from, until.min(from + length)).await?;
        let History { happened, until: end } = history;
        let listed = happened.len();
        let piece = Reading { provider, from, until: end };
        let found = match provider {
            Provider::Stripe => take_events(cx, &piece, happened).await?,
            Provider::Razorpay => take_names(cx, &piece, happened).await?,
        };
        total.listed += listed;
        total.found += found;
        if end >= until {
            return Ok(total);
        }
        if Instant::now() > round_end {
            store::read_now(&cx.db, provider, None).await?;
            return Ok(total);
        }
        length = (end - from) * if listed < FEW { 2 } else { 1 };
        from = end;
    }
}

/// Puts the events into the inbox that no webhook has brought; returns how many.
async fn take_events(
    cx: &Context,
    reading: &Reading,
    happened: Vec<Happened>,
) -> Result<usize, CheckoutError> {
    let listed = happened.len();
    let bodies = happened.into_iter().filter_map(|happened| match happened {
        Happened::Event { body } => Some(body),
        Happened::Payment { .. } | Happened::Refund { .. } | Happened::Dispute { .. } => None,
    });
    let found = inbox::receive_listed(cx, bodies.collect()).await?;
    tell(Found::Event, reading.provider, found);
    let nothing = Unknown::default();
    rerun(|| note(cx, reading, &nothing, Listed { listed, found }), CheckoutError::database)
        .await?;
    Ok(found)
}

/// Has the provider asked about the objects that are unknown here; returns how many.
async fn take_names(
    cx: &Context,
    reading: &Reading,
    happened: Vec<Happened>,
) -> Result<usize, CheckoutError> {
    let listed = happened.len();
    let unknown = unknown(cx, reading.provider, happened).await?;
    let found = unknown.count();
    rerun(|| note(cx, reading, &unknown, Listed { listed, found }), CheckoutError::database)
        .await?;
    tell(Found::Money, reading.provider, unknown.payments.len());
    tell(Found::Refund, reading.provider, unknown.refunds.len());
    tell(Found::Dispute, reading.provider, unknown.disputes.len());
    Ok(found)
}

/// What is to be asked about.
#[derive(Default)]
struct Unknown {
    payments: Vec<ReviewPayment>,
    refunds: Vec<ReviewRefund>,
    disputes: Vec<ReviewDispute>,
}

impl Unknown {
    fn count(&self) -> usize {
        self.payments.len() + self.refunds.len() + self.disputes.len()
    }
}

/// What of it has no row here. Money that is set aside is found with its attempt.
async fn unknown(
    cx: &Context,
    provider: Provider,
    happened: Vec<Happened>,
) -> Result<Unknown, CheckoutError> {
    let names = happened.iter().flat_map(|happened| match happened {
        Happened::Payment { charges, .. } => {
            charges.iter().map(|name| (provider, &**name)).collect()
        }
        Happened::Event { .. } | Happened::Refund { .. } | Happened::Dispute { .. } => Vec::new(),
    });
    let captures = captures_known(&cx.db, &[], &names.collect::<Vec<_>>()).await?;
    let captures: HashSet<_> = captures.into_iter().map(|capture| capture.charge_ref).collect();
    let mut unknown = Unknown::default();
    for happened in happened {
        let (name, event_id) = (provider.name().to_owned(), None);
        match happened {
            Happened::Payment { provider_ref, charges } => {
                if charges.iter().any(|charge| !captures.contains(charge)) {
                    unknown.payments.push(ReviewPayment { provider: name, provider_ref, event_id });
                }
            }
            Happened::Refund { provider_ref } => {
                let known = refunds::store::find_by_ref(&cx.db, provider, &provider_ref).await?;
                if known.is_none() {
                    unknown.refunds.push(ReviewRefund { provider: name, provider_ref, event_id });
                }
            }
            Happened::Dispute { provider_ref } => {
                let known = disputes::store::find_by_ref(&cx.db, provider, &provider_ref).await?;
                if known.is_none() {
                    unknown.disputes.push(ReviewDispute { provider: name, provider_ref, event_id });
                }
            }
            Happened::Event { .. } => {}
        }
    }
    Ok(unknown)
}

/// Notes how far the lists were read, and stages what follows from it.
async fn note(
    cx: &Context,
    reading: &Reading,
    unknown: &Unknown,
    listed: Listed,
) -> Result<(), CheckoutError> {
    let mut tx = cx.db.begin().await?;
    let staged = match write(&mut tx, reading, unknown, listed).await {
        Ok(staged) => staged,
        Err(error) => {
            // Not left to the drop, which would keep the cursor locked while the next attempt asks for it.
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
    reading: &Reading,
    unknown: &Unknown,
    listed: Listed,
) -> sqlx::Result<Staged> {
    store::advance(&mut *tx, reading).await?;
    store::record(&mut *tx, reading, listed.listed, listed.found).await?;
    store::purge(&mut *tx, PURGE_SLICE).await?;
    let mut staged = jobs::stage(&mut *tx, &unknown.payments, Delay::NONE).await?;
    staged.merge(jobs::stage(&mut *tx, &unknown.refunds, Delay::NONE).await?);
    staged.merge(jobs::stage(tx, &unknown.disputes, Delay::NONE).await?);
    Ok(staged)
}
