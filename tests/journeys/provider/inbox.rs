//! Webhooks come in. The numbers are those of the cases in `docs/reliability.md`.

use std::{collections::BTreeSet, slice, time::Duration};

use futures_util::future::join_all;
use hmac::{Hmac, KeyInit, Mac};
use holdfast::{
    clients::{
        Budget, Providers, Razorpay, Stripe, razorpay::RazorpayAccess, stripe::StripeAccess,
    },
    context::Context,
    kernel::{EventId, Fault, batch::SLICE_MAX, time},
    payments::{
        PaymentError, Provider,
        inbox::{self, Outcome, Reading, Receipt, Received, State, store},
    },
};
use jobs::{Job, checkout::SettleEvent};
use reqwest::{Method, RequestBuilder};
use secrecy::SecretString;
use serde_json::json;
use sha2::Sha256;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::support::{
    app::TestApp,
    client::{Answer, Client},
};

const STRIPE: &str = "/v1/webhooks/stripe";
const RAZORPAY: &str = "/v1/webhooks/razorpay";

/// What the providers sign with now, and did until yesterday.
const SECRET: &str = "whsec_of_today";
const FORMER_SECRET: &str = "whsec_of_yesterday";

/// A shop that both providers know.
fn known_to_both(cx: &Context) -> Context {
    let webhook_secrets = [SECRET, FORMER_SECRET].map(SecretString::from).to_vec();
    // Nobody listens there: a webhook is taken without a question.
    let budget = |provider| Budget::new("redis://127.0.0.1:1", "nobody", provider, 10).unwrap();
    let url = "http://127.0.0.1:1".to_owned();
    let stripe = StripeAccess {
        url: url.clone(),
        keys: vec!["sk_test_key".into()],
        webhook_secrets: webhook_secrets.clone(),
    };
    let razorpay = RazorpayAccess {
        url,
        keys: vec![("rzp_test_key".to_owned(), "key".into())],
        webhook_secrets,
    };
    let providers = Providers {
        stripe: Some(Stripe::new(stripe, budget("stripe")).unwrap()),
        razorpay: Some(Razorpay::new(razorpay, budget("razorpay")).unwrap()),
    };
    Context { providers, ..cx.clone() }
}

impl TestApp {
    /// The providers, at an API process that knows them. Nobody works on what they tell.
    async fn providers(&self) -> Client {
        self.expect_unfinished_jobs();
        self.another_api(known_to_both(&self.cx)).await
    }

    /// How many webhooks are kept, and how many of them are promised to be worked on.
    async fn kept(&self) -> (i64, i64) {
        let jobs = format!("job_ledger WHERE kind = '{}'", SettleEvent::KIND);
        (self.count("provider_events").await, self.count(&jobs).await)
    }
}

fn sign(secret: &str, parts: &[&[u8]]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    for part in parts {
        mac.update(part);
    }
    hex::encode(mac.finalize().into_bytes())
}

fn stripe_header(secret: &str, body: &[u8], age_s: i64) -> String {
    let second = (time::now().unix_timestamp() - age_s).to_string();
    format!("t={second},v1={}", sign(secret, &[second.as_bytes(), b".", body]))
}

/// An event of Stripe, signed with today's secret.
fn stripe(client: &Client, body: impl Into<Vec<u8>>) -> RequestBuilder {
    let body = body.into();
    stripe_with(client, &stripe_header(SECRET, &body, 0), body)
}

fn stripe_with(client: &Client, header: &str, body: impl Into<Vec<u8>>) -> RequestBuilder {
    client
        .request(Method::POST, STRIPE)
        .header("Content-Type", "application/json; charset=utf-8")
        .header("Stripe-Signature", header)
        .body(body.into())
}

/// An event of Razorpay, signed with today's secret.
fn razorpay(client: &Client, event_id: &str, body: impl Into<Vec<u8>>) -> RequestBuilder {
    let body = body.into();
    client
        .request(Method::POST, RAZORPAY)
        .header("Content-Type", "application/json")
        .header("X-Razorpay-Signature", sign(SECRET, &[&body]))
        .header("x-razorpay-event-id", event_id)
        .body(body)
}

