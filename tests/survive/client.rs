//! A shopper's client: it asks one process after the other until it knows.

mod pay;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

pub(crate) use self::pay::Intention;
use crate::{
    cluster::Guests,
    ledger::{Answer, CancelAnswer, Ledger, PlacedOrder, Wish},
};

/// Longer than the server's own limit for an answer: whoever waits longer was forgotten.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a client asks again before it calls the shop broken.
const PERSISTENCE: Duration = Duration::from_mins(1);

/// How long a client waits before it asks again if nobody told it how long.
const PAUSE: Duration = Duration::from_millis(50);

/// A variant on sale.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variant {
    pub(crate) id: Uuid,
    pub(crate) price_minor: i64,
}

/// Cheap to clone; clones share connections and ledger.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    apis: Vec<SocketAddr>,
    turn: Arc<AtomicUsize>,
    guests: Arc<Guests>,
    ledger: Ledger,
}

impl Client {
    pub(crate) fn new(apis: Vec<SocketAddr>, guests: Arc<Guests>, ledger: Ledger) -> Self {
        let http = simulator::http_client().timeout(PATIENCE).build().unwrap();
        Self { http, apis, turn: Arc::default(), guests, ledger }
    }

    /// A client of the same shop that opens a connection for every request.
    pub(crate) fn without_keep_alive(&self) -> Self {
        let http =
            simulator::http_client().timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap();
        Self { http, ..self.clone() }
    }

    /// A client that knows one of the processes only.
    pub(crate) fn only(&self, api: usize) -> Self {
        Self { apis: vec![self.apis[api]], ..self.clone() }
    }

    /// A new guest's wish, not yet sent.
    pub(crate) fn wish(&self, lines: &[(Variant, i64)]) -> Wish {
        let (owner_id, token) = self.guests.issue();
        Wish {
            owner_id,
            token,
            key: format!("wish-{}", Uuid::now_v7()),
            email: format!("{}@example.com", owner_id.simple()),
            lines: lines.iter().map(|(variant, units)| (variant.id, *units)).collect(),
            total_minor: lines.iter().map(|(variant, units)| variant.price_minor * units).sum(),
        }
    }

    /// Asks once, and notes the answer.
    pub(crate) async fn ask(&self, wish: &Wish) -> Answer {
        self.ask_patiently(wish).await.0
    }

    /// Asks until the outcome is known.
    pub(crate) async fn order(&self, wish: &Wish) -> Answer {
        let begun = Instant::now();
        loop {
            let (answer, pause) = self.ask_patiently(wish).await;
            if answer.is_final() {
                return answer;
            }
            assert!(begun.elapsed() < PERSISTENCE, "still no answer but {answer:?}");
            tokio::time::sleep(pause).await;
        }
    }

    /// Orders and expects to get it.
    pub(crate) async fn place(&self, lines: &[(Variant, i64)]) -> (Wish, PlacedOrder) {
        let wish = self.wish(lines);
        let answer = self.order(&wish).await;
        let Answer::Placed(order) = answer else { panic!("not placed: {answer:?}") };
        (wish, order)
    }

    /// Asks once for the wish's order to be cancelled, and notes the answer.
    pub(crate) async fn ask_to_cancel(&self, wish: &Wish, order: &PlacedOrder) -> CancelAnswer {
        self.try_to_cancel(wish, order).await.0
    }

