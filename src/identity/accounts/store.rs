//! The SQL of accounts.

use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::{
    Address, Profile,
    request::{Asked, Kind, NewRequest},
};
use crate::{identity::Role, kernel::UserId};

/// Writes the request.
pub(super) async fn insert_request(
    tx: impl PgExecutor<'_>,
    id: Uuid,
    new: &NewRequest<'_>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO account_requests (id, kind, email, password_hash, user_id)
        VALUES ($1, $2, $3, $4, $5)
        "#,
        id,
        new.kind.name(),
        new.email.as_str(),
        new.password_hash,
        new.user_id.map(UserId::uuid),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A request that a mail may still be sent for.
pub(super) struct OpenRequest {
    pub(super) kind: String,
    pub(super) email: String,
    pub(super) has_account: bool,
    /// How many requests there were for the address in the hour before.
    pub(super) asked_before: i64,
}

/// The request, unless it was used or is older than a day.
pub(super) async fn open_request(
    db: impl PgExecutor<'_>,
    id: Uuid,
) -> sqlx::Result<Option<OpenRequest>> {
    sqlx::query_as!(
        OpenRequest,
        r#"
        SELECT
            kind,
            email,
            EXISTS (SELECT FROM users WHERE users.email = asked.email) AS "has_account!",
            (
                SELECT count(*)
                FROM account_requests AS earlier
                WHERE earlier.email = asked.email
                    AND earlier.requested_at > asked.requested_at - interval '1 hour'
                    AND (earlier.requested_at, earlier.id) < (asked.requested_at, asked.id)
            ) AS "asked_before!"
        FROM account_requests AS asked
        WHERE id = $1 AND used_at IS NULL AND requested_at > now() - interval '24 hours'
        "#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// Lets the token prove the request, for so many seconds.
pub(super) async fn insert_token(
    db: impl PgExecutor<'_>,
    request_id: Uuid,
    digest: &[u8; 32],
    lifetime_s: i64,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO account_tokens (token_sha256, request_id, expires_at)
        VALUES ($1, $2, now() + $3::bigint * interval '1 second')
        "#,
        &digest[..],
        request_id,
        lifetime_s,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What the token proves, while it is good and was not used.
pub(super) async fn find_asked(
    db: impl PgExecutor<'_>,
    kind: Kind,
    digest: &[u8; 32],
) -> sqlx::Result<Option<Asked>> {
    sqlx::query_as!(
        Asked,
        r#"
        SELECT asked.id, asked.email, asked.password_hash, asked.user_id AS "user_id: UserId"
        FROM account_tokens
        JOIN account_requests AS asked ON asked.id = account_tokens.request_id
        WHERE token_sha256 = $1
            AND account_tokens.expires_at > now()
            AND asked.kind = $2
            AND asked.used_at IS NULL
        "#,
        &digest[..],
        kind.name(),
    )
    .fetch_optional(db)
    .await
}

/// Uses up the request that the token proves; `None` where it proves nothing, or was used up before.
pub(super) async fn take_asked(
    tx: impl PgExecutor<'_>,
    kind: Kind,
    digest: &[u8; 32],
) -> sqlx::Result<Option<Asked>> {
    sqlx::query_as!(
        Asked,
        r#"
        UPDATE account_requests AS asked
        SET used_at = now()
        FROM account_tokens
        WHERE token_sha256 = $1
            AND account_tokens.expires_at > now()
            AND asked.id = account_tokens.request_id
            AND asked.kind = $2
            AND asked.used_at IS NULL
        RETURNING asked.id, asked.email, asked.password_hash, asked.user_id AS "user_id: UserId"
        "#,
        &digest[..],
        kind.name(),
    )
    .fetch_optional(tx)
    .await
}

/// Makes every open request of the kind for the address pointless.
pub(super) async fn end_requests(
    tx: impl PgExecutor<'_>,
    kind: Kind,
    email: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE account_requests
        SET used_at = now()
        WHERE email = $1 AND kind = $2 AND used_at IS NULL
        "#,
        email,
        kind.name(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes every open change of the user's address pointless: it may be a stranger's, who knew the password.
pub(super) async fn end_email_changes(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE account_requests SET used_at = now() WHERE user_id = $1 AND used_at IS NULL",
        user_id.uuid(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets up to `limit` requests that are older than two days: a token is made for a day, and is good for
/// one at most.
pub(super) async fn purge_requests(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM account_requests
        WHERE id IN (
            SELECT id
            FROM account_requests
            WHERE requested_at < now() - interval '48 hours'
            ORDER BY requested_at
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

/// Gives the account of the address another password; `None` where the address has no account.
pub(super) async fn set_password(
    tx: impl PgExecutor<'_>,
    email: &str,
    password_hash: &str,
) -> sqlx::Result<Option<UserId>> {
    sqlx::query_scalar!(
        r#"
        UPDATE users
        SET password_hash = $2, updated_at = now()
        WHERE email = $1
        RETURNING id
        "#,
        email,
        password_hash,
    )
    .fetch_optional(tx)
    .await
}

/// Gives the user another password, if it still is the one that is known.
pub(super) async fn replace_password(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    known_hash: &str,
    password_hash: &str,
) -> sqlx::Result<bool> {
    let replaced = sqlx::query!(
        r#"
        UPDATE users
        SET password_hash = $3, updated_at = now()
        WHERE id = $1 AND password_hash = $2
        "#,
        user_id as UserId,
        known_hash,
        password_hash,
    )
    .execute(tx)
    .await?;
    Ok(replaced.rows_affected() == 1)
}

/// Gives the user another address and notes the one before with the request, which it returns; `None`
/// where the user is gone. A taken address violates `users_email_unique`.
pub(super) async fn replace_email(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    request_id: Uuid,
    email: &str,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"
        WITH before AS (
            SELECT id, email FROM users WHERE id = $1 FOR NO KEY UPDATE
        ), changed AS (
            UPDATE users
            SET email = $3, updated_at = now()
            FROM before
            WHERE users.id = before.id
        )
        UPDATE account_requests
        SET email_before = before.email
        FROM before
        WHERE account_requests.id = $2
        RETURNING before.email
        "#,
        user_id as UserId,
        request_id,
        email,
    )
    .fetch_optional(tx)
    .await
}

/// The address that the request took the place of.
pub(super) async fn email_before(
    db: impl PgExecutor<'_>,
    request_id: Uuid,
) -> sqlx::Result<Option<String>> {
    let row =
        sqlx::query_scalar!("SELECT email_before FROM account_requests WHERE id = $1", request_id,);
    Ok(row.fetch_optional(db).await?.flatten())
}

/// What the user sees of their account.
pub(super) async fn profile(
    db: impl PgExecutor<'_>,
    user_id: UserId,
) -> sqlx::Result<Option<Profile>> {
    sqlx::query_as!(
        Profile,
        "SELECT id, email, role, display_name, created_at FROM users WHERE id = $1",
        user_id as UserId,
    )
    .fetch_optional(db)
    .await
}

/// Gives the user another name, or none; `None` where the user is gone.
pub(super) async fn rename(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    name: Option<&str>,
) -> sqlx::Result<Option<Profile>> {
    sqlx::query_as!(
        Profile,
        r#"
        UPDATE users
        SET display_name = $2, updated_at = now()
        WHERE id = $1
        RETURNING id, email, role, display_name, created_at
        "#,
        user_id as UserId,
        name,
    )
    .fetch_optional(db)
    .await
}

/// Lets nobody else change the user's addresses until the transaction ends; `false` if there is no user.
pub(super) async fn lock_user(tx: impl PgExecutor<'_>, user_id: UserId) -> sqlx::Result<bool> {
    let row = sqlx::query_scalar!(
        "SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE",
        user_id as UserId,
    );
    Ok(row.fetch_optional(tx).await?.is_some())
}

/// The user's addresses, the oldest first.
pub(super) async fn addresses(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    limit: i64,
) -> sqlx::Result<Vec<Address>> {
    sqlx::query_as!(
        Address,
        r#"
        SELECT id, address, is_default, created_at, updated_at
        FROM addresses
        WHERE user_id = $1
        ORDER BY id
        LIMIT $2
        "#,
        user_id as UserId,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The user's address of that id.
pub(super) async fn address(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    id: Uuid,
) -> sqlx::Result<Option<Address>> {
    sqlx::query_as!(
        Address,
        r#"
        SELECT id, address, is_default, created_at, updated_at
        FROM addresses
        WHERE user_id = $1 AND id = $2
        "#,
        user_id as UserId,
        id,
    )
    .fetch_optional(db)
    .await
}

/// How many addresses the locked user has.
pub(super) async fn count_addresses(tx: impl PgExecutor<'_>, user_id: UserId) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM addresses WHERE user_id = $1"#,
        user_id as UserId,
    )
    .fetch_one(tx)
    .await
}

/// Leaves the locked user without a default.
pub(super) async fn clear_default(tx: impl PgExecutor<'_>, user_id: UserId) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE addresses SET is_default = false WHERE user_id = $1 AND is_default",
        user_id as UserId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Keeps an address of the locked user.
pub(super) async fn insert_address(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    id: Uuid,
    address: &Value,
    is_default: bool,
) -> sqlx::Result<Address> {
    sqlx::query_as!(
        Address,
        r#"
        INSERT INTO addresses (id, user_id, address, is_default)
        VALUES ($1, $2, $3, $4)
        RETURNING id, address, is_default, created_at, updated_at
        "#,
        id,
        user_id as UserId,
        address,
        is_default,
    )
    .fetch_one(tx)
    .await
}

/// Changes an address of the locked user; `None` where the user has no such address.
pub(super) async fn update_address(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    id: Uuid,
    address: &Value,
    is_default: bool,
) -> sqlx::Result<Option<Address>> {
    sqlx::query_as!(
        Address,
        r#"
        UPDATE addresses
        SET address = $3, is_default = $4, updated_at = now()
        WHERE user_id = $1 AND id = $2
        RETURNING id, address, is_default, created_at, updated_at
        "#,
        user_id as UserId,
        id,
        address,
        is_default,
    )
    .fetch_optional(tx)
    .await
}

/// Forgets an address; `false` where the user has no such address.
pub(super) async fn delete_address(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    id: Uuid,
) -> sqlx::Result<bool> {
    let deleted = sqlx::query!(
        "DELETE FROM addresses WHERE user_id = $1 AND id = $2",
        user_id as UserId,
        id,
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected() == 1)
}

/// Locks the user against everybody; returns the password's hash and the role.
pub(super) async fn lock_for_erasure(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
) -> sqlx::Result<Option<(String, Role)>> {
    let row = sqlx::query!(
        "SELECT password_hash, role FROM users WHERE id = $1 FOR UPDATE",
        user_id as UserId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| (row.password_hash, row.role)))
}

/// Notes that the account of the address with that digest was erased.
pub(super) async fn note_erased(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    email_sha256: &[u8; 32],
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO erased_accounts (user_id, email_sha256) VALUES ($1, $2)",
        user_id.uuid(),
        &email_sha256[..],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets whatever was asked for with the address, and the tokens that were sent for it.
pub(super) async fn delete_requests(tx: impl PgExecutor<'_>, email: &str) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM account_requests WHERE email = $1", email).execute(tx).await?;
    Ok(())
}

/// Removes the user, and with them their sessions, addresses and open changes of address.
pub(super) async fn delete_user(tx: impl PgExecutor<'_>, user_id: UserId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM users WHERE id = $1", user_id as UserId).execute(tx).await?;
    Ok(())
}
