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
            EXISTS (SELECT FROM users WHERE users.email = asked.email) AS "has_account!"
        FROM account_requests AS asked
        WHERE id = $1 AND used_at IS NULL AND requested_at > now() - interval '24 hours'
        "#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// Lets nobody else make a token of the request's kind for its address until the transaction ends.
pub(super) async fn lock_kind(tx: impl PgExecutor<'_>, request_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        SELECT pg_advisory_xact_lock(hashtextextended(kind || ' ' || email, 0))
        FROM account_requests
        WHERE id = $1
        "#,
        request_id,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Lets the token prove the request, for so many seconds; `false` if there are `others_max` other requests
/// of the kind for the address, from the last hour, that each have a token which is good for another
/// `respite_s` seconds.
pub(super) async fn insert_token(
    tx: impl PgExecutor<'_>,
    request_id: Uuid,
    digest: &[u8; 32],
    lifetime_s: i64,
    Living { respite_s, others_max }: Living,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        r#"
        INSERT INTO account_tokens (token_sha256, request_id, expires_at)
        SELECT $1, asked.id, now() + $3::bigint * interval '1 second'
        FROM account_requests AS asked
        WHERE asked.id = $2
            AND (
                SELECT count(DISTINCT other.id)
                FROM account_requests AS other
                JOIN account_tokens AS living ON living.request_id = other.id
                WHERE other.email = asked.email
                    AND other.kind = asked.kind
                    AND other.id <> asked.id
                    AND other.used_at IS NULL
                    AND other.requested_at > now() - interval '1 hour'
                    AND living.expires_at > now() + $4::bigint * interval '1 second'
            ) < $5
        "#,
        &digest[..],
        request_id,
        lifetime_s,
        respite_s,
        others_max,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// How many other requests keep one from getting a mail, and how long their tokens must be good yet.
pub(super) struct Living {
    pub(super) respite_s: i64,
    pub(super) others_max: i64,
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

/// Locks every open request of the kind for the address whose request the token proves, the oldest first:
/// two tokens of one address cannot wait for each other.
pub(super) async fn lock_asked(
    tx: impl PgExecutor<'_>,
    kind: Kind,
    digest: &[u8; 32],
) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        r#"
        SELECT id
        FROM account_requests
        WHERE kind = $2
            AND used_at IS NULL
            AND email = (
                SELECT proven.email
                FROM account_tokens
                JOIN account_requests AS proven ON proven.id = account_tokens.request_id
                WHERE token_sha256 = $1
            )
        ORDER BY id
        FOR NO KEY UPDATE
        "#,
        &digest[..],
        kind.name(),
    )
    .fetch_all(tx)
    .await?;
    Ok(())
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

/// A user whom nobody else reads for a change before the transaction ends.
pub(super) struct LockedUser {
    pub(super) email: String,
    pub(super) password_hash: String,
    pub(super) role: Role,
}

/// Locks the user against everybody, and says who they are now.
pub(super) async fn lock_for_erasure(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
) -> sqlx::Result<Option<LockedUser>> {
    sqlx::query_as!(
        LockedUser,
        "SELECT email, password_hash, role FROM users WHERE id = $1 FOR UPDATE",
        user_id as UserId,
    )
    .fetch_optional(tx)
    .await
}

/// Notes that the user's account was erased.
pub(super) async fn note_erased(tx: impl PgExecutor<'_>, user_id: UserId) -> sqlx::Result<()> {
    sqlx::query!("INSERT INTO erased_accounts (user_id) VALUES ($1)", user_id as UserId)
        .execute(tx)
        .await?;
    Ok(())
}

/// Forgets whatever the user or anybody asked for with the address, and the tokens that were sent for it.
pub(super) async fn delete_requests(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    email: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM account_requests WHERE email = $1 OR user_id = $2",
        email,
        user_id.uuid(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes the user, and with them their sessions and addresses.
pub(super) async fn delete_user(tx: impl PgExecutor<'_>, user_id: UserId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM users WHERE id = $1", user_id as UserId).execute(tx).await?;
    Ok(())
}