fn event(id: &str, kind: &str) -> String {
    let intent = json!({ "id": "pi_1", "object": "payment_intent", "status": "requires_action" });
    json!({ "id": id, "object": "event", "type": kind, "livemode": false, "data": { "object": intent } })
        .to_string()
}

/// What Razorpay tells of a payment; its body has no name.
fn payment(kind: &str, id: &str) -> String {
    let payment = json!({ "id": id, "order_id": "order_1", "status": "authorized", "notes": [] });
    json!({ "entity": "event", "event": kind, "payload": { "payment": { "entity": payment } } })
        .to_string()
}

async fn assert_taken(request: RequestBuilder) {
    let answer = Answer::to(request).await;
    answer.assert_status(200);
    assert_eq!(answer.body, r#"{"received":true}"#);
}

#[tokio::test]
async fn case_01_an_event_that_comes_many_times_at_once_is_kept_once() {
    TestApp::run(async |app| {
        let apis = [app.providers().await, app.providers().await];
        let body = event("evt_1", "payment_intent.succeeded");
        let payment = payment("payment.captured", "pay_1");

        let stripe = (0..40).map(|n| stripe(&apis[n % 2], &*body));
        let razorpay = (0..40).map(|n| razorpay(&apis[n % 2], "evt_1", &*payment));
        join_all(stripe.chain(razorpay).map(assert_taken)).await;

        assert_eq!(app.kept().await, (2, 2));
    })
    .await;
}

#[tokio::test]
async fn case_24_webhooks_of_both_secrets_are_taken_while_a_secret_is_changed() {
    TestApp::run(async |app| {
        let api = app.providers().await;
        for (n, secret) in [SECRET, FORMER_SECRET].into_iter().enumerate() {
            let body = event(&format!("evt_{n}"), "charge.succeeded");
            let header = stripe_header(secret, body.as_bytes(), 0);
            assert_taken(stripe_with(&api, &header, body)).await;
            let body = payment("payment.captured", &format!("pay_{n}"));
            let signature = sign(secret, &[body.as_bytes()]);
            let request = api.request(Method::POST, RAZORPAY).body(body);
            assert_taken(request.header("X-Razorpay-Signature", signature)).await;
        }
        let body = event("evt_both", "charge.succeeded");
        let former = stripe_header(FORMER_SECRET, body.as_bytes(), 0);
        let (_, former) = former.split_once(',').unwrap();
        let header =
            format!("{},{former}", stripe_header("whsec_of_another_shop", body.as_bytes(), 0));
        assert_taken(stripe_with(&api, &header, body)).await;

        assert_eq!(app.kept().await, (5, 5));
    })
    .await;
}

#[tokio::test]
async fn case_25_a_webhook_that_is_forged_stale_or_changed_leaves_no_trace() {
    TestApp::run(async |app| {
        let api = app.providers().await;
        let body = event("evt_1", "payment_intent.succeeded");
        let good = stripe_header(SECRET, body.as_bytes(), 0);
        let before = app.books().await;

        let post = |path: &str| api.request(Method::POST, path).body(body.clone());
        let forged = [
            post(STRIPE),
            post(STRIPE).header("Stripe-Signature", ""),
            post(STRIPE).header("Stripe-Signature", &b"\xff\xfe"[..]),
            post(STRIPE).header("Stripe-Signature", "t=1,v1=00"),
            post(STRIPE).header("X-Razorpay-Signature", sign(SECRET, &[body.as_bytes()])),
            stripe_with(&api, &stripe_header("whsec_guessed", body.as_bytes(), 0), &*body),
            stripe_with(&api, &good, body.replace("evt_1", "evt_2")),
            stripe_with(&api, &good, format!("{body} ")),
            stripe_with(&api, &stripe_header(SECRET, body.as_bytes(), 310), &*body),
            // A clock that is wrong is no better (case 37).
            stripe_with(&api, &stripe_header(SECRET, body.as_bytes(), -310), &*body),
            post(RAZORPAY),
            post(RAZORPAY).header("Stripe-Signature", &good),
            post(RAZORPAY).header("X-Razorpay-Signature", "00"),
            post(RAZORPAY).header("X-Razorpay-Signature", sign("guessed", &[body.as_bytes()])),
            razorpay(&api, "evt_1", &*body).body(body.replace("evt_1", "evt_2")),
        ];
        for request in forged {
            let refusal = Answer::to(request).await;

            refusal.assert_problem(400, "bad-signature");
            assert!(!refusal.body.contains("evt_") && !refusal.body.contains("whsec"));
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn case_25_a_razorpay_replay_under_a_new_name_is_a_duplicate() {
    TestApp::run(async |app| {
        let api = app.providers().await;
        let body = payment("payment.captured", "pay_1");

        assert_taken(razorpay(&api, "evt_1", &*body)).await;
        assert_taken(razorpay(&api, "evt_replayed", &*body)).await;
        let unnamed = api.request(Method::POST, RAZORPAY).body(body.clone());
        let signature = sign(SECRET, &[body.as_bytes()]);
        assert_taken(unnamed.header("X-Razorpay-Signature", signature)).await;

        assert_eq!(app.kept().await, (1, 1));
        let name: String = app.scalar("SELECT event_id FROM provider_events").await;
        assert_eq!(name, "evt_1");
    })
    .await;
}

#[tokio::test]
async fn case_25_a_name_that_comes_again_with_another_body_changes_nothing() {
    TestApp::run(async |app| {
        let api = app.providers().await;
        let first = event("evt_1", "payment_intent.canceled");
        assert_taken(stripe(&api, &*first)).await;
        assert_taken(razorpay(&api, "evt_1", payment("payment.failed", "pay_1"))).await;
        let before = app.books().await;

        assert_taken(stripe(&api, event("evt_1", "payment_intent.succeeded"))).await;
        assert_taken(razorpay(&api, "evt_1", payment("payment.captured", "pay_2"))).await;

        assert_eq!(app.books().await, before);
        let raw: Vec<u8> =
            app.scalar("SELECT raw FROM provider_events WHERE provider = 'stripe'").await;
        assert_eq!(raw, first.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn case_27_what_nobody_knows_is_kept_and_what_nobody_can_read_is_parked() {
    TestApp::run(async |app| {
        let api = app.providers().await;
        let unreadable =
            json!({ "id": "evt_2", "type": "payment_intent.succeeded", "livemode": false });
        for body in [
            event("evt_1", "a.kind_of_next_year").into_bytes(),
            unreadable.to_string().into_bytes(),
            b"not JSON".to_vec(),
            vec![0xff, 0x00, 0xfe],
            Vec::new(),
            event("evt_\u{0}", "payment_intent.\u{0}").into_bytes(),
            event(&"x".repeat(1_000), &"y".repeat(1_000)).into_bytes(),
        ] {
            assert_taken(stripe(&api, body.clone())).await;
            assert_taken(stripe(&api, body)).await;
        }
        assert_eq!(app.kept().await, (7, 7));

        // What the worker does with them.
        let events = store::load(&app.db, &waiting(app).await).await.unwrap();
        let outcomes: Vec<_> = events.iter().map(|event| (event.id, outcome(event))).collect();
        assert_eq!(store::finish(&app.db, &outcomes).await.unwrap(), 7);

        let ignored = store::list(&app.db, State::Ignored, 100).await.unwrap();
        assert!(ignored.iter().any(|entry| entry.kind == "a.kind_of_next_year"));
        let parked = store::list(&app.db, State::Parked, 100).await.unwrap();
        let reasons: BTreeSet<_> = parked.iter().map(|entry| entry.reason.as_deref()).collect();
        let expected = ["`/data/object/id` cannot be read", "the body is not JSON"];
        assert_eq!(reasons, expected.map(Some).into());
        assert_eq!(waiting(app).await, []);
    })
    .await;
}

fn outcome(event: &inbox::StoredEvent) -> Outcome {
    match inbox::read(event, false, time::now()) {
        Reading::Ignore(reason) => Outcome::Ignored(reason.to_owned()),
        Reading::Park(reason) => Outcome::Parked(reason),
        Reading::Settle(_)
        | Reading::Review { .. }
        | Reading::ReviewRefund { .. }
        | Reading::ReviewRefundsOf { .. }
        | Reading::ReviewDispute { .. } => panic!("{event:?}"),
    }
}

/// The webhooks that nobody has finished.
async fn waiting(app: &TestApp) -> Vec<EventId> {
    let entries = store::list(&app.db, State::New, 100).await.unwrap();
    entries.into_iter().map(|entry| entry.id).collect()
}

#[tokio::test]
async fn case_29_no_webhook_waits_for_the_work_that_it_makes() {
    TestApp::run(async |app| {
        let api = app.providers().await;
        let mut busy = app.db.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE payments, captures, orders, stock, holds")
            .execute(&mut *busy)
            .await
            .unwrap();

        assert_taken(stripe(&api, event("evt_1", "payment_intent.succeeded"))).await;

        assert_eq!(waiting(app).await.len(), 1);
        busy.rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn case_30_a_webhook_that_could_not_be_kept_is_asked_for_again() {
    TestApp::run(async |app| {
        let api = app.providers().await;
        let body = event("evt_1", "payment_intent.succeeded");
        let before = app.books().await;
        let mut stuck = app.db.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE provider_events").execute(&mut *stuck).await.unwrap();

        let refusals = join_all((0..20).map(|_| Answer::to(stripe(&api, &*body)))).await;

        stuck.rollback().await.unwrap();
        for refusal in refusals {
            refusal.assert_status(503);
        }
        assert_eq!(app.books().await, before);
        assert_taken(stripe(&api, &*body)).await;
        assert_eq!(app.kept().await, (1, 1));
    })
    .await;
}

#[tokio::test]
async fn case_30_a_shop_without_its_database_says_so() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
        let patience = Duration::from_millis(100);
        let db = PgPoolOptions::new().acquire_timeout(patience).connect_lazy(nowhere).unwrap();
        let api = app.another_api(Context { db, ..known_to_both(&app.cx) }).await;

        for request in [
            stripe(&api, event("evt_1", "payment_intent.succeeded")),
            razorpay(&api, "evt_1", payment("payment.captured", "pay_1")),
        ] {
            Answer::to(request).await.assert_problem(503, "temporarily-unavailable");
        }
    })
    .await;
}

#[tokio::test]
async fn case_30_a_shop_without_redis_takes_webhooks() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        // Nobody listens there.
        let relay = jobs::Relay::start("redis://127.0.0.1:1", "nobody").unwrap();
        let api = app.another_api(Context { relay, ..known_to_both(&app.cx) }).await;

        assert_taken(stripe(&api, event("evt_1", "payment_intent.succeeded"))).await;
        assert_taken(razorpay(&api, "evt_1", payment("payment.captured", "pay_1"))).await;

        assert_eq!(app.kept().await, (2, 2));
        // Nobody was woken for them; the reaper notices.
        app.hurry().await;
        let pushed = app.cx.relay.push_overdue(&app.db, 100).await.unwrap();
        assert_eq!(pushed, 2);
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_the_shop_does_not_know_is_told_so() {
    TestApp::run(async |app| {
        let before = app.books().await;
        let cx = Context { providers: Providers::default(), ..app.cx.clone() };
        let stranger = app.another_api(cx).await;

        for request in [
            stripe(&stranger, event("evt_1", "payment_intent.succeeded")),
            razorpay(&stranger, "evt_1", payment("payment.captured", "pay_1")),
        ] {
            Answer::to(request).await.assert_problem(404, "provider-not-offered");
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_webhook_is_taken_whatever_type_it_claims_to_be_and_not_beyond_its_length() {
    const LENGTH_MAX: usize = 256 * 1024;
    TestApp::run(async |app| {
        let api = app.providers().await;
        let types =
            [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("?")];
        for (n, kind) in types.into_iter().enumerate() {
            let body = event(&format!("evt_{n}"), "payment_intent.succeeded").into_bytes();
            let header = stripe_header(SECRET, &body, 0);
            let request = api.request(Method::POST, STRIPE).header("Stripe-Signature", header);
            let request = match kind {
                Some(kind) => request.header("Content-Type", kind),
                None => request,
            };
            assert_taken(request.body(body)).await;
        }
        let mut longest = event("evt_long", "payment_intent.succeeded").into_bytes();
        longest.resize(LENGTH_MAX, b' ');
        assert_taken(stripe(&api, longest.clone())).await;
        assert_eq!(app.kept().await, (5, 5));

        longest.push(b' ');
        Answer::to(stripe(&api, longest)).await.assert_problem(413, "too-large");

        assert_eq!(app.kept().await, (5, 5));
    })
    .await;
}

/// What became of each webhook of a slice.
fn summary(receipts: &[Result<Receipt, PaymentError>]) -> Vec<&'static str> {
    receipts
        .iter()
        .map(|receipt| match receipt {
            Ok(receipt) => receipt.name(),
            Err(error) => error.code(),
        })
        .collect()
}

#[tokio::test]
async fn each_webhook_of_a_slice_is_answered_for_itself_and_in_its_place() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let stripe = |id: &str, kind: &str| Received::from_stripe(event(id, kind).into());
        let captured =
            |name, id| Received::from_razorpay(name, payment("payment.captured", id).into());
        inbox::receive(&app.cx, &[stripe("evt_old", "a")]).await;
        let slice = [
            stripe("evt_1", "a"),
            stripe("evt_old", "a"),
            captured(Some("evt_1"), "pay_1"),
            stripe("evt_1", "a"),
            stripe("evt_1", "b"),
            captured(Some("evt_2"), "pay_1"),
            captured(None, "pay_2"),
            stripe("evt_old", "b"),
            stripe("evt_2", "a"),
        ];

        let receipts = inbox::receive(&app.cx, &slice).await;

        assert_eq!(
            summary(&receipts),
            [
                "new",
                "duplicate",
                "new",
                "duplicate",
                "altered",
                "duplicate",
                "new",
                "altered",
                "new",
            ]
        );
        assert_eq!(app.kept().await, (5, 5));
    })
    .await;
}

#[tokio::test]
async fn one_webhook_that_the_database_refuses_does_not_spoil_its_slice() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        app.execute(
            "
            ALTER TABLE provider_events
            ADD CONSTRAINT provider_events_unlucky CHECK (event_id <> 'evt_13')
            ",
        )
        .await;
        let slice: Vec<_> = (0..SLICE_MAX)
            .map(|n| Received::from_stripe(event(&format!("evt_{n}"), "a").into()))
            .collect();

        let receipts = inbox::receive(&app.cx, &slice).await;

        for (n, receipt) in summary(&receipts).into_iter().enumerate() {
            assert_eq!(receipt, if n == 13 { "internal-error" } else { "new" }, "{n}");
        }
        assert_eq!(app.kept().await, (199, 199));
    })
    .await;
}

#[tokio::test]
async fn slices_with_the_same_webhooks_do_not_stand_in_each_others_way() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let slice = |reversed: bool| {
            let mut slice: Vec<_> = (0..100)
                .map(|n| Received::from_stripe(event(&format!("evt_{n}"), "a").into()))
                .chain((0..100).map(|n| {
                    let body = payment("payment.captured", &format!("pay_{n}"));
                    Received::from_razorpay(Some(&format!("evt_{n}")), body.into())
                }))
                .collect();
            if reversed {
                slice.reverse();
            }
            slice
        };
        let slices: Vec<_> = (0..6).map(|n| slice(n % 2 == 1)).collect();

        let receipts = join_all(slices.iter().map(|slice| inbox::receive(&app.cx, slice))).await;

        let receipts: Vec<_> = receipts.iter().flat_map(|receipts| summary(receipts)).collect();
        let count = |name| receipts.iter().filter(|receipt| **receipt == name).count();
        assert_eq!((count("new"), count("duplicate")), (200, 1_000));
        assert_eq!(app.kept().await, (200, 200));
    })
    .await;
}

#[tokio::test]
async fn a_webhook_is_finished_once() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let body = payment("payment.captured", "pay_1");
        let received = Received::from_razorpay(Some("evt_1"), body.clone().into());
        inbox::receive(&app.cx, slice::from_ref(&received)).await;
        let ids = waiting(app).await;
        let events = store::load(&app.db, &ids).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].provider, &*events[0].kind),
            (Provider::Razorpay, "payment.captured")
        );
        assert_eq!(events[0].body.as_ref(), body.as_bytes());

        let unknown = EventId::from(Uuid::now_v7());
        let done = [(ids[0], Outcome::Done), (unknown, Outcome::Done)];
        assert_eq!(store::finish(&app.db, &done).await.unwrap(), 1);
        let parked = [(ids[0], Outcome::Parked("too late".to_owned()))];
        assert_eq!(store::finish(&app.db, &parked).await.unwrap(), 0);

        assert_eq!(store::load(&app.db, &ids).await.unwrap().len(), 0);
        let done = store::list(&app.db, State::Done, 0).await.unwrap();
        assert_eq!(done.len(), 1);
        assert_eq!((done[0].id, done[0].reason.as_deref()), (ids[0], None));
        assert!(done[0].finished_at.is_some());
        // It names people and holds what a browser pays with.
        let kept: i64 = app.scalar("SELECT sum(octet_length(raw)) FROM provider_events").await;
        assert_eq!(kept, 0);
    })
    .await;
}

