use proptest::prelude::*;
use serde_json::json;
use uuid::uuid;

use super::*;
use crate::{
    kernel::PaymentId,
    payments::{Charge, Standing},
};

const STRIPE: &str = include_str!("fixtures/stripe-succeeded.json");
const CAPTURED: &str = include_str!("fixtures/razorpay-captured.json");
const ORDER_PAID: &str = include_str!("fixtures/razorpay-order-paid.json");

const PAYMENT_ID: uuid::Uuid = uuid!("019aa3d5-8b21-7d42-8e5f-3c9d1e6a2b90");

fn stored(received: Received) -> StoredEvent {
    let Received { id, provider, kind, body, .. } = received;
    StoredEvent { id, provider, kind, body }
}

/// Reads the webhook as the worker of a shop in test mode does.
fn reading(provider: Provider, body: &[u8]) -> Reading {
    let received = match provider {
        Provider::Stripe => Received::from_stripe(body.to_vec()),
        Provider::Razorpay => Received::from_razorpay(Some("evt_razorpay"), body.to_vec()),
    };
    read(&stored(received), false, OffsetDateTime::UNIX_EPOCH)
}

/// The fixture with one field changed, or taken away.
fn changed(fixture: &str, pointer: &str, value: Option<Value>) -> Vec<u8> {
    let mut body: Value = serde_json::from_str(fixture).unwrap();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(name.to_owned(), value),
        None => Some(parent.remove(name).unwrap()),
    };
    body.to_string().into_bytes()
}

fn stripe_kind(kind: &str) -> Reading {
    reading(Provider::Stripe, &changed(STRIPE, "/type", Some(json!(kind))))
}

fn razorpay_kind(kind: &str) -> Reading {
    reading(Provider::Razorpay, &changed(CAPTURED, "/event", Some(json!(kind))))
}

fn stripe_money() -> News {
    News {
        provider: Provider::Stripe,
        provider_ref: "pi_3SVkq2Lkd9f2Zs1p0K2mTt9u".to_owned(),
        payment_id: Some(PaymentId::from(PAYMENT_ID)),
        livemode: false,
        standing: Standing::Captured(vec![Charge {
            charge_ref: "pi_3SVkq2Lkd9f2Zs1p0K2mTt9u".to_owned(),
            amount_minor: 4_999,
            currency: "USD".to_owned(),
            refunds: Vec::new(),
        }]),
    }
}

fn razorpay_money() -> News {
    News {
        provider: Provider::Razorpay,
        provider_ref: "order_DESlLckIVRkHWj".to_owned(),
        payment_id: None,
        livemode: false,
        standing: Standing::Captured(vec![Charge {
            charge_ref: "pay_DESlfW9H8K9uqM".to_owned(),
            amount_minor: 50_000,
            currency: "INR".to_owned(),
            refunds: Vec::new(),
        }]),
    }
}

#[test]
fn money_that_was_collected_is_read_from_the_webhook() {
    assert_eq!(reading(Provider::Stripe, STRIPE.as_bytes()), Reading::Settle(stripe_money()));
    assert_eq!(reading(Provider::Razorpay, CAPTURED.as_bytes()), Reading::Settle(razorpay_money()));
}

#[test]
fn two_kinds_of_news_of_the_same_money_name_it_alike() {
    let named = News { payment_id: Some(PAYMENT_ID.into()), ..razorpay_money() };

    assert_eq!(reading(Provider::Razorpay, ORDER_PAID.as_bytes()), Reading::Settle(named));
}

#[test]
fn what_was_received_counts_and_not_what_was_asked() {
    let less = changed(STRIPE, "/data/object/amount_received", Some(json!(1)));

    let Reading::Settle(News { standing: Standing::Captured(charges), .. }) =
        reading(Provider::Stripe, &less)
    else {
        panic!("no money");
    };

    assert_eq!(charges[0].amount_minor, 1);
}

