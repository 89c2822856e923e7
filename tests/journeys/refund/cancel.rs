//! Giving up an order that is paid.

use futures_util::future::join_all;
use holdfast::checkout::review_refund;
use serde_json::json;
use simulator::providers::RefundState;
use uuid::Uuid;

use super::{BOTH, Sale, TOTAL, UNITS, all, journey, key, ours, part, sent_back};
use crate::support::client::{Answer, Client};

#[tokio::test]
async fn a_paid_order_is_given_up_and_its_money_goes_back() {
    journey(async |app| {
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            assert_eq!(app.stock_of(sale.mug).await, (5 - UNITS, 0));

            let answers = join_all((0..4).map(|_| sale.shopper.cancel(sale.order_id))).await;
            app.settle().await;

            for answer in answers {
                answer.assert_status(200);
                assert_eq!(answer.at("/status"), "cancelled");
            }
            assert_eq!(app.stock_of(sale.mug).await, (5, 0));
            assert_eq!(app.hold_of(sale.order_id, sale.mug).await, "released");
            let last = app.movements_of(sale.mug).await.pop().unwrap();
            assert_eq!(last, ("order_cancelled".to_owned(), UNITS, "available".to_owned()));
            assert_eq!(sale.told().await, [("cancelled", "succeeded", TOTAL)]);
            let refunded = sent_back(app, &taken);
            assert_eq!(refunded.len(), 1);
            assert_eq!(
                (refunded[0].amount_minor, refunded[0].state),
                (TOTAL, RefundState::Succeeded)
            );
            let given_up = sale.noted("cancelled_after_payment").await;
            assert_eq!(given_up.len(), 1);
            assert_eq!(given_up[0]["released"][0]["quantity"], UNITS);
            assert_eq!(sale.mails().await, 1);

            // The same news again changes nothing.
            let before = app.books().await;
            sale.confirm(&taken).await;
            sale.shopper.cancel(sale.order_id).await.assert_status(200);
            assert_eq!(app.books().await, before);
        }
    })
    .await;
}

#[tokio::test]
async fn what_went_back_before_does_not_go_back_again() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            let mut wish = part(1_000);
            wish["restock"] = json!([{ "variant_id": sale.mug.id, "quantity": 1 }]);
            sale.refund(&staff, &key(), &wish).await.assert_status(201);

            sale.shopper.cancel(sale.order_id).await.assert_status(200);
            app.settle().await;

            let left = TOTAL - 1_000;
            let both = [("staff", "succeeded", 1_000), ("cancelled", "succeeded", left)];
            assert_eq!(sale.told().await, both);
            let back: i64 = sent_back(app, &taken).iter().map(|part| part.amount_minor).sum();
            assert_eq!(back, TOTAL);
            assert_eq!(app.stock_of(sale.mug).await, (5, 0));
            let mut wish = part(1);
            wish["restock"] = json!([{ "variant_id": sale.mug.id, "quantity": 1 }]);
            let refused = sale.refund(&staff, &key(), &wish).await;
            refused.assert_problem(422, "restock-too-large");
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_but_its_owner_gives_a_paid_order_up() {
    journey(async |app| {
        let (sale, taken) = Sale::paid(app, BOTH[0]).await;

        let stranger = app.guest().await;
        stranger.cancel(sale.order_id).await.assert_problem(404, "order-not-found");

        assert_eq!(sale.status().await, "paid");
        app.settle().await;
        assert_eq!(sent_back(app, &taken), []);
    })
    .await;
}

