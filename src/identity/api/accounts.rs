//! Accounts: asking for one, winning it back, changing what proves it. Opening one and giving it up move
//! other slices, too: `privacy` does that.

use poem_openapi::{ApiResponse, Object, OpenApi, payload::Json, types::Password as Secret};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Customer, Tag, sessions::CredentialsBody};
use crate::{
    context::Context,
    identity::{
        EmailAddress, Hasher, IdentityError, Password,
        accounts::{self, MailToken, Passwords, Profile},
    },
    web::Problem,
};

#[derive(Debug)]
pub struct AccountsApi {
    cx: Context,
    hasher: Hasher,
}

impl AccountsApi {
    pub fn new(cx: Context, hasher: Hasher) -> Self {
        Self { cx, hasher }
    }
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Auth")]
impl AccountsApi {
    /// Ask for an account
    ///
    /// A mail goes to the address: with a link, or with the news that it has an account already. The
    /// answer is the same either way. `verifyEmail` opens the account, with the token in the link and the
    /// same password.
    #[oai(path = "/register", method = "post", operation_id = "register")]
    async fn register(&self, body: Json<CredentialsBody>) -> Result<AcceptedResponse, Problem> {
        let (email, password) = body.0.parse().map_err(IdentityError::Invalid)?;
        accounts::register(&self.cx, &self.hasher, &email, password).await?;
        Ok(AcceptedResponse::Accepted)
    }

    /// Ask for another password
    ///
    /// If the address has an account, a mail goes there with a link that is good for 30 minutes. The answer
    /// is the same either way.
    #[oai(path = "/forgot-password", method = "post", operation_id = "forgotPassword")]
    async fn forgot_password(&self, body: Json<EmailBody>) -> Result<AcceptedResponse, Problem> {
        let email = EmailAddress::parse(&body.0.email)
            .map_err(|error| IdentityError::Invalid(vec![error.at("/email")]))?;
        accounts::ask_reset(&self.cx, &email).await?;
        Ok(AcceptedResponse::Accepted)
    }

    /// Choose another password, with the token of a mail
    ///
    /// Ends every session of the account. The token works once, and no other one that was sent for the same
    /// works after it.
    #[oai(path = "/reset-password", method = "post", operation_id = "resetPassword")]
    async fn reset_password(&self, body: Json<NewPasswordBody>) -> Result<DoneResponse, Problem> {
        let new_password = parse_password(&body.0.new_password, "/new_password")?;
        let token = MailToken::parse(&body.0.token)?;
        accounts::reset_password(&self.cx, &self.hasher, &token, new_password).await?;
        Ok(DoneResponse::Done)
    }

    /// Choose another password, with the one before
    ///
    /// Ends every other session of the account.
    #[oai(path = "/change-password", method = "post", operation_id = "changePassword")]
    async fn change_password(
        &self,
        customer: Customer,
        body: Json<PasswordsBody>,
    ) -> Result<DoneResponse, Problem> {
        let new = parse_password(&body.0.new_password, "/new_password")?;
        let passwords = Passwords { current: parse_current(&body.0.password)?, new };
        let (user_id, kept) = (customer.user_id(), customer.session_id());
        accounts::change_password(&self.cx, &self.hasher, user_id, kept, passwords).await?;
        Ok(DoneResponse::Done)
    }

    /// Ask for another e-mail address
    ///
    /// A mail goes to the new address: with a link for `confirmEmail`, or with the news that it has an
    /// account already. The answer is the same either way.
    #[oai(path = "/change-email", method = "post", operation_id = "changeEmail")]
    async fn change_email(
        &self,
        customer: Customer,
        body: Json<CredentialsBody>,
    ) -> Result<AcceptedResponse, Problem> {
        let (new_email, password) = body.0.parse().map_err(IdentityError::Invalid)?;
        let user_id = customer.user_id();
        accounts::change_email(&self.cx, &self.hasher, user_id, password, &new_email).await?;
        Ok(AcceptedResponse::Accepted)
    }

    /// Confirm another e-mail address, with the token of a mail
    ///
    /// For the user who asked for it, in any session of theirs. The address before is told by mail.
    #[oai(path = "/confirm-email", method = "post", operation_id = "confirmEmail")]
    async fn confirm_email(
        &self,
        customer: Customer,
        body: Json<TokenBody>,
    ) -> Result<DoneResponse, Problem> {
        let token = MailToken::parse(&body.0.token)?;
        accounts::confirm_email(&self.cx, customer.user_id(), &token).await?;
        Ok(DoneResponse::Done)
    }
}

fn parse_password(secret: &Secret, pointer: &str) -> Result<Password, IdentityError> {
    Password::parse(secret).map_err(|error| IdentityError::Invalid(vec![error.at(pointer)]))
}

/// What cannot be a password is a wrong one.
pub fn parse_current(secret: &Secret) -> Result<Password, IdentityError> {
    Password::parse(secret).map_err(|_| IdentityError::WrongPassword)
}

#[derive(Object)]
#[oai(rename = "EmailOnly", deny_unknown_fields)]
struct EmailBody {
    email: String,
}

#[derive(Object)]
#[oai(rename = "MailToken", deny_unknown_fields)]
struct TokenBody {
    /// From the mail's link.
    token: String,
}

#[derive(Object)]
#[oai(rename = "NewPassword", deny_unknown_fields)]
struct NewPasswordBody {
    /// From the mail's link.
    token: String,
    /// 10 to 128 characters.
    new_password: Secret,
}

#[derive(Object)]
#[oai(rename = "Passwords", deny_unknown_fields)]
struct PasswordsBody {
    /// The one before.
    password: Secret,
    /// 10 to 128 characters.
    new_password: Secret,
}

/// An account as its user sees it.
#[derive(Object)]
#[oai(rename = "Account")]
pub struct AccountBody {
    user_id: Uuid,
    email: String,
    /// One of `customer`, `staff`, `admin`.
    role: String,
    display_name: Option<String>,
    created_at: OffsetDateTime,
}

impl From<Profile> for AccountBody {
    fn from(profile: Profile) -> Self {
        Self {
            user_id: profile.id.uuid(),
            email: profile.email,
            role: profile.role.to_string(),
            display_name: profile.display_name,
            created_at: profile.created_at,
        }
    }
}

#[derive(ApiResponse)]
enum AcceptedResponse {
    /// Whatever there is to tell, a mail tells.
    #[oai(status = 202)]
    Accepted,
}

#[derive(ApiResponse)]
enum DoneResponse {
    /// It is done.
    #[oai(status = 204)]
    Done,
}
