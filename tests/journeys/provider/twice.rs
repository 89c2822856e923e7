//! The same news twice, in another order or before our own; and money that comes twice.

use futures_util::future::join_all;
use holdfast::{
    checkout::settle_events,
    payments::{Fate, Surplus},
};
use serde_json::json;
use simulator::providers::{Act, Capture, Delivery, Fault, Operation, Provider, Told};

use super::{BOTH, Purchase, assert_ledgers_agree, fate_of_kind, hear_all, inbox_of, kept};
use crate::support::{app::TestApp, client::until, shop::PRICE};

/// The events of a kind, the first one first.
fn events_of(app: &TestApp, kind: &str) -> Vec<Told> {
    let mut events = app.providers.events();
    events.retain(|told| told.kind == kind);
    events
}

/// Sends the events once more and waits until each has arrived so many times.
async fn tell_again(app: &TestApp, events: &[Told], times: usize) {
    let arrived = |id: &str| {
        let attempts = app.providers.attempts();
        attempts.iter().filter(|attempt| attempt.event_id == id).count()
    };
    let before: Vec<_> = events.iter().map(|told| arrived(&told.id)).collect();
    for _ in 0..times {
        assert!(events.iter().all(|told| app.providers.redeliver(&told.id)));
    }
    until("the webhooks come again", async || {
        let came: Vec<_> = events.iter().map(|told| arrived(&told.id)).collect();
        let is_complete = came.iter().zip(&before).all(|(came, before)| *came >= before + times);
        if is_complete { Ok(()) } else { Err(format!("{came:?} after {before:?}")) }
    })
    .await;
    hear_all(app).await;
}

