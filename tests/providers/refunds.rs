//! Money that goes back: made once, whatever gets lost.

use std::time::Duration;

use holdfast::{
    clients::{CallError, razorpay, refusal, stripe},
    context::Context,
    kernel,
    payments::{
        self, PaymentError,
        gateway::{
            self, KEY_EXPIRED, RefundAtProvider, RefundRequest, RefundStanding, is_key_spent,
            look_at_refund,
        },
    },
};
use simulator::providers::{Fault, Operation, Provider, Verdict};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{World, answer, answering, context, rejected};

const BOTH: [Provider; 2] = [Provider::Stripe, Provider::Razorpay];

/// What asks a provider to send something back, and what lists that.
const fn operations(provider: Provider) -> (Operation, Operation) {
    match provider {
        Provider::Stripe => (Operation::CreateRefund, Operation::ListRefunds),
        Provider::Razorpay => (Operation::RefundPayment, Operation::ListPaymentRefunds),
    }
}

const fn ours(provider: Provider) -> payments::Provider {
    match provider {
        Provider::Stripe => payments::Provider::Stripe,
        Provider::Razorpay => payments::Provider::Razorpay,
    }
}

/// A refund of ours, of a part of a charge.
#[derive(Clone)]
struct Wish {
    provider: Provider,
    refund_id: Uuid,
    charge: String,
    key: String,
    created_at: OffsetDateTime,
}

impl Wish {
    /// To have 300 of 1,000 back.
    fn of_a_charge(world: &World, provider: Provider) -> Self {
        let refund_id = Uuid::now_v7();
        Self {
            provider,
            refund_id,
            charge: world.charge(provider, 1_000, "INR"),
            key: format!("refund-{refund_id}"),
            created_at: kernel::time::now(),
        }
    }

    async fn ask(&self, cx: &Context) -> Result<RefundAtProvider, CallError> {
        let request = RefundRequest {
            provider: ours(self.provider),
            refund_id: self.refund_id,
            charge_ref: &self.charge,
            amount_minor: 300,
            currency: "INR",
            key: &self.key,
            created_at: self.created_at,
        };
        gateway::refund(cx, &request).await.map_err(of_provider)
    }

    /// Asks, and looks for nothing after the failure.
    async fn ask_and_die(&self, world: &World) {
        let Self { refund_id, charge, key, .. } = self;
        let (refund_id, amount_minor) = (*refund_id, 300);
        let failed = match self.provider {
            Provider::Stripe => {
                let new = stripe::NewRefund {
                    payment_intent: charge,
                    amount_minor,
                    currency: "INR",
                    refund_id,
                };
                world.stripe.create_refund(&new, key).await.is_err()
            }
            Provider::Razorpay => {
                let new = razorpay::NewRefund { payment: charge, amount_minor, refund_id };
                world.razorpay.refund_payment(&new, key).await.is_err()
            }
        };
        assert!(failed);
    }
}

fn of_provider(error: PaymentError) -> CallError {
    let PaymentError::Provider(error) = error else { panic!("not the provider's: {error}") };
    error
}

fn code(error: &CallError) -> &str {
    let CallError::Rejected { code: Some(code), .. } = error else { panic!("{error:?}") };
    code
}

#[tokio::test]
async fn stripe_makes_a_refund_once_under_its_key() {
    let world = World::start().await;
    let intent = world.charge(Provider::Stripe, 1_000, "USD");
    let refund_id = Uuid::now_v7();
    let new = stripe::NewRefund {
        payment_intent: &intent,
        amount_minor: 300,
        currency: "USD",
        refund_id,
    };

    let first = world.stripe.create_refund(&new, "refund-key-1").await.unwrap();
    let second = world.stripe.create_refund(&new, "refund-key-1").await.unwrap();

    assert_eq!(first, second);
    assert_eq!((first.amount_minor, &*first.currency), (300, "USD"));
    assert_eq!(first.payment_intent.as_deref(), Some(&*intent));
    assert_eq!((first.status.as_deref(), first.refund_id), (Some("succeeded"), Some(refund_id)));
    assert_eq!(world.stripe.retrieve_refund(&first.id).await.unwrap(), first);
    assert_eq!(world.stripe.refunds_of(&intent).await.unwrap(), [first]);
    assert_eq!(world.providers.ledger().refunds.len(), 1);
    let other = stripe::NewRefund { amount_minor: 301, ..new };
    let error = world.stripe.create_refund(&other, "refund-key-1").await.unwrap_err();
    assert_eq!(error, rejected(400, "idempotency_error"));
}

