use std::time::Duration;

use sqlx::{PgExecutor, postgres::types::PgInterval};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{AGE_MAX, GRACE, IDLE_MAX, UserAgent};
use crate::{
    identity::{Account, Role, Session, store::UserRow},
    kernel::{SessionId, UserId},
};

/// Why a session ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    LoggedOut,
    LoggedOutEverywhere,
    /// By the user, from another session.
    Revoked,
    PasswordChanged,
    /// Somebody used a token of it again.
    TokenReused,
    /// The user has logged in too often since.
    TooMany,
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::LoggedOut => "logged_out",
            Self::LoggedOutEverywhere => "logged_out_everywhere",
            Self::Revoked => "revoked",
            Self::PasswordChanged => "password_changed",
            Self::TokenReused => "token_reused",
            Self::TooMany => "too_many",
        }
    }
}

/// A session that is not over, as its user may see it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: SessionId,
    pub user_agent: String,
    pub created_at: OffsetDateTime,
    pub last_used_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

/// A session that is over, as its user may see it.
#[derive(Debug, Clone)]
pub struct Over {
    pub id: SessionId,
    pub user_agent: String,
    pub created_at: OffsetDateTime,
    pub last_used_at: OffsetDateTime,
    pub ended_at: OffsetDateTime,
    /// None if nobody ended it: it was not used for too long, or had lasted long enough.
    pub why: Option<String>,
}

/// A token that was used before, of a session that is not over.
pub(super) struct UsedToken {
    pub(super) session_id: SessionId,
    pub(super) user_id: UserId,
    pub(super) in_grace: bool,
    email: String,
    role: Role,
    token_epoch: i32,
}

impl UsedToken {
    pub(super) fn into_account(self) -> Account {
        Account {
            id: self.user_id,
            email: self.email,
            role: self.role,
            token_epoch: self.token_epoch,
        }
    }
}

/// A token that may still be shown with a good conscience.
pub(super) struct RecentToken {
    pub(super) hash: Vec<u8>,
    pub(super) is_used: bool,
}

