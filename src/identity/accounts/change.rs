use jobs::{Delay, notifications::SendEmailChanged};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;

use super::{
    MailToken,
    request::{self, Kind, NewRequest},
    reset::tell_password_changed,
    store,
};
use crate::{
    context::Context,
    identity::{
        EmailAddress, Hasher, IdentityError, Password, Role,
        sessions::{self, Ended},
        store as users,
    },
    kernel::{Detail, SessionId, UserId, database, rerun},
};

/// What a user sees of their own account.
#[derive(Debug, Clone)]
pub struct Profile {
    pub id: UserId,
    pub email: String,
    pub role: Role,
    pub display_name: Option<String>,
    pub created_at: OffsetDateTime,
}

/// How a user wants to be called: 1 to 100 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {} characters, none of them a control character", DisplayName::LENGTH_MAX)]
pub struct InvalidName;

impl InvalidName {
    pub fn at(self, pointer: &str) -> Detail {
        Detail {
            pointer: pointer.to_owned(),
            code: "invalid-name",
            message: self.to_string(),
            available: None,
        }
    }
}

impl DisplayName {
    pub const LENGTH_MAX: usize = 100;

    /// Reads a name, without the white space around it.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let text = text.trim();
        let length = text.chars().take(Self::LENGTH_MAX + 1).count();
        if !(1..=Self::LENGTH_MAX).contains(&length) || text.chars().any(char::is_control) {
            return Err(InvalidName);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The user's own account; whose account has gone meanwhile is nobody we know.
pub async fn find_profile(db: &PgPool, user_id: UserId) -> Result<Profile, IdentityError> {
    store::profile(db, user_id).await?.ok_or(IdentityError::Unauthenticated)
}

/// Gives the user another name, or none.
pub async fn rename(
    db: &PgPool,
    user_id: UserId,
    name: Option<DisplayName>,
) -> Result<Profile, IdentityError> {
    let name = name.map(|name| name.0);
    let renamed = store::rename(db, user_id, name.as_deref()).await?;
    renamed.ok_or(IdentityError::Unauthenticated)
}

/// Gives the user another password and ends every session but the one that asked.
///
/// A password that was changed meanwhile is taken for a wrong one. A mail tells the owner, and what was
/// sent before to reset the password or to change the address is worthless.
pub async fn change_password(
    cx: &Context,
    hasher: &Hasher,
    user_id: UserId,
    kept: SessionId,
    passwords: Passwords,
) -> Result<(), IdentityError> {
    let known = check(cx, hasher, user_id, passwords.current).await?;
    let password_hash = hasher.hash(passwords.new).await?;
    let replace =
        || in_transaction(cx, async |tx| replace_password(tx, &known, kept, &password_hash).await);
    let staged = rerun(replace, IdentityError::database).await?;
    cx.relay.wake(staged);
    Ok(())
}

/// Commits the work, or undoes it.
async fn in_transaction(
    cx: &Context,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<jobs::Staged, IdentityError>,
) -> Result<jobs::Staged, IdentityError> {
    let mut tx = cx.db.begin().await?;
    match work(&mut tx).await {
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

/// The password that is, and the one that is to be.
pub struct Passwords {
    pub current: Password,
    pub new: Password,
}

/// Finds the user, who must know the password.
pub(super) async fn check(
    cx: &Context,
    hasher: &Hasher,
    user_id: UserId,
    password: Password,
) -> Result<users::UserRow, IdentityError> {
    let known = users::find(&cx.db, user_id).await?.ok_or(IdentityError::Unauthenticated)?;
    if !hasher.verify(password, Some(known.password_hash.clone())).await? {
        return Err(IdentityError::WrongPassword);
    }
    Ok(known)
}

async fn replace_password(
    tx: &mut PgConnection,
    known: &users::UserRow,
    kept: SessionId,
    password_hash: &str,
) -> Result<jobs::Staged, IdentityError> {
    if !store::replace_password(&mut *tx, known.id, &known.password_hash, password_hash).await? {
        return Err(IdentityError::WrongPassword);
    }
    store::end_requests(&mut *tx, Kind::PasswordReset, &known.email).await?;
    store::end_email_changes(&mut *tx, known.id).await?;
    sessions::revoke_all(&mut *tx, known.id, Some(kept), Ended::PasswordChanged).await?;
    Ok(tell_password_changed(tx, known.id).await?)
}

/// Asks for another e-mail address: a mail with a link goes to the new one.
///
/// What the caller is told is the same whether the new address has an account or not.
pub async fn change_email(
    cx: &Context,
    hasher: &Hasher,
    user_id: UserId,
    password: Password,
    new_email: &EmailAddress,
) -> Result<(), IdentityError> {
    check(cx, hasher, user_id, password).await?;
    let new = NewRequest {
        kind: Kind::EmailChange,
        email: new_email,
        password_hash: None,
        user_id: Some(user_id),
    };
    request::ask(cx, new).await
}

/// Gives the user the address whose mail they read, once. A mail tells the address before.
///
/// The user must be the one who asked: a mail that went astray gives its reader no account. Resets that
/// were asked for at the address before are worthless from then on.
pub async fn confirm_email(
    cx: &Context,
    user_id: UserId,
    token: &MailToken,
) -> Result<(), IdentityError> {
    let replace = || in_transaction(cx, async |tx| replace_email(tx, user_id, token).await);
    let staged = rerun(replace, IdentityError::database).await?;
    cx.relay.wake(staged);
    Ok(())
}

async fn replace_email(
    tx: &mut PgConnection,
    user_id: UserId,
    token: &MailToken,
) -> Result<jobs::Staged, IdentityError> {
    if !store::lock_user(&mut *tx, user_id).await? {
        return Err(IdentityError::Unauthenticated);
    }
    let asked = request::take(&mut *tx, Kind::EmailChange, token).await?;
    if asked.user_id != Some(user_id) {
        return Err(IdentityError::InvalidMailToken);
    }
    let email_before = store::replace_email(&mut *tx, user_id, asked.id, &asked.email)
        .await
        .map_err(|error| match database::violated_constraint(&error) {
            Some("users_email_unique") => IdentityError::EmailTaken,
            _ => error.into(),
        })?
        .ok_or(IdentityError::InvalidMailToken)?;
    store::end_requests(&mut *tx, Kind::PasswordReset, &email_before).await?;
    let job = SendEmailChanged { request_id: asked.id };
    Ok(jobs::stage(tx, &[job], Delay::NONE).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed_and_bounded() {
        for (text, name) in [
            ("Ada", Some("Ada")),
            ("  Ada Lovelace ", Some("Ada Lovelace")),
            ("Łukasz 🦊", Some("Łukasz 🦊")),
            ("", None),
            ("   ", None),
            ("Ada\nBcc: all@example.com", None),
            ("Ada\0", None),
        ] {
            let parsed = DisplayName::parse(text).ok().map(|name| name.0);
            assert_eq!(parsed.as_deref(), name, "{text:?}");
        }
        assert!(DisplayName::parse(&"ы".repeat(100)).is_ok());
        assert!(DisplayName::parse(&"ы".repeat(101)).is_err());
    }
}
