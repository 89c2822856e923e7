//! Heads that are too much, that can be read in two ways, or that are not HTTP/1.1 at all.

use crate::{
    raw::{PLAIN, Raw, assert_only_problem, exchange},
    steady::Steady,
    support::{app::TestApp, client::Client},
};

/// What a smuggler hides behind a request: an answer to it would be told to somebody else.
const HIDDEN: &str = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: shop\r\nX-Hidden: yes\r\n\r\n";

/// Each of the requests, with another one behind it, is answered by one problem, and nothing after it.
async fn assert_refused(app: &TestApp, requests: &[&str], status: u16, code: &str) {
    for request in requests {
        let answers = exchange(app.address, format!("{request}{HIDDEN}")).await;
        println!("{request:?}: {:?}", answers.iter().map(|it| it.status).collect::<Vec<_>>());
        assert_only_problem(&answers, status, code);
    }
}

#[tokio::test]
async fn a_header_of_40_kilobytes_is_a_431_in_our_words() {
    TestApp::run(async |app| {
        let steady = Steady::start(app.address);
        let cookie = "c".repeat(40 * 1024);
        let request = format!("GET / HTTP/1.1\r\nHost: shop\r\nCookie: {cookie}\r\n\r\n");
        let endless = format!("GET /{} HTTP/1.1\r\nHost: shop\r\n\r\n", "a".repeat(40 * 1024));

        for request in [request, endless, "G".repeat(200 * 1024)] {
            assert_only_problem(&exchange(app.address, request).await, 431, "head-too-large");
        }

        steady.assert_untroubled("heads of 40 KB").await;
    })
    .await;
}

