use sqlx::PgPool;

use super::{EmailAddress, Hasher, IdentityError, Password, Role, store};
use crate::kernel::{UserId, database};

/// A user, as far as others may know them.
#[derive(Debug, Clone)]
pub struct Account {
    pub id: UserId,
    pub email: String,
    pub role: Role,
    /// What the user's tokens must carry; see `users.token_epoch`.
    pub token_epoch: i32,
}

/// Adds somebody who can log in with the e-mail address and the password.
pub async fn create_user(
    db: &PgPool,
    hasher: &Hasher,
    email: EmailAddress,
    password: Password,
    role: Role,
) -> Result<Account, IdentityError> {
    let id = UserId::generate();
    let password_hash = hasher.hash(password).await?;
    store::insert(db, id, &email, &password_hash, role).await.map_err(|error| {
        match database::violated_constraint(&error) {
            Some("users_email_unique") => IdentityError::EmailTaken,
            _ => error.into(),
        }
    })?;
    Ok(Account { id, email: email.to_string(), role, token_epoch: 0 })
}

/// Finds the user who has both the e-mail address and the password.
///
/// Takes the same time and gives the same answer whether the address is unknown or the password wrong.
pub async fn log_in(
    db: &PgPool,
    hasher: &Hasher,
    email: &EmailAddress,
    password: Password,
) -> Result<Account, IdentityError> {
    let user = store::find_by_email(db, email).await?;
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let verified = hasher.verify(password, hash).await?;
    match user {
        Some(user) if verified => Ok(user.into()),
        Some(_) | None => Err(IdentityError::InvalidCredentials),
    }
}

/// Finds a user who is known to exist; whose account has gone meanwhile is nobody we know.
pub async fn find_user(db: &PgPool, id: UserId) -> Result<Account, IdentityError> {
    let user = store::find(db, id).await?.ok_or(IdentityError::Unauthenticated)?;
    Ok(user.into())
}

/// Gives the user another role, and makes every token they have worthless.
pub async fn set_role(db: &PgPool, email: &EmailAddress, role: Role) -> Result<(), IdentityError> {
    if !store::set_role(db, email, role).await? {
        return Err(IdentityError::UnknownUser);
    }
    Ok(())
}

impl From<store::UserRow> for Account {
    fn from(row: store::UserRow) -> Self {
        Self { id: row.id, email: row.email, role: row.role, token_epoch: row.token_epoch }
    }
}
