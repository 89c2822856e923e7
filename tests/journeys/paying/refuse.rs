//! Orders that nobody can begin to pay.

use holdfast::{checkout::work, clients::Providers, context::Context};
use simulator::providers::{Fault, Provider};

use super::{BOTH, Buyer, ask, journey, key, opened, questions, strike};
use crate::support::{app::TestApp, client::checkout_body};

/// Both providers are refused with the problem; nothing is written, and nobody is asked.
async fn assert_not_payable(buyer: &Buyer<'_>, status: u16, code: &str) {
    let (before, asked) = (buyer.app.books().await, questions(buyer.app));
    for provider in BOTH {
        buyer.ask(&key(), provider).await.assert_problem(status, code);
    }
    assert_eq!(buyer.app.books().await, before);
    assert_eq!(questions(buyer.app), asked);
}

#[tokio::test]
async fn nobody_begins_to_pay_in_the_last_seconds() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;

        buyer.leave(29).await;
        assert_not_payable(&buyer, 410, "hold-ending").await;

        // Far enough from the limit for a slow machine.
        buyer.leave(60).await;
        for provider in BOTH {
            buyer.open(provider).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_whose_deadline_has_passed_is_not_paid_any_more() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        app.age(buyer.order_id, 16).await;

        assert_not_payable(&buyer, 410, "hold-expired").await;
        assert_eq!(work::sweep(&app.cx).await.unwrap(), 1);
        assert_not_payable(&buyer, 410, "hold-expired").await;

        assert_eq!(buyer.status().await, "expired");
    })
    .await;
}

#[tokio::test]
async fn an_order_that_is_paid_is_not_paid_again() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            buyer.pay(&attempt).await.assert_status(200);
            app.settle().await;

            assert_not_payable(&buyer, 409, "order-already-paid").await;

            buyer.assert_paid().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_that_was_given_up_is_not_paid() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        buyer.client.cancel(buyer.order_id).await.assert_status(200);

        assert_not_payable(&buyer, 409, "order-not-payable").await;
    })
    .await;
}

#[tokio::test]
async fn an_order_that_costs_nothing_is_not_paid() {
    journey(async |app| {
        let mug = app.product_with_stock(5).await;
        app.execute("UPDATE prices SET amount_minor = 0").await;
        let client = app.guest().await;
        let mut body = checkout_body(&[(mug, 1)]);
        body["expected_total"]["amount"] = 0.into();
        let placed = crate::support::client::Answer::to(client.checkout(&key(), &body)).await;
        placed.assert_status(201);
        let buyer = Buyer { app, client, mug, order_id: placed.order_id() };

        assert_not_payable(&buyer, 422, "nothing-to-pay").await;
    })
    .await;
}

/// Another API process, which has an account with Stripe only.
async fn without_razorpay(app: &TestApp, buyer: &Buyer<'_>) -> crate::support::client::Client {
    let providers = Providers { razorpay: None, stripe: app.cx.providers.stripe.clone() };
    let api = app.another_api(Context { providers, ..app.cx.clone() }).await;
    api.with_token(buyer.client.token(), buyer.client.id)
}

#[tokio::test]
async fn a_provider_with_whom_the_shop_has_no_account_is_not_offered() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let client = without_razorpay(app, &buyer).await;
        let (before, asked) = (app.books().await, questions(app));

        let refused = ask(&client, buyer.order_id, &key(), "razorpay").await;

        refused.assert_problem(422, "provider-not-offered");
        assert_eq!(app.books().await, before);
        assert_eq!(questions(app), asked);
        opened(&ask(&client, buyer.order_id, &key(), "stripe").await);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_the_provider_may_not_have_is_not_begun_there_when_time_is_over() {
    journey(async |app| {
        let mut late = Vec::new();
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let key = key();
            strike(app, provider, Fault::BadGatewayBefore);
            buyer.ask(&key, provider).await.assert_status(503);
            app.providers.clear_faults();
            let asked = questions(app);

            buyer.leave(29).await;
            buyer.ask(&key, provider).await.assert_problem(410, "hold-ending");
            app.age(buyer.order_id, 16).await;
            buyer.ask(&key, provider).await.assert_problem(410, "hold-expired");

            assert_eq!(questions(app), asked);
            late.push((buyer, key, provider));
        }

        app.work_off().await;

        for (buyer, key, provider) in late {
            assert_eq!(buyer.status().await, "expired");
            assert_eq!(buyer.states().await, ["cancelled"]);
            let left = buyer.objects(provider);
            assert!(left.iter().all(|known| known.status == "canceled"), "{left:?}");
            let repeated = buyer.ask(&key, provider).await;
            repeated.assert_status(201);
            assert_eq!(repeated.at("/state"), "cancelled");
        }
    })
    .await;
}

#[tokio::test]
async fn a_repeat_after_the_deadline_hands_nothing_over() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let key = key();
            opened(&buyer.ask(&key, provider).await);
            app.age(buyer.order_id, 16).await;

            let repeated = buyer.ask(&key, provider).await;

            repeated.assert_status(201).assert_header("idempotency-replayed", "true");
            assert!(!super::hands_over(&repeated), "{repeated:?}");
            app.work_off().await;
            assert_eq!(buyer.states().await, ["cancelled"]);
            if provider == Provider::Stripe {
                assert!(!buyer.objects(provider)[0].is_open);
            }
        }
    })
    .await;
}
