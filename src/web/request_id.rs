//! The name of a request, in its answer, in our logs and in the client's.

use poem::http::HeaderMap;
use uuid::Uuid;

pub(super) const HEADER: &str = "x-request-id";

tokio::task_local! {
    /// A task's local value, so that a problem made deep in a handler can name its request.
    static CURRENT: String;
}

/// Runs the request's future under its name.
pub(super) async fn scope<F: Future>(id: String, answer: F) -> F::Output {
    CURRENT.scope(id, answer).await
}

/// The name of the request that this task answers.
pub fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The name that the client or its proxy gave, where it is harmless in a log; else a new one.
pub(super) fn of(headers: &HeaderMap) -> String {
    headers
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|id| is_harmless(id))
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn is_harmless(id: &str) -> bool {
    (8..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_harmless_name_is_taken_over() {
        for (given, taken) in [
            ("0f2a_B-9", true),
            (&*"a".repeat(64), true),
            ("short", false),
            (&*"a".repeat(65), false),
            ("with space in it", false),
            ("quote\"quote\"", false),
        ] {
            let headers = HeaderMap::from_iter([(HEADER.parse().unwrap(), given.parse().unwrap())]);

            assert_eq!(of(&headers) == given, taken, "{given}");
        }
    }
}
