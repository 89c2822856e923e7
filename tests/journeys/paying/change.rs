//! Changing one's mind about how to pay: an order has one attempt at a time.

use futures_util::future::join_all;
use holdfast::{
    kernel::PaymentId,
    payments::{
        Fate, Provider as Ours,
        store::{NewPayment, insert},
    },
};
use jobs::{Job, checkout::CancelPayment};
use simulator::providers::{Act, Capture, Fault, Operation, Provider};

use super::{BOTH, Buyer, hands_over, jobs_of, journey, key, opened, other, standing, strike};
use crate::support::app::TestApp;

/// Every first and second choice.
fn choices() -> impl Iterator<Item = (Provider, Provider)> {
    BOTH.into_iter().flat_map(|first| BOTH.map(|second| (first, second)))
}

/// What is left of a withdrawn attempt at its provider. Razorpay withdraws nothing.
const fn withdrawn(provider: Provider) -> &'static str {
    match provider {
        Provider::Stripe => "canceled",
        Provider::Razorpay => "created",
    }
}

#[tokio::test]
async fn case_11_another_attempt_withdraws_the_first() {
    journey(async |app| {
        for (first, second) in choices() {
            let buyer = Buyer::begin(app).await;
            let earlier = buyer.open(first).await;

            let later = buyer.open(second).await;

            assert_eq!(buyer.states().await, ["cancelled", "open"]);
            assert_eq!(standing(app, first, &earlier), withdrawn(first));
            assert_eq!(buyer.payment(earlier.id).await.at("/state"), "cancelled");
            if first == Provider::Stripe {
                app.providers.succeed(&earlier.reference).unwrap_err();
            }
            buyer.pay(&later).await.assert_status(200);
            buyer.assert_paid().await;
            assert_eq!(buyer.states().await, ["cancelled", "captured"]);
        }
    })
    .await;
}

#[tokio::test]
async fn case_11_the_database_keeps_a_second_attempt_from_an_order() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        buyer.open(Provider::Stripe).await;
        let open = buyer.attempts().await.remove(0);

        let new = NewPayment {
            id: PaymentId::generate(),
            order_id: open.order_id,
            provider: Ours::Razorpay,
            livemode: false,
            amount: open.amount,
        };
        let refused = insert(&app.db, &new).await.unwrap_err();

        let constraint = refused.as_database_error().unwrap().constraint();
        assert_eq!(constraint, Some("payments_one_open_per_order"));
    })
    .await;
}

#[tokio::test]
async fn case_11_of_three_tabs_at_once_one_can_pay() {
    journey(async |app| {
        for providers in [
            [Provider::Stripe; 3],
            [Provider::Razorpay; 3],
            [Provider::Stripe, Provider::Razorpay, Provider::Stripe],
        ] {
            let buyer = Buyer::begin(app).await;

            let tabs = join_all(providers.map(async |provider| {
                let answer = buyer.ask(&key(), provider).await;
                assert!(matches!(answer.status, 201 | 409 | 503), "{answer:?}");
                answer
            }))
            .await;
            app.work_off().await;

            assert!(tabs.iter().any(|answer| answer.status == 201), "{tabs:?}");
            let attempts = buyer.attempts().await;
            let open: Vec<_> = attempts.iter().filter(|known| known.state.is_open()).collect();
            assert!(open.len() <= 1, "{attempts:?}");
            let payable = buyer.objects(Provider::Stripe).into_iter().filter(|known| known.is_open);
            for intent in payable {
                assert_eq!(open[0].provider_ref.as_ref(), Some(&intent.reference), "{open:?}");
            }
            let last = buyer.open(providers[0]).await;
            buyer.pay(&last).await.assert_status(200);
            buyer.assert_paid().await;
        }
        let paid = app.count("orders").await;
        assert_eq!(i64::try_from(app.providers.ledger().captures.len()), Ok(paid));
    })
    .await;
}

/// A buyer who went from a provider that fails to the other one.
async fn moved_on(app: &TestApp, from: Provider, fault: Fault) -> Buyer<'_> {
    let buyer = Buyer::begin(app).await;
    buyer.open(from).await;
    strike(app, from, fault);

    let answer = buyer.ask(&key(), other(from)).await;

    opened(&answer);
    assert_eq!(answer.at("/state"), "open");
    assert_eq!(buyer.states().await, ["cancelling", "open"]);
    buyer
}

