//! Logging in, going on, logging out.

use poem::{Request, RequestBody};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions, Object, OpenApi,
    param::Path,
    payload::Json,
    registry::{MetaSecurityScheme, Registry},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Callers, Customer, Tag, no_store, user_agent};
use crate::{
    context::Context,
    identity::{
        AccessToken, Account, EmailAddress, Hasher, IdentityError, Password, log_in,
        sessions::{self, Ended, Listed, RefreshToken, Refreshed, cookie},
    },
    kernel::{Detail, SessionId},
    web::Problem,
};

#[derive(Debug)]
pub struct SessionsApi {
    cx: Context,
    callers: Callers,
    hasher: Hasher,
}

impl SessionsApi {
    pub fn new(cx: Context, callers: Callers, hasher: Hasher) -> Self {
        Self { cx, callers, hasher }
    }
}

/// Whoever brings a refresh token, in its cookie.
struct RefreshCookie(RefreshToken);

impl<'a> ApiExtractor<'a> for RefreshCookie {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_cookie(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        let token = refresh_token(request).ok_or(IdentityError::SessionEnded);
        Ok(Self(token.map_err(Problem::from)?))
    }
}

/// Whoever may end the session they are in: by a refresh token, an access token, or both.
struct Leaver {
    refresh_token: Option<RefreshToken>,
    customer: Option<Customer>,
}

impl<'a> ApiExtractor<'a> for Leaver {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_cookie(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        let refresh_token = refresh_token(request);
        match Customer::from_request(request, body, ExtractParamOptions::default()).await {
            Ok(customer) => Ok(Self { refresh_token, customer: Some(customer) }),
            // The access token may have expired: the cookie will do.
            Err(_) if refresh_token.is_some() => Ok(Self { refresh_token, customer: None }),
            Err(refusal) => Err(refusal),
        }
    }
}

/// How the API's description calls the cookie.
const SCHEME: &str = "RefreshToken";

fn register_cookie(registry: &mut Registry) {
    registry.create_security_scheme(
        SCHEME,
        MetaSecurityScheme {
            ty: "apiKey",
            description: Some(
                "The refresh token. A browser keeps it and sends it, to no other path than `/v1/auth`.",
            ),
            name: Some(cookie::NAME),
            key_in: Some("cookie"),
            scheme: None,
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        },
    );
}

