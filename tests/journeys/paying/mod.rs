//! Paying an order, from the shopper's side. The numbers are those of the cases in
//! `docs/reliability.md`.
//!
//! No webhook arrives here: what the shop knows of a payment, it has asked for.

mod cancel;
mod change;
mod confirm;
mod open;
mod refuse;
mod repeat;

use holdfast::{
    kernel::OrderId,
    payments::{
        Fate, Payment,
        store::{captures_of, of_order},
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::{self, Checkout, Delivery, Fault, Operation, Provider};
use uuid::Uuid;

use crate::support::{
    app::TestApp,
    client::{Answer, Client, until},
    shop::{PRICE, Variant},
};

const BOTH: [Provider; 2] = [Provider::Stripe, Provider::Razorpay];

/// How many mugs a buyer wants, and what they cost.
const UNITS: i64 = 2;
const TOTAL: i64 = UNITS * PRICE;

/// What the shop asks of providers, but for refunds.
const QUESTIONS: [Operation; 11] = [
    Operation::CreateIntent,
    Operation::RetrieveIntent,
    Operation::ListIntents,
    Operation::CancelIntent,
    Operation::CaptureIntent,
    Operation::CreateOrder,
    Operation::RetrieveOrder,
    Operation::ListOrders,
    Operation::ListOrderPayments,
    Operation::RetrievePayment,
    Operation::CapturePayment,
];

/// Gives the test a shop that no provider tells anything.
async fn journey(test: impl AsyncFnOnce(&TestApp)) {
    TestApp::run(async |app| {
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Lost);
        }
        test(app).await;
    })
    .await;
}

/// One key per intention.
fn key() -> String {
    Uuid::now_v7().to_string()
}

/// A shopper who has ordered and is to pay.
struct Buyer<'a> {
    app: &'a TestApp,
    client: Client,
    mug: Variant,
    order_id: Uuid,
}

/// An attempt that the browser was given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Opened {
    id: Uuid,
    /// `pi_…` or `order_…`.
    reference: String,
}

impl<'a> Buyer<'a> {
    /// Orders two of five mugs.
    async fn begin(app: &'a TestApp) -> Self {
        let mug = app.product_with_stock(5).await;
        let client = app.guest().await;
        let order_id = client.order_for(&[(mug, UNITS)]).await;
        Self { app, client, mug, order_id }
    }

    /// Asks to pay with the provider, under the key.
    async fn ask(&self, key: &str, provider: Provider) -> Answer {
        ask(&self.client, self.order_id, key, provider.name()).await
    }

    /// Begins another attempt, which must succeed.
    async fn open(&self, provider: Provider) -> Opened {
        opened(&self.ask(&key(), provider).await)
    }

    /// Repeats the request until it is answered.
    async fn insist(&self, key: &str, provider: Provider) -> Answer {
        until("the payment is opened", async || {
            let answer = self.ask(key, provider).await;
            match answer.status {
                201 => Ok(answer),
                409 => Err(answer.assert_problem(409, "request-in-flight").body.clone()),
                _ => Err(answer.assert_problem(503, "provider-unavailable").body.clone()),
            }
        })
        .await
    }

    async fn payment(&self, id: Uuid) -> Answer {
        self.client.get(&format!("/v1/payments/{id}")).await
    }

    /// Says that the provider's part has ended, with what the browser was given there.
    async fn confirm(&self, id: Uuid, proof: Option<&Checkout>) -> Answer {
        confirm(&self.client, id, &proof_body(proof)).await
    }

    /// Pays at the provider and says so.
    async fn pay(&self, opened: &Opened) -> Answer {
        let acted = self.app.providers.succeed(&opened.reference).unwrap();
        self.confirm(opened.id, acted.checkout.as_ref()).await
    }

    async fn status(&self) -> String {
        self.app.status_of(self.order_id).await
    }

    /// The attempts to pay, the first one first.
    async fn attempts(&self) -> Vec<Payment> {
        let mut attempts = of_order(&self.app.db, OrderId::from(self.order_id)).await.unwrap();
        attempts.reverse();
        attempts
    }