#[tokio::test]
async fn razorpay_makes_a_refund_once_under_its_key() {
    let world = World::start().await;
    let payment = world.charge(Provider::Razorpay, 1_000, "INR");
    let refund_id = Uuid::now_v7();
    let new = razorpay::NewRefund { payment: &payment, amount_minor: 300, refund_id };

    let first = world.razorpay.refund_payment(&new, "refund-key-1").await.unwrap();
    let second = world.razorpay.refund_payment(&new, "refund-key-1").await.unwrap();
    let short = world.razorpay.refund_payment(&new, "short").await.unwrap_err();

    assert_eq!(first, second);
    assert_eq!((first.amount_minor, first.currency.as_deref()), (300, Some("INR")));
    assert_eq!((&*first.payment, first.refund_id), (&*payment, Some(refund_id)));
    assert_eq!(first.status.as_deref(), Some("processed"));
    assert_eq!(short, CallError::Rejected { status: 400, code: None });
    assert_eq!(world.razorpay.retrieve_refund(&first.id).await.unwrap(), first);
    assert_eq!(world.razorpay.refunds_of(&payment).await.unwrap(), [first]);
    let left = world.razorpay.retrieve_payment(&payment).await.unwrap();
    assert_eq!((left.captured, left.amount_refunded_minor), (true, 300));
    assert_eq!(world.providers.ledger().refunds.len(), 1);
    assert_eq!(world.providers.calls(Operation::RefundPayment), 2);
}

#[tokio::test]
async fn why_a_refund_is_refused_has_one_name_at_both_providers() {
    let world = World::start().await;
    let cx = world.cx();
    for provider in BOTH {
        let much = Wish::of_a_charge(&world, provider);
        world.providers.refund(&much.charge, Some(800)).unwrap();
        let again = Wish::of_a_charge(&world, provider);
        world.providers.refund(&again.charge, None).unwrap();
        let disputed = Wish::of_a_charge(&world, provider);
        world.providers.dispute(&disputed.charge).unwrap();

        for (wish, name) in [
            (much, refusal::REFUND_TOO_LARGE),
            (again, refusal::ALREADY_REFUNDED),
            (disputed, refusal::DISPUTED),
        ] {
            let error = wish.ask(&cx).await.unwrap_err();
            assert_eq!(error, rejected(400, name), "{provider:?}");
        }
        let unknown = Wish { charge: "pi_none".to_owned(), ..Wish::of_a_charge(&world, provider) };
        let error = unknown.ask(&cx).await.unwrap_err();
        assert!(error.is_not_found(), "{provider:?}: {error:?}");
    }
    assert_eq!(world.providers.ledger().refunds.len(), 4);
}

#[tokio::test]
async fn a_refund_stands_where_the_bank_left_it() {
    let world = World::start().await;
    let cx = world.cx();
    for provider in BOTH {
        world.providers.set_refunds_wait(provider, true);
        let made = Wish::of_a_charge(&world, provider).ask(&cx).await.unwrap();
        let look = async || {
            let refund = look_at_refund(&cx, ours(provider), &made.provider_ref).await;
            refund.unwrap().unwrap().standing
        };

        assert_eq!(made.standing, RefundStanding::Pending);
        assert_eq!(look().await, RefundStanding::Pending);
        world.providers.finish_refund(&made.provider_ref, Verdict::Won).unwrap();
        assert_eq!(look().await, RefundStanding::Succeeded);
        world.providers.finish_refund(&made.provider_ref, Verdict::Lost).unwrap();
        assert!(matches!(look().await, RefundStanding::Failed { .. }), "{provider:?}");
        let none = look_at_refund(&cx, ours(provider), "re_none").await.unwrap();
        assert_eq!(none, None);
    }
}

#[tokio::test]
async fn every_refund_of_a_charge_is_listed_whoever_made_it() {
    let world = World::start().await;
    let cx = world.cx();
    for provider in BOTH {
        let wish = Wish {
            charge: world.charge(provider, 100_000, "INR"),
            ..Wish::of_a_charge(&world, provider)
        };
        let made = wish.ask(&cx).await.unwrap();
        for _ in 0..120 {
            world.providers.refund(&wish.charge, Some(100)).unwrap();
        }

        let all = gateway::refunds_of(&cx, ours(provider), &wish.charge).await.unwrap();

        assert_eq!(all.len(), 121, "{provider:?}");
        assert_eq!(all.last(), Some(&made));
        let by_hand = &all[0];
        assert_eq!((by_hand.refund_id, by_hand.amount_minor), (None, 100));
        assert_eq!((&*by_hand.charge_ref, &*by_hand.currency), (&*wish.charge, "INR"));
    }
}

/// Every fault that a client gets over without waiting long.
const FAULTS: [Fault; 7] = [
    Fault::ErrorBefore,
    Fault::ErrorAfter,
    Fault::BadGatewayBefore,
    Fault::BadGatewayAfter,
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::MalformedAnswer,
];

