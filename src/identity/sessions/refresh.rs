use jobs::{Delay, Staged, notifications::SendSessionRevoked};
use sqlx::PgConnection;

use super::{Ended, Opened, RefreshToken, UserAgent, store};
use crate::{
    context::Context,
    identity::{Account, IdentityError, KeyRing},
    kernel::{SessionId, rerun},
};

/// A session that goes on.
#[derive(Debug)]
pub struct Refreshed {
    pub account: Account,
    /// With the token that is good for the next time.
    pub opened: Opened,
}

enum Outcome {
    Refreshed(Refreshed),
    /// The token was used before. Its session has been ended, and this is the mail that says so.
    Reused(Staged),
    /// There is no such session any more.
    Over,
}

/// Exchanges a refresh token for its successor, once.
///
/// The same token may come again within [`GRACE`](super::GRACE), and gets the successor that the
/// session goes on with; later it ends the session. Fails with [`IdentityError::SessionEnded`]
/// whatever is wrong with the token.
pub async fn refresh(
    cx: &Context,
    keys: &KeyRing,
    token: &RefreshToken,
    user_agent: &UserAgent,
) -> Result<Refreshed, IdentityError> {
    match rerun(|| exchange(cx, keys, token, user_agent), IdentityError::database).await? {
        Outcome::Refreshed(refreshed) => Ok(refreshed),
        Outcome::Reused(staged) => {
            cx.relay.wake(staged);
            metrics::counter!("refresh_tokens_reused_total").increment(1);
            Err(IdentityError::SessionEnded)
        }
        Outcome::Over => Err(IdentityError::SessionEnded),
    }
}

async fn exchange(
    cx: &Context,
    keys: &KeyRing,
    token: &RefreshToken,
    user_agent: &UserAgent,
) -> Result<Outcome, IdentityError> {
    let mut tx = cx.db.begin().await?;
    match use_or_judge(&mut tx, keys, token, user_agent).await {
        Ok(outcome) => {
            tx.commit().await?;
            Ok(outcome)
        }
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error.into())
        }
    }
}

async fn use_or_judge(
    tx: &mut PgConnection,
    keys: &KeyRing,
    token: &RefreshToken,
    user_agent: &UserAgent,
) -> sqlx::Result<Outcome> {
    // Whoever gets the row is the one who uses the token; others wait here and find it used.
    match store::use_token(&mut *tx, &token.hash()).await? {
        Some(session_id) => go_on(tx, keys, token, session_id, user_agent).await,
        None => judge(tx, keys, token).await,
    }
}

/// Gives the session its next token, unless it has ended meanwhile.
async fn go_on(
    tx: &mut PgConnection,
    keys: &KeyRing,
    token: &RefreshToken,
    session_id: SessionId,
    user_agent: &UserAgent,
) -> sqlx::Result<Outcome> {
    let Some(user) = store::touch(&mut *tx, session_id, user_agent).await? else {
        return Ok(Outcome::Over);
    };
    let Some(successor) = token.successors(keys).next() else { return Ok(Outcome::Over) };
    store::insert_token(&mut *tx, session_id, &successor.hash()).await?;
    Ok(refreshed(user.into(), session_id, successor))
}

/// Tells a token that comes again by mischance from one that comes again because somebody copied it.
async fn judge(
    tx: &mut PgConnection,
    keys: &KeyRing,
    token: &RefreshToken,
) -> sqlx::Result<Outcome> {
    // A statement of its own: only one that starts afterwards sees what the first has waited for.
    let Some(used) = store::find_used(&mut *tx, &token.hash()).await? else {
        return Ok(Outcome::Over);
    };
    let (session_id, user_id) = (used.session_id, used.user_id);
    if used.in_grace {
        let recent = store::recent_tokens(&mut *tx, session_id).await?;
        return Ok(match current(keys, token, &recent) {
            Some(successor) => refreshed(used.into_account(), session_id, successor),
            None => Outcome::Over,
        });
    }
    if !store::revoke_of(&mut *tx, user_id, session_id, Ended::TokenReused).await? {
        return Ok(Outcome::Over);
    }
    tracing::warn!(
        session.id = %session_id,
        user.id = %user_id,
        "a refresh token was used again; its session has been ended"
    );
    let mail = SendSessionRevoked { session_id: session_id.uuid(), user_id: user_id.uuid() };
    Ok(Outcome::Reused(jobs::stage(tx, &[mail], Delay::NONE).await?))
}

/// The unused token at the end of the chain that begins with `token`.
///
/// None if a link was made by a key that this process does not have.
fn current(
    keys: &KeyRing,
    token: &RefreshToken,
    recent: &[store::RecentToken],
) -> Option<RefreshToken> {
    let mut token = token.clone();
    for _ in recent {
        let (successor, row) = token.successors(keys).find_map(|successor| {
            let hash = successor.hash();
            let row = recent.iter().find(|row| row.hash == hash)?;
            Some((successor, row))
        })?;
        if !row.is_used {
            return Some(successor);
        }
        token = successor;
    }
    None
}

fn refreshed(account: Account, session_id: SessionId, refresh_token: RefreshToken) -> Outcome {
    Outcome::Refreshed(Refreshed { account, opened: Opened { session_id, refresh_token } })
}
