//! Paying in time: with the first card or with the second, at once or after a while.

use holdfast::payments::Fate;
use serde_json::{Value, json};
use simulator::providers::{Act, Delivery, Fault, Operation, Provider};
use uuid::Uuid;

use super::{BOTH, Purchase, UNITS, assert_ledgers_agree, fate_of_kind, hear_all};
use crate::support::{app::TestApp, client::until, shop::PRICE};

/// What the timeline of an order tells that was paid with the first card. Razorpay sets the money aside
/// before it is collected.
const fn paid_at_once(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::Stripe => &["placed", "payment_settled"],
        Provider::Razorpay => &["placed", "deadline_extended", "payment_settled"],
    }
}

#[tokio::test]
async fn an_order_is_paid_when_its_provider_says_so() {
    TestApp::run(async |app| {
        app.start_workers().await;
        for provider in BOTH {
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;

            app.providers.succeed(&name).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.timeline().await, paid_at_once(provider));
            let settled = &purchase.told_of("payment_settled").await[0];
            assert_eq!(settled["provider"], provider.name());
            assert_eq!(settled["currency"], "USD");
            assert_eq!(app.stock_of(purchase.mug).await, (3, 0));
            assert_eq!(purchase.attempts().await, ["captured"]);
            let mail = &app.mails("order-confirmed", purchase.order_id)[0];
            for words in ["25.98 USD", "2 x Harbour mug", "12 St James's Square"] {
                assert!(mail.text.contains(words), "no {words} in {}", mail.text);
            }
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_is_settled_without_a_push_of_the_reaper() {
    TestApp::run(async |app| {
        app.start_workers().await;
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Stripe).await;

        app.providers.succeed(&name).unwrap();
        hear_all(app).await;

        // Whoever is not woken is pushed again, seconds later.
        let pushes: i32 = app
            .scalar("SELECT max(pushes) FROM job_ledger WHERE kind = 'checkout.settle-event'")
            .await;
        assert_eq!(pushes, 1);
    })
    .await;
}

#[tokio::test]
async fn case_05_what_is_begun_or_under_way_is_no_payment() {
    TestApp::run(async |app| {
        app.start_workers().await;
        for (provider, kinds) in [
            (Provider::Stripe, &["payment_intent.created", "payment_intent.requires_action"][..]),
            // Razorpay says nothing of what is begun.
            (Provider::Razorpay, &[]),
        ] {
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;

            app.providers.act(&name, &Act::RequireAction).unwrap();
            hear_all(app).await;

            purchase.assert_not_paid().await;
            assert_eq!(purchase.timeline().await, ["placed"]);
            assert_eq!(purchase.attempts().await, ["open"]);
            for kind in kinds {
                assert_eq!(fate_of_kind(app, kind).await.len(), 1, "{kind}");
            }

            app.providers.succeed(&name).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_05_money_that_is_set_aside_is_no_payment_until_it_is_collected() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Razorpay).await;
        app.providers.fail_next(Operation::CapturePayment, Fault::BadGatewayBefore, 100);

        app.providers.succeed(&name).unwrap();
        hear_all(app).await;

        purchase.assert_not_paid().await;
        assert_eq!(purchase.attempts().await, ["authorized"]);
        assert_eq!(app.providers.ledger().captures, []);

        app.providers.clear_faults();
        app.hurry().await;
        hear_all(app).await;

        purchase.assert_paid().await;
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_31_a_shopper_whose_card_is_declined_pays_with_another() {
    TestApp::run(async |app| {
        app.start_workers().await;
        for (provider, timeline) in [
            (Provider::Stripe, &["placed", "payment_failed", "payment_settled"][..]),
            (
                Provider::Razorpay,
                &["placed", "payment_failed", "deadline_extended", "payment_settled"],
            ),
        ] {
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;
            let deadline = purchase.shopper.order(purchase.order_id).await.at("/expires_at");

            for _ in 0..2 {
                app.providers.decline(&name, "insufficient_funds").unwrap();
                hear_all(app).await;
            }

            purchase.assert_not_paid().await;
            let order = purchase.shopper.order(purchase.order_id).await;
            assert_eq!(order.at("/status"), "awaiting_payment");
            assert_eq!(order.at("/expires_at"), deadline);
            assert_eq!(purchase.hold().await, "held");
            assert_eq!(purchase.attempts().await, ["open"]);
            let declines = purchase.told_of("payment_failed").await;
            assert_eq!(declines.len(), 1, "{declines:?}");
            assert_eq!(declines[0]["code"], "insufficient_funds");
            assert_eq!(failure_mails(app, &declines[0]), 1);

            app.providers.succeed(&name).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.timeline().await, timeline);
            assert_eq!(failure_mails(app, &declines[0]), 1);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

/// How many mails tell of the decline.
fn failure_mails(app: &TestApp, decline: &Value) -> usize {
    let payment_id: Uuid = decline["payment_id"].as_str().unwrap().parse().unwrap();
    app.mails("payment-failed", payment_id).len()
}

#[tokio::test]
async fn case_31_after_a_decline_the_stock_is_kept_until_the_deadline_and_no_longer() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Stripe).await;
        app.providers.decline(&name, "generic_decline").unwrap();
        hear_all(app).await;
        assert_eq!(app.stock_of(purchase.mug).await, (5, UNITS));

        app.age(purchase.order_id, 16).await;
        hear_all(app).await;

        assert_eq!(purchase.timeline().await, ["placed", "payment_failed", "deadline_passed"]);
        assert_eq!(app.stock_of(purchase.mug).await, (5, 0));
        // Nobody can pay for what nobody holds.
        assert_eq!(purchase.attempts().await, ["cancelled"]);
        app.providers.succeed(&name).unwrap_err();
    })
    .await;
}

#[tokio::test]
async fn case_32_a_payment_that_takes_its_time_is_waited_for_an_hour_longer_once() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Stripe).await;

        app.providers.act(&name, &Act::Process).unwrap();
        hear_all(app).await;

        let order = purchase.shopper.order(purchase.order_id).await;
        let left = order.at("/expires_in").as_u64().unwrap();
        assert!((3_590..=3_601).contains(&left), "{left} s are left");
        assert_eq!(purchase.timeline().await, ["placed", "deadline_extended"]);
        assert_eq!(purchase.attempts().await, ["processing"]);

        // It is said once more, later.
        app.age(purchase.order_id, 50).await;
        app.providers.tell(Provider::Stripe, "payment_intent.processing", &json!({ "id": name }));
        hear_all(app).await;

        let order = purchase.shopper.order(purchase.order_id).await;
        let left = order.at("/expires_in").as_u64().unwrap();
        assert!((1..=601).contains(&left), "{left} s are left");

        app.providers.succeed(&name).unwrap();
        hear_all(app).await;

        purchase.assert_paid().await;
        let timeline = purchase.timeline().await;
        assert_eq!(timeline, ["placed", "deadline_extended", "payment_settled"]);
        assert_eq!(purchase.mails("reservation-expired"), 0);
    })
    .await;
}

