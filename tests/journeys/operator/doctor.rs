//! Asking whether the data are right.

use std::collections::BTreeMap;

use holdfast::{
    doctor::{self, ProviderLedger},
    payments::{Charge, Provider, Standing},
};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    support::{
        app::TestApp,
        client::{Answer, Client, until},
    },
    till::charge as charge_of,
};

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
        assert_eq!(serde_json::from_str::<Value>(&healthy.text).unwrap(), json!([]));
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

/// The same of money: an order is paid, and money came for it once more; another waits for its payment.
const ILLNESSES_OF_MONEY: [(&str, &str, &str); 21] = [
    (
        "UPDATE captures SET amount_minor = amount_minor + 1 WHERE fate = 'accepted'",
        "UPDATE captures SET amount_minor = amount_minor - 1 WHERE fate = 'accepted'",
        "paid-once",
    ),
    (
        "UPDATE captures SET currency = 'EUR' WHERE fate = 'accepted'",
        "UPDATE captures SET currency = 'USD' WHERE fate = 'accepted'",
        "paid-once",
    ),
    (
        "UPDATE captures SET fate = 'quarantined', reason = 'foreign_object' WHERE fate = 'accepted'",
        "UPDATE captures SET fate = 'accepted', reason = NULL WHERE fate = 'quarantined'",
        "paid-once",
    ),
    (
        "UPDATE orders SET status = 'paid' WHERE status = 'awaiting_payment'",
        "ALTER TABLE orders DISABLE TRIGGER orders_transition_legal;
         UPDATE orders SET status = 'awaiting_payment'
         WHERE NOT EXISTS (SELECT FROM captures WHERE order_id = orders.id);
         ALTER TABLE orders ENABLE TRIGGER orders_transition_legal",
        "paid-once",
    ),
    (
        "UPDATE payments SET amount_minor = amount_minor + 1 WHERE state = 'open'",
        "UPDATE payments SET amount_minor = amount_minor - 1 WHERE state = 'open'",
        "attempts-ask-for-the-total",
    ),
    (
        "DROP INDEX payments_one_open_per_order;
         INSERT INTO payments (id, order_id, provider, livemode, amount_minor, currency)
         SELECT gen_random_uuid(), order_id, provider, livemode, amount_minor, currency
         FROM payments WHERE state = 'open'",
        "DELETE FROM payments WHERE state = 'creating';
         CREATE UNIQUE INDEX payments_one_open_per_order ON payments (order_id)
         WHERE state IN ('creating', 'open', 'processing', 'authorized')",
        "one-attempt-under-way",
    ),
    (
        "UPDATE payments SET state = 'captured' WHERE state = 'open'",
        "ALTER TABLE payments DISABLE TRIGGER payments_transition_legal;
         UPDATE payments SET state = 'open'
         WHERE NOT EXISTS (SELECT FROM captures WHERE payment_id = payments.id);
         ALTER TABLE payments ENABLE TRIGGER payments_transition_legal",
        "captures-have-payments",
    ),
    (
        "ALTER TABLE payments DISABLE TRIGGER payments_transition_legal;
         UPDATE payments SET state = 'cancelled' WHERE state = 'captured'",
        "UPDATE payments SET state = 'captured' WHERE state = 'cancelled';
         ALTER TABLE payments ENABLE TRIGGER payments_transition_legal",
        "captures-have-payments",
    ),
    (
        "UPDATE captures SET reason = 'order_cancelled' WHERE fate = 'refund_due'",
        "UPDATE captures SET reason = 'already_paid' WHERE fate = 'refund_due'",
        "money-has-an-end",
    ),
    (
        "UPDATE captures SET fate = 'quarantined' WHERE fate = 'refund_due'",
        "UPDATE captures SET fate = 'refund_due' WHERE fate = 'quarantined'",
        "refused-money-is-told",
    ),
    (
        "UPDATE payments SET state = 'cancelling', updated_at = now() - interval '1 hour'
         WHERE state = 'open'",
        "ALTER TABLE payments DISABLE TRIGGER payments_transition_legal;
         UPDATE payments SET state = 'open' WHERE state = 'cancelling';
         ALTER TABLE payments ENABLE TRIGGER payments_transition_legal",
        "ended-orders-cannot-be-paid",
    ),
    (
        "UPDATE orders SET status = 'expired' WHERE status = 'awaiting_payment';
         UPDATE payments SET updated_at = now() - interval '1 hour' WHERE state = 'open'",
        "ALTER TABLE orders DISABLE TRIGGER orders_transition_legal;
         UPDATE orders SET status = 'awaiting_payment' WHERE status = 'expired';
         ALTER TABLE orders ENABLE TRIGGER orders_transition_legal",
        "ended-orders-cannot-be-paid",
    ),
    (
        "UPDATE payments SET state = 'authorized', updated_at = now() - interval '1 hour'
         WHERE state = 'open'",
        "ALTER TABLE payments DISABLE TRIGGER payments_transition_legal;
         UPDATE payments SET state = 'open' WHERE state = 'authorized';
         ALTER TABLE payments ENABLE TRIGGER payments_transition_legal",
        "set-aside-money-is-collected",
    ),
    (
        "UPDATE orders SET extended_at = now() WHERE status = 'awaiting_payment'",
        "UPDATE orders SET extended_at = NULL",
        "deadline-is-extended-once",
    ),
    (
        "UPDATE payments SET next_look_at = next_look_at - interval '1 hour' WHERE state = 'open'",
        "UPDATE payments SET next_look_at = next_look_at + interval '1 hour' WHERE state = 'open'",
        "looks-are-not-overdue",
    ),
    (
        "UPDATE payments SET created_at = created_at - interval '2 hours';
         INSERT INTO reconciliation_cursors (provider, read_until)
         VALUES ('stripe', now() - interval '2 hours')",
        "UPDATE payments SET created_at = created_at + interval '2 hours';
         DELETE FROM reconciliation_cursors",
        "lists-are-read",
    ),
    (
        "INSERT INTO provider_events (id, provider, event_id, body_sha256, kind, raw, received_at)
         VALUES (gen_random_uuid(), 'stripe', 'evt_1', sha256(''), 'payment_intent.succeeded', '',
            now() - interval '3 minutes')",
        "DELETE FROM provider_events",
        "told-money-is-settled",
    ),
    (
        "INSERT INTO provider_events (id, provider, event_id, body_sha256, kind, raw, received_at)
         VALUES (gen_random_uuid(), 'stripe', 'evt_1', sha256(''), '', '', now() - interval '1 hour')",
        "DELETE FROM provider_events",
        "inbox-is-worked",
    ),
    (
        "UPDATE job_ledger SET dedupe_key = 'x' || dedupe_key
         WHERE kind = 'notifications.send-order-confirmed'",
        "UPDATE job_ledger SET dedupe_key = substr(dedupe_key, 2)
         WHERE kind = 'notifications.send-order-confirmed'",
        "follow-up-is-promised",
    ),
    (
        "UPDATE deliveries SET sent_at = NULL WHERE template = 'payment-failed'",
        "UPDATE deliveries SET sent_at = now() WHERE template = 'payment-failed'",
        "done-mails-were-sent",
    ),
    (
        "UPDATE holds SET state = 'released' WHERE state = 'sold'",
        "UPDATE holds SET state = 'sold' WHERE state = 'released'",
        "order-ledger-balances",
    ),
];

