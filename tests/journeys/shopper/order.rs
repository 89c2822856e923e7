//! Placing an order.

use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    KEY,
    app::TestApp,
    client::{Answer, checkout_body, statuses},
    shop::PRICE,
};

#[tokio::test]
async fn a_guest_orders_and_the_stock_is_held() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;

        let placed = app.guest().await.place_order(KEY, &[(mug, 2)]).await;

        placed.assert_status(201).assert_header("idempotency-replayed", None);
        let location = format!("/v1/orders/{}", placed.order_id());
        placed.assert_header("location", &*location);
        assert_eq!(placed.at("/status"), "awaiting_payment");
        assert_eq!(placed.at("/total"), json!({ "amount": 2 * PRICE, "currency": "USD" }));
        assert_eq!(placed.at("/lines/0/quantity"), 2);
        let expires_in = placed.at("/expires_in").as_u64().unwrap();
        assert!((900..=901).contains(&expires_in), "{expires_in} s");
        assert_eq!(app.stock_of(mug).await, (5, 2));
    })
    .await;
}

#[tokio::test]
async fn a_customer_orders_and_finds_the_order_among_theirs() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let customer = app.customer().await;

        let id = customer.order_for(&[(mug, 1)]).await;

        assert_eq!(customer.orders().await.at("/items/0/id"), id.to_string());
        let owner: Uuid = app.scalar("SELECT owner_id FROM orders").await;
        assert_eq!(Some(owner), customer.id);
    })
    .await;
}

#[tokio::test]
async fn an_order_keeps_the_names_and_prices_of_its_moment() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let id = guest.order_for(&[(mug, 1)]).await;

        app.execute("UPDATE prices SET amount_minor = 99900").await;
        app.execute("UPDATE products SET title = 'Chipped mug'").await;

        let order = guest.order(id).await;
        assert_eq!(order.at("/lines/0/title"), "Harbour mug · Deep blue");
        assert_eq!(order.at("/lines/0/unit_price/amount"), PRICE);
        assert_eq!(order.at("/total/amount"), PRICE);
    })
    .await;
}

#[tokio::test]
async fn an_order_for_more_than_is_left_is_refused_and_changes_nothing() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let guest = app.guest().await;
        let before = app.books().await;

        let refusal = guest.place_order(KEY, &[(mug, 2)]).await;

        refusal.assert_problem(409, "out-of-stock");
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_names_every_short_line_with_what_can_be_had() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(3).await;
        let lamp = app.product_with_stock(0).await;
        let tee = app.product_with_stock(9).await;

        let refusal = app.guest().await.place_order(KEY, &[(mug, 4), (tee, 1), (lamp, 1)]).await;

        refusal.assert_problem(409, "out-of-stock").assert_errors(&[
            ("/lines/0/quantity", "out-of-stock"),
            ("/lines/2/quantity", "out-of-stock"),
        ]);
        assert_eq!(refusal.at("/errors/0/available"), 3);
        assert_eq!(refusal.at("/errors/1/available"), 0);
    })
    .await;
}

#[tokio::test]
async fn an_order_is_held_whole_or_not_at_all() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(3).await;
        let lamp = app.product_with_stock(0).await;

        app.guest().await.place_order(KEY, &[(mug, 1), (lamp, 1)]).await.assert_status(409);

        assert_eq!(app.stock_of(mug).await, (3, 0));
        assert_eq!(app.count("holds").await, 0);
    })
    .await;
}

#[tokio::test]
async fn lines_of_the_same_variant_are_one_wish_for_stock() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(3).await;
        let guest = app.guest().await;

        let refusal = guest.place_order(KEY, &[(mug, 2), (mug, 2)]).await;
        let placed = guest.place_order(KEY, &[(mug, 2), (mug, 1)]).await;

        refusal.assert_problem(409, "out-of-stock").assert_errors(&[
            ("/lines/0/quantity", "out-of-stock"),
            ("/lines/1/quantity", "out-of-stock"),
        ]);
        assert_eq!(refusal.at("/errors/1/available"), 3);
        placed.assert_status(201);
        assert_eq!(placed.at("/lines").as_array().unwrap().len(), 2);
        assert_eq!(app.stock_of(mug).await, (3, 3));
        assert_eq!(app.scalar::<i64>("SELECT quantity FROM holds").await, 3);
    })
    .await;
}

#[tokio::test]
async fn lines_of_the_same_variant_are_one_wish_for_the_limit_too() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(200).await;

        let refusal = app.guest().await.place_order(KEY, &[(mug, 99), (mug, 1)]).await;

        refusal.assert_problem(422, "lines-not-orderable").assert_errors(&[
            ("/lines/0/quantity", "quantity-too-large"),
            ("/lines/1/quantity", "quantity-too-large"),
        ]);
        assert_eq!(app.stock_of(mug).await, (200, 0));
    })
    .await;
}

#[tokio::test]
async fn a_total_that_is_not_what_the_shopper_saw_is_refused() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let before = app.books().await;
        let mut body = checkout_body(&[(mug, 2)]);
        body["expected_total"]["amount"] = json!(2 * PRICE - 1);

        let refusal = Answer::to(guest.checkout(KEY, &body)).await;

        refusal
            .assert_problem(409, "total-changed")
            .assert_errors(&[("/expected_total", "total-changed")]);
        assert!(refusal.body.contains(&(2 * PRICE).to_string()), "{}", refusal.body);
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn the_last_units_are_sold_once_however_many_ask() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let shoppers = join_all((0..40).map(|_| app.guest())).await;

        let answers =
            join_all(shoppers.iter().map(|guest| guest.place_order(KEY, &[(mug, 1)]))).await;

        assert_eq!(statuses(&answers), [vec![201; 5], vec![409; 35]].concat());
        assert_eq!(app.stock_of(mug).await, (5, 5));
        assert_eq!(app.count("orders").await, 5);
    })
    .await;
}

#[tokio::test]
async fn wishes_that_arrive_together_are_answered_each_for_itself() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let unknown = crate::support::shop::Variant { id: Uuid::now_v7(), ..mug };
        let guest = app.guest().await;
        let mut stale = checkout_body(&[(mug, 1)]);
        stale["expected_total"]["amount"] = json!(1);
        let bodies: [Value; 4] = [
            checkout_body(&[(mug, 2)]),
            checkout_body(&[(unknown, 1)]),
            stale,
            checkout_body(&[(mug, 4)]),
        ];

        let answers = join_all(
            bodies.iter().map(|body| Answer::to(guest.checkout(&Uuid::now_v7().to_string(), body))),
        )
        .await;

        // Whichever of the two that fit alone comes first.
        let (placed, refused, units) = if answers[0].status == 201 { (0, 3, 2) } else { (3, 0, 4) };
        answers[placed].assert_status(201);
        answers[refused].assert_problem(409, "out-of-stock");
        answers[1].assert_problem(422, "lines-not-orderable");
        answers[1].assert_errors(&[("/lines/0/variant_id", "unknown-variant")]);
        answers[2].assert_problem(409, "total-changed");
        assert_eq!(app.stock_of(mug).await, (5, units));
        assert_eq!(app.count("orders").await, 1);
    })
    .await;
}
