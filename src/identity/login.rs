use sqlx::{PgConnection, PgExecutor, PgPool};

use super::{
    EmailAddress, Hasher, IdentityError, Password, Role,
    sessions::{self, Opened, UserAgent},
    store,
};
use crate::kernel::{UserId, database, rerun};

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
    db: impl PgExecutor<'_>,
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

/// How often a login begins anew because the password was changed, or hashed anew, while it was checked.
const ATTEMPTS_MAX: u32 = 3;

/// Opens a session for the user who has both the e-mail address and the password.
///
/// Takes the same time and gives the same answer whether the address is unknown or the password wrong.
/// A password that was changed while it was checked opens nothing. One whose hash was made with less
/// than is asked today is hashed anew.
pub async fn log_in(
    db: &PgPool,
    hasher: &Hasher,
    email: &EmailAddress,
    password: Password,
    user_agent: &UserAgent,
) -> Result<(Account, Opened), IdentityError> {
    for _ in 0..ATTEMPTS_MAX {
        let user = find_by_password(db, hasher, email, password.clone()).await?;
        let better = if Hasher::is_outdated(&user.password_hash) {
            // Not worth refusing the login for: the next one tries again.
            hasher.hash(password.clone()).await.ok()
        } else {
            None
        };
        let opened =
            rerun(|| open(db, &user, better.as_deref(), user_agent), IdentityError::database)
                .await?;
        if let Some(opened) = opened {
            return Ok((user.into(), opened));
        }
    }
    Err(IdentityError::Busy)
}

/// Finds the user who has both the e-mail address and the password, and opens nothing.
pub async fn authenticate(
    db: &PgPool,
    hasher: &Hasher,
    email: &EmailAddress,
    password: Password,
) -> Result<Account, IdentityError> {
    Ok(find_by_password(db, hasher, email, password).await?.into())
}

async fn find_by_password(
    db: &PgPool,
    hasher: &Hasher,
    email: &EmailAddress,
    password: Password,
) -> Result<store::UserRow, IdentityError> {
    let user = store::find_by_email(db, email).await?;
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let verified = hasher.verify(password, hash).await?;
    user.filter(|_| verified).ok_or(IdentityError::InvalidCredentials)
}

async fn open(
    db: &PgPool,
    user: &store::UserRow,
    better_hash: Option<&str>,
    user_agent: &UserAgent,
) -> Result<Option<Opened>, IdentityError> {
    let mut tx = db.begin().await?;
    match open_unless_changed(&mut tx, user, better_hash, user_agent).await {
        Ok(opened) => {
            tx.commit().await?;
            Ok(opened)
        }
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error.into())
        }
    }
}

/// Opens a session, unless the password is no longer the one that was checked.
async fn open_unless_changed(
    tx: &mut PgConnection,
    user: &store::UserRow,
    better_hash: Option<&str>,
    user_agent: &UserAgent,
) -> sqlx::Result<Option<Opened>> {
    if !store::lock_password(&mut *tx, user.id, &user.password_hash).await? {
        return Ok(None);
    }
    if let Some(hash) = better_hash {
        store::set_hash(&mut *tx, user.id, hash).await?;
    }
    sessions::open(tx, user.id, user_agent).await.map(Some)
}

/// Finds a user who is known to exist; whose account has gone meanwhile is nobody we know.
pub async fn find_user(db: &PgPool, id: UserId) -> Result<Account, IdentityError> {
    let user = store::find(db, id).await?.ok_or(IdentityError::Unauthenticated)?;
    Ok(user.into())
}

/// Gives the user another role, and makes every access token they have worthless at once. Their
/// sessions go on: the next token says the new role. Returns who it is and which role they had.
pub async fn set_role(
    db: impl PgExecutor<'_>,
    email: &EmailAddress,
    role: Role,
) -> Result<(UserId, Role), IdentityError> {
    let was = store::set_role(db, email, role).await?.ok_or(IdentityError::UnknownUser)?;
    Ok((was.id, was.role))
}

impl From<store::UserRow> for Account {
    fn from(row: store::UserRow) -> Self {
        Self { id: row.id, email: row.email, role: row.role, token_epoch: row.token_epoch }
    }
}
