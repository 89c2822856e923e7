//! Whoever has mails sent, or takes all that is kept of them.

use futures_util::future::join_all;
use holdfast::identity::Role;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::{address, count, from};
use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client, checkout_body},
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

async fn register(api: &Client, address: &str, number: usize) -> Answer {
    let request = from(address, api, Method::POST, "/v1/auth/register");
    let email = format!("shopper-{number}@example.com");
    Answer::to(request.json(&json!({ "email": email, "password": PASSWORD }))).await
}

#[tokio::test]
async fn business_flow_abuse_one_address_has_few_mails_sent_to_many() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(2).await;
        let api = app.limited_as_usual().await;
        let guest = app.guest().await;
        let guest = api.with_token(guest.token(), guest.id);

        let mut asked = 0;
        let refused = loop {
            let answer = register(&api, HOME, asked).await;
            if answer.status != 202 {
                break answer;
            }
            asked += 1;
        };

        // One more each minute that they took.
        assert!((30..=32).contains(&asked), "{asked}");
        refused.assert_problem(429, "too-often");
        assert_eq!(refused.header("ratelimit-policy"), Some("\"mail-address\";q=30;w=1800"));
        // However the mail is asked for, and whomever it is for.
        forget_password(&api, HOME).await.assert_problem(429, "too-often");
        let nobody = from(HOME, &api, Method::POST, "/v1/auth/register").json(&json!({}));
        Answer::to(nobody).await.assert_problem(429, "too-often");
        // Others are served, and there, too, what needs no mail.
        register(&api, "192.0.2.2", asked).await.assert_status(202);
        let order = checkout_body(&[(mug, 1)]);
        let order = guest.checkout(&Uuid::now_v7().to_string(), &order);
        Answer::to(order.header("X-Forwarded-For", HOME)).await.assert_status(201);
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
