//! How much of the API one client may use, before anybody works for them.
//!
//! Each request is counted against the limits of its class and, where secrets can be guessed or mails
//! asked for, of the account it names: all with one question, which `clients::limiter` answers. A turn of
//! guessing is taken before the guess and given back after a right one, so that parallel guesses count.

mod rules;

use std::{fmt, net::IpAddr, time::Duration};

use futures_util::future::BoxFuture;
use metrics::counter;
use poem::{
    Addr, IntoResponse, Request, Response,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use uuid::Uuid;

pub use crate::clients::limiter::{InvalidUrl, Limiter};
use crate::{
    clients::limiter::{Answer, Question},
    kernel::rates::Rates,
    web::{
        Problem,
        client::{self, TrustedProxies},
        policy::{Care, Class, Policy, Who},
    },
};

/// draft-ietf-httpapi-ratelimit-headers-10, 3 and 4: lists of structured fields (RFC 9651).
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// For how long somebody who has given a right password from a network need not queue with those who
/// guess it from elsewhere. As long as a session of theirs may rest.
const KNOWN_FOR: Duration = Duration::from_hours(30 * 24);

/// Whose token it is, by its signature and its end; whether it still counts is not asked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    pub id: Uuid,
    pub is_guest: bool,
}

/// Tells whose token it is, if it is one of ours.
pub type Prove = Box<dyn Fn(String) -> BoxFuture<'static, Option<Proven>> + Send + Sync>;

/// The limits of the API.
pub struct Limits {
    limiter: Limiter,
    rates: Rates,
    proxies: TrustedProxies,
    prove: Prove,
}

/// Who asks, as far as the limits care.
#[derive(Debug, Clone, Copy)]
struct Caller {
    /// What one subscriber has: see [`client::network`].
    network: IpAddr,
    proven: Option<Proven>,
}

/// A request that may go on.
pub(super) struct Admitted {
    policy: Policy,
    caller: Caller,
    /// What was asked for it: some of it may have to be given back.
    question: Question,
    answer: Option<Answer>,
}

impl Limits {
    /// Counts with `limiter`; `prove` tells whose a token is.
    pub const fn new(
        limiter: Limiter,
        rates: Rates,
        proxies: TrustedProxies,
        prove: Prove,
    ) -> Self {
        Self { limiter, rates, proxies, prove }
    }

    /// Counts the request; one that comes too often is answered at once.
    pub(super) async fn admit(
        &self,
        request: &Request,
        policy: &Policy,
        body: &[u8],
    ) -> Result<Admitted, Response> {
        let caller = self.caller(request).await;
        let mut question = rules::question(&self.rates, policy, &caller, body);
        let answer = self.ask(&mut question, policy.class).await;
        if let Some(answer) = answer.filter(|answer| answer.is_refused) {
            return Err(too_often(&answer));
        }
        Ok(Admitted { policy: *policy, caller, question, answer })
    }

    /// Looks at what became of the request, and tells its client how much is left to them.
    pub(super) async fn finish(&self, admitted: Admitted, mut response: Response) -> Response {
        let Admitted { policy, caller, question, mut answer } = admitted;
        let status = response.status();
        if let Some(mut stranger) = self.stranger(&policy, &caller, &question, status).await {
            answer = self.ask(&mut stranger, policy.class).await;
            if let Some(answer) = answer.filter(|answer| answer.is_refused) {
                return too_often(&answer);
            }
        }
        let is_revoked = is_revoked(&policy, &caller, status);
        for care in policy.care.iter().filter(|_| !is_revoked) {
            match care {
                // Each of these operations looks at the secret before it can end in a conflict.
                Care::Guesses if status.is_success() || status == StatusCode::CONFLICT => {
                    self.limiter.acquit(&rules::guess_of(&question), KNOWN_FOR).await;
                }
                Care::Guesses if status.is_server_error() => {
                    self.limiter.give_back(&rules::guess_of(&question)).await;
                }
                Care::Holds if holds_nothing(&response) => {
                    self.limiter.give_back(&rules::hold_of(&question)).await;
                }
                Care::Guesses | Care::Holds | Care::Mails | Care::Newcomers | Care::Exports => {}
            }
        }
        if let Some(answer) = answer {
            tell(&answer, response.headers_mut());
        }
        response
    }

    /// What a request counts for of which it turned out only now that it came from nobody we know.
    async fn stranger(
        &self,
        policy: &Policy,
        caller: &Caller,
        question: &Question,
        status: StatusCode,
    ) -> Option<Question> {
        // A signature is checked before anything else.
        if policy.class == Class::Webhook && status.is_client_error() {
            return Some(rules::unsigned(&self.rates, caller));
        }
        // Whoever still has a token that was revoked must not use up what its owner may do.
        if is_revoked(policy, caller, status) {
            self.limiter.give_back(&rules::owners_of(question)).await;
            let stranger = Caller { proven: None, ..*caller };
            return Some(rules::of_class(&self.rates, policy.class, &stranger));
        }
        None
    }

    async fn ask(&self, question: &mut Question, class: Class) -> Option<Answer> {
        if question.limits.is_empty() {
            return None;
        }
        let answer = self.limiter.take(question).await;
        if self.limiter.is_alone() {
            counter!("limits_without_redis_total", "class" => class.as_str()).increment(1);
        }
        if let Some(answer) = answer.filter(|answer| answer.is_refused) {
            let labels = [("class", class.as_str()), ("limit", answer.limit.name)];
            counter!("requests_limited_total", &labels).increment(1);
        }
        answer
    }

    async fn caller(&self, request: &Request) -> Caller {
        let peer = match &request.remote_addr().0 {
            Addr::SocketAddr(peer) => *peer,
            // Only a test that has no socket.
            Addr::Unix(_) | Addr::Custom(..) => ([0, 0, 0, 0], 0).into(),
        };
        let address = client::address(peer, request.headers(), self.proxies);
        let proven = match bearer(request.headers()) {
            Some(token) => (self.prove)(token.to_owned()).await,
            None => None,
        };
        Caller { network: client::network(address), proven }
    }
}

/// Marks the answer to a request with which nobody began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unbegun;

/// Whether the operation wants a token, and the one that came is no longer good.
fn is_revoked(policy: &Policy, caller: &Caller, status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED && caller.proven.is_some() && policy.who != Who::Anyone
}

/// Whether nothing was taken from the stock that had not been before. A failure says nothing of that.
fn holds_nothing(response: &Response) -> bool {
    response.status().is_client_error()
        || response.extensions().get::<Unbegun>().is_some()
        || response.headers().contains_key("idempotency-replayed")
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits").field("rates", &self.rates).finish_non_exhaustive()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

fn too_often(answer: &Answer) -> Response {
    let detail = "too many requests; come back later".to_owned();
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-often", detail);
    let mut response = problem.with_retry_after(answer.place.wait).into_response();
    tell(answer, response.headers_mut());
    response
}

/// Names the limit that is nearest to its end, and what is left of it.
fn tell(answer: &Answer, headers: &mut HeaderMap) {
    let Answer { limit, place, .. } = answer;
    let (name, pace) = (limit.name, limit.pace);
    let policy = format!("\"{name}\";q={};w={}", pace.burst(), seconds(pace.window()));
    let reset = seconds(if answer.is_refused { place.wait } else { place.whole_in });
    let left = format!("\"{name}\";r={};t={reset}", place.left);
    for (header, value) in [(POLICY, policy), (LIMIT, left)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(header, value);
        }
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
