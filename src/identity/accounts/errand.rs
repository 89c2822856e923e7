use sqlx::PgPool;
use uuid::Uuid;

use super::{MailToken, request::Kind, store};
use crate::identity::IdentityError;

/// How many requests for one address are answered by mail within an hour. Whoever asks more often is not
/// told, and floods nobody: every mail before still works.
const MAILS_PER_HOUR_MAX: i64 = 10;

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

/// What mail the request asks for now: none where it was used, is older than a day or comes from somebody
/// who asks too often, nor for a reset where the address has no account.
pub async fn find_errand(db: &PgPool, request_id: Uuid) -> Result<Option<Errand>, IdentityError> {
    let Some(open) = store::open_request(db, request_id).await? else { return Ok(None) };
    let kind = Kind::from_name(&open.kind).ok_or(IdentityError::Unreadable("request"))?;
    if open.asked_before >= MAILS_PER_HOUR_MAX {
        return Ok(None);
    }
    let news = match (kind, open.has_account) {
        (Kind::Registration | Kind::EmailChange, true) => News::HasAccount,
        (Kind::Registration, false) => News::Verify,
        (Kind::EmailChange, false) => News::ConfirmEmail,
        (Kind::PasswordReset, true) => News::Reset,
        (Kind::PasswordReset, false) => return Ok(None),
    };
    Ok(Some(Errand { request_id, kind, email: open.email, news }))
}

impl Errand {
    /// Makes a token for the mail, where it brings one. Each sending has its own.
    pub async fn token(&self, db: &PgPool) -> Result<Option<MailToken>, IdentityError> {
        if self.news == News::HasAccount {
            return Ok(None);
        }
        let token = MailToken::generate();
        let lifetime_s = self.kind.token_lifetime_s();
        store::insert_token(db, self.request_id, &token.digest(), lifetime_s).await?;
        Ok(Some(token))
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
