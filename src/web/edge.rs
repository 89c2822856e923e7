//! What happens around every request: its name, its limits, its record, and an answer whatever befalls it.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use hyper::body::Bytes;
use metrics::{counter, histogram};
use poem::{
    Endpoint, Error, IntoResponse, PathPattern, Request, Response,
    error::NotFoundError,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
};
use tokio::time::timeout;
use tracing::Instrument;

use crate::web::{
    Problem, body,
    document::Document,
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
}

impl<E: Endpoint<Output = Response>> Edge<E> {
    /// `document` describes the routes of `app`.
    pub const fn new(app: E, document: Document, patience: Patience) -> Self {
        Self { app, document, patience }
    }

    async fn run(&self, request: Request) -> Answer {
        let mut record = Record::start(request.method());
        let answer = AssertUnwindSafe(self.answer(request)).catch_unwind().await;
        let mut answer = answer.unwrap_or_else(|_| {
            // The panic hook has logged it.
            Answer::plain(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal-error", None))
        });
        harden(answer.response.headers_mut());
        record.finish(answer.route, answer.response.status());
        answer
    }

    async fn answer(&self, mut request: Request) -> Answer {
        if has_nul(&request) {
            return Answer::plain(Problem::invalid_request(Vec::new()));
        }
        let body = match body::take(&mut request, self.patience.body).await {
            Ok(body) => body,
            Err(problem) => return Answer::last(problem),
        };
        request.set_body(body.clone());
        let method = request.method().clone();
        match timeout(self.patience.answer, self.app.call(request)).await {
            Ok(result) => self.answer_with(result, &method, &body),
            Err(_) => Answer::plain(too_long(&method)),
        }
    }

    fn answer_with(&self, result: poem::Result<Response>, method: &Method, body: &Bytes) -> Answer {
        let pattern = match &result {
            Ok(response) => response.data::<PathPattern>(),
            Err(error) if error.is::<NotFoundError>() => None,
            Err(error) => error.data::<PathPattern>(),
        };
        let route = pattern.and_then(|pattern| self.document.route(&pattern.0));
        let response = match result {
            Ok(response) => refusal::disguise(response),
            Err(error) => {
                let failed = Failed { method, route, body, document: &self.document };
                refusal::answer(error, &failed)
            }
        };
        Answer { response, route: route.map_or(UNMATCHED, |route| route.path) }
    }
}

impl<E: Endpoint<Output = Response>> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response, Error> {
        let id = request_id::of(request.headers());
        let span = tracing::info_span!("request", request.id = id);
        let named = HeaderValue::try_from(&id);
        let mut response = request_id::scope(id, self.run(request)).instrument(span).await.response;
        if let Ok(name) = named {
            response.headers_mut().insert(request_id::HEADER, name);
        }
        Ok(response)
    }
}

struct Answer {
    response: Response,
    route: &'static str,
}

impl Answer {
    fn plain(problem: Problem) -> Self {
        Self { response: problem.into_response(), route: UNMATCHED }
    }

    /// An answer to a request whose rest is not read: nothing can follow it on this connection.
    fn last(problem: Problem) -> Self {
        let mut answer = Self::plain(problem);
        let close = HeaderValue::from_static("close");
        answer.response.headers_mut().insert(header::CONNECTION, close);
        answer
    }
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

/// Tells browsers to take nothing for more than it is. HTTPS ends at the proxy, so HSTS is its part.
fn harden(headers: &mut HeaderMap) {
    const DEFAULTS: [(HeaderName, &str); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Most answers are somebody's own; a handler that knows better has said so.
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in DEFAULTS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Counts and logs a request, also one whose client left before the answer.
struct Record {
    method: &'static str,
    started_at: Instant,
    finished: bool,
}

impl Record {
    fn start(method: &Method) -> Self {
        Self { method: known(method), started_at: Instant::now(), finished: false }
    }

    fn finish(&mut self, route: &'static str, status: StatusCode) {
        self.finished = true;
        self.write(route, status.as_u16());
    }

    fn write(&self, route: &'static str, status: u16) {
        let method = self.method;
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
            self.write(UNMATCHED, 499);
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
