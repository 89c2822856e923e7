//! Money that is set aside and is not what was asked for.

use reqwest::Method;
use serde_json::json;
use simulator::providers::{Act, Operation, Provider};
use uuid::Uuid;

use super::{Visit, assert_ledgers_agree, lose_webhooks, make_due, reconcile};
use crate::support::{app::TestApp, client::Answer};

/// Has a bank set aside less than was asked for.
fn set_too_little_aside(app: &TestApp, visit: &Visit) {
    let act = Act::PayWrong { amount_minor: 100, currency: "USD".to_owned() };
    app.providers.act(&visit.reference, &act).unwrap();
}

const OPEN: &str = "findings WHERE kind = 'unknown_money' AND closed_at IS NULL";

#[tokio::test]
async fn case_09_money_set_aside_that_was_not_asked_for_is_left_there_and_told_of_once() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        let visit = Visit::begin(app, Provider::Razorpay).await;
        set_too_little_aside(app, &visit);

        for _ in 0..3 {
            make_due(app).await;
            reconcile(app).await;
        }

        assert_eq!(visit.status(app).await, "awaiting_payment");
        assert_eq!(visit.told_of("payment_not_collected").await, 1);
        assert_eq!(app.count(OPEN).await, 1);
        assert_eq!(app.providers.calls(Operation::CapturePayment), 0);
        assert_eq!(app.count("job_ledger WHERE kind = 'checkout.capture-payment'").await, 0);

        // Somebody has seen to it: it is not told again.
        let id: Uuid = app.scalar("SELECT id FROM findings").await;
        let path = format!("/v1/admin/findings/{id}/close");
        let closing = app.staff().await.request(Method::POST, &path);
        Answer::to(closing.json(&json!({ "note": "called them" }))).await.assert_status(200);
        make_due(app).await;
        reconcile(app).await;
        assert_eq!(app.count("findings").await, 1);
        assert_eq!(visit.told_of("payment_not_collected").await, 1);

        // The shopper pays the rest of the way.
        app.providers.succeed(&visit.reference).unwrap();
        make_due(app).await;
        reconcile(app).await;
        assert_eq!(visit.status(app).await, "paid");
        assert_eq!(app.providers.ledger().captures.len(), 1);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_09_a_shopper_who_set_too_little_aside_can_give_the_order_up() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        let visit = Visit::begin(app, Provider::Razorpay).await;
        set_too_little_aside(app, &visit);
        let id: Uuid = app.scalar("SELECT id FROM payments").await;
        let path = format!("/v1/payments/{id}/confirm");
        visit.shopper.post(&path, &json!({})).await.assert_status(200);
        assert_eq!(app.count(OPEN).await, 1);

        visit.shopper.cancel(visit.order_id).await.assert_status(200);
        app.settle().await;

        assert_eq!(visit.status(app).await, "cancelled");
        assert_eq!(app.count("payments WHERE state = 'cancelled'").await, 1);
        assert_eq!(app.count("captures").await, 0);
    })
    .await;
}
