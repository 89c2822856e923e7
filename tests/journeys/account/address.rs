//! The addresses that a user keeps.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    app::TestApp,
    client::{Answer, Client},
};

const PATH: &str = "/v1/auth/me/addresses";

pub(super) fn new(line1: &str) -> Value {
    json!({ "address": { "name": "Ada", "line1": line1, "city": "Pune", "country": "IN" } })
}

async fn keep(client: &Client, line1: &str) -> Answer {
    client.post(PATH, &new(line1)).await
}

/// Each address by its first line, and whether it is the default.
async fn kept(client: &Client) -> Vec<(String, bool)> {
    let all = client.get(PATH).await;
    let all = all.at("/addresses");
    let shown =
        |one: &Value| (super::text(&one["address"]["line1"]), one["is_default"].as_bool().unwrap());
    all.as_array().unwrap().iter().map(shown).collect()
}

#[tokio::test]
async fn a_user_keeps_changes_and_forgets_addresses_one_of_which_is_the_default() {
    TestApp::run(async |app| {
        let ada = app.customer().await;
        let first = keep(&ada, "1 Road").await;
        first.assert_status(201);
        let location = first.header("location").unwrap().to_owned();
        let mut second = new("2 Road");
        second["is_default"] = json!(true);
        ada.post(PATH, &second).await.assert_status(201);
        assert_eq!(kept(&ada).await, [("1 Road".to_owned(), false), ("2 Road".to_owned(), true)]);

        let mut changed = new("11 Road");
        changed["is_default"] = json!(true);
        let put = Answer::to(ada.request(Method::PUT, &location).json(&changed)).await;
        assert_eq!(put.at("/id"), first.at("/id"));
        assert_eq!(kept(&ada).await, [("11 Road".to_owned(), true), ("2 Road".to_owned(), false)]);
        assert_eq!(ada.get(&location).await.at("/address/line1"), "11 Road");

        Answer::to(ada.request(Method::DELETE, &location)).await.assert_status(204);
        ada.get(&location).await.assert_problem(404, "address-not-found");
        assert_eq!(kept(&ada).await, [("2 Road".to_owned(), false)]);
    })
    .await;
}

#[tokio::test]
async fn an_account_keeps_fifty_addresses_however_many_ask_at_once() {
    TestApp::run(async |app| {
        let ada = app.customer().await;
        for number in 0..45 {
            keep(&ada, &format!("{number} Road")).await.assert_status(201);
        }

        let answers = join_all((0..10).map(|_| keep(&ada, "one more"))).await;

        let taken = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(taken, 5);
        for refusal in answers.iter().filter(|answer| answer.status != 201) {
            refusal.assert_problem(409, "too-many-addresses");
        }
        assert_eq!(kept(&ada).await.len(), 50);
        assert_eq!(app.count("addresses WHERE is_default").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_all_that_is_wrong() {
    TestApp::run(async |app| {
        let ada = app.customer().await;
        let mut bad = new("1\nRoad");
        bad["address"]["country"] = json!("in");

        let refusal = ada.post(PATH, &bad).await;

        refusal.assert_problem(422, "invalid-request").assert_errors(&[
            ("/address/line1", "invalid-text"),
            ("/address/country", "unknown-country"),
        ]);
        assert_eq!(app.count("addresses").await, 0);
    })
    .await;
}
