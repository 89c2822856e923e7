//! The clients of Stripe and Razorpay against the simulator: what they ask, what they make of every
//! answer and of none, what they never tell, and how often they ask.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod disputes;
mod history;
mod refunds;

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use futures_util::future::join_all;
use holdfast::{
    clients::{
        self, Budget, CallError, Razorpay, Stripe,
        razorpay::{NewOrder, PaymentStatus, RazorpayAccess},
        stripe::{IntentStatus, NewIntent, StripeAccess},
    },
    context::{Context, Shop},
    kernel::Money,
};
use secrecy::{ExposeSecret, SecretString};
use simulator::providers::{
    Act, Addresses, Capture, Config, Fault, Operation, Provider, Providers, RepeatedReceipt,
};
use sqlx::postgres::PgPoolOptions;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};
use uuid::Uuid;

/// What no error and no `Debug` may repeat.
const SECRETS: [&str; 5] =
    ["sk_test_holdfast", "holdfast_secret", "whsec_holdfast", "rzp_webhook_holdfast", "_secret_"];

/// Far above what a test asks.
const UNLIMITED: u32 = 1_000;

struct World {
    providers: Providers,
    stripe: Stripe,
    razorpay: Razorpay,
}

impl World {
    async fn start() -> Self {
        let config = Config::default();
        let stripe_keys = [config.stripe_key.clone()];
        let razorpay_keys = [(config.razorpay_key_id.clone(), config.razorpay_key_secret.clone())];
        let providers = Providers::start(Addresses::any(), config).await.unwrap();
        let stripe =
            stripe(&providers.url(Provider::Stripe), &stripe_keys.each_ref().map(|key| &**key));
        let keys = razorpay_keys.each_ref().map(|(id, secret)| (&**id, &**secret));
        let razorpay = razorpay(&providers.url(Provider::Razorpay), &keys);
        Self { providers, stripe, razorpay }
    }

    fn cx(&self) -> Context {
        context(&self.stripe, &self.razorpay)
    }

    /// Money that was collected, and the provider's name for it.
    fn charge(&self, provider: Provider, amount_minor: i64, currency: &str) -> String {
        let made = self.providers.create_foreign(provider, amount_minor, currency, BTreeMap::new());
        self.providers.set_capture(Capture::Automatic);
        self.providers.succeed(&made).unwrap().payment_ref.unwrap()
    }
}

/// What a use case has that asks these two, and nothing else.
fn context(stripe: &Stripe, razorpay: &Razorpay) -> Context {
    let nowhere = PgPoolOptions::new().connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    Context {
        db: nowhere,
        relay: jobs::Relay::start(&redis_url(), &namespace()).unwrap(),
        hold: Duration::from_mins(15),
        mailer: None,
        providers: clients::Providers {
            stripe: Some(stripe.clone()),
            razorpay: Some(razorpay.clone()),
        },
        shop: Shop { name: String::new(), url: String::new() },
    }
}

fn stripe(url: &str, keys: &[&str]) -> Stripe {
    let access = StripeAccess {
        url: url.to_owned(),
        keys: keys.iter().map(|key| SecretString::from(*key)).collect(),
        webhook_secrets: vec!["whsec_holdfast".into()],
    };
    Stripe::new(access, budget(&redis_url(), &namespace(), UNLIMITED)).unwrap()
}

fn razorpay(url: &str, keys: &[(&str, &str)]) -> Razorpay {
    let keys = keys.iter().map(|(id, secret)| ((*id).to_owned(), (*secret).into())).collect();
    let webhook_secrets = vec!["rzp_webhook_holdfast".into()];
    let access = RazorpayAccess { url: url.to_owned(), keys, webhook_secrets };
    Razorpay::new(access, budget(&redis_url(), &namespace(), UNLIMITED)).unwrap()
}

fn budget(redis_url: &str, namespace: &str, calls_per_second: u32) -> Budget {
    Budget::new(redis_url, namespace, "stripe", calls_per_second).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "where the server is is all a test needs to know")]
