//! What members of staff do is on record: who, what was before, what came of it, and in which request.

use std::collections::BTreeSet;

use holdfast::{
    assembly,
    audit::{Recorded, of_subject},
    identity::Role,
};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::{Act, Capture, Provider};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    provider::{Purchase, UNITS, hear_all},
    support::{
        app::TestApp,
        client::{Answer, Client},
        shop::PRICE,
    },
};

/// What a member of staff asks for.
struct Deed {
    method: Method,
    path: String,
    body: Value,
    /// The subject of its entry; of something new it is known from the answer alone.
    subject: Option<String>,
    /// Whether there was something before.
    had_before: bool,
    /// What a repeat leaves: nothing where it is known for one, a row where it is a deed of its own.
    repeated: i64,
}

impl Deed {
    fn post(path: String, body: Value, subject: Option<String>) -> Self {
        let had_before = subject.is_some();
        Self { method: Method::POST, path, body, subject, had_before, repeated: 0 }
    }

    async fn ask(&self, staff: &Client, key: &str, request_id: &str) -> Answer {
        let request = staff.request(self.method.clone(), &self.path);
        let request = request.header("Idempotency-Key", key).header("X-Request-Id", request_id);
        Answer::to(request.json(&self.body)).await
    }
}

/// The operations of staff that change something, as the API describes itself.
fn operations() -> BTreeSet<String> {
    let document: Value = serde_json::from_str(&assembly::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let methods = paths.flat_map(|path| path.as_object().unwrap());
    let of_staff = |operation: &Value| {
        let demands = operation["security"].as_array().into_iter().flatten();
        demands.flat_map(|demand| demand.as_object().unwrap().keys()).any(|scheme| {
            // Looking is no deed, and visitors may be staff or anybody.
            scheme == "Staff" || scheme == "Admin"
        })
    };
    let changing = methods.filter(|(method, operation)| *method != "get" && of_staff(operation));
    changing.map(|(_, operation)| operation["operationId"].as_str().unwrap().to_owned()).collect()
}

/// Makes a shop in which the operation has something to do, and says what is asked for.
async fn deed(app: &TestApp, operation: &str) -> Deed {
    match operation {
        "createProduct" => {
            let variants = json!([{ "sku": "LAMP-BLK", "title": "Black", "prices": [] }]);
            let lamp = json!({ "slug": "desk-lamp", "title": "Desk lamp", "description": "Bright.",
                "variants": variants });
            Deed::post("/v1/products".to_owned(), lamp, None)
        }
        "receiveStock" => {
            let mug = app.product_with_stock(1).await;
            let subject = format!("variant:{}", mug.id);
            let path = format!("/v1/stock/{}/receipts", mug.id);
            Deed::post(path, json!({ "quantity": 3 }), Some(subject))
        }
        "setSale" => {
            let mug = app.product_with_stock(1).await;
            let path = format!("/v1/admin/variants/{}/sale", mug.id);
            let rules = json!({ "purchase_limit": { "units": 2 } });
            let subject = format!("variant:{}", mug.id);
            let deed = Deed::post(path, rules, Some(subject));
            Deed { method: Method::PUT, repeated: 1, ..deed }
        }
        "refundOrder" => {
            app.providers.set_capture(Capture::Automatic);
            let purchase = Purchase::begin(app).await;
            app.providers.succeed(&purchase.open(Provider::Stripe).await).unwrap();
            hear_all(app).await;
            let path = format!("/v1/admin/orders/{}/refunds", purchase.order_id);
            let wish = json!({ "reason": "never arrived" });
            Deed::post(path, wish, Some(format!("order:{}", purchase.order_id)))
        }
        "shipOrder" => {
            app.providers.set_capture(Capture::Automatic);
            let purchase = Purchase::begin(app).await;
            app.providers.succeed(&purchase.open(Provider::Stripe).await).unwrap();
            hear_all(app).await;
            let path = format!("/v1/admin/orders/{}/ship", purchase.order_id);
            Deed::post(path, json!({}), Some(format!("order:{}", purchase.order_id)))
        }
        "resolveQuarantined" => {
            let capture_id = quarantined(app).await;
            let path = format!("/v1/admin/quarantine/{capture_id}/resolve");
            let wish = json!({ "action": "refund", "note": "spoke with the shopper" });
            Deed::post(path, wish, Some(format!("capture:{capture_id}")))
        }
        "closeFinding" => {
            let id: Uuid = app
                .scalar(
                    "INSERT INTO findings (id, kind, subject)
                     VALUES (gen_random_uuid(), 'unknown_money', 'pi_1') RETURNING id",
                )
                .await;
            let path = format!("/v1/admin/findings/{id}/close");
            Deed::post(path, json!({ "note": "seen to" }), Some(format!("finding:{id}")))
        }
        unknown => {
            panic!("`{unknown}` changes something: say here what it leaves in the audit log")
        }
    }
}

/// Money that is not what was asked for.
async fn quarantined(app: &TestApp) -> Uuid {
    app.providers.set_capture(Capture::Automatic);
    let purchase = Purchase::begin(app).await;
    let name = purchase.open(Provider::Stripe).await;
    let act = Act::PayWrong { amount_minor: UNITS * PRICE - 1, currency: "USD".to_owned() };
    app.providers.act(&name, &act).unwrap();
    hear_all(app).await;
    app.scalar("SELECT id FROM captures").await
}

/// The rows of the request.
async fn rows(app: &TestApp, request_id: &str) -> i64 {
    app.count(&format!("audit_log WHERE request_id = '{request_id}'")).await
}

async fn entry(app: &TestApp, request_id: &str) -> Recorded {
    let sql = format!("SELECT subject FROM audit_log WHERE request_id = '{request_id}'");
    let subject: String = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&app.db).await.unwrap();
    let mut recorded = of_subject(&app.db, &subject).await.unwrap();
    recorded.retain(|recorded| recorded.entry.request_id.as_deref() == Some(request_id));
    recorded.pop().unwrap()
}

