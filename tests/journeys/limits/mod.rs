//! Clients who ask too often, and those who must not suffer from them.

mod classes;
mod gate;
mod mails;
mod overload;
mod stuffing;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::support::{
    app::{NO_LIMITS, TestApp},
    client::{Answer, Client},
};

impl TestApp {
    /// Another API process behind one proxy, with no limits but these.
    async fn limited(&self, limits: &str) -> Client {
        self.another_api_with(self.cx.clone(), |settings| {
            settings.limits = format!("{NO_LIMITS},{limits}").parse().unwrap();
            settings.trusted_proxies = 1;
        })
        .await
    }
}

/// A request that the proxy has from this address.
fn from(address: &str, client: &Client, method: Method, path: &str) -> RequestBuilder {
    client.request(method, path).header("X-Forwarded-For", address)
}

fn login(client: &Client, address: &str, email: &str, password: &str) -> RequestBuilder {
    from(address, client, Method::POST, "/v1/auth/login")
        .json(&json!({ "email": email, "password": password }))
}

async fn log_in(client: &Client, address: &str, email: &str, password: &str) -> Answer {
    Answer::to(login(client, address, email, password)).await
}

/// An address of its own for every number.
fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255)
}

/// How many of the answers have the status.
fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}