/// The same of money that goes back: of a paid order, which is disputed, a part did; of another order
/// money is quarantined.
const ILLNESSES_OF_REFUNDS: [(&str, &str, &str); 11] = [
    (
        "UPDATE refunds SET amount_minor = amount_minor + 10000",
        "UPDATE refunds SET amount_minor = amount_minor - 10000",
        "refunds-fit-their-capture",
    ),
    (
        "UPDATE refunds SET currency = 'EUR'",
        "UPDATE refunds SET currency = 'USD'",
        "refunds-are-of-their-capture",
    ),
    (
        "UPDATE disputes SET provider = 'razorpay'",
        "UPDATE disputes SET provider = 'stripe'",
        "refunds-are-of-their-capture",
    ),
    (
        "UPDATE captures SET fate = 'refund_due' WHERE fate = 'quarantined'",
        "UPDATE captures SET fate = 'quarantined' WHERE fate = 'refund_due'",
        "due-money-goes-back",
    ),
    (
        "UPDATE job_ledger SET dedupe_key = 'x' || dedupe_key
         WHERE kind = 'notifications.send-refund-made'",
        "UPDATE job_ledger SET dedupe_key = substr(dedupe_key, 2)
         WHERE kind = 'notifications.send-refund-made'",
        "refunds-are-told",
    ),
    (
        "UPDATE restocks SET quantity = quantity + 2",
        "UPDATE restocks SET quantity = quantity - 2",
        "restocks-are-of-sold-units",
    ),
    (
        "UPDATE findings SET closed_at = now() WHERE kind = 'quarantined'",
        "UPDATE findings SET closed_at = NULL WHERE kind = 'quarantined'",
        "quarantine-is-seen",
    ),
    (
        "UPDATE findings SET subject = 'x' || subject WHERE kind = 'quarantined'",
        "UPDATE findings SET subject = substr(subject, 2) WHERE kind = 'quarantined'",
        "quarantine-is-seen",
    ),
    (
        "UPDATE findings SET closed_at = now() WHERE kind = 'disputed'",
        "UPDATE findings SET closed_at = NULL WHERE kind = 'disputed'",
        "disputes-are-seen",
    ),
    (
        "UPDATE disputes SET state = 'won'",
        "UPDATE disputes SET state = 'open'",
        "disputes-are-seen",
    ),
    (
        "UPDATE refunds SET requested_by = id",
        "UPDATE refunds SET requested_by = (SELECT actor_id FROM audit_log WHERE action = 'refundOrder')",
        "decisions-are-signed",
    ),
];

