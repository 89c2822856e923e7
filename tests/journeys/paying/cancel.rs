//! Giving up an order that somebody has begun to pay.

use futures_util::future::join_all;
use holdfast::{
    kernel::OrderId,
    payments::{
        Fate, Surplus,
        refunds::{State, store::of_orders},
    },
};
use simulator::providers::{Act, Capture, Fault, Operation, Provider};

use super::{BOTH, Buyer, TOTAL, hands_over, journey, key, other, questions, standing, strike};

impl Buyer<'_> {
    /// The order is given up, and its units are on sale again.
    async fn assert_given_up(&self) {
        assert_eq!(self.status().await, "cancelled");
        assert_eq!(self.app.hold_of(self.order_id, self.mug).await, "released");
        assert_eq!(self.app.stock_of(self.mug).await, (5, 0));
    }

    /// How much of the order's money is back with the shopper.
    async fn sent_back(&self) -> i64 {
        let refunds = of_orders(&self.app.db, &[OrderId::from(self.order_id)]).await.unwrap();
        let made = refunds.iter().filter(|refund| refund.state == State::Succeeded);
        made.map(|refund| refund.amount_minor).sum()
    }
}

#[tokio::test]
async fn case_07_an_order_is_given_up_after_its_payment() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;

            let cancelled = buyer.client.cancel(buyer.order_id).await;

            cancelled.assert_status(200);
            assert_eq!(cancelled.at("/status"), "cancelled");
            buyer.assert_given_up().await;
            assert_eq!(buyer.states().await, ["cancelled"]);
            if provider == Provider::Stripe {
                assert_eq!(standing(app, provider, &attempt), "canceled");
                app.providers.succeed(&attempt.reference).unwrap_err();
            }

            let (before, asked) = (app.books().await, questions(app));
            buyer.client.cancel(buyer.order_id).await.assert_status(200);
            assert_eq!(app.books().await, before);
            assert_eq!(questions(app), asked);
        }
    })
    .await;
}

#[tokio::test]
async fn case_07_an_order_that_was_paid_unheard_is_given_up_and_its_money_goes_back() {
    journey(async |app| {
        app.providers.set_capture(Capture::Automatic);
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            app.providers.succeed(&attempt.reference).unwrap();

            let cancelled = buyer.client.cancel(buyer.order_id).await;

            cancelled.assert_status(200);
            buyer.assert_given_up().await;
            assert_eq!(buyer.states().await, ["captured"]);
            app.settle().await;
            assert_eq!(buyer.sent_back().await, TOTAL);
        }
    })
    .await;
}

