use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    MailToken,
    request::Kind,
    store::{self, Living},
};
use crate::identity::IdentityError;

/// While so many mails of one kind from the last hour prove something yet, and will for five minutes, another
/// would only flood the inbox. Counting what was asked instead would let a stranger who never stops asking
/// keep every mail from the owner.
const ENOUGH: Living = Living { respite_s: 5 * 60, others_max: 5 };

/// A mail that proves nothing counts for so long: an hour beyond the respite.
const NOTICE_LIFETIME_S: i64 = 65 * 60;

/// The mail that a request asks for.
#[derive(Clone)]
pub struct Errand {
    request_id: Uuid,
    kind: Kind,
    /// To whom it goes.
    pub email: String,
    pub news: News,
}

/// What the mail says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The address has no account; the token makes it one.
    Verify,
    /// Somebody wants the address for an account, and it has one.
    HasAccount,
    /// The token gives the account another password.
    Reset,
    /// The token gives an account this address.
    ConfirmEmail,
}

/// What mail the request asks for as things stand: none where it was used or is older than a day, nor for a
/// reset where the address has no account.
pub async fn find_errand(db: &PgPool, request_id: Uuid) -> Result<Option<Errand>, IdentityError> {
    let Some(open) = store::open_request(db, request_id).await? else { return Ok(None) };
    let kind = Kind::from_name(&open.kind).ok_or(IdentityError::Unreadable("request"))?;
    let news = match (kind, open.has_account) {
        (Kind::Registration | Kind::EmailChange, true) => News::HasAccount,
        (Kind::Registration, false) => News::Verify,
        (Kind::EmailChange, false) => News::ConfirmEmail,
        (Kind::PasswordReset, true) => News::Reset,
        (Kind::PasswordReset, false) => return Ok(None),
    };
    Ok(Some(Errand { request_id, kind, email: open.email, news }))
}

/// What the mail brings.
pub enum Enclosed {
    Token(MailToken),
    /// There is nothing to prove.
    Nothing,
    /// No mail is sent: enough of the kind lie in the inbox, and each of them still works.
    Unsent,
}

impl Errand {
    /// Makes a token for the mail, where it brings one. Each sending has its own.
    pub async fn enclose(&self, db: &PgPool) -> Result<Enclosed, IdentityError> {
        let token = MailToken::generate();
        let mut tx = db.begin().await?;
        let is_due = match self.count(&mut tx, &token).await {
            Ok(is_due) => {
                tx.commit().await?;
                is_due
            }
            Err(error) => {
                let _ = tx.rollback().await;
                return Err(error.into());
            }
        };
        Ok(match self.news {
            _ if !is_due => Enclosed::Unsent,
            // The row counts the mail; nobody ever learns its token.
            News::HasAccount => Enclosed::Nothing,
            News::Verify | News::Reset | News::ConfirmEmail => Enclosed::Token(token),
        })
    }

    /// Writes the token down, unless there are enough that work.
    async fn count(&self, tx: &mut PgConnection, token: &MailToken) -> sqlx::Result<bool> {
        let lifetime_s = match self.news {
            News::HasAccount => NOTICE_LIFETIME_S,
            News::Verify | News::Reset | News::ConfirmEmail => self.kind.token_lifetime_s(),
        };
        // Else mails that are written at the same time would not see each other.
        store::lock_kind(&mut *tx, self.request_id).await?;
        store::insert_token(tx, self.request_id, &token.digest(), lifetime_s, ENOUGH).await
    }
}

/// The address that an account had before the request changed it, while the request is kept.
pub async fn email_before(db: &PgPool, request_id: Uuid) -> Result<Option<String>, IdentityError> {
    Ok(store::email_before(db, request_id).await?)
}

/// Written without the address, which has no place in a log.
impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errand").field("news", &self.news).finish_non_exhaustive()
    }
}
