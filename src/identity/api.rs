//! Who calls, for every endpoint; and the endpoints that tell callers apart.

use std::sync::Arc;

use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi, SecurityScheme, Tags, auth::Bearer, payload::Json,
};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    AccessToken, Account, EmailAddress, GuestTokens, Hasher, IdentityError, Password, Role,
    Session, Tokens,
};
use crate::{
    kernel::{Detail, GuestId, OwnerId, UserId},
    web::Problem,
};

/// What telling callers apart needs. Assembly gives it to every route, with `.data(callers)`.
#[derive(Debug, Clone)]
pub struct Callers {
    db: PgPool,
    tokens: Arc<Tokens>,
    guests: Arc<GuestTokens>,
}

impl Callers {
    pub fn new(db: PgPool, tokens: Tokens, guests: GuestTokens) -> Self {
        Self { db, tokens: Arc::new(tokens), guests: Arc::new(guests) }
    }

    async fn identify(&self, token: &str) -> Result<Caller, IdentityError> {
        if GuestTokens::is_guest_token(token) {
            return self.guests.verify(token).map(Caller::Guest);
        }
        self.tokens.verify(&self.db, token).await.map(Caller::User)
    }
}

#[derive(Debug, Clone, Copy)]
enum Caller {
    User(Session),
    Guest(GuestId),
}

/// Somebody who buys: a user or a guest, by an access token or a guest token.
#[derive(Debug, Clone, Copy, SecurityScheme)]
#[oai(ty = "bearer", checker = "check_shopper")]
pub struct Shopper(Caller);

impl Shopper {
    /// Whose carts and orders these are.
    pub fn owner_id(&self) -> OwnerId {
        match self.0 {
            Caller::User(session) => session.user_id.into(),
            Caller::Guest(id) => id.into(),
        }
    }

    pub fn user_id(&self) -> Option<UserId> {
        match self.0 {
            Caller::User(session) => Some(session.user_id),
            Caller::Guest(_) => None,
        }
    }
}

/// Anybody with a login, by an access token.
#[derive(Debug, Clone, Copy, SecurityScheme)]
#[oai(ty = "bearer", bearer_format = "JWT", checker = "check_customer")]
pub struct Customer(Session);

impl Customer {
    pub fn user_id(&self) -> UserId {
        self.0.user_id
    }
}

/// A user with the role `staff` or `admin`, by an access token.
#[derive(Debug, Clone, Copy, SecurityScheme)]
#[oai(ty = "bearer", bearer_format = "JWT", checker = "check_staff")]
pub struct Staff(Session);

impl Staff {
    pub fn user_id(&self) -> UserId {
        self.0.user_id
    }
}

/// A user with the role `admin`, by an access token.
#[derive(Debug, Clone, Copy, SecurityScheme)]
#[oai(ty = "bearer", bearer_format = "JWT", checker = "check_admin")]
pub struct Admin(Session);

impl Admin {
    pub fn user_id(&self) -> UserId {
        self.0.user_id
    }
}

/// Anybody at all, where staff are shown more. A token that proves nothing counts as none.
#[derive(Debug, Clone, Copy, SecurityScheme)]
pub enum Visitor {
    Staff(Staff),
    #[oai(fallback)]
    Anyone,
}

async fn check_shopper(request: &Request, bearer: Bearer) -> poem::Result<Caller> {
    Ok(identify(request, &bearer).await.map_err(Problem::from)?)
}

async fn check_customer(request: &Request, bearer: Bearer) -> poem::Result<Session> {
    Ok(user_with(request, &bearer, |_| true).await.map_err(Problem::from)?)
}

async fn check_staff(request: &Request, bearer: Bearer) -> poem::Result<Session> {
    Ok(user_with(request, &bearer, Role::is_staff).await.map_err(Problem::from)?)
}

async fn check_admin(request: &Request, bearer: Bearer) -> poem::Result<Session> {
    let is_admin = |role| role == Role::Admin;
    Ok(user_with(request, &bearer, is_admin).await.map_err(Problem::from)?)
}

async fn user_with(
    request: &Request,
    bearer: &Bearer,
    may: impl Fn(Role) -> bool,
) -> Result<Session, IdentityError> {
    match identify(request, bearer).await? {
        Caller::User(session) if may(session.role) => Ok(session),
        Caller::User(_) | Caller::Guest(_) => Err(IdentityError::Forbidden),
    }
}

async fn identify(request: &Request, bearer: &Bearer) -> Result<Caller, IdentityError> {
    let callers = request.data::<Callers>().ok_or(IdentityError::NotAssembled)?;
    callers.identify(&bearer.token).await
}

#[derive(Debug, Tags)]
enum Tag {
    /// Accounts, logins and guests.
    Auth,
}

#[derive(Debug)]
pub struct AuthApi {
    callers: Callers,
    hasher: Hasher,
}

