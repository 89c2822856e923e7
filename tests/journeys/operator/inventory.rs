//! What is served, and where: nothing that the document does not tell of.

use serde_json::Value;
use tokio::process::Child;

use super::process::{bare, status};
use crate::support::{
    app::{GUEST_KEYS, KEYS, TestApp},
    client::{Answer, Client, until},
    ports::free_port,
};

/// A process with its two addresses: the one for everybody, and the one for operators.
async fn api(app: &TestApp) -> (Child, Client, Client) {
    let (health, listen) = (free_port(), free_port());
    let mut api = bare(env!("CARGO_BIN_EXE_api"));
    api.env("DATABASE_URL", &app.database_url)
        .env("REDIS_URL", "redis://127.0.0.1:1")
        .env("HEALTH_LISTEN", health.to_string())
        .env("LISTEN", listen.to_string())
        .env("TOKEN_KEYS", KEYS)
        .env("GUEST_TOKEN_KEYS", GUEST_KEYS);
    let api = api.spawn().unwrap();
    until("the process is ready", async || match status(health, "/readyz").await {
        Some(200) => Ok(()),
        status => Err(format!("{status:?}")),
    })
    .await;
    let client = |address| Client::new(&format!("http://{address}"));
    (api, client(listen), client(health))
}

#[tokio::test]
async fn inventory_metrics_and_health_are_not_on_the_public_address_nor_the_api_on_theirs() {
    TestApp::run(async |app| {
        let (_api, public, private) = api(app).await;

        for path in ["/metrics", "/livez", "/readyz"] {
            public.get(path).await.assert_problem(404, "no-such-route");
            let answer = private.request(reqwest::Method::GET, path).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
        }
        public.get("/v1/products").await.assert_status(200);
        for path in ["/v1/products", "/v1/openapi.json", "/docs"] {
            let answer = private.request(reqwest::Method::GET, path).send().await.unwrap();
            assert_eq!(answer.status(), 404, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn inventory_what_is_served_is_what_the_document_tells_of() {
    TestApp::run(async |app| {
        let anybody = app.anybody();
        let document: Value = anybody.get("/v1/openapi.json").await.json();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 20, "the document is whole");

        for (path, operations) in paths {
            assert!(path.starts_with("/v1/"), "{path} has no version");
            let known = operations.as_object().unwrap();
            let asked = path.replace(['{', '}'], "");
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let request = anybody.request(method.parse().unwrap(), &asked);
                let answer = Answer::to(request).await;
                let code = if answer.status < 400 {
                    String::new()
                } else {
                    answer.at("/code").as_str().unwrap().to_owned()
                };
                assert_ne!(code, "no-such-route", "{method} {path}");
                let is_known = known.contains_key(&method.to_lowercase());
                assert_eq!(answer.status != 405, is_known, "{method} {path}: {}", answer.status);
            }
        }
        for path in
            ["/", "/admin", "/debug", "/health", "/v1", "/v2/products", "/products", "/.env"]
        {
            anybody.get(path).await.assert_problem(404, "no-such-route");
        }
    })
    .await;
}