#[tokio::test]
async fn whatever_staff_change_leaves_one_row_in_the_audit_log() {
    for operation in operations() {
        TestApp::run(async |app| {
            let deed = deed(app, &operation).await;
            let staff = app.somebody(Role::Admin).await;
            let (key, request_id) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
            let before = app.count("audit_log").await;

            let done = deed.ask(&staff, &key, &request_id).await;
            assert!(done.status < 300, "{operation}: {}", done.status);

            assert_eq!(app.count("audit_log").await, before + 1, "{operation}");
            let Recorded { entry, .. } = entry(app, &request_id).await;
            assert_eq!(entry.actor_id.uuid(), staff.id.unwrap(), "{operation}");
            assert_eq!(entry.action, operation);
            assert_eq!(entry.before.is_some(), deed.had_before, "{operation}");
            assert!(entry.after.is_some_and(|after| after.is_object()), "{operation}");
            if let Some(subject) = &deed.subject {
                assert_eq!(entry.subject, *subject);
            }

            let again = Uuid::now_v7().to_string();
            deed.ask(&staff, &key, &again).await;
            assert_eq!(rows(app, &again).await, deed.repeated, "{operation}, repeated");
            // What is not done leaves nothing.
            let refused = Uuid::now_v7().to_string();
            let outsider = app.customer().await;
            deed.ask(&outsider, &key, &refused).await.assert_problem(403, "forbidden");
            assert_eq!(rows(app, &refused).await, 0, "{operation}, refused");
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_refused_leaves_no_row_in_the_audit_log() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        let deed = deed(app, "createProduct").await;
        let ids: Vec<_> = (0..3).map(|_| Uuid::now_v7().to_string()).collect();
        deed.ask(&staff, &ids[0], &ids[0]).await.assert_status(201);

        deed.ask(&staff, &ids[1], &ids[1]).await.assert_status(409);
        let receipt = json!({ "quantity": 3 });
        let path = format!("/v1/stock/{}/receipts", Uuid::now_v7());
        let unknown = Deed::post(path, receipt, None);
        unknown.ask(&staff, &ids[2], &ids[2]).await.assert_problem(404, "variant-not-found");

        let mut written = Vec::new();
        for id in &ids {
            written.push(rows(app, id).await);
        }
        assert_eq!(written, [1, 0, 0]);
    })
    .await;
}
