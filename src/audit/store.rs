//! The SQL of the audit log.

use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Entry, Recorded};

/// Writes the entry.
pub async fn record(tx: impl PgExecutor<'_>, entry: &Entry) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO audit_log (id, actor_id, action, subject, before, after, request_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        "#,
        Uuid::now_v7(),
        entry.actor_id.uuid(),
        entry.action,
        entry.subject,
        entry.before,
        entry.after,
        entry.request_id,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// How many entries about one subject are shown: the newest.
const SHOWN_MAX: i64 = 200;

/// What was done to the subject, the newest first.
pub async fn of_subject(db: impl PgExecutor<'_>, subject: &str) -> sqlx::Result<Vec<Recorded>> {
    let rows = sqlx::query!(
        r#"
        SELECT actor_id, action, subject, before, after, request_id, recorded_at
        FROM audit_log
        WHERE subject = $1
        ORDER BY recorded_at DESC, id DESC
        LIMIT $2
        "#,
        subject,
        SHOWN_MAX,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Recorded {
            entry: Entry {
                actor_id: row.actor_id.into(),
                action: row.action,
                subject: row.subject,
                before: row.before,
                after: row.after,
                request_id: row.request_id,
            },
            recorded_at: row.recorded_at,
        })
        .collect())
}