/// The same of sales: a customer has as many as the limit says, in the sale's hours.
const ILLNESSES_OF_SALES: [(&str, &str, &str); 5] = [
    (
        "UPDATE variants SET purchase_limit = 1",
        "UPDATE variants SET purchase_limit = 2",
        "purchase-limits-are-kept",
    ),
    (
        "UPDATE variants SET purchase_limit = 1, purchase_window_seconds = 3600",
        "UPDATE variants SET purchase_limit = 2, purchase_window_seconds = NULL",
        "purchase-limits-are-kept",
    ),
    (
        "UPDATE holds SET customer_key = NULL",
        "UPDATE holds SET customer_key = sha256('ada')",
        "limited-goods-have-customers",
    ),
    (
        "UPDATE variants SET opens_at = now() + interval '1 hour'",
        "UPDATE variants SET opens_at = NULL",
        "sales-keep-their-hours",
    ),
    (
        "UPDATE variants SET closes_at = now() - interval '30 minutes'",
        "UPDATE variants SET closes_at = NULL",
        "sales-keep-their-hours",
    ),
];

impl TestApp {
    /// Makes the data ill and well again, and has the doctor look each time.
    async fn catch(&self, illnesses: &'static [(&str, &str, &str)]) {
        for &(illness, cure, promise) in illnesses {
            sqlx::raw_sql(illness).execute(&self.db).await.unwrap();
            let ill = doctor::examine(&self.db).await.unwrap();
            sqlx::raw_sql(cure).execute(&self.db).await.unwrap();

            let found: Vec<_> = ill.iter().map(|finding| finding.invariant).collect();
            assert!(found.contains(&promise), "{illness}: {found:?}");
            let well = doctor::examine(&self.db).await.unwrap();
            assert!(well.is_empty(), "after {cure}: {well:#?}");
        }
    }
}

#[tokio::test]
async fn the_doctor_knows_every_illness_of_money() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let (paid, waiting) =
            (guest.order_for(&[(mug, 1)]).await, guest.order_for(&[(mug, 1)]).await);
        app.pay(paid).await;
        app.pay(paid).await;
        let payment = app.attempt(waiting, Provider::Stripe).await;
        let last_decline = Some("generic_decline".to_owned());
        app.hear(&payment, Standing::Open { last_decline }).await;
        app.settle().await;
        assert_eq!(app.count("captures WHERE fate = 'refund_due'").await, 1);

        app.catch(&ILLNESSES_OF_MONEY).await;
    })
    .await;
}

#[tokio::test]
async fn money_that_a_provider_is_being_asked_about_is_no_illness() {
    TestApp::run(async |app| {
        let told = "
            INSERT INTO provider_events (id, provider, event_id, body_sha256, kind, raw, received_at)
            VALUES (gen_random_uuid(), 'stripe', 'evt_1', sha256(''), 'payment_intent.succeeded', '',
                now() - interval '3 minutes');
            INSERT INTO job_ledger (id, kind, lane, payload, dedupe_key, run_at, next_push_at)
            SELECT gen_random_uuid(), 'checkout.review-payment', 'providers', '{}',
                'review-payment:' || id, now() + interval '1 minute', now() + interval '1 minute'
            FROM provider_events";
        sqlx::raw_sql(told).execute(&app.db).await.unwrap();
        let found = doctor::examine(&app.db).await.unwrap();
        assert!(found.is_empty(), "{found:#?}");

        app.execute("UPDATE job_ledger SET dedupe_key = 'review-payment:another'").await;
        let found = doctor::examine(&app.db).await.unwrap();
        assert!(found.iter().any(|found| found.invariant == "told-money-is-settled"), "{found:#?}");

        app.execute("DELETE FROM job_ledger").await;
        app.execute("DELETE FROM provider_events").await;
    })
    .await;
}

