//! Whoever has mails sent, or takes all that is kept of them.

use futures_util::future::join_all;
use holdfast::identity::Role;
use reqwest::Method;
use serde_json::json;

use super::{address, count, from};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client},
};

const OWNER: &str = "ada@example.com";
const HOME: &str = "192.0.2.1";

impl TestApp {
    /// Another API process behind one proxy, with the limits of a shop that has not said otherwise.
    async fn limited_as_usual(&self) -> Client {
        self.another_api_with(self.cx.clone(), |settings| {
            settings.limits = "".parse().unwrap();
            settings.trusted_proxies = 1;
        })
        .await
    }
}

async fn forget_password(api: &Client, address: &str) -> Answer {
    let request = from(address, api, Method::POST, "/v1/auth/forgot-password");
    Answer::to(request.json(&json!({ "email": OWNER }))).await
}

#[tokio::test]
async fn strangers_everywhere_do_not_keep_the_owners_mail_from_being_asked_for() {
    TestApp::run(async |app| {
        let api = app.limited_as_usual().await;
        let addresses: Vec<_> = (0..40).map(address).collect();

        let strangers = join_all(addresses.iter().map(|it| forget_password(&api, it))).await;

        assert_eq!(count(&strangers, 429), 0);
        for _ in 0..3 {
            forget_password(&api, HOME).await.assert_status(202);
        }
        forget_password(&api, HOME).await.assert_problem(429, "too-often");
    })
    .await;
}

#[tokio::test]
async fn an_account_is_exported_a_few_times_an_hour_from_wherever() {
    TestApp::run(async |app| {
        let api = app.limited_as_usual().await;
        app.user(OWNER, Role::Customer).await;
        app.user("bob@example.com", Role::Customer).await;
        let (ada, bob) =
            (app.log_in(OWNER, PASSWORD).await, app.log_in("bob@example.com", PASSWORD).await);
        let export = async |who: &Client, number: usize| {
            let who = api.with_token(who.token(), None);
            let address = address(number);
            Answer::to(from(&address, &who, Method::GET, "/v1/auth/me/export")).await
        };

        for number in 0..3 {
            export(&ada, number).await.assert_status(200);
        }

        let refused = export(&ada, 3).await;
        refused.assert_problem(429, "too-often");
        assert!(refused.header("ratelimit").is_some_and(|it| it.starts_with("\"export\";r=0")));
        export(&bob, 3).await.assert_status(200);
    })
    .await;
}
