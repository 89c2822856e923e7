//! What cannot be decided, and by whom.

use futures_util::future::join_all;
use serde_json::json;
use simulator::providers::Provider;
use uuid::Uuid;

use super::{TOTAL, attachment, decision, key, quarantined, resolve, waiting};
use crate::{
    provider::{BOTH, assert_ledgers_agree, hear_all},
    support::{app::TestApp, client::statuses, shop::PRICE},
};

/// What a refusal leaves as it was.
const TABLES: [&str; 10] = [
    "orders",
    "order_events",
    "stock",
    "stock_ledger",
    "holds",
    "payments",
    "captures",
    "refunds",
    "findings",
    "audit_log",
];

#[tokio::test]
async fn what_cannot_be_decided_changes_nothing() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        let (foreign, in_rupees) = quarantined(app, Provider::Stripe, TOTAL, "INR").await;
        let (short, one_price) = quarantined(app, Provider::Razorpay, PRICE, "USD").await;
        let other = foreign.shopper.order_for(&[(foreign.mug, 1)]).await;
        let paid = short.shopper.order_for(&[(short.mug, 1)]).await;
        app.pay(paid).await;
        let cancelled = short.shopper.order_for(&[(short.mug, 1)]).await;
        short.shopper.cancel(cancelled).await.assert_status(200);
        app.settle().await;
        let before = app.books().await;

        for (capture_id, wish, status, code) in [
            (in_rupees, decision("accept"), 409, "price-differs"),
            (in_rupees, attachment(other), 409, "price-differs"),
            (one_price, attachment(foreign.order_id), 409, "price-differs"),
            (one_price, attachment(paid), 409, "order-already-paid"),
            (one_price, attachment(cancelled), 409, "order-not-payable"),
            (one_price, attachment(Uuid::now_v7()), 404, "order-not-found"),
            (Uuid::now_v7(), decision("refund"), 404, "capture-not-found"),
            (one_price, decision("attach"), 422, "invalid-request"),
            (one_price, decision("burn"), 422, "invalid-request"),
            (one_price, json!({ "action": "refund" }), 422, "invalid-request"),
        ] {
            resolve(&staff, capture_id, &key(), &wish).await.assert_problem(status, code);
        }
        let mut misplaced = attachment(other);
        misplaced["action"] = json!("refund");
        let refused = resolve(&staff, one_price, &key(), &misplaced).await;
        refused.assert_problem(422, "invalid-request");
        refused.assert_errors(&[("/order_id", "order-id-misplaced")]);

        let after = app.books().await;
        for table in TABLES {
            assert_eq!(after[table], before[table], "{table}");
        }
        assert_eq!(waiting(&staff).await, [in_rupees, one_price]);
    })
    .await;
}

#[tokio::test]
async fn money_cannot_pay_for_units_that_are_gone() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        let (late, capture_id) = quarantined(app, Provider::Stripe, TOTAL - 1, "USD").await;
        late.expire().await;
        let faster = app.guest().await.order_for(&[(late.mug, 4)]).await;
        app.settle().await;
        let before = app.stock_of(late.mug).await;

        let refused = resolve(&staff, capture_id, &key(), &decision("accept")).await;

        refused.assert_problem(409, "out-of-stock");
        assert_eq!(late.status().await, "expired");
        assert_eq!(app.stock_of(late.mug).await, before);

        // Their time is over, too.
        app.age(faster, 16).await;
        resolve(&staff, capture_id, &key(), &decision("accept")).await.assert_status(200);
        hear_all(app).await;
        assert_eq!(late.status().await, "paid");
        assert_eq!(app.status_of(faster).await, "expired");
    })
    .await;
}

#[tokio::test]
async fn money_is_decided_about_once() {
    TestApp::run(async |app| {
        let staff = app.staff().await;
        let (purchase, capture_id) = quarantined(app, Provider::Stripe, TOTAL - 1, "USD").await;
        let once = key();

        let first = resolve(&staff, capture_id, &once, &decision("refund")).await;
        let again = resolve(&staff, capture_id, &once, &decision("refund")).await;
        let misuse = resolve(&staff, capture_id, &once, &decision("accept")).await;
        let another = resolve(&staff, capture_id, &key(), &decision("accept")).await;
        hear_all(app).await;

        first.assert_status(200).assert_header("idempotency-replayed", None);
        again.assert_status(200).assert_header("idempotency-replayed", "true");
        assert_eq!(again.at("/id"), first.at("/id"));
        misuse.assert_problem(422, "idempotency-key-reused");
        another.assert_problem(409, "not-quarantined");
        assert_eq!(purchase.told_of("refund_requested").await.len(), 1);
        assert_eq!(app.providers.ledger().refunds.len(), 1);
        assert_eq!(app.count("audit_log WHERE action = 'resolveQuarantined'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn of_colleagues_who_decide_at_once_one_does() {
    TestApp::run(async |app| {
        let colleagues = [app.staff().await, app.staff().await];
        for provider in BOTH {
            let (purchase, capture_id) = quarantined(app, provider, TOTAL - 1, "USD").await;
            let wishes: Vec<_> = ["accept", "refund"]
                .iter()
                .cycle()
                .take(6)
                .map(|action| (key(), decision(action)))
                .collect();

            let answers = join_all(
                wishes
                    .iter()
                    .zip(colleagues.iter().cycle())
                    .map(|((key, wish), colleague)| resolve(colleague, capture_id, key, wish)),
            )
            .await;
            hear_all(app).await;

            let granted = statuses(&answers).into_iter().filter(|status| *status == 200).count();
            assert_eq!(granted, 1);
            for refused in answers.iter().filter(|answer| answer.status != 200) {
                refused.assert_problem(409, "not-quarantined");
            }
            assert_eq!(purchase.told_of("quarantine_resolved").await.len(), 1);
        }
        assert_eq!(app.count("audit_log WHERE action = 'resolveQuarantined'").await, 2);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn only_staff_decide() {
    TestApp::run(async |app| {
        let (purchase, capture_id) = quarantined(app, Provider::Stripe, TOTAL - 1, "USD").await;
        let before = app.books().await;

        for (caller, status, code) in
            [(app.anybody(), 401, "unauthenticated"), (purchase.shopper.clone(), 403, "forbidden")]
        {
            let refused = resolve(&caller, capture_id, &key(), &decision("accept")).await;
            refused.assert_problem(status, code);
            caller.get("/v1/admin/quarantine").await.assert_problem(status, code);
            caller.get("/v1/admin/findings").await.assert_problem(status, code);
            let close = format!("/v1/admin/findings/{capture_id}/close");
            caller.post(&close, &json!({ "note": "?" })).await.assert_problem(status, code);
        }

        let after = app.books().await;
        for table in TABLES {
            assert_eq!(after[table], before[table], "{table}");
        }
        let staff = app.staff().await;
        let path = format!("/v1/admin/quarantine/{capture_id}/resolve");
        let keyless = staff.post(&path, &decision("accept")).await;
        keyless.assert_problem(400, "idempotency-key-missing");
    })
    .await;
}
