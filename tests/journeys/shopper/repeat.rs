//! Repeating a request, which networks make everybody do.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    KEY,
    app::TestApp,
    client::{Answer, checkout_body},
};

/// The answer without what may change between two looks.
fn lasting(answer: &Answer) -> Value {
    let mut body: Value = answer.json();
    for field in ["status", "expires_at", "expires_in"] {
        assert!(body.as_object_mut().unwrap().remove(field).is_some(), "no {field} in {body}");
    }
    body
}

#[tokio::test]
async fn a_repeated_request_places_one_order() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;

        let first = guest.place_order(KEY, &[(mug, 2)]).await;
        let before = app.books().await;
        let second = guest.place_order(KEY, &[(mug, 2)]).await;

        first.assert_status(201).assert_header("idempotency-replayed", None);
        second.assert_status(201).assert_header("idempotency-replayed", "true");
        assert_eq!(lasting(&first), lasting(&second));
        assert_eq!(first.header("location"), second.header("location"));
        assert_eq!(app.books().await, before);
        assert_eq!(app.stock_of(mug).await, (5, 2));
    })
    .await;
}

#[tokio::test]
async fn a_repeat_shows_where_the_order_stands_now() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let first = guest.place_order(KEY, &[(mug, 2)]).await;
        guest.cancel(first.order_id()).await.assert_status(200);

        let second = guest.place_order(KEY, &[(mug, 2)]).await;

        second.assert_status(201).assert_header("idempotency-replayed", "true");
        assert_eq!(second.at("/status"), "cancelled");
        assert_eq!(lasting(&first), lasting(&second));
        assert_eq!(app.stock_of(mug).await, (5, 0));
    })
    .await;
}

#[tokio::test]
async fn a_repeat_after_the_deadline_has_no_time_left() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let first = guest.place_order(KEY, &[(mug, 2)]).await;
        app.age(first.order_id(), 60).await;

        let second = guest.place_order(KEY, &[(mug, 2)]).await;

        assert_eq!(second.at("/expires_in"), 0);
        assert_ne!(second.at("/expires_at"), first.at("/expires_at"));
    })
    .await;
}

#[tokio::test]
async fn a_repeat_is_the_same_whatever_the_order_of_its_fields() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let first = guest.place_order(KEY, &[(mug, 2)]).await;
        let body = checkout_body(&[(mug, 2)]);
        let fields: Vec<_> = body.as_object().unwrap().iter().rev().collect();
        let fields = fields.iter().map(|(name, value)| format!("\"{name}\": {value}"));
        let backwards = format!("{{ {} }}", fields.collect::<Vec<_>>().join(" ,\n"));

        let request = guest.checkout(KEY, &body).body(backwards);
        let second = Answer::to(request).await;

        second.assert_status(201).assert_header("idempotency-replayed", "true");
        assert_eq!(second.order_id(), first.order_id());
    })
    .await;
}

#[tokio::test]
async fn a_key_in_quotes_is_the_same_key() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        let first = guest.place_order(KEY, &[(mug, 2)]).await;

        let second = guest.place_order(&format!("\"{KEY}\""), &[(mug, 2)]).await;

        assert_eq!(second.order_id(), first.order_id());
        assert_eq!(app.count("orders").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_key_is_not_good_for_another_request() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let guest = app.guest().await;
        guest.place_order(KEY, &[(mug, 2)]).await.assert_status(201);
        let before = app.books().await;

        let another = guest.place_order(KEY, &[(mug, 3)]).await;
        let mut elsewhere = checkout_body(&[(mug, 2)]);
        elsewhere["shipping_address"]["city"] = json!("Paris");
        let elsewhere = Answer::to(guest.checkout(KEY, &elsewhere)).await;

        another.assert_problem(422, "idempotency-key-reused");
        elsewhere.assert_problem(422, "idempotency-key-reused");
        assert_eq!(app.books().await, before);
    })
    .await;
}

#[tokio::test]
async fn keys_of_two_shoppers_have_nothing_to_do_with_each_other() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(5).await;
        let (ada, bob) = (app.guest().await, app.customer().await);

        let adas = ada.place_order(KEY, &[(mug, 1)]).await;
        let bobs = bob.place_order(KEY, &[(mug, 2)]).await;

        adas.assert_status(201);
        bobs.assert_status(201).assert_header("idempotency-replayed", None);
        assert_ne!(adas.order_id(), bobs.order_id());
        assert_eq!(app.stock_of(mug).await, (5, 3));
    })
    .await;
}

#[tokio::test]
async fn a_refusal_leaves_its_key_free() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let guest = app.guest().await;

        guest.place_order(KEY, &[(mug, 2)]).await.assert_problem(409, "out-of-stock");
        let corrected = guest.place_order(KEY, &[(mug, 1)]).await;

        corrected.assert_status(201).assert_header("idempotency-replayed", None);
        assert_eq!(app.stock_of(mug).await, (1, 1));
    })
    .await;
}

#[tokio::test]
async fn whoever_has_an_order_hears_of_it_though_all_is_sold_out() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(1).await;
        let (lucky, late) = (app.guest().await, app.guest().await);
        let first = lucky.place_order(KEY, &[(mug, 1)]).await;
        late.place_order(KEY, &[(mug, 1)]).await.assert_problem(409, "out-of-stock");

        // The shop remembers for a moment that nothing is left, and asks for no lock.
        let again = late.place_order(KEY, &[(mug, 1)]).await;
        let repeat = lucky.place_order(KEY, &[(mug, 1)]).await;
        let misuse = lucky.place_order(KEY, &[(mug, 2)]).await;

        again.assert_problem(409, "out-of-stock");
        assert_eq!(again.at("/errors/0/available"), 0);
        repeat.assert_status(201).assert_header("idempotency-replayed", "true");
        assert_eq!(repeat.order_id(), first.order_id());
        misuse.assert_problem(422, "idempotency-key-reused");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_repeated_impatiently_places_one_order() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(50).await;
        let guest = app.guest().await;

        let answers = join_all((0..20).map(|_| guest.place_order(KEY, &[(mug, 1)]))).await;

        let placed: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
        let first: Vec<_> = placed
            .iter()
            .filter(|answer| answer.header("idempotency-replayed").is_none())
            .collect();
        assert_eq!(first.len(), 1);
        assert!(placed.iter().all(|answer| answer.order_id() == first[0].order_id()));
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.assert_problem(409, "request-in-flight");
            assert!(answer.header("retry-after").is_some());
        }
        assert_eq!(app.stock_of(mug).await, (50, 1));
        assert_eq!(app.count("orders").await, 1);
    })
    .await;
}
