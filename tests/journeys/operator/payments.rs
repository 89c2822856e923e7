//! Looking after money.

use holdfast::payments::{Charge, Provider, Standing};
use uuid::Uuid;

use crate::{support::app::TestApp, till::charge};

/// An order whose attempt to pay brought one cent too little.
async fn quarantined(app: &TestApp) -> (Uuid, Uuid) {
    let mug = app.product_with_stock(5).await;
    let order_id = app.guest().await.order_for(&[(mug, 2)]).await;
    let payment = app.attempt(order_id, Provider::Stripe).await;
    let asked = charge(&payment);
    let too_little = Charge { amount_minor: asked.amount_minor - 1, ..asked };
    app.hear(&payment, Standing::Captured(vec![too_little])).await;
    (order_id, payment.id.uuid())
}

#[tokio::test]
async fn money_that_did_not_pay_its_order_is_found_and_explained() {
    TestApp::run(async |app| {
        app.ctl(&["payments", "list", "--not-accepted"]).await.assert(0, &["0 captures"]);
        let (order_id, payment_id) = quarantined(app).await;
        let (order_id, payment_id) = (order_id.to_string(), payment_id.to_string());
        let number: String = app.scalar("SELECT number FROM orders").await;
        let charge_ref: String = app.scalar("SELECT provider_ref FROM captures").await;

        let list = app.ctl(&["payments", "list", "--not-accepted"]).await;
        let fate = "25.97 USD  quarantined (wrong_amount)";
        list.assert(0, &[&order_id, &payment_id, &charge_ref, fate, "1 captures"]);

        for name in [&number, &order_id, &payment_id] {
            let shown = app.ctl(&["payments", "show", name]).await;
            shown.assert(0, &[&number, &order_id, "awaiting_payment", "25.98 USD"]);
            shown.assert(0, &[&payment_id, "stripe test", "captured", &charge_ref, fate]);
        }
        let nobody = Uuid::now_v7().to_string();
        for name in ["HF-00000-00000", &nobody] {
            app.ctl(&["payments", "show", name]).await.assert(1, &[name]);
        }
    })
    .await;
}

#[tokio::test]
async fn what_went_back_and_what_is_claimed_is_shown_with_the_order() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let order_id = app.guest().await.order_for(&[(mug, 2)]).await;
        app.pay(order_id).await;
        app.execute(
            "INSERT INTO refunds
                (id, capture_id, order_id, provider, amount_minor, currency, state, cause, failure)
             SELECT gen_random_uuid(), id, order_id, provider, 500, currency, 'failed', 'provider', 'expired_card'
             FROM captures",
        )
        .await;
        app.execute(
            "INSERT INTO disputes
                (id, capture_id, order_id, provider, provider_ref, amount_minor, currency, state, status)
             SELECT gen_random_uuid(), id, order_id, provider, 'dp_1', amount_minor, currency, 'won', 'won'
             FROM captures",
        )
        .await;
        app.execute(
            "INSERT INTO order_events (order_id, sequence, kind, status)
             SELECT order_id, max(sequence) + 1, 'refund_requested', 'paid' FROM order_events GROUP BY 1",
        )
        .await;

        let shown = app.ctl(&["payments", "show", &order_id.to_string()]).await;

        let capture_id = app.scalar::<Uuid>("SELECT id FROM captures").await.to_string();
        shown.assert(0, &["refund ", "5.00 USD", "failed", "expired_card", "(provider)"]);
        shown.assert(0, &["dispute dp_1", "25.98 USD", "won (won)", &capture_id]);
    })
    .await;
}

#[tokio::test]
async fn a_provider_is_asked_again_when_an_operator_says_so() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        app.ctl(&["payments", "review", "stripe", "pi_1"]).await.assert(0, &["will be asked"]);
        let unknown = app.ctl(&["payments", "review", "paypal", "pi_1"]).await;

        assert_eq!(unknown.status, 2, "{}", unknown.text);
        let asked: String = app.scalar("SELECT payload ->> 'provider_ref' FROM job_ledger").await;
        assert_eq!(asked, "pi_1");
    })
    .await;
}

#[tokio::test]
async fn parked_webhooks_are_listed_without_their_bodies() {
    TestApp::run(async |app| {
        app.execute(
            "INSERT INTO provider_events
                (id, provider, event_id, body_sha256, kind, raw, state, reason, finished_at)
             VALUES
                (gen_random_uuid(), 'stripe', 'evt_parked', sha256('1'), 'payment_intent.succeeded',
                    'hunter2', 'parked', 'no amount', now()),
                (gen_random_uuid(), 'stripe', 'evt_done', sha256('2'), 'payment_intent.processing',
                    'hunter2', 'done', NULL, now())",
        )
        .await;

        let parked = app.ctl(&["webhooks", "list"]).await;
        parked.assert(0, &["evt_parked", "payment_intent.succeeded", "no amount", "1 webhooks"]);
        assert!(!parked.text.contains("hunter2"), "{}", parked.text);
        let done = app.ctl(&["webhooks", "list", "--state", "done"]).await;
        done.assert(0, &["evt_done", "1 webhooks"]);
        app.ctl(&["webhooks", "list", "--state", "new"]).await.assert(0, &["0 webhooks"]);
        let nonsense = app.ctl(&["webhooks", "list", "--state", "lost"]).await;
        assert_eq!(nonsense.status, 2, "{}", nonsense.text);
    })
    .await;
}