#[tokio::test]
async fn finished_webhooks_are_forgotten_after_a_season_and_parked_ones_never() {
    TestApp::run(async |app| {
        app.expect_unfinished_jobs();
        let slice: Vec<_> =
            (0..4).map(|n| Received::from_stripe(event(&format!("evt_{n}"), "a").into())).collect();
        inbox::receive(&app.cx, &slice).await;
        let ids = waiting(app).await;
        let parked = Outcome::Parked("who knows".to_owned());
        let outcomes = [(ids[0], Outcome::Done), (ids[1], Outcome::Done), (ids[2], parked)];
        store::finish(&app.db, &outcomes).await.unwrap();
        app.execute("UPDATE provider_events SET received_at = now() - interval '1 year'").await;
        for (id, days) in [(ids[0], 91), (ids[1], 89), (ids[2], 91)] {
            sqlx::query(
                "UPDATE provider_events SET finished_at = now() - make_interval(days => $2)
                 WHERE id = $1",
            )
            .bind(id.uuid())
            .bind(days)
            .execute(&app.db)
            .await
            .unwrap();
        }

        assert_eq!(store::purge(&app.db, 100).await.unwrap(), 1);

        let left: Vec<Uuid> =
            app.scalar("SELECT array_agg(id ORDER BY id) FROM provider_events").await;
        let mut expected: Vec<_> = ids[1..].iter().map(|id| id.uuid()).collect();
        expected.sort_unstable();
        assert_eq!(left, expected);
    })
    .await;
}

