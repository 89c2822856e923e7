//! A caller of the API, and what it was answered.

use std::{sync::Mutex, time::Duration};

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::shop::Variant;

/// Far beyond what any answer takes on a busy machine: a test that waits this long has failed.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// No text of a library may reach a client. These words are in the texts of those we use.
pub(crate) const LIBRARY_WORDS: [&str; 16] = [
    "sqlx",
    "serde",
    "poem",
    "postgres",
    "redis",
    "apalis",
    "panicked",
    "expected ",
    "unexpected",
    "src/",
    ".rs:",
    "error returned from database",
    "constraint",
    "Option<",
    "Err(",
    "invalid type",
];

/// Somebody who calls the API, with or without a token.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
    /// Whose orders these are; unknown for those without a token.
    pub(crate) id: Option<Uuid>,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        let http = simulator::http_client()
            .timeout(ANSWER_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { http, url: url.to_owned(), token: None, id: None }
    }

    /// The same caller with a token.
    pub(crate) fn with_token(&self, token: &str, id: impl Into<Option<Uuid>>) -> Self {
        Self { token: Some(token.to_owned()), id: id.into(), ..self.clone() }
    }

    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, self.url(path));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::to(self.request(Method::POST, path).json(body)).await
    }

    /// A checkout with the header as it is given, to be sent.
    pub(crate) fn checkout(&self, key: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, "/v1/checkout").header("Idempotency-Key", key).json(body)
    }

    /// Orders the variants at the price the shopper was shown.
    pub(crate) fn place_order(
        &self,
        key: &str,
        lines: &[(Variant, i64)],
    ) -> impl Future<Output = Answer> + use<> {
        Answer::to(self.checkout(key, &checkout_body(lines)))
    }

    /// Places an order that must succeed, and returns its id.
    pub(crate) async fn order_for(&self, lines: &[(Variant, i64)]) -> Uuid {
        let placed = self.place_order(&Uuid::now_v7().to_string(), lines).await;
        placed.assert_status(201);
        placed.order_id()
    }

    pub(crate) async fn order(&self, id: Uuid) -> Answer {
        self.get(&format!("/v1/orders/{id}")).await
    }

    pub(crate) async fn orders(&self) -> Answer {
        self.get("/v1/orders").await
    }

    pub(crate) async fn cancel(&self, id: Uuid) -> Answer {
        Answer::to(self.request(Method::POST, &format!("/v1/orders/{id}/cancel"))).await
    }
}

/// A checkout's body for the variants, all of one currency.
pub(crate) fn checkout_body(lines: &[(Variant, i64)]) -> Value {
    let total: i64 = lines.iter().map(|(variant, quantity)| variant.price * quantity).sum();
    let lines: Vec<_> = lines
        .iter()
        .map(|(variant, quantity)| json!({ "variant_id": variant.id, "quantity": quantity }))
        .collect();
    json!({
        "email": "ada@example.com",
        "currency": "USD",
        "expected_total": { "amount": total, "currency": "USD" },
        "lines": lines,
        "shipping_address": {
            "name": "Ada Lovelace",
            "line1": "12 St James's Square",
            "city": "London",
            "postal_code": "SW1Y 4JH",
            "country": "GB",
        },
    })
}

/// An answer of the API, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// Sends the request and reads the answer, which must not leak what we are made of.
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        Self::try_to(request).await.unwrap()
    }

    pub(crate) async fn try_to(request: RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Self { status, headers, body: response.text().await? };
        if answer.status >= 400 {
            answer.assert_is_problem();
        }
        Ok(answer)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The part of the body that the pointer names.
    #[track_caller]
    pub(crate) fn at(&self, pointer: &str) -> Value {
        let body: Value = self.json();
        body.pointer(pointer).cloned().unwrap_or_else(|| panic!("no {pointer} in {body}"))
    }

    /// The body without the one thing that differs between equal answers.
    #[track_caller]
    pub(crate) fn without_request_id(&self) -> Value {
        let mut body: Value = self.json();
        assert!(body.as_object_mut().unwrap().remove("request_id").is_some(), "{body}");
        body
    }

    #[track_caller]
    pub(crate) fn order_id(&self) -> Uuid {
        self.at("/order_id").as_str().unwrap().parse().unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn assert_header<'a>(&self, name: &str, value: impl Into<Option<&'a str>>) -> &Self {
        assert_eq!(self.header(name), value.into(), "{name}");
        self
    }

    /// The request was refused with the status and the code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> &Self {
        self.assert_status(status);
        assert_eq!(self.at("/code"), code, "{}", self.body);
        self
    }

    /// Exactly these things were wrong, each with its pointer and its code.
    #[track_caller]
    pub(crate) fn assert_errors(&self, errors: &[(&str, &str)]) -> &Self {
        let mut found: Vec<(String, String)> = self
            .at("/errors")
            .as_array()
            .unwrap()
            .iter()
            .map(|error| (text(&error["pointer"]), text(&error["code"])))
            .collect();
        found.sort();
        let mut errors: Vec<_> =
            errors.iter().map(|(at, code)| ((*at).to_owned(), (*code).to_owned())).collect();
        errors.sort();
        assert_eq!(found, errors, "{}", self.body);
        self
    }

    /// What holds for every refusal and failure, whatever it is.
    #[track_caller]
    fn assert_is_problem(&self) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let code = text(&self.at("/code"));
        assert_eq!(self.at("/type"), format!("urn:holdfast:problem:{code}"));
        assert!(!text(&self.at("/title")).is_empty());
        assert_eq!(self.at("/status"), self.status);
        assert_eq!(Some(&*text(&self.at("/request_id"))), self.header("x-request-id"));
        for word in LIBRARY_WORDS {
            assert!(!self.body.contains(word), "{word:?} in {}", self.body);
        }
        if matches!(self.status, 429 | 503) {
            assert!(self.header("retry-after").is_some(), "{self:?}");
        }
    }
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// The statuses of the answers, sorted: for requests whose order does not matter.
pub(crate) fn statuses<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Vec<u16> {
    let mut statuses: Vec<_> = answers.into_iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    statuses
}

/// Waits until the condition holds; fails with its last look when that takes too long.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    const PAUSE: Duration = Duration::from_millis(10);
    let last = Mutex::new(String::new());
    let looking = async {
        loop {
            match look().await {
                Ok(seen) => return seen,
                Err(seen) => *last.lock().unwrap() = seen,
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let Ok(seen) = tokio::time::timeout(ANSWER_MAX, looking).await else {
        panic!("{what} did not happen in time: {}", last.lock().unwrap());
    };
    seen
}