    /// Cancels the wish's order, and asks until the outcome is known.
    pub(crate) async fn cancel(&self, wish: &Wish, order: &PlacedOrder) -> CancelAnswer {
        let begun = Instant::now();
        loop {
            let (answer, pause) = self.try_to_cancel(wish, order).await;
            if !matches!(answer, CancelAnswer::Unknown(_)) {
                return answer;
            }
            assert!(begun.elapsed() < PERSISTENCE, "still no answer but {answer:?}");
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_to_cancel(&self, wish: &Wish, order: &PlacedOrder) -> (CancelAnswer, Duration) {
        let url = format!("http://{}/v1/orders/{}/cancel", self.next_api(), order.id);
        let (answer, pause) = match self.http.post(url).bearer_auth(&wish.token).send().await {
            Ok(response) => self.read_cancel(response).await,
            Err(error) => (CancelAnswer::Unknown(error.to_string()), PAUSE),
        };
        self.ledger.note_cancel(wish, &answer);
        (answer, pause)
    }

    /// Posts to any of the processes, and returns the status.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> StatusCode {
        let url = format!("http://{}{path}", self.next_api());
        self.http.post(url).json(body).send().await.unwrap().status()
    }

    fn next_api(&self) -> SocketAddr {
        self.apis[self.turn.fetch_add(1, Ordering::Relaxed) % self.apis.len()]
    }

    async fn ask_patiently(&self, wish: &Wish) -> (Answer, Duration) {
        self.ledger.open(wish);
        let (answer, pause) = match self.request(wish).send().await {
            Ok(response) => self.read(response).await,
            Err(error) if error.is_connect() => (Answer::Unheard, PAUSE),
            Err(error) => (Answer::Lost(chain(&error)), PAUSE),
        };
        self.ledger.note(wish, &answer);
        (answer, pause)
    }

    fn request(&self, wish: &Wish) -> RequestBuilder {
        let lines: Vec<_> = wish
            .lines
            .iter()
            .map(|(variant_id, quantity)| json!({ "variant_id": variant_id, "quantity": quantity }))
            .collect();
        self.http
            .post(format!("http://{}/v1/checkout", self.next_api()))
            .bearer_auth(&wish.token)
            .header("Idempotency-Key", &wish.key)
            .json(&json!({
                "email": wish.email,
                "currency": "USD",
                "expected_total": { "amount": wish.total_minor, "currency": "USD" },
                "lines": lines,
                "shipping_address": {
                    "name": "Ada Lovelace", "line1": "1 Analytical Row", "city": "London",
                    "country": "GB",
                },
            }))
    }

    /// Makes an answer of a response, with the time to wait before the next attempt.
    async fn read(&self, response: Response) -> (Answer, Duration) {
        let head = Head::of(&response);
        let body: Value = match response.json().await {
            Ok(body) => body,
            Err(error) => return (Answer::Lost(chain(&error)), PAUSE),
        };
        let code = body["code"].as_str().unwrap_or_default().to_owned();
        let answer = match (head.status, code.as_str()) {
            (StatusCode::CREATED, _) => match read_order(&body, head.replayed) {
                Some(order) => Answer::Placed(order),
                None => Answer::Refused(201, format!("unreadable: {body}")),
            },
            (StatusCode::CONFLICT, "out-of-stock") => Answer::OutOfStock,
            (StatusCode::CONFLICT, "request-in-flight") => Answer::InFlight,
            (StatusCode::SERVICE_UNAVAILABLE, _) => Answer::Unavailable(code),
            (status, _) => Answer::Refused(status.as_u16(), code),
        };
        let must_say_when = matches!(answer, Answer::InFlight | Answer::Unavailable(_));
        (answer, self.pause(&head, must_say_when, &body))
    }

    async fn read_cancel(&self, response: Response) -> (CancelAnswer, Duration) {
        let head = Head::of(&response);
        let body: Value = match response.json().await {
            Ok(body) => body,
            Err(error) => return (CancelAnswer::Unknown(chain(&error)), PAUSE),
        };
        let code = body["code"].as_str().unwrap_or_default().to_owned();
        let answer = match (head.status, code.as_str()) {
            (StatusCode::OK, _) => CancelAnswer::Cancelled,
            (StatusCode::CONFLICT, "order-not-cancellable") => CancelAnswer::NotCancellable,
            (StatusCode::SERVICE_UNAVAILABLE, _) => CancelAnswer::Unknown(code),
            (status, _) => CancelAnswer::Refused(status.as_u16(), code),
        };
        let must_say_when = matches!(answer, CancelAnswer::Unknown(_));
        (answer, self.pause(&head, must_say_when, &body))
    }

    /// How long the server asks to be left alone.
    fn pause(&self, head: &Head, must_say_when: bool, body: &Value) -> Duration {
        if must_say_when && head.retry_after.is_none() {
            self.ledger.note_breach(format!("no Retry-After: {} {body}", head.status));
        }
        if head.status.as_u16() >= 400 && !head.is_problem {
            self.ledger.note_breach(format!("not a problem+json: {} {body}", head.status));
        }
        head.retry_after.unwrap_or(PAUSE)
    }
}

/// What the headers of a response say.
struct Head {
    status: StatusCode,
    retry_after: Option<Duration>,
    replayed: bool,
    is_problem: bool,
}

impl Head {
    fn of(response: &Response) -> Self {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            status: response.status(),
            retry_after: header("retry-after")
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
            replayed: header("idempotency-replayed") == Some("true"),
            is_problem: header("content-type")
                .is_some_and(|kind| kind.starts_with("application/problem+json")),
        }
    }
}

fn read_order(body: &Value, replayed: bool) -> Option<PlacedOrder> {
    let moment = |name: &str| OffsetDateTime::parse(body[name].as_str()?, &Rfc3339).ok();
    Some(PlacedOrder {
        id: body["order_id"].as_str()?.parse().ok()?,
        placed_at: moment("placed_at")?,
        expires_at: moment("expires_at")?,
        replayed,
    })
}

/// The error with its causes: reqwest's own text says little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
