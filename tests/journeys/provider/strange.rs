//! News that is wrong, of somebody else, of another world, or that nobody can work on.

use std::collections::BTreeMap;

use holdfast::{
    kernel::time,
    payments::{Fate, Mismatch},
};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::{Act, Capture, Delivery, Provider, sign_for_stripe};
use sqlx::AssertSqlSafe;

use super::{BOTH, Purchase, UNITS, assert_ledgers_agree, ctl, fate_of_kind, hear_all, inbox_of};
use crate::support::{app::TestApp, client::Answer, shop::PRICE};

#[tokio::test]
async fn case_09_another_amount_or_currency_than_was_asked_for_pays_nothing() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        app.start_workers().await;
        for provider in BOTH {
            for (amount_minor, currency, mismatch) in [
                (UNITS * PRICE - 1, "USD", Mismatch::WrongAmount),
                (UNITS * PRICE + 1, "USD", Mismatch::WrongAmount),
                (UNITS * PRICE, "INR", Mismatch::WrongCurrency),
            ] {
                let purchase = Purchase::begin(app).await;
                let name = purchase.open(provider).await;

                let act = Act::PayWrong { amount_minor, currency: currency.to_owned() };
                app.providers.act(&name, &act).unwrap();
                hear_all(app).await;

                purchase.assert_not_paid().await;
                assert_eq!(purchase.status().await, "awaiting_payment");
                assert_eq!(purchase.hold().await, "held");
                assert_eq!(purchase.fates().await, [Fate::Quarantined(mismatch)]);
                assert_eq!(purchase.timeline().await, ["placed", "payment_quarantined"]);
                let told = &purchase.told_of("payment_quarantined").await[0];
                assert_eq!(told["amount"], amount_minor);
                assert_eq!(told["currency"], currency);
                let list = ctl(app, &["payments", "list", "--not-accepted"]).await;
                assert!(list.contains(told["charge_ref"].as_str().unwrap()), "{list}");
            }
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_09_after_a_wrong_amount_the_order_can_still_be_paid() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Stripe).await;
        let act = Act::PayWrong { amount_minor: 1, currency: "USD".to_owned() };
        app.providers.act(&name, &act).unwrap();
        hear_all(app).await;

        let name = purchase.open(Provider::Stripe).await;
        app.providers.succeed(&name).unwrap();
        hear_all(app).await;

        purchase.assert_paid().await;
        let fates = [Fate::Quarantined(Mismatch::WrongAmount), Fate::Accepted];
        assert_eq!(purchase.fates().await, fates);
        assert_eq!(purchase.timeline().await, ["placed", "payment_quarantined", "payment_settled"]);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_09_money_that_was_set_aside_in_another_amount_is_not_collected() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Razorpay).await;

        let act = Act::PayWrong { amount_minor: 1, currency: "USD".to_owned() };
        app.providers.act(&name, &act).unwrap();
        hear_all(app).await;

        purchase.assert_not_paid().await;
        assert_eq!(app.providers.ledger().captures, []);
        assert_eq!(purchase.fates().await, []);
        assert_eq!(purchase.timeline().await, ["placed", "payment_not_collected"]);
    })
    .await;
}

#[tokio::test]
async fn case_09_money_of_another_object_that_names_our_payment_pays_nothing() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        app.start_workers().await;
        for provider in BOTH {
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;
            let ours = app.providers.payments(provider).pop().unwrap();
            let metadata: BTreeMap<_, _> =
                [("payment_id".to_owned(), ours.metadata["payment_id"].clone())].into();

            let foreign = app.providers.create_foreign(provider, UNITS * PRICE, "USD", metadata);
            app.providers.succeed(&foreign).unwrap();
            hear_all(app).await;

            purchase.assert_not_paid().await;
            assert_eq!(purchase.fates().await, [Fate::Quarantined(Mismatch::ForeignObject)]);
            assert_eq!(purchase.attempts().await, ["open"]);
            assert_eq!(purchase.timeline().await, ["placed", "payment_quarantined"]);

            // Ours is as good as before.
            app.providers.succeed(&name).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.attempts().await, ["captured"]);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_09_another_object_that_moves_no_money_is_not_believed() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        purchase.open(Provider::Stripe).await;
        let ours = app.providers.payments(Provider::Stripe).pop().unwrap();
        let metadata: BTreeMap<_, _> =
            [("payment_id".to_owned(), ours.metadata["payment_id"].clone())].into();
        let foreign = app.providers.create_foreign(Provider::Stripe, 1, "USD", metadata);

        app.providers.decline(&foreign, "stolen_card").unwrap();
        hear_all(app).await;

        assert_eq!(purchase.timeline().await, ["placed"]);
        assert_eq!(fate_of_kind(app, "payment_intent.payment_failed").await, ["ignored"]);
        assert_eq!(purchase.attempts().await, ["open"]);
    })
    .await;
}

/// Has Stripe say it, whatever it is, with a good signature.
async fn say(app: &TestApp, event: &Value) {
    let body = event.to_string();
    let secrets = &app.providers.config().stripe_webhook_secrets;
    let signature = sign_for_stripe(secrets, time::now().unix_timestamp(), &body);
    let request = app.anybody().request(Method::POST, "/v1/webhooks/stripe");
    let request = request.header("Stripe-Signature", signature).body(body);
    Answer::to(request).await.assert_status(200);
}

