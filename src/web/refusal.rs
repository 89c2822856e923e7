//! Says in our words what the framework refused: none of its texts reaches a client.

use poem::{
    Error, IntoResponse, Response,
    error::NotFoundError,
    http::{HeaderValue, StatusCode, header},
};
use poem_openapi::error::{
    AuthorizationError, ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError,
};
use serde_json::Value;

use crate::{
    kernel::{Detail, fault::Chain},
    web::{
        Problem,
        document::{Document, Operation, Route},
    },
};

/// What is known of a request once it has failed.
pub(super) struct Failed<'a> {
    pub(super) route: &'a Route,
    pub(super) operation: &'a Operation,
    pub(super) body: &'a [u8],
    pub(super) document: &'a Document,
}

impl Problem {
    /// A request that can be read and is not what the API's description asks for.
    pub fn invalid_request(errors: Vec<Detail>) -> Self {
        let detail = "the request is not as the description of the API asks for".to_owned();
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-request", detail).with_errors(errors)
    }
}

/// Answers a request that ended in an error.
pub(super) fn answer(error: Error, failed: &Failed<'_>) -> Response {
    if error.is_from_response() {
        return disguise(error.into_response());
    }
    problem(&error, failed).into_response()
}

/// Replaces a refusal that is not a problem of ours: its text may be a library's.
pub(super) fn disguise(response: Response) -> Response {
    let status = response.status();
    let is_failure = status.is_client_error() || status.is_server_error();
    if !is_failure || response.content_type() == Some("application/problem+json") {
        return response;
    }
    let mut problem = plain(status).into_response();
    for name in [header::RETRY_AFTER, header::ALLOW] {
        if let Some(value) = response.headers().get(&name) {
            problem.headers_mut().insert(name, value.clone());
        }
    }
    problem
}

fn problem(error: &Error, failed: &Failed<'_>) -> Problem {
    if error.is::<ParseRequestPayloadError>() {
        return unfit_body(failed);
    }
    if let Some(error) = error.downcast_ref::<ParseParamError>() {
        return unfit_parameter(error.name, &error.reason);
    }
    if let Some(error) = error.downcast_ref::<ParsePathError>() {
        return unfit_parameter(path_parameter(error.name, failed.route), &error.reason);
    }
    if error.is::<ContentTypeError>() {
        let detail = "the body must be application/json".to_owned();
        return Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-content-type",
            detail,
        );
    }
    if error.is::<NotFoundError>() {
        return no_such_route();
    }
    if error.is::<AuthorizationError>() {
        let detail = "a bearer token is needed here".to_owned();
        return Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
    }
    if error.status().is_server_error() {
        tracing::error!(error = %Chain(error), "request failed: an error that nobody classified");
    }
    plain(error.status())
}

/// A problem of which no more is known than its status.
fn plain(status: StatusCode) -> Problem {
    let code = match status {
        StatusCode::BAD_REQUEST => "malformed",
        StatusCode::UNAUTHORIZED => "unauthenticated",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not-found",
        StatusCode::METHOD_NOT_ALLOWED => "method-not-allowed",
        StatusCode::REQUEST_TIMEOUT => "request-timeout",
        StatusCode::PAYLOAD_TOO_LARGE => "too-large",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported-content-type",
        StatusCode::UNPROCESSABLE_ENTITY => "invalid-request",
        StatusCode::TOO_MANY_REQUESTS => "too-often",
        StatusCode::SERVICE_UNAVAILABLE => "temporarily-unavailable",
        status if status.is_client_error() => "refused",
        _ => return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal-error", None),
    };
    Problem::new(status, code, None)
}

/// Answers a request for an address that is none of the API's.
pub(super) fn no_such_route() -> Problem {
    let detail = "the API has no such address".to_owned();
    Problem::new(StatusCode::NOT_FOUND, "no-such-route", detail)
}

/// Answers a request with a method that its address does not know.
pub(super) fn method_not_allowed(route: &Route) -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = Problem::new(status, "method-not-allowed", None).into_response();
    if let Ok(allowed) = HeaderValue::try_from(route.allowed()) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

fn unfit_body(failed: &Failed<'_>) -> Problem {
    let Ok(value) = serde_json::from_slice::<Value>(failed.body) else {
        let detail = "the body is not JSON, or nested too deeply".to_owned();
        return Problem::new(StatusCode::BAD_REQUEST, "malformed", detail);
    };
    Problem::invalid_request(failed.document.violations(failed.operation, &value))
}

fn unfit_parameter(name: &str, reason: &str) -> Problem {
    // The framework's words for "not given" are the only way to tell it from "not acceptable".
    let (code, message) = if reason.ends_with("expects an input value.") {
        ("missing", "must be given")
    } else {
        ("wrong-format", "is not as the description of the API asks for")
    };
    let pointer = name.to_owned();
    let message = message.to_owned();
    Problem::invalid_request(vec![Detail { pointer, code, message, available: None }])
}

/// The framework numbers the parameters of a path; the client knows their names.
fn path_parameter<'a>(numbered: &'a str, route: &'a Route) -> &'a str {
    let index = numbered.strip_prefix("param").and_then(|index| index.parse::<usize>().ok());
    index.and_then(|index| route.parameters.get(index)).map_or(numbered, String::as_str)
}
