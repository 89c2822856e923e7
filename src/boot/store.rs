use sqlx::PgPool;

/// Whether our role is a superuser, or can act as the owner of a table. `ctl doctor` tells all that it
/// may do too much.
pub(super) async fn is_mighty(db: &PgPool) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        SELECT current_setting('is_superuser') = 'on' OR EXISTS (
            SELECT
            FROM pg_class
            WHERE relnamespace = current_schema()::regnamespace
                AND relkind IN ('r', 'p')
                AND pg_has_role(relowner, 'MEMBER')
        ) AS "is_mighty!"
        "#,
    )
    .fetch_one(db)
    .await
}
