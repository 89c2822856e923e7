//! What the browser says of a payment: that it is time to ask, and no more.

use futures_util::future::join_all;
use holdfast::checkout::work;
use serde_json::{Value, json};
use simulator::providers::{Act, Capture, Checkout, Fault, Operation, Provider, sign_checkout};

use super::{
    BOTH, Buyer, Opened, confirm, hands_over, journey, key, proof_body, questions, strike,
};
use crate::support::client::until;

#[tokio::test]
async fn a_payment_that_went_through_pays_its_order_at_once() {
    journey(async |app| {
        for capture in [Capture::Manual, Capture::Automatic] {
            app.providers.set_capture(capture);
            for provider in BOTH {
                let buyer = Buyer::begin(app).await;
                let attempt = buyer.open(provider).await;

                let told = buyer.pay(&attempt).await;

                told.assert_status(200);
                assert_eq!(told.at("/state"), "captured");
                assert_eq!(told.at("/order_status"), "paid");
                assert!(!hands_over(&told));
                buyer.assert_paid().await;
                let looked_at = buyer.payment(attempt.id).await;
                assert_eq!(looked_at.json::<Value>(), told.json::<Value>());
            }
        }
        assert_eq!(app.providers.calls(Operation::CapturePayment), 1);
        assert_eq!(app.providers.ledger().captures.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn confirming_again_changes_nothing_and_asks_nobody() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            let proof = app.providers.succeed(&attempt.reference).unwrap().checkout;
            let first = buyer.confirm(attempt.id, proof.as_ref()).await;
            app.settle().await;
            let (before, asked) = (app.books().await, questions(app));

            let second = buyer.confirm(attempt.id, proof.as_ref()).await;
            let third = buyer.confirm(attempt.id, None).await;

            second.assert_status(200);
            assert_eq!(second.json::<Value>(), first.json::<Value>());
            assert_eq!(third.json::<Value>(), first.json::<Value>());
            assert_eq!(app.books().await, before);
            assert_eq!(questions(app), asked);
        }
    })
    .await;
}

#[tokio::test]
async fn many_confirmations_at_once_are_one_sale() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            let proof = app.providers.succeed(&attempt.reference).unwrap().checkout;

            let told = join_all((0..8).map(|_| buyer.confirm(attempt.id, proof.as_ref()))).await;

            for told in told {
                told.assert_status(200);
                assert_eq!(told.at("/state"), "captured");
            }
            app.settle().await;
            buyer.assert_paid().await;
            assert_eq!(app.mails("order-confirmed", buyer.order_id).len(), 1);
            assert_eq!(buyer.fates().await.len(), 1);
        }
        assert_eq!(app.providers.ledger().captures.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_provider_is_asked_without_a_proof_as_well() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let attempt = buyer.open(Provider::Razorpay).await;
        app.providers.succeed(&attempt.reference).unwrap();

        let told = buyer.confirm(attempt.id, None).await;

        assert_eq!(told.at("/order_status"), "paid");
        buyer.assert_paid().await;
    })
    .await;
}

#[tokio::test]
async fn case_05_what_is_only_begun_is_no_payment_whatever_the_browser_says() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            let before = app.books().await;

            let begun = buyer.confirm(attempt.id, None).await;
            app.providers.act(&attempt.reference, &Act::RequireAction).unwrap();
            let asked_for_more = buyer.confirm(attempt.id, None).await;

            for told in [begun, asked_for_more] {
                told.assert_status(200);
                assert_eq!(told.at("/state"), "open");
                assert_eq!(told.at("/order_status"), "awaiting_payment");
                assert!(!hands_over(&told));
            }
            assert_eq!(app.books().await, before);
            buyer.pay(&attempt).await.assert_status(200);
            buyer.assert_paid().await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_05_a_payment_under_way_is_no_payment_yet() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let attempt = buyer.open(Provider::Stripe).await;
        app.providers.act(&attempt.reference, &Act::Process).unwrap();

        let told = buyer.confirm(attempt.id, None).await;

        told.assert_status(200);
        assert_eq!(told.at("/state"), "processing");
        assert_eq!(told.at("/order_status"), "awaiting_payment");
        assert!(told.at("/expires_in").as_u64().unwrap() > 3_000, "{told:?}");
        buyer.assert_waits().await;
        let before = app.books().await;
        buyer.confirm(attempt.id, None).await.assert_status(200);
        assert_eq!(app.books().await, before);
        app.providers.succeed(&attempt.reference).unwrap();
        buyer.confirm(attempt.id, None).await.assert_status(200);
        buyer.assert_paid().await;
    })
    .await;
}

