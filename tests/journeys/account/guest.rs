//! What becomes of a guest's orders when the guest opens an account.

use serde_json::json;

use super::ADA;
use crate::support::{KEY, app::TestApp, client::Answer};

#[tokio::test]
async fn a_guests_orders_are_the_accounts_too_and_the_guests_token_goes_on() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        let (guest, stranger) = (app.guest().await, app.guest().await);
        let first = guest.order_for(&[(mug, 1)]).await;
        let second = guest.order_for(&[(mug, 1)]).await;
        let mut elsewhere = crate::support::client::checkout_body(&[(mug, 1)]);
        elsewhere["email"] = json!("bob@example.com");
        let bobs = Answer::to(stranger.checkout(KEY, &elsewhere)).await.order_id();

        let ada = app.open_account(ADA).await;

        let own = ada.order_for(&[(mug, 1)]).await;
        let listed = ada.orders().await;
        let ids: Vec<_> = (0..3).map(|place| listed.at(&format!("/items/{place}/id"))).collect();
        assert_eq!(ids, [json!(own), json!(second), json!(first)]);
        ada.order(first).await.assert_status(200);
        guest.order(first).await.assert_status(200);
        ada.order(bobs).await.assert_problem(404, "order-not-found");
        guest.order(own).await.assert_problem(404, "order-not-found");

        // Whatever an owner does with an order, the account does with one that it took over.
        let path = format!("/v1/orders/{first}/payments");
        let body = json!({ "provider": "stripe" });
        let payment = ada.request(reqwest::Method::POST, &path).header("Idempotency-Key", KEY);
        let payment = Answer::to(payment.json(&body)).await;
        payment.assert_status(201);
        let id = super::text(&payment.at("/id"));
        ada.get(&format!("/v1/payments/{id}")).await.assert_status(200);
        ada.get(&format!("/v1/orders/{first}/refunds")).await.assert_status(200);
        ada.cancel(first).await.assert_status(200);
        ada.cancel(second).await.assert_status(200);
        assert_eq!(guest.order(second).await.at("/status"), "cancelled");
    })
    .await;
}

#[tokio::test]
async fn nobody_takes_over_what_another_user_ordered_or_without_reading_the_mail() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        // Bob has a mug sent to Ada, and gives her address.
        let bob = app.customer().await;
        let bobs = bob.order_for(&[(mug, 1)]).await;
        let guests = app.guest().await.order_for(&[(mug, 1)]).await;
        app.register(ADA, "known to eve alone").await.assert_status(202);
        app.settle().await;
        assert_eq!(app.count("orders WHERE adopted_by IS NOT NULL").await, 0);

        let ada = app.open_account(ADA).await;

        ada.order(bobs).await.assert_problem(404, "order-not-found");
        ada.order(guests).await.assert_status(200);
        bob.order(bobs).await.assert_status(200);
    })
    .await;
}

#[tokio::test]
async fn pages_of_own_and_taken_over_orders_are_one_list() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        let guest = app.guest().await;
        let mut orders = Vec::new();
        for _ in 0..3 {
            orders.push(guest.order_for(&[(mug, 1)]).await);
        }
        let ada = app.open_account(ADA).await;
        for _ in 0..2 {
            orders.push(ada.order_for(&[(mug, 1)]).await);
        }
        orders.reverse();

        let mut seen = Vec::new();
        let mut path = "/v1/orders?limit=2".to_owned();
        loop {
            let page = ada.get(&path).await;
            for item in page.at("/items").as_array().unwrap() {
                seen.push(super::text(&item["id"]));
            }
            let Some(cursor) = page.at("/next_cursor").as_str().map(str::to_owned) else { break };
            path = format!("/v1/orders?limit=2&cursor={cursor}");
        }

        let orders: Vec<_> = orders.iter().map(ToString::to_string).collect();
        assert_eq!(seen, orders);
    })
    .await;
}
