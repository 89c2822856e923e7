//! Every statement on `provider_events`. Each is one for a whole slice.

use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Entry, Outcome, Received, State, StoredEvent};
use crate::{kernel::EventId, payments::Provider};

/// Puts the webhooks into the inbox; returns those that were not there, under this or another name.
pub(super) async fn insert(
    tx: impl PgExecutor<'_>,
    slice: &[Received],
) -> sqlx::Result<Vec<EventId>> {
    let kinds: Vec<&str> = slice.iter().map(|event| &*event.kind).collect();
    let bodies: Vec<&[u8]> = slice.iter().map(|event| event.body.as_ref()).collect();
    let Columns { ids, providers, event_ids, hashes } = columns(slice);
    // Sorted by name, so that two slices with the same events cannot deadlock.
    sqlx::query_scalar!(
        r#"
        INSERT INTO provider_events (id, provider, event_id, body_sha256, kind, raw)
        SELECT event.id, event.provider, event.event_id, event.body_sha256, event.kind, event.raw
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::bytea[])
            WITH ORDINALITY AS event (id, provider, event_id, body_sha256, kind, raw, place)
        ORDER BY event.provider, event.event_id, event.place
        ON CONFLICT DO NOTHING
        RETURNING id
        "#,
        &ids,
        &providers as &[&str],
        &event_ids as &[&str],
        &hashes as &[&[u8]],
        &kinds as &[&str],
        &bodies as &[&[u8]],
    )
    .fetch_all(tx)
    .await
}

/// Finds those of the webhooks whose name is in the inbox with another body.
pub(super) async fn altered(
    db: impl PgExecutor<'_>,
    slice: &[Received],
) -> sqlx::Result<Vec<EventId>> {
    let Columns { ids, providers, event_ids, hashes } = columns(slice);
    let ids = sqlx::query_scalar!(
        r#"
        SELECT event.id AS "id!"
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[])
            AS event (id, provider, event_id, body_sha256)
        JOIN provider_events AS stored
            ON stored.provider = event.provider AND stored.event_id = event.event_id
        WHERE stored.body_sha256 <> event.body_sha256
        "#,
        &ids,
        &providers as &[&str],
        &event_ids as &[&str],
        &hashes as &[&[u8]],
    )
    .fetch_all(db)
    .await?;
    Ok(ids.into_iter().map(EventId::from).collect())
}

/// The names of those of the webhooks that are in the inbox, whatever they hold.
pub(super) async fn known(
    db: impl PgExecutor<'_>,
    slice: &[Received],
) -> sqlx::Result<Vec<String>> {
    let Columns { providers, event_ids, .. } = columns(slice);
    sqlx::query_scalar!(
        r#"
        SELECT stored.event_id
        FROM unnest($1::text[], $2::text[]) AS event (provider, event_id)
        JOIN provider_events AS stored USING (provider, event_id)
        "#,
        &providers as &[&str],
        &event_ids as &[&str],
    )
    .fetch_all(db)
    .await
}

struct Columns<'a> {
    ids: Vec<Uuid>,
    providers: Vec<&'static str>,
    event_ids: Vec<&'a str>,
    hashes: Vec<&'a [u8]>,
}

fn columns(slice: &[Received]) -> Columns<'_> {
    Columns {
        ids: slice.iter().map(|event| event.id.uuid()).collect(),
        providers: slice.iter().map(|event| event.provider.name()).collect(),
        event_ids: slice.iter().map(|event| &*event.event_id).collect(),
        hashes: slice.iter().map(|event| &event.sha256[..]).collect(),
    }
}

/// Reads those of the webhooks that nobody has finished, the oldest first.
pub async fn load(db: impl PgExecutor<'_>, ids: &[EventId]) -> sqlx::Result<Vec<StoredEvent>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, provider, kind, raw
        FROM provider_events
        WHERE id = ANY ($1) AND state = 'new'
        ORDER BY id
        "#,
        &uuids(ids.iter()),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            let provider = provider(&row.provider)?;
            Ok(StoredEvent { id: row.id, provider, kind: row.kind, body: row.raw.into() })
        })
        .collect()
}

/// Whether one of the webhooks came within the last hour and is not finished.
pub async fn are_young(db: impl PgExecutor<'_>, ids: &[EventId]) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT FROM provider_events
            WHERE id = ANY ($1) AND state = 'new' AND received_at > now() - interval '1 hour'
        ) AS "are_young!"
        "#,
        &uuids(ids.iter()),
    )
    .fetch_one(db)
    .await
}

