//! Pages of other origins: which of them may call the API, and what no foreign page may have a browser do.
//!
//! Bearer tokens are safe from foreign pages, which cannot read them. The refresh token is a cookie that
//! a browser sends by itself, so the operations that it opens look at where the request comes from.

use std::time::Duration;

use poem::{
    IntoResponse, Request, Response,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
};

use crate::web::{
    Problem,
    document::{Operation, Route},
    policy::Who,
    refusal,
};

/// How long a browser may remember what a route allows. Chrome keeps nothing longer.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

/// Below this path the refresh token's cookie is set and read, nowhere else.
const COOKIE_PATH: &str = "/v1/auth/";

/// What scripts may read of an answer beside the few fields that they always may.
const EXPOSED: &str = "ETag, Idempotency-Replayed, Link, RateLimit, RateLimit-Policy, Retry-After, \
                       WWW-Authenticate, X-Request-Id";

/// What may be sent to every operation beside the parameters in its description.
const ACCEPTED: &str = "Authorization, Content-Type, If-Match, If-None-Match, X-Request-Id";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The origins whose pages belong to the shop.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    allowed: Vec<String>,
    is_secure: bool,
}

impl Origins {
    /// The origin that the API itself is called by is always one of them. With `is_secure` only over
    /// HTTPS, and browsers are told to call us in no other way.
    pub const fn new(allowed: Vec<String>, is_secure: bool) -> Self {
        Self { allowed, is_secure }
    }

    pub(super) const fn is_secure(&self) -> bool {
        self.is_secure
    }

    fn allow(&self, origin: &HeaderValue) -> bool {
        self.allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    /// Whether the page that the origin names was loaded from where the request went to.
    fn is_ours(&self, origin: &HeaderValue, headers: &HeaderMap) -> bool {
        let Some((scheme, place)) = origin.to_str().ok().and_then(|it| it.split_once("://")) else {
            return false;
        };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let is_fit = scheme == "https" || (scheme == "http" && !self.is_secure);
        is_fit && host.is_some_and(|host| host.eq_ignore_ascii_case(place))
    }

    /// Whether a page of somebody else made the browser send the request. Programs that are no
    /// browsers say nothing about it.
    fn is_foreign(&self, headers: &HeaderMap) -> bool {
        if let Some(origin) = headers.get(header::ORIGIN) {
            return !self.allow(origin) && !self.is_ours(origin, headers);
        }
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        !matches!(site, None | Some(b"same-origin" | b"none"))
    }

    /// Refuses what a foreign page has sent with our cookie.
    pub(super) fn check(&self, operation: &Operation, headers: &HeaderMap) -> Result<(), Problem> {
        if operation.policy.who == Who::RefreshToken && self.is_foreign(headers) {
            return Err(foreign());
        }
        Ok(())
    }

    /// Answers a browser that asks whether a page may call; `None` for any other request.
    pub(super) fn preflight(&self, request: &Request, route: &Route) -> Option<Response> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?;
        let wanted = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if request.method() != Method::OPTIONS {
            return None;
        }
        if !self.allow(origin) {
            return Some(foreign().into_response());
        }
        let wanted = Method::from_bytes(wanted.as_bytes()).ok();
        let Some(operation) = wanted.and_then(|method| route.operation(&method)) else {
            return Some(refusal::method_not_allowed(route));
        };
        let mut accepted = ACCEPTED.to_owned();
        for name in &operation.headers {
            accepted = format!("{accepted}, {name}");
        }
        let answer = Response::builder()
            .status(StatusCode::NO_CONTENT)
            .header(header::ACCESS_CONTROL_ALLOW_METHODS, route.allowed())
            .header(header::ACCESS_CONTROL_ALLOW_HEADERS, accepted)
            .header(header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE.as_secs());
        Some(answer.finish())
    }
}

/// Where a request comes from and goes to, kept until its answer is there.
#[derive(Debug)]
pub(super) struct Asked {
    origin: Option<HeaderValue>,
    is_preflight: bool,
    takes_cookies: bool,
}

impl Asked {
    pub(super) fn by(request: &Request) -> Self {
        Self {
            origin: request.headers().get(header::ORIGIN).cloned(),
            is_preflight: request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
                && request.method() == Method::OPTIONS,
            takes_cookies: request.uri().path().starts_with(COOKIE_PATH),
        }
    }

    /// Lets the page that asked read the answer, if it belongs to the shop.
    pub(super) fn open(&self, headers: &mut HeaderMap, origins: &Origins) {
        if origins.allowed.is_empty() {
            return;
        }
        // Whoever keeps the answer must not give one page's to another.
        let vary = if self.is_preflight {
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        } else {
            "Origin"
        };
        headers.append(header::VARY, HeaderValue::from_static(vary));
        let Some(origin) = self.origin.as_ref().filter(|origin| origins.allow(origin)) else {
            return;
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.takes_cookies {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if !self.is_preflight {
            let exposed = HeaderValue::from_static(EXPOSED);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

fn foreign() -> Problem {
    let detail = "pages of this origin may not do that".to_owned();
    Problem::new(StatusCode::FORBIDDEN, "foreign-origin", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_foreign_page_is_told_from_the_shops_own_and_from_programs() {
        let host = ("host", "api.shop.example");
        for (sent, is_foreign) in [
            (vec![], false),
            (vec![("sec-fetch-site", "same-origin")], false),
            (vec![("sec-fetch-site", "none")], false),
            (vec![("sec-fetch-site", "same-site")], true),
            (vec![("sec-fetch-site", "cross-site")], true),
            (vec![("sec-fetch-site", "nonsense")], true),
            (vec![("origin", "https://shop.example")], false),
            (vec![("origin", "https://shop.example"), ("sec-fetch-site", "same-site")], false),
            (vec![("origin", "https://api.shop.example")], false),
            (vec![("origin", "https://API.shop.example")], false),
            (vec![("origin", "http://api.shop.example")], true),
            (vec![("origin", "http://shop.example")], true),
            (vec![("origin", "https://shop.example:8443")], true),
            (vec![("origin", "https://shop.example.evil.example")], true),
            (vec![("origin", "https://evilshop.example")], true),
            (vec![("origin", "https://evil.example/https://shop.example")], true),
            (vec![("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")], true),
            (vec![("origin", "null")], true),
            (vec![("origin", "")], true),
            (vec![("origin", "*")], true),
        ] {
            let origins = Origins::new(vec!["https://shop.example".to_owned()], true);
            let sent: Vec<_> = sent.into_iter().chain([host]).collect();

            assert_eq!(origins.is_foreign(&headers(&sent)), is_foreign, "{sent:?}");
        }
    }

    #[test]
    fn a_developer_may_do_without_https() {
        let here = headers(&[("host", "localhost:3000"), ("origin", "http://localhost:3000")]);

        assert!(!Origins::new(Vec::new(), false).is_foreign(&here));
        assert!(Origins::new(Vec::new(), true).is_foreign(&here));
    }
}