#[test]
fn what_is_not_final_is_looked_up() {
    let provider_ref = stripe_money().provider_ref;
    for kind in [
        "payment_intent.payment_failed",
        "payment_intent.processing",
        "payment_intent.canceled",
        "payment_intent.requires_action",
        "payment_intent.amount_capturable_updated",
    ] {
        let review = Reading::Review { provider_ref: provider_ref.clone() };
        assert_eq!(stripe_kind(kind), review, "{kind}");
    }
    let provider_ref = razorpay_money().provider_ref;
    for kind in ["payment.authorized", "payment.failed"] {
        let review = Reading::Review { provider_ref: provider_ref.clone() };
        assert_eq!(razorpay_kind(kind), review, "{kind}");
    }
}

#[test]
fn a_success_that_contradicts_itself_is_looked_up() {
    for (provider, fixture, pointer, status) in [
        (Provider::Stripe, STRIPE, "/data/object/status", "processing"),
        (Provider::Stripe, STRIPE, "/data/object/status", "a status of next year"),
        (Provider::Razorpay, CAPTURED, "/payload/payment/entity/status", "authorized"),
        (Provider::Razorpay, ORDER_PAID, "/payload/payment/entity/status", "refunded"),
    ] {
        let body = changed(fixture, pointer, Some(json!(status)));

        assert!(matches!(reading(provider, &body), Reading::Review { .. }), "{status}");
    }
}

/// An event of Stripe's about the object.
fn stripe_object(kind: &str, object: &Value) -> Reading {
    let event = json!({
        "id": "evt_1", "object": "event", "type": kind, "livemode": false, "data": { "object": object },
    });
    reading(Provider::Stripe, event.to_string().as_bytes())
}

/// An event of Razorpay's about an entity of that name.
fn razorpay_entity(kind: &str, name: &str, entity: &Value) -> Reading {
    let event =
        json!({ "entity": "event", "event": kind, "payload": { name: { "entity": entity } } });
    reading(Provider::Razorpay, event.to_string().as_bytes())
}

#[test]
fn case_21_whatever_is_said_of_a_refund_or_a_dispute_is_looked_up() {
    let refund = |name: &str| Reading::ReviewRefund { provider_ref: name.to_owned() };
    for kind in ["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"] {
        let said = json!({ "id": "re_1", "status": "succeeded" });
        assert_eq!(stripe_object(kind, &said), refund("re_1"), "{kind}");
    }
    for kind in ["refund.created", "refund.processed", "refund.failed", "refund.speed_changed"] {
        let said = json!({ "id": "rfnd_1", "status": "processed" });
        assert_eq!(razorpay_entity(kind, "refund", &said), refund("rfnd_1"), "{kind}");
    }

    let dispute = |name: &str| Reading::ReviewDispute { provider_ref: name.to_owned() };
    for kind in ["created", "updated", "closed", "funds_withdrawn", "funds_reinstated", "new_word"]
    {
        let (kind, said) = (format!("charge.dispute.{kind}"), json!({ "id": "du_1" }));
        assert_eq!(stripe_object(&kind, &said), dispute("du_1"), "{kind}");
    }
    for kind in ["created", "won", "lost", "closed", "under_review", "action_required"] {
        let (kind, said) = (format!("payment.dispute.{kind}"), json!({ "id": "disp_1" }));
        assert_eq!(razorpay_entity(&kind, "dispute", &said), dispute("disp_1"), "{kind}");
    }
}

#[test]
fn refunds_of_a_charge_are_those_of_its_intent() {
    let of = |intent| {
        stripe_object("charge.refunded", &json!({ "id": "ch_1", "payment_intent": intent }))
    };
    let all = Reading::ReviewRefundsOf { charge_ref: "pi_1".to_owned() };
    assert_eq!(of(json!("pi_1")), all);
    assert_eq!(of(json!(null)), Reading::Ignore("a charge without an intent"));
    let parked = Reading::Park("`/data/object/payment_intent` cannot be read".to_owned());
    assert_eq!(of(json!({ "id": "pi_1" })), parked);
}

