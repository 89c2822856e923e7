//! What payment providers tell the shop, as they tell it: signed, twice, late, and now and then wrong.
//!
//! The money is real as far as the shop can tell: shoppers pay at a provider, which says so by webhook.
//! The numbers in the names are those of the cases in `docs/reliability.md`.

mod inbox;
mod late;
mod order_of_arrival;
mod pay;
mod settle;
mod strange;
mod twice;

use holdfast::{
    checkout::work,
    doctor,
    kernel::{EventId, OrderId},
    payments::{
        Fate,
        store::{captures_of, of_order},
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::{Outcome, Provider};
use tokio::process::Command;
use uuid::Uuid;

use crate::support::{
    app::TestApp,
    client::{Answer, Client, until},
    shop::Variant,
};

pub(crate) const BOTH: [Provider; 2] = [Provider::Stripe, Provider::Razorpay];

/// What every shopper here orders.
pub(crate) const UNITS: i64 = 2;

/// A shopper who has ordered two mugs and is to pay for them.
pub(crate) struct Purchase<'a> {
    pub(crate) app: &'a TestApp,
    pub(crate) shopper: Client,
    pub(crate) mug: Variant,
    pub(crate) order_id: Uuid,
}

impl<'a> Purchase<'a> {
    /// Orders two of five mugs.
    pub(crate) async fn begin(app: &'a TestApp) -> Self {
        Self::of(app, app.product_with_stock(5).await).await
    }

    pub(crate) async fn of(app: &'a TestApp, mug: Variant) -> Self {
        let shopper = app.guest().await;
        let order_id = shopper.order_for(&[(mug, UNITS)]).await;
        Self { app, shopper, mug, order_id }
    }

    /// Asks to pay with the provider.
    async fn ask_to_pay(&self, provider: Provider) -> Answer {
        let path = format!("/v1/orders/{}/payments", self.order_id);
        let request = self.shopper.request(Method::POST, &path);
        let request = request.header("Idempotency-Key", Uuid::now_v7().to_string());
        Answer::to(request.json(&json!({ "provider": provider.name() }))).await
    }

    /// Opens a payment and returns the provider's name for it, as the shopper's browser gets it.
    pub(crate) async fn open(&self, provider: Provider) -> String {
        let opened = self.ask_to_pay(provider).await;
        opened.assert_status(201);
        let name = match provider {
            Provider::Stripe => opened.at("/stripe/payment_intent_id"),
            Provider::Razorpay => opened.at("/razorpay/order_id"),
        };
        name.as_str().unwrap().to_owned()
    }

    /// Lets the deadline pass and be enforced.
    pub(crate) async fn expire(&self) {
        self.app.age(self.order_id, 16).await;
        work::sweep(&self.app.cx).await.unwrap();
        assert_eq!(self.status().await, "expired");
    }

    pub(crate) async fn status(&self) -> String {
        self.app.status_of(self.order_id).await
    }

    pub(crate) async fn hold(&self) -> String {
        self.app.hold_of(self.order_id, self.mug).await
    }

    /// What the order's timeline tells, in its order.
    pub(crate) async fn timeline(&self) -> Vec<String> {
        let entries = self.entries().await;
        entries.iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// What the order's timeline tells of that kind of thing.
    pub(crate) async fn told_of(&self, kind: &str) -> Vec<Value> {
        let mut entries = self.entries().await;
        entries.retain(|entry| entry["kind"] == kind);
        entries.into_iter().map(|entry| entry["detail"].clone()).collect()
    }

    pub(crate) async fn entries(&self) -> Vec<Value> {
        self.shopper.order(self.order_id).await.at("/timeline").as_array().unwrap().clone()
    }

    /// What became of the money that came in for the order, in the order of its coming.
    pub(crate) async fn fates(&self) -> Vec<Fate> {
        let captures = captures_of(&self.app.db, &[OrderId::from(self.order_id)]).await.unwrap();
        captures.into_iter().map(|capture| capture.fate).collect()
    }

    /// Where the attempts to pay stand, the first one first.
    pub(crate) async fn attempts(&self) -> Vec<&'static str> {
        let attempts = of_order(&self.app.db, OrderId::from(self.order_id)).await.unwrap();
        attempts.iter().rev().map(|payment| payment.state.name()).collect()
    }

    pub(crate) fn mails(&self, template: &str) -> usize {
        self.app.mails(template, self.order_id).len()
    }

    /// The order was paid once: its units are sold, and the shopper is told.
    pub(crate) async fn assert_paid(&self) {
        assert_eq!(self.status().await, "paid");
        assert_eq!(self.hold().await, "sold");
        let accepted = self.fates().await.into_iter().filter(|fate| *fate == Fate::Accepted);
        assert_eq!(accepted.count(), 1);
        let settled = self.told_of("payment_settled").await;
        assert_eq!(settled.len(), 1, "{settled:?}");
        assert_eq!(settled[0]["amount"], UNITS * self.mug.price);
        assert_eq!(self.sales().await, 1);
        assert_eq!(self.mails("order-confirmed"), 1);
    }

    /// Nothing has paid the order, and the shopper was not told that anything has.
    pub(crate) async fn assert_not_paid(&self) {
        assert_ne!(self.status().await, "paid");
        assert!(!self.fates().await.contains(&Fate::Accepted));
        assert_eq!(self.sales().await, 0);
        assert_eq!(self.mails("order-confirmed"), 0);
    }

    /// How often the order's units were sold.
    async fn sales(&self) -> i64 {
        let rows = "stock_ledger WHERE cause = 'order_paid' AND cause_id";
        self.app.count(&format!("{rows} = '{}'", self.order_id)).await
    }
}

/// Waits until every webhook has arrived and everything that is due has been done; what waits for a
/// later attempt is not due.
pub(crate) async fn hear_all(app: &TestApp) {
    app.work_until("all webhooks are heard", async || {
        let (before, under_way) = (app.providers.events().len(), under_way(app));
        let due = app.due().await;
        // What was done meanwhile may have made new ones.
        let new = app.providers.events().len() - before;
        match (under_way, new, due) {
            (0, 0, (0, 0)) => Ok(()),
            open => Err(format!("webhooks under way and new, (jobs, orders) due: {open:?}")),
        }
    })
    .await;
}

/// Waits until every webhook is in the inbox, and returns them: nobody has worked on them.
pub(crate) async fn kept(app: &TestApp) -> Vec<EventId> {
    let ids: Vec<Uuid> = until("all webhooks are kept", async || {
        let ids = sqlx::query_scalar("SELECT id FROM provider_events ORDER BY id");
        let ids = ids.fetch_all(&app.db).await.unwrap();
        let told = app.providers.events().len();
        if ids.len() == told { Ok(ids) } else { Err(format!("{} of {told}", ids.len())) }
    })
    .await;
    ids.into_iter().map(EventId::from).collect()
}

/// How many webhooks have neither arrived nor been lost.
fn under_way(app: &TestApp) -> usize {
    let attempts = app.providers.attempts();
    let is_under_way = |id: &str| {
        !attempts.iter().any(|attempt| {
            let has_ended = match attempt.outcome {
                Outcome::Answered(status) => status == 200,
                Outcome::Lost | Outcome::Undeliverable => true,
                Outcome::NotAnswered => false,
            };
            attempt.event_id == id && has_ended
        })
    };
    app.providers.events().iter().filter(|told| is_under_way(&told.id)).count()
}

/// The webhooks of the inbox: kind, what became of each, and why.
pub(crate) async fn inbox_of(app: &TestApp) -> Vec<(String, String, Option<String>)> {
    sqlx::query_as("SELECT kind, state, reason FROM provider_events ORDER BY id")
        .fetch_all(&app.db)
        .await
        .unwrap()
}

/// The inbox's webhooks of the kind, and what became of each.
pub(crate) async fn fate_of_kind(app: &TestApp, kind: &str) -> Vec<String> {
    let mut inbox = inbox_of(app).await;
    inbox.retain(|(known, ..)| known == kind);
    inbox.into_iter().map(|(_, state, _)| state).collect()
}

/// All that providers collected is on our books, and nothing else is.
pub(crate) async fn assert_ledgers_agree(app: &TestApp) {
    let ledger = serde_json::to_value(app.providers.ledger()).unwrap();
    let ledger = serde_json::from_value(ledger).unwrap();
    let findings = doctor::compare(&app.db, &ledger).await.unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// What the operator's tool says.
pub(crate) async fn ctl(app: &TestApp, arguments: &[&str]) -> String {
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_ctl"));
    let said = ctl.args(arguments).env("DATABASE_URL", &app.database_url).output().await.unwrap();
    assert!(said.status.success(), "{said:?}");
    String::from_utf8(said.stdout).unwrap()
}
