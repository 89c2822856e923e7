//! Reads request bodies whole, within limits, before anybody looks at them.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use hyper::body::Bytes;
use poem::{Body, Request, http::StatusCode};
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    kernel::Detail,
    web::{Problem, document::below, policy::Class},
};

/// Names, passwords and tokens: a few hundred bytes, from anybody at all.
const AUTH_MAX: usize = 64 * 1024;

/// Fifty lines with an address take 8 KiB.
const CHECKOUT_MAX: usize = 64 * 1024;

/// The providers' largest events with every object expanded stay well below.
const WEBHOOK_MAX: usize = 256 * 1024;

/// A product with all its variants and texts.
const ADMIN_MAX: usize = 1024 * 1024;

/// Everything else is a few fields.
const DEFAULT_MAX: usize = 64 * 1024;

/// The bytes of all bodies at a time: what 2,000 requests bring with 64 KiB each, three times as many as
/// are worked on. More is refused, so that no number of clients can fill the memory.
const BODIES_MAX: usize = 128 * 1024 * 1024;

/// What of it only requests of one class may use, for each class: bodies are read before anybody asks
/// for a token, and large ones of strangers must not keep out a checkout or a provider's report. It is
/// 128 bodies of 64 KiB, or 1,000 orders of fifty lines.
const OWN: usize = 8 * 1024 * 1024;

/// What is read and thrown away so that a client that sends too much hears so: if we closed at
/// once, the rest of its body would meet a reset, and the reset would overtake our answer.
const DISCARD_MAX: usize = 16 * 1024 * 1024;

/// How many bytes a request of the class may bring.
const fn length_max(class: Class) -> usize {
    match class {
        Class::Auth => AUTH_MAX,
        Class::Checkout => CHECKOUT_MAX,
        Class::Webhook => WEBHOOK_MAX,
        Class::Admin => ADMIN_MAX,
        Class::Browse | Class::Cart | Class::Payment => DEFAULT_MAX,
    }
}

/// Room for the bodies of all requests that are read or answered.
#[derive(Debug)]
pub(super) struct Room {
    shared: Arc<Semaphore>,
    own: [Arc<Semaphore>; Class::ALL.len()],
}

/// The room that a body takes.
#[derive(Debug, Default)]
struct Place {
    shared: Option<OwnedSemaphorePermit>,
    own: Option<OwnedSemaphorePermit>,
}

/// A body, with the room that it takes until it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) bytes: Bytes,
    _place: Place,
}

impl Default for Room {
    fn default() -> Self {
        let semaphore = |bytes| Arc::new(Semaphore::new(bytes));
        Self {
            shared: semaphore(BODIES_MAX - OWN * Class::ALL.len()),
            own: Class::ALL.map(|_| semaphore(OWN)),
        }
    }
}

impl Room {
    /// Takes the request's body, unless it is too long, too slow or unfit for our tables, or there is
    /// no room for it.
    pub(super) async fn take(
        &self,
        request: &mut Request,
        class: Class,
        time_max: Duration,
    ) -> Result<Taken, Problem> {
        let max = length_max(class);
        let announced = request
            .header("content-length")
            .and_then(|length| length.parse::<usize>().ok())
            .unwrap_or(0);
        if announced > DISCARD_MAX {
            return Err(too_large(max));
        }
        let read = self.read(request.take_body(), class, announced.min(max));
        let taken = timeout(time_max, read).await.unwrap_or_else(|_| Err(too_slow()))?;
        // Webhooks are signed as they are, and kept as they are.
        if class != Class::Webhook && is_json(request) {
            refuse_nul(&taken.bytes)?;
        }
        Ok(taken)
    }

    async fn read(&self, body: Body, class: Class, expected: usize) -> Result<Taken, Problem> {
        let max = length_max(class);
        let mut chunks = pin!(body.into_bytes_stream());
        // Memory is used when it is written to; growing by doubling would take twice as much.
        let mut bytes = Vec::with_capacity(expected);
        let mut place = Place::default();
        let mut length = 0;
        while let Some(chunk) = chunks.try_next().await.map_err(|_| broken_off())? {
            length += chunk.len();
            if length > DISCARD_MAX {
                break;
            }
            if length > max {
                // The rest is only listened to.
                (bytes, place) = (Vec::new(), Place::default());
                continue;
            }
            self.widen(&mut place, class, chunk.len()).ok_or_else(no_room)?;
            bytes.extend_from_slice(&chunk);
        }
        if length > max {
            return Err(too_large(max));
        }
        Ok(Taken { bytes: bytes.into(), _place: place })
    }

    /// Takes so much more room, of what all share as long as there is some.
    fn widen(&self, place: &mut Place, class: Class, bytes: usize) -> Option<()> {
        let bytes = u32::try_from(bytes).ok()?;
        let more = |room: &Arc<Semaphore>| room.clone().try_acquire_many_owned(bytes).ok();
        let (taken, more) = match more(&self.shared) {
            Some(more) => (&mut place.shared, more),
            None => (&mut place.own, more(&self.own[class as usize])?),
        };
        match taken {
            Some(taken) => taken.merge(more),
            None => *taken = Some(more),
        }
        Some(())
    }
}

fn is_json(request: &Request) -> bool {
    request.content_type().is_some_and(|kind| kind.contains("json"))
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

fn no_room() -> Problem {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", None);
    problem.with_retry_after(Duration::from_secs(1))
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