#[test]
fn a_refund_or_a_dispute_without_a_name_is_parked() {
    for said in [json!({}), json!({ "id": null }), json!({ "id": "a b" }), json!([])] {
        for kind in ["refund.created", "charge.dispute.created"] {
            let parked = Reading::Park("`/data/object/id` cannot be read".to_owned());
            assert_eq!(stripe_object(kind, &said), parked, "{kind} {said}");
        }
        for (kind, name) in [("refund.failed", "refund"), ("payment.dispute.won", "dispute")] {
            let parked = Reading::Park(format!("`/payload/{name}/entity/id` cannot be read"));
            assert_eq!(razorpay_entity(kind, name, &said), parked, "{kind} {said}");
        }
    }
}

#[test]
fn what_we_do_not_act_on_is_ignored() {
    for kind in ["payment_intent.created", "charge.succeeded", "a.kind_of_next_year"] {
        assert_eq!(stripe_kind(kind), Reading::Ignore(NOT_ACTED_ON), "{kind}");
    }
    for kind in ["payment.created", "refund.of_next_year", "a.kind_of_next_year"] {
        assert_eq!(razorpay_kind(kind), Reading::Ignore(NOT_ACTED_ON), "{kind}");
    }
    for order_id in [None, Some(json!(null)), Some(json!(""))] {
        let body = changed(CAPTURED, "/payload/payment/entity/order_id", order_id);

        let reading = reading(Provider::Razorpay, &body);

        assert_eq!(reading, Reading::Ignore("a payment without an order"));
    }
}

#[test]
fn whatever_else_a_webhook_holds_does_not_matter() {
    let stranger = News { payment_id: None, ..stripe_money() };
    for (pointer, value, news) in [
        ("/data/object/metadata", Some(json!(null)), &stranger),
        ("/data/object/metadata", Some(json!({})), &stranger),
        ("/data/object/metadata", None, &stranger),
        ("/data/object/metadata/payment_id", Some(json!("a cart of another shop")), &stranger),
        ("/data/object/a_new_field", Some(json!([{ "deep": [null] }])), &stripe_money()),
        ("/data/object/capture_method", Some(json!("a_new_way")), &stripe_money()),
        ("/data/object/currency", Some(json!("Usd")), &stripe_money()),
        ("/api_version", Some(json!(null)), &stripe_money()),
        ("/request", Some(json!("req_of_before_2017")), &stripe_money()),
        ("/pending_webhooks", None, &stripe_money()),
    ] {
        let reading = reading(Provider::Stripe, &changed(STRIPE, pointer, value));

        assert_eq!(reading, Reading::Settle(news.clone()), "{pointer}");
    }
}

#[test]
fn what_concerns_us_and_cannot_be_read_is_parked_with_the_fields_name_alone() {
    const SECRET: &str = "gaurav.kumar@example.com";
    for (fixture, pointer) in [
        (STRIPE, "/type"),
        (STRIPE, "/livemode"),
        (STRIPE, "/data/object/id"),
        (STRIPE, "/data/object/amount_received"),
        (STRIPE, "/data/object/currency"),
        (CAPTURED, "/event"),
        (CAPTURED, "/payload/payment/entity/id"),
        (CAPTURED, "/payload/payment/entity/amount"),
        (CAPTURED, "/payload/payment/entity/currency"),
    ] {
        let provider = if fixture == STRIPE { Provider::Stripe } else { Provider::Razorpay };
        // No name of an object has a space in it, and no kind is an array.
        let wrong = if matches!(pointer, "/type" | "/event") { json!([]) } else { json!("a b") };
        for value in [None, Some(json!(null)), Some(wrong), Some(json!([SECRET])), Some(json!(-1))]
        {
            let reading = reading(provider, &changed(fixture, pointer, value.clone()));

            let parked = Reading::Park(format!("`{pointer}` cannot be read"));
            assert_eq!(reading, parked, "{value:?}");
        }
    }
    let deep = "[".repeat(100_000);
    for body in [&b""[..], b"hello", b"{\"id\":", b"\xff\xfe", deep.as_bytes()] {
        let parked = Reading::Park("the body is not JSON".to_owned());
        assert_eq!(reading(Provider::Stripe, body), parked);
        assert_eq!(reading(Provider::Razorpay, body), parked);
    }
}

