//! Beginning to pay.

use std::{
    io,
    sync::{Arc, Mutex},
};

use holdfast::payments::Fate;
use reqwest::Method;
use serde_json::{Value, json};
use simulator::providers::{Fault, Provider};
use sqlx::AssertSqlSafe;
use tracing_subscriber::filter::LevelFilter;
use uuid::Uuid;

use super::{
    BOTH, Buyer, TOTAL, ask, confirm, hands_over, journey, key, opened, other, proof_body,
    questions, strike, text,
};
use crate::support::{
    app::TestApp,
    client::{Answer, checkout_body},
    shop::Variant,
};

#[tokio::test]
async fn opening_a_payment_hands_the_browser_what_it_needs_and_nobody_else() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;

            let answer = buyer.ask(&key(), provider).await;

            let attempt = opened(&answer);
            let path = format!("/v1/payments/{}", attempt.id);
            answer.assert_header("location", &*path).assert_header("idempotency-replayed", None);
            assert_eq!(answer.at("/state"), "open");
            assert_eq!(answer.at("/provider"), provider.name());
            assert_eq!(answer.at("/order_id"), buyer.order_id.to_string());
            assert_eq!(answer.at("/order_status"), "awaiting_payment");
            assert_eq!(answer.at("/amount"), json!({ "amount": TOTAL, "currency": "USD" }));
            let body: Value = answer.json();
            let handover = &body[provider.name()];
            match provider {
                Provider::Stripe => {
                    let secret = handover["client_secret"].as_str().unwrap();
                    assert!(secret.starts_with(&format!("{}_secret_", attempt.reference)));
                }
                Provider::Razorpay => {
                    assert_eq!(handover["key_id"], app.providers.config().razorpay_key_id);
                }
            }
            assert!(body.get(other(provider).name()).is_none(), "{body}");

            let objects = buyer.objects(provider);
            assert_eq!(objects.len(), 1);
            assert_eq!(objects[0].reference, attempt.reference);
            assert_eq!((objects[0].amount_minor, &*objects[0].currency), (TOTAL, "USD"));
            assert_eq!(objects[0].metadata["payment_id"], attempt.id.to_string());

            let looked_at = buyer.client.get(&path).await;
            looked_at.assert_status(200);
            assert_eq!(looked_at.at("/state"), "open");
            assert!(!hands_over(&looked_at), "{looked_at:?}");
            buyer.assert_waits().await;
        }
    })
    .await;
}

/// Puts a new variant on sale at this price only.
async fn sold_for(app: &TestApp, price: i64, currency: &str) -> Variant {
    let variant = app.product_with_stock(20).await;
    sqlx::query("UPDATE prices SET amount_minor = $2, currency = $3 WHERE variant_id = $1")
        .bind(variant.id)
        .bind(price)
        .bind(currency)
        .execute(&app.db)
        .await
        .unwrap();
    Variant { price, ..variant }
}

/// Orders the lines in the currency.
async fn buyer_of<'a>(
    app: &'a TestApp,
    lines: &[(Variant, i64)],
    currency: &str,
) -> (Buyer<'a>, i64) {
    let mut body = checkout_body(lines);
    body["currency"] = currency.into();
    body["expected_total"]["currency"] = currency.into();
    let client = app.guest().await;
    let placed = Answer::to(client.checkout(&key(), &body)).await;
    placed.assert_status(201);
    assert_eq!(placed.at("/total"), body["expected_total"]);
    let total = body["expected_total"]["amount"].as_i64().unwrap();
    (Buyer { app, client, mug: lines[0].0, order_id: placed.order_id() }, total)
}

#[tokio::test]
async fn case_34_an_amount_is_the_same_money_at_the_provider_whatever_its_currency() {
    journey(async |app| {
        for (provider, currency, price, there) in [
            (Provider::Stripe, "JPY", 1_299, 2_598),
            (Provider::Razorpay, "JPY", 1_299, 2_598),
            (Provider::Stripe, "KWD", 1_230, 2_460),
            (Provider::Razorpay, "KWD", 1_230, 2_460),
            // Stripe counts these in hundredths, which they have not.
            (Provider::Stripe, "ISK", 1_299, 259_800),
        ] {
            let thing = sold_for(app, price, currency).await;
            let (buyer, total) = buyer_of(app, &[(thing, 2)], currency).await;

            let attempt = buyer.open(provider).await;
            let object = &buyer.objects(provider)[0];
            assert_eq!((object.amount_minor, &*object.currency), (there, currency));
            let paid = buyer.pay(&attempt).await;

            paid.assert_status(200);
            assert_eq!(paid.at("/order_status"), "paid");
            assert_eq!(paid.at("/amount"), json!({ "amount": total, "currency": currency }));
            assert_eq!(buyer.fates().await, [Fate::Accepted]);
        }
    })
    .await;
}

#[tokio::test]
async fn case_35_what_is_charged_is_the_sum_of_the_lines_to_the_last_cent() {
    journey(async |app| {
        for provider in BOTH {
            let lines = [
                (sold_for(app, 12_99, "USD").await, 2),
                (sold_for(app, 33, "USD").await, 3),
                (sold_for(app, 1_07, "USD").await, 7),
            ];
            let (buyer, total) = buyer_of(app, &lines, "USD").await;
            assert_eq!(total, 34_46);

            let attempt = buyer.open(provider).await;
            buyer.pay(&attempt).await.assert_status(200);

            let order = buyer.client.order(buyer.order_id).await;
            assert_eq!(order.at("/total/amount"), total);
            assert_eq!(order.at("/status"), "paid");
            let ledger = app.providers.ledger();
            let charged = ledger.captures.iter().filter(|charge| charge.provider == provider);
            assert_eq!(charged.map(|charge| charge.amount_minor).collect::<Vec<_>>(), [total]);
        }
    })
    .await;
}

