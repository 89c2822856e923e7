//! The edge and the server as a client meets them: over a socket, byte by byte.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use poem::{
    Endpoint, EndpointExt, IntoEndpoint, Response, Route, endpoint::make_sync, http::uri::Scheme,
};
use poem_openapi::{
    ApiResponse, Object, OpenApi, OpenApiService,
    param::{Header, Path, Query},
    payload::Json,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Document, Edge, Patience, Problem,
    policy::{Class, Policy, Who},
    server::{Drain, Limits, serve},
};

/// Short, so that no test is slow; long enough for a busy machine to answer within it.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

#[derive(Object)]
#[oai(deny_unknown_fields)]
struct EchoBody {
    #[oai(validator(max_length = 5))]
    text: String,
    number: Option<i32>,
}

#[derive(ApiResponse)]
enum EchoResponse {
    #[oai(status = 200)]
    Echoed(Json<String>),
}

struct TestApi {
    /// Told whenever `slow` or `never` begins.
    begun: Arc<Notify>,
}

#[expect(clippy::unused_async, reason = "the framework only takes async operations")]
#[OpenApi(prefix_path = "/v1")]
impl TestApi {
    #[oai(path = "/echo", method = "post", operation_id = "echo")]
    async fn echo(&self, body: Json<EchoBody>) -> Result<EchoResponse, Problem> {
        let _ = body.0.number;
        Ok(EchoResponse::Echoed(Json(body.0.text)))
    }

    #[oai(path = "/things/:thing_id", method = "get", operation_id = "thing")]
    async fn thing(
        &self,
        thing_id: Path<Uuid>,
        limit: Query<Option<u32>>,
        #[oai(name = "Idempotency-Key", validator(min_length = 8))] key: Header<String>,
    ) -> EchoResponse {
        EchoResponse::Echoed(Json(format!("{} {:?} {}", thing_id.0, limit.0, key.0)))
    }

    #[oai(path = "/auth/panic", method = "post", operation_id = "panic")]
    async fn panic(&self, body: Json<Value>) -> EchoResponse {
        panic!("secret {}", body.0)
    }

    #[oai(path = "/broken", method = "get", operation_id = "broken")]
    async fn broken(&self) -> poem::Result<EchoResponse> {
        Err(poem::error::InternalServerError(std::io::Error::other("secret SQL")))
    }

    #[oai(path = "/slow", method = "get", operation_id = "slow")]
    async fn slow(&self) -> EchoResponse {
        self.begun.notify_one();
        sleep(SHORT).await;
        EchoResponse::Echoed(Json("at last".to_owned()))
    }

    #[oai(path = "/never", method = "post", operation_id = "never")]
    async fn never(&self) -> EchoResponse {
        self.begun.notify_one();
        std::future::pending().await
    }
}

fn app(begun: Arc<Notify>, patience: Patience) -> impl Endpoint<Output = Response> {
    let service = OpenApiService::new(TestApi { begun }, "test", "1");
    let policies = [
        Policy::new("echo", Who::Anyone, Class::Admin),
        Policy::new("thing", Who::Anyone, Class::Browse),
        Policy::new("panic", Who::Anyone, Class::Auth),
        Policy::new("broken", Who::Anyone, Class::Browse),
        Policy::new("slow", Who::Anyone, Class::Browse),
        Policy::new("never", Who::Anyone, Class::Browse),
    ];
    let document = Document::parse(&service.spec(), &["/plain"], &policies).unwrap();
    let teapot = make_sync(|_| poem::http::StatusCode::IM_A_TEAPOT);
    let routes = Route::new().at("/plain", poem::get(teapot)).nest("/", service);
    Edge::new(routes.into_endpoint().map_to_response(), document, patience)
}

struct Running {
    address: SocketAddr,
    begun: Arc<Notify>,
    shutdown: CancellationToken,
    server: JoinHandle<Drain>,
}

async fn start_with(limits: Limits, patience: Patience) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (begun, shutdown) = (Arc::new(Notify::new()), CancellationToken::new());
    let app = app(begun.clone(), patience);
    let server = tokio::spawn(serve(listener, app, limits, Scheme::HTTP, shutdown.clone()));
    Running { address, begun, shutdown, server }
}

async fn start() -> Running {
    start_with(Limits::default(), Patience::default()).await
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends the bytes and reads until the server closes.
    async fn exchange(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        read_answer(&mut stream).await
    }

    /// Waits until the server has begun a request whose answer takes its time.
    async fn until_begun(&self) {
        timeout(LONG, self.begun.notified()).await.unwrap();
    }

    async fn get(&self, path: &str) -> Answer {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        let length = body.len();
        self.exchange(format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The problem's code, and each error's pointer and code; the rules for all problems hold.
    #[track_caller]
    fn problem(&self) -> (u16, String, Vec<(String, String)>) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status());
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        for word in ["secret", "expected", "serde", "column", "failed to parse", "Type \""] {
            assert!(!self.body.contains(word), "{word} in {}", self.body);
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = problem["errors"].as_array().into_iter().flatten();
        let errors = errors.map(|error| (text(&error["pointer"]), text(&error["code"]))).collect();
        (self.status(), text(&problem["code"]), errors)
    }
}

async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is as good an end as any.
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Answer { head: head.to_owned(), body: body.to_owned() }
}

