//! The SQL of the readings of providers' lists.

use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Reading, Run};
use crate::payments::{Provider, store::unreadable};

/// Claims the next reading of the provider's lists; `None` while it is not due, which it is every five
/// minutes, and while the lists are long behind as soon as nobody can still be at it. The first one goes
/// back a day. The last two minutes are left to the next: a webhook has as long to come before we look
/// whether it was lost.
///
/// Whoever dies with it leaves it to the next.
pub async fn claim(db: impl PgExecutor<'_>, provider: Provider) -> sqlx::Result<Option<Reading>> {
    let claimed = sqlx::query!(
        r#"
        INSERT INTO reconciliation_cursors AS known (provider, read_until, next_read_at)
        VALUES ($1, now() - interval '1 day', now() + interval '1 minute')
        ON CONFLICT (provider) DO UPDATE
        SET next_read_at = now() + CASE
                WHEN known.read_until < now() - interval '20 minutes' THEN interval '1 minute'
                ELSE interval '5 minutes'
            END
        WHERE known.next_read_at <= now()
        RETURNING read_until AS from, now() - interval '2 minutes' AS "until!"
        "#,
        provider.name(),
    )
    .fetch_optional(db)
    .await?;
    let claimed = claimed.filter(|claimed| claimed.from < claimed.until);
    Ok(claimed.map(|claimed| Reading { provider, from: claimed.from, until: claimed.until }))
}

/// Notes that the lists were read; nothing where somebody has put the cursor elsewhere meanwhile. The
/// last seven minutes are read again: clocks differ, and some things are listed late.
pub async fn advance(tx: impl PgExecutor<'_>, reading: &Reading) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE reconciliation_cursors
        SET read_until = greatest(read_until, least($3, now() - interval '7 minutes'))
        WHERE provider = $1 AND read_until = $2
        "#,
        reading.provider.name(),
        reading.from,
        reading.until,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Lets the provider's lists be read now, from `since` on if that is earlier than the last end.
pub async fn read_now(
    db: impl PgExecutor<'_>,
    provider: Provider,
    since: Option<OffsetDateTime>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO reconciliation_cursors AS known (provider, read_until)
        VALUES ($1, coalesce($2, now() - interval '1 day'))
        ON CONFLICT (provider) DO UPDATE
        SET read_until = least(known.read_until, $2),
            next_read_at = now()
        "#,
        provider.name(),
        since,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes a reading.
pub async fn record(
    tx: impl PgExecutor<'_>,
    reading: &Reading,
    listed: usize,
    found: usize,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO reconciliation_runs (id, provider, read_from, read_until, listed, found)
        VALUES ($1, $2, $3, $4, $5, $6)
        "#,
        Uuid::now_v7(),
        reading.provider.name(),
        reading.from,
        reading.until,
        i32::try_from(listed).unwrap_or(i32::MAX),
        i32::try_from(found).unwrap_or(i32::MAX),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The newest readings, up to `limit`.
pub async fn newest(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<Vec<Run>> {
    let rows = sqlx::query!(
        r#"
        SELECT provider, read_from, read_until, listed, found, finished_at
        FROM reconciliation_runs
        ORDER BY finished_at DESC
        LIMIT $1
        "#,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Run {
                provider: row.provider.parse().map_err(unreadable)?,
                read_from: row.read_from,
                read_until: row.read_until,
                listed: row.listed,
                found: row.found,
                finished_at: row.finished_at,
            })
        })
        .collect()
}

/// Forgets up to `limit` readings that are older than 90 days; returns how many.
pub async fn purge(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM reconciliation_runs
        WHERE id IN (
            SELECT id
            FROM reconciliation_runs
            WHERE finished_at < now() - interval '90 days'
            ORDER BY finished_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )
        "#,
        limit,
    )
    .execute(db)
    .await?;
    Ok(purged.rows_affected())
}