    async fn states(&self) -> Vec<&'static str> {
        self.attempts().await.iter().map(|payment| payment.state.name()).collect()
    }

    /// What became of the money that came in for the order.
    async fn fates(&self) -> Vec<Fate> {
        let captures = captures_of(&self.app.db, &[OrderId::from(self.order_id)]).await.unwrap();
        captures.into_iter().map(|capture| capture.fate).collect()
    }

    /// What the provider has for the order.
    fn objects(&self, provider: Provider) -> Vec<providers::Payment> {
        self.app.providers.payments_with(provider, "order_id", &self.order_id.to_string())
    }

    /// Lets so many seconds be left to pay; the deadline is a whole second.
    async fn leave(&self, seconds: i32) {
        sqlx::query(
            "
            WITH nearer AS (
                UPDATE orders
                SET expires_at = date_trunc('second', now()) + make_interval(secs => $2)
                WHERE id = $1
                RETURNING id, expires_at
            )
            UPDATE holds SET expires_at = nearer.expires_at
            FROM nearer WHERE order_id = nearer.id
            ",
        )
        .bind(self.order_id)
        .bind(f64::from(seconds))
        .execute(&self.app.db)
        .await
        .unwrap();
    }

    /// The order was paid once, and its units are sold.
    async fn assert_paid(&self) {
        assert_eq!(self.status().await, "paid");
        assert_eq!(self.app.hold_of(self.order_id, self.mug).await, "sold");
        let accepted = self.fates().await.into_iter().filter(|fate| *fate == Fate::Accepted);
        assert_eq!(accepted.count(), 1);
        assert_eq!(self.app.stock_of(self.mug).await, (5 - UNITS, 0));
    }

    /// The order waits and holds its units.
    async fn assert_waits(&self) {
        assert_eq!(self.status().await, "awaiting_payment");
        assert_eq!(self.app.hold_of(self.order_id, self.mug).await, "held");
        assert_eq!(self.fates().await, []);
        assert_eq!(self.app.stock_of(self.mug).await, (5, UNITS));
    }
}

/// Asks to pay the order, whoever's it is.
async fn ask(client: &Client, order_id: Uuid, key: &str, provider: &str) -> Answer {
    let request = client.request(Method::POST, &format!("/v1/orders/{order_id}/payments"));
    let request = request.header("Idempotency-Key", key);
    Answer::to(request.json(&json!({ "provider": provider }))).await
}

async fn confirm(client: &Client, id: Uuid, body: &Value) -> Answer {
    client.post(&format!("/v1/payments/{id}/confirm"), body).await
}

fn proof_body(proof: Option<&Checkout>) -> Value {
    let proof = proof.map(|proof| {
        json!({ "payment_id": proof.razorpay_payment_id, "signature": proof.razorpay_signature })
    });
    json!({ "razorpay": proof })
}

/// The attempt that the answer hands to the browser.
#[track_caller]
fn opened(answer: &Answer) -> Opened {
    answer.assert_status(201);
    let reference = match &*text(answer, "/provider") {
        "stripe" => text(answer, "/stripe/payment_intent_id"),
        _ => text(answer, "/razorpay/order_id"),
    };
    Opened { id: text(answer, "/id").parse().unwrap(), reference }
}

#[track_caller]
fn text(answer: &Answer, pointer: &str) -> String {
    answer.at(pointer).as_str().unwrap().to_owned()
}

/// Whether the answer gives the browser anything to pay with.
fn hands_over(answer: &Answer) -> bool {
    let body: Value = answer.json();
    body.get("stripe").is_some() || body.get("razorpay").is_some()
}

/// How the attempt stands at its provider.
fn standing(app: &TestApp, provider: Provider, opened: &Opened) -> String {
    let known = app.providers.payments(provider);
    known.into_iter().find(|known| known.reference == opened.reference).unwrap().status
}

/// How often providers were asked for anything.
fn questions(app: &TestApp) -> u64 {
    QUESTIONS.iter().map(|operation| app.providers.calls(*operation)).sum()
}

/// How the provider calls what is created there.
const fn creation(provider: Provider) -> Operation {
    match provider {
        Provider::Stripe => Operation::CreateIntent,
        Provider::Razorpay => Operation::CreateOrder,
    }
}

const fn other(provider: Provider) -> Provider {
    match provider {
        Provider::Stripe => Provider::Razorpay,
        Provider::Razorpay => Provider::Stripe,
    }
}

/// Lets every call of the provider fail, until the faults are cleared.
fn strike(app: &TestApp, provider: Provider, fault: Fault) {
    app.providers.fail_next(provider, fault, u32::MAX);
}

/// The jobs of the kind, by state.
async fn jobs_of(app: &TestApp, kind: &str) -> Vec<String> {
    sqlx::query_scalar("SELECT state FROM job_ledger WHERE kind = $1 ORDER BY id")
        .bind(kind)
        .fetch_all(&app.db)
        .await
        .unwrap()
}
