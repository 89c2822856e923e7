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

/// Keeps everybody else from changing the user, who must still be who was checked, and forgets what was
/// asked for with their address; returns the address, which may have changed since the check.
pub async fn lock(tx: &mut PgConnection, leaving: &Leaving) -> Result<String, IdentityError> {
    let Leaving(user) = leaving;
    let current =
        store::lock_for_erasure(&mut *tx, user.id).await?.ok_or(IdentityError::Unauthenticated)?;
    if current.password_hash != user.password_hash || current.role != user.role {
        return Err(IdentityError::WrongPassword);
    }
    store::delete_requests(tx, user.id, &current.email).await?;
    Ok(current.email)
}

/// Removes the locked user with their sessions and addresses; that the id was somebody's stays on record
/// for as long as an order is left to erase.
pub async fn erase(tx: &mut PgConnection, leaving: &Leaving) -> Result<(), IdentityError> {
    let Leaving(user) = leaving;
    store::note_erased(&mut *tx, user.id).await?;
    store::delete_user(tx, user.id).await?;
    Ok(())
}
