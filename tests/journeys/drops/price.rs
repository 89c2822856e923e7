//! Shoppers who would rather name the price themselves.

use serde_json::{Value, json};

use super::key;
use crate::support::{
    app::TestApp,
    client::{Answer, checkout_body},
    shop::PRICE,
};

/// The most that anything may cost, in minor units.
const AMOUNT_MAX: i64 = 1_000_000_000_000;

/// The body with another value at the pointer, which need not be there.
fn with(body: &Value, parent: &str, field: &str, value: Value) -> Value {
    let mut body = body.clone();
    body.pointer_mut(parent).unwrap()[field] = value;
    body
}

#[tokio::test]
async fn price_tampering_buys_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let body = checkout_body(&[(mug, 2)]);
        let euros = |amount| json!({ "amount": amount, "currency": "EUR" });
        let before = app.books().await;

        for (body, status, code) in [
            (with(&body, "/expected_total", "amount", json!(1)), 409, "total-changed"),
            (with(&body, "/expected_total", "amount", json!(2 * PRICE - 1)), 409, "total-changed"),
            (with(&body, "/expected_total", "amount", json!(0)), 409, "total-changed"),
            (with(&body, "/expected_total", "amount", json!(-2 * PRICE)), 422, "invalid-request"),
            (with(&body, "", "expected_total", euros(2 * PRICE)), 422, "invalid-request"),
            (
                with(&with(&body, "", "expected_total", euros(2)), "", "currency", json!("EUR")),
                422,
                "lines-not-orderable",
            ),
            (with(&body, "/lines/0", "quantity", json!(0)), 422, "invalid-request"),
            (with(&body, "/lines/0", "quantity", json!(-2)), 422, "invalid-request"),
            (with(&body, "/lines/0", "unit_price", json!(1)), 422, "invalid-request"),
            (with(&body, "", "total", json!(1)), 422, "invalid-request"),
            (with(&body, "", "discount", json!(1)), 422, "invalid-request"),
            (with(&body, "", "coupon", json!("FREE")), 422, "invalid-request"),
        ] {
            let refused = Answer::to(guest.checkout(&key(), &body)).await;
            assert_eq!(refused.status, status, "{body}: {}", refused.body);
            refused.assert_problem(status, code);
        }

        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_price_that_rose_since_it_was_shown_is_told_and_not_charged() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        app.execute("UPDATE prices SET amount_minor = amount_minor + 1").await;

        let refused = guest.place_order(&key(), &[(mug, 2)]).await;

        refused.assert_problem(409, "total-changed");
        assert_eq!(
            refused.at("/errors/0/message"),
            format!("the total is {} USD", 2 * (PRICE + 1))
        );
        assert_eq!(app.stock_of(mug).await, (5, 0));
    })
    .await;
}

#[tokio::test]
async fn quantity_times_price_overflow_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(500).await;
        let lamp = app.product_with_stock(500).await;
        app.execute("UPDATE prices SET amount_minor = 1000000000000").await;
        let guest = app.guest().await;
        let shown = json!({ "amount": AMOUNT_MAX, "currency": "USD" });
        let before = app.books().await;

        for lines in [vec![(mug, 2)], vec![(mug, 99)], vec![(mug, 1), (lamp, 1)]] {
            let body = with(&checkout_body(&lines), "", "expected_total", shown.clone());
            Answer::to(guest.checkout(&key(), &body)).await.assert_problem(422, "invalid-amount");
        }
        for quantity in [
            json!(4_294_967_295_u32),
            json!(-1),
            json!(1e9),
            json!(1.5),
            json!("1"),
            json!(i64::MAX),
        ] {
            let body = with(&checkout_body(&[(mug, 1)]), "/lines/0", "quantity", quantity);
            Answer::to(guest.checkout(&key(), &body)).await.assert_problem(422, "invalid-request");
        }

        assert_eq!(app.books().await, before);
        let one = with(&checkout_body(&[(mug, 1)]), "", "expected_total", shown);
        Answer::to(guest.checkout(&key(), &one)).await.assert_status(201);
    })
    .await;
}
