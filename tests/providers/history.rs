//! What happened at a provider is told to whoever was away, page by page, the oldest first.

use std::{collections::BTreeMap, time::Duration};

use holdfast::{
    clients::CallError,
    kernel,
    payments::{
        self, PaymentError,
        gateway::{Happened, happened_since},
    },
};
use serde_json::{Value, json};
use simulator::providers::{Act, Operation, Provider};

use crate::{World, assert_tells_no_secret, before};

const STRIPE: payments::Provider = payments::Provider::Stripe;
const RAZORPAY: payments::Provider = payments::Provider::Razorpay;

#[tokio::test]
async fn an_event_of_stripe_is_listed_as_its_webhook_tells_it() {
    let world = World::start().await;
    let intent = world.charge(Provider::Stripe, 1_000, "USD");
    world.providers.refund(&intent, Some(300)).unwrap();
    world.providers.dispute(&intent).unwrap();
    let now = kernel::time::now();

    let history = happened_since(&world.cx(), STRIPE, before(), now).await.unwrap();

    assert_eq!(history.until, now);
    assert_tells_no_secret(&history);
    let bodies: Vec<Value> = history
        .happened
        .iter()
        .map(|happened| {
            let Happened::Event { body } = happened else { panic!("{happened:?}") };
            serde_json::from_slice(body).unwrap()
        })
        .collect();
    let kinds: Vec<_> = bodies.iter().map(|body| body["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "payment_intent.succeeded",
            "refund.created",
            "charge.dispute.created",
            "charge.dispute.funds_withdrawn",
        ]
    );
    for body in bodies {
        let told = world.providers.event_body(body["id"].as_str().unwrap()).unwrap();
        assert_eq!(body, serde_json::from_str::<Value>(&told).unwrap());
    }
}

#[tokio::test]
async fn events_are_listed_over_many_pages() {
    let world = World::start().await;
    let object = json!({ "id": "re_1", "object": "refund" });
    let told: Vec<_> = (0..120)
        .map(|_| world.providers.tell(Provider::Stripe, "refund.updated", &object))
        .collect();
    let now = kernel::time::now();

    let events = world.stripe.events_between(before(), now, &["refund.updated"]).await.unwrap();
    let others = world.stripe.events_between(before(), now, &["refund.failed"]).await.unwrap();
    let early = before() - Duration::from_hours(1);
    let earlier = world.stripe.events_between(early, before(), &["refund.updated"]).await.unwrap();

    let events: Vec<_> = events.unwrap().into_iter().map(|event| event.id).collect();
    assert_eq!(events, told);
    assert!(others.unwrap().is_empty() && earlier.unwrap().is_empty());
    assert_eq!(world.providers.calls(Operation::ListEvents), 5);
}

#[tokio::test]
async fn a_time_in_which_too_much_happened_is_told_in_pieces() {
    let world = World::start().await;
    let cx = world.cx();
    let object = json!({ "id": "re_1", "object": "refund" });
    let tell_too_much = || {
        for _ in 0..2_500 {
            world.providers.tell(Provider::Stripe, "refund.updated", &object);
        }
        kernel::time::now()
    };
    let (from, now) = (before(), tell_too_much());

    let piece = happened_since(&cx, STRIPE, from, now).await.unwrap();
    assert!(piece.happened.is_empty());
    assert!(from < piece.until && piece.until < now);

    // Nobody takes what does not fit for nothing. On a machine that stalls it takes longer than a second to
    // tell too much.
    let mut last = happened_since(&cx, STRIPE, now - Duration::from_secs(1), now).await;
    for _ in 0..20 {
        if last.is_err() {
            break;
        }
        let now = tell_too_much();
        last = happened_since(&cx, STRIPE, now - Duration::from_secs(1), now).await;
    }
    let last = last.unwrap_err();
    let PaymentError::Provider(CallError::Unknown { answered_5xx, .. }) = last else {
        panic!("{last:?}");
    };
    assert!(!answered_5xx);
}

#[tokio::test]
async fn razorpay_names_what_is_to_be_looked_at() {
    let world = World::start().await;
    let place =
        || world.providers.create_foreign(Provider::Razorpay, 1_000, "INR", BTreeMap::new());
    let (paid, twice, declined) = (place(), place(), place());
    world.providers.set_capture(simulator::providers::Capture::Automatic);
    let charge = world.providers.succeed(&paid).unwrap().payment_ref.unwrap();
    let acted = world.providers.succeed(&twice).unwrap();
    let again = world.providers.act(&twice, &Act::PayAgain).unwrap();
    let charges = [acted, again].map(|acted| acted.payment_ref.unwrap());
    world.providers.decline(&declined, "payment_failed").unwrap();
    let refund = world.providers.refund(&charge, Some(300)).unwrap();
    let dispute = world.providers.dispute(&charge).unwrap();
    let now = kernel::time::now();

    let history = happened_since(&world.cx(), RAZORPAY, before(), now).await.unwrap();
    let early = before() - Duration::from_hours(1);
    let earlier = happened_since(&world.cx(), RAZORPAY, early, before()).await.unwrap();

    assert_eq!(
        history.happened,
        [
            Happened::Payment { provider_ref: paid, charges: vec![charge] },
            Happened::Payment { provider_ref: twice, charges: charges.to_vec() },
            Happened::Refund { provider_ref: refund },
            Happened::Dispute { provider_ref: dispute },
        ]
    );
    assert!(earlier.happened.is_empty());
}

#[tokio::test]
async fn payments_are_listed_over_many_pages_and_pieces() {
    let world = World::start().await;
    let paid: Vec<_> = (0..120).map(|_| world.charge(Provider::Razorpay, 100, "INR")).collect();
    let now = kernel::time::now();

    let listed = world.razorpay.payments_between(before(), now).await.unwrap().unwrap();

    let ids: Vec<_> = listed.iter().map(|payment| payment.id.clone()).collect();
    assert_eq!(ids, paid);
    assert_eq!(world.providers.calls(Operation::ListPayments), 2);
    for _ in 0..900 {
        world.charge(Provider::Razorpay, 100, "INR");
    }
    let now = kernel::time::now();
    assert!(world.razorpay.payments_between(before(), now).await.unwrap().is_none());
    let piece = happened_since(&world.cx(), RAZORPAY, before(), now).await.unwrap();
    assert!(piece.happened.is_empty() && piece.until < now);
}
