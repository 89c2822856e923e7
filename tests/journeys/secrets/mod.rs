//! What is secret stays so. Real processes whose every secret is a text that is found nowhere else do all
//! that a shop does, well and badly; then everything that somebody may read is searched for those texts.

mod look;
mod shop;

use holdfast::{
    identity::{self, Hasher, Password, Role},
    kernel::EmailAddress,
};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::Provider;
use uuid::Uuid;

use self::shop::Shop;
use crate::support::{
    app::TestApp,
    client::{Answer, Client, checkout_body, until},
    ports::free_port,
    shop::Variant,
};

/// Numbers as cards have them.
const CARDS: [&str; 2] = ["4000001234567899", "5555 5500 1234 5678"];

const EMAIL: &str = "marked.address@example.com";

#[tokio::test]
async fn secret_leakage_no_log_error_metric_job_or_key_in_redis_shows_a_marked_secret() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let mug = app.product_with_stock(9).await;
        let mut shop = Shop::open(app).await;
        for card in CARDS {
            shop.secrets.note("card number", card);
        }

        log_in_well_and_badly(&mut shop).await;
        win_accounts(&mut shop).await;
        present_false_tokens(&mut shop).await;
        for provider in [Provider::Stripe, Provider::Razorpay] {
            pay(&mut shop, mug, provider).await;
            forge(&mut shop, provider).await;
        }
        write_cards_everywhere(&mut shop, mug).await;
        break_the_database(&mut shop, mug).await;
        give_processes_wrong_passwords(&mut shop).await;

        shop.look_everywhere().await;
        shop.close();
    })
    .await;
}

/// Notes what an answer that succeeded gave its caller alone.
fn note_tokens(shop: &mut Shop<'_>, answer: &Answer) {
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    for field in ["access_token", "refresh_token", "token"] {
        if let Some(token) = body[field].as_str() {
            shop.secrets.note(field, token);
            // Nor may the part that makes it valid.
            shop.secrets.note(field, token.rsplit('.').next().unwrap());
        }
    }
    for cookie in answer.headers.get_all("set-cookie") {
        let value = cookie.to_str().unwrap().split([';', '=']).nth(1).unwrap();
        if !value.is_empty() {
            shop.secrets.note("cookie", value);
        }
    }
}

async fn log_in_well_and_badly(shop: &mut Shop<'_>) {
    let password = shop.secrets.make("password");
    let email = EmailAddress::parse(EMAIL).unwrap();
    let parsed = Password::parse(&password).unwrap();
    let db = &shop.app.db;
    identity::create_user(db, &Hasher::new(1), email, parsed, Role::Customer).await.unwrap();

    let good = json!({ "email": EMAIL, "password": password });
    let answer = shop.ask(shop.api.request(Method::POST, "/v1/auth/login").json(&good)).await;
    answer.assert_status(200);
    note_tokens(shop, &answer);

    let wrong = shop.secrets.make("wrong password");
    for email in [EMAIL, "nobody@example.com", "no address"] {
        let bad = json!({ "email": email, "password": wrong });
        let answer = shop.ask(shop.api.request(Method::POST, "/v1/auth/login").json(&bad)).await;
        assert!(matches!(answer.status, 401 | 422), "{}", answer.body);
    }
    // A body that breaks off, and fields that nobody asked for.
    let broken = format!("{{\"email\":\"{EMAIL}\",\"password\":\"{wrong}");
    let extra = json!({ "email": EMAIL, "password": "x", "secret": wrong }).to_string();
    for body in [broken, extra] {
        let request = shop.api.request(Method::POST, "/v1/auth/login").body(body);
        let answer = shop.ask(request.header("content-type", "application/json")).await;
        assert!(matches!(answer.status, 400 | 422), "{}", answer.body);
    }
}