#[tokio::test]
async fn case_11_a_shopper_leaves_a_provider_that_is_down_and_it_hears_of_it_later() {
    journey(async |app| {
        for from in BOTH {
            for fault in [Fault::BadGatewayBefore, Fault::HangBefore] {
                eprintln!("{from}, {fault:?}");
                let buyer = moved_on(app, from, fault).await;
                let jobs = jobs_of(app, CancelPayment::KIND).await;
                assert_eq!(jobs.iter().filter(|state| *state == "ready").count(), 1, "{jobs:?}");

                app.providers.clear_faults();
                app.work_off().await;

                assert_eq!(buyer.states().await, ["cancelled", "open"]);
                assert_eq!(buyer.objects(from)[0].status, withdrawn(from));
                assert!(buyer.objects(other(from))[0].is_open);
                buyer.assert_waits().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_11_what_nobody_could_withdraw_and_is_paid_pays_the_order_and_withdraws_the_other() {
    journey(async |app| {
        app.providers.set_capture(Capture::Automatic);
        for from in BOTH {
            let buyer = moved_on(app, from, Fault::BadGatewayBefore).await;
            let earlier = buyer.objects(from).remove(0);

            app.providers.succeed(&earlier.reference).unwrap();
            app.providers.clear_faults();
            app.work_off().await;

            buyer.assert_paid().await;
            assert_eq!(buyer.states().await, ["captured", "cancelled"]);
            assert_eq!(buyer.objects(other(from))[0].status, withdrawn(other(from)));
            assert_eq!(buyer.fates().await, [Fate::Accepted]);
        }
    })
    .await;
}

#[tokio::test]
async fn case_11_an_attempt_that_nobody_heard_of_is_withdrawn_like_any_other() {
    journey(async |app| {
        for (first, second) in choices() {
            for fault in [Fault::BadGatewayBefore, Fault::ErrorAfter] {
                eprintln!("{first}, {second}, {fault:?}");
                let buyer = Buyer::begin(app).await;
                strike(app, first, fault);
                buyer.ask(&key(), first).await.assert_status(503);
                app.providers.clear_faults();

                let later = buyer.open(second).await;

                assert_eq!(buyer.states().await, ["cancelled", "open"]);
                let left = buyer.objects(first);
                let left = left.iter().filter(|known| known.reference != later.reference);
                assert!(left.clone().all(|known| known.status == withdrawn(first)));
                assert!(left.count() <= 1);
                buyer.pay(&later).await.assert_status(200);
                buyer.assert_paid().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_11_while_a_payment_is_under_way_nobody_begins_another() {
    journey(async |app| {
        for (first, act, state) in [
            (Provider::Stripe, Act::Process, "processing"),
            (Provider::Razorpay, Act::Succeed, "authorized"),
        ] {
            let buyer = Buyer::begin(app).await;
            let earlier = buyer.open(first).await;
            app.providers.act(&earlier.reference, &act).unwrap();
            app.providers.fail_next(Operation::CapturePayment, Fault::RateLimited, u32::MAX);

            for second in BOTH {
                let refused = buyer.ask(&key(), second).await;
                refused.assert_problem(409, "payment-in-progress");
            }

            assert_eq!(buyer.states().await, [state]);
            buyer.assert_waits().await;
            let left = buyer.client.order(buyer.order_id).await.at("/expires_in");
            assert!(left.as_u64().unwrap() > 3_000, "{left}");
            if first == Provider::Stripe {
                app.providers.succeed(&earlier.reference).unwrap();
                buyer.confirm(earlier.id, None).await.assert_status(200);
            }
            app.providers.clear_faults();
            app.work_off().await;
            buyer.assert_paid().await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_11_who_has_paid_and_does_not_know_it_is_told_and_not_charged_again() {
    journey(async |app| {
        app.providers.set_capture(Capture::Automatic);
        for (first, second) in choices() {
            let buyer = Buyer::begin(app).await;
            let earlier = buyer.open(first).await;
            app.providers.succeed(&earlier.reference).unwrap();

            let refused = buyer.ask(&key(), second).await;

            refused.assert_problem(409, "order-already-paid");
            assert!(!hands_over(&refused));
            assert_eq!(buyer.states().await, ["captured"]);
            assert_eq!(buyer.fates().await, [Fate::Accepted]);
            buyer.assert_paid().await;
        }
    })
    .await;
}