#[tokio::test]
async fn case_32_a_payment_that_takes_longer_still_pays_late() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Stripe).await;
        app.providers.act(&name, &Act::Process).unwrap();
        hear_all(app).await;

        app.age(purchase.order_id, 61).await;
        hear_all(app).await;
        assert_eq!(purchase.status().await, "expired");
        assert_eq!(purchase.attempts().await, ["cancelling"]);

        app.providers.succeed(&name).unwrap();
        hear_all(app).await;
        // What was to withdraw it comes to its end, too.
        app.hurry().await;
        hear_all(app).await;

        purchase.assert_paid().await;
        let timeline = ["placed", "deadline_extended", "deadline_passed", "payment_settled"];
        assert_eq!(purchase.timeline().await, timeline);
        assert_eq!(purchase.attempts().await, ["captured"]);
    })
    .await;
}

#[tokio::test]
async fn case_33_money_that_is_set_aside_is_collected_by_the_shop() {
    TestApp::run(async |app| {
        app.start_workers().await;
        for provider in BOTH {
            let (purchase, name) = set_aside(app, provider).await;

            app.providers.succeed(&name).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(
                purchase.timeline().await,
                ["placed", "deadline_extended", "payment_settled"]
            );
            assert_eq!(purchase.attempts().await, ["captured"]);
        }
        assert_eq!(app.providers.calls(Operation::CaptureIntent), 1);
        assert_eq!(app.providers.calls(Operation::CapturePayment), 1);
        assert_eq!(app.providers.ledger().captures.len(), 2);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_33_money_that_is_set_aside_for_a_dead_order_is_not_collected() {
    TestApp::run(async |app| {
        for (provider, standing) in
            [(Provider::Stripe, "canceled"), (Provider::Razorpay, "authorized")]
        {
            let (purchase, name) = set_aside(app, provider).await;
            app.providers.set_delivery(provider, Delivery::Paused);
            app.providers.succeed(&name).unwrap();
            purchase.expire().await;

            app.providers.set_delivery(provider, Delivery::Normal);
            hear_all(app).await;

            purchase.assert_not_paid().await;
            assert_eq!(purchase.status().await, "expired");
            assert_eq!(purchase.fates().await, []);
            assert_eq!(purchase.attempts().await, ["cancelled"]);
            let known = app.providers.payments(provider);
            let known = known.into_iter().find(|known| known.reference == name).unwrap();
            let status = known.payments.first().map_or(known.status, |(_, status)| status.clone());
            assert_eq!(status, standing);
        }
        assert_eq!(app.providers.ledger().captures, []);
        assert_eq!(app.providers.calls(Operation::CapturePayment), 0);
    })
    .await;
}

/// A purchase whose money the provider will set aside, and the provider's name for the payment.
///
/// Stripe does so where the account is set up that way, whatever we ask for.
async fn set_aside(app: &TestApp, provider: Provider) -> (Purchase<'_>, String) {
    let purchase = Purchase::begin(app).await;
    if provider == Provider::Razorpay {
        let name = purchase.open(provider).await;
        return (purchase, name);
    }
    let payment = app.attempt(purchase.order_id, holdfast::payments::Provider::Stripe).await;
    let form = format!(
        "amount={}&currency=usd&capture_method=manual&metadata[payment_id]={}",
        UNITS * PRICE,
        payment.id.uuid(),
    );
    let created = simulator::http_client()
        .build()
        .unwrap()
        .post(format!("{}/v1/payment_intents", app.providers.url(provider)))
        .bearer_auth(&app.providers.config().stripe_key)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .unwrap();
    let created: Value = serde_json::from_slice(&created.bytes().await.unwrap()).unwrap();
    let name = created["id"].as_str().unwrap().to_owned();
    app.providers.act(&name, &Act::RequireAction).unwrap();
    hear_all(app).await;
    assert_eq!(purchase.attempts().await, ["open"]);
    (purchase, name)
}

#[tokio::test]
async fn what_the_browser_brings_pays_the_order_though_every_webhook_is_lost() {
    TestApp::run(async |app| {
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Lost);
            let purchase = Purchase::begin(app).await;
            let opened = purchase.ask_to_pay(provider).await;
            let confirm = format!("/v1/payments/{}/confirm", opened.at("/id").as_str().unwrap());
            let name = match provider {
                Provider::Stripe => opened.at("/stripe/payment_intent_id"),
                Provider::Razorpay => opened.at("/razorpay/order_id"),
            };

            let acted = app.providers.succeed(name.as_str().unwrap()).unwrap();
            let proof = acted.checkout.map(|checkout| {
                json!({
                    "payment_id": checkout.razorpay_payment_id,
                    "signature": checkout.razorpay_signature,
                })
            });
            let confirmed = purchase.shopper.post(&confirm, &json!({ "razorpay": proof })).await;

            confirmed.assert_status(200);
            assert_eq!(confirmed.at("/order_status"), "paid");
            assert_eq!(confirmed.at("/state"), "captured");
            hear_all(app).await;
            purchase.assert_paid().await;
            assert_eq!(app.count("provider_events").await, 0);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn webhooks_that_come_after_the_browser_change_nothing() {
    TestApp::run(async |app| {
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Paused);
        }
        let mut purchases = Vec::new();
        for provider in BOTH {
            let purchase = Purchase::begin(app).await;
            let opened = purchase.ask_to_pay(provider).await;
            let id = opened.at("/id").as_str().unwrap().to_owned();
            let name = match provider {
                Provider::Stripe => opened.at("/stripe/payment_intent_id"),
                Provider::Razorpay => opened.at("/razorpay/order_id"),
            };
            app.providers.succeed(name.as_str().unwrap()).unwrap();
            let confirmed =
                purchase.shopper.post(&format!("/v1/payments/{id}/confirm"), &json!({})).await;
            assert_eq!(confirmed.at("/order_status"), "paid");
            purchases.push((purchase.timeline().await, purchase));
        }

        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Normal);
        }
        hear_all(app).await;

        for (timeline, purchase) in purchases {
            assert_eq!(purchase.timeline().await, timeline);
            assert_eq!(purchase.fates().await, [Fate::Accepted]);
            purchase.assert_paid().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_does_not_answer_a_question_is_asked_again() {
    TestApp::run(async |app| {
        for (provider, question) in [
            (Provider::Stripe, Operation::RetrieveIntent),
            (Provider::Razorpay, Operation::RetrieveOrder),
        ] {
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;
            app.providers.fail_next(question, Fault::ErrorBefore, 100);
            app.providers.decline(&name, "generic_decline").unwrap();
            app.start_workers().await;
            until("a question without an answer", async || {
                let failed = "job_ledger WHERE last_error IS NOT NULL AND state = 'ready'";
                match app.count(failed).await {
                    0 => Err("none yet".to_owned()),
                    _ => Ok(()),
                }
            })
            .await;
            assert_eq!(purchase.timeline().await, ["placed"]);

            app.providers.clear_faults();
            app.hurry().await;
            hear_all(app).await;

            assert_eq!(purchase.timeline().await, ["placed", "payment_failed"]);
        }
    })
    .await;
}