/// Registers, loses the password and gets another one, by the tokens of mails.
async fn win_accounts(shop: &mut Shop<'_>) {
    const NEW: &str = "marked.newcomer@example.com";
    let password = shop.secrets.make("new password");
    let credentials = json!({ "email": NEW, "password": password });
    let register = shop.api.request(Method::POST, "/v1/auth/register").json(&credentials);
    shop.ask(register).await.assert_status(202);
    let token = mailed_token(shop, NEW).await;
    let wrong = json!({ "token": token, "password": shop.secrets.make("not the password") });
    shop.ask(shop.api.request(Method::POST, "/v1/auth/verify-email").json(&wrong)).await;
    let right = json!({ "token": token, "password": password });
    let verify = shop.api.request(Method::POST, "/v1/auth/verify-email").json(&right);
    let answer = shop.ask(verify).await;
    assert!(answer.status < 300, "{}", answer.body);
    note_tokens(shop, &answer);

    let forgot = json!({ "email": EMAIL });
    let forgot = shop.api.request(Method::POST, "/v1/auth/forgot-password").json(&forgot);
    shop.ask(forgot).await.assert_status(202);
    let token = mailed_token(shop, EMAIL).await;
    let reset = json!({ "token": token, "new_password": shop.secrets.make("reset password") });
    for _ in ["good", "used"] {
        shop.ask(shop.api.request(Method::POST, "/v1/auth/reset-password").json(&reset)).await;
    }
}

/// The token in the first mail to the address that has one.
async fn mailed_token(shop: &mut Shop<'_>, address: &str) -> String {
    let inbox = &shop.app.inbox;
    let token = until("a mail with a token comes", async || {
        let mails = inbox.mails();
        let mut to_address = mails.iter().filter(|mail| mail.to.iter().any(|to| to == address));
        let token = to_address.find_map(|mail| {
            let is_part = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_');
            let mut words = mail.text.split(|sign| !is_part(sign));
            words.find(|word| word.len() == 43).map(str::to_owned)
        });
        token.ok_or_else(|| format!("{} mails", mails.len()))
    })
    .await;
    shop.secrets.note("mailed token", &token);
    token
}

async fn present_false_tokens(shop: &mut Shop<'_>) {
    let token = shop.secrets.make("bearer token");
    let cookie = shop.secrets.make("cookie");
    let jwt = format!("eyJhbGciOiJFZERTQSIsImtpZCI6Im1hcmtlZCJ9.eyJzdWIiOiJ4In0.{token}");
    for token in [token, jwt] {
        let caller = shop.api.with_token(&token, None);
        shop.ask(caller.request(Method::GET, "/v1/orders")).await.assert_status(401);
    }
    for path in ["/v1/auth/refresh", "/v1/auth/logout"] {
        let request = shop.api.request(Method::POST, path);
        shop.ask(request.header("cookie", format!("__Secure-refresh={cookie}"))).await;
    }
}

async fn guest(shop: &mut Shop<'_>) -> Client {
    let answer = shop.ask(shop.api.request(Method::POST, "/v1/auth/guest")).await;
    answer.assert_status(201);
    note_tokens(shop, &answer);
    shop.api.with_token(answer.at("/token").as_str().unwrap(), None)
}