#[tokio::test]
async fn case_07_an_order_whose_payment_is_under_way_waits_for_its_end() {
    journey(async |app| {
        for (provider, act, state) in [
            (Provider::Stripe, Act::Process, "processing"),
            (Provider::Razorpay, Act::Succeed, "authorized"),
        ] {
            let buyer = Buyer::begin(app).await;
            let attempt = buyer.open(provider).await;
            app.providers.act(&attempt.reference, &act).unwrap();

            for _ in 0..2 {
                let refused = buyer.client.cancel(buyer.order_id).await;
                refused.assert_problem(409, "payment-in-progress");
            }

            buyer.assert_waits().await;
            assert_eq!(buyer.states().await, [state]);
            if provider == Provider::Stripe {
                // It comes to nothing, after which the order can be given up.
                app.providers.decline(&attempt.reference, "generic_decline").unwrap();
                buyer.client.cancel(buyer.order_id).await.assert_status(200);
                buyer.assert_given_up().await;
                continue;
            }
            app.settle().await;
            buyer.assert_paid().await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_07_without_its_providers_word_an_order_is_not_given_up() {
    journey(async |app| {
        for provider in BOTH {
            for fault in [Fault::BadGatewayBefore, Fault::ErrorBefore, Fault::RateLimited] {
                let buyer = Buyer::begin(app).await;
                buyer.open(provider).await;
                let before = app.books().await;
                strike(app, provider, fault);

                let refused = buyer.client.cancel(buyer.order_id).await;

                refused.assert_problem(503, "provider-unavailable");
                assert_eq!(app.books().await, before);
                app.providers.clear_faults();
                buyer.client.cancel(buyer.order_id).await.assert_status(200);
                buyer.assert_given_up().await;
                assert_eq!(buyer.states().await, ["cancelled"]);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_07_a_provider_that_never_answers_does_not_keep_the_shopper() {
    journey(async |app| {
        let buyers = [Buyer::begin(app).await, Buyer::begin(app).await];
        for (buyer, provider) in buyers.iter().zip(BOTH) {
            buyer.open(provider).await;
            strike(app, provider, Fault::HangBefore);
        }

        let refusals =
            join_all(buyers.iter().map(|buyer| buyer.client.cancel(buyer.order_id))).await;

        for (buyer, refused) in buyers.iter().zip(refusals) {
            refused.assert_problem(503, "provider-unavailable");
            buyer.assert_waits().await;
            assert_eq!(buyer.states().await, ["open"]);
        }
    })
    .await;
}

#[tokio::test]
async fn case_07_an_attempt_that_nobody_heard_of_is_withdrawn_before_its_order_is_given_up() {
    journey(async |app| {
        for provider in BOTH {
            for fault in [Fault::BadGatewayBefore, Fault::ErrorAfter] {
                let buyer = Buyer::begin(app).await;
                let key = key();
                strike(app, provider, fault);
                buyer.ask(&key, provider).await.assert_status(503);

                buyer.client.cancel(buyer.order_id).await.assert_status(503);
                buyer.assert_waits().await;
                assert_eq!(buyer.states().await, ["creating"]);
                app.providers.clear_faults();
                buyer.client.cancel(buyer.order_id).await.assert_status(200);

                buyer.assert_given_up().await;
                assert_eq!(buyer.states().await, ["cancelled"]);
                if provider == Provider::Stripe {
                    assert!(buyer.objects(provider).iter().all(|known| !known.is_open));
                }
                let repeated = buyer.ask(&key, provider).await;
                repeated.assert_status(201);
                assert!(!hands_over(&repeated), "{repeated:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_07_an_attempt_that_was_left_behind_is_withdrawn_too() {
    journey(async |app| {
        for first in BOTH {
            let buyer = Buyer::begin(app).await;
            buyer.open(first).await;
            strike(app, first, Fault::BadGatewayBefore);
            buyer.open(other(first)).await;
            assert_eq!(buyer.states().await, ["cancelling", "open"]);

            buyer.client.cancel(buyer.order_id).await.assert_status(503);
            buyer.assert_waits().await;
            app.providers.clear_faults();
            buyer.client.cancel(buyer.order_id).await.assert_status(200);

            buyer.assert_given_up().await;
            assert_eq!(buyer.states().await, ["cancelled", "cancelled"]);
            app.work_off().await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_07_an_attempt_whose_key_a_failure_spoiled_is_withdrawn_within_the_day() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let key = key();
        // Stripe repeats a failure for as long as it knows the key.
        strike(app, Provider::Stripe, Fault::ErrorBefore);
        buyer.ask(&key, Provider::Stripe).await.assert_status(503);
        buyer.open(Provider::Razorpay).await;
        assert_eq!(buyer.states().await, ["cancelling", "open"]);
        app.providers.clear_faults();

        app.work_off().await;

        assert_eq!(buyer.states().await, ["cancelled", "open"]);
        assert!(buyer.objects(Provider::Stripe).iter().all(|known| !known.is_open));
        let repeated = buyer.ask(&key, Provider::Stripe).await;
        repeated.assert_status(201);
        assert!(!hands_over(&repeated), "{repeated:?}");
    })
    .await;
}

#[tokio::test]
async fn case_07_who_pays_and_gives_up_at_once_has_the_money_back() {
    journey(async |app| {
        app.providers.set_capture(Capture::Automatic);
        for provider in BOTH {
            for _ in 0..5 {
                let buyer = Buyer::begin(app).await;
                let attempt = buyer.open(provider).await;

                let cancel = buyer.client.cancel(buyer.order_id);
                let pay = async { app.providers.succeed(&attempt.reference).is_ok() };
                let (answer, is_charged) = tokio::join!(cancel, pay);
                buyer.confirm(attempt.id, None).await.assert_status(200);

                answer.assert_status(200);
                buyer.assert_given_up().await;
                assert_eq!(buyer.fates().await.len(), usize::from(is_charged));
                app.settle().await;
                assert_eq!(buyer.sent_back().await, if is_charged { TOTAL } else { 0 });
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_07_who_opens_and_gives_up_at_once_cannot_pay_what_is_given_up() {
    journey(async |app| {
        for provider in BOTH {
            for _ in 0..5 {
                let buyer = Buyer::begin(app).await;
                let key = key();

                let (opened, cancelled) =
                    tokio::join!(buyer.ask(&key, provider), buyer.client.cancel(buyer.order_id));
                if cancelled.status != 200 {
                    buyer.client.cancel(buyer.order_id).await.assert_status(200);
                }

                buyer.assert_given_up().await;
                assert!(matches!(opened.status, 201 | 409 | 503), "{opened:?}");
                let states = buyer.states().await;
                assert!(states.iter().all(|state| *state == "cancelled"), "{states:?}");
                if provider == Provider::Stripe {
                    assert!(buyer.objects(provider).iter().all(|known| !known.is_open));
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_08_money_that_comes_for_an_order_that_was_given_up_is_due_back() {
    journey(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let buyer = Buyer::begin(app).await;
        let attempt = buyer.open(Provider::Razorpay).await;
        buyer.client.cancel(buyer.order_id).await.assert_status(200);

        // Razorpay withdraws nothing: its window in the browser is open still.
        let told = buyer.pay(&attempt).await;

        told.assert_status(200);
        assert_eq!(
            (told.at("/state"), told.at("/order_status")),
            ("captured".into(), "cancelled".into())
        );
        assert_eq!(buyer.fates().await, [Fate::RefundDue(Surplus::OrderCancelled)]);
        buyer.assert_given_up().await;
        assert_eq!(app.providers.calls(Operation::CapturePayment), 0);
    })
    .await;
}
