//! The whole API under requests that are generated from its description, good ones and bad ones, of
//! those who may nothing, something and everything: no answer is a failure of ours, none differs from
//! the description, and none tells more than it should; afterwards the books are in order.
//!
//! `./dev fuzz 500` asks 500 times per operation.

use std::{process::Stdio, time::Duration};

use holdfast::{config::HOLD_DEFAULT, identity::Role};
use serde_json::json;
use tokio::process::Command;

use crate::support::{
    app::TestApp,
    client::{Client, LIBRARY_WORDS},
};

/// Which Python to run: one that has what `requirements.txt` asks for.
const INTERPRETER: &str = "FUZZ_PYTHON";

/// How many requests are made up for each operation.
const EXAMPLES: &str = "FUZZ_EXAMPLES";
const EXAMPLES_DEFAULT: &str = "8";

/// Whoever asks one of these has no valid token afterwards.
const LAST: [&str; 5] = ["logOut", "logOutEverywhere", "endSession", "changePassword", "eraseMe"];

/// Asks every operation but those as the caller.
async fn fuzz(app: &TestApp, caller: &Client, without: &[&str]) {
    let Some(python) = variable(INTERPRETER) else {
        panic!("{INTERPRETER} names no Python with schemathesis; run ./dev test or ./dev fuzz");
    };
    let mug = app.product_with_stock(1_000).await;
    let buyer = if caller.id.is_some() { caller.clone() } else { app.guest().await };
    let order = buyer.order_for(&[(mug, 1)]).await;
    let ids = json!({
        "variant": mug.id,
        "paths": { "/v1/orders/": order, "/v1/admin/orders/": order, "/v1/stock/": mug.id },
    });
    let examples = variable(EXAMPLES).unwrap_or_else(|| EXAMPLES_DEFAULT.to_owned());
    let mut command = Command::new(python);
    command
        // One at a time: two threads of CPython 3.11 that parse at once fail now and then with "AST
        // constructor recursion depth mismatch", which is no fault of ours.
        .args(["-m", "schemathesis.cli", "run", "--no-color", "--workers", "1"])
        .args(["--phases", "examples,coverage,fuzzing", "--checks", "all"])
        // What is right for one shop at one time (in stock, mine, not yet paid) is wrong at another:
        // whether a request that fits the description succeeds cannot be told from it.
        .args(["--exclude-checks", "positive_data_acceptance,ignored_auth"])
        .args(["--max-examples", &examples, "--seed", "1", "--generation-database", "none"])
        .args(["--no-shrink", "--continue-on-failure"])
        .args(["--suppress-health-check", "all", "--warnings", "off", "--request-timeout", "30"]);
    if caller.id.is_some() {
        command.args(["-H", &format!("Authorization: Bearer {}", caller.token())]);
    }
    for operation in without {
        command.args(["--exclude-operation-id", operation]);
    }
    let output = command
        .arg(caller.url("/v1/openapi.json"))
        .current_dir("tests/journeys/generated")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", ".")
        .env("FUZZ_IDS", ids.to_string())
        .env("FUZZ_FORBIDDEN", json!(LIBRARY_WORDS).to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();

    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    app.expect_unfinished_jobs();
}

#[expect(clippy::disallowed_methods, reason = "./dev says where Python is, and how long to look")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Gives the caller a shop and lets them ask, for as long as that many requests take.
async fn journey(who: impl AsyncFnOnce(&TestApp) -> Client, without: &[&str]) {
    const TIME_MAX: Duration = Duration::from_hours(4);
    TestApp::run_within(TIME_MAX, HOLD_DEFAULT, async |app| {
        let caller = who(app).await;
        fuzz(app, &caller, without).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_token_finds_no_fault() {
    journey(async |app| app.anybody(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_finds_no_fault() {
    journey(async |app| app.customer().await, &LAST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_finds_no_fault() {
    journey(async |app| app.somebody(Role::Admin).await, &LAST).await;
}
