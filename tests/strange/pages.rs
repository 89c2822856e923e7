//! Pages in browsers: the shop's own, and those of others.

use std::time::Duration;

use holdfast::{config, web::server::Limits};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::{
    raw::exchange,
    support::{
        app::{ORIGIN, PASSWORD, TestApp},
        client::{Answer, Client},
    },
};

/// What pages of others look like to a browser.
const FOREIGN: [&str; 8] = [
    "https://evil.example",
    "http://shop.example",
    "https://shop.example:8443",
    "https://shop.example.evil.example",
    "https://evil-shop.example",
    "https://sub.shop.example",
    "https://SHOP.example",
    "null",
];

fn preflight(client: &Client, path: &str, origin: &str, method: &str) -> RequestBuilder {
    client
        .request(Method::OPTIONS, path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
        .header("Access-Control-Request-Headers", "authorization, content-type")
}

/// The names in a list, in small letters and in order.
fn names(list: Option<&str>) -> Vec<String> {
    let names = list.unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[tokio::test]
async fn cors_a_preflight_tells_the_shops_pages_what_each_route_takes() {
    TestApp::run(async |app| {
        let anybody = app.anybody();
        let id = uuid::Uuid::now_v7();
        let order = format!("/v1/orders/{id}");
        for (path, method, methods, takes_key, takes_cookies) in [
            ("/v1/products", "GET", vec!["get", "post"], false, false),
            ("/v1/products", "HEAD", vec!["get", "post"], false, false),
            ("/v1/products", "POST", vec!["get", "post"], false, false),
            ("/v1/checkout", "POST", vec!["post"], true, false),
            (&order, "GET", vec!["get"], false, false),
            ("/v1/auth/login", "POST", vec!["post"], false, true),
            ("/v1/auth/refresh", "POST", vec!["post"], false, true),
            ("/v1/auth/logout", "POST", vec!["post"], false, true),
        ] {
            let answer = Answer::to(preflight(&anybody, path, ORIGIN, method)).await;

            answer
                .assert_status(204)
                .assert_header("access-control-allow-origin", ORIGIN)
                .assert_header("access-control-max-age", "7200")
                .assert_header("access-control-allow-credentials", takes_cookies.then_some("true"));
            assert_eq!(names(answer.header("access-control-allow-methods")), methods, "{path}");
            let fields = names(answer.header("access-control-allow-headers"));
            for field in ["authorization", "content-type", "if-none-match", "x-request-id"] {
                assert!(fields.iter().any(|known| known == field), "{path}: {fields:?}");
            }
            let key = fields.iter().any(|known| known == "idempotency-key");
            assert_eq!(key, takes_key, "{path}: {fields:?}");
            let vary = names(answer.header("vary"));
            let asked =
                ["access-control-request-headers", "access-control-request-method", "origin"];
            assert_eq!(vary, asked, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn cors_a_preflight_tells_foreign_pages_nothing() {
    TestApp::run(async |app| {
        let anybody = app.anybody();
        for origin in FOREIGN {
            for path in ["/v1/products", "/v1/checkout", "/v1/auth/refresh"] {
                let refusal = Answer::to(preflight(&anybody, path, origin, "POST")).await;
                refusal.assert_problem(403, "foreign-origin");
                assert_closed_to_pages(&refusal);
            }
        }

        let nowhere = Answer::to(preflight(&anybody, "/v1/nowhere", ORIGIN, "GET")).await;
        nowhere.assert_problem(404, "no-such-route");
        let never = Answer::to(preflight(&anybody, "/v1/checkout", ORIGIN, "DELETE")).await;
        never.assert_problem(405, "method-not-allowed");
    })
    .await;
}

#[track_caller]
fn assert_closed_to_pages(answer: &Answer) {
    for name in [
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-allow-methods",
        "access-control-allow-headers",
        "access-control-expose-headers",
    ] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn cors_only_the_shops_pages_may_read_answers_and_never_all_pages_with_credentials() {
    TestApp::run(async |app| {
        let guest = app.guest().await;
        for path in ["/v1/products", "/v1/orders", "/v1/nowhere", "/v1/auth/me", "/v1/openapi.json"]
        {
            let from = |origin: &str| {
                Answer::to(guest.request(Method::GET, path).header("Origin", origin))
            };

            let ours = from(ORIGIN).await;
            ours.assert_header("access-control-allow-origin", ORIGIN);
            let exposed = names(ours.header("access-control-expose-headers"));
            for name in
                ["etag", "idempotency-replayed", "link", "ratelimit", "retry-after", "x-request-id"]
            {
                assert!(exposed.iter().any(|known| known == name), "{path}: {exposed:?}");
            }
            let with_credentials = path.starts_with("/v1/auth/").then_some("true");
            ours.assert_header("access-control-allow-credentials", with_credentials);

            for answer in
                [guest.get(path).await, from("https://evil.example").await, from("null").await]
            {
                assert_eq!(answer.status, ours.status, "{path}");
                assert_closed_to_pages(&answer);
                // Nobody on the way may give it to the shop's pages, nor theirs to others.
                assert!(names(answer.header("vary")).iter().any(|name| name == "origin"), "{path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn cors_without_a_list_no_other_origin_may_call() {
    TestApp::run(async |app| {
        let api =
            app.another_api_with(app.cx.clone(), |settings| settings.allowed_origins.clear()).await;

        let refusal = Answer::to(preflight(&api, "/v1/products", ORIGIN, "GET")).await;
        refusal.assert_problem(403, "foreign-origin");
        let read =
            Answer::to(api.request(Method::GET, "/v1/products").header("Origin", ORIGIN)).await;
        read.assert_status(200);
        assert_closed_to_pages(&read);
    })
    .await;
}

/// A customer's cookie, as a browser would send it.
async fn cookie(app: &TestApp, email: &str) -> String {
    let credentials = json!({ "email": email, "password": PASSWORD });
    let login = app.anybody().post("/v1/auth/login", &credentials).await;
    login.assert_status(200);
    let cookie = login.header("set-cookie").unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

async fn customer(app: &TestApp) -> String {
    let customer = app.customer().await;
    let me = customer.get("/v1/auth/me").await;
    me.at("/email").as_str().unwrap().to_owned()
}

#[tokio::test]
async fn csrf_a_foreign_page_can_neither_refresh_nor_log_out_with_the_shops_cookie() {
    TestApp::run(async |app| {
        let email = customer(app).await;
        let cookie = cookie(app, &email).await;
        let post = |path: &str, fields: &[(&str, &str)]| {
            let mut request = app.anybody().request(Method::POST, path).header("Cookie", &cookie);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            Answer::to(request)
        };
        for path in ["/v1/auth/refresh", "/v1/auth/logout"] {
            for origin in FOREIGN {
                let refusal = post(path, &[("Origin", origin)]).await;
                refusal.assert_problem(403, "foreign-origin");
                assert_closed_to_pages(&refusal);
                assert_eq!(refusal.header("set-cookie"), None, "{path} {origin}");
            }
            for site in ["cross-site", "same-site"] {
                post(path, &[("Sec-Fetch-Site", site)]).await.assert_problem(403, "foreign-origin");
            }
            // Whatever else the page can have the browser send.
            let form = [("Origin", "https://evil.example"), ("Content-Type", "text/plain")];
            post(path, &form).await.assert_problem(403, "foreign-origin");
        }

        // None of that has used the token up, nor ended its session.
        post("/v1/auth/refresh", &[("Origin", ORIGIN)]).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn csrf_the_shops_own_pages_and_programs_may_refresh_and_log_out() {
    TestApp::run(async |app| {
        let email = customer(app).await;
        let host = app.address.to_string();
        let here = format!("http://{host}");
        for fields in [
            vec![],
            vec![("Origin", ORIGIN)],
            vec![("Origin", ORIGIN), ("Sec-Fetch-Site", "same-site")],
            vec![("Origin", &*here), ("Sec-Fetch-Site", "same-origin")],
            vec![("Sec-Fetch-Site", "same-origin")],
            vec![("Sec-Fetch-Site", "none")],
        ] {
            for path in ["/v1/auth/refresh", "/v1/auth/logout"] {
                let cookie = cookie(app, &email).await;
                let mut request =
                    app.anybody().request(Method::POST, path).header("Cookie", cookie);
                for (name, value) in &fields {
                    request = request.header(*name, *value);
                }
                let answer = Answer::to(request).await;
                assert!(
                    answer.status < 300,
                    "{path} {fields:?}: {} {}",
                    answer.status,
                    answer.body
                );
            }
        }
    })
    .await;
}

/// How an answer may be kept, and whether clients speak HTTPS to the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Own,
    Public,
    Secure,
}

#[track_caller]
fn assert_hardened<'a>(class: Class, name: &str, header: impl Fn(&str) -> Option<&'a str>) {
    const API_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
    assert_eq!(header("x-content-type-options"), Some("nosniff"), "{name}");
    assert_eq!(header("referrer-policy"), Some("no-referrer"), "{name}");
    assert_eq!(header("cross-origin-resource-policy"), Some("same-origin"), "{name}");
    let policy = header("content-security-policy").unwrap();
    assert!(policy == API_POLICY || name == "page", "{name}: {policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{name}: {policy}");
    let kept = header("cache-control").unwrap();
    let is_public = class == Class::Public && kept.starts_with("public");
    assert!(kept == "no-store" || is_public, "{name}: {kept}");
    let https = (class == Class::Secure).then_some("max-age=31536000");
    assert_eq!(header("strict-transport-security"), https, "{name}");
    for told in ["server", "x-powered-by", "via"] {
        assert_eq!(header(told), None, "{name}: {told}");
    }
    assert!(header("x-request-id").is_some(), "{name}");
}

fn as_it_is(_: &mut config::Api) {}

fn in_production(settings: &mut config::Api) {
    settings.common.environment = config::Environment::Production;
}

#[tokio::test]
async fn every_class_of_answer_has_its_security_headers() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let customer = app.customer().await;
        let order = guest.order_for(&[(mug, 1)]).await;
        let production = app.another_api_with(app.cx.clone(), in_production).await;
        for (class, name, answer) in [
            (Class::Public, "catalogue", guest.get("/v1/products").await),
            (Class::Own, "own order", guest.order(order).await),
            (Class::Own, "own orders", guest.orders().await),
            (Class::Own, "account", customer.get("/v1/auth/me").await),
            (Class::Own, "login refused", guest.post("/v1/auth/login", &json!({})).await),
            (Class::Own, "guest", app.anybody().post("/v1/auth/guest", &json!(null)).await),
            (Class::Own, "not found", guest.get("/v1/nowhere").await),
            (Class::Own, "not allowed", guest.get("/v1/checkout").await),
            (Class::Own, "no token", app.anybody().orders().await),
            (Class::Own, "document", guest.get("/v1/openapi.json").await),
            (Class::Own, "page", guest.get("/docs").await),
            (Class::Public, "keys", guest.get("/.well-known/jwks.json").await),
            (Class::Secure, "over HTTPS", production.get("/v1/orders").await),
        ] {
            println!("{name}: {} {:?}", answer.status, answer.headers);
            assert_hardened(class, name, |header| answer.header(header));
        }
    })
    .await;
}

#[tokio::test]
async fn what_never_became_a_request_is_answered_with_the_security_headers_too() {
    TestApp::run(async |app| {
        let long = "a".repeat(40 * 1024);
        for (status, bytes) in [
            (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
            (408, "GET / HTTP/1.1\r\nHost: sh".to_owned()),
            (414, format!("GET /{} HTTP/1.1\r\nHost: shop\r\n\r\n", &long[..10 * 1024])),
            (431, format!("GET / HTTP/1.1\r\nHost: shop\r\nA: {long}\r\n\r\n")),
        ] {
            let head = if status == 408 { Duration::from_secs(1) } else { Limits::default().head };
            let places = [(Class::Own, as_it_is as fn(&mut _)), (Class::Secure, in_production)];
            for (class, change) in places {
                let limits = Limits { head, ..Limits::default() };
                let address = app.open(app.cx.clone(), change, limits).await;
                let answers = exchange(address, &bytes).await;
                let [answer] = &*answers else { panic!("{status}: {answers:?}") };
                assert_eq!(answer.status, status);
                assert_hardened(class, &status.to_string(), |header| answer.header(header));
            }
        }
    })
    .await;
}
