//! What a request's head must be like before anything else looks at it.
//!
//! Two programs that read the same bytes differently can be made to disagree about where a request
//! ends, and then one client's bytes become another's request. So nothing is mended here: whatever
//! can be read in two ways is refused (RFC 9112 sections 2.2, 3.2, 5.2, 6.1 and 6.3).

use std::time::Duration;

use hyper::http::{
    Uri,
    uri::{Authority, Scheme},
};
use poem::http::StatusCode;

use crate::web::Problem;

/// The largest head of a request, in bytes: a token and a dozen cookies fit thrice.
pub(super) const LENGTH_MAX: usize = 32 * 1024;

/// Browsers and proxies together send some thirty.
const FIELDS_MAX: usize = 100;

/// The longest address, in bytes: RFC 9110 section 4.1 asks for 8,000 at least.
const TARGET_MAX: usize = 8 * 1024;

/// The longest registered method has 17 letters (UPDATEREDIRECTREF).
const METHOD_MAX: usize = 20;

/// Fields of which a second would leave open which one counts.
const ONCE: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "content-type",
    "authorization",
    "origin",
    "idempotency-key",
];

/// Why bytes did not become a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// They are none, or could be read in two ways.
    Malformed(&'static str),
    /// The head is longer than [`LENGTH_MAX`], or has too many fields.
    HeadTooLarge,
    TargetTooLong,
    /// The rest of the head did not come in time.
    TooSlow,
    /// Nothing is wrong with them; there are too many connections.
    Full,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(detail) => {
                Self::new(StatusCode::BAD_REQUEST, "malformed", detail.to_owned())
            }
            Refusal::HeadTooLarge => {
                let detail =
                    format!("a head has at most {LENGTH_MAX} bytes and {FIELDS_MAX} fields");
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                Self::new(status, "head-too-large", detail)
            }
            Refusal::TargetTooLong => {
                let detail = format!("an address has at most {TARGET_MAX} bytes");
                Self::new(StatusCode::URI_TOO_LONG, "address-too-long", detail)
            }
            Refusal::TooSlow => {
                let detail = "the head of the request did not arrive in time".to_owned();
                Self::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", detail)
            }
            Refusal::Full => Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", None)
                .with_retry_after(Duration::from_secs(1)),
        }
    }
}

/// How much of a body follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Exactly(u64),
    /// As much as the chunks say.
    Chunked,
}

/// What the beginning of a connection's bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// A head's beginning: more has to come.
    Partial,
    /// A head of `length` bytes that can be read in one way only.
    Whole {
        length: usize,
        body: Length,
    },
    Bad(Refusal),
}

/// Looks for a head at the beginning of `bytes`.
pub(super) fn examine(bytes: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() < LENGTH_MAX => Head::Partial,
        Ok(httparse::Status::Complete(length)) if length <= LENGTH_MAX => {
            match judge(&bytes[..length], &request) {
                Ok(body) => Head::Whole { length, body },
                Err(refusal) => Head::Bad(refusal),
            }
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Head::Bad(Refusal::HeadTooLarge),
        Err(httparse::Error::Version) => Head::Bad(Refusal::Malformed("HTTP/1.1 is spoken here")),
        Err(_) => Head::Bad(Refusal::Malformed("this is no request")),
    }
}

fn judge(head: &[u8], request: &httparse::Request<'_, '_>) -> Result<Length, Refusal> {
    // The parser lets a bare LF end a line; some proxies do not see an end there.
    if head.first() == Some(&b'\n')
        || head.windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
    {
        return Err(Refusal::Malformed("a line ends with CR LF"));
    }
    let fields = &*request.headers;
    if ONCE.iter().any(|name| values(fields, name).count() > 1) {
        return Err(Refusal::Malformed("a field is there twice that may be there once"));
    }
    judge_target(request)?;
    let is_1_1 = request.version == Some(1);
    match values(fields, "host").next() {
        Some(host) if authority(host).is_none() => {
            return Err(Refusal::Malformed("Host names no host"));
        }
        None if is_1_1 => return Err(Refusal::Malformed("Host is missing")),
        Some(_) | None => {}
    }
    let encoding = values(fields, "transfer-encoding").next();
    let length = values(fields, "content-length").next();
    match (encoding, length) {
        (None, None) => Ok(Length::Exactly(0)),
        (None, Some(digits)) => whole_number(digits)
            .map(Length::Exactly)
            .ok_or(Refusal::Malformed("Content-Length is no length")),
        (Some(encoding), None) if is_1_1 && encoding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Length::Chunked)
        }
        (Some(_), None) => {
            Err(Refusal::Malformed("the only Transfer-Encoding is chunked, of HTTP/1.1"))
        }
        (Some(_), Some(_)) => {
            Err(Refusal::Malformed("Content-Length and Transfer-Encoding exclude each other"))
        }
    }
}

