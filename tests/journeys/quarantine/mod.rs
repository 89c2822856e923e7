//! Money that is not what was asked for, and whatever else a person has to look at.

mod findings;
mod refuse;
mod resolve;

use holdfast::audit::{Recorded, of_subject};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::{Act, Capture, Provider};
use uuid::Uuid;

use crate::{
    provider::{Purchase, UNITS, hear_all},
    support::{
        app::TestApp,
        client::{Answer, Client},
        shop::PRICE,
    },
};

const TOTAL: i64 = UNITS * PRICE;

/// An order for which money came that is not its total, and our name for that money.
async fn quarantined<'a>(
    app: &'a TestApp,
    provider: Provider,
    amount_minor: i64,
    currency: &str,
) -> (Purchase<'a>, Uuid) {
    app.providers.set_capture(Capture::Automatic);
    let purchase = Purchase::begin(app).await;
    let name = purchase.open(provider).await;
    let act = Act::PayWrong { amount_minor, currency: currency.to_owned() };
    app.providers.act(&name, &act).unwrap();
    hear_all(app).await;
    purchase.assert_not_paid().await;
    let capture_id = waiting(&app.staff().await).await.pop().unwrap();
    (purchase, capture_id)
}

/// The money that waits for a decision, the newest last.
async fn waiting(staff: &Client) -> Vec<Uuid> {
    let list = staff.get("/v1/admin/quarantine").await;
    list.assert_status(200);
    let items = list.at("/items");
    items.as_array().unwrap().iter().rev().map(|item| id(&item["id"])).collect()
}

/// One key per intention.
fn key() -> String {
    Uuid::now_v7().to_string()
}

async fn resolve(staff: &Client, capture_id: Uuid, key: &str, body: &Value) -> Answer {
    let path = format!("/v1/admin/quarantine/{capture_id}/resolve");
    let request = staff.request(Method::POST, &path).header("Idempotency-Key", key);
    Answer::to(request.json(body)).await
}

fn decision(action: &str) -> Value {
    json!({ "action": action, "note": "spoke with the shopper" })
}

fn attachment(order_id: Uuid) -> Value {
    json!({ "action": "attach", "order_id": order_id, "note": "it was meant for this one" })
}

/// Who did something to the subject, and what.
async fn signed(app: &TestApp, subject: &str) -> Vec<Recorded> {
    of_subject(&app.db, subject).await.unwrap()
}

fn id(value: &Value) -> Uuid {
    value.as_str().unwrap().parse().unwrap()
}