#[tokio::test]
async fn money_goes_back_once_whatever_gets_lost() {
    let world = World::start().await;
    let cx = world.cx();
    for provider in BOTH {
        let (create, _) = operations(provider);
        for fault in FAULTS {
            let before = world.providers.ledger().refunds.len();
            let mut wish = Wish::of_a_charge(&world, provider);
            world.providers.fail_next(create, fault, 1);

            let mut first = wish.ask(&cx).await;
            if first.as_ref().is_err_and(|error| is_key_spent(ours(provider), error)) {
                wish.key.push_str("-2");
                first = wish.ask(&cx).await;
            }
            let first = first.unwrap();
            let second = wish.ask(&cx).await.unwrap();

            assert_eq!(first, second, "{provider:?}: {fault:?}");
            assert_eq!(first.refund_id, Some(wish.refund_id));
            let refunds = world.providers.ledger().refunds;
            assert_eq!(refunds.len(), before + 1, "{provider:?}: {fault:?}");
        }
    }
}

#[tokio::test]
async fn money_goes_back_once_where_nobody_answers() {
    let world = World::start().await;
    let cx = world.cx();
    for provider in BOTH {
        world.providers.fail_next(operations(provider).0, Fault::HangAfter, 1);
    }

    let [stripe, razorpay] = BOTH.map(|provider| Wish::of_a_charge(&world, provider));
    let (stripe, razorpay) = tokio::join!(stripe.ask(&cx), razorpay.ask(&cx));

    assert_eq!(stripe.unwrap().standing, RefundStanding::Succeeded);
    assert_eq!(razorpay.unwrap().standing, RefundStanding::Succeeded);
    assert_eq!(world.providers.ledger().refunds.len(), 2);
}

#[tokio::test]
async fn a_refund_that_was_made_before_we_died_is_not_made_again() {
    let world = World::start().await;
    let cx = world.cx();
    for provider in BOTH {
        let wish = Wish::of_a_charge(&world, provider);
        world.providers.fail_next(operations(provider).0, Fault::ErrorAfter, 1);

        wish.ask_and_die(&world).await;
        let found = wish.ask(&cx).await.unwrap();

        assert_eq!(found.refund_id, Some(wish.refund_id));
    }
    assert_eq!(world.providers.ledger().refunds.len(), 2);
}

#[tokio::test]
async fn a_key_is_spent_where_its_provider_repeats_a_failure() {
    let world = World::start().await;
    let cx = world.cx();
    for (provider, is_spent) in [(Provider::Stripe, true), (Provider::Razorpay, false)] {
        let (create, _) = operations(provider);
        let wish = Wish::of_a_charge(&world, provider);
        world.providers.fail_next(create, Fault::ErrorBefore, 2);
        let next = Wish { key: format!("{}-2", wish.key), ..wish.clone() };

        let error = wish.ask(&cx).await.unwrap_err();
        let again = wish.ask(&cx).await;
        let made = next.ask(&cx).await.unwrap();

        assert_eq!(is_key_spent(ours(provider), &error), is_spent, "{provider:?}");
        assert_eq!(again, if is_spent { Err(error) } else { Ok(made.clone()) }, "{provider:?}");
        assert_eq!(made.refund_id, Some(wish.refund_id));
    }
    assert_eq!(world.providers.ledger().refunds.len(), 2);
    let silence = CallError::Unknown { why: String::new(), answered_5xx: false };
    assert!(!is_key_spent(payments::Provider::Stripe, &silence));
}

#[tokio::test]
async fn a_lost_search_uses_no_other_key() {
    let world = World::start().await;
    let cx = world.cx();
    for provider in BOTH {
        let (create, list) = operations(provider);
        let wish = Wish::of_a_charge(&world, provider);
        world.providers.fail_next(create, Fault::ErrorBefore, 9);
        world.providers.fail_next(list, Fault::ErrorBefore, 30);

        let error = wish.ask(&cx).await.unwrap_err();

        assert!(
            matches!(error, CallError::Unknown { answered_5xx: false, .. }),
            "{provider:?}: {error:?}"
        );
        world.providers.clear_faults();
    }
    assert_eq!(world.providers.ledger().refunds, []);
}

#[tokio::test]
async fn past_its_key_a_refund_is_looked_for_and_never_made() {
    let world = World::start().await;
    let cx = world.cx();
    let yesterday = kernel::time::now() - Duration::from_hours(24);
    for provider in BOTH {
        let wish = Wish { created_at: yesterday, ..Wish::of_a_charge(&world, provider) };

        let late = wish.ask(&cx).await.unwrap_err();
        let young = Wish { created_at: kernel::time::now(), ..wish };
        let made = young.ask(&cx).await.unwrap();
        world.providers.expire_idempotency_keys();
        let found = Wish { created_at: yesterday, ..young }.ask(&cx).await.unwrap();

        assert_eq!(code(&late), KEY_EXPIRED);
        assert_eq!(made, found);
        assert_eq!(world.providers.calls(operations(provider).0), 1);
    }
}