#[test]
fn amounts_are_whole() {
    for amount in [json!(4_999.0), json!(1e3), json!(u64::MAX), json!("4999")] {
        let body = changed(STRIPE, "/data/object/amount_received", Some(amount.clone()));

        assert!(matches!(reading(Provider::Stripe, &body), Reading::Park(_)), "{amount}");
    }
}

#[test]
fn case_34_an_amount_is_counted_as_iso_4217_counts_it() {
    let of = |currency: &str, amount: i64| {
        let body = changed(STRIPE, "/data/object/currency", Some(json!(currency)));
        let body = String::from_utf8(body).unwrap();
        reading(
            Provider::Stripe,
            &changed(&body, "/data/object/amount_received", Some(json!(amount))),
        )
    };
    for (currency, there, here) in
        [("jpy", 500, 500), ("isk", 500, 5), ("ugx", 500, 5), ("mga", 5, 500), ("kwd", 500, 500)]
    {
        let Reading::Settle(News { standing: Standing::Captured(charges), .. }) =
            of(currency, there)
        else {
            panic!("{currency}");
        };
        assert_eq!(charges[0].amount_minor, here, "{currency}");
    }
    // Stripe has no hundredths of a krona.
    assert!(matches!(of("isk", 501), Reading::Park(_)));
}

#[test]
fn events_of_the_other_mode_are_parked() {
    let test = stored(Received::from_stripe(STRIPE.into()));
    let live = stored(Received::from_stripe(changed(STRIPE, "/livemode", Some(json!(true)))));
    assert_eq!(
        read(&test, true, OffsetDateTime::UNIX_EPOCH),
        Reading::Park("test-mode event".to_owned())
    );
    assert_eq!(
        read(&live, false, OffsetDateTime::UNIX_EPOCH),
        Reading::Park("live-mode event".to_owned())
    );

    let Reading::Settle(news) = read(&live, true, OffsetDateTime::UNIX_EPOCH) else {
        panic!("no money")
    };
    assert!(news.livemode);
}

#[test]
fn an_event_is_called_what_its_provider_calls_it() {
    let stripe = Received::from_stripe(STRIPE.into());
    assert_eq!(stripe.event_id, "evt_3SVkq2Lkd9f2Zs1p0aXyQ7bR");
    assert_eq!(stripe.kind, "payment_intent.succeeded");

    let named = Received::from_razorpay(Some("evt_1"), CAPTURED.into());
    assert_eq!((&*named.event_id, &*named.kind), ("evt_1", "payment.captured"));

    let unnamed = Received::from_razorpay(None, CAPTURED.into());
    assert_eq!(unnamed.event_id, hex::encode(Sha256::digest(CAPTURED)));
}

#[test]
fn names_that_no_column_takes_are_replaced_and_stay_different() {
    let id = |id: &str| {
        let received = Received::from_razorpay(Some(id), CAPTURED.into());
        assert!(is_name(&received.event_id), "{}", received.event_id);
        received.event_id
    };
    let long = "x".repeat(EVENT_ID_LENGTH_MAX);
    assert_eq!(id(&long), long);
    assert_ne!(id(&format!("{long}y")), id(&format!("{long}z")));
    assert_ne!(id("a\0"), id("a\n"));

    let kind = "payment.\u{0}captured".to_owned() + &"ß".repeat(200);
    let body = changed(CAPTURED, "/event", Some(json!(kind)));
    let kind = Received::from_razorpay(None, body).kind;
    assert!(kind.starts_with("payment.captured"));
    assert_eq!(kind.chars().count(), KIND_LENGTH_MAX);
}

