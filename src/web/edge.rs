//! What happens around every request: its name, its limits, its record, and an answer whatever befalls it.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use hyper::body::Bytes;
use metrics::{counter, histogram};
use poem::{
    Endpoint, Error, IntoResponse, Request, Response,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Scheme},
};
use tokio::time::timeout;
use tracing::Instrument;

use crate::web::{
    Problem,
    admission::Admission,
    body,
    cors::{Asked, Origins},
    document::{Document, Operation, Route},
    head::Refusal,
    limits::{Limits, Unbegun},
    refusal::{self, Failed},
    request_id,
};

/// The route of whatever the application does not know. A path would make a metric per typo.
const UNMATCHED: &str = "unmatched";

/// How long the edge waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a body to arrive: 1 MiB over a bad mobile network.
    pub body: Duration,
    /// For the application's answer. Statements end after 5 s and a drain after 20 s; whatever
    /// takes longer than this would be cut by one of them.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { body: Duration::from_secs(10), answer: Duration::from_secs(15) }
    }
}

/// An application with the edge around it; it never answers with an error.
#[derive(Debug)]
pub struct Edge<E> {
    app: E,
    document: Document,
    patience: Patience,
    limits: Option<Limits>,
    admission: Option<Admission>,
    origins: Origins,
    bodies: body::Room,
}

impl<E: Endpoint<Output = Response>> Edge<E> {
    /// `document` describes the routes of `app`.
    pub fn new(app: E, document: Document, patience: Patience) -> Self {
        let (origins, bodies) = (Origins::default(), body::Room::default());
        Self { app, document, patience, limits: None, admission: None, origins, bodies }
    }

    /// The same for pages of these origins, too.
    #[must_use]
    pub fn trusting(self, origins: Origins) -> Self {
        Self { origins, ..self }
    }

    /// The same with limits of what one client may use.
    #[must_use]
    pub fn limited(self, limits: Limits) -> Self {
        Self { limits: Some(limits), ..self }
    }

    /// The same with a limit of what is done at a time.
    #[must_use]
    pub fn admitting(self, admission: Admission) -> Self {
        Self { admission: Some(admission), ..self }
    }

    async fn run(&self, request: Request) -> Response {
        let mut record = Record::start(request.method());
        let asked = Asked::by(&request);
        let answer = AssertUnwindSafe(self.answer(request, &mut record)).catch_unwind().await;
        let mut response = answer.unwrap_or_else(|_| {
            // The panic hook has logged it.
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal-error", None).into_response()
        });
        let scheme = if self.origins.is_secure() { Scheme::HTTPS } else { Scheme::HTTP };
        harden(response.headers_mut(), &scheme);
        asked.open(response.headers_mut(), &self.origins);
        record.finish(response.status());
        response
    }

    /// Finds the operation and asks it. What is not an operation of the API is not asked at all.
    async fn answer(&self, request: Request, record: &mut Record) -> Response {
        if has_nul(&request) {
            return Problem::invalid_request(Vec::new()).into_response();
        }
        let Some(route) = self.document.route(request.uri().path()) else {
            return refusal::no_such_route().into_response();
        };
        record.route = route.path;
        if let Some(answer) = self.origins.preflight(&request, route) {
            return answer;
        }
        match route.operation(request.method()) {
            Some(operation) => self.ask(request, route, operation).await,
            None => refusal::method_not_allowed(route),
        }
    }

    async fn ask(&self, mut request: Request, route: &Route, operation: &Operation) -> Response {
        if let Err(problem) = self.origins.check(operation, request.headers()) {
            return last(problem);
        }
        let class = operation.policy.class;
        let taken = match self.bodies.take(&mut request, class, self.patience.body).await {
            Ok(taken) => taken,
            Err(problem) => return last(problem),
        };
        let body = taken.bytes.clone();
        if let Some(admission) = &self.admission
            && let Err(overloaded) = admission.look(class)
        {
            return overloaded.into_response();
        }
        let Some(limits) = &self.limits else {
            return self.serve(request, route, operation, body).await;
        };
        match limits.admit(&request, &operation.policy, &body).await {
            Ok(admitted) => {
                let response = self.serve(request, route, operation, body).await;
                limits.finish(admitted, response).await
            }
            Err(refusal) => refusal,
        }
    }

