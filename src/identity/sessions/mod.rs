//! Sessions: what a login opens, and how it goes on and ends.
//!
//! Owns `sessions` and `refresh_tokens`. A session is carried on by refresh tokens, each good for one
//! use: it is exchanged for its successor and a new access token. Whoever shows a token that was used
//! before has a copy of it, or is robbed of one: the whole session ends, and its user is told by mail.
//!
//! A session ends [`IDLE_MAX`] after its last use and [`AGE_MAX`] after its login, by the database's
//! clock. An end counts at once, in every process and for access tokens, too: see [`Standings`].

pub mod cookie;
mod refresh;
mod standing;
mod store;
mod token;
mod user_agent;

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

pub use refresh::{Refreshed, refresh};
pub use standing::Standings;
pub use store::{Ended, Listed, Over};
pub use token::RefreshToken;
pub(super) use token::renewal;
pub use user_agent::UserAgent;

use crate::kernel::{SessionId, UserId};

/// A session that nobody used for so long is over: who buys once a month stays logged in.
pub const IDLE_MAX: Duration = Duration::from_hours(30 * 24);

/// However much it is used, a session ends so long after its login: half a year.
pub const AGE_MAX: Duration = Duration::from_hours(180 * 24);

/// A token may be used again for so long, and gets the same successor: the answer was lost on its way,
/// or two tabs asked at once.
pub const GRACE: Duration = Duration::from_secs(10);

/// A user has at most so many sessions: one more login ends the one that was not used for longest.
pub const SESSIONS_MAX: i64 = 100;

/// What whoever just logged in is given.
#[derive(Debug, Clone)]
pub struct Opened {
    pub session_id: SessionId,
    pub refresh_token: RefreshToken,
}

/// Opens a session of the user, who must exist.
pub async fn open(
    tx: &mut PgConnection,
    user_id: UserId,
    user_agent: &UserAgent,
) -> sqlx::Result<Opened> {
    let opened =
        Opened { session_id: SessionId::generate(), refresh_token: RefreshToken::random() };
    store::revoke_surplus(&mut *tx, user_id, SESSIONS_MAX - 1).await?;
    store::insert(&mut *tx, opened.session_id, user_id, user_agent).await?;
    store::insert_token(&mut *tx, opened.session_id, &opened.refresh_token.hash()).await?;
    Ok(opened)
}

/// Ends the user's sessions, but the one excepted; returns how many were not over yet.
///
/// A password is changed before this in the same transaction: then a login under way with the old
/// password either has its session ended here or is refused.
pub async fn revoke_all(
    tx: &mut PgConnection,
    user_id: UserId,
    except: Option<SessionId>,
    why: Ended,
) -> sqlx::Result<u64> {
    store::revoke_all(tx, user_id, except, why).await
}

/// Ends every session of the user.
pub async fn revoke_everywhere(db: &PgPool, user_id: UserId) -> sqlx::Result<u64> {
    store::revoke_all(db, user_id, None, Ended::LoggedOutEverywhere).await
}

/// Ends a session of the user; `false` if the user has none with this id, or it is over.
pub async fn revoke(
    db: &PgPool,
    user_id: UserId,
    session_id: SessionId,
    why: Ended,
) -> sqlx::Result<bool> {
    store::revoke_of(db, user_id, session_id, why).await
}

/// Ends the session that the refresh token belongs to, used or not; `false` if there is none, or it
/// is over.
pub async fn revoke_by_token(db: &PgPool, token: &RefreshToken) -> sqlx::Result<bool> {
    store::revoke_by_token(db, &token.hash(), Ended::LoggedOut).await
}

/// The user's sessions that are not over, the last used first: all of them, as there are at most
/// [`SESSIONS_MAX`].
pub async fn list(db: &PgPool, user_id: UserId) -> sqlx::Result<Vec<Listed>> {
    store::list(db, user_id, SESSIONS_MAX).await
}

/// The user's sessions that are over, up to `limit`, those that ended last first: they are kept a week.
pub async fn list_over(db: &PgPool, user_id: UserId, limit: i64) -> sqlx::Result<Vec<Over>> {
    store::list_over(db, user_id, limit).await
}

/// How many rows one statement removes: a delete that nobody waits for.
const PURGE_SLICE: i64 = 5_000;

/// Forgets tokens that were used 30 days ago, and sessions that ended 7 days ago; returns how many
/// rows that was.
///
/// A browser forgets its cookie after [`IDLE_MAX`], so whoever shows an older token never had a right
/// to it and learns nothing. An ended session stays a week, for the mail about its end and for
/// whoever is asked about it.
pub async fn purge(db: &PgPool) -> sqlx::Result<u64> {
    let used = store::purge_used_tokens(db, PURGE_SLICE).await?;
    let orphaned = store::purge_tokens_of_ended(db, PURGE_SLICE).await?;
    Ok(used + orphaned + store::purge_ended(db, PURGE_SLICE).await?)
}