impl AuthApi {
    pub fn new(callers: Callers, hasher: Hasher) -> Self {
        Self { callers, hasher }
    }
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Auth")]
impl AuthApi {
    /// Open an account
    ///
    /// The account is a customer's. The answer logs it in.
    #[oai(path = "/register", method = "post", operation_id = "register")]
    async fn register(&self, body: Json<CredentialsBody>) -> Result<RegisterResponse, Problem> {
        let (email, password) = body.0.parse().map_err(IdentityError::Invalid)?;
        let db = &self.callers.db;
        let account = super::create_user(db, &self.hasher, email, password, Role::Customer).await?;
        let token = self.issue(&account)?;
        Ok(RegisterResponse::Created(Json(SessionBody::new(&account, token)), no_store()))
    }

    /// Log in
    ///
    /// An unknown e-mail address and a wrong password get the same answer.
    #[oai(path = "/login", method = "post", operation_id = "logIn")]
    async fn log_in(&self, body: Json<CredentialsBody>) -> Result<LogInResponse, Problem> {
        // What cannot be an account's is refused before it costs a hash, whoever has an account.
        let (email, password) = body.0.parse().map_err(|_| IdentityError::InvalidCredentials)?;
        let account = super::log_in(&self.callers.db, &self.hasher, &email, password).await?;
        let token = self.issue(&account)?;
        Ok(LogInResponse::Ok(Json(SessionBody::new(&account, token)), no_store()))
    }

    /// Become a guest
    ///
    /// A guest needs no account to order. Keep the token: it is the only proof of the guest's orders.
    #[oai(path = "/guest", method = "post", operation_id = "becomeGuest")]
    #[expect(clippy::unused_async, reason = "an endpoint is async, whether it waits or not")]
    async fn become_guest(&self) -> GuestResponse {
        let guest = self.callers.guests.issue();
        let body = GuestBody {
            guest_id: guest.guest_id.uuid(),
            token: guest.token,
            expires_at: guest.expires_at,
        };
        GuestResponse::Created(Json(body), no_store())
    }

    /// Who am I
    ///
    /// The account that the access token stands for. A guest has none.
    #[oai(path = "/me", method = "get", operation_id = "getMe")]
    async fn me(&self, customer: Customer) -> Result<MeResponse, Problem> {
        let account = super::find_user(&self.callers.db, customer.user_id()).await?;
        Ok(MeResponse::Ok(Json(account.into()), no_store()))
    }
}

impl AuthApi {
    fn issue(&self, account: &Account) -> Result<AccessToken, IdentityError> {
        self.callers.tokens.issue(account.id, account.role, account.token_epoch)
    }
}

/// Keeps tokens and personal data out of every cache.
fn no_store() -> String {
    "no-store".to_owned()
}

#[derive(Object)]
#[oai(rename = "Credentials", deny_unknown_fields)]
struct CredentialsBody {
    email: String,
    /// 10 to 128 characters.
    password: poem_openapi::types::Password,
}

impl CredentialsBody {
    fn parse(&self) -> Result<(EmailAddress, Password), Vec<Detail>> {
        let email = EmailAddress::parse(&self.email).map_err(|error| error.at("/email"));
        let password = Password::parse(&self.password).map_err(|error| error.at("/password"));
        match (email, password) {
            (Ok(email), Ok(password)) => Ok((email, password)),
            (email, password) => Err([email.err(), password.err()].into_iter().flatten().collect()),
        }
    }
}

#[derive(Object)]
#[oai(rename = "Session")]
struct SessionBody {
    user_id: Uuid,
    /// To be sent as `Authorization: Bearer …`.
    access_token: String,
    token_type: String,
    /// Seconds for which the token is good.
    expires_in: u64,
}

impl SessionBody {
    fn new(account: &Account, token: AccessToken) -> Self {
        Self {
            user_id: account.id.uuid(),
            access_token: token.token,
            token_type: "Bearer".to_owned(),
            expires_in: token.expires_in.as_secs(),
        }
    }
}

#[derive(Object)]
#[oai(rename = "Guest")]
struct GuestBody {
    /// To be sent as `Authorization: Bearer …`.
    token: String,
    guest_id: Uuid,
    expires_at: OffsetDateTime,
}

#[derive(Object)]
#[oai(rename = "Account")]
struct AccountBody {
    user_id: Uuid,
    email: String,
    /// One of `customer`, `staff`, `admin`.
    role: String,
}

impl From<Account> for AccountBody {
    fn from(account: Account) -> Self {
        Self { user_id: account.id.uuid(), email: account.email, role: account.role.to_string() }
    }
}

#[derive(ApiResponse)]
enum RegisterResponse {
    /// The account exists, and this logs it in.
    #[oai(status = 201)]
    Created(Json<SessionBody>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum LogInResponse {
    /// The caller is who they say.
    #[oai(status = 200)]
    Ok(Json<SessionBody>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum GuestResponse {
    /// The caller is a guest.
    #[oai(status = 201)]
    Created(Json<GuestBody>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum MeResponse {
    /// The caller's account.
    #[oai(status = 200)]
    Ok(Json<AccountBody>, #[oai(header = "Cache-Control")] String),
}
