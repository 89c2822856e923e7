//! Accounts: how people open one, win it back, change it and give it up; and what strangers learn of it.

mod address;
mod email;
mod enumeration;
mod erase;
mod export;
mod guest;
mod password;
mod register;
mod reset;

pub(crate) use email::move_to;
pub(crate) use erase::erase;

use std::sync::Arc;

use serde_json::{Value, json};
use simulator::inbox::Mail;

use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client},
};

/// Whom most of these journeys are about.
const ADA: &str = "ada@example.com";

/// Where a token stands in a mail's text.
const TOKEN: &str = "#token=";

impl TestApp {
    /// The mails to the address so far, once everything due is done.
    async fn mails_to(&self, email: &str) -> Vec<Arc<Mail>> {
        self.settle().await;
        let mails = self.inbox.mails();
        mails.into_iter().filter(|mail| mail.to == [email]).collect()
    }

    /// The token in the last mail to the address that has one.
    async fn token_for(&self, email: &str) -> String {
        let mails = self.mails_to(email).await;
        let token = mails.iter().rev().find_map(|mail| token_in(&mail.text));
        token.unwrap_or_else(|| panic!("no mail with a token came to {email}"))
    }

    async fn register(&self, email: &str, password: &str) -> Answer {
        let body = json!({ "email": email, "password": password });
        self.anybody().post("/v1/auth/register", &body).await
    }

    async fn verify(&self, token: &str, password: &str) -> Answer {
        let body = json!({ "token": token, "password": password });
        self.anybody().post("/v1/auth/verify-email", &body).await
    }

    /// Registers, reads the mail and opens the account.
    async fn open_account(&self, email: &str) -> Client {
        self.register(email, PASSWORD).await.assert_status(202);
        let token = self.token_for(email).await;
        let opened = self.verify(&token, PASSWORD).await;
        opened.assert_status(201);
        self.logged_in(&opened)
    }

    /// Whoever was given the answer to a login.
    fn logged_in(&self, answer: &Answer) -> Client {
        let (token, id) = (text(&answer.at("/access_token")), text(&answer.at("/user_id")));
        self.anybody().with_token(&token, id.parse::<uuid::Uuid>().unwrap())
    }

    async fn forget_password(&self, email: &str) -> Answer {
        self.anybody().post("/v1/auth/forgot-password", &json!({ "email": email })).await
    }

    async fn reset_password(&self, token: &str, new_password: &str) -> Answer {
        let body = json!({ "token": token, "new_password": new_password });
        self.anybody().post("/v1/auth/reset-password", &body).await
    }

    async fn try_login(&self, email: &str, password: &str) -> Answer {
        let body = json!({ "email": email, "password": password });
        self.anybody().post("/v1/auth/login", &body).await
    }
}

fn token_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(TOKEN)?;
    Some(rest.split_whitespace().next()?.to_owned())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The mails' templates, which their Message-IDs begin with.
fn templates(mails: &[Arc<Mail>]) -> Vec<&str> {
    mails.iter().map(|mail| mail.message_id.split('.').next().unwrap()).collect()
}
