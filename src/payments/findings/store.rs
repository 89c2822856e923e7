//! The SQL of findings.

use serde_json::Value;
use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Finding, Kind};
use crate::{
    kernel::{OrderId, UserId},
    payments::store::unreadable,
};

/// Something that a person has to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFinding {
    pub kind: Kind,
    pub subject: String,
    pub order_id: Option<OrderId>,
    pub detail: Value,
}

/// Opens the findings, and returns how many; one that is open about the same already stays as it is.
pub async fn open(tx: impl PgExecutor<'_>, findings: &[NewFinding]) -> sqlx::Result<u64> {
    let ids: Vec<Uuid> = findings.iter().map(|_| Uuid::now_v7()).collect();
    let kinds: Vec<&str> = findings.iter().map(|new| new.kind.name()).collect();
    let subjects: Vec<&str> = findings.iter().map(|new| new.subject.as_str()).collect();
    let orders: Vec<Option<Uuid>> =
        findings.iter().map(|new| new.order_id.map(OrderId::uuid)).collect();
    let details: Vec<_> = findings.iter().map(|new| sqlx::types::Json(&new.detail)).collect();
    // Sorted, so that two transactions that find the same cannot deadlock.
    let opened = sqlx::query!(
        r#"
        INSERT INTO findings (id, kind, subject, order_id, detail)
        SELECT new.id, new.kind, new.subject, new.order_id, new.detail
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::jsonb[])
            AS new (id, kind, subject, order_id, detail)
        ORDER BY new.kind, new.subject
        ON CONFLICT (kind, subject) WHERE closed_at IS NULL DO NOTHING
        "#,
        &ids,
        &kinds as &[&str],
        &subjects as &[&str],
        &orders as &[Option<Uuid>],
        &details as &[sqlx::types::Json<&Value>],
    )
    .execute(tx)
    .await?;
    Ok(opened.rows_affected())
}

/// Those of the subjects about which there is a finding of that kind, open or closed.
pub async fn told(
    db: impl PgExecutor<'_>,
    kind: Kind,
    subjects: &[&str],
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"SELECT DISTINCT subject FROM findings WHERE kind = $1 AND subject = ANY($2)"#,
        kind.name(),
        subjects as &[&str],
    )
    .fetch_all(db)
    .await
}

/// Whether a finding of that kind was ever opened about the subject for another reason.
pub async fn told_otherwise(
    db: impl PgExecutor<'_>,
    kind: Kind,
    subject: &str,
    reason: &str,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        SELECT EXISTS (
            SELECT FROM findings
            WHERE kind = $1 AND subject = $2 AND detail ->> 'reason' IS DISTINCT FROM $3
        ) AS "told!"
        "#,
        kind.name(),
        subject,
        reason,
    )
    .fetch_one(db)
    .await
}

/// How many findings of each kind are open, of the kinds of which any is.
pub async fn count_open(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<(Kind, i64)>> {
    let rows = sqlx::query!(
        r#"
        SELECT kind, count(*) AS "count!"
        FROM findings
        WHERE closed_at IS NULL
        GROUP BY kind
        "#,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(|row| Ok((row.kind.parse().map_err(unreadable)?, row.count))).collect()
}

/// Closes what is open about the subject, because it is over.
pub async fn settle(tx: impl PgExecutor<'_>, kind: Kind, subject: &str) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE findings
        SET closed_at = now()
        WHERE kind = $1 AND subject = $2 AND closed_at IS NULL
        "#,
        kind.name(),
        subject,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The same, unless it was opened for that reason.
pub async fn settle_others(
    tx: impl PgExecutor<'_>,
    kind: Kind,
    subject: &str,
    reason: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE findings
        SET closed_at = now()
        WHERE kind = $1 AND subject = $2 AND closed_at IS NULL AND detail ->> 'reason' IS DISTINCT FROM $3
        "#,
        kind.name(),
        subject,
        reason,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Closes the finding in the name of a person; `None` where there is none of that id that is open.
pub async fn close(
    tx: impl PgExecutor<'_>,
    id: Uuid,
    closed_by: UserId,
    note: &str,
) -> sqlx::Result<Option<Finding>> {
    let row = sqlx::query_as!(
        FindingRow,
        r#"
        UPDATE findings
        SET closed_at = now(), closed_by = $2, note = $3
        WHERE id = $1 AND closed_at IS NULL
        RETURNING id, kind, subject, order_id, detail, opened_at, closed_at, closed_by, note
        "#,
        id,
        closed_by.uuid(),
        note,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Finding::try_from).transpose()
}

/// Closes what is open about the subject in the name of a person.
pub async fn close_about(
    tx: impl PgExecutor<'_>,
    kind: Kind,
    subject: &str,
    closed_by: UserId,
    note: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE findings
        SET closed_at = now(), closed_by = $3, note = $4
        WHERE kind = $1 AND subject = $2 AND closed_at IS NULL
        "#,
        kind.name(),
        subject,
        closed_by.uuid(),
        note,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The finding of that id.
pub async fn find(db: impl PgExecutor<'_>, id: Uuid) -> sqlx::Result<Option<Finding>> {
    let row = sqlx::query_as!(
        FindingRow,
        r#"
        SELECT id, kind, subject, order_id, detail, opened_at, closed_at, closed_by, note
        FROM findings
        WHERE id = $1
        "#,
        id,
    )
    .fetch_optional(db)
    .await?;
    row.map(Finding::try_from).transpose()
}

/// Up to `limit` findings that are open, or all whatever they are, the newest first; `before` is the
/// last of the page before.
pub async fn list(
    db: impl PgExecutor<'_>,
    open_only: bool,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Finding>> {
    let rows = sqlx::query_as!(
        FindingRow,
        r#"
        SELECT id, kind, subject, order_id, detail, opened_at, closed_at, closed_by, note
        FROM findings
        WHERE ($1 = false OR closed_at IS NULL) AND ($2::uuid IS NULL OR id < $2)
        ORDER BY id DESC
        LIMIT $3
        "#,
        open_only,
        before,
        limit,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Finding::try_from).collect()
}

/// A finding as it is stored.
struct FindingRow {
    id: Uuid,
    kind: String,
    subject: String,
    order_id: Option<Uuid>,
    detail: Value,
    opened_at: OffsetDateTime,
    closed_at: Option<OffsetDateTime>,
    closed_by: Option<Uuid>,
    note: Option<String>,
}

impl TryFrom<FindingRow> for Finding {
    type Error = sqlx::Error;

    fn try_from(row: FindingRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.id,
            kind: row.kind.parse().map_err(unreadable)?,
            subject: row.subject,
            order_id: row.order_id.map(OrderId::from),
            detail: row.detail,
            opened_at: row.opened_at,
            closed_at: row.closed_at,
            closed_by: row.closed_by.map(UserId::from),
            note: row.note,
        })
    }
}
