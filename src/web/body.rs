//! Reads request bodies whole, within limits, before anybody looks at them.

use std::time::Duration;

use futures_util::TryStreamExt;
use hyper::body::Bytes;
use poem::{Body, Request, http::StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    kernel::Detail,
    web::{Problem, document::below},
};

/// Names, passwords and tokens: a few hundred bytes, from anybody at all.
const AUTH_MAX: usize = 64 * 1024;

/// Fifty lines with an address take 8 KiB.
const CHECKOUT_MAX: usize = 64 * 1024;

/// The providers' largest events with every object expanded stay well below.
const WEBHOOK_MAX: usize = 256 * 1024;

/// A product with all its variants and texts.
const DEFAULT_MAX: usize = 1024 * 1024;

/// What is read and thrown away so that a client that sends too much hears so: if we closed at
/// once, the rest of its body would meet a reset, and the reset would overtake our answer.
const DISCARD_MAX: usize = 16 * 1024 * 1024;

/// How many bytes a request to this path may bring.
fn length_max(path: &str) -> usize {
    let classes =
        [("/v1/auth/", AUTH_MAX), ("/v1/checkout", CHECKOUT_MAX), ("/v1/webhooks/", WEBHOOK_MAX)];
    classes
        .into_iter()
        .find_map(|(prefix, max)| path.starts_with(prefix).then_some(max))
        .unwrap_or(DEFAULT_MAX)
}

/// Takes the request's body, unless it is too long, too slow or unfit for our tables.
pub(super) async fn take(request: &mut Request, time_max: Duration) -> Result<Bytes, Problem> {
    let max = length_max(request.uri().path());
    let announced = request
        .header("content-length")
        .and_then(|length| length.parse::<usize>().ok())
        .unwrap_or(0);
    if announced > DISCARD_MAX {
        return Err(too_large(max));
    }
    let read = read(request.take_body(), max);
    let bytes = timeout(time_max, read).await.unwrap_or_else(|_| Err(too_slow()))?;
    if is_json(request) {
        refuse_nul(&bytes)?;
    }
    Ok(bytes)
}

async fn read(body: Body, max: usize) -> Result<Bytes, Problem> {
    let mut chunks = std::pin::pin!(body.into_bytes_stream());
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(chunk) = chunks.try_next().await.map_err(|_| broken_off())? {
        length += chunk.len();
        if length > DISCARD_MAX {
            break;
        }
        if length <= max {
            bytes.extend_from_slice(&chunk);
        }
    }
    if length > max { Err(too_large(max)) } else { Ok(bytes.into()) }
}

fn is_json(request: &Request) -> bool {
    // Webhooks are signed as they are, and kept as they are.
    !request.uri().path().starts_with("/v1/webhooks/")
        && request.content_type().is_some_and(|kind| kind.contains("json"))
}

/// U+0000 is fine JSON, and PostgreSQL cannot store it in any text.
fn refuse_nul(bytes: &[u8]) -> Result<(), Problem> {
    const ESCAPED: &[u8] = br"\u0000";
    if !bytes.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
        return Ok(());
    }
    // The escape may itself be escaped. What does not parse is refused for that, later.
    let Ok(value) = serde_json::from_slice(bytes) else { return Ok(()) };
    match find_nul(&value, "") {
        Some(pointer) => Err(Problem::invalid_request(vec![Detail {
            pointer,
            code: "nul-character",
            message: "must not contain U+0000".to_owned(),
            available: None,
        }])),
        None => Ok(()),
    }
}

fn find_nul(value: &Value, at: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| at.to_owned()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_nul(item, &below(at, &index.to_string()))),
        Value::Object(fields) => fields.iter().find_map(|(name, field)| {
            let at = below(at, name);
            if name.contains('\0') { Some(at) } else { find_nul(field, &at) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn too_large(max: usize) -> Problem {
    let detail = format!("a body of at most {max} bytes is read here");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
}

fn too_slow() -> Problem {
    let detail = "the body did not arrive in time".to_owned();
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", detail)
}

fn broken_off() -> Problem {
    let detail = "the body ended before its end".to_owned();
    Problem::new(StatusCode::BAD_REQUEST, "malformed", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_path() {
        for (path, max) in [
            ("/v1/auth/login", AUTH_MAX),
            ("/v1/checkout", CHECKOUT_MAX),
            ("/v1/webhooks/stripe", WEBHOOK_MAX),
            ("/v1/products", DEFAULT_MAX),
            ("/", DEFAULT_MAX),
        ] {
            assert_eq!(length_max(path), max, "{path}");
        }
    }

    #[test]
    fn nul_is_found_where_it_stands() {
        for (body, pointer) in [
            (r#"{"a":[{"b/c":"x\u0000"}]}"#, Some("/a/0/b~1c")),
            (r#"{"a\u0000":1}"#, Some("/a\u{0}")),
            (r#"{"a":"\\u0000"}"#, None),
            (r#"{"a":"\u00001"}"#, Some("/a")),
            (r#"{"a":"plain"}"#, None),
        ] {
            let value = serde_json::from_str(body).unwrap();

            assert_eq!(find_nul(&value, "").as_deref(), pointer, "{body}");
            assert_eq!(refuse_nul(body.as_bytes()).is_err(), pointer.is_some(), "{body}");
        }
    }
}