#[test]
fn a_body_is_shown_to_nobody() {
    let received = Received::from_razorpay(Some("evt_1"), CAPTURED.into());
    let event = stored(received.clone());

    let shown = format!("{received:?} {event:?}");

    assert!(shown.contains("Body(") && !shown.contains("gaurav") && !shown.contains("103, 97"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("payload"),
        Just("payment"),
        Just("entity"),
        Just("data"),
        Just("object"),
        Just("id"),
        Just("order_id"),
        Just("status"),
        Just("livemode"),
        Just("notes"),
        Just("metadata"),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|fields| {
                fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect()
            }),
        ]
    })
}

fn any_provider() -> impl Strategy<Value = Provider> {
    prop::sample::select(&Provider::ALL[..])
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange_to_be_read(
        provider in any_provider(),
        body in prop::collection::vec(any::<u8>(), 0..300),
        kind in ".{0,30}",
    ) {
        let event = StoredEvent { id: EventId::generate(), provider, kind, body: body.clone().into() };
        let _ = read(&event, true, OffsetDateTime::UNIX_EPOCH);
        let _ = (Received::from_stripe(body.clone()), Received::from_razorpay(None, body));
    }

    #[test]
    fn nothing_that_is_not_complete_is_money(
        provider in any_provider(),
        kind in prop::sample::select(vec![
            "payment_intent.succeeded", "payment_intent.canceled", "payment.captured", "order.paid",
            "payment.failed", "refund.created", "charge.dispute.created", "payment.dispute.won", "",
        ]),
        body in any_json(),
    ) {
        let body = body.to_string().into_bytes();
        let event = StoredEvent { id: EventId::generate(), provider, kind: kind.to_owned(), body: body.into() };
        // It has no amount.
        prop_assert!(!matches!(read(&event, true, OffsetDateTime::UNIX_EPOCH), Reading::Settle(_)));
    }

    #[test]
    fn one_field_that_is_anything_leaves_the_rest_as_it_was(
        fixture in prop::sample::select(vec![STRIPE, CAPTURED, ORDER_PAID]),
        field in any::<prop::sample::Index>(),
        value in any_json(),
    ) {
        let mut body: Value = serde_json::from_str(fixture).unwrap();
        let pointer =
            if fixture == STRIPE { "/data/object" } else { "/payload/payment/entity" };
        let fields = body.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
        let name = fields.keys().nth(field.index(fields.len())).unwrap().clone();
        fields.insert(name, value);
        let provider = if fixture == STRIPE { Provider::Stripe } else { Provider::Razorpay };

        let reading = reading(provider, body.to_string().as_bytes());

        if let Reading::Settle(News { standing: Standing::Captured(charges), .. }) = reading {
            prop_assert!(charges.len() == 1 && charges[0].amount_minor >= 0);
            prop_assert!(charges[0].currency.bytes().all(|byte| byte.is_ascii_uppercase()));
            prop_assert!(is_name(&charges[0].charge_ref));
        }
    }
}

#[test]
fn old_news_of_collected_money_is_asked_about() {
    for (provider, body, created, name) in [
        (Provider::Stripe, STRIPE, "/created", "pi_3SVkq2Lkd9f2Zs1p0K2mTt9u"),
        (Provider::Razorpay, CAPTURED, "/created_at", "order_DESlLckIVRkHWj"),
    ] {
        let body = changed(body, created, Some(json!(1_000)));
        let received = match provider {
            Provider::Stripe => Received::from_stripe(body),
            Provider::Razorpay => Received::from_razorpay(Some("evt_razorpay"), body),
        };
        let event = stored(received);
        let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(1_000 + seconds).unwrap();

        for fresh in [-600_i64, 0, 900] {
            assert!(matches!(read(&event, false, at(fresh)), Reading::Settle(_)), "{fresh}");
        }
        let review = Reading::Review { provider_ref: name.to_owned() };
        assert_eq!(read(&event, false, at(901)), review);
    }
}
