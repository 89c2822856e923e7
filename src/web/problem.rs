//! What a client is told when a request fails: `application/problem+json` (RFC 9457), always.

use std::time::Duration;

use poem::http::StatusCode;
use poem_openapi::{ApiResponse, Object, payload::Json};

use crate::{
    kernel::{Class, Detail, Fault, fault::Chain},
    web::request_id,
};

/// Every refusal and every failure of the API.
#[derive(Debug, ApiResponse)]
pub enum Problem {
    /// The request failed; `code` says why.
    #[oai(content_type = "application/problem+json")]
    Of(
        StatusCode,
        Json<Box<ProblemBody>>,
        /// Seconds after which the same request is worth repeating.
        #[oai(header = "Retry-After")]
        Option<u64>,
        /// How to say who asks, with status 401.
        #[oai(header = "WWW-Authenticate")]
        Option<String>,
    ),
}

/// A problem in the words of RFC 9457, with what programs need to act on it.
#[derive(Debug, Object)]
#[oai(rename = "Problem", skip_serializing_if_is_none)]
pub struct ProblemBody {
    /// Names the kind of problem; the same for every problem with this `code`.
    #[oai(rename = "type")]
    kind: String,
    /// The kind of problem in a few words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What happened to this request.
    detail: Option<String>,
    /// A stable name for programs to act on.
    code: String,
    /// Names this request in our logs.
    request_id: Option<String>,
    /// Every single thing that is wrong, where more than the request as a whole can be blamed.
    errors: Option<Vec<ProblemItem>>,
}

/// One of the things that are wrong with a request.
#[derive(Debug, Object)]
#[oai(rename = "ProblemItem", skip_serializing_if_is_none)]
struct ProblemItem {
    /// A JSON pointer (RFC 6901) into the body, or the name of a parameter or header.
    pointer: String,
    code: String,
    message: String,
    /// For short stock: the units that can be had.
    available: Option<i64>,
}

impl Problem {
    /// A problem that the edge itself finds. `detail` is shown to the client.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<Option<String>>) -> Self {
        let body = ProblemBody {
            kind: format!("urn:holdfast:problem:{code}"),
            title: title(code),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
            request_id: request_id::current(),
            errors: None,
        };
        // RFC 9110 demands the header of every 401.
        let challenge = (status == StatusCode::UNAUTHORIZED).then(|| "Bearer".to_owned());
        Self::Of(status, Json(Box::new(body)), None, challenge)
    }

    #[must_use]
    pub fn with_errors(mut self, details: Vec<Detail>) -> Self {
        let Self::Of(_, body, ..) = &mut self;
        let errors: Vec<_> = details.into_iter().map(ProblemItem::from).collect();
        body.0.errors = (!errors.is_empty()).then_some(errors);
        self
    }

    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        let Self::Of(_, _, retry_after, _) = &mut self;
        // The header knows whole seconds; zero would invite a client to spin.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        *retry_after = Some(seconds.max(1));
        self
    }

    pub const fn status(&self) -> StatusCode {
        let Self::Of(status, ..) = self;
        *status
    }
}

impl<F: Fault> From<F> for Problem {
    fn from(fault: F) -> Self {
        let status = status(fault.class());
        let problem = match fault.class() {
            // The cause is for us, not for the client.
            Class::Unavailable => {
                tracing::warn!(error = %Chain(&fault), code = fault.code(), "request failed: unavailable");
                Self::new(status, fault.code(), None)
            }
            Class::Broken => {
                tracing::error!(error = %Chain(&fault), code = fault.code(), "request failed: a bug");
                Self::new(status, fault.code(), None)
            }
            Class::Malformed
            | Class::Unauthenticated
            | Class::Forbidden
            | Class::NotFound
            | Class::Conflict
            | Class::Gone
            | Class::Precondition
            | Class::TooLarge
            | Class::Invalid
            | Class::Limited => {
                Self::new(status, fault.code(), fault.to_string()).with_errors(fault.details())
            }
        };
        match fault.retry_after().or_else(|| patience(fault.class())) {
            Some(wait) => problem.with_retry_after(wait),
            None => problem,
        }
    }
}

