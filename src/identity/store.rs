use sqlx::PgExecutor;

use super::{EmailAddress, Role};
use crate::kernel::UserId;

pub(super) struct UserRow {
    pub(super) id: UserId,
    pub(super) email: String,
    pub(super) password_hash: String,
    pub(super) role: Role,
    pub(super) token_epoch: i32,
}

/// Adds a user; a taken e-mail address violates `users_email_unique`.
pub(super) async fn insert(
    db: impl PgExecutor<'_>,
    id: UserId,
    email: &EmailAddress,
    password_hash: &str,
    role: Role,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO users (id, email, password_hash, role, customer_key)
        VALUES ($1, $2, $3, $4, sha256(convert_to($2::text, 'UTF8')))
        "#,
        id as UserId,
        email.as_str(),
        password_hash,
        role.as_str(),
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn find_by_email(
    db: impl PgExecutor<'_>,
    email: &EmailAddress,
) -> sqlx::Result<Option<UserRow>> {
    sqlx::query_as!(
        UserRow,
        "SELECT id, email, password_hash, role, token_epoch FROM users WHERE email = $1",
        email.as_str(),
    )
    .fetch_optional(db)
    .await
}

pub(super) async fn find(db: impl PgExecutor<'_>, id: UserId) -> sqlx::Result<Option<UserRow>> {
    sqlx::query_as!(
        UserRow,
        "SELECT id, email, password_hash, role, token_epoch FROM users WHERE id = $1",
        id as UserId,
    )
    .fetch_optional(db)
    .await
}

/// Keeps the user's password as it is until the transaction ends; `false` if it is another already.
pub(super) async fn lock_password(
    db: impl PgExecutor<'_>,
    id: UserId,
    password_hash: &str,
) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar!(
        r#"
        SELECT id
        FROM users
        WHERE id = $1 AND password_hash = $2
        FOR NO KEY UPDATE
        "#,
        id as UserId,
        password_hash,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.is_some())
}

/// Stores another hash of the same password.
pub(super) async fn set_hash(
    db: impl PgExecutor<'_>,
    id: UserId,
    password_hash: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE users SET password_hash = $2, updated_at = now() WHERE id = $1",
        id as UserId,
        password_hash,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whose role it was that was set, and what it was.
pub(super) struct Was {
    pub(super) id: UserId,
    pub(super) role: Role,
}

/// Sets the role and makes the user's tokens worthless, if there is such a user.
pub(super) async fn set_role(
    db: impl PgExecutor<'_>,
    email: &EmailAddress,
    role: Role,
) -> sqlx::Result<Option<Was>> {
    sqlx::query_as!(
        Was,
        r#"
        UPDATE users
        SET role = $2, token_epoch = token_epoch + 1, updated_at = now()
        FROM (SELECT id, role FROM users WHERE email = $1 FOR UPDATE) AS was
        WHERE users.id = was.id
        RETURNING was.id, was.role
        "#,
        email.as_str(),
        role.as_str(),
    )
    .fetch_optional(db)
    .await
}
