use jobs::{Delay, notifications::SendPasswordChanged};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    MailToken,
    request::{self, Kind, NewRequest},
    store,
};
use crate::{
    context::Context,
    identity::{
        EmailAddress, Hasher, IdentityError, Password,
        sessions::{self, Ended},
    },
    kernel::{UserId, rerun},
};

/// Asks for a way back in: if the address has an account, a mail with a link goes there.
///
/// Takes the same time and does the same work whether it has one or not.
pub async fn ask_reset(cx: &Context, email: &EmailAddress) -> Result<(), IdentityError> {
    let new = NewRequest { kind: Kind::PasswordReset, email, password_hash: None, user_id: None };
    request::ask(cx, new).await
}

/// Gives the account of whoever read the mail another password, once, and ends all its sessions.
///
/// Every other token that was sent for a reset is worthless afterwards, and so is a change of the address
/// that was asked for before. A mail tells the owner.
pub async fn reset_password(
    cx: &Context,
    hasher: &Hasher,
    token: &MailToken,
    new_password: Password,
) -> Result<(), IdentityError> {
    // Nobody makes us hash with a token that is worth nothing.
    let asked = request::find(&cx.db, Kind::PasswordReset, token).await?;
    let password_hash = hasher.hash(new_password).await?;
    let staged =
        rerun(|| reset(cx, &asked.email, token, &password_hash), IdentityError::database).await?;
    cx.relay.wake(staged);
    Ok(())
}

async fn reset(
    cx: &Context,
    email: &str,
    token: &MailToken,
    password_hash: &str,
) -> Result<jobs::Staged, IdentityError> {
    let mut tx = cx.db.begin().await?;
    match set_password(&mut tx, email, token, password_hash).await {
        Ok(staged) => {
            tx.commit().await?;
            Ok(staged)
        }
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

async fn set_password(
    tx: &mut PgConnection,
    email: &str,
    token: &MailToken,
    password_hash: &str,
) -> Result<jobs::Staged, IdentityError> {
    // The user's row is locked before the requests, here as everywhere; a token used up undoes it.
    let user_id = store::set_password(&mut *tx, email, password_hash)
        .await?
        .ok_or(IdentityError::InvalidMailToken)?;
    request::take(&mut *tx, Kind::PasswordReset, token).await?;
    store::end_email_changes(&mut *tx, user_id).await?;
    sessions::revoke_all(&mut *tx, user_id, None, Ended::PasswordChanged).await?;
    Ok(tell_password_changed(tx, user_id).await?)
}

/// Promises the mail that tells a user of a new password.
pub(super) async fn tell_password_changed(
    tx: &mut PgConnection,
    user_id: UserId,
) -> sqlx::Result<jobs::Staged> {
    let job = SendPasswordChanged { user_id: user_id.uuid(), change_id: Uuid::now_v7() };
    jobs::stage(tx, &[job], Delay::NONE).await
}