fn redis_url() -> String {
    std::env::var("REDIS_URL").expect("REDIS_URL is set")
}

fn namespace() -> String {
    format!("holdfast_test_{}", Uuid::now_v7().simple())
}

fn money(minor: i64, currency: &str) -> Money {
    Money::new(minor, currency.parse().unwrap()).unwrap()
}

/// An intent for a payment of its own.
fn new_intent() -> NewIntent<'static> {
    NewIntent {
        amount: money(4_999, "USD"),
        payment_id: Uuid::now_v7(),
        order_id: Uuid::now_v7(),
        order_number: "HF-1001",
    }
}

fn new_order(receipt: &str) -> NewOrder<'_> {
    NewOrder {
        amount: money(50_000, "INR"),
        receipt,
        payment_id: Uuid::now_v7(),
        order_id: Uuid::now_v7(),
        order_number: "HF-1001",
    }
}

fn key() -> String {
    format!("payment-{}", Uuid::now_v7())
}

fn receipt() -> String {
    Uuid::now_v7().simple().to_string()
}

/// An hour ago: before any test began.
fn before() -> OffsetDateTime {
    holdfast::kernel::time::now() - Duration::from_hours(1)
}

fn rejected(status: u16, code: &str) -> CallError {
    CallError::Rejected { status, code: Some(code.to_owned()) }
}

fn class(error: &CallError) -> &'static str {
    match error {
        CallError::Declined { .. } => "declined",
        CallError::Rejected { .. } => "rejected",
        CallError::Unknown { answered_5xx: true, .. } => "unknown after 5xx",
        CallError::Unknown { answered_5xx: false, .. } => "unknown",
        CallError::Busy { retry_after: Some(_) } => "busy for a time",
        CallError::Busy { retry_after: None } => "busy",
    }
}

fn assert_tells_no_secret(told: &impl Debug) {
    let told = format!("{told:#?} {told:?}");
    for secret in SECRETS {
        assert!(!told.contains(secret), "{told}");
    }
}

#[tokio::test]
async fn an_intent_is_created_once_under_its_key() {
    let world = World::start().await;
    let (new, key) = (new_intent(), key());

    let first = world.stripe.create_intent(&new, &key).await.unwrap();
    let second = world.stripe.create_intent(&new, &key).await.unwrap();

    assert_eq!(first.id, second.id);
    assert_eq!(first.status, IntentStatus::RequiresPaymentMethod);
    assert_eq!((first.amount_minor, &*first.currency), (4_999, "USD"));
    assert_eq!((first.amount_received_minor, first.livemode), (0, false));
    assert_eq!(first.payment_id, Some(new.payment_id));
    assert!(first.client_secret.unwrap().expose_secret().starts_with(&first.id));
    let made = world.providers.payments(Provider::Stripe);
    assert_eq!(made.len(), 1);
    assert_eq!(made[0].metadata["order_number"], "HF-1001");
    assert_eq!(made[0].metadata["order_id"], new.order_id.to_string());
    assert_eq!(world.providers.calls(Operation::CreateIntent), 2);
}

#[tokio::test]
async fn another_request_under_a_used_key_is_refused() {
    let world = World::start().await;
    let key = key();
    world.stripe.create_intent(&new_intent(), &key).await.unwrap();

    let error = world.stripe.create_intent(&new_intent(), &key).await.unwrap_err();

    assert_eq!(error, rejected(400, "idempotency_error"));
}

