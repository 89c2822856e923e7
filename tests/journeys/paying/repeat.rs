//! The same request again, because somebody was impatient or something failed.

use futures_util::future::{join, join_all};
use serde_json::Value;
use simulator::providers::{Fault, Operation, Provider};
use uuid::Uuid;

use super::{
    BOTH, Buyer, TOTAL, ask, creation, hands_over, journey, key, opened, questions, strike,
};
use crate::support::{
    app::TestApp,
    client::{Answer, until},
};

/// Every way to fail that ends at once, and in how many seconds it is worth trying again.
const FAULTS: [(Fault, &str); 8] = [
    (Fault::ErrorBefore, "2"),
    (Fault::ErrorAfter, "2"),
    (Fault::BadGatewayBefore, "2"),
    (Fault::BadGatewayAfter, "2"),
    (Fault::ResetBefore, "2"),
    (Fault::ResetAfter, "2"),
    (Fault::MalformedAnswer, "2"),
    (Fault::RateLimited, "1"),
];

/// The answer without what may change between two looks.
fn lasting(answer: &Answer) -> Value {
    let mut body: Value = answer.json();
    assert!(body.as_object_mut().unwrap().remove("expires_in").is_some(), "{body}");
    body
}

/// The attempt is the only one, here and at its provider, and pays the order.
async fn assert_is_the_one(buyer: &Buyer<'_>, provider: Provider, answer: &Answer) {
    let attempt = opened(answer);
    assert_eq!(buyer.states().await, ["open"]);
    let objects = buyer.objects(provider);
    assert_eq!(objects.len(), 1, "{objects:?}");
    assert_eq!(objects[0].reference, attempt.reference);
    assert_eq!(objects[0].amount_minor, TOTAL);

    buyer.pay(&attempt).await.assert_status(200);

    buyer.assert_paid().await;
}