/// Orders a mug and pays for it, until the shop knows.
async fn pay(shop: &mut Shop<'_>, mug: Variant, provider: Provider) {
    let guest = guest(shop).await;
    let order_id = guest.order_for(&[(mug, 1)]).await;
    let request = guest.request(Method::POST, &format!("/v1/orders/{order_id}/payments"));
    let request = request.header("Idempotency-Key", Uuid::now_v7().to_string());
    let opened = shop.ask(request.json(&json!({ "provider": provider.name() }))).await;
    opened.assert_status(201);
    let reference = match provider {
        Provider::Stripe => {
            let secret = opened.at("/stripe/client_secret");
            shop.secrets.note("client secret", secret.as_str().unwrap());
            opened.at("/stripe/payment_intent_id")
        }
        Provider::Razorpay => opened.at("/razorpay/order_id"),
    };
    shop.providers.succeed(reference.as_str().unwrap()).unwrap();
    until("the order is paid", async || {
        let status = guest.order(order_id).await.at("/status");
        if status == "paid" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

/// A webhook that the provider did not sign.
async fn forge(shop: &mut Shop<'_>, provider: Provider) {
    let signature = shop.secrets.make("signature");
    let body = json!({ "id": "evt_1", "event": "payment.captured", "card": CARDS[0] });
    let path = format!("/v1/webhooks/{}", provider.name());
    let request = shop.api.request(Method::POST, &path);
    let request = match provider {
        Provider::Stripe => request.header("stripe-signature", format!("t=1,v1={signature}")),
        Provider::Razorpay => request
            .header("x-razorpay-signature", signature)
            .header("x-razorpay-event-id", "event-1"),
    };
    let answer = shop.ask(request.json(&body)).await;
    assert!((400..500).contains(&answer.status), "{}", answer.body);
}

/// Where a careless page may put what a shopper typed.
async fn write_cards_everywhere(shop: &mut Shop<'_>, mug: Variant) {
    let guest = guest(shop).await;
    for card in CARDS {
        let mut unknown = checkout_body(&[(mug, 1)]);
        unknown["card_number"] = json!(card);
        let mut as_email = checkout_body(&[(mug, 1)]);
        as_email["email"] = json!(card);
        let mut as_variant = checkout_body(&[(mug, 1)]);
        as_variant["lines"][0]["variant_id"] = json!(card);
        let key = Uuid::now_v7().to_string();
        let place = |body: &Value| guest.checkout(&key, body);
        let broken = guest.checkout(&key, &Value::Null).body(format!("{{\"number\":\"{card}\","));
        for request in [place(&unknown), place(&as_email), place(&as_variant), broken] {
            let answer = shop.ask(request).await;
            assert!((400..500).contains(&answer.status), "{}", answer.body);
        }
        let in_key = guest.checkout(&format!("{card}\u{e9}"), &checkout_body(&[(mug, 1)]));
        let digits = card.replace(' ', "%20");
        for path in ["/v1/orders/", "/v1/cards/", "/v1/products/", "/v1/orders?cursor="] {
            let request = guest.request(Method::GET, &format!("{path}{digits}"));
            let answer = shop.ask(request).await;
            assert!((400..500).contains(&answer.status), "{path}: {}", answer.body);
        }
        shop.ask(in_key).await;
    }
}

/// The database refuses what every process asks of it.
async fn break_the_database(shop: &mut Shop<'_>, mug: Variant) {
    let guest = guest(shop).await;
    let password = shop.secrets.make("password while the database is broken");
    for (hide, show) in [
        (
            "ALTER TABLE orders RENAME TO hidden_orders",
            "ALTER TABLE hidden_orders RENAME TO orders",
        ),
        ("ALTER TABLE users RENAME TO hidden_users", "ALTER TABLE hidden_users RENAME TO users"),
        (
            "ALTER TABLE job_ledger RENAME TO hidden_jobs",
            "ALTER TABLE hidden_jobs RENAME TO job_ledger",
        ),
    ] {
        shop.app.execute(hide).await;
        let credentials = json!({ "email": EMAIL, "password": password });
        let mut worst = 0;
        for request in [
            guest.request(Method::GET, "/v1/orders"),
            guest.checkout(&Uuid::now_v7().to_string(), &checkout_body(&[(mug, 1)])),
            shop.api.request(Method::POST, "/v1/auth/login").json(&credentials),
            shop.api.request(Method::POST, "/v1/auth/register").json(&credentials),
        ] {
            worst = worst.max(shop.ask(request).await.status);
        }
        shop.app.execute(show).await;
        assert!(worst >= 500, "{hide}: {worst}");
    }
}

/// Processes that are let in nowhere, and a mail server that wants another password.
async fn give_processes_wrong_passwords(shop: &mut Shop<'_>) {
    let wrong = shop.secrets.make("wrong password of a server");
    let database = shop.app.database_url.replace(shop::password_of(&shop.app.database_url), &wrong);
    let smtp = shop.app.inbox.smtp_addr();
    let others = [
        ("DATABASE_URL", database),
        ("REDIS_URL", format!("redis://:{wrong}@127.0.0.1:1")),
        ("SMTP_URL", format!("smtp://marked:{wrong}@{smtp}")),
        ("LISTEN", free_port().to_string()),
    ];
    let before = shop.running.len();
    for program in ["api", "webhooks", "reaper", "mailer"] {
        shop.start(program, &others);
    }
    for process in &shop.running[before..] {
        let answer = until("the process says what it misses", async || {
            let answer = simulator::get(format!("http://{}/readyz", process.health)).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| error.to_string())?;
            if status == 503 { Ok(text) } else { Err(text) }
        })
        .await;
        shop.refusals.push(answer);
    }
}
