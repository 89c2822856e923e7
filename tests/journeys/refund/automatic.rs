//! Money that the shop cannot keep goes back by itself.

use holdfast::{checkout::work, payments::findings::Kind};
use simulator::providers::{Provider, RefundState};

use super::{BOTH, Sale, TOTAL, Taken, found, journey, sent_back};
use crate::support::app::TestApp;

/// All of the money is back with the shopper, who was told once.
async fn assert_gone_back(sale: &Sale<'_>, taken: &Taken) {
    assert_eq!(sale.told().await, [("surplus", "succeeded", TOTAL)]);
    let refunded = sent_back(sale.app, taken);
    assert_eq!(refunded.len(), 1, "{refunded:?}");
    assert_eq!((refunded[0].amount_minor, refunded[0].state), (TOTAL, RefundState::Succeeded));
    assert_eq!(sale.noted("payment_refund_due").await.len(), 1);
    let noted = sale.noted("refund_succeeded").await;
    assert_eq!(noted.len(), 1, "{noted:?}");
    assert_eq!((&noted[0]["amount"], &noted[0]["currency"]), (&TOTAL.into(), &"USD".into()));
    assert_eq!(sale.mails().await, 1);
}

/// An order that was paid unheard until its deadline had passed and its mugs were promised to others.
async fn too_late(app: &TestApp, provider: Provider) -> (Sale<'_>, Taken) {
    let sale = Sale::of(app, app.product_with_stock(2).await).await;
    let (payment_id, reference) = sale.open(provider).await;
    let taken = sale.take(payment_id, &reference);
    app.age(sale.order_id, 16).await;
    work::sweep(&app.cx).await.unwrap();
    Sale::of(app, sale.mug).await;
    (sale, taken)
}

#[tokio::test]
async fn case_06_money_that_came_too_late_goes_back_by_itself() {
    journey(async |app| {
        for provider in BOTH {
            let (sale, taken) = too_late(app, provider).await;

            sale.confirm(&taken).await;
            app.settle().await;
            sale.confirm(&taken).await;
            app.settle().await;

            assert_gone_back(&sale, &taken).await;
            assert_eq!(sale.status().await, "expired");
        }
        assert_eq!(found(app).await, []);
    })
    .await;
}

#[tokio::test]
async fn case_08_money_for_an_order_that_was_given_up_goes_back_by_itself() {
    journey(async |app| {
        let sale = Sale::begin(app).await;
        let (payment_id, reference) = sale.open(Provider::Razorpay).await;
        sale.shopper.cancel(sale.order_id).await.assert_status(200);
        let taken = sale.take(payment_id, &reference);

        sale.confirm(&taken).await;
        app.settle().await;

        assert_gone_back(&sale, &taken).await;
        assert_eq!(app.stock_of(sale.mug).await, (5, 0));
    })
    .await;
}

#[tokio::test]
async fn case_11_of_money_that_came_twice_one_goes_back_by_itself() {
    journey(async |app| {
        for first in BOTH {
            let sale = Sale::begin(app).await;
            // Razorpay withdraws nothing, so that the shopper can pay with both.
            let (at_razorpay, order) = sale.open(Provider::Razorpay).await;
            let (at_stripe, intent) = sale.open(Provider::Stripe).await;
            let razorpays = sale.take(at_razorpay, &order);
            let stripes = sale.take(at_stripe, &intent);
            let (kept, surplus) = match first {
                Provider::Stripe => (stripes, razorpays),
                Provider::Razorpay => (razorpays, stripes),
            };

            sale.confirm(&kept).await;
            sale.confirm(&surplus).await;
            app.settle().await;

            assert_eq!(sale.status().await, "paid");
            assert_gone_back(&sale, &surplus).await;
            assert_eq!(sent_back(app, &kept), []);
        }
    })
    .await;
}

#[tokio::test]
async fn case_09_money_that_was_not_asked_for_stays_until_a_person_decides() {
    journey(async |app| {
        let sale = Sale::begin(app).await;
        let payment = app.attempt(sale.order_id, holdfast::payments::Provider::Stripe).await;
        let mut charge = crate::till::charge(&payment);
        charge.amount_minor -= 1;
        let standing = holdfast::payments::Standing::Captured(vec![charge]);

        for _ in 0..2 {
            app.hear(&payment, standing.clone()).await;
        }

        assert_eq!(sale.refunds().await, []);
        assert_eq!(found(app).await, [Kind::Quarantined]);
    })
    .await;
}
