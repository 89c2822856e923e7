//! Judging webhooks once more, after whatever kept them from being acted on was mended.

use jobs::{
    Delay,
    checkout::{SettleEvent, keys_of_event},
    ledger,
};
use sqlx::PgConnection;

use super::store::{self, Reopened};
use crate::{kernel::EventId, payments::findings};

/// Lets the webhooks be judged anew that are parked, or that nobody has finished; returns which. The
/// bodies of the others are forgotten.
///
/// Nobody is woken for them: the reaper sees to it.
pub async fn replay(tx: &mut PgConnection, ids: &[EventId]) -> sqlx::Result<Vec<Reopened>> {
    let reopened = store::reopen(&mut *tx, ids).await?;
    for event in &reopened {
        let subject = event.id.to_string();
        findings::store::settle(&mut *tx, findings::Kind::ParkedWebhook, &subject).await?;
    }
    let ids: Vec<_> = reopened.iter().map(|event| event.id.uuid()).collect();
    // A job is staged once for each webhook, unless the earlier one is forgotten.
    let keys: Vec<_> = ids.iter().flat_map(|id| keys_of_event(*id)).collect();
    ledger::forget(&mut *tx, &keys).await?;
    let work: Vec<_> = ids.into_iter().map(|event_id| SettleEvent { event_id }).collect();
    jobs::stage(tx, &work, Delay::NONE).await?;
    Ok(reopened)
}
