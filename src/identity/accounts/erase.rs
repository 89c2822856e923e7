use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{change, store};
use crate::{
    context::Context,
    identity::{Hasher, IdentityError, Password, store::UserRow},
    kernel::UserId,
};

/// A user who wants to be forgotten and knows the account's password.
pub struct Leaving(UserRow);

impl Leaving {
    pub fn user_id(&self) -> UserId {
        self.0.id
    }

    pub fn email(&self) -> &str {
        &self.0.email
    }
}

/// Checks that the user knows the password and is nobody whose deeds are on record: an account of staff
/// is first made a customer's.
pub async fn leave(
    cx: &Context,
    hasher: &Hasher,
    user_id: UserId,
    password: Password,
) -> Result<Leaving, IdentityError> {
    let user = change::check(cx, hasher, user_id, password).await?;
    if user.role.is_staff() {
        return Err(IdentityError::StaffAccount);
    }
    Ok(Leaving(user))
}

/// Keeps everybody else from changing the user, who must still be who was checked.
pub async fn lock(tx: &mut PgConnection, leaving: &Leaving) -> Result<(), IdentityError> {
    let Leaving(user) = leaving;
    let current = store::lock_for_erasure(tx, user.id).await?;
    match current {
        Some((password_hash, role)) if password_hash == user.password_hash && role == user.role => {
            Ok(())
        }
        Some(_) => Err(IdentityError::WrongPassword),
        None => Err(IdentityError::Unauthenticated),
    }
}

/// Removes the locked user with their sessions, addresses and requests; the digest of the address stays.
pub async fn erase(tx: &mut PgConnection, leaving: &Leaving) -> Result<(), IdentityError> {
    let Leaving(user) = leaving;
    let digest: [u8; 32] = Sha256::digest(user.email.as_bytes()).into();
    store::note_erased(&mut *tx, user.id, &digest).await?;
    store::delete_requests(&mut *tx, &user.email).await?;
    store::delete_user(tx, user.id).await?;
    Ok(())
}
