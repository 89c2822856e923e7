//! What belongs to somebody else is, for everybody but its owner, not there.

use holdfast::web::policy::Who;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Operation, nothing, unknown};
use crate::support::{
    KEY,
    app::TestApp,
    client::{Answer, Client},
};

/// What Ada has, by the path that leads to it.
struct Belongings {
    order: String,
    payment: String,
    address: String,
    session: String,
}

impl Belongings {
    async fn of(app: &TestApp, ada: &Client) -> Self {
        let mug = app.product_with_stock(5).await;
        let order = ada.order_for(&[(mug, 1)]).await.to_string();
        let payments = format!("/v1/orders/{order}/payments");
        let opened = ada
            .request(Method::POST, &payments)
            .header("Idempotency-Key", KEY)
            .json(&json!({ "provider": "stripe" }));
        let payment = text(&Answer::to(opened).await, "/id");
        let address = text(&ada.post("/v1/auth/me/addresses", &address()).await, "/id");
        let session = text(&ada.get("/v1/auth/sessions").await, "/sessions/0/id");
        Self { order, payment, address, session }
    }

    fn behind(&self, path: &str) -> &str {
        let roots = [
            ("/v1/orders/", &self.order),
            ("/v1/payments/", &self.payment),
            ("/v1/auth/me/addresses/", &self.address),
            ("/v1/auth/sessions/", &self.session),
        ];
        let found = roots.iter().find(|(root, _)| path.starts_with(root));
        found.unwrap_or_else(|| panic!("{path}: say here what Ada has of this kind")).1
    }
}

fn text(answer: &Answer, pointer: &str) -> String {
    answer.at(pointer).as_str().unwrap().to_owned()
}

fn address() -> Value {
    json!({
        "address": {
            "name": "Ada", "line1": "1 Square", "city": "London", "postal_code": "SW1", "country": "GB",
        },
    })
}

/// A body that the operation would accept from the owner.
fn body(operation: &Operation) -> Value {
    match operation.id.as_str() {
        "openPayment" => json!({ "provider": "stripe" }),
        "confirmPayment" => json!({}),
        "changeAddress" => address(),
        _ => nothing(),
    }
}

#[tokio::test]
async fn api1_what_is_anothers_cannot_be_told_from_what_is_not_there() {
    TestApp::run(async |app| {
        let (ada, bob, guest) = (app.customer().await, app.customer().await, app.guest().await);
        let adas = Belongings::of(app, &ada).await;
        let mut looked_at = 0;
        for operation in Operation::all() {
            let is_owned = matches!(operation.who, Who::Shopper | Who::Customer);
            if !is_owned || !operation.path.contains('{') {
                continue;
            }
            for stranger in [&bob, &guest] {
                if operation.who == Who::Customer && stranger.id == guest.id {
                    continue;
                }
                let (hers, id) = (adas.behind(&operation.path), &operation.id);
                let body = body(&operation);
                let foreign = Answer::to(operation.ask(stranger, hers, &body)).await;
                let nowhere = Answer::to(operation.ask(stranger, &unknown(), &body)).await;

                foreign.assert_status(404);
                assert_eq!(foreign.without_request_id(), nowhere.without_request_id(), "{id}");
                assert_eq!(
                    foreign.header("cache-control"),
                    nowhere.header("cache-control"),
                    "{id}"
                );
                looked_at += 1;
            }
        }

        assert!(looked_at >= 12, "{looked_at} questions were asked");
        ada.order(adas.order.parse().unwrap()).await.assert_status(200);
    })
    .await;
}