    /// Has the application answer, once it has time.
    async fn serve(
        &self,
        mut request: Request,
        route: &Route,
        operation: &Operation,
        body: Bytes,
    ) -> Response {
        if let Some(violations) = self.document.mistyped(operation, &body) {
            return Problem::invalid_request(violations).into_response();
        }
        let _place = match &self.admission {
            None => None,
            Some(admission) => match admission.enter(operation.policy.class).await {
                Ok(place) => Some(place),
                Err(overloaded) => {
                    let mut response = overloaded.into_response();
                    response.extensions_mut().insert(Unbegun);
                    return response;
                }
            },
        };
        request.set_body(body.clone());
        let method = request.method().clone();
        match timeout(self.patience.answer, self.app.call(request)).await {
            Ok(Ok(response)) => refusal::disguise(response),
            Ok(Err(error)) => {
                let failed = Failed { route, operation, body: &body, document: &self.document };
                refusal::answer(error, &failed)
            }
            Err(_) => too_long(&method).into_response(),
        }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response, Error> {
        let id = request_id::of(request.headers());
        let span = tracing::info_span!("request", request.id = id);
        let named = HeaderValue::try_from(&id);
        let mut response = request_id::scope(id, self.run(request)).instrument(span).await;
        if let Ok(name) = named {
            response.headers_mut().insert(request_id::HEADER, name);
        }
        Ok(response)
    }
}

/// Answers bytes that did not become a request, with all that is around an answer. Clients speak
/// `scheme` to us.
pub(super) async fn refuse(refusal: Refusal, scheme: &Scheme) -> Response {
    let id = request_id::of(&HeaderMap::new());
    let span = tracing::info_span!("request", request.id = id);
    let named = HeaderValue::try_from(&id);
    let answer = async {
        let mut record = Record { method: "other", ..Record::start(&Method::GET) };
        let mut response = Problem::from(refusal).into_response();
        harden(response.headers_mut(), scheme);
        record.finish(response.status());
        response
    };
    let mut response = request_id::scope(id, answer).instrument(span).await;
    if let Ok(name) = named {
        response.headers_mut().insert(request_id::HEADER, name);
    }
    response
}

/// An answer to a request whose rest is not read: nothing can follow it on this connection.
fn last(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// U+0000 in an address: no row is called so, and PostgreSQL cannot even be asked.
fn has_nul(request: &Request) -> bool {
    request.uri().path_and_query().is_some_and(|address| address.as_str().contains("%00"))
}

fn too_long(method: &Method) -> Problem {
    tracing::error!("request failed: no answer in time");
    // Whoever only read may ask again; whoever wrote has to find out first.
    let code = if method.is_safe() { "temporarily-unavailable" } else { "outcome-unknown" };
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, None);
    problem.with_retry_after(Duration::from_secs(1))
}

/// For a year, browsers call this host in no other way (RFC 6797).
const ONLY_HTTPS: &str = "max-age=31536000";

/// Tells browsers to take nothing for more than it is, and to keep to HTTPS where that is spoken.
fn harden(headers: &mut HeaderMap, scheme: &Scheme) {
    const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    const DEFAULTS: [(HeaderName, &str); 5] = [
        // Pages of other origins may ask by CORS, which has a list; they may embed nothing.
        (RESOURCE_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Most answers are somebody's own; a handler that knows better has said so.
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if *scheme == Scheme::HTTPS {
        let only_https = HeaderValue::from_static(ONLY_HTTPS);
        headers.insert(header::STRICT_TRANSPORT_SECURITY, only_https);
    }
}

/// Counts and logs a request, also one whose client left before the answer.
struct Record {
    method: &'static str,
    route: &'static str,
    started_at: Instant,
    finished: bool,
}

impl Record {
    fn start(method: &Method) -> Self {
        Self {
            method: known(method),
            route: UNMATCHED,
            started_at: Instant::now(),
            finished: false,
        }
    }

    fn finish(&mut self, status: StatusCode) {
        self.finished = true;
        self.write(status.as_u16());
    }

    fn write(&self, status: u16) {
        let Self { method, route, .. } = *self;
        let elapsed = self.started_at.elapsed();
        let labels = [("method", method), ("route", route)];
        histogram!("http_request_duration_seconds", &labels).record(elapsed);
        let status_label = status.to_string();
        counter!("http_requests_total", "method" => method, "route" => route, "status" => status_label)
            .increment(1);
        tracing::info!(
            http.method = method,
            http.route = route,
            http.status = status,
            duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            "request finished"
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished {
            // nginx's number for a client that closed the connection.
            self.write(499);
        }
    }
}

/// A client may invent methods; labels and log lines only know the usual ones.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