#[tokio::test]
async fn a_decline_is_told_and_leaves_the_attempt_open() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            app.providers.decline(&attempt.reference, "insufficient_funds").unwrap();

            let told = buyer.confirm(attempt.id, None).await;

            told.assert_status(200);
            assert_eq!(told.at("/state"), "open");
            assert_eq!(told.at("/last_decline"), "insufficient_funds");
            buyer.assert_waits().await;
            buyer.pay(&attempt).await.assert_status(200);
            buyer.assert_paid().await;
        }
    })
    .await;
}

/// A buyer who has paid with Razorpay and can prove it, and whom nobody has asked yet.
async fn with_proof(buyer: &Buyer<'_>) -> (Opened, Checkout) {
    let attempt = buyer.open(Provider::Razorpay).await;
    let acted = buyer.app.providers.succeed(&attempt.reference).unwrap();
    (attempt, acted.checkout.unwrap())
}

#[tokio::test]
async fn a_proof_that_is_not_signed_for_this_payment_is_refused_and_changes_nothing() {
    journey(async |app| {
        let (buyer, other) = (Buyer::begin(app).await, Buyer::begin(app).await);
        let (attempt, proof) = with_proof(&buyer).await;
        let (others, others_proof) = with_proof(&other).await;
        let secret = &app.providers.config().razorpay_key_secret;
        let (before, asked) = (app.books().await, questions(app));

        let signed = |signature: &str| Checkout {
            razorpay_signature: signature.to_owned(),
            ..proof.clone()
        };
        let flipped: String = proof.razorpay_signature.chars().rev().collect();
        for forged in [
            signed(&flipped),
            signed("00"),
            signed("no hex at all"),
            signed(&proof.razorpay_signature[1..]),
            signed(&others_proof.razorpay_signature),
            signed(&sign_checkout("guessed", &attempt.reference, &proof.razorpay_payment_id)),
            // It is well signed, of an order that is not ours.
            others_proof.clone(),
            signed(&sign_checkout(secret, &others.reference, &proof.razorpay_payment_id)),
            Checkout { razorpay_payment_id: "pay_none".to_owned(), ..proof.clone() },
            Checkout {
                razorpay_payment_id: others_proof.razorpay_payment_id.clone(),
                ..proof.clone()
            },
        ] {
            let refused = buyer.confirm(attempt.id, Some(&forged)).await;
            refused.assert_problem(400, "bad-signature");
        }

        assert_eq!(app.books().await, before);
        assert_eq!(questions(app), asked);
        buyer.confirm(attempt.id, Some(&proof)).await.assert_status(200);
        buyer.assert_paid().await;
        other.assert_waits().await;
    })
    .await;
}

#[tokio::test]
async fn a_signed_charge_of_another_order_pays_nothing() {
    journey(async |app| {
        let (buyer, other) = (Buyer::begin(app).await, Buyer::begin(app).await);
        let attempt = buyer.open(Provider::Razorpay).await;
        let (_, others_proof) = with_proof(&other).await;
        let charge = &others_proof.razorpay_payment_id;
        let secret = &app.providers.config().razorpay_key_secret;
        let before = app.books().await;

        let crossed = Checkout {
            razorpay_signature: sign_checkout(secret, &attempt.reference, charge),
            ..others_proof.clone()
        };
        let refused = buyer.confirm(attempt.id, Some(&crossed)).await;

        refused.assert_problem(400, "bad-signature");
        assert_eq!(app.books().await, before);
        assert_eq!(app.providers.ledger().captures, []);
    })
    .await;
}