fn refused(
    status: u16,
    code: &str,
    errors: &[(&str, &str)],
) -> (u16, String, Vec<(String, String)>) {
    let errors = errors.iter().map(|(at, code)| ((*at).to_owned(), (*code).to_owned()));
    (status, code.to_owned(), errors.collect())
}

#[tokio::test]
async fn a_good_request_is_answered_and_hardened() {
    let answer = start().await.post("/v1/echo", r#"{"text":"hello"}"#).await;

    assert_eq!((answer.status(), &*answer.body), (200, "\"hello\""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("x-request-id").is_some());
}

#[tokio::test]
async fn a_harmless_request_id_is_kept() {
    let running = start().await;

    let request = "GET /v1/nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                   X-Request-Id: from-the-proxy\r\n\r\n";
    let answer = running.exchange(request).await;

    assert_eq!(answer.header("x-request-id"), Some("from-the-proxy"));
    assert_eq!(answer.problem(), refused(404, "no-such-route", &[]));
}

#[tokio::test]
async fn every_framework_error_is_a_problem_in_our_words() {
    let running = start().await;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for (body, expected) in [
        ("{", refused(400, "malformed", &[])),
        ("", refused(400, "malformed", &[])),
        (&*deep, refused(400, "malformed", &[])),
        ("{\"text\":\"\u{0}\"}", refused(400, "malformed", &[])),
        ("[]", refused(422, "invalid-request", &[("", "wrong-type")])),
        (
            r#"{"text":"too long","number":"1","price":1}"#,
            refused(
                422,
                "invalid-request",
                &[("/number", "wrong-type"), ("/price", "unknown-field"), ("/text", "too-long")],
            ),
        ),
        (
            r#"{"text":"hi","price":1}"#,
            refused(422, "invalid-request", &[("/price", "unknown-field")]),
        ),
        (r#"{"text":"a\u0000b"}"#, refused(422, "invalid-request", &[("/text", "nul-character")])),
    ] {
        let answer = running.post("/v1/echo", body).await;

        assert_eq!(answer.problem(), expected, "{body}");
    }
}

#[tokio::test]
async fn parameters_are_named_in_their_problems() {
    let running = start().await;
    let id = Uuid::nil();
    for (path, header, pointer, code) in [
        ("/v1/things/none".to_owned(), "Idempotency-Key: 12345678", "thing_id", "wrong-format"),
        (format!("/v1/things/{id}?limit=x"), "Idempotency-Key: 12345678", "limit", "wrong-format"),
        (format!("/v1/things/{id}"), "X: y", "Idempotency-Key", "missing"),
        (format!("/v1/things/{id}"), "Idempotency-Key: short", "Idempotency-Key", "wrong-format"),
    ] {
        let answer = running
            .exchange(format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n"
            ))
            .await;

        assert_eq!(answer.problem(), refused(422, "invalid-request", &[(pointer, code)]));
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let running = start().await;

    let answer = running.get("/v1/echo").await;
    assert_eq!(answer.problem(), refused(405, "method-not-allowed", &[]));
    assert_eq!(answer.header("allow"), Some("POST"));
    let answer = running.post("/plain", "").await;
    assert_eq!(answer.problem(), refused(405, "method-not-allowed", &[]));
    assert_eq!(answer.header("allow"), Some("GET"));
    assert_eq!(running.get("/").await.problem(), refused(404, "no-such-route", &[]));
    assert_eq!(running.get("/plain").await.problem(), refused(418, "refused", &[]));
    assert_eq!(
        running.get("/v1/things/a%00b").await.problem(),
        refused(422, "invalid-request", &[])
    );
}

#[tokio::test]
async fn another_kind_of_body_is_refused() {
    let request = "POST /v1/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                   Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";

    let answer = start().await.exchange(request).await;

    assert_eq!(answer.problem(), refused(415, "unsupported-content-type", &[]));
}

#[tokio::test]
async fn a_panic_and_an_unknown_error_keep_their_text() {
    let running = start().await;

    let panic = running.post("/v1/auth/panic", "{}").await;
    let broken = running.get("/v1/broken").await;

    assert_eq!(panic.problem(), refused(500, "internal-error", &[]));
    assert_eq!(broken.problem(), refused(500, "internal-error", &[]));
}

#[tokio::test]
async fn a_long_body_is_refused_and_the_client_hears_it() {
    let running = start().await;
    let body = |bytes| json!({ "text": "x".repeat(bytes) }).to_string();

    let allowed = running.post("/v1/echo", &body(100 * 1024)).await;
    let long = running.post("/v1/echo", &body(2 * 1024 * 1024)).await;
    let long_login = running.post("/v1/auth/panic", &body(100 * 1024)).await;
    let announced = "POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n";
    let announced = running.exchange(announced).await;

    assert_eq!(allowed.problem().0, 422);
    assert_eq!(long.problem(), refused(413, "too-large", &[]));
    assert_eq!(long_login.problem(), refused(413, "too-large", &[]));
    assert_eq!(announced.problem(), refused(413, "too-large", &[]));
    assert_eq!(announced.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_body_that_stalls_is_a_408() {
    let patience = Patience { body: SHORT, ..Patience::default() };
    let running = start_with(Limits::default(), patience).await;

    let begun = "POST /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let answer = running.exchange(begun).await;

    assert_eq!(answer.problem(), refused(408, "request-timeout", &[]));
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_503() {
    let patience = Patience { answer: SHORT, ..Patience::default() };
    let running = start_with(Limits::default(), patience).await;

    let answer = running.post("/v1/never", "").await;

    assert_eq!(answer.problem(), refused(503, "outcome-unknown", &[]));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_slow_head_is_cut_however_it_is_slow() {
    // Long enough for what is sent at once to be read.
    let head = SHORT * 4;
    let limits = Limits { head, ..Limits::default() };
    let running = start_with(limits, Patience::default()).await;
    let started_at = Instant::now();

    let mut silent = running.connect().await;
    let mut stalled = running.connect().await;
    stalled.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    let mut dripping = running.connect().await;
    let drip = async {
        // The write fails once the server has closed.
        while dripping.write_all(b"G").await.is_ok() {
            sleep(SHORT / 10).await;
        }
    };

    let (silent, stalled, ()) =
        tokio::join!(read_answer(&mut silent), read_answer(&mut stalled), drip);
    assert_eq!(silent.head, "");
    assert_eq!(stalled.problem(), refused(408, "request-timeout", &[]));
    assert!(started_at.elapsed() >= head);
}

#[tokio::test]
async fn a_kept_connection_may_rest_longer_than_a_head_may_take() {
    let limits = Limits { head: SHORT, idle: SHORT * 20, ..Limits::default() };
    let running = start_with(limits, Patience::default()).await;
    let mut stream = running.connect().await;
    let request = b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut buffer = [0; 4096];

    for _ in 0..2 {
        stream.write_all(request).await.unwrap();
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        sleep(SHORT * 2).await;
    }
    stream.write_all(b"GET / HT").await.unwrap();
    let stalled_at = Instant::now();
    let rest = read_answer(&mut stream).await;

    assert_eq!(rest.problem(), refused(408, "request-timeout", &[]));
    assert!(stalled_at.elapsed() < SHORT * 15);
}

#[tokio::test]
async fn a_huge_head_is_a_431() {
    let cookie = "c".repeat(40 * 1024);

    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n");
    let answer = start().await.exchange(request).await;

    assert_eq!(answer.problem(), refused(431, "head-too-large", &[]));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[tokio::test]
async fn a_connection_too_many_takes_the_place_of_one_that_waits() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let running = start_with(limits, Patience::default()).await;
    let mut first = running.connect().await;

    let second = running.get("/v1/nowhere").await;

    assert_eq!(second.problem(), refused(404, "no-such-route", &[]));
    assert_eq!(read_answer(&mut first).await.head, "");
}

#[tokio::test]
async fn a_connection_too_many_is_a_503_where_all_others_are_answered() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let running = start_with(limits, Patience::default()).await;
    let mut first = running.connect().await;
    first.write_all(b"POST /v1/never HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();

    let answer = loop {
        let second = running.get("/v1/nowhere").await;
        // The first may only just have been let in.
        if second.status() != 404 {
            break second;
        }
    };

    assert_eq!(answer.problem(), refused(503, "busy", &[]));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn there_are_no_more_connections_than_descriptors() {
    let limits = Limits::default();

    for (descriptors, connections) in
        [(1 << 20, 4_096), (limits.descriptors(), 4_096), (1_024, 576), (256, 64), (64, 16)]
    {
        assert_eq!(limits.within(descriptors).connections, connections, "{descriptors}");
    }
}

#[tokio::test]
async fn stopping_answers_what_is_in_flight_and_closes_what_is_idle() {
    let running = start().await;
    let mut idle = running.connect().await;
    idle.write_all(b"GET /v1/nowhere HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 4096]).await.unwrap() > 0);
    let mut busy = running.connect().await;
    busy.write_all(b"GET /v1/slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    running.until_begun().await;

    running.shutdown.cancel();

    assert_eq!(read_answer(&mut idle).await.head, "");
    let answer = read_answer(&mut busy).await;
    assert_eq!((answer.status(), &*answer.body), (200, "\"at last\""));
    assert_eq!(running.server.await.unwrap(), Drain::Clean);
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn a_drain_that_takes_too_long_says_so() {
    let limits = Limits { drain: SHORT, ..Limits::default() };
    let running = start_with(limits, Patience::default()).await;
    let mut busy = running.connect().await;
    busy.write_all(b"POST /v1/never HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    running.until_begun().await;

    running.shutdown.cancel();

    assert_eq!(running.server.await.unwrap(), Drain::Cut { connections: 1 });
}