#[tokio::test]
async fn what_was_shipped_is_no_longer_the_shoppers_to_give_up() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;

            let answers = join_all((0..4).map(|_| ship(&staff, &sale))).await;
            for answer in answers {
                answer.assert_status(200);
                assert_eq!(answer.at("/status"), "shipped");
            }
            let refused = sale.shopper.cancel(sale.order_id).await;

            refused.assert_problem(409, "order-not-cancellable");
            assert_eq!(sale.status().await, "shipped");
            assert_eq!(sale.noted("shipped").await.len(), 1);
            assert_eq!(app.stock_of(sale.mug).await, (5 - UNITS, 0));
            // Staff give its money back, and its units as they come.
            let mut wish = all();
            wish["restock"] = json!([{ "variant_id": sale.mug.id, "quantity": 1 }]);
            sale.refund(&staff, &key(), &wish).await.assert_status(201);
            app.settle().await;
            assert_eq!(sale.told().await, [("staff", "succeeded", TOTAL)]);
            assert_eq!(sent_back(app, &taken).len(), 1);
            assert_eq!(app.stock_of(sale.mug).await, (5 - UNITS + 1, 0));
            assert_eq!(sale.status().await, "shipped");
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_ships_and_whoever_gives_up_at_once_do_not_both_have_their_way() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;

            let (shipped, cancelled) =
                tokio::join!(ship(&staff, &sale), sale.shopper.cancel(sale.order_id));
            app.settle().await;

            let is_shipped = sale.status().await == "shipped";
            assert_eq!((shipped.status == 200, cancelled.status == 200), (is_shipped, !is_shipped));
            assert_eq!(sent_back(app, &taken).is_empty(), is_shipped);
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_is_shipped_that_is_not_paid_or_whose_money_went_back() {
    journey(async |app| {
        let staff = app.staff().await;
        let unpaid = Sale::begin(app).await;
        ship(&staff, &unpaid).await.assert_problem(409, "order-not-shippable");
        unpaid.shopper.cancel(unpaid.order_id).await.assert_status(200);
        ship(&staff, &unpaid).await.assert_problem(409, "order-not-shippable");

        let (sale, _) = Sale::paid(app, BOTH[0]).await;
        sale.refund(&staff, &key(), &all()).await.assert_status(201);
        ship(&staff, &sale).await.assert_problem(409, "money-went-back");
        assert_eq!(sale.status().await, "paid");
        assert_eq!(app.count("audit_log WHERE action = 'shipOrder'").await, 0);

        let nowhere = format!("/v1/admin/orders/{}/ship", Uuid::now_v7());
        staff.post(&nowhere, &json!({})).await.assert_problem(404, "order-not-found");
    })
    .await;
}

#[tokio::test]
async fn an_order_whose_money_staff_gave_back_keeps_the_units_where_staff_left_them() {
    journey(async |app| {
        let staff = app.staff().await;
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            // The cups are broken: nothing is to go on sale again.
            sale.refund(&staff, &key(), &all()).await.assert_status(201);
            app.settle().await;

            let refused = sale.shopper.cancel(sale.order_id).await;

            refused.assert_problem(409, "nothing-to-refund");
            assert_eq!(app.stock_of(sale.mug).await, (5 - UNITS, 0));
            assert_eq!(sent_back(app, &taken).len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_whose_money_went_back_in_the_dashboard_can_still_be_given_up() {
    journey(async |app| {
        for provider in BOTH {
            let (sale, taken) = Sale::paid(app, provider).await;
            let refund = app.providers.refund(&taken.charge_ref, None).unwrap();
            review_refund(&app.cx, ours(provider), &refund, &[]).await.unwrap();
            app.settle().await;

            sale.shopper.cancel(sale.order_id).await.assert_status(200);
            app.settle().await;

            assert_eq!(app.stock_of(sale.mug).await, (5, 0));
            assert_eq!(sale.told().await, [("provider", "succeeded", TOTAL)]);
            assert_eq!(sent_back(app, &taken).len(), 1);
        }
    })
    .await;
}

/// Has a member of staff note that the order was shipped.
async fn ship(staff: &Client, sale: &Sale<'_>) -> Answer {
    staff.post(&format!("/v1/admin/orders/{}/ship", sale.order_id), &json!({})).await
}
