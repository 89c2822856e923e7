//! What one caller may keep without having paid.

use futures_util::future::join_all;
use holdfast::checkout::{OPEN_ORDERS_MAX, UNPAID_UNITS_MAX};
use serde_json::Value;

use super::{count, key, place, wait_of, wish_of};
use crate::support::{app::TestApp, client::Client, shop::Variant};

const KEY: &str = "one-key-per-intention";

/// Places as many orders of one unit as one caller may have open.
async fn fill(caller: &Client, variant: Variant) -> Vec<uuid::Uuid> {
    let mut orders = Vec::new();
    for _ in 0..OPEN_ORDERS_MAX {
        orders.push(caller.order_for(&[(variant, 1)]).await);
    }
    orders
}

#[tokio::test]
async fn a_caller_has_so_many_unpaid_orders_and_no_more() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let lamp = app.product_with_stock(50).await;
        for caller in [app.guest().await, app.customer().await, app.staff().await] {
            let orders = fill(&caller, mug).await;
            app.age(orders[2], 5).await;

            let refused = caller.place_order(KEY, &[(lamp, 1)]).await;

            refused.assert_problem(409, "too-many-open-orders");
            let wait = wait_of(&refused);
            assert!((595..=601).contains(&wait), "the first to end has ten minutes left: {wait}");
        }
        assert_eq!(app.stock_of(lamp).await, (50, 0));
        app.guest().await.order_for(&[(lamp, 1)]).await;
    })
    .await;
}

#[tokio::test]
async fn an_order_that_is_given_up_paid_or_past_its_deadline_makes_room() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let shopper = app.guest().await;
        let orders = fill(&shopper, mug).await;
        let full = async || {
            let refused = shopper.place_order(&key(), &[(mug, 1)]).await;
            refused.assert_problem(409, "too-many-open-orders");
        };

        full().await;
        shopper.cancel(orders[0]).await.assert_status(200);
        shopper.order_for(&[(mug, 1)]).await;
        full().await;
        app.pay(orders[1]).await;
        shopper.order_for(&[(mug, 1)]).await;
        full().await;
        // No worker runs: the deadline alone counts.
        app.age(orders[2], 16).await;
        assert_eq!(app.status_of(orders[2]).await, "awaiting_payment");
        shopper.order_for(&[(mug, 1)]).await;
        full().await;
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_asks_in_parallel_at_two_apis_keeps_no_more() {
    TestApp::run(async |app| {
        let mut variants = Vec::new();
        for _ in 0..4 {
            variants.push(app.product_with_stock(50).await);
        }
        let elsewhere = app.another_api(app.cx.clone()).await;
        let here = app.guest().await;
        let there = elsewhere.with_token(here.token(), here.id);

        // Variants have nothing in common: only the caller keeps the orders apart.
        let answers = join_all((0..40).map(|n| {
            let caller = if n % 2 == 0 { &here } else { &there };
            caller.place_order(&key(), &[(variants[n % 4], 1)])
        }))
        .await;

        assert_eq!(count(&answers, 201), OPEN_ORDERS_MAX, "{answers:#?}");
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.assert_problem(409, "too-many-open-orders");
        }
    })
    .await;
}

#[tokio::test]
async fn orders_of_one_caller_in_one_slice_count_against_each_other() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let lamp = app.product_with_stock(1).await;
        let (ada, bob) = (app.guest().await, app.guest().await);
        ada.order_for(&[(mug, 1)]).await;
        let mut slice: Vec<_> = (0..3).map(|_| wish_of(&ada, &[(mug, 1)])).collect();
        // What is refused for want of stock takes no room.
        slice.push(wish_of(&ada, &[(lamp, 2)]));
        slice.extend((0..2).map(|_| wish_of(&ada, &[(mug, 1)])));
        slice.push(wish_of(&bob, &[(mug, 1)]));

        let outcomes = place(app, &slice).await;

        assert_eq!(
            outcomes,
            [
                "placed",
                "placed",
                "placed",
                "out-of-stock",
                "placed",
                "too-many-open-orders",
                "placed"
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn one_caller_cannot_sit_on_all_of_a_hot_variant() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(150).await;
        let greedy = app.guest().await;
        let first = greedy.order_for(&[(mug, 60)]).await;

        let too_many = greedy.place_order(KEY, &[(mug, 40)]).await;
        let rest = greedy.place_order(KEY, &[(mug, UNPAID_UNITS_MAX - 60)]).await;
        let one_more = greedy.place_order(&key(), &[(mug, 1)]).await;
        let other = app.guest().await.place_order(KEY, &[(mug, 51)]).await;

        too_many.assert_problem(409, "too-many-units-held");
        too_many.assert_errors(&[("/lines/0/quantity", "too-many-units-held")]);
        assert_eq!(too_many.at("/errors/0/available"), 39);
        assert!((895..=901).contains(&wait_of(&too_many)), "{}", wait_of(&too_many));
        rest.assert_status(201);
        one_more.assert_problem(409, "too-many-units-held");
        other.assert_status(201);
        // Paid units are the caller's own.
        app.pay(first).await;
        assert_eq!(app.stock_of(mug).await, (90, 90));
    })
    .await;
}

#[tokio::test]
async fn units_of_one_variant_in_one_slice_count_against_each_other() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(500).await;
        let lamp = app.product_with_stock(500).await;
        let ada = app.guest().await;
        let slice = [
            wish_of(&ada, &[(mug, 99)]),
            wish_of(&ada, &[(mug, 1)]),
            wish_of(&ada, &[(lamp, 99)]),
            wish_of(&ada, &[(lamp, 1)]),
        ];

        let outcomes = place(app, &slice).await;

        assert_eq!(outcomes, ["placed", "too-many-units-held", "placed", "too-many-units-held"]);
    })
    .await;
}

#[tokio::test]
async fn an_order_is_found_again_by_its_key_however_many_are_open() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let shopper = app.guest().await;
        let first = shopper.place_order(KEY, &[(mug, 1)]).await;
        for _ in 1..OPEN_ORDERS_MAX {
            shopper.order_for(&[(mug, 1)]).await;
        }

        let again = shopper.place_order(KEY, &[(mug, 1)]).await;

        again.assert_status(201).assert_header("idempotency-replayed", "true");
        assert_eq!(again.json::<Value>()["order_id"], first.json::<Value>()["order_id"]);
        shopper.place_order(&key(), &[(mug, 1)]).await.assert_problem(409, "too-many-open-orders");
    })
    .await;
}