/// This is no proxy, and what names a host names it once.
fn judge_target(request: &httparse::Request<'_, '_>) -> Result<(), Refusal> {
    const NO_ADDRESS: Refusal = Refusal::Malformed("the address is none of this server");
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if method.len() > METHOD_MAX {
        return Err(Refusal::Malformed("there is no such method"));
    }
    if target.len() > TARGET_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let uri: Uri = target.parse().map_err(|_| NO_ADDRESS)?;
    let is_fit = match (uri.scheme(), uri.authority()) {
        (None, None) => method != "CONNECT" && (target.starts_with('/') || target == "*"),
        (Some(scheme), Some(named)) => {
            let host = values(request.headers, "host").next().and_then(authority);
            let is_web = *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
            is_web && method != "CONNECT" && host.is_some_and(|host| host == *named)
        }
        (Some(_), None) | (None, Some(_)) => false,
    };
    if is_fit { Ok(()) } else { Err(NO_ADDRESS) }
}

fn values<'a>(
    fields: &'a [httparse::Header<'a>],
    name: &'a str,
) -> impl Iterator<Item = &'a [u8]> + 'a {
    fields
        .iter()
        .filter(move |field| field.name.eq_ignore_ascii_case(name))
        .map(|field| field.value)
}

fn authority(host: &[u8]) -> Option<Authority> {
    let host = Authority::try_from(host).ok()?;
    (!host.as_str().contains('@') && !host.host().is_empty()).then_some(host)
}

