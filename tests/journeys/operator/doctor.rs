//! Asking whether the data are right.

use holdfast::doctor;
use serde_json::Value;

use crate::support::app::TestApp;

#[tokio::test]
async fn the_doctor_finds_a_counter_that_somebody_changed_and_a_recount_mends_it() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let healthy = app.product_with_stock(5).await;
        app.guest().await.order_for(&[(mug, 2)]).await;
        app.settle().await;
        app.ctl(&["doctor"]).await.assert(0, &["holds", "stock-equals-ledger"]);
        app.ctl(&["stock", "recount"]).await.assert(0, &[]);
        let id = mug.id.to_string();

        sqlx::query("UPDATE stock SET on_hand = on_hand + 1 WHERE variant_id = $1")
            .bind(mug.id)
            .execute(&app.db)
            .await
            .unwrap();

        let ill = app.ctl(&["doctor"]).await;
        ill.assert(1, &["BROKEN", "stock-equals-ledger", &id]);
        assert!(!ill.text.contains(&healthy.id.to_string()), "{}", ill.text);
        app.ctl(&["stock", "recount"]).await.assert(1, &[&id]);
        assert_eq!(app.stock_of(mug).await, (6, 2), "looking changes nothing");
        app.ctl(&["stock", "recount", "--repair"]).await.assert(0, &[&id]);
        assert_eq!(app.stock_of(mug).await, (5, 2));
        app.ctl(&["doctor"]).await.assert(0, &[]);
    })
    .await;
}

#[tokio::test]
async fn the_doctor_speaks_to_programs_too() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let healthy = app.ctl(&["doctor", "--json"]).await;
        healthy.assert(0, &[]);
        assert_eq!(serde_json::from_str::<Value>(&healthy.text).unwrap(), serde_json::json!([]));
        app.execute("UPDATE stock SET reserved = 1").await;

        let ill = app.ctl(&["doctor", "--json"]).await;

        ill.assert(1, &[]);
        let findings: Vec<Value> = serde_json::from_str(&ill.text).unwrap();
        let broken: Vec<_> =
            findings.iter().map(|finding| finding["invariant"].as_str().unwrap()).collect();
        assert_eq!(broken, ["stock-equals-ledger", "reserved-equals-holds"]);
        assert!(findings.iter().all(|finding| finding["subject"] == mug.id.to_string()));
        app.execute("UPDATE stock SET reserved = 0").await;
    })
    .await;
}

/// What breaks one promise of the data at least, what mends it, and the promise's name.
const ILLNESSES: [(&str, &str, &str); 12] = [
    (
        "UPDATE stock SET on_hand = on_hand + 1",
        "UPDATE stock SET on_hand = on_hand - 1",
        "stock-equals-ledger",
    ),
    (
        "UPDATE stock SET reserved = reserved - 1",
        "UPDATE stock SET reserved = reserved + 1",
        "reserved-equals-holds",
    ),
    ("UPDATE holds SET quantity = 1", "UPDATE holds SET quantity = 2", "lines-are-held"),
    (
        "UPDATE holds SET expires_at = expires_at + interval '1 minute'",
        "UPDATE holds SET expires_at = expires_at - interval '1 minute'",
        "lines-are-held",
    ),
    (
        "UPDATE holds SET state = 'released'",
        "UPDATE holds SET state = 'held'",
        "holds-follow-status",
    ),
    (
        "UPDATE holds SET state = 'taken'",
        "UPDATE holds SET state = 'held'",
        "order-ledger-balances",
    ),
    ("UPDATE order_lines SET quantity = 1", "UPDATE order_lines SET quantity = 2", "totals-add-up"),
    (
        "UPDATE orders SET status = 'cancelled'",
        "ALTER TABLE orders DISABLE TRIGGER orders_transition_legal;
         UPDATE orders SET status = 'awaiting_payment';
         ALTER TABLE orders ENABLE TRIGGER orders_transition_legal",
        "timeline-is-a-path",
    ),
    (
        "UPDATE idempotency_keys SET subject_id = gen_random_uuid() WHERE operation = 'placeOrder'",
        "UPDATE idempotency_keys SET subject_id = orders.id FROM orders WHERE operation = 'placeOrder'",
        "one-key-one-order",
    ),
    (
        "UPDATE job_ledger SET dedupe_key = 'x' || dedupe_key",
        "UPDATE job_ledger SET dedupe_key = substr(dedupe_key, 2)",
        "follow-up-is-promised",
    ),
    (
        "UPDATE orders SET expires_at = expires_at - interval '1 hour'",
        "UPDATE orders SET expires_at = expires_at + interval '1 hour'",
        "deadlines-are-kept",
    ),
    (
        "UPDATE job_ledger SET state = 'ready', finished_at = NULL, run_at = now() - interval '1 hour'",
        "UPDATE job_ledger SET state = 'done', finished_at = now()",
        "work-is-not-stuck",
    ),
];

#[tokio::test]
async fn the_doctor_knows_every_illness() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        app.guest().await.order_for(&[(mug, 2)]).await;
        app.settle().await;

        for (illness, cure, promise) in ILLNESSES {
            sqlx::raw_sql(illness).execute(&app.db).await.unwrap();
            let ill = doctor::examine(&app.db).await.unwrap();
            sqlx::raw_sql(cure).execute(&app.db).await.unwrap();

            let found: Vec<_> = ill.iter().map(|finding| finding.invariant).collect();
            assert!(found.contains(&promise), "{illness}: {found:?}");
            let well = doctor::examine(&app.db).await.unwrap();
            assert!(well.is_empty(), "after {cure}: {well:#?}");
        }
        // `never-oversold` is the schema's own promise: nobody can break it to show that it is checked.
        app.execute("UPDATE deliveries SET sent_at = NULL").await;
        let unsent = doctor::examine(&app.db).await.unwrap();
        assert_eq!(unsent[0].invariant, "done-mails-were-sent");
        app.execute("UPDATE deliveries SET sent_at = now()").await;
    })
    .await;
}
