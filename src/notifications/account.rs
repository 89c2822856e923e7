//! Mails about accounts: to whoever asks for one, and to users about what happens to theirs.

use minijinja::{context, value::Serde};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    NotificationError,
    deliver::{Letter, Recipient, deliver_once},
    render::{Rendered, TEMPLATES},
    store,
};
use crate::{
    context::{Context, Shop},
    identity::{
        IdentityError,
        accounts::{self, Enclosed, Errand, MailToken, News},
    },
    kernel::UserId,
};

/// A kind of mail about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    VerifyEmail,
    AccountExists,
    ResetPassword,
    ConfirmEmail,
    PasswordChanged,
    EmailChanged,
    SessionRevoked,
}

impl Notice {
    const ALL: [Self; 7] = [
        Self::VerifyEmail,
        Self::AccountExists,
        Self::ResetPassword,
        Self::ConfirmEmail,
        Self::PasswordChanged,
        Self::EmailChanged,
        Self::SessionRevoked,
    ];

    /// The name in the database; never changed, as it is part of a delivery's identity.
    const fn name(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify-email",
            Self::AccountExists => "account-exists",
            Self::ResetPassword => "reset-password",
            Self::ConfirmEmail => "confirm-email",
            Self::PasswordChanged => "password-changed",
            Self::EmailChanged => "email-changed",
            Self::SessionRevoked => "session-revoked",
        }
    }

    const fn subject(self) -> &'static str {
        match self {
            Self::VerifyEmail => "Open your account",
            Self::AccountExists => "You have an account already",
            Self::ResetPassword => "Choose another password",
            Self::ConfirmEmail => "Confirm your e-mail address",
            Self::PasswordChanged => "Your password was changed",
            Self::EmailChanged => "Your e-mail address was changed",
            Self::SessionRevoked => "You were logged out on one of your devices",
        }
    }
}

impl From<News> for Notice {
    fn from(news: News) -> Self {
        match news {
            News::Verify => Self::VerifyEmail,
            News::HasAccount => Self::AccountExists,
            News::Reset => Self::ResetPassword,
            News::ConfirmEmail => Self::ConfirmEmail,
        }
    }
}

/// Sends the mail that the request asks for, if it still asks for one.
pub(super) async fn answer_request(
    cx: &Context,
    request_id: Uuid,
) -> Result<(), NotificationError> {
    let Some(errand) = accounts::find_errand(&cx.db, request_id).await? else {
        // An earlier try may have opened the delivery and failed.
        return Ok(store::withdraw_all_unsent(&cx.db, request_id).await?);
    };
    let notice = Notice::from(errand.news);
    let recipient = Recipient::Address(&errand.email);
    let letter = Letter { template: notice.name(), cause_id: request_id, recipient };
    deliver_once(cx, letter, write(cx, notice, &errand)).await
}

async fn write(
    cx: &Context,
    notice: Notice,
    errand: &Errand,
) -> Result<Option<Rendered>, NotificationError> {
    let token = match errand.enclose(&cx.db).await? {
        Enclosed::Token(token) => Some(token),
        Enclosed::Nothing => None,
        Enclosed::Unsent => return Ok(None),
    };
    Ok(Some(render(notice, token.as_ref(), &cx.shop)?))
}

/// Sends the user the news, unless their account is gone.
pub(super) async fn tell(
    cx: &Context,
    notice: Notice,
    user_id: UserId,
    cause_id: Uuid,
) -> Result<(), NotificationError> {
    let email = match accounts::find_profile(&cx.db, user_id).await {
        Ok(profile) => Some(profile.email),
        Err(IdentityError::Unauthenticated) => None,
        Err(error) => return Err(error.into()),
    };
    tell_address(cx, notice, email, cause_id).await
}

/// Tells the address that an account had until the request changed it.
pub(super) async fn tell_email_before(
    cx: &Context,
    request_id: Uuid,
) -> Result<(), NotificationError> {
    let email = accounts::email_before(&cx.db, request_id).await?;
    tell_address(cx, Notice::EmailChanged, email, request_id).await
}

async fn tell_address(
    cx: &Context,
    notice: Notice,
    email: Option<String>,
    cause_id: Uuid,
) -> Result<(), NotificationError> {
    let Some(email) = email else {
        return Ok(store::withdraw_unsent(&cx.db, cause_id, notice.name()).await?);
    };
    let recipient = Recipient::Address(&email);
    let letter = Letter { template: notice.name(), cause_id, recipient };
    deliver_once(cx, letter, async { Ok(Some(render(notice, None, &cx.shop)?)) }).await
}

/// How many deliveries one statement removes: a delete that nobody waits for.
const PURGE_SLICE: i64 = 1_000;

/// Forgets the mails about accounts that were sent 30 days ago, and with them addresses that an account no
/// longer has; returns how many. Those about orders stay as long as the order names its shopper.
pub async fn purge(db: &PgPool) -> Result<u64, NotificationError> {
    let templates = Notice::ALL.map(|notice| notice.name().to_owned());
    let mut purged = 0;
    loop {
        let slice = store::purge(db, &templates, PURGE_SLICE).await?;
        purged += slice;
        if slice < PURGE_SLICE.unsigned_abs() {
            return Ok(purged);
        }
    }
}

/// Writes the mail, as text and as HTML.
///
/// The token stands in the link's fragment, which a browser sends to no server, so that no log has it.
fn render(
    notice: Notice,
    token: Option<&MailToken>,
    shop: &Shop,
) -> Result<Rendered, minijinja::Error> {
    let link = token.map(|token| format!("{}/{}#token={}", shop.url, notice.name(), token.text()));
    let link = link.as_deref();
    let body = |kind| {
        let template = TEMPLATES.get_template(&format!("{}.{kind}", notice.name()))?;
        template.render(context! { link, shop => Serde(shop) })
    };
    Ok(Rendered {
        subject: format!("{}: {}", shop.name, notice.subject()),
        text: body("txt")?,
        html: body("html")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifications::render::tests::shop;

    #[test]
    fn the_words_of_the_mails_about_accounts_are_these() {
        let token = MailToken::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();

        for notice in Notice::ALL {
            let mail = render(notice, Some(&token), &shop()).unwrap();

            insta::assert_snapshot!(format!("{}.txt", notice.name()), mail.text);
            insta::assert_snapshot!(format!("{}.html", notice.name()), mail.html);
        }
    }

    #[test]
    fn only_a_mail_that_proves_something_has_a_link_with_a_token() {
        let token = MailToken::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();

        for notice in Notice::ALL {
            let mail = render(notice, Some(&token), &shop()).unwrap();

            let proves = match notice {
                Notice::VerifyEmail | Notice::ResetPassword | Notice::ConfirmEmail => true,
                Notice::AccountExists
                | Notice::PasswordChanged
                | Notice::EmailChanged
                | Notice::SessionRevoked => false,
            };
            let link = format!("https://shop.example/{}#token={}", notice.name(), token.text());
            assert_eq!(mail.text.contains(&link), proves, "{notice:?}");
            assert_eq!(mail.html.contains("#token="), proves, "{notice:?}");
            assert!(mail.subject.starts_with("The Shop: "), "{}", mail.subject);
        }
    }
}