/// Notes what became of the webhooks; one that is finished already stays as it is. Returns how many
/// were not.
///
/// A body names people and may hold what a browser pays with: only of parked ones is it kept.
pub async fn finish(tx: impl PgExecutor<'_>, outcomes: &[(EventId, Outcome)]) -> sqlx::Result<u64> {
    let states: Vec<&str> = outcomes.iter().map(|(_, outcome)| outcome.state().name()).collect();
    let reasons: Vec<Option<&str>> = outcomes.iter().map(|(_, outcome)| outcome.reason()).collect();
    // Locked in one order, so that two workers with the same events cannot deadlock.
    let finished = sqlx::query!(
        r#"
        WITH open AS (
            SELECT id
            FROM provider_events
            WHERE id = ANY ($1) AND state = 'new'
            ORDER BY id
            FOR NO KEY UPDATE
        )
        UPDATE provider_events AS event
        SET state = outcome.state,
            reason = outcome.reason,
            raw = CASE WHEN outcome.state = 'parked' THEN event.raw ELSE '' END,
            finished_at = now()
        FROM open
        JOIN unnest($1::uuid[], $2::text[], $3::text[]) AS outcome (id, state, reason) USING (id)
        WHERE event.id = open.id
        "#,
        &uuids(outcomes.iter().map(|(id, _)| id)),
        &states as &[&str],
        &reasons as &[Option<&str>],
    )
    .execute(tx)
    .await?;
    Ok(finished.rows_affected())
}

/// A webhook that is judged anew, and what it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reopened {
    pub id: EventId,
    pub state: String,
    /// Why it was parked.
    pub reason: Option<String>,
}

/// Lets the webhooks be judged anew whose bodies are kept; returns which.
pub(super) async fn reopen(
    tx: impl PgExecutor<'_>,
    ids: &[EventId],
) -> sqlx::Result<Vec<Reopened>> {
    sqlx::query_as!(
        Reopened,
        r#"
        UPDATE provider_events
        SET state = 'new', reason = NULL, finished_at = NULL
        FROM (
            SELECT id, state, reason
            FROM provider_events
            WHERE id = ANY ($1) AND state IN ('new', 'parked')
            ORDER BY id
            FOR NO KEY UPDATE
        ) AS was
        WHERE provider_events.id = was.id
        RETURNING was.id, was.state, was.reason
        "#,
        &uuids(ids.iter()),
    )
    .fetch_all(tx)
    .await
}

/// The parked webhooks, of the kind if one is named, those first that were parked first: one that is parked
/// again goes to the end.
pub async fn parked(
    db: impl PgExecutor<'_>,
    kind: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<EventId>> {
    sqlx::query_scalar!(
        r#"
        SELECT id
        FROM provider_events
        WHERE state = 'parked' AND ($1::text IS NULL OR kind = $1)
        ORDER BY finished_at, id
        LIMIT $2
        "#,
        kind,
        limit,
    )
    .fetch_all(db)
    .await
}

/// How long a finished webhook is known: the providers repeat theirs for days, a person for a month.
const KEPT_DAYS: i32 = 90;

/// Forgets up to `limit` webhooks that were finished long ago; returns how many. Parked ones stay.
pub async fn purge(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM provider_events
        WHERE id IN (
            SELECT id
            FROM provider_events
            WHERE state IN ('done', 'ignored') AND finished_at < now() - make_interval(days => $1)
            ORDER BY finished_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        )
        "#,
        KEPT_DAYS,
        limit,
    )
    .execute(db)
    .await?;
    Ok(purged.rows_affected())
}

/// The longest list of [`list`].
pub const LIST_MAX: i64 = 100;

/// Lists the webhooks in that state, the newest first; at most [`LIST_MAX`] of them.
pub async fn list(db: impl PgExecutor<'_>, state: State, limit: i64) -> sqlx::Result<Vec<Entry>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, provider, event_id, kind, reason, received_at, finished_at
        FROM provider_events
        WHERE state = $1
        ORDER BY id DESC
        LIMIT $2
        "#,
        state.name(),
        limit.clamp(1, LIST_MAX),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Entry {
                id: row.id,
                provider: provider(&row.provider)?,
                event_id: row.event_id,
                kind: row.kind,
                state,
                reason: row.reason,
                received_at: row.received_at,
                finished_at: row.finished_at,
            })
        })
        .collect()
}

fn provider(name: &str) -> sqlx::Result<Provider> {
    name.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn uuids<'a>(ids: impl Iterator<Item = &'a EventId>) -> Vec<Uuid> {
    ids.map(|id| id.uuid()).collect()
}