pub(super) async fn insert(
    db: impl PgExecutor<'_>,
    id: SessionId,
    user_id: UserId,
    user_agent: &UserAgent,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO sessions (id, user_id, user_agent, expires_at)
        VALUES ($1, $2, $3, now() + LEAST($4::interval, $5))
        "#,
        id as SessionId,
        user_id as UserId,
        user_agent.as_str(),
        interval(IDLE_MAX),
        interval(AGE_MAX),
    )
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn insert_token(
    db: impl PgExecutor<'_>,
    session_id: SessionId,
    hash: &[u8; 32],
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO refresh_tokens (hash, session_id) VALUES ($1, $2)",
        hash,
        session_id as SessionId,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Marks the token as used and tells its session; none if it was used before, or never handed out.
pub(super) async fn use_token(
    db: impl PgExecutor<'_>,
    hash: &[u8; 32],
) -> sqlx::Result<Option<SessionId>> {
    sqlx::query_scalar!(
        r#"
        UPDATE refresh_tokens
        SET used_at = now()
        WHERE hash = $1 AND used_at IS NULL
        RETURNING session_id
        "#,
        hash,
    )
    .fetch_optional(db)
    .await
}

/// Notes that the session was used and tells its user; none if it is over.
pub(super) async fn touch(
    db: impl PgExecutor<'_>,
    id: SessionId,
    user_agent: &UserAgent,
) -> sqlx::Result<Option<UserRow>> {
    sqlx::query_as!(
        UserRow,
        r#"
        UPDATE sessions
        SET last_used_at = now(),
            user_agent = $2,
            expires_at = LEAST(now() + $3::interval, sessions.created_at + $4::interval)
        FROM users
        WHERE sessions.id = $1
            AND sessions.revoked_at IS NULL
            AND sessions.expires_at > now()
            AND users.id = sessions.user_id
        RETURNING users.id, users.email, users.password_hash, users.role, users.token_epoch
        "#,
        id as SessionId,
        user_agent.as_str(),
        interval(IDLE_MAX),
        interval(AGE_MAX),
    )
    .fetch_optional(db)
    .await
}

pub(super) async fn find_used(
    db: impl PgExecutor<'_>,
    hash: &[u8; 32],
) -> sqlx::Result<Option<UsedToken>> {
    sqlx::query_as!(
        UsedToken,
        r#"
        SELECT
            sessions.id AS session_id, sessions.user_id,
            users.email, users.role, users.token_epoch,
            refresh_tokens.used_at > now() - $2::interval AS "in_grace!"
        FROM refresh_tokens
        JOIN sessions ON sessions.id = refresh_tokens.session_id
        JOIN users ON users.id = sessions.user_id
        WHERE refresh_tokens.hash = $1
            AND refresh_tokens.used_at IS NOT NULL
            AND sessions.revoked_at IS NULL
            AND sessions.expires_at > now()
        "#,
        hash,
        interval(GRACE),
    )
    .fetch_optional(db)
    .await
}

/// The session's unused token, and those that were used within the grace.
pub(super) async fn recent_tokens(
    db: impl PgExecutor<'_>,
    id: SessionId,
) -> sqlx::Result<Vec<RecentToken>> {
    sqlx::query_as!(
        RecentToken,
        r#"
        SELECT hash, used_at IS NOT NULL AS "is_used!"
        FROM refresh_tokens
        WHERE session_id = $1 AND (used_at IS NULL OR used_at > now() - $2::interval)
        ORDER BY issued_at DESC
        LIMIT 100
        "#,
        id as SessionId,
        interval(GRACE),
    )
    .fetch_all(db)
    .await
}

/// Which of the sessions stand as their access tokens say, by their position in the slice.
pub(super) async fn in_good_standing(
    db: impl PgExecutor<'_>,
    sessions: &[Session],
) -> sqlx::Result<Vec<usize>> {
    let ids: Vec<Uuid> = sessions.iter().map(|session| session.session_id.uuid()).collect();
    let users: Vec<Uuid> = sessions.iter().map(|session| session.user_id.uuid()).collect();
    let epochs: Vec<i32> = sessions.iter().map(|session| session.epoch).collect();
    let positions = sqlx::query_scalar!(
        r#"
        SELECT asked.position AS "position!"
        FROM UNNEST($1::uuid[], $2::uuid[], $3::integer[])
            WITH ORDINALITY AS asked (session_id, user_id, epoch, position)
        CROSS JOIN LATERAL (
            SELECT sessions.user_id
            FROM sessions
            WHERE sessions.id = asked.session_id
                AND sessions.revoked_at IS NULL
                AND sessions.expires_at > now()
            -- Found by its key, however many sessions the user has had.
            LIMIT 1
        ) AS session
        JOIN users ON users.id = session.user_id AND users.token_epoch = asked.epoch
        WHERE session.user_id = asked.user_id
        "#,
        &ids,
        &users,
        &epochs,
    )
    .fetch_all(db)
    .await?;
    Ok(positions.into_iter().filter_map(|position| usize::try_from(position - 1).ok()).collect())
}

pub(super) async fn list(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    limit: i64,
) -> sqlx::Result<Vec<Listed>> {
    sqlx::query_as!(
        Listed,
        r#"
        SELECT id, user_agent, created_at, last_used_at, expires_at
        FROM sessions
        WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()
        ORDER BY last_used_at DESC, id DESC
        LIMIT $2
        "#,
        user_id as UserId,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The user's sessions that are over, those that ended last first.
pub(super) async fn list_over(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    limit: i64,
) -> sqlx::Result<Vec<Over>> {
    sqlx::query_as!(
        Over,
        r#"
        SELECT id, user_agent, created_at, last_used_at, expires_at AS ended_at, revoked_for AS why
        FROM sessions
        WHERE user_id = $1 AND expires_at <= now()
        ORDER BY expires_at DESC, id DESC
        LIMIT $2
        "#,
        user_id as UserId,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Ends the session if it is the user's and not over.
pub(super) async fn revoke_of(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    id: SessionId,
    why: Ended,
) -> sqlx::Result<bool> {
    let revoked = sqlx::query!(
        r#"
        UPDATE sessions
        SET revoked_at = now(), revoked_for = $3, expires_at = now()
        WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > now()
        "#,
        id as SessionId,
        user_id as UserId,
        why.as_str(),
    )
    .execute(db)
    .await?;
    Ok(revoked.rows_affected() == 1)
}

/// Ends the session that the token belongs to, if it is not over.
pub(super) async fn revoke_by_token(
    db: impl PgExecutor<'_>,
    hash: &[u8; 32],
    why: Ended,
) -> sqlx::Result<bool> {
    let revoked = sqlx::query!(
        r#"
        UPDATE sessions
        SET revoked_at = now(), revoked_for = $2, expires_at = now()
        WHERE id = (SELECT session_id FROM refresh_tokens WHERE hash = $1)
            AND revoked_at IS NULL
            AND expires_at > now()
        "#,
        hash,
        why.as_str(),
    )
    .execute(db)
    .await?;
    Ok(revoked.rows_affected() == 1)
}

pub(super) async fn revoke_all(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    except: Option<SessionId>,
    why: Ended,
) -> sqlx::Result<u64> {
    let revoked = sqlx::query!(
        r#"
        UPDATE sessions
        SET revoked_at = now(), revoked_for = $3, expires_at = now()
        WHERE user_id = $1
            AND id IS DISTINCT FROM $2
            AND revoked_at IS NULL
            AND expires_at > now()
        "#,
        user_id as UserId,
        except as Option<SessionId>,
        why.as_str(),
    )
    .execute(db)
    .await?;
    Ok(revoked.rows_affected())
}

/// Ends the user's sessions but the `keep` that were used last. One that is being used is left alone.
pub(super) async fn revoke_surplus(
    db: impl PgExecutor<'_>,
    user_id: UserId,
    keep: i64,
) -> sqlx::Result<u64> {
    let revoked = sqlx::query!(
        r#"
        UPDATE sessions
        SET revoked_at = now(), revoked_for = $3, expires_at = now()
        WHERE id IN (
            SELECT id
            FROM sessions
            WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > now()
            ORDER BY last_used_at DESC, id DESC
            LIMIT 100
            OFFSET $2
            FOR NO KEY UPDATE SKIP LOCKED
        )
        "#,
        user_id as UserId,
        keep,
        Ended::TooMany.as_str(),
    )
    .execute(db)
    .await?;
    Ok(revoked.rows_affected())
}

/// Deletes tokens that were used longer ago than a session may be idle.
pub(super) async fn purge_used_tokens(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM refresh_tokens
        WHERE hash IN (
            SELECT hash
            FROM refresh_tokens
            WHERE used_at < now() - $2::interval
            ORDER BY used_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )
        "#,
        limit,
        interval(IDLE_MAX),
    )
    .execute(db)
    .await?;
    Ok(purged.rows_affected())
}

/// Deletes the tokens of sessions that ended a week ago.
pub(super) async fn purge_tokens_of_ended(
    db: impl PgExecutor<'_>,
    limit: i64,
) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM refresh_tokens
        WHERE hash IN (
            SELECT refresh_tokens.hash
            FROM sessions
            JOIN refresh_tokens ON refresh_tokens.session_id = sessions.id
            WHERE sessions.expires_at < now() - interval '7 days'
            ORDER BY sessions.expires_at
            LIMIT $1
            FOR UPDATE OF refresh_tokens SKIP LOCKED
        )
        "#,
        limit,
    )
    .execute(db)
    .await?;
    Ok(purged.rows_affected())
}

/// Deletes sessions that ended a week ago and have no token left.
pub(super) async fn purge_ended(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM sessions
        WHERE id IN (
            SELECT id
            FROM sessions
            WHERE expires_at < now() - interval '7 days'
                AND NOT EXISTS (SELECT FROM refresh_tokens WHERE session_id = sessions.id)
            ORDER BY expires_at
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

fn interval(duration: Duration) -> PgInterval {
    let microseconds = duration.as_micros().try_into().expect("no limit here is 290,000 years");
    PgInterval { months: 0, days: 0, microseconds }
}
