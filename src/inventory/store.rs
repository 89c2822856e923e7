use sqlx::PgExecutor;
use uuid::Uuid;

use crate::kernel::VariantId;

/// How many units of a variant there are, in one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub on_hand: i64,
    pub reserved: i64,
    /// What a checkout could have: what nobody holds, and what somebody holds past the deadline.
    pub available: i64,
}

/// Gives new variants their stock: none yet.
pub async fn open(db: impl PgExecutor<'_>, variant_ids: &[VariantId]) -> sqlx::Result<()> {
    let variant_ids: Vec<Uuid> = variant_ids.iter().map(|id| id.uuid()).collect();
    sqlx::query!("INSERT INTO stock (variant_id) SELECT unnest($1::uuid[])", &variant_ids)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn level(
    db: impl PgExecutor<'_>,
    variant_id: VariantId,
) -> sqlx::Result<Option<Level>> {
    sqlx::query_as!(
        Level,
        r#"
        SELECT
            on_hand,
            reserved,
            on_hand - reserved + (
                SELECT coalesce(sum(holds.quantity), 0)::bigint
                FROM holds
                WHERE holds.variant_id = stock.variant_id
                    AND holds.state = 'held'
                    AND holds.expires_at <= statement_timestamp()
            ) AS "available!"
        FROM stock
        WHERE variant_id = $1
        "#,
        variant_id as VariantId,
    )
    .fetch_optional(db)
    .await
}

/// Adds units that came in, and keeps the row locked; returns how many there are now, and `None` if there
/// is no such variant.
pub(super) async fn add(
    tx: impl PgExecutor<'_>,
    variant_id: VariantId,
    quantity: i64,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        "UPDATE stock SET on_hand = on_hand + $2 WHERE variant_id = $1 RETURNING on_hand",
        variant_id as VariantId,
        quantity,
    )
    .fetch_optional(tx)
    .await
}
