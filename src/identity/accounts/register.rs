use sqlx::PgConnection;

use super::{
    MailToken,
    request::{self, Kind, NewRequest},
};
use crate::{
    context::Context,
    identity::{Account, EmailAddress, Hasher, IdentityError, Password, Role, store as users},
    kernel::{UserId, database},
};

/// Asks for an account: a mail goes to the address, with a link or with the news that it has an account.
///
/// Takes the same time and does the same work either way. May be repeated; each request has its own mail.
pub async fn register(
    cx: &Context,
    hasher: &Hasher,
    email: &EmailAddress,
    password: Password,
) -> Result<(), IdentityError> {
    let password_hash = hasher.hash(password).await?;
    let new = NewRequest {
        kind: Kind::Registration,
        email,
        password_hash: Some(&password_hash),
        user_id: None,
    };
    request::ask(cx, new).await
}

/// Somebody who read the mail and knows the password that was asked for.
pub struct Proven {
    token: MailToken,
}

/// Checks that whoever read the mail is who registered.
///
/// Without the password, a stranger could register somebody else's address and have them confirm an
/// account to which the stranger knows the key. A wrong password does not use the token up: only who
/// reads the address's mail can guess at all.
pub async fn prove(
    cx: &Context,
    hasher: &Hasher,
    token: MailToken,
    password: Password,
) -> Result<Proven, IdentityError> {
    let asked = request::find(&cx.db, Kind::Registration, &token).await?;
    if !hasher.verify(password, asked.password_hash).await? {
        return Err(IdentityError::WrongPassword);
    }
    Ok(Proven { token })
}

/// Makes the registration a user, once; refused if the address got an account in the meantime.
pub async fn open_account(
    tx: &mut PgConnection,
    proven: &Proven,
) -> Result<Account, IdentityError> {
    let asked = request::take(&mut *tx, Kind::Registration, &proven.token).await?;
    let unreadable = || IdentityError::Unreadable("registration");
    let email = EmailAddress::parse(&asked.email).map_err(|_| unreadable())?;
    let password_hash = asked.password_hash.ok_or_else(unreadable)?;
    let id = UserId::generate();
    users::insert(tx, id, &email, &password_hash, Role::Customer).await.map_err(|error| {
        match database::violated_constraint(&error) {
            Some("users_email_unique") => IdentityError::EmailTaken,
            _ => error.into(),
        }
    })?;
    Ok(Account { id, email: asked.email, role: Role::Customer, token_epoch: 0 })
}