#[tokio::test]
async fn the_doctor_knows_every_illness_of_refunds_and_compares_them_with_the_providers() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let (guest, staff) = (app.guest().await, app.staff().await);
        app.start_workers().await;
        let order_id = guest.order_for(&[(mug, 2)]).await;
        pay(app, &guest, order_id, "stripe", "/stripe/payment_intent_id").await;
        until("the order is paid", async || match &*app.status_of(order_id).await {
            "paid" => Ok(()),
            status => Err(status.to_owned()),
        })
        .await;
        let wish = json!({
            "amount": { "amount": 500, "currency": "USD" },
            "reason": "a crack in the glaze",
            "restock": [{ "variant_id": mug.id, "quantity": 1 }],
        });
        let path = format!("/v1/admin/orders/{order_id}/refunds");
        let request = staff.request(Method::POST, &path);
        let request = request.header("Idempotency-Key", Uuid::now_v7().to_string());
        Answer::to(request.json(&wish)).await.assert_status(201);
        until("the refund is made", async || {
            match app.count("refunds WHERE state = 'succeeded'").await {
                1 => Ok(()),
                made => Err(format!("{made} are")),
            }
        })
        .await;
        let books = serde_json::to_string(&app.providers.ledger()).unwrap();
        let compare = ["doctor", "--provider-ledger", "-"];
        app.ctl_with_input(&compare, &books)
            .await
            .assert(0, &["holds", "provider-refunds-equal-ours"]);
        app.execute("UPDATE refunds SET amount_minor = 501").await;
        let ill = app.ctl_with_input(&compare, &books).await;
        ill.assert(1, &["BROKEN", "provider-refunds-equal-ours", "theirs 500, ours 501"]);
        app.execute("UPDATE refunds SET amount_minor = 500").await;

        let charge: String = app.scalar("SELECT provider_ref FROM captures").await;
        app.providers.dispute(&charge).unwrap();
        let waiting = guest.order_for(&[(mug, 1)]).await;
        let payment = app.attempt(waiting, Provider::Stripe).await;
        let asked = charge_of(&payment);
        let too_little = Charge { amount_minor: asked.amount_minor - 1, ..asked };
        app.hear(&payment, Standing::Captured(vec![too_little])).await;
        until("the dispute is known", async || match app.count("disputes").await {
            1 => Ok(()),
            known => Err(format!("{known} are")),
        })
        .await;
        app.settle().await;

        app.catch(&ILLNESSES_OF_REFUNDS).await;
    })
    .await;
}

#[tokio::test]
async fn the_doctor_knows_every_illness_of_sales() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let customer = app.customer().await;
        for _ in 0..2 {
            customer.order_for(&[(mug, 1)]).await;
        }
        app.settle().await;
        app.execute(
            "UPDATE variants SET purchase_limit = 2, sale_set_at = now() - interval '1 hour'",
        )
        .await;

        app.catch(&ILLNESSES_OF_SALES).await;
    })
    .await;
}

#[tokio::test]
async fn the_doctor_asks_nothing_of_the_lists_of_a_provider_that_is_new_or_gone() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let order = app.guest().await.order_for(&[(mug, 1)]).await;
        app.pay(order).await;
        app.settle().await;
        app.execute(
            "INSERT INTO reconciliation_cursors (provider, read_until) VALUES
                ('stripe', now() - interval '1 day'), ('razorpay', now() - interval '1 day')",
        )
        .await;

        for (last_paid, ill) in
            [("5 minutes", None), ("2 hours", Some("lists of stripe")), ("25 hours", None)]
        {
            let age = format!("UPDATE payments SET created_at = now() - interval '{last_paid}'");
            sqlx::query(AssertSqlSafe(age)).execute(&app.db).await.unwrap();
            let found = doctor::examine(&app.db).await.unwrap();
            let mut found = found.iter().filter(|found| found.invariant == "lists-are-read");
            assert_eq!(found.next().map(|found| &*found.subject), ill, "{last_paid}");
            assert!(found.next().is_none());
        }
    })
    .await;
}

/// The promise that nobody can break to show that it is checked: it is the schema's own.
const UNBREAKABLE: &str = "never-oversold";

#[test]
fn every_promise_of_the_doctor_is_broken_by_an_illness() {
    let caught = ILLNESSES
        .iter()
        .chain(&ILLNESSES_OF_MONEY)
        .chain(&ILLNESSES_OF_REFUNDS)
        .chain(&ILLNESSES_OF_SALES);
    let caught: Vec<_> = caught.map(|illness| illness.2).collect();

    for invariant in doctor::invariants().filter(|invariant| invariant.name != UNBREAKABLE) {
        assert!(caught.contains(&invariant.name), "{} is never broken", invariant.name);
    }
}