#[tokio::test]
async fn a_refund_is_as_much_there_as_here() {
    let world = World::start().await;
    // Stripe counts krónur in hundredths, which do not exist.
    let intent = world.charge(Provider::Stripe, 50_000, "ISK");
    let request = RefundRequest {
        provider: payments::Provider::Stripe,
        refund_id: Uuid::now_v7(),
        charge_ref: &intent,
        amount_minor: 20,
        currency: "ISK",
        key: "refund-key-1",
        created_at: kernel::time::now(),
    };

    let refund = gateway::refund(&world.cx(), &request).await.unwrap();

    assert_eq!((refund.amount_minor, &*refund.currency), (20, "ISK"));
    assert_eq!(world.providers.ledger().refunds[0].amount_minor, 2_000);
}

#[tokio::test]
async fn stripes_words_for_a_refund_are_understood() {
    let world = World::start().await;
    let failed = |reason: &str| RefundStanding::Failed { reason: Some(reason.to_owned()) };
    for (fields, standing) in [
        (r#""status":"pending""#, RefundStanding::Pending),
        (r#""status":"requires_action""#, RefundStanding::Pending),
        (r#""status":null"#, RefundStanding::Pending),
        (r#""status":"brand_new""#, RefundStanding::Pending),
        (r#""status":"succeeded""#, RefundStanding::Succeeded),
        (r#""status":"canceled""#, failed("canceled")),
        (
            r#""status":"failed","failure_reason":"expired_or_canceled_card""#,
            failed("expired_or_canceled_card"),
        ),
    ] {
        let body = format!(
            r#"{{"id":"re_1","payment_intent":null,"charge":"ch_1","amount":5,"currency":"usd",{fields}}}"#
        );
        let (url, _asked) = answering(answer("200 OK", "", &body)).await;
        let cx = context(&crate::stripe(&url, &["sk_test_1"]), &world.razorpay);

        let refund =
            look_at_refund(&cx, payments::Provider::Stripe, "re_1").await.unwrap().unwrap();

        assert_eq!((refund.standing, &*refund.charge_ref), (standing, "ch_1"), "{fields}");
    }
}

#[tokio::test]
async fn razorpays_words_for_a_refund_that_is_under_way_are_no_refusal() {
    for (description, wanted) in [
        (
            "Request failed because another payment operation is in progress",
            CallError::Busy { retry_after: None },
        ),
        (
            "Duplicate receipt found for this refund request",
            CallError::Unknown {
                why: "the receipt's refund was asked for before".to_owned(),
                answered_5xx: false,
            },
        ),
    ] {
        let body =
            format!(r#"{{"error":{{"code":"BAD_REQUEST_ERROR","description":"{description}"}}}}"#);
        let (url, _asked) = answering(answer("400 Bad Request", "", &body)).await;
        let razorpay = crate::razorpay(&url, &[("rzp_test_1", "x")]);
        let new =
            razorpay::NewRefund { payment: "pay_1", amount_minor: 300, refund_id: Uuid::now_v7() };

        let error = razorpay.refund_payment(&new, "refund-key-1").await.unwrap_err();

        assert_eq!(error, wanted);
    }
}

#[tokio::test]
async fn a_refund_that_an_earlier_key_made_is_not_made_under_the_next() {
    let world = World::start().await;
    let cx = world.cx();
    for provider in BOTH {
        let wish = Wish::of_a_charge(&world, provider);
        let next = Wish { key: format!("{}-2", wish.key), ..wish.clone() };

        let made = wish.ask(&cx).await.unwrap();

        assert_eq!(next.ask(&cx).await.unwrap(), made, "{provider:?}");
    }
    assert_eq!(world.providers.ledger().refunds.len(), 2);
}

#[tokio::test]
async fn a_refund_without_a_currency_has_that_of_its_payment() {
    let body = r#"{"id":"rfnd_1","payment_id":"pay_1","amount":5,"currency":"","notes":[],"receipt":null}"#;
    let (url, asked) = answering(answer("200 OK", "", body)).await;

    let refund = crate::razorpay(&url, &[("rzp_test_1", "x")]).retrieve_refund("rfnd_1").await;

    let refund = refund.unwrap();
    assert_eq!((refund.currency, refund.refund_id, refund.status), (None, None, None));
    assert!(asked.await.unwrap().starts_with("GET /prefix/v1/refunds/rfnd_1 HTTP/1.1\r\n"));
}