#[tokio::test]
async fn case_01_webhooks_that_come_many_times_at_once_are_one_payment() {
    TestApp::run(async |app| {
        app.start_workers().await;
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Tripled);
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;

            app.providers.succeed(&name).unwrap();
            hear_all(app).await;
            tell_again(app, &app.providers.events(), 4).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.fates().await, [Fate::Accepted]);
            assert_eq!(app.stock_of(purchase.mug).await, (3, 0));
        }
        assert_eq!(inbox_of(app).await.len(), app.providers.events().len());
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_01_workers_with_the_same_webhooks_settle_them_once() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let mut purchases = Vec::new();
        for provider in [BOTH, BOTH, BOTH].concat() {
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;
            app.providers.succeed(&name).unwrap();
            purchases.push(purchase);
        }
        let forwards = kept(app).await;
        let backwards: Vec<_> = forwards.iter().rev().copied().collect();

        let workers =
            [&forwards, &backwards, &forwards, &backwards].map(|ids| settle_events(&app.cx, ids));
        let outcomes = join_all(workers).await.concat();

        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        hear_all(app).await;
        for purchase in purchases {
            purchase.assert_paid().await;
            assert_eq!(purchase.fates().await, [Fate::Accepted]);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_02_two_kinds_of_news_of_the_same_money_are_one_capture() {
    TestApp::run(async |app| {
        app.start_workers().await;
        for (provider, kinds) in [
            (
                Provider::Stripe,
                [("charge.succeeded", "ignored"), ("payment_intent.succeeded", "done")],
            ),
            (Provider::Razorpay, [("payment.captured", "done"), ("order.paid", "done")]),
        ] {
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;

            app.providers.succeed(&name).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.fates().await, [Fate::Accepted]);
            for (kind, fate) in kinds {
                assert_eq!(fate_of_kind(app, kind).await, [fate], "{kind}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_03_news_that_comes_backwards_pays_all_the_same() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        app.start_workers().await;
        for provider in BOTH {
            app.providers.set_delivery(provider, Delivery::Reordered);
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;

            app.providers.decline(&name, "generic_decline").unwrap();
            app.providers.succeed(&name).unwrap();
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.fates().await, [Fate::Accepted]);
            // By the time anybody asked, the decline was history.
            assert_eq!(purchase.timeline().await, ["placed", "payment_settled"]);
            assert_eq!(app.count("deliveries WHERE template = 'payment-failed'").await, 0);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_03_a_paid_order_stays_paid_whatever_is_heard_later() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        for (provider, success, earlier) in [
            (
                Provider::Stripe,
                "payment_intent.succeeded",
                &["payment_intent.payment_failed", "payment_intent.created", "charge.failed"][..],
            ),
            (Provider::Razorpay, "payment.captured", &["payment.failed", "payment.authorized"]),
        ] {
            app.providers.set_delivery(provider, Delivery::Lost);
            let purchase = Purchase::begin(app).await;
            let name = purchase.open(provider).await;
            app.providers.decline(&name, "generic_decline").unwrap();
            app.providers.succeed(&name).unwrap();
            tell_again(app, &events_of(app, success), 1).await;
            purchase.assert_paid().await;
            let timeline = purchase.timeline().await;

            for kind in earlier {
                tell_again(app, &events_of(app, kind), 1).await;
                assert_ne!(fate_of_kind(app, kind).await, ["new"], "{kind}");
            }

            purchase.assert_paid().await;
            assert_eq!(purchase.timeline().await, timeline);
            assert_eq!(purchase.attempts().await, ["captured"]);
        }
        assert_eq!(app.count("deliveries WHERE template = 'payment-failed'").await, 0);
    })
    .await;
}

#[tokio::test]
async fn case_03_a_payment_that_failed_and_is_authorised_after_all_pays_the_order() {
    TestApp::run(async |app| {
        app.start_workers().await;
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Razorpay).await;
        app.providers.decline(&name, "gateway_error").unwrap();
        hear_all(app).await;
        assert_eq!(purchase.timeline().await, ["placed", "payment_failed"]);

        app.providers.act(&name, &Act::AuthoriseLate).unwrap();
        hear_all(app).await;

        purchase.assert_paid().await;
        assert_eq!(
            purchase.timeline().await,
            ["placed", "payment_failed", "deadline_extended", "payment_settled"]
        );
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_04_a_webhook_that_comes_before_our_own_answer_finds_its_payment() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        app.start_workers().await;
        let paid_unanswered = async |provider, creation| {
            let purchase = Purchase::begin(app).await;
            app.providers.fail_next(creation, Fault::HangAfter, 1);

            let pays = async {
                let name = until("the provider has the payment", async || {
                    match app.providers.payments(provider).pop() {
                        Some(payment) => Ok(payment.reference),
                        None => Err("it has none".to_owned()),
                    }
                })
                .await;
                assert_eq!(purchase.attempts().await, ["creating"]);
                app.providers.succeed(&name).unwrap();
                hear_all(app).await;
                // Nobody has answered us yet.
                purchase.assert_paid().await;
                assert_eq!(purchase.attempts().await, ["captured"]);
                name
            };
            let (opened, name) = tokio::join!(purchase.ask_to_pay(provider), pays);

            opened.assert_status(201);
            assert_eq!(opened.at("/state"), "captured");
            assert_eq!(opened.at("/order_status"), "paid");
            let attempt: Option<String> =
                sqlx::query_scalar("SELECT provider_ref FROM payments WHERE order_id = $1")
                    .bind(purchase.order_id)
                    .fetch_one(&app.db)
                    .await
                    .unwrap();
            assert_eq!(attempt, Some(name));
            assert_eq!(purchase.fates().await, [Fate::Accepted]);
        };

        tokio::join!(
            paid_unanswered(Provider::Stripe, Operation::CreateIntent),
            paid_unanswered(Provider::Razorpay, Operation::CreateOrder),
        );

        assert_eq!(app.providers.payments(Provider::Stripe).len(), 1);
        assert_eq!(app.providers.payments(Provider::Razorpay).len(), 1);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_04_a_webhook_that_does_not_say_whose_it_is_is_looked_up_and_found() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let purchase = Purchase::begin(app).await;
        let payment = app.attempt(purchase.order_id, holdfast::payments::Provider::Razorpay).await;
        // The order has our receipt, and its payments have no notes of ours.
        let config = app.providers.config();
        let created = simulator::http_client()
            .build()
            .unwrap()
            .post(format!("{}/v1/orders", app.providers.url(Provider::Razorpay)))
            .basic_auth(&config.razorpay_key_id, Some(&config.razorpay_key_secret))
            .json(&json!({
                "amount": 2 * PRICE,
                "currency": "USD",
                "receipt": payment.provider_key(),
            }));
        let created = created.send().await.unwrap();
        assert_eq!(created.status(), 200);
        let name = app.providers.payments(Provider::Razorpay)[0].reference.clone();

        app.providers.succeed(&name).unwrap();
        hear_all(app).await;

        purchase.assert_paid().await;
        for kind in ["payment.authorized", "payment.captured", "order.paid"] {
            assert_eq!(fate_of_kind(app, kind).await, ["done"], "{kind}");
        }
        assert_eq!(app.count("captures").await, 1);
    })
    .await;
}

/// An order with an attempt at each provider that can be paid: Stripe did not hear that the first was
/// withdrawn.
async fn with_two_attempts(app: &TestApp) -> (Purchase<'_>, String, String) {
    let purchase = Purchase::begin(app).await;
    let first = purchase.open(Provider::Stripe).await;
    app.providers.fail_next(Operation::CancelIntent, Fault::ResetBefore, 100);
    let second = purchase.open(Provider::Razorpay).await;
    assert_eq!(purchase.attempts().await, ["cancelling", "open"]);
    (purchase, first, second)
}

#[tokio::test]
async fn case_11_who_pays_twice_is_due_the_second_money_back() {
    TestApp::run(async |app| {
        for late in BOTH {
            let (purchase, first, second) = with_two_attempts(app).await;
            app.providers.set_capture(Capture::Automatic);
            let names = match late {
                Provider::Stripe => [second, first],
                Provider::Razorpay => [first, second],
            };

            for name in names {
                app.providers.succeed(&name).unwrap();
                hear_all(app).await;
            }
            app.providers.clear_faults();
            app.hurry().await;
            hear_all(app).await;

            purchase.assert_paid().await;
            let fates = [Fate::Accepted, Fate::RefundDue(Surplus::AlreadyPaid)];
            assert_eq!(purchase.fates().await, fates);
            let timeline = ["placed", "payment_settled", "payment_refund_due", "refund_succeeded"];
            assert_eq!(purchase.timeline().await, timeline);
            let due = &purchase.told_of("payment_refund_due").await[0];
            assert_eq!(due["reason"], "already_paid");
            assert_eq!(purchase.attempts().await, ["captured", "captured"]);
            assert_eq!(app.stock_of(purchase.mug).await, (3, 0));
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_11_an_order_that_is_paid_withdraws_what_else_could_be_paid() {
    TestApp::run(async |app| {
        let (purchase, first, second) = with_two_attempts(app).await;
        app.providers.clear_faults();

        app.providers.succeed(&second).unwrap();
        hear_all(app).await;
        app.hurry().await;
        hear_all(app).await;

        purchase.assert_paid().await;
        assert_eq!(purchase.attempts().await, ["cancelled", "captured"]);
        app.providers.succeed(&first).unwrap_err();
        assert_eq!(app.providers.ledger().captures.len(), 1);
        purchase.ask_to_pay(Provider::Stripe).await.assert_problem(409, "order-already-paid");
    })
    .await;
}

#[tokio::test]
async fn case_11_an_order_that_is_paid_by_an_attempt_given_up_withdraws_the_one_that_followed() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let purchase = Purchase::begin(app).await;
        let first = purchase.open(Provider::Razorpay).await;
        app.providers.fail_next(Operation::RetrieveOrder, Fault::ResetBefore, 100);
        let second = purchase.open(Provider::Stripe).await;
        assert_eq!(purchase.attempts().await, ["cancelling", "open"]);

        app.providers.succeed(&first).unwrap();
        hear_all(app).await;
        app.providers.clear_faults();
        app.hurry().await;
        hear_all(app).await;

        purchase.assert_paid().await;
        assert_eq!(purchase.attempts().await, ["captured", "cancelled"]);
        app.providers.succeed(&second).unwrap_err();
        assert_eq!(purchase.fates().await, [Fate::Accepted]);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_11_a_provider_that_collects_twice_for_one_attempt_owes_one_of_them() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Razorpay).await;

        app.providers.succeed(&name).unwrap();
        app.providers.act(&name, &Act::PayAgain).unwrap();
        hear_all(app).await;

        purchase.assert_paid().await;
        let fates = purchase.fates().await;
        assert_eq!(fates.len(), 2);
        assert!(fates.contains(&Fate::RefundDue(Surplus::AlreadyPaid)));
        let timeline = purchase.timeline().await;
        assert_eq!(
            timeline,
            ["placed", "payment_settled", "payment_refund_due", "refund_succeeded"]
        );
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_11_both_payments_of_one_moment_are_one_sale() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        app.start_workers().await;
        let (purchase, first, second) = with_two_attempts(app).await;

        app.providers.succeed(&first).unwrap();
        app.providers.succeed(&second).unwrap();
        hear_all(app).await;
        app.providers.clear_faults();
        app.hurry().await;
        hear_all(app).await;

        purchase.assert_paid().await;
        let fates = purchase.fates().await;
        assert_eq!(fates.len(), 2);
        assert!(fates.contains(&Fate::RefundDue(Surplus::AlreadyPaid)));
        assert_eq!(app.stock_of(purchase.mug).await, (3, 0));
        assert_ledgers_agree(app).await;
    })
    .await;
}
