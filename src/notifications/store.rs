use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::kernel::OrderId;

/// A delivery that was opened now or before.
pub(super) struct Opened {
    pub(super) recipient: String,
    pub(super) sent_at: Option<OffsetDateTime>,
}

/// Opens the one delivery of a cause and template.
///
/// A repeat finds the first one's Message-ID and recipient as they were.
pub(super) async fn open(
    db: impl PgExecutor<'_>,
    cause_id: Uuid,
    template: &str,
    message_id: &str,
    recipient: &str,
) -> sqlx::Result<Opened> {
    sqlx::query_as!(
        Opened,
        r#"
        INSERT INTO deliveries (cause_id, template, message_id, recipient)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (cause_id, template) DO UPDATE SET template = excluded.template
        RETURNING recipient, sent_at
        "#,
        cause_id,
        template,
        message_id,
        recipient,
    )
    .fetch_one(db)
    .await
}

/// The same, to whom the order names; `None` where the shopper was erased.
///
/// The lock makes an erasure under way come first or last: one that comes last finds the delivery.
pub(super) async fn open_for_order(
    db: impl PgExecutor<'_>,
    cause_id: Uuid,
    template: &str,
    message_id: &str,
    order_id: OrderId,
) -> sqlx::Result<Option<Opened>> {
    sqlx::query_as!(
        Opened,
        r#"
        WITH named AS (
            SELECT email FROM orders WHERE id = $4 AND erased_at IS NULL FOR SHARE
        )
        INSERT INTO deliveries (cause_id, template, message_id, recipient)
        SELECT $1, $2, $3, email FROM named
        ON CONFLICT (cause_id, template) DO UPDATE SET template = excluded.template
        RETURNING recipient, sent_at
        "#,
        cause_id,
        template,
        message_id,
        order_id as OrderId,
    )
    .fetch_optional(db)
    .await
}

/// Notes that the mail server took the mail.
pub(super) async fn note_sent(
    db: impl PgExecutor<'_>,
    cause_id: Uuid,
    template: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE deliveries
        SET sent_at = now()
        WHERE cause_id = $1 AND template = $2 AND sent_at IS NULL
        "#,
        cause_id,
        template,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the delivery of a mail that nobody is to get any more, unless a mail server took it.
pub(super) async fn withdraw_unsent(
    db: impl PgExecutor<'_>,
    cause_id: Uuid,
    template: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        DELETE FROM deliveries
        WHERE cause_id = $1 AND template = $2 AND sent_at IS NULL
        "#,
        cause_id,
        template,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets every delivery of the cause that no mail server took: nobody is to get it any more.
pub(super) async fn withdraw_all_unsent(
    db: impl PgExecutor<'_>,
    cause_id: Uuid,
) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM deliveries WHERE cause_id = $1 AND sent_at IS NULL", cause_id)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets up to `limit` deliveries of the templates that were opened 30 days ago.
pub(super) async fn purge(
    db: impl PgExecutor<'_>,
    templates: &[String],
    limit: i64,
) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM deliveries
        WHERE (cause_id, template) IN (
            SELECT cause_id, template
            FROM deliveries
            WHERE template = ANY($1) AND created_at < now() - interval '30 days'
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        )
        "#,
        templates,
        limit,
    )
    .execute(db)
    .await?;
    Ok(purged.rows_affected())
}

/// A mail that was sent, or is being sent.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub template: String,
    pub recipient: String,
    pub created_at: OffsetDateTime,
    pub sent_at: Option<OffsetDateTime>,
}

/// The mails to the address and those that the causes asked for, the newest first.
pub async fn list_for(
    db: impl PgExecutor<'_>,
    recipient: &str,
    cause_ids: &[Uuid],
    limit: i64,
) -> sqlx::Result<Vec<Delivery>> {
    sqlx::query_as!(
        Delivery,
        r#"
        SELECT template, recipient, created_at, sent_at
        FROM deliveries
        WHERE recipient = $1 OR cause_id = ANY($2)
        ORDER BY created_at DESC, cause_id, template
        LIMIT $3
        "#,
        recipient,
        cause_ids,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Takes the recipient out of the mails to the address and of those that the causes asked for.
///
/// That they were sent, and when, stays on record.
pub async fn erase(
    tx: impl PgExecutor<'_>,
    recipient: Option<&str>,
    cause_ids: &[Uuid],
    nobody: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE deliveries
        SET recipient = $3
        WHERE recipient = $1 OR cause_id = ANY($2)
        "#,
        recipient,
        cause_ids,
        nobody,
    )
    .execute(tx)
    .await?;
    Ok(())
}