fn refresh_token(request: &Request) -> Option<RefreshToken> {
    let headers = request.headers().get_all("cookie").iter();
    cookie::read(headers.filter_map(|header| header.to_str().ok()))
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Auth")]
impl SessionsApi {
    /// Log in
    ///
    /// Opens a session. The access token is for ten minutes; the refresh token, in a cookie that no
    /// script can read, gets the next one. An unknown e-mail address and a wrong password get the same
    /// answer.
    #[oai(path = "/login", method = "post", operation_id = "logIn")]
    async fn log_in(
        &self,
        request: &Request,
        body: Json<CredentialsBody>,
    ) -> Result<LogInResponse, Problem> {
        // What cannot be an account's is refused before it costs a hash, whoever has an account.
        let (email, password) = body.0.parse().map_err(|_| IdentityError::InvalidCredentials)?;
        let agent = user_agent(request);
        let (account, opened) = log_in(&self.cx.db, &self.hasher, &email, password, &agent).await?;
        let LoggedIn { body, cookie } = self.callers.logged_in(&account, &opened)?;
        Ok(LogInResponse::Ok(Json(body), no_store(), cookie))
    }

    /// Go on with the session
    ///
    /// Exchanges the refresh token, which is in the cookie, for an access token and the next refresh
    /// token. A refresh token is good for one use. Used again within ten seconds it gets the same
    /// successor; used again later it ends the session, for everybody who has a token of it.
    #[oai(path = "/refresh", method = "post", operation_id = "refreshSession")]
    async fn refresh(
        &self,
        token: RefreshCookie,
        request: &Request,
    ) -> Result<RefreshResponse, Problem> {
        let keys = self.callers.tokens.keys();
        let Refreshed { account, opened } =
            sessions::refresh(&self.cx, keys, &token.0, &user_agent(request)).await?;
        let LoggedIn { body, cookie } = self.callers.logged_in(&account, &opened)?;
        Ok(RefreshResponse::Ok(Json(body), no_store(), cookie))
    }

    /// Log out
    ///
    /// Ends the session of the refresh token, at once, and takes the cookie away. An access token
    /// instead of the cookie does it, too. A session that is over already is no reason to refuse.
    #[oai(path = "/logout", method = "post", operation_id = "logOut")]
    async fn log_out(&self, leaver: Leaver) -> Result<LogOutResponse, Problem> {
        let db = &self.cx.db;
        if let Some(token) = &leaver.refresh_token {
            sessions::revoke_by_token(db, token).await.map_err(IdentityError::from)?;
        }
        if let Some(customer) = &leaver.customer {
            let (user_id, session_id) = (customer.user_id(), customer.session_id());
            sessions::revoke(db, user_id, session_id, Ended::LoggedOut)
                .await
                .map_err(IdentityError::from)?;
        }
        Ok(LogOutResponse::Gone(cookie::clear()))
    }

    /// Log out everywhere
    ///
    /// Ends every session of the user, at once: this one, too.
    #[oai(path = "/logout-everywhere", method = "post", operation_id = "logOutEverywhere")]
    async fn log_out_everywhere(&self, customer: Customer) -> Result<LogOutResponse, Problem> {
        sessions::revoke_everywhere(&self.cx.db, customer.user_id())
            .await
            .map_err(IdentityError::from)?;
        Ok(LogOutResponse::Gone(cookie::clear()))
    }

    /// My sessions
    ///
    /// Every session of the user that is not over, the one used last first. There are never more than
    /// 100: one more login ends the one that was not used for longest.
    #[oai(path = "/sessions", method = "get", operation_id = "listSessions")]
    async fn sessions(&self, customer: Customer) -> Result<SessionsResponse, Problem> {
        let listed =
            sessions::list(&self.cx.db, customer.user_id()).await.map_err(IdentityError::from)?;
        let current = customer.session_id();
        let sessions = listed.into_iter().map(|it| OpenSessionBody::new(it, current)).collect();
        Ok(SessionsResponse::Ok(Json(OpenSessionsBody { sessions }), no_store()))
    }

    /// End a session
    ///
    /// Whoever is in it is logged out at once. It may be the session that asks.
    #[oai(path = "/sessions/:session_id", method = "delete", operation_id = "endSession")]
    async fn end_session(
        &self,
        customer: Customer,
        session_id: Path<Uuid>,
    ) -> Result<EndSessionResponse, Problem> {
        let (user_id, session_id) = (customer.user_id(), SessionId::from(session_id.0));
        let ended = sessions::revoke(&self.cx.db, user_id, session_id, Ended::Revoked)
            .await
            .map_err(IdentityError::from)?;
        if !ended {
            return Err(IdentityError::UnknownSession.into());
        }
        Ok(EndSessionResponse::Ended)
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
}

#[derive(Object)]
#[oai(rename = "Credentials", deny_unknown_fields)]
pub(super) struct CredentialsBody {
    email: String,
    /// 10 to 128 characters.
    password: poem_openapi::types::Password,
}

impl CredentialsBody {
    pub(super) fn parse(&self) -> Result<(EmailAddress, Password), Vec<Detail>> {
        let email = EmailAddress::parse(&self.email).map_err(|error| error.at("/email"));
        let password = Password::parse(&self.password).map_err(|error| error.at("/password"));
        match (email, password) {
            (Ok(email), Ok(password)) => Ok((email, password)),
            (email, password) => Err([email.err(), password.err()].into_iter().flatten().collect()),
        }
    }
}

/// What a login is answered with.
pub struct LoggedIn {
    pub body: SessionBody,
    /// The value of `Set-Cookie`.
    pub cookie: String,
}

#[derive(Object)]
#[oai(rename = "Session")]
pub struct SessionBody {
    user_id: Uuid,
    /// To be sent as `Authorization: Bearer …`.
    access_token: String,
    token_type: String,
    /// Seconds for which the token is good.
    expires_in: u64,
}

impl SessionBody {
    pub(super) fn new(account: &Account, token: AccessToken) -> Self {
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
#[oai(rename = "OpenSession")]
pub struct OpenSessionBody {
    id: Uuid,
    /// Whether the request was made in this session.
    is_current: bool,
    /// What the client last called itself, at most 200 characters; empty if it did not.
    user_agent: String,
    created_at: OffsetDateTime,
    /// When an access token was last fetched.
    last_used_at: OffsetDateTime,
    /// When the session is over if it is not used before.
    expires_at: OffsetDateTime,
}

impl OpenSessionBody {
    pub fn new(listed: Listed, current: SessionId) -> Self {
        Self {
            id: listed.id.uuid(),
            is_current: listed.id == current,
            user_agent: listed.user_agent,
            created_at: listed.created_at,
            last_used_at: listed.last_used_at,
            expires_at: listed.expires_at,
        }
    }
}

#[derive(Object)]
#[oai(rename = "OpenSessions")]
struct OpenSessionsBody {
    sessions: Vec<OpenSessionBody>,
}

#[derive(ApiResponse)]
enum LogInResponse {
    /// The caller is who they say.
    #[oai(status = 200)]
    Ok(
        Json<SessionBody>,
        #[oai(header = "Cache-Control")] String,
        /// The refresh token.
        #[oai(header = "Set-Cookie")]
        String,
    ),
}

#[derive(ApiResponse)]
enum RefreshResponse {
    /// The session goes on.
    #[oai(status = 200)]
    Ok(
        Json<SessionBody>,
        #[oai(header = "Cache-Control")] String,
        /// The next refresh token.
        #[oai(header = "Set-Cookie")]
        String,
    ),
}

#[derive(ApiResponse)]
enum LogOutResponse {
    /// The session is over.
    #[oai(status = 204)]
    Gone(
        /// Takes the refresh token away.
        #[oai(header = "Set-Cookie")]
        String,
    ),
}

#[derive(ApiResponse)]
enum SessionsResponse {
    /// The user's sessions.
    #[oai(status = 200)]
    Ok(Json<OpenSessionsBody>, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum EndSessionResponse {
    /// The session is over.
    #[oai(status = 204)]
    Ended,
}

#[derive(ApiResponse)]
enum GuestResponse {
    /// The caller is a guest.
    #[oai(status = 201)]
    Created(Json<GuestBody>, #[oai(header = "Cache-Control")] String),
}