#[tokio::test]
async fn case_26_real_money_is_not_taken_for_a_test_nor_a_test_for_real_money() {
    TestApp::run(async |app| {
        app.providers.set_delivery(Provider::Stripe, Delivery::Lost);
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Stripe).await;
        app.providers.succeed(&name).unwrap();
        let told = app.providers.events().pop().unwrap();
        assert_eq!(told.kind, "payment_intent.succeeded");
        let body = app.providers.event_body(&told.id).unwrap();
        let mut event: Value = serde_json::from_str(&body).unwrap();
        event["livemode"] = json!(true);

        say(app, &event).await;
        hear_all(app).await;

        purchase.assert_not_paid().await;
        assert_eq!(purchase.timeline().await, ["placed"]);
        let parked = ctl(app, &["webhooks", "list"]).await;
        assert!(parked.contains(&told.id) && parked.contains("live-mode event"), "{parked}");

        // The same in this shop's own mode, under a name of its own.
        event["livemode"] = json!(false);
        event["id"] = json!("evt_in_the_right_mode");
        say(app, &event).await;
        hear_all(app).await;

        purchase.assert_paid().await;
        assert_eq!(fate_of_kind(app, &told.kind).await, ["parked", "done"]);
    })
    .await;
}

#[tokio::test]
async fn case_27_news_that_nobody_can_read_is_parked_and_its_order_is_paid_by_what_can_be_read() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Stripe).await;
        let unreadable = json!({ "id": name, "status": "succeeded", "amount_received": "much" });
        app.providers.tell(Provider::Stripe, "payment_intent.succeeded", &unreadable);
        app.providers.tell(Provider::Stripe, "payment_intent.of_next_year", &json!({}));
        app.providers.tell(Provider::Razorpay, "payment.captured", &json!({ "id": 1 }));
        hear_all(app).await;

        purchase.assert_not_paid().await;
        assert_eq!(fate_of_kind(app, "payment_intent.succeeded").await, ["parked"]);
        assert_eq!(fate_of_kind(app, "payment_intent.of_next_year").await, ["ignored"]);
        assert_eq!(fate_of_kind(app, "payment.captured").await, ["parked"]);

        app.providers.succeed(&name).unwrap();
        hear_all(app).await;

        purchase.assert_paid().await;
    })
    .await;
}

#[tokio::test]
async fn case_28_what_others_do_over_the_same_account_is_ignored() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let purchase = Purchase::begin(app).await;
        for provider in BOTH {
            let foreign =
                app.providers.create_foreign(provider, UNITS * PRICE, "USD", BTreeMap::new());
            app.providers.decline(&foreign, "generic_decline").unwrap();
            app.providers.succeed(&foreign).unwrap();
        }
        // One that the provider itself does not know.
        let nobody = json!({
            "id": "pi_nobody",
            "status": "succeeded",
            "amount_received": 100,
            "currency": "usd",
        });
        app.providers.tell(Provider::Stripe, "payment_intent.succeeded", &nobody);
        app.providers.tell(Provider::Stripe, "refund.updated", &json!({ "id": "re_nobody" }));

        hear_all(app).await;
        assert_eq!(app.count("provider_events WHERE state = 'new'").await, 2, "it may be late");
        app.age_webhooks().await;
        hear_all(app).await;

        for (kind, state, reason) in inbox_of(app).await {
            assert_eq!(state, "ignored", "{kind}: {reason:?}");
        }
        let not_ours = "provider_events WHERE reason = 'not ours'";
        assert_eq!(app.count(not_ours).await, 8);
        assert_eq!(app.count("captures").await, 0);
        assert_eq!(purchase.timeline().await, ["placed"]);
        // Whoever answers with an error is sent it again, and cut off in the end.
        let refused = app.providers.attempts().into_iter().find(|attempt| attempt.number > 1);
        assert!(refused.is_none(), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn case_39_a_webhook_that_nobody_can_work_on_stops_no_other() {
    TestApp::run(async |app| {
        app.providers.set_delivery(Provider::Stripe, Delivery::Paused);
        let mut purchases = Vec::new();
        for _ in 0..8 {
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(Provider::Stripe).await;
            app.providers.succeed(&name).unwrap();
            purchases.push((purchase, name));
        }
        let (unlucky, name) = purchases.remove(3);
        // Something in the database that nobody has thought of.
        let refusal = format!(
            "ALTER TABLE captures ADD CONSTRAINT captures_unlucky CHECK (provider_ref <> '{name}')"
        );
        sqlx::query(AssertSqlSafe(refusal)).execute(&app.db).await.unwrap();

        app.providers.set_delivery(Provider::Stripe, Delivery::Normal);
        hear_others(app, purchases.len()).await;

        for (purchase, _) in &purchases {
            assert_eq!(purchase.status().await, "paid");
        }
        unlucky.assert_not_paid().await;
        assert_eq!(app.count("provider_events WHERE state = 'new'").await, 1);

        app.execute("ALTER TABLE captures DROP CONSTRAINT captures_unlucky").await;
        app.hurry().await;
        hear_all(app).await;

        unlucky.assert_paid().await;
        for (purchase, _) in purchases {
            purchase.assert_paid().await;
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

/// Waits until so many orders are paid and one webhook has been tried and failed.
async fn hear_others(app: &TestApp, orders: usize) {
    app.work_until("all but one are paid", async || {
        let paid = app.count("orders WHERE status = 'paid'").await;
        let failed = "job_ledger WHERE last_error IS NOT NULL AND kind = 'checkout.settle-event'";
        let failed = app.count(failed).await;
        if paid == i64::try_from(orders).unwrap() && failed > 0 {
            return Ok(());
        }
        Err(format!("{paid} are paid, {failed} webhooks have failed"))
    })
    .await;
}