#[tokio::test]
async fn case_10_what_is_to_be_paid_does_not_change_with_the_price() {
    journey(async |app| {
        for provider in BOTH {
            let buyer = Buyer::begin(app).await;
            let key = key();
            let first = opened(&buyer.ask(&key, provider).await);

            app.execute("UPDATE prices SET amount_minor = amount_minor + 1").await;
            let again = buyer.ask(&key, provider).await;
            let second = buyer.open(other(provider)).await;

            assert_eq!(opened(&again), first);
            let amount = json!({ "amount": TOTAL, "currency": "USD" });
            assert_eq!(again.at("/amount"), amount);
            assert_eq!(buyer.payment(second.id).await.at("/amount"), amount);
            for provider in BOTH {
                let amounts: Vec<_> =
                    buyer.objects(provider).iter().map(|object| object.amount_minor).collect();
                assert_eq!(amounts, [TOTAL]);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn case_36_nobody_pays_confirms_or_sees_what_is_somebody_elses() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let attempt = buyer.open(Provider::Stripe).await;
        let strangers = [app.guest().await, app.customer().await];
        let (before, asked) = (app.books().await, questions(app));

        for stranger in strangers {
            let nobodys = Uuid::now_v7();
            for provider in BOTH {
                let theirs = ask(&stranger, buyer.order_id, &key(), provider.name()).await;
                let none = ask(&stranger, nobodys, &key(), provider.name()).await;
                theirs.assert_problem(404, "order-not-found");
                assert_eq!(theirs.without_request_id(), none.without_request_id());
            }
            let theirs = stranger.get(&format!("/v1/payments/{}", attempt.id)).await;
            let none = stranger.get(&format!("/v1/payments/{nobodys}")).await;
            theirs.assert_problem(404, "payment-not-found");
            assert_eq!(theirs.without_request_id(), none.without_request_id());
            let theirs = confirm(&stranger, attempt.id, &proof_body(None)).await;
            let none = confirm(&stranger, nobodys, &proof_body(None)).await;
            theirs.assert_problem(404, "payment-not-found");
            assert_eq!(theirs.without_request_id(), none.without_request_id());
        }
        let anybody = app.anybody();
        ask(&anybody, buyer.order_id, &key(), "stripe").await.assert_status(401);
        anybody.get(&format!("/v1/payments/{}", attempt.id)).await.assert_status(401);
        confirm(&anybody, attempt.id, &proof_body(None)).await.assert_status(401);

        assert_eq!(app.books().await, before);
        assert_eq!(questions(app), asked);
    })
    .await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every row of every table, as text.
async fn everything_stored(app: &TestApp) -> String {
    let mut stored = String::new();
    for table in app.books().await.into_keys() {
        let rows = format!("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} AS t");
        stored +=
            &sqlx::query_scalar::<_, String>(AssertSqlSafe(rows)).fetch_one(&app.db).await.unwrap();
    }
    stored
}

#[tokio::test]
async fn case_36_no_secret_is_stored_or_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // The whole shop works in this thread.
    let _listening = tracing::subscriber::set_default(subscriber);

    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let key = key();
        strike(app, Provider::Stripe, Fault::ErrorAfter);
        let lost = buyer.ask(&key, Provider::Stripe).await;
        lost.assert_status(503);
        app.providers.clear_faults();
        let answer = buyer.ask(&key, Provider::Stripe).await;
        let attempt = opened(&answer);
        app.providers.decline(&attempt.reference, "insufficient_funds").unwrap();
        let declined = buyer.confirm(attempt.id, None).await;
        let moved = buyer.open(Provider::Razorpay).await;
        let paid = buyer.pay(&moved).await;
        assert_eq!(paid.at("/order_status"), "paid");
        app.settle().await;

        let secret = text(&answer, "/stripe/client_secret");
        let config = app.providers.config();
        let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let stored = everything_stored(app).await;
        assert!(logged.contains("a provider refused"), "the log is empty");
        assert!(stored.contains(&attempt.reference), "the tables are empty");
        for secret in [
            &*secret,
            &hex::encode(&secret),
            "_secret_",
            &config.stripe_key,
            &config.razorpay_key_secret,
            &config.stripe_webhook_secrets[0],
            &config.razorpay_webhook_secret,
            buyer.client.token(),
        ] {
            assert!(!logged.contains(secret), "{secret} was logged");
            assert!(!stored.contains(secret), "{secret} was stored");
            let answers = [&lost, &declined, &paid, &buyer.payment(attempt.id).await];
            assert!(answers.iter().all(|told| !told.body.contains(secret)), "{secret} was told");
        }
    })
    .await;
}

#[tokio::test]
async fn a_payment_needs_a_key_and_a_provider() {
    journey(async |app| {
        let buyer = Buyer::begin(app).await;
        let path = format!("/v1/orders/{}/payments", buyer.order_id);
        let (before, asked) = (app.books().await, questions(app));

        let body = json!({ "provider": "stripe" });
        buyer.client.post(&path, &body).await.assert_problem(400, "idempotency-key-missing");
        buyer.ask("short", Provider::Stripe).await.assert_problem(400, "idempotency-key-invalid");
        for body in [
            json!({ "provider": "paypal" }),
            json!({ "provider": "Stripe" }),
            json!({ "provider": null }),
            json!({}),
            json!({ "provider": "stripe", "amount": { "amount": 1, "currency": "USD" } }),
        ] {
            let request = buyer.client.request(Method::POST, &path);
            let request = request.header("Idempotency-Key", key()).json(&body);
            Answer::to(request).await.assert_problem(422, "invalid-request");
        }

        assert_eq!(app.books().await, before);
        assert_eq!(questions(app), asked);
    })
    .await;
}