#[tokio::test]
async fn case_12_a_repeat_finds_the_same_attempt() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let key = key();

            let first = buyer.ask(&key, provider).await;
            let before = app.books().await;
            let second = buyer.ask(&key, provider).await;

            first.assert_status(201).assert_header("idempotency-replayed", None);
            second.assert_status(201).assert_header("idempotency-replayed", "true");
            assert_eq!(lasting(&first), lasting(&second));
            assert_eq!(first.header("location"), second.header("location"));
            assert_eq!(app.books().await, before);
            assert_eq!(app.providers.calls(creation(provider)), 1);
            assert_is_the_one(&buyer, provider, &second).await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_12_nobody_is_handed_an_attempt_that_is_not_the_one_we_know() {
    journey(async |app| {
        // Another request had learned of another one first.
        app.execute(
            "CREATE FUNCTION know_another() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 NEW.provider_ref := 'another-' || NEW.id;
                 RETURN NEW;
             END $$",
        )
        .await;
        app.execute(
            "CREATE TRIGGER know_another BEFORE UPDATE OF provider_ref ON payments
             FOR EACH ROW WHEN (NEW.provider_ref IS NOT NULL) EXECUTE FUNCTION know_another()",
        )
        .await;
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;

            let answer = buyer.ask(&key(), provider).await;

            answer.assert_status(201);
            assert!(!hands_over(&answer), "{answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn case_12_a_key_stands_for_one_request_of_one_shopper() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let key = key();
        let first = opened(&buyer.ask(&key, Provider::Stripe).await);
        let another = buyer.client.order_for(&[(buyer.mug, 1)]).await;
        let (before, asked) = (app.books().await, questions(app));

        let other_provider = buyer.ask(&key, Provider::Razorpay).await;
        let other_order = ask(&buyer.client, another, &key, "stripe").await;

        other_provider.assert_problem(422, "idempotency-key-reused");
        other_order.assert_problem(422, "idempotency-key-reused");
        assert_eq!(app.books().await, before);
        assert_eq!(questions(app), asked);
        let neighbour = Buyer::begin(app).await;
        assert_ne!(opened(&neighbour.ask(&key, Provider::Stripe).await), first);
    })
    .await;
}

#[tokio::test]
async fn case_12_many_clicks_at_once_begin_one_attempt() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let key = key();

            let answers = join_all((0..8).map(|_| buyer.insist(&key, provider))).await;

            let attempts: Vec<_> = answers.iter().map(opened).collect();
            assert!(attempts.iter().all(|attempt| *attempt == attempts[0]), "{attempts:?}");
            assert_is_the_one(&buyer, provider, &answers[0]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_12_who_leaves_while_the_provider_works_finds_the_attempt_again() {
    journey(async |app| {
        for provider in BOTH {
            for fault in [Fault::HangBefore, Fault::HangAfter] {
                let buyer = Buyer::begin(app).await;
                let key = key();
                let asked = app.providers.calls(creation(provider));
                app.providers.fail_next(creation(provider), fault, 1);

                let left = async {
                    until("the provider is asked", async || {
                        let calls = app.providers.calls(creation(provider));
                        if calls > asked { Ok(()) } else { Err(format!("{calls} calls")) }
                    })
                    .await;
                };
                tokio::select! {
                    answer = buyer.ask(&key, provider) => panic!("{answer:?}"),
                    () = left => {}
                }
                let answer = buyer.insist(&key, provider).await;

                assert_is_the_one(&buyer, provider, &answer).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_13_a_fault_of_a_moment_is_the_shops_affair() {
    journey(async |app| {
        for provider in BOTH {
            for (fault, _) in FAULTS {
                // Who is told to come back comes back later, and not at once.
                if fault == Fault::RateLimited {
                    continue;
                }
                let buyer = Buyer::begin(app).await;
                app.providers.fail_next(creation(provider), fault, 1);

                let answer = buyer.ask(&key(), provider).await;

                assert_is_the_one(&buyer, provider, &answer).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_13_what_a_failing_provider_made_or_not_is_one_attempt_for_who_repeats() {
    journey(async |app| {
        for provider in BOTH {
            for (fault, retry_after) in FAULTS {
                eprintln!("{provider}, {fault:?}");
                let buyer = Buyer::begin(app).await;
                let key = key();
                strike(app, provider, fault);

                let lost = buyer.ask(&key, provider).await;
                lost.assert_problem(503, "provider-unavailable");
                lost.assert_header("retry-after", retry_after);
                assert_eq!(buyer.states().await, ["creating"]);
                buyer.assert_waits().await;
                app.providers.clear_faults();
                let answer = buyer.ask(&key, provider).await;

                answer.assert_header("idempotency-replayed", "true");
                assert_is_the_one(&buyer, provider, &answer).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_13_a_provider_that_never_answers_leaves_one_attempt_for_who_repeats() {
    journey(async |app| {
        let buyers = [Buyer::begin(app).await, Buyer::begin(app).await];
        let keys = [key(), key()];
        strike(app, Provider::Stripe, Fault::HangAfter);
        strike(app, Provider::Razorpay, Fault::HangBefore);

        let (stripe, razorpay) = join(
            buyers[0].ask(&keys[0], Provider::Stripe),
            buyers[1].ask(&keys[1], Provider::Razorpay),
        )
        .await;
        for answer in [stripe, razorpay] {
            answer.assert_problem(503, "provider-unavailable").assert_header("retry-after", "2");
        }
        app.providers.clear_faults();

        for ((buyer, key), provider) in buyers.iter().zip(&keys).zip(BOTH) {
            assert_eq!(buyer.states().await, ["creating"]);
            let answer = buyer.insist(key, provider).await;
            assert_is_the_one(buyer, provider, &answer).await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_13_when_keys_are_forgotten_the_provider_is_searched_and_nothing_is_made() {
    journey(async |app| {
        for (provider, fault, is_found) in [
            (Provider::Stripe, Fault::ErrorAfter, true),
            (Provider::Stripe, Fault::BadGatewayBefore, false),
            (Provider::Razorpay, Fault::ErrorAfter, true),
            (Provider::Razorpay, Fault::BadGatewayBefore, false),
        ] {
            eprintln!("{provider}, {fault:?}");
            let buyer = Buyer::begin(app).await;
            let first = key();
            strike(app, provider, fault);
            buyer.ask(&first, provider).await.assert_status(503);
            app.providers.clear_faults();
            app.providers.expire_idempotency_keys();
            app.execute(
                "UPDATE payments SET created_at = created_at - interval '24 hours'
                 WHERE state = 'creating'",
            )
            .await;
            let asked = app.providers.calls(creation(provider));

            let repeated = buyer.ask(&first, provider).await;

            assert_eq!(app.providers.calls(creation(provider)), asked);
            if is_found {
                assert_is_the_one(&buyer, provider, &repeated).await;
            } else {
                repeated.assert_problem(503, "provider-rejected");
                assert_eq!(buyer.states().await, ["rejected"]);
                assert_eq!(buyer.objects(provider), []);
                let attempt = buyer.open(provider).await;
                buyer.pay(&attempt).await.assert_status(200);
                buyer.assert_paid().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_14_what_was_made_before_it_could_be_noted_is_what_the_repeat_returns() {
    journey(async |app| {
        for provider in BOTH {
            for fault in [Fault::ErrorAfter, Fault::ResetAfter, Fault::MalformedAnswer] {
                eprintln!("{provider}, {fault:?}");
                let buyer = Buyer::begin(app).await;
                let key = key();
                strike(app, provider, fault);
                buyer.ask(&key, provider).await.assert_status(503);
                let made = buyer.objects(provider);
                assert_eq!(made.len(), 1, "{made:?}");
                let noted = &buyer.attempts().await[0];
                assert_eq!(made[0].metadata["payment_id"], noted.id.to_string());
                assert_eq!((noted.state.name(), &noted.provider_ref), ("creating", &None));
                app.providers.clear_faults();

                let answer = buyer.ask(&key, provider).await;

                assert_eq!(opened(&answer).reference, made[0].reference);
                assert_eq!(opened(&answer).id, noted.id.uuid());
                assert_is_the_one(&buyer, provider, &answer).await;
            }
        }
    })
    .await;
}

/// Makes something else at the provider under the name that the attempt has there.
async fn take_name(app: &TestApp, provider: Provider, name: &str) {
    let client = simulator::http_client().build().unwrap();
    let (url, config) = (app.providers.url(provider), app.providers.config());
    let request = match provider {
        Provider::Stripe => client
            .post(format!("{url}/v1/payment_intents"))
            .bearer_auth(&config.stripe_key)
            .header("Idempotency-Key", name)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body("amount=100&currency=usd"),
        Provider::Razorpay => client
            .post(format!("{url}/v1/orders"))
            .basic_auth(&config.razorpay_key_id, Some(&config.razorpay_key_secret))
            .header("Content-Type", "application/json")
            .body(format!(r#"{{"amount":100,"currency":"USD","receipt":"{name}"}}"#)),
    };
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn case_16_a_key_that_stands_for_something_else_ends_the_attempt_and_makes_no_other() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let key = key();
            strike(app, provider, Fault::BadGatewayBefore);
            buyer.ask(&key, provider).await.assert_status(503);
            app.providers.clear_faults();
            take_name(app, provider, &buyer.attempts().await[0].provider_key()).await;
            let asked = app.providers.calls(creation(provider));

            let refused = buyer.ask(&key, provider).await;

            refused.assert_problem(503, "provider-rejected").assert_header("retry-after", "2");
            assert_eq!(app.providers.calls(creation(provider)), asked + 1);
            assert_eq!(buyer.objects(provider), []);
            let attempt = &buyer.attempts().await[0];
            assert_eq!((attempt.state.name(), attempt.key_generation), ("rejected", 1));

            let asked = questions(app);
            let repeated = buyer.ask(&key, provider).await;
            repeated.assert_status(201).assert_header("idempotency-replayed", "true");
            assert_eq!(repeated.at("/state"), "rejected");
            assert!(!hands_over(&repeated), "{repeated:?}");
            assert_eq!(questions(app), asked);

            let another = buyer.open(provider).await;
            buyer.pay(&another).await.assert_status(200);
            assert_eq!(buyer.states().await, ["rejected", "captured"]);
            buyer.assert_paid().await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_38_a_provider_without_time_is_asked_later_and_under_the_same_key() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let key = key();
            app.providers.fail_next(creation(provider), Fault::RateLimited, 3);

            for asked in 1..=3 {
                let answer = buyer.ask(&key, provider).await;
                answer.assert_problem(503, "provider-unavailable");
                answer.assert_header("retry-after", "1");
                assert_eq!(app.providers.calls(creation(provider)), asked);
            }
            let answer = buyer.ask(&key, provider).await;

            assert_eq!(app.providers.calls(creation(provider)), 4);
            assert_eq!(buyer.attempts().await[0].key_generation, 1);
            assert_is_the_one(&buyer, provider, &answer).await;
        }
    })
    .await;
}

#[tokio::test]
async fn case_38_money_that_is_set_aside_is_collected_when_the_provider_has_time() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let attempt = buyer.open(Provider::Razorpay).await;
        app.providers.fail_next(Operation::CapturePayment, Fault::RateLimited, u32::MAX);

        let busy = buyer.pay(&attempt).await;
        busy.assert_problem(503, "provider-unavailable").assert_header("retry-after", "1");
        app.settle().await;

        assert_eq!(buyer.states().await, ["authorized"]);
        buyer.assert_waits().await;
        let why: String = app
            .scalar("SELECT last_error FROM job_ledger WHERE kind = 'checkout.capture-payment'")
            .await;
        assert!(why.contains("provider-unavailable"), "{why}");

        app.providers.clear_faults();
        app.work_off().await;
        buyer.assert_paid().await;
        assert_eq!(app.providers.ledger().captures.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_repeat_after_the_end_of_an_attempt_tells_how_it_ended_and_asks_nobody() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let (first, second) = (key(), key());
            opened(&buyer.ask(&first, provider).await);
            let moved = opened(&buyer.ask(&second, provider).await);
            buyer.pay(&moved).await.assert_status(200);
            let (before, asked) = (app.books().await, questions(app));

            for (key, state) in [(first, "cancelled"), (second, "captured")] {
                let repeated = buyer.ask(&key, provider).await;
                repeated.assert_status(201).assert_header("idempotency-replayed", "true");
                assert_eq!(repeated.at("/state"), state);
                assert_eq!(repeated.at("/order_status"), "paid");
                assert!(!hands_over(&repeated), "{repeated:?}");
            }
            let unused = buyer.ask(&Uuid::now_v7().to_string(), provider).await;
            unused.assert_problem(409, "order-already-paid");

            assert_eq!(app.books().await, before);
            assert_eq!(questions(app), asked);
        }
    })
    .await;
}
