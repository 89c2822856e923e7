//! What goes wrong before anybody looks at the wish. The client asserts of every refusal that it is a
//! problem in our words, with its request's name.

use reqwest::Method;
use serde_json::json;

use crate::support::{
    KEY,
    app::TestApp,
    client::{Answer, checkout_body},
};

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    TestApp::run(async |app| {
        let guest = app.guest().await;

        for path in ["/", "/v1", "/v1/nothing", "/v2/orders", "/v1/orders/a/b/c", "//", "/v1/%ff"] {
            guest.get(path).await.assert_problem(404, "no-such-route");
        }
        guest.get("/v1/orders/%ff").await.assert_problem(400, "malformed");
    })
    .await;
}

#[tokio::test]
async fn a_method_that_is_not_known_there_is_a_problem_that_names_those_that_are() {
    TestApp::run(async |app| {
        let guest = app.guest().await;

        for (method, path, allowed) in [
            (Method::GET, "/v1/checkout", "POST"),
            (Method::DELETE, "/v1/orders", "GET"),
            (Method::PUT, "/v1/auth/login", "POST"),
            (Method::POST, "/v1/openapi.json", "GET"),
            (Method::POST, "/docs", "GET"),
        ] {
            let refusal = Answer::to(guest.request(method, path)).await;
            refusal.assert_problem(405, "method-not-allowed").assert_header("allow", allowed);
        }
    })
    .await;
}

#[tokio::test]
async fn an_id_that_is_none_is_a_problem() {
    TestApp::run(async |app| {
        let guest = app.guest().await;

        for id in ["1", "none", "00000000-0000-0000-0000-00000000000g", "%00", "..%2f"] {
            guest.get(&format!("/v1/orders/{id}")).await.assert_problem(422, "invalid-request");
            let path = format!("/v1/orders/{id}/cancel");
            Answer::to(guest.request(Method::POST, &path))
                .await
                .assert_problem(422, "invalid-request");
            app.anybody()
                .get(&format!("/v1/stock/{id}"))
                .await
                .assert_problem(422, "invalid-request");
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_of_another_kind_is_a_problem() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let body = checkout_body(&[(mug, 1)]).to_string();
        let before = app.books().await;

        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            let request = guest.request(Method::POST, "/v1/checkout").body(body.clone());
            let request = request.header("Idempotency-Key", KEY).header("Content-Type", kind);
            Answer::to(request).await.assert_problem(415, "unsupported-content-type");
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_no_json_is_a_problem() {
    TestApp::run(async |app| {
        let guest = app.guest().await;
        let before = app.books().await;

        for body in ["", "{", "nonsense", "{\"email\": }", "{}{}", "\u{feff}{}", "[1,2", "{'a': 1}"]
        {
            let request = guest.request(Method::POST, "/v1/checkout").body(body);
            let request =
                request.header("Idempotency-Key", KEY).header("Content-Type", "application/json");
            Answer::to(request).await.assert_problem(400, "malformed");
        }
        let bytes = b"{\"email\": \"\xff\xfe\"}".to_vec();
        let request = guest.request(Method::POST, "/v1/checkout").body(bytes);
        let request =
            request.header("Idempotency-Key", KEY).header("Content-Type", "application/json");
        Answer::to(request).await.assert_problem(400, "malformed");

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_request_keeps_the_name_it_came_with() {
    TestApp::run(async |app| {
        let named = |name: &str| {
            let request = app.anybody().request(Method::GET, "/v1/orders");
            Answer::to(request.header("X-Request-Id", name))
        };

        let kept = named("from-the-proxy_42").await;
        assert_eq!(kept.header("x-request-id"), Some("from-the-proxy_42"));

        for name in ["short", "with space in it", "quote\"quote\"", &"x".repeat(65)] {
            let renamed = named(name).await;
            let given = renamed.header("x-request-id").unwrap();
            assert_ne!(given, name);
            assert!(given.parse::<uuid::Uuid>().is_ok(), "{given}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_answer_is_hardened() {
    TestApp::run(async |app| {
        let guest = app.guest().await;

        for answer in [
            guest.orders().await,
            guest.get("/v1/nothing").await,
            guest.post("/v1/auth/login", &json!({})).await,
        ] {
            answer
                .assert_header("x-content-type-options", "nosniff")
                .assert_header("referrer-policy", "no-referrer")
                .assert_header("cache-control", "no-store");
            assert!(answer.header("content-security-policy").is_some());
        }
    })
    .await;
}