/// Opens a payment of the order and pays it at the provider; the webhooks are on their way then.
async fn pay(app: &TestApp, guest: &Client, order_id: Uuid, provider: &str, name: &str) {
    let wish = guest
        .request(Method::POST, &format!("/v1/orders/{order_id}/payments"))
        .header("Idempotency-Key", Uuid::now_v7().to_string())
        .json(&json!({ "provider": provider }));
    let opened = Answer::to(wish).await;
    opened.assert_status(201);
    app.providers.succeed(opened.at(name).as_str().unwrap()).unwrap();
}

#[tokio::test]
async fn the_doctor_reads_the_books_of_both_providers() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        app.start_workers().await;
        for (provider, name) in
            [("stripe", "/stripe/payment_intent_id"), ("razorpay", "/razorpay/order_id")]
        {
            let order_id = guest.order_for(&[(mug, 1)]).await;
            pay(app, &guest, order_id, provider, name).await;
        }
        // Somebody else collects money over the same account.
        let foreign =
            app.providers.create_foreign(providers::Provider::Stripe, 7_00, "usd", BTreeMap::new());
        app.providers.succeed(&foreign).unwrap();
        until("both orders are paid and every webhook is worked on", async || {
            let paid = app.count("orders WHERE status = 'paid'").await;
            let new = app.count("provider_events WHERE state = 'new'").await;
            if (paid, new) == (2, 0) { Ok(()) } else { Err(format!("{paid} paid, {new} new")) }
        })
        .await;
        app.settle().await;

        let books = serde_json::to_string(&app.providers.ledger()).unwrap();
        let compare = ["doctor", "--provider-ledger", "-"];
        app.ctl_with_input(&compare, &books)
            .await
            .assert(0, &["holds", "provider-ledger-equals-ours"]);
        app.execute("UPDATE captures SET amount_minor = 1 WHERE provider = 'razorpay'").await;
        let ill = app.ctl_with_input(&compare, &books).await;

        ill.assert(1, &["BROKEN", "provider-ledger-equals-ours", "theirs 1299 USD, ours 1 USD"]);
        ill.assert(1, &["paid-once", "accepted 1 USD"]);
        app.execute("UPDATE captures SET amount_minor = 1299 WHERE provider = 'razorpay'").await;
    })
    .await;
}

#[tokio::test]
async fn the_doctor_compares_the_books_with_the_providers() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let mut captures = Vec::new();
        for _ in 0..4 {
            let order = guest.order_for(&[(mug, 1)]).await;
            let provider_ref = app.pay(order).await;
            captures.push(json!({
                "provider": "stripe",
                "provider_ref": provider_ref,
                "amount_minor": mug.price,
                "currency": "usd",
            }));
        }
        app.settle().await;
        let foreign = json!({
            "provider": "razorpay", "provider_ref": "pay_other", "amount_minor": 7, "currency": "INR",
            "payment_id": null,
        });
        captures.push(foreign);
        let healthy = json!({ "captures": captures }).to_string();
        let ledger: ProviderLedger = serde_json::from_str(&healthy).unwrap();
        assert!(doctor::compare(&app.db, &ledger).await.unwrap().is_empty());
        let compare = ["doctor", "--provider-ledger", "-"];
        app.ctl_with_input(&compare, &healthy).await.assert(0, &["provider-ledger-equals-ours"]);

        // One that they have and we do not, one that we have and they do not, two that differ.
        captures[0]["provider_ref"] = "pi_unheard".into();
        captures[1]["amount_minor"] = 1.into();
        captures[2]["currency"] = "EUR".into();
        let ill = json!({ "captures": captures, "refunds": [] }).to_string();

        let ill = app.ctl_with_input(&["doctor", "--json", "--provider-ledger", "-"], &ill).await;
        ill.assert(1, &["pi_unheard", "theirs 1299 USD"]);
        let findings: Vec<Value> = serde_json::from_str(&ill.text).unwrap();
        assert_eq!(findings.len(), 4, "{findings:#?}");
        app.ctl_with_input(&compare, "{").await.assert(1, &["EOF"]);
    })
    .await;
}

#[tokio::test]
async fn the_doctor_knows_every_illness() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        app.guest().await.order_for(&[(mug, 2)]).await;
        app.settle().await;

        app.catch(&ILLNESSES).await;
        app.execute("UPDATE deliveries SET sent_at = NULL").await;
        let unsent = doctor::examine(&app.db).await.unwrap();
        assert_eq!(unsent[0].invariant, "done-mails-were-sent");
        app.execute("UPDATE deliveries SET sent_at = now()").await;
    })
    .await;
}
