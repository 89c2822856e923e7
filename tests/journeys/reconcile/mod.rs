//! What nobody told the shop: it asks. The numbers are those of the cases in `docs/reliability.md`.

mod attempts;
mod gone;
mod lists;
mod operator;
mod refunds;
mod set_aside;

use std::time::Duration;

use holdfast::{
    checkout::reconcile::{reconcile_attempts, reconcile_disputes, reconcile_refunds},
    doctor, payments,
};
use reqwest::Method;
use serde_json::json;
use simulator::providers::{Capture, Delivery, Provider};
use sqlx::AssertSqlSafe;
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{
    app::TestApp,
    client::{Answer, Client},
    shop::Variant,
};

const BOTH: [Provider; 2] = [Provider::Stripe, Provider::Razorpay];

/// What every shopper here orders.
const UNITS: i64 = 2;

/// A shopper in front of a payment.
struct Visit {
    shopper: Client,
    order_id: Uuid,
    /// `pi_…` or `order_…`.
    reference: String,
}

impl Visit {
    /// Orders two of five mugs and opens a payment.
    async fn begin(app: &TestApp, provider: Provider) -> Self {
        Self::of(app, app.product_with_stock(5).await, provider).await
    }

    async fn of(app: &TestApp, mug: Variant, provider: Provider) -> Self {
        let shopper = app.guest().await;
        let order_id = shopper.order_for(&[(mug, UNITS)]).await;
        let reference = open(&shopper, order_id, provider).await;
        Self { shopper, order_id, reference }
    }

    async fn status(&self, app: &TestApp) -> String {
        app.status_of(self.order_id).await
    }

    /// How often the order's timeline tells of that.
    async fn told_of(&self, kind: &str) -> usize {
        let entries = self.shopper.order(self.order_id).await.at("/timeline");
        entries.as_array().unwrap().iter().filter(|entry| entry["kind"] == kind).count()
    }
}

/// Opens a payment and returns the provider's name for it.
async fn open(shopper: &Client, order_id: Uuid, provider: Provider) -> String {
    let request = shopper.request(Method::POST, &format!("/v1/orders/{order_id}/payments"));
    let request = request.header("Idempotency-Key", Uuid::now_v7().to_string());
    let opened = Answer::to(request.json(&json!({ "provider": provider.name() }))).await;
    opened.assert_status(201);
    let name = match provider {
        Provider::Stripe => opened.at("/stripe/payment_intent_id"),
        Provider::Razorpay => opened.at("/razorpay/order_id"),
    };
    name.as_str().unwrap().to_owned()
}

/// From now on no webhook arrives.
fn lose_webhooks(app: &TestApp) {
    for provider in BOTH {
        app.providers.set_delivery(provider, Delivery::Lost);
    }
}

/// Has the provider collect by itself what shoppers pay.
fn collect_at_once(app: &TestApp) {
    app.providers.set_capture(Capture::Automatic);
}

/// Asks about everything that is due, and lets the work be done that follows from it.
async fn reconcile(app: &TestApp) {
    reconcile_attempts(&app.cx).await.unwrap();
    reconcile_refunds(&app.cx).await.unwrap();
    reconcile_disputes(&app.cx).await.unwrap();
    app.settle().await;
}

/// Lets time pass for everything that is to be asked about.
async fn make_due(app: &TestApp) {
    for table in ["payments", "refunds", "disputes"] {
        let sql = format!("UPDATE {table} SET next_look_at = now() WHERE next_look_at IS NOT NULL");
        sqlx::query(AssertSqlSafe(sql)).execute(&app.db).await.unwrap();
    }
}

/// When a round ends that has time enough.
fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

/// The provider as the shop calls it.
fn ours(provider: Provider) -> payments::Provider {
    provider.name().parse().unwrap()
}

/// All that providers collected is on our books, and nothing else is.
async fn assert_ledgers_agree(app: &TestApp) {
    let ledger = serde_json::to_value(app.providers.ledger()).unwrap();
    let findings =
        doctor::compare(&app.db, &serde_json::from_value(ledger).unwrap()).await.unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}