#[tokio::test]
async fn webhooks_that_come_together_share_their_transactions() {
    TestApp::run(async |app| {
        // Where the machine stalls, some wait for too long and are to come again.
        const STALLS_MAX: usize = 5;
        app.expect_unfinished_jobs();
        let api = app.another_api(known_to_both(&app.patient())).await;
        for round in 0..STALLS_MAX {
            let mut stuck = app.db.begin().await.unwrap();
            sqlx::raw_sql("LOCK TABLE provider_events").execute(&mut *stuck).await.unwrap();
            let webhooks = (0..50).map(|n| {
                let body = event(&format!("evt_{round}_{n}"), "payment_intent.succeeded");
                Answer::to(stripe(&api, body))
            });
            let free = async {
                app.until_blocked().await;
                // The others are on their way, which nothing shows.
                tokio::time::sleep(Duration::from_millis(250)).await;
                stuck.rollback().await.unwrap();
            };

            let (answers, ()) = tokio::join!(join_all(webhooks), free);

            if answers.iter().any(|answer| answer.status == 503) {
                continue;
            }
            for answer in answers {
                answer.assert_status(200);
            }
            let ours = format!("provider_events WHERE event_id LIKE 'evt_{round}_%'");
            assert_eq!(app.count(&ours).await, 50);
            // How many of them come in time for the first one's successor is the machine's affair.
            let transactions = format!("(SELECT DISTINCT xmin::text FROM {ours}) AS transactions");
            let transactions = app.count(&transactions).await;
            assert!(transactions <= 40, "{transactions} transactions");
            let (kept, promised) = app.kept().await;
            assert_eq!(kept, promised);
            return;
        }
        panic!("somebody waited for too long every time");
    })
    .await;
}
