//! Sessions: opened by a login, carried on by refresh tokens, ended by many.

mod end;
mod forged;
mod refresh;
mod rotation;
mod standing;

use holdfast::{
    identity::{self, Hasher, Password, Role},
    kernel::EmailAddress,
};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    app::{PASSWORD, TestApp},
    client::{Answer, Client},
};

const EMAIL: &str = "ada@example.com";
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// What a browser holds after a login or a refresh.
#[derive(Debug, Clone)]
struct Held {
    access_token: String,
    refresh_token: String,
}

impl Held {
    #[track_caller]
    fn from(answer: &Answer) -> Self {
        answer.assert_status(200).assert_header("cache-control", "no-store");
        let access_token = answer.at("/access_token").as_str().unwrap().to_owned();
        Self { access_token, refresh_token: cookie(answer).unwrap() }
    }

    /// Somebody who shows the access token to that process.
    fn at(&self, api: &Client) -> Client {
        api.with_token(&self.access_token, None)
    }

    async fn refresh_at(&self, api: &Client) -> Answer {
        refresh(api, &self.refresh_token).await
    }
}

/// The refresh token that the answer hands out; empty if it takes it away.
fn cookie(answer: &Answer) -> Option<String> {
    let cookie = answer.header("set-cookie")?.strip_prefix("__Secure-refresh=")?;
    Some(cookie.split(';').next().unwrap().to_owned())
}

async fn refresh(api: &Client, refresh_token: &str) -> Answer {
    with_cookie(api, Method::POST, "/v1/auth/refresh", refresh_token).await
}

async fn with_cookie(api: &Client, method: Method, path: &str, refresh_token: &str) -> Answer {
    let cookie = format!("theme=dark; __Secure-refresh={refresh_token}");
    Answer::to(api.request(method, path).header("cookie", cookie)).await
}

async fn me(client: &Client) -> Answer {
    client.get("/v1/auth/me").await
}

async fn user(app: &TestApp, email: &str) -> Uuid {
    let address = EmailAddress::parse(email).unwrap();
    let password = Password::parse(PASSWORD).unwrap();
    let hasher = Hasher::new(1);
    let user = identity::create_user(&app.db, &hasher, address, password, Role::Customer).await;
    user.unwrap().id.uuid()
}

async fn log_in_answer(app: &TestApp, email: &str) -> Answer {
    let credentials = json!({ "email": email, "password": PASSWORD });
    let request = app.anybody().request(Method::POST, "/v1/auth/login").json(&credentials);
    Answer::to(request.header("user-agent", BROWSER)).await
}

async fn log_in(app: &TestApp, email: &str) -> Held {
    Held::from(&log_in_answer(app, email).await)
}

/// Lets the refresh tokens that were used be used that much longer ago.
async fn age_uses(app: &TestApp, seconds: i32) {
    sqlx::query("UPDATE refresh_tokens SET used_at = used_at - make_interval(secs => $1)")
        .bind(f64::from(seconds))
        .execute(&app.db)
        .await
        .unwrap();
}
