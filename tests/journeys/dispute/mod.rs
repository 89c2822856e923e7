//! Shoppers' banks claim money back. The numbers in the names are those of the cases in
//! `docs/reliability.md`.

mod hear;
mod refunds;

use holdfast::payments;
use serde_json::Value;
use simulator::providers::{Capture, Provider};

use crate::{
    provider::{Purchase, hear_all},
    support::{app::TestApp, client::Answer},
};

/// An order that is paid, and the provider's name for its money.
async fn paid(app: &TestApp, provider: Provider) -> (Purchase<'_>, String) {
    let (purchase, charge) = paid_at_provider(app, provider).await;
    hear_all(app).await;
    purchase.assert_paid().await;
    (purchase, charge)
}

/// The same, of whose payment the shop may not have heard yet.
async fn paid_at_provider(app: &TestApp, provider: Provider) -> (Purchase<'_>, String) {
    app.providers.set_capture(Capture::Automatic);
    let purchase = Purchase::begin(app).await;
    let name = purchase.open(provider).await;
    let charge = app.providers.succeed(&name).unwrap().payment_ref.unwrap();
    (purchase, charge)
}

fn ours(provider: Provider) -> payments::Provider {
    provider.name().parse().unwrap()
}

impl Purchase<'_> {
    /// The order's disputes, as staff see them.
    async fn disputes(&self) -> Answer {
        let path = format!("/v1/admin/orders/{}/disputes", self.order_id);
        self.app.staff().await.get(&path).await
    }

    /// The state of each of them.
    async fn dispute_states(&self) -> Vec<String> {
        let items = self.disputes().await.at("/items");
        let states = items.as_array().unwrap().iter().map(|item| text(&item["state"]));
        states.collect()
    }

    /// What the order's timeline tells of them: the states, in their order.
    async fn told_of_disputes(&self) -> Vec<String> {
        self.told_of("disputed").await.iter().map(|detail| text(&detail["state"])).collect()
    }
}

/// The findings of the kind: what each is about, and whether it is open.
async fn findings(app: &TestApp, kind: &str) -> Vec<(String, bool)> {
    sqlx::query_as("SELECT subject, closed_at IS NULL FROM findings WHERE kind = $1 ORDER BY id")
        .bind(kind)
        .fetch_all(&app.db)
        .await
        .unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
