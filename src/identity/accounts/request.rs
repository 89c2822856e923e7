use jobs::Delay;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{MailToken, store};
use crate::{
    context::Context,
    identity::{EmailAddress, IdentityError},
    kernel::{UserId, rerun},
};

/// What can be asked for and needs the proof of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Registration,
    PasswordReset,
    EmailChange,
}

impl Kind {
    /// The name in the database.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::PasswordReset => "password_reset",
            Self::EmailChange => "email_change",
        }
    }

    /// For how many seconds a token is good, counted from when the mailer made it.
    pub(super) const fn token_lifetime_s(self) -> i64 {
        match self {
            // People read the mail of a shop they have just found when they come to it.
            Self::Registration | Self::EmailChange => 24 * 3_600,
            // It opens an account that is worth taking, to whoever reads the mail first.
            Self::PasswordReset => 30 * 60,
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Registration, Self::PasswordReset, Self::EmailChange]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// A request to be written.
pub(super) struct NewRequest<'a> {
    pub(super) kind: Kind,
    pub(super) email: &'a EmailAddress,
    pub(super) password_hash: Option<&'a str>,
    pub(super) user_id: Option<UserId>,
}

/// Writes the request and promises its mail. The same work, whatever is known of the address.
pub(super) async fn ask(cx: &Context, new: NewRequest<'_>) -> Result<(), IdentityError> {
    let staged = rerun(|| ask_once(cx, &new), IdentityError::database).await?;
    cx.relay.wake(staged);
    Ok(())
}

async fn ask_once(cx: &Context, new: &NewRequest<'_>) -> Result<jobs::Staged, IdentityError> {
    let mut tx = cx.db.begin().await?;
    match write(&mut tx, new).await {
        Ok(staged) => {
            tx.commit().await?;
            Ok(staged)
        }
        Err(error) => {
            let _ = tx.rollback().await;
            Err(error.into())
        }
    }
}

async fn write(tx: &mut PgConnection, new: &NewRequest<'_>) -> sqlx::Result<jobs::Staged> {
    let request_id = Uuid::now_v7();
    store::insert_request(&mut *tx, request_id, new).await?;
    let job = jobs::notifications::SendAccountMail { request_id };
    jobs::stage(tx, &[job], Delay::NONE).await
}

/// What was asked for with a token that is good now.
pub(super) struct Asked {
    pub(super) id: Uuid,
    pub(super) email: String,
    pub(super) password_hash: Option<String>,
    pub(super) user_id: Option<UserId>,
}

/// Finds what the token proves, without using it up.
pub(super) async fn find(
    db: &PgPool,
    kind: Kind,
    token: &MailToken,
) -> Result<Asked, IdentityError> {
    let asked = store::find_asked(db, kind, &token.digest()).await?;
    asked.ok_or(IdentityError::InvalidMailToken)
}

/// Uses up the request that the token proves: of all who try, one gets it.
///
/// Every other request of the same kind for the same address is made pointless by it.
pub(super) async fn take(
    tx: &mut PgConnection,
    kind: Kind,
    token: &MailToken,
) -> Result<Asked, IdentityError> {
    store::lock_asked(&mut *tx, kind, &token.digest()).await?;
    let asked = store::take_asked(&mut *tx, kind, &token.digest()).await?;
    let asked = asked.ok_or(IdentityError::InvalidMailToken)?;
    store::end_requests(tx, kind, &asked.email).await?;
    Ok(asked)
}

/// How many requests one statement removes: a delete that nobody waits for.
const PURGE_SLICE: i64 = 1_000;

/// Forgets the requests that nobody can act on any more; returns how many.
pub async fn purge(db: &PgPool) -> Result<u64, IdentityError> {
    let mut purged = 0;
    loop {
        let slice = store::purge_requests(db, PURGE_SLICE).await?;
        purged += slice;
        if slice < PURGE_SLICE.unsigned_abs() {
            return Ok(purged);
        }
    }
}
