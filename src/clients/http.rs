//! HTTP as both providers are spoken to.

use std::{sync::Arc, time::Duration};

use hyper::body::Bytes;
use reqwest::{Client, RequestBuilder, Response, Url, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::{
    budget::Budget,
    call::{BadAccess, CallError, retry_after},
};

/// From the first packet to the last byte of the answer. Providers answer within a second or two; a
/// shopper waits for some of the calls.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Within [`ANSWER_MAX`], so that most of it is left for the answer.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Shorter than load balancers keep idle connections: a request on one that they have just closed
/// would have an unknown outcome.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// A page of a hundred payments takes a third of it.
const BODY_MAX: usize = 1024 * 1024;

/// How a provider is reached: where, as whom, and how often.
pub(super) struct Line<K> {
    provider: &'static str,
    http: Client,
    base: Url,
    keys: Vec<K>,
    budget: Budget,
}

impl<K> Line<K> {
    /// Connects at the first call. The first key is used; where it is not known, the second.
    pub(super) fn new(
        provider: &'static str,
        url: &str,
        keys: Vec<K>,
        budget: Budget,
    ) -> Result<Self, BadAccess> {
        if keys.is_empty() {
            return Err(BadAccess::NoKey);
        }
        // Without the slash, a path in the URL would be replaced.
        let base = Url::parse(&format!("{}/", url.trim_end_matches('/')));
        let base = base.ok().filter(Url::has_host).ok_or(BadAccess::Url)?;
        Ok(Self { provider, http: client()?, base, keys, budget })
    }

    pub(super) fn keys(&self) -> &[K] {
        &self.keys
    }

    pub(super) const fn url(&self) -> &Url {
        &self.base
    }

    /// Asks once; once more under the second key where the provider does not know the first.
    pub(super) async fn ask(
        &self,
        path: &str,
        request: impl Fn(&Client, Url, &K) -> RequestBuilder,
    ) -> Result<Answer, CallError> {
        let url = self.base.join(path).expect("paths are made of names");
        let mut keys = self.keys.iter();
        let first = keys.next().expect("no line is made without a key");
        let answer = self.send(request(&self.http, url.clone(), first)).await?;
        let Some(second) = keys.next().filter(|_| answer.status == 401) else {
            return Ok(answer);
        };
        tracing::warn!(provider = self.provider, "the first key is not known; trying the second");
        self.send(request(&self.http, url, second)).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, CallError> {
        self.budget.take().await?;
        let response = request.send().await.map_err(|error| lost(&error))?;
        let answer = Answer::read(response).await?;
        let (status, request_id) = (answer.status, &answer.request_id);
        tracing::debug!(provider = self.provider, status, request_id, "a provider answered");
        Ok(answer)
    }

    /// What an answer says that is no success. `code` is what its body calls the error.
    pub(super) fn refusal(&self, answer: &Answer, code: Option<String>) -> CallError {
        let error = CallError::of(answer, code);
        let request_id = &answer.request_id;
        tracing::warn!(provider = self.provider, request_id, %error, "a provider refused");
        error
    }
}

/// What a provider answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// By which the provider's support finds the call.
    request_id: Option<String>,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    async fn read(mut response: Response) -> Result<Self, CallError> {
        let status = response.status();
        let text = |name| response.headers().get(name)?.to_str().ok();
        let retry_after = text("retry-after").and_then(retry_after);
        let request_id = text("request-id").or_else(|| text("x-razorpay-request-id"));
        let request_id = request_id.map(str::to_owned);
        let body = match body(&mut response).await {
            Ok(body) => body,
            // The status alone says what to do about a failure.
            Err(_) if !status.is_success() => Bytes::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { status: status.as_u16(), retry_after, request_id, body })
    }
}

async fn body(response: &mut Response) -> Result<Bytes, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
        if body.len() + chunk.len() > BODY_MAX {
            return Err(CallError::unknown("the answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// How a call was lost; the library's own words could hold the URL.
fn lost(error: &reqwest::Error) -> CallError {
    let why = match error {
        error if error.is_timeout() => "no answer in time",
        error if error.is_connect() => "no connection",
        error if error.is_body() || error.is_decode() => "the answer was cut short",
        _ => "the connection was lost",
    };
    CallError::unknown(why)
}

fn client() -> Result<Client, BadAccess> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| BadAccess::Http)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        // A key must not follow to where it was not meant to go.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_MAX)
        .timeout(ANSWER_MAX)
        .pool_idle_timeout(IDLE_MAX)
        .build()
        .map_err(|_| BadAccess::Http)
}