fn whole_number(digits: &[u8]) -> Option<u64> {
    let is_plain = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_plain.then(|| str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bad(detail: &'static str) -> Head {
        Head::Bad(Refusal::Malformed(detail))
    }

    #[test]
    fn a_plain_head_passes_with_the_length_of_its_body() {
        for (head, body) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Length::Exactly(0)),
            ("\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", Length::Exactly(0)),
            ("GET / HTTP/1.0\r\n\r\n", Length::Exactly(0)),
            ("OPTIONS * HTTP/1.1\r\nHost: x:80\r\n\r\n", Length::Exactly(0)),
            ("GET http://X/a HTTP/1.1\r\nhost: x\r\n\r\n", Length::Exactly(0)),
            (
                "POST /a?b=c HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 007\r\n\r\n",
                Length::Exactly(7),
            ),
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n", Length::Chunked),
        ] {
            let whole = Head::Whole { length: head.len(), body };

            assert_eq!(examine(head.as_bytes()), whole, "{head}");
            assert_eq!(examine(format!("{head}GET").as_bytes()), whole, "{head}");
            for end in 0..head.len() {
                assert_eq!(examine(&head.as_bytes()[..end]), Head::Partial, "{}", &head[..end]);
            }
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        const TWICE: &str = "a field is there twice that may be there once";
        const BOTH: &str = "Content-Length and Transfer-Encoding exclude each other";
        const LENGTH: &str = "Content-Length is no length";
        const ENCODING: &str = "the only Transfer-Encoding is chunked, of HTTP/1.1";
        for (fields, detail) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", BOTH),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", BOTH),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", TWICE),
            ("Content-Length: 5\r\ncontent-length: 5\r\n", TWICE),
            ("Content-Length: 5, 5\r\n", LENGTH),
            ("Content-Length: +5\r\n", LENGTH),
            ("Content-Length: -5\r\n", LENGTH),
            ("Content-Length: 0x5\r\n", LENGTH),
            ("Content-Length: 5 5\r\n", LENGTH),
            ("Content-Length:\r\n", LENGTH),
            ("Content-Length: 9999999999999999999\r\n", LENGTH),
            ("Transfer-Encoding: identity, chunked\r\n", ENCODING),
            ("Transfer-Encoding: chunked, identity\r\n", ENCODING),
            ("Transfer-Encoding: chunked, chunked\r\n", ENCODING),
            ("Transfer-Encoding: gzip\r\n", ENCODING),
            ("Transfer-Encoding: xchunked\r\n", ENCODING),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", TWICE),
            ("Host: y\r\n", TWICE),
            ("Authorization: a\r\nAuthorization: b\r\n", TWICE),
            ("A: b\r\n folded\r\n", "this is no request"),
            ("Transfer-Encoding : chunked\r\n", "this is no request"),
            ("A: b\0c\r\n", "this is no request"),
            ("A: b\rc\r\n", "this is no request"),
            ("\0: b\r\n", "this is no request"),
            ("A: b\n", "a line ends with CR LF"),
            ("A: b\nTransfer-Encoding: chunked\r\n", "a line ends with CR LF"),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");

            assert_eq!(examine(head.as_bytes()), bad(detail), "{fields}");
        }
    }

    #[test]
    fn what_is_not_said_to_this_server_in_its_language_is_refused() {
        const ADDRESS: &str = "the address is none of this server";
        const VERSION: &str = "HTTP/1.1 is spoken here";
        for (head, detail) in [
            ("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", ADDRESS),
            ("CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n", ADDRESS),
            ("GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", ADDRESS),
            ("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", ADDRESS),
            ("GET x HTTP/1.1\r\nHost: x\r\n\r\n", ADDRESS),
            ("GET / HTTP/1.1\r\n\r\n", "Host is missing"),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "Host names no host"),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", "Host names no host"),
            ("GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", "Host names no host"),
            (
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                "the only Transfer-Encoding is chunked, of HTTP/1.1",
            ),
            ("GET /\r\n", "this is no request"),
            ("GET / HTTP/0.9\r\n\r\n", VERSION),
            ("GET / HTTP/2.0\r\n\r\n", VERSION),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION),
            ("GET /\n", "this is no request"),
            ("\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "a line ends with CR LF"),
            ("GET / HTTP/1.1\nHost: x\n\n", "a line ends with CR LF"),
            ("\u{16}\u{3}\u{1}", "this is no request"),
            ("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", "this is no request"),
            ("MUCH-TOO-LONG-A-METHOD / HTTP/1.1\r\nHost: x\r\n\r\n", "there is no such method"),
        ] {
            assert_eq!(examine(head.as_bytes()), bad(detail), "{head}");
        }
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let fields = |n: usize| "A: b\r\n".repeat(n - 1);
        let head = |middle: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{middle}\r\n");
        let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(n - 1));
        let is_whole = |head: &str| matches!(examine(head.as_bytes()), Head::Whole { .. });
        let large = Head::Bad(Refusal::HeadTooLarge);

        assert!(is_whole(&head(&fields(FIELDS_MAX))));
        assert_eq!(examine(head(&fields(FIELDS_MAX + 1)).as_bytes()), large);
        assert!(is_whole(&target(TARGET_MAX)));
        assert_eq!(examine(target(TARGET_MAX + 1).as_bytes()), Head::Bad(Refusal::TargetTooLong));
        let frame = head("C: \r\n").len();
        let cookie = |n: usize| head(&format!("C: {}\r\n", "c".repeat(n - frame)));
        assert!(is_whole(&cookie(LENGTH_MAX)));
        assert_eq!(examine(cookie(LENGTH_MAX + 1).as_bytes()), large);
        assert_eq!(examine(&vec![b'G'; LENGTH_MAX]), large);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Head::Whole { length, .. } = examine(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn a_head_is_the_same_however_much_follows_it(
            name in "[A-Za-z-]{1,20}",
            value in "[ -~\t]{0,40}",
            rest in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let head = format!("POST /a HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\n\r\n");
            let mut followed = head.clone().into_bytes();
            followed.extend(rest);

            prop_assert_eq!(examine(head.as_bytes()), examine(&followed));
        }
    }
}
