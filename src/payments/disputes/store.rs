//! The SQL of disputes.

use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Dispute, State};
use crate::{
    kernel::OrderId,
    payments::{Provider, store::unreadable},
};

/// A dispute as its provider tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDispute {
    pub capture_id: Uuid,
    pub order_id: OrderId,
    pub provider: Provider,
    pub provider_ref: String,
    pub amount_minor: i64,
    pub currency: String,
    pub state: State,
    pub status: String,
    pub reason: Option<String>,
}

/// Writes the dispute, or how it stands now. Its order is locked.
pub async fn upsert(tx: impl PgExecutor<'_>, new: &NewDispute) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO disputes (
            id, capture_id, order_id, provider, provider_ref, amount_minor, currency, state, status,
            reason
        )
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (provider, provider_ref) DO UPDATE
        SET amount_minor = excluded.amount_minor,
            currency = excluded.currency,
            state = excluded.state,
            status = excluded.status,
            reason = excluded.reason,
            told = disputes.told + 1,
            updated_at = now()
        "#,
        Uuid::now_v7(),
        new.capture_id,
        new.order_id.uuid(),
        new.provider.name(),
        new.provider_ref,
        new.amount_minor,
        new.currency,
        new.state.name(),
        new.status,
        new.reason,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The dispute that the provider knows by that name.
pub async fn find_by_ref(
    db: impl PgExecutor<'_>,
    provider: Provider,
    provider_ref: &str,
) -> sqlx::Result<Option<Dispute>> {
    let row = sqlx::query_as!(
        DisputeRow,
        r#"
        SELECT
            id, capture_id, order_id, provider, provider_ref, amount_minor, currency, state, status,
            reason, told, opened_at, updated_at
        FROM disputes
        WHERE provider = $1 AND provider_ref = $2
        "#,
        provider.name(),
        provider_ref,
    )
    .fetch_optional(db)
    .await?;
    row.map(Dispute::try_from).transpose()
}

/// All disputes about the orders, the oldest first.
pub async fn of_orders(
    db: impl PgExecutor<'_>,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<Dispute>> {
    let order_ids: Vec<Uuid> = order_ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query_as!(
        DisputeRow,
        r#"
        SELECT
            id, capture_id, order_id, provider, provider_ref, amount_minor, currency, state, status,
            reason, told, opened_at, updated_at
        FROM disputes
        WHERE order_id = ANY($1)
        ORDER BY id
        "#,
        &order_ids,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Dispute::try_from).collect()
}

/// Takes up to `limit` open disputes at the provider that are to be looked at now; each is due again six
/// hours later.
pub async fn take_due(
    db: impl PgExecutor<'_>,
    provider: Provider,
    limit: i64,
) -> sqlx::Result<Vec<Dispute>> {
    let rows = sqlx::query_as!(
        DisputeRow,
        r#"
        UPDATE disputes
        SET next_look_at = now() + interval '6 hours'
        WHERE id IN (
            SELECT id
            FROM disputes
            WHERE state = 'open' AND next_look_at <= now() AND provider = $1
            ORDER BY next_look_at
            LIMIT $2
            FOR NO KEY UPDATE SKIP LOCKED
        )
        RETURNING
            id, capture_id, order_id, provider, provider_ref, amount_minor, currency, state, status,
            reason, told, opened_at, updated_at
        "#,
        provider.name(),
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Dispute::try_from).collect()
}

/// Lets every open dispute at the provider be looked at now.
pub async fn look_now(db: impl PgExecutor<'_>, provider: Provider) -> sqlx::Result<u64> {
    let brought_forward = sqlx::query!(
        r#"
        UPDATE disputes
        SET next_look_at = now()
        WHERE id IN (
            SELECT id
            FROM disputes
            WHERE state = 'open' AND next_look_at > now() AND provider = $1
            ORDER BY id
            FOR NO KEY UPDATE SKIP LOCKED
        )
        "#,
        provider.name(),
    )
    .execute(db)
    .await?;
    Ok(brought_forward.rows_affected())
}

/// Lets the disputes be looked at in two minutes: the provider did not answer.
pub async fn look_again(db: impl PgExecutor<'_>, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE disputes
        SET next_look_at = now() + interval '2 minutes'
        WHERE id IN (
            SELECT id
            FROM disputes
            WHERE id = ANY($1)
            ORDER BY id
            FOR NO KEY UPDATE SKIP LOCKED
        )
        "#,
        ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A dispute as it is stored.
struct DisputeRow {
    id: Uuid,
    capture_id: Uuid,
    order_id: Uuid,
    provider: String,
    provider_ref: String,
    amount_minor: i64,
    currency: String,
    state: String,
    status: String,
    reason: Option<String>,
    told: i32,
    opened_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<DisputeRow> for Dispute {
    type Error = sqlx::Error;

    fn try_from(row: DisputeRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            capture_id: row.capture_id,
            order_id: row.order_id.into(),
            provider: row.provider.parse().map_err(unreadable)?,
            provider_ref: row.provider_ref,
            amount_minor: row.amount_minor,
            currency: row.currency,
            state: row.state.parse().map_err(unreadable)?,
            status: row.status,
            reason: row.reason,
            told: row.told,
            opened_at: row.opened_at,
            updated_at: row.updated_at,
        })
    }
}