#[tokio::test]
async fn a_proof_names_no_order_and_is_none_for_stripe() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let (attempt, proof) = with_proof(&buyer).await;
        let stripes = Buyer::begin(app).await;
        let intent = stripes.open(Provider::Stripe).await;
        let before = app.books().await;

        let mut named = proof_body(Some(&proof));
        named["razorpay"]["order_id"] = proof.razorpay_order_id.clone().into();
        for body in [
            named,
            json!({ "status": "succeeded" }),
            json!({ "razorpay": {} }),
            json!({ "razorpay": { "payment_id": "", "signature": "" } }),
            json!({ "razorpay": { "payment_id": "pay_1", "signature": "0".repeat(201) } }),
        ] {
            let refused = confirm(&buyer.client, attempt.id, &body).await;
            refused.assert_problem(422, "invalid-request");
        }
        let refused = stripes.confirm(intent.id, Some(&proof)).await;
        refused.assert_problem(400, "bad-signature");

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn money_that_is_set_aside_is_collected_by_a_job_where_the_browsers_turn_failed() {
    journey(async |app| {
        for fault in [Fault::BadGatewayBefore, Fault::ErrorAfter, Fault::ResetAfter] {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(Provider::Razorpay).await;
            app.providers.fail_next(Operation::CapturePayment, fault, u32::MAX);

            let lost = buyer.pay(&attempt).await;

            lost.assert_problem(503, "provider-unavailable").assert_header("retry-after", "2");
            assert_eq!(buyer.states().await, ["authorized"]);
            buyer.assert_waits().await;
            app.providers.clear_faults();
            app.work_off().await;
            buyer.assert_paid().await;
            assert_eq!(buyer.payment(attempt.id).await.at("/state"), "captured");
        }
        assert_eq!(app.providers.ledger().captures.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn without_the_providers_word_nothing_is_believed() {
    journey(async |app| {
        for provider in BOTH {
            for fault in [Fault::BadGatewayBefore, Fault::ErrorBefore, Fault::MalformedAnswer] {
                let buyer = Buyer::begin(app).await;
                let attempt = buyer.open(provider).await;
                let proof = app.providers.succeed(&attempt.reference).unwrap().checkout;
                let before = app.books().await;
                strike(app, provider, fault);

                let lost = buyer.confirm(attempt.id, proof.as_ref()).await;

                lost.assert_problem(503, "provider-unavailable");
                assert_eq!(app.books().await, before);
                app.providers.clear_faults();
                buyer.confirm(attempt.id, proof.as_ref()).await.assert_status(200);
                buyer.assert_paid().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_the_browser_was_never_given_is_not_asked_for() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            strike(app, provider, Fault::ErrorAfter);
            buyer.ask(&key(), provider).await.assert_status(503);
            let id = buyer.attempts().await[0].id.uuid();
            app.providers.clear_faults();
            let (before, asked) = (app.books().await, questions(app));

            let told = buyer.confirm(id, None).await;

            told.assert_status(200);
            assert_eq!(told.at("/state"), "creating");
            assert_eq!(app.books().await, before);
            assert_eq!(questions(app), asked);
        }
    })
    .await;
}

#[tokio::test]
async fn case_06_paid_in_time_and_confirmed_after_expiry_the_order_is_served() {
    journey(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let mut buyers = Vec::new();
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            let proof = app.providers.succeed(&attempt.reference).unwrap().checkout;
            app.age(buyer.order_id, 16).await;
            work::sweep(&app.cx).await.unwrap();
            assert_eq!(buyer.status().await, "expired");

            let told = buyer.confirm(attempt.id, proof.as_ref()).await;

            told.assert_status(200);
            assert_eq!(told.at("/order_status"), "paid");
            buyer.assert_paid().await;
            buyers.push(buyer);
        }

        app.work_off().await;

        for buyer in buyers {
            buyer.assert_paid().await;
            assert_eq!(buyer.states().await, ["captured"]);
        }
    })
    .await;
}

#[tokio::test]
async fn the_browser_may_be_first_or_second_to_tell() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            let proof = app.providers.succeed(&attempt.reference).unwrap().checkout;
            let events = app.providers.events();
            app.start_workers().await;

            // Every webhook comes at the very moment in which the browser says so.
            for told in &events {
                assert!(app.providers.redeliver(&told.id));
            }
            until("the browser is heard", async || {
                let told = buyer.confirm(attempt.id, proof.as_ref()).await;
                if told.status == 200 { Ok(()) } else { Err(told.body) }
            })
            .await;

            until("the webhooks are done with", async || {
                let open = app.count("provider_events WHERE state = 'new'").await;
                let came = app.count("provider_events").await;
                if open == 0 && came > 0 {
                    Ok(())
                } else {
                    Err(format!("{open} of {came} are new"))
                }
            })
            .await;
            app.settle().await;
            buyer.assert_paid().await;
            assert_eq!(buyer.fates().await.len(), 1);
        }
    })
    .await;
}
