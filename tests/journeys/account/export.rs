//! All that is kept of somebody.

use holdfast::identity::Role;
use reqwest::Method;
use serde_json::json;
use simulator::providers::{Capture, Delivery, Provider};

use super::{ADA, address, text};
use crate::support::{
    KEY,
    app::{PASSWORD, TestApp},
    client::{Answer, checkout_body},
};

#[tokio::test]
async fn an_export_holds_all_of_oneself_and_nothing_of_anybody_else() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(9).await;
        let as_guest = app.guest().await.order_for(&[(mug, 1)]).await;
        let ada = app.open_account(ADA).await;
        let name = json!({ "display_name": "Ada" });
        Answer::to(ada.request(Method::PATCH, "/v1/auth/me").json(&name)).await.assert_status(200);
        let kept = ada.post("/v1/auth/me/addresses", &address::new("1 Road")).await;
        let own = ada.order_for(&[(mug, 2)]).await;
        let mut present = checkout_body(&[(mug, 1)]);
        present["email"] = json!("friend@example.com");
        let present = Answer::to(ada.checkout(KEY, &present)).await.order_id();
        app.log_in(ADA, PASSWORD).await;
        // Somebody else, with everything that Ada has.
        app.user("bob@example.com", Role::Customer).await;
        let bob = app.log_in("bob@example.com", PASSWORD).await;
        bob.post("/v1/auth/me/addresses", &address::new("66 Secret Street"))
            .await
            .assert_status(201);
        let mut bobs = checkout_body(&[(mug, 1)]);
        bobs["email"] = json!("bob@example.com");
        let bobs = Answer::to(bob.checkout(KEY, &bobs)).await.order_id();
        app.settle().await;

        let export = ada.get("/v1/auth/me/export").await;

        export.assert_status(200).assert_header("cache-control", "no-store");
        assert_eq!(export.at("/account/email"), ADA);
        assert_eq!(export.at("/account/display_name"), "Ada");
        assert_eq!(export.at("/addresses"), json!([kept.json::<serde_json::Value>()]));
        assert_eq!(export.at("/sessions").as_array().unwrap().len(), 2);
        assert_eq!(export.at("/is_complete"), true);
        let orders = export.at("/orders");
        let orders: Vec<_> =
            orders.as_array().unwrap().iter().map(|one| text(&one["id"])).collect();
        assert_eq!(orders, [present, own, as_guest].map(|id| id.to_string()));
        assert_eq!(export.at("/orders/1/lines/0/quantity"), 2);
        assert_eq!(export.at("/orders/1/shipping_address/name"), "Ada Lovelace");
        let mails = export.at("/mails");
        let mut mails: Vec<_> = mails
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                assert!(one["sent_at"].is_string(), "{one}");
                (text(&one["template"]), text(&one["recipient"]))
            })
            .collect();
        mails.sort();
        let received = |to: &str| ("order-received".to_owned(), to.to_owned());
        let expected = [
            received(ADA),
            received(ADA),
            received("friend@example.com"),
            ("verify-email".to_owned(), ADA.to_owned()),
        ];
        assert_eq!(mails, expected);
        for others in ["bob@example.com", "66 Secret Street", &bobs.to_string(), "argon2", "hfr1_"]
        {
            assert!(!export.body.contains(others), "{others}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_export_tells_of_ended_sessions_and_of_money_that_went_back() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        app.providers.set_delivery(Provider::Stripe, Delivery::Lost);
        let mug = app.product_with_stock(9).await;
        app.user(ADA, Role::Customer).await;
        let (ada, phone) = (app.log_in(ADA, PASSWORD).await, app.log_in(ADA, PASSWORD).await);
        let order = ada.order_for(&[(mug, 1)]).await;
        super::erase::pay(app, &ada, order).await;
        ada.cancel(order).await.assert_status(200);
        app.settle().await;
        let change = json!({ "password": PASSWORD, "new_password": "a new password" });
        ada.post("/v1/auth/change-password", &change).await.assert_status(204);
        phone.get("/v1/auth/me").await.assert_status(401);

        let export = ada.get("/v1/auth/me/export").await;

        assert_eq!(export.at("/sessions").as_array().unwrap().len(), 1);
        assert_eq!(export.at("/ended_sessions").as_array().unwrap().len(), 1);
        assert_eq!(export.at("/ended_sessions/0/ended_for"), "password_changed");
        assert_eq!(export.at("/refunds").as_array().unwrap().len(), 1);
        assert_eq!(export.at("/refunds/0/order_id"), order.to_string());
        assert_eq!(export.at("/refunds/0/amount"), export.at("/orders/0/total"));
        assert_eq!(export.at("/refunds/0/state"), "succeeded");
        assert_eq!(export.at("/guest_orders"), json!([]));
        assert_eq!(export.at("/is_complete"), true);
    })
    .await;
}

#[tokio::test]
async fn a_guest_has_nothing_to_export_or_erase() {
    TestApp::run(async |app| {
        let guest = app.guest().await;

        guest.get("/v1/auth/me/export").await.assert_problem(403, "forbidden");
        let erase =
            guest.request(Method::DELETE, "/v1/auth/me").json(&json!({ "password": PASSWORD }));
        Answer::to(erase).await.assert_problem(403, "forbidden");
    })
    .await;
}
