//! Who calls, for every endpoint; and the endpoints that tell callers apart.

mod accounts;
mod addresses;
mod sessions;

use std::sync::Arc;

use poem::Request;
use poem_openapi::{SecurityScheme, Tags, auth::Bearer};
use sqlx::PgPool;

pub use self::{
    accounts::{AccountBody, AccountsApi, parse_current},
    addresses::{AddressesApi, KeptAddressBody},
    sessions::{LoggedIn, OpenSessionBody, SessionBody, SessionsApi},
};
use super::{
    Account, GuestTokens, IdentityError, Role, Session, Tokens,
    sessions::{Opened, Standings, UserAgent, cookie},
};
use crate::{
    kernel::{GuestId, OwnerId, SessionId, UserId},
    web::{Problem, limits::Proven},
};

/// What telling callers apart needs. Assembly gives it to every route, with `.data(callers)`.
#[derive(Debug, Clone)]
pub struct Callers {
    tokens: Arc<Tokens>,
    standings: Standings,
    guests: Arc<GuestTokens>,
}

impl Callers {
    /// Starts the task that asks the database whether sessions still stand.
    pub fn new(db: PgPool, tokens: Tokens, guests: GuestTokens) -> Self {
        let standings = Standings::start(db);
        Self { tokens: Arc::new(tokens), standings, guests: Arc::new(guests) }
    }

    /// What whoever just logged in, or goes on with a session, is given: an access token in the body,
    /// the next refresh token in the cookie.
    pub fn logged_in(&self, account: &Account, opened: &Opened) -> Result<LoggedIn, IdentityError> {
        let token =
            self.tokens.issue(account.id, opened.session_id, account.role, account.token_epoch)?;
        Ok(LoggedIn {
            body: SessionBody::new(account, token),
            cookie: cookie::set(&opened.refresh_token),
        })
    }

    /// Tells whose token it is by its signature and its end, without a question to the database.
    pub async fn prove(&self, token: &str) -> Option<Proven> {
        if GuestTokens::is_guest_token(token) {
            let id = self.guests.verify(token).ok()?;
            return Some(Proven { id: id.uuid(), is_guest: true });
        }
        let session = self.tokens.verify(token).await.ok()?;
        Some(Proven { id: session.user_id.uuid(), is_guest: false })
    }

    async fn identify(&self, token: &str) -> Result<Caller, IdentityError> {
        if GuestTokens::is_guest_token(token) {
            return self.guests.verify(token).map(Caller::Guest);
        }
        let session = self.tokens.verify(token).await?;
        self.standings.check(session).await?;
        Ok(Caller::User(session))
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

    /// The session that the request was made in.
    pub fn session_id(&self) -> SessionId {
        self.0.session_id
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

/// What the client calls itself.
pub fn user_agent(request: &Request) -> UserAgent {
    UserAgent::of(request.header("user-agent"))
}

#[derive(Debug, Tags)]
enum Tag {
    /// Accounts, logins and guests.
    Auth,
}

/// Keeps tokens and personal data out of every cache.
fn no_store() -> String {
    "no-store".to_owned()
}