#[tokio::test]
async fn an_intent_stands_where_its_shopper_left_it() {
    let world = World::start().await;
    let id = world.stripe.create_intent(&new_intent(), &key()).await.unwrap().id;
    let look = async || world.stripe.retrieve_intent(&id).await.unwrap();

    world.providers.decline(&id, "insufficient_funds").unwrap();
    let declined = look().await;
    assert_eq!(declined.status, IntentStatus::RequiresPaymentMethod);
    assert_eq!(declined.last_decline.as_deref(), Some("insufficient_funds"));

    world.providers.act(&id, &Act::RequireAction).unwrap();
    assert_eq!(look().await.status, IntentStatus::RequiresAction);

    world.providers.succeed(&id).unwrap();
    let paid = look().await;
    assert_eq!((paid.status, paid.amount_received_minor), (IntentStatus::Succeeded, 4_999));

    let other = world.stripe.create_intent(&new_intent(), &key()).await.unwrap().id;
    world.providers.act(&other, &Act::Process).unwrap();
    let processing = world.stripe.retrieve_intent(&other).await.unwrap();
    assert_eq!(processing.status, IntentStatus::Processing);
}

#[tokio::test]
async fn an_intent_is_found_among_more_than_a_page_of_others() {
    let world = World::start().await;
    let new = new_intent();
    let made = world.stripe.create_intent(&new, &key()).await.unwrap();
    for _ in 0..120 {
        world.providers.create_foreign(Provider::Stripe, 100, "USD", BTreeMap::new());
    }

    let found = world.stripe.find_intent(new.payment_id, before()).await.unwrap().unwrap();
    let missing = world.stripe.find_intent(Uuid::now_v7(), before()).await.unwrap();

    assert_eq!(found.id, made.id);
    assert!(missing.is_none());
    assert_eq!(world.providers.calls(Operation::ListIntents), 4);
}

#[tokio::test]
async fn an_intent_that_two_thousand_followed_is_not_searched_for_to_the_end() {
    let world = World::start().await;
    let new = new_intent();
    world.stripe.create_intent(&new, &key()).await.unwrap();
    for _ in 0..2_000 {
        world.providers.create_foreign(Provider::Stripe, 100, "USD", BTreeMap::new());
    }

    let found = world.stripe.find_intent(new.payment_id, before()).await.unwrap();

    assert!(found.is_none());
    assert_eq!(world.providers.calls(Operation::ListIntents), 20);
}

#[tokio::test]
async fn cancelling_tells_how_the_intent_stands() {
    let world = World::start().await;
    let open = world.stripe.create_intent(&new_intent(), &key()).await.unwrap().id;
    let paid = world.stripe.create_intent(&new_intent(), &key()).await.unwrap().id;
    world.providers.succeed(&paid).unwrap();

    for (id, status) in [
        (&open, IntentStatus::Canceled),
        (&open, IntentStatus::Canceled),
        (&paid, IntentStatus::Succeeded),
    ] {
        assert_eq!(world.stripe.cancel_intent(id).await.unwrap().status, status);
    }
}

#[tokio::test]
async fn capturing_tells_how_the_intent_stands() {
    let world = World::start().await;
    let url = format!("{}/v1/payment_intents", world.providers.url(Provider::Stripe));
    let made = simulator::http_client().build().unwrap().post(url);
    let made = made
        .bearer_auth("sk_test_holdfast")
        .header("content-type", "application/x-www-form-urlencoded")
        .body("amount=700&currency=eur&capture_method=manual")
        .send()
        .await
        .unwrap();
    let made: serde_json::Value = made.json().await.unwrap();
    let id = made["id"].as_str().unwrap();
    let capture = async || world.stripe.capture_intent(id).await.unwrap().status;

    assert_eq!(capture().await, IntentStatus::RequiresPaymentMethod);
    world.providers.succeed(id).unwrap();
    let aside = world.stripe.retrieve_intent(id).await.unwrap();
    assert_eq!(aside.status, IntentStatus::RequiresCapture);
    assert_eq!(capture().await, IntentStatus::Succeeded);
    assert_eq!(capture().await, IntentStatus::Succeeded);
    assert_eq!(world.providers.ledger().captures.len(), 1);
}