impl From<Detail> for ProblemItem {
    fn from(detail: Detail) -> Self {
        Self {
            pointer: detail.pointer,
            code: detail.code.to_owned(),
            message: detail.message,
            available: detail.available,
        }
    }
}

const fn status(class: Class) -> StatusCode {
    match class {
        Class::Malformed => StatusCode::BAD_REQUEST,
        Class::Unauthenticated => StatusCode::UNAUTHORIZED,
        Class::Forbidden => StatusCode::FORBIDDEN,
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::Conflict => StatusCode::CONFLICT,
        Class::Gone => StatusCode::GONE,
        Class::Precondition => StatusCode::PRECONDITION_FAILED,
        Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Class::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        Class::Limited => StatusCode::TOO_MANY_REQUESTS,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Class::Broken => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// When to come back if the fault itself does not know: 429 and 503 always say something.
const fn patience(class: Class) -> Option<Duration> {
    match class {
        Class::Limited | Class::Unavailable => Some(Duration::from_secs(1)),
        Class::Malformed
        | Class::Unauthenticated
        | Class::Forbidden
        | Class::NotFound
        | Class::Conflict
        | Class::Gone
        | Class::Precondition
        | Class::TooLarge
        | Class::Invalid
        | Class::Broken => None,
    }
}

/// `out-of-stock` → `Out of stock`.
fn title(code: &str) -> String {
    let mut title = code.replace('-', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

#[cfg(test)]
mod tests {
    use poem::{IntoResponse, Response};
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum TestError {
        #[error("too little stock is left")]
        OutOfStock,
        #[error("slow down")]
        TooOften,
        #[error("SELECT secret")]
        Database(#[source] std::io::Error),
    }

    impl Fault for TestError {
        fn class(&self) -> Class {
            match self {
                Self::OutOfStock => Class::Conflict,
                Self::TooOften => Class::Limited,
                Self::Database(_) => Class::Unavailable,
            }
        }

        fn code(&self) -> &'static str {
            match self {
                Self::OutOfStock => "out-of-stock",
                Self::TooOften => "too-often",
                Self::Database(_) => "temporarily-unavailable",
            }
        }

        fn details(&self) -> Vec<Detail> {
            match self {
                Self::OutOfStock => vec![Detail {
                    pointer: "/lines/0".into(),
                    code: "short",
                    message: "3 wanted".into(),
                    available: Some(1),
                }],
                Self::TooOften | Self::Database(_) => Vec::new(),
            }
        }

        fn retry_after(&self) -> Option<Duration> {
            matches!(self, Self::TooOften).then_some(Duration::from_millis(2_100))
        }
    }

    async fn body(response: Response) -> Value {
        let text = response.into_body().into_string().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[tokio::test]
    async fn a_refusal_says_everything_that_is_wrong() {
        let response = Problem::from(TestError::OutOfStock).into_response();

        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.content_type(), Some("application/problem+json"));
        assert_eq!(
            body(response).await,
            json!({
                "type": "urn:holdfast:problem:out-of-stock",
                "title": "Out of stock",
                "status": 409,
                "detail": "too little stock is left",
                "code": "out-of-stock",
                "errors": [{
                    "pointer": "/lines/0",
                    "code": "short",
                    "message": "3 wanted",
                    "available": 1,
                }],
            })
        );
    }

    #[tokio::test]
    async fn a_failure_of_ours_hides_its_text_and_says_when_to_come_back() {
        let cause = std::io::Error::other("password=hunter2");
        let response = Problem::from(TestError::Database(cause)).into_response();

        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(
            body(response).await,
            json!({
                "type": "urn:holdfast:problem:temporarily-unavailable",
                "title": "Temporarily unavailable",
                "status": 503,
                "code": "temporarily-unavailable",
            })
        );
    }

    #[test]
    fn the_time_to_wait_is_rounded_up() {
        let response = Problem::from(TestError::TooOften).into_response();

        assert_eq!(response.header("retry-after"), Some("3"));
    }

    #[test]
    fn a_401_names_the_scheme() {
        let response = Problem::new(StatusCode::UNAUTHORIZED, "no-token", None).into_response();

        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    }
}
