//! Giving up an order that is paid.

use futures_util::future::join_all;
use serde_json::json;
use simulator::providers::RefundState;

use super::{BOTH, Sale, TOTAL, UNITS, journey, key, part, sent_back};

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