/// A fault, how the client must class it, whether the call had its effect, and whether the provider
/// gives the object to whoever repeats the call.
const STRIPE_FAULTS: [(Fault, &str, bool, bool); 8] = [
    (Fault::ErrorBefore, "unknown after 5xx", false, false),
    (Fault::ErrorAfter, "unknown after 5xx", true, false),
    (Fault::BadGatewayBefore, "unknown", false, true),
    (Fault::BadGatewayAfter, "unknown", true, true),
    (Fault::ResetBefore, "unknown", false, true),
    (Fault::ResetAfter, "unknown", true, true),
    (Fault::MalformedAnswer, "unknown", true, true),
    (Fault::RateLimited, "busy for a time", false, true),
];

#[tokio::test]
async fn every_fault_of_stripe_is_known_for_what_it_is() {
    let world = World::start().await;
    for (fault, wanted, has_effect, is_repeatable) in STRIPE_FAULTS {
        let (new, key) = (new_intent(), key());
        world.providers.fail_next(Operation::CreateIntent, fault, 1);

        let error = world.stripe.create_intent(&new, &key).await.unwrap_err();
        assert_eq!(class(&error), wanted, "{fault:?}: {error}");
        assert_tells_no_secret(&(error.to_string(), error));
        let found = world.stripe.find_intent(new.payment_id, before()).await.unwrap();
        assert_eq!(found.is_some(), has_effect, "{fault:?}");
        let again = world.stripe.create_intent(&new, &key).await;
        assert_eq!(again.is_ok(), is_repeatable, "{fault:?}");
        if let (Some(found), Ok(again)) = (found, again) {
            assert_eq!(found.id, again.id, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn every_fault_of_razorpay_is_known_for_what_it_is() {
    let world = World::start().await;
    for (fault, wanted, has_effect, _) in STRIPE_FAULTS {
        let receipt = receipt();
        let new = new_order(&receipt);
        world.providers.fail_next(Operation::CreateOrder, fault, 1);

        let error = world.razorpay.create_order(&new).await.unwrap_err();
        assert_eq!(class(&error), wanted, "{fault:?}: {error}");
        assert_tells_no_secret(&(error.to_string(), error));
        let found = world.razorpay.find_order(&receipt).await.unwrap();
        assert_eq!(found.is_some(), has_effect, "{fault:?}");
        let again = world.razorpay.create_order(&new).await.unwrap();
        assert!(found.is_none_or(|found| found.id == again.id), "{fault:?}");
    }
}

#[tokio::test]
async fn a_provider_that_never_answers_is_left_after_some_seconds() {
    let world = World::start().await;
    let (new, key, receipt) = (new_intent(), key(), receipt());
    let order = new_order(&receipt);
    world.providers.fail_next(Provider::Stripe, Fault::HangAfter, 1);
    world.providers.fail_next(Provider::Razorpay, Fault::HangAfter, 1);

    let begun = Instant::now();
    let (intent, placed) =
        tokio::join!(world.stripe.create_intent(&new, &key), world.razorpay.create_order(&order));

    assert_eq!(class(&intent.unwrap_err()), "unknown");
    assert_eq!(class(&placed.unwrap_err()), "unknown");
    assert!((4..=10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert!(world.stripe.find_intent(new.payment_id, before()).await.unwrap().is_some());
    assert!(world.razorpay.find_order(&receipt).await.unwrap().is_some());
}

#[tokio::test]
async fn a_key_in_another_calls_hands_is_busy() {
    let world = World::start().await;
    let (new, key) = (new_intent(), key());
    let slow = Fault::Slow(Duration::from_secs(1));
    world.providers.fail_next(Operation::CreateIntent, slow, 2);

    let calls = [world.stripe.create_intent(&new, &key), world.stripe.create_intent(&new, &key)];
    let (made, busy): (Vec<_>, Vec<_>) = join_all(calls).await.into_iter().partition(Result::is_ok);

    assert_eq!((made.len(), busy.len()), (1, 1));
    assert_eq!(class(busy[0].as_ref().unwrap_err()), "busy");
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_what_is_no_id_is_not_asked_for() {
    let world = World::start().await;

    assert!(world.stripe.retrieve_intent("pi_none").await.unwrap_err().is_not_found());
    assert_eq!(world.providers.calls(Operation::RetrieveIntent), 1);
    assert!(world.stripe.retrieve_intent("../events").await.unwrap_err().is_not_found());
    assert!(world.stripe.cancel_intent("pi_1/cancel?x=").await.unwrap_err().is_not_found());
    assert!(world.razorpay.retrieve_order("../payments").await.unwrap_err().is_not_found());
    assert!(world.razorpay.retrieve_payment("").await.unwrap_err().is_not_found());
    assert_eq!(world.providers.calls(Operation::RetrieveIntent), 1);
    assert_eq!(world.providers.calls(Operation::ListEvents), 0);
    assert_eq!(world.providers.calls(Operation::ListPayments), 0);
    assert!(world.razorpay.find_order("none").await.unwrap().is_none());
}

#[tokio::test]
async fn the_second_key_is_used_where_the_first_is_not_known() {
    let world = World::start().await;
    let stripe_url = world.providers.url(Provider::Stripe);
    let razorpay_url = world.providers.url(Provider::Razorpay);
    let new = new_intent();

    let both = stripe(&stripe_url, &["sk_test_revoked", "sk_test_holdfast"]);
    both.create_intent(&new, &key()).await.unwrap();
    let none = stripe(&stripe_url, &["sk_test_revoked", "sk_test_gone", "sk_test_holdfast"]);
    let error = none.create_intent(&new, &key()).await.unwrap_err();
    let keys = [("rzp_test_old", "gone"), ("rzp_test_holdfast", "holdfast_secret")];
    let order = razorpay(&razorpay_url, &keys).create_order(&new_order(&receipt())).await;

    assert!(matches!(error, CallError::Rejected { status: 401, .. }), "{error:?}");
    order.unwrap();
}

#[tokio::test]
async fn an_order_is_created_once_under_its_receipt() {
    let world = World::start().await;
    for repeated in [RepeatedReceipt::Refused, RepeatedReceipt::SameOrder] {
        world.providers.set_repeated_receipt(repeated);
        let receipt = receipt();
        let new = new_order(&receipt);
        let dearer = NewOrder { amount: money(50_001, "INR"), ..new };

        let first = world.razorpay.create_order(&new).await.unwrap();
        let second = world.razorpay.create_order(&new).await.unwrap();
        let other = world.razorpay.create_order(&dearer).await.unwrap_err();

        assert_eq!(first, second);
        assert_eq!(
            (first.amount_minor, &*first.currency, &*first.status),
            (50_000, "INR", "created")
        );
        assert_eq!(first.payment_id, Some(new.payment_id));
        assert_eq!(first.receipt.as_deref(), Some(&*receipt));
        assert_eq!(other, rejected(400, "receipt_taken"), "{repeated:?}");
        assert_eq!(world.razorpay.find_order(&receipt).await.unwrap(), Some(first.clone()));
        assert_eq!(world.razorpay.retrieve_order(&first.id).await.unwrap(), first);
    }
}

#[tokio::test]
async fn money_that_is_set_aside_is_captured_once() {
    let world = World::start().await;
    world.providers.set_capture(Capture::Manual);
    let order = world.razorpay.create_order(&new_order(&receipt())).await.unwrap();
    world.providers.decline(&order.id, "insufficient_funds").unwrap();
    let paid = world.providers.succeed(&order.id).unwrap().payment_ref.unwrap();

    let tries = world.razorpay.payments_of(&order.id).await.unwrap();
    let short = world.razorpay.capture_payment(&paid, 49_999, "INR").await.unwrap_err();
    let first = world.razorpay.capture_payment(&paid, 50_000, "INR").await.unwrap();
    let second = world.razorpay.capture_payment(&paid, 50_000, "INR").await.unwrap();

    let failed = tries.iter().find(|payment| payment.status == PaymentStatus::Failed).unwrap();
    assert!(failed.error_code.is_some());
    let aside = tries.iter().find(|payment| payment.status == PaymentStatus::Authorized).unwrap();
    assert_eq!((&*aside.id, aside.order_id.as_deref()), (&*paid, Some(&*order.id)));
    assert!(matches!(short, CallError::Rejected { status: 400, .. }), "{short:?}");
    assert_eq!(first.status, PaymentStatus::Captured);
    assert_eq!((first.amount_minor, &*first.currency), (50_000, "INR"));
    assert_eq!(second, first);
    assert_eq!(world.razorpay.retrieve_payment(&paid).await.unwrap(), first);
    assert_eq!(world.razorpay.retrieve_order(&order.id).await.unwrap().status, "paid");
    assert_eq!(world.providers.ledger().captures.len(), 1);
}

#[tokio::test]
async fn only_the_checkout_of_this_order_is_signed_for_it() {
    let world = World::start().await;
    let order = world.razorpay.create_order(&new_order(&receipt())).await.unwrap().id;
    let checkout = world.providers.succeed(&order).unwrap().checkout.unwrap();
    let (payment, signature) = (&checkout.razorpay_payment_id, &checkout.razorpay_signature);
    let keys = [("rzp_test_new", "new"), ("rzp_test_holdfast", "holdfast_secret")];
    let rotated = razorpay(&world.providers.url(Provider::Razorpay), &keys);
    let stranger = razorpay(&world.providers.url(Provider::Razorpay), &keys[..1]);

    assert!(world.razorpay.is_signed_checkout(&order, payment, signature));
    assert!(rotated.is_signed_checkout(&order, payment, signature));
    assert!(!stranger.is_signed_checkout(&order, payment, signature));
    for (order, payment, signature) in [
        ("order_other", &**payment, &**signature),
        (&*order, "pay_other", signature),
        (&order, payment, &signature[2..]),
        (&order, payment, "no hex"),
        (&order, payment, ""),
    ] {
        assert!(!world.razorpay.is_signed_checkout(order, payment, signature));
    }
}

#[tokio::test]
async fn nothing_that_can_be_logged_holds_a_secret() {
    let world = World::start().await;
    let intent = world.stripe.create_intent(&new_intent(), &key()).await.unwrap();

    assert_tells_no_secret(&world.stripe);
    assert_tells_no_secret(&world.razorpay);
    assert_tells_no_secret(&intent);
    let redis_url = "redis://:holdfast_secret@127.0.0.1:1";
    assert_tells_no_secret(&budget(redis_url, "tests", 1));
    assert!(!world.stripe.livemode() && !world.razorpay.livemode());
    assert_eq!(world.razorpay.key_id(), "rzp_test_holdfast");
}

/// Answers one request with these bytes; what it was asked comes out of the task.
async fn answering(answer: String) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prefix/", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let asked = request(&mut connection).await;
        // Whoever has heard enough hangs up.
        let _ = connection.write_all(answer.as_bytes()).await;
        asked
    });
    (url, asked)
}

/// Reads a request to the end of its body.
async fn request(connection: &mut TcpStream) -> String {
    let mut asked = String::new();
    loop {
        let mut chunk = [0; 4096];
        let read = connection.read(&mut chunk).await.unwrap();
        asked.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
        let Some((head, body)) = asked.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() == length.map_or(0, |length| length.parse().unwrap()) {
            return asked;
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn stripe_is_asked_as_its_api_wants_it() {
    let body = r#"{"id":"pi_1","status":"brand_new","amount":4999,"currency":"usd","metadata":null,"new":[]}"#;
    let (url, asked) = answering(answer("200 OK", "", body)).await;
    let new = new_intent();

    let intent = stripe(&url, &["sk_test_1"]).create_intent(&new, "key-1").await.unwrap();

    // An answer that lacks what we can do without is an answer.
    assert_eq!(intent.status, IntentStatus::Unheard("brand_new".to_owned()));
    assert_eq!((intent.payment_id, intent.client_secret.is_none()), (None, true));
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST /prefix/v1/payment_intents HTTP/1.1\r\n"), "{asked}");
    for line in [
        "authorization: Bearer sk_test_1",
        "idempotency-key: key-1",
        "stripe-version: 2026-09-30.endive",
        "content-type: application/x-www-form-urlencoded",
        concat!("user-agent: holdfast/", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(asked.lines().any(|asked| asked == line), "{line}: {asked}");
    }
    let (_, form) = asked.split_once("\r\n\r\n").unwrap();
    let mut pairs: Vec<_> = form.split('&').collect();
    pairs.sort_unstable();
    assert_eq!(form, pairs.join("&"), "a repeat must be the same to the byte");
    assert!(form.contains("automatic_payment_methods[enabled]=true"), "{form}");
}

#[tokio::test]
async fn every_answer_of_stripe_is_known_for_what_it_is() {
    let long = "x".repeat(1024 * 1024 + 1);
    for (answer, wanted) in [
        (
            answer(
                "402 Payment Required",
                "",
                r#"{"error":{"type":"card_error","code":"card_declined","decline_code":"lost_card","payment_intent":{"client_secret":"pi_1_secret_2"}}}"#,
            ),
            "Declined { code: \"lost_card\" }",
        ),
        (
            answer(
                "400 Bad Request",
                "",
                r#"{"error":{"type":"card_error","code":"expired_card"}}"#,
            ),
            "Declined { code: \"expired_card\" }",
        ),
        (answer("402 Payment Required", "", "{}"), "Declined { code: \"\" }"),
        (
            answer("400 Bad Request", "", r#"{"error":{"code":"a text with pi_1_secret_2"}}"#),
            "Rejected { status: 400, code: None }",
        ),
        (answer("403 Forbidden", "", "no"), "Rejected { status: 403, code: None }"),
        (answer("429 Too Many Requests", "", ""), "Busy { retry_after: None }"),
        (
            answer("429 Too Many Requests", "retry-after: 99999999\r\n", ""),
            "Busy { retry_after: Some(3600s) }",
        ),
        (
            answer("503 Service Unavailable", "retry-after: 7\r\n", ""),
            "Busy { retry_after: Some(7s) }",
        ),
        (
            answer("502 Bad Gateway", "", ""),
            "Unknown { why: \"answered with 502\", answered_5xx: false }",
        ),
        (
            answer("504 Gateway Timeout", "", ""),
            "Unknown { why: \"answered with 504\", answered_5xx: false }",
        ),
        (
            answer("503 Service Unavailable", "", ""),
            "Unknown { why: \"answered with 503\", answered_5xx: true }",
        ),
        (
            answer("307 Temporary Redirect", "location: /elsewhere\r\n", ""),
            "Unknown { why: \"answered with 307\", answered_5xx: false }",
        ),
        (
            answer("408 Request Timeout", "", ""),
            "Unknown { why: \"answered with 408\", answered_5xx: false }",
        ),
        (
            answer("200 OK", "", &long),
            "Unknown { why: \"the answer is too long\", answered_5xx: false }",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_owned(),
            "Unknown { why: \"the answer was cut short\", answered_5xx: false }",
        ),
    ] {
        let (url, _asked) = answering(answer).await;

        let error = stripe(&url, &["sk_test_1"]).create_intent(&new_intent(), "key-1").await;

        assert_eq!(format!("{:?}", error.unwrap_err()), wanted);
    }
}

#[tokio::test]
async fn every_answer_of_razorpay_is_known_for_what_it_is() {
    for (answer, wanted) in [
        (
            answer(
                "400 Bad Request",
                "",
                r#"{"error":{"code":"BAD_REQUEST_ERROR","reason":"NA","description":"holdfast_secret"}}"#,
            ),
            "Rejected { status: 400, code: Some(\"BAD_REQUEST_ERROR\") }",
        ),
        (
            answer(
                "400 Bad Request",
                "",
                r#"{"error":{"code":"BAD_REQUEST_ERROR","reason":"input_validation_failed"}}"#,
            ),
            "Rejected { status: 400, code: Some(\"input_validation_failed\") }",
        ),
        (answer("409 Conflict", "", r#"{"error":{}}"#), "Busy { retry_after: None }"),
        (
            answer("200 OK", "", r#"{"id":"order_1"}"#),
            "Unknown { why: \"the answer cannot be read\", answered_5xx: false }",
        ),
    ] {
        let (url, _asked) = answering(answer).await;

        let keys = [("rzp_test_1", "holdfast_secret")];
        let error = razorpay(&url, &keys).create_order(&new_order("receipt")).await;

        assert_eq!(format!("{:?}", error.unwrap_err()), wanted);
    }
}

#[tokio::test]
async fn an_order_without_notes_is_read() {
    let body = r#"{"id":"order_1","amount":100,"currency":"INR","status":"created","notes":[]}"#;
    let (url, _asked) = answering(answer("200 OK", "", body)).await;

    let order = razorpay(&url, &[("rzp_test_1", "x")]).retrieve_order("order_1").await.unwrap();

    assert_eq!((order.payment_id, order.receipt), (None, None));
}

/// Lets so many callers take at once; returns how many were let through, and how many not.
async fn rush(budgets: &[&Budget], callers: usize) -> (usize, usize) {
    let takes = (0..callers).map(|caller| budgets[caller % budgets.len()].take());
    let (through, refused): (Vec<_>, Vec<_>) =
        join_all(takes).await.into_iter().partition(Result::is_ok);
    for refusal in &refused {
        let busy = refusal.as_ref().unwrap_err();
        assert!(matches!(busy, CallError::Busy { retry_after: Some(_) }), "{busy:?}");
    }
    (through.len(), refused.len())
}

/// A burst of one second's worth, and what becomes free while a call waits.
const TEN_A_SECOND: std::ops::RangeInclusive<usize> = 24..=29;

#[tokio::test]
async fn everybody_who_shares_redis_shares_the_budget() {
    // On a machine that stalls, Redis may take longer than a call waits for it, and each goes by itself.
    const STALLS_MAX: usize = 5;
    let mut seen = Vec::new();
    for _ in 0..STALLS_MAX {
        let (url, namespace) = (redis_url(), namespace());
        let (one, other) = (budget(&url, &namespace, 10), budget(&url, &namespace, 10));
        // The first call of each also connects, which may take longer, too.
        for budget in [&one, &other] {
            warm(budget, &namespace).await;
        }

        let begun = Instant::now();
        let (through, refused) = rush(&[&one, &other], 60).await;

        // What was let through while warming up is missing from the burst.
        if through <= *TEN_A_SECOND.end() && begun.elapsed() < Duration::from_secs(4) {
            assert!(refused >= 60 - TEN_A_SECOND.end());
            return;
        }
        seen.push((through, begun.elapsed()));
    }
    panic!("were let through: {seen:?}");
}

/// Takes until Redis has heard of it.
async fn warm(budget: &Budget, namespace: &str) {
    let client = redis::Client::open(redis_url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    for _ in 0..20 {
        budget.take().await.unwrap();
        let pattern = format!("{namespace}:limit:*");
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
        if !keys.is_empty() {
            let () = redis::cmd("DEL").arg(&keys).query_async(&mut redis).await.unwrap();
            return;
        }
    }
    panic!("redis was never asked");
}

#[tokio::test]
async fn without_redis_each_process_keeps_to_the_rate_by_itself() {
    // Nobody listens there.
    let alone = budget("redis://127.0.0.1:1", "tests", 10);

    let (through, _) = rush(&[&alone], 60).await;

    assert!(TEN_A_SECOND.contains(&through), "{through} were let through");
}

#[tokio::test]
async fn a_redis_that_never_answers_costs_no_call() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alone = budget(&format!("redis://{}", silent.local_addr().unwrap()), "tests", 10);

    let begun = Instant::now();
    let (through, _) = rush(&[&alone], 10).await;

    assert_eq!(through, 10);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