#[tokio::test]
async fn a_head_of_120_headers_is_a_431_in_our_words() {
    TestApp::run(async |app| {
        let request = |n: usize| {
            format!(
                "GET /.well-known/jwks.json HTTP/1.1\r\nHost: shop\r\n{}\r\n",
                "A: b\r\n".repeat(n)
            )
        };

        assert_only_problem(&exchange(app.address, request(120)).await, 431, "head-too-large");
        assert_eq!(Raw::connect(app.address).await.ask(request(99)).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn an_address_of_10_kilobytes_is_a_414_and_no_search() {
    TestApp::run(async |app| {
        let request = format!(
            "GET /v1/products?q={} HTTP/1.1\r\nHost: shop\r\n\r\n",
            "%25".repeat(10 * 1024 / 3)
        );

        assert_only_problem(&exchange(app.address, request).await, 414, "address-too-long");
    })
    .await;
}

#[tokio::test]
async fn what_follows_an_honest_request_is_answered_as_well() {
    TestApp::run(async |app| {
        // Otherwise the tests of smuggling would show nothing.
        let mut raw = Raw::connect(app.address).await;
        raw.send(format!("{HIDDEN}{HIDDEN}")).await;

        assert_eq!(raw.answer().await.unwrap().status, 200);
        assert_eq!(raw.answer().await.unwrap().status, 200);
    })
    .await;
}

#[tokio::test]
async fn smuggling_by_two_lengths_is_refused_and_closed() {
    TestApp::run(async |app| {
        const POST: &str =
            "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n";
        let with = |fields: &str| format!("{POST}{fields}\r\n\r\n");
        let requests = [
            with("Content-Length: 4\r\nTransfer-Encoding: chunked") + "0\r\n\r\n",
            with("Transfer-Encoding: chunked\r\nContent-Length: 4") + "0\r\n\r\n",
            with("Content-Length: 2\r\nContent-Length: 4") + "{}{}",
            with("Content-Length: 2\r\nContent-Length: 2") + "{}",
            with("Content-Length: 2, 2") + "{}",
            with("Content-Length: +2") + "{}",
            with("Content-Length: 0x2") + "{}",
            with("Content-Length: 2\r\nContent-Length : 4") + "{}{}",
            with("Transfer-Encoding: identity, chunked") + "0\r\n\r\n",
            with("Transfer-Encoding: chunked, identity") + "0\r\n\r\n",
            with("Transfer-Encoding: xchunked") + "0\r\n\r\n",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity") + "0\r\n\r\n",
            with("Transfer-Encoding : chunked") + "0\r\n\r\n",
            with("Transfer-Encoding:\u{b}chunked") + "0\r\n\r\n",
            with("X: y\r\n Transfer-Encoding: chunked") + "0\r\n\r\n",
            with("X: y\nTransfer-Encoding: chunked") + "0\r\n\r\n",
            with("X: y\rTransfer-Encoding: chunked") + "0\r\n\r\n",
            with("X: y\0\r\nTransfer-Encoding: chunked") + "0\r\n\r\n",
            with("Host: elsewhere"),
        ];
        let requests = requests.each_ref().map(String::as_str);

        assert_refused(app, &requests, 400, "malformed").await;
        let old = "POST /v1/auth/login HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_refused(app, &[old], 400, "malformed").await;
    })
    .await;
}

#[tokio::test]
async fn smuggling_by_bad_chunks_is_refused_and_closed() {
    TestApp::run(async |app| {
        const POST: &str = "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n\
                            Transfer-Encoding: chunked\r\n\r\n";
        let requests = [
            "x\r\n{}\r\n0\r\n\r\n",
            "-2\r\n{}\r\n0\r\n\r\n",
            "0x2\r\n{}\r\n0\r\n\r\n",
            "+2\r\n{}\r\n0\r\n\r\n",
            "\r\n{}\r\n0\r\n\r\n",
            "2\n{}\r\n0\r\n\r\n",
            "2\r\n{}\n0\r\n\r\n",
            "2\r\n{}X0\r\n\r\n",
            "1\r\n{}\r\n0\r\n\r\n",
            "ffffffffffffffff1\r\n{}\r\n0\r\n\r\n",
            "2 2\r\n{}\r\n0\r\n\r\n",
            "2;a=\nb\r\n{}\r\n0\r\n\r\n",
        ]
        .map(|body| format!("{POST}{body}"));
        let requests = requests.each_ref().map(String::as_str);

        assert_refused(app, &requests, 400, "malformed").await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_read_behind_a_chunked_body() {
    TestApp::run(async |app| {
        let request = format!(
            "POST /v1/auth/login HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{HIDDEN}"
        );

        assert_only_problem(&exchange(app.address, request).await, 422, "invalid-request");
    })
    .await;
}

#[tokio::test]
async fn the_body_of_a_get_is_not_the_next_request() {
    TestApp::run(async |app| {
        let mut raw = Raw::connect(app.address).await;
        let length = HIDDEN.len();
        raw.send(format!(
            "GET /.well-known/jwks.json HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n{HIDDEN}\
             GET /v1/nowhere HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
        ))
        .await;

        let statuses: Vec<_> = raw.answers().await.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [200, 404]);
    })
    .await;
}

#[tokio::test]
async fn other_languages_than_http_1_1_are_refused_and_closed() {
    TestApp::run(async |app| {
        let requests = [
            "GET /v1/products\r\n",
            "GET /v1/products HTTP/0.9\r\n\r\n",
            "GET /v1/products HTTP/2.0\r\nHost: shop\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET /v1/products HTTP/1.1\nHost: shop\n\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
            "EHLO shop.example\r\n",
            "*1\r\n$4\r\nPING\r\n",
            "GET /v1/products HTTP/1.1\r\n\r\n",
            "GET /v1/pro\0ducts HTTP/1.1\r\nHost: shop\r\n\r\n",
            "GET /v1/products HTTP/1.1\r\nHost: shop\r\nX: a\0b\r\n\r\n",
            "GET  /v1/products HTTP/1.1\r\nHost: shop\r\n\r\n",
        ];
        let method = format!("{} /v1/products HTTP/1.1\r\nHost: shop\r\n\r\n", "M".repeat(5_000));

        assert_refused(app, &requests, 400, "malformed").await;
        assert_refused(app, &[&method], 400, "malformed").await;
    })
    .await;
}

#[tokio::test]
async fn this_is_no_proxy() {
    TestApp::run(async |app| {
        assert_refused(
            app,
            &[
                "CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n",
                "CONNECT /v1/products HTTP/1.1\r\nHost: shop\r\n\r\n",
                "GET http://elsewhere/v1/products HTTP/1.1\r\nHost: shop\r\n\r\n",
                "GET ftp://shop/v1/products HTTP/1.1\r\nHost: shop\r\n\r\n",
                "GET products HTTP/1.1\r\nHost: shop\r\n\r\n",
            ],
            400,
            "malformed",
        )
        .await;

        // RFC 9112 section 3.2.2: a server accepts its own name there.
        let own = "GET http://shop/.well-known/jwks.json HTTP/1.1\r\nHost: shop\r\n\r\n";
        assert_eq!(Raw::connect(app.address).await.ask(own).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_head_alone_is_answered_like_a_get_and_without_a_body() {
    TestApp::run(async |app| {
        let mut raw = Raw::connect(app.address).await;
        for path in ["/v1/products", "/v1/openapi.json", "/docs", "/v1/nowhere"] {
            let get = format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n");
            let expected = raw.ask(&get).await.status;

            raw.send(format!("HEAD {path} HTTP/1.1\r\nHost: shop\r\n\r\n")).await;
            let head = raw.head().await.unwrap();

            assert_eq!(head.status, expected, "{path}");
            // Whatever is there now would be the body.
            assert_eq!(raw.ask(PLAIN).await.status, 200, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_in_order() {
    const REQUESTS: usize = 1_000;
    TestApp::run(async |app| {
        let steady = Steady::start(app.address);
        let mut raw = Raw::connect(app.address).await;
        let request = |n| {
            format!(
                "GET /.well-known/jwks.json HTTP/1.1\r\nHost: shop\r\nX-Request-Id: pipelined-{n}\r\n\r\n"
            )
        };
        let requests = (0..REQUESTS).map(request).collect::<Vec<_>>().concat();
        raw.send(requests).await;

        for n in 0..REQUESTS {
            let answer = raw.answer().await.unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("x-request-id"), Some(&*format!("pipelined-{n}")));
        }

        steady.assert_untroubled("1,000 pipelined requests").await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_heard_by_whoever_has_said_all() {
    use tokio::io::AsyncWriteExt;

    TestApp::run(async |app| {
        let mut raw = Raw::connect(app.address).await;
        raw.send("nonsense\r\n\r\n").await;
        raw.stream.shutdown().await.unwrap();

        assert_only_problem(&raw.answers().await, 400, "malformed");
        Client::new(&format!("http://{}", app.address))
            .get("/.well-known/jwks.json")
            .await
            .assert_status(200);
    })
    .await;
}
