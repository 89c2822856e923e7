//! Money that goes back: by itself, because staff say so, because a shopper gives a paid order up, or
//! by hand in a provider's dashboard. The numbers are those of the cases in `docs/reliability.md`.
//!
//! No webhook arrives here, but where a test says so: what the shop knows, it has asked for.

mod automatic;
mod cancel;
mod faults;
mod later;
mod staff;

use holdfast::{
    kernel::OrderId,
    payments::{
        self,
        findings::{Finding, Kind},
        refunds::{Refund, store::of_orders},
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::{Capture, Delivery, Operation, Provider, Refunded};
use uuid::Uuid;

use crate::support::{
    app::TestApp,
    client::{Answer, Client},
    shop::{PRICE, Variant},
};

const BOTH: [Provider; 2] = [Provider::Stripe, Provider::Razorpay];

/// How many mugs a shopper wants, and what they cost.
const UNITS: i64 = 2;
const TOTAL: i64 = UNITS * PRICE;

/// Gives the test a shop that no provider tells anything, and whose shoppers' money is collected at once.
async fn journey(test: impl AsyncFnOnce(&TestApp)) {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
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

/// An order of two of five mugs, and its shopper.
struct Sale<'a> {
    app: &'a TestApp,
    shopper: Client,
    mug: Variant,
    order_id: Uuid,
}

/// Money that a provider took for the order.
struct Taken {
    payment_id: String,
    /// `pi_…` or `pay_…`.
    charge_ref: String,
}

impl<'a> Sale<'a> {
    async fn begin(app: &'a TestApp) -> Self {
        Self::of(app, app.product_with_stock(5).await).await
    }

    async fn of(app: &'a TestApp, mug: Variant) -> Self {
        let shopper = app.guest().await;
        let order_id = shopper.order_for(&[(mug, UNITS)]).await;
        Self { app, shopper, mug, order_id }
    }

    /// An order that is paid, and the money that paid it.
    async fn paid(app: &'a TestApp, provider: Provider) -> (Self, Taken) {
        let sale = Self::begin(app).await;
        let (payment_id, reference) = sale.open(provider).await;
        let taken = sale.take(payment_id, &reference);
        sale.confirm(&taken).await;
        assert_eq!(sale.status().await, "paid");
        (sale, taken)
    }

    /// Opens a payment; returns its id and the provider's name for it.
    async fn open(&self, provider: Provider) -> (String, String) {
        let path = format!("/v1/orders/{}/payments", self.order_id);
        let request = self.shopper.request(Method::POST, &path).header("Idempotency-Key", key());
        let opened = Answer::to(request.json(&json!({ "provider": provider.name() }))).await;
        opened.assert_status(201);
        let name = match provider {
            Provider::Stripe => "/stripe/payment_intent_id",
            Provider::Razorpay => "/razorpay/order_id",
        };
        (text(&opened, "/id"), text(&opened, name))
    }

    /// Pays at the provider, unheard by the shop.
    fn take(&self, payment_id: String, reference: &str) -> Taken {
        let acted = self.app.providers.succeed(reference).unwrap();
        Taken { payment_id, charge_ref: acted.payment_ref.unwrap() }
    }

    /// Tells the shop that the shopper has paid.
    async fn confirm(&self, taken: &Taken) {
        let path = format!("/v1/payments/{}/confirm", taken.payment_id);
        self.shopper.post(&path, &json!({})).await.assert_status(200);
    }

    async fn status(&self) -> String {
        self.app.status_of(self.order_id).await
    }

    async fn refunds(&self) -> Vec<Refund> {
        of_orders(&self.app.db, &[OrderId::from(self.order_id)]).await.unwrap()
    }

    /// The order's refunds: cause, state and amount, the oldest first.
    async fn told(&self) -> Vec<(&'static str, &'static str, i64)> {
        let refunds = self.refunds().await;
        let tell =
            |refund: &Refund| (refund.cause.name(), refund.state.name(), refund.amount_minor);
        refunds.iter().map(tell).collect()
    }

    /// What the order's timeline tells of that kind of thing.
    async fn noted(&self, kind: &str) -> Vec<Value> {
        let order = self.shopper.order(self.order_id).await;
        let mut entries = order.at("/timeline").as_array().unwrap().clone();
        entries.retain(|entry| entry["kind"] == kind);
        entries.into_iter().map(|entry| entry["detail"].clone()).collect()
    }

    /// How many mails told the shopper of money that goes back.
    async fn mails(&self) -> usize {
        let refunds = self.refunds().await;
        refunds.iter().map(|refund| self.app.mails("refund-made", refund.id.uuid()).len()).sum()
    }

    /// Asks for a refund in the name of the member of staff.
    async fn refund(&self, staff: &Client, key: &str, body: &Value) -> Answer {
        let path = format!("/v1/admin/orders/{}/refunds", self.order_id);
        let request = staff.request(Method::POST, &path).header("Idempotency-Key", key);
        Answer::to(request.json(body)).await
    }
}

/// A part of the money, for a reason.
fn part(amount: i64) -> Value {
    json!({ "amount": { "amount": amount, "currency": "USD" }, "reason": "a crack in the glaze" })
}

/// All of the money.
fn all() -> Value {
    json!({ "reason": "never arrived" })
}

fn text(answer: &Answer, pointer: &str) -> String {
    answer.at(pointer).as_str().unwrap().to_owned()
}

/// What the provider sent back of the money, the oldest first.
fn sent_back(app: &TestApp, taken: &Taken) -> Vec<Refunded> {
    let mut refunds = app.providers.ledger().refunds;
    refunds.retain(|refunded| refunded.payment_ref == taken.charge_ref);
    refunds
}

/// What people have to look at now.
async fn open_findings(app: &TestApp) -> Vec<Finding> {
    payments::findings::store::list(&app.db, true, None, 100).await.unwrap()
}

async fn found(app: &TestApp) -> Vec<Kind> {
    open_findings(app).await.iter().map(|finding| finding.kind).collect()
}

/// How the provider calls the making of a refund.
const fn making(provider: Provider) -> Operation {
    match provider {
        Provider::Stripe => Operation::CreateRefund,
        Provider::Razorpay => Operation::RefundPayment,
    }
}

/// The shop's name for the provider.
const fn ours(provider: Provider) -> payments::Provider {
    match provider {
        Provider::Stripe => payments::Provider::Stripe,
        Provider::Razorpay => payments::Provider::Razorpay,
    }
}
