//! Judging webhooks once more, after whatever kept them from being acted on was mended.

use jobs::{
    Delay,
    checkout::{SettleEvent, keys_of_event},
    ledger,
};
use sqlx::{PgConnection, PgPool};

use super::store;
use crate::{
    kernel::{EventId, rerun},
    payments::findings,
};

/// Lets the webhooks be judged anew that are parked, or that nobody has finished; returns which. The
/// bodies of the others are forgotten.
///
/// Nobody is woken for them: the reaper sees to it.
pub async fn replay(db: &PgPool, ids: &[EventId]) -> sqlx::Result<Vec<EventId>> {
    rerun(|| replay_once(db, ids), |error| Some(error)).await
}

async fn replay_once(db: &PgPool, ids: &[EventId]) -> sqlx::Result<Vec<EventId>> {
    let mut tx = db.begin().await?;
    let reopened = write(&mut tx, ids).await?;
    tx.commit().await?;
    Ok(reopened)
}

async fn write(tx: &mut PgConnection, ids: &[EventId]) -> sqlx::Result<Vec<EventId>> {
    let reopened = store::reopen(&mut *tx, ids).await?;
    for id in &reopened {
        let subject = id.to_string();
        findings::store::settle(&mut *tx, findings::Kind::ParkedWebhook, &subject).await?;
    }
    // A job is staged once for each webhook, unless the earlier one is forgotten.
    let keys: Vec<_> = reopened.iter().flat_map(|id| keys_of_event(id.uuid())).collect();
    ledger::forget(&mut *tx, &keys).await?;
    let work: Vec<_> = reopened.iter().map(|id| SettleEvent { event_id: id.uuid() }).collect();
    jobs::stage(tx, &work, Delay::NONE).await?;
    Ok(reopened)
}
