use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

/// Opens the one delivery of a cause and template; returns when it was sent, if it was.
///
/// A repeat finds the first one's Message-ID and recipient as they were.
pub(super) async fn open(
    db: impl PgExecutor<'_>,
    cause_id: Uuid,
    template: &str,
    message_id: &str,
    recipient: &str,
) -> sqlx::Result<Option<OffsetDateTime>> {
    sqlx::query_scalar!(
        r#"
        INSERT INTO deliveries (cause_id, template, message_id, recipient)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (cause_id, template) DO UPDATE SET template = excluded.template
        RETURNING sent_at
        "#,
        cause_id,
        template,
        message_id,
        recipient,
    )
    .fetch_one(db)
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
