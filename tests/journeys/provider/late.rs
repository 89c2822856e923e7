//! Money that comes when the order's time is over, or nobody wants the order any more.

use holdfast::{
    checkout::{settle_events, work},
    payments::{Fate, Surplus},
};
use simulator::providers::{Capture, Delivery, Fault, Operation, Provider};

use super::{BOTH, Purchase, UNITS, assert_ledgers_agree, ctl, hear_all, kept};
use crate::support::{app::TestApp, client::until, shop::Variant};

/// An order whose shopper paid in time, of which the shop hears when the deadline has passed.
async fn paid_unheard(app: &TestApp, mug: Variant, provider: Provider) -> Purchase<'_> {
    // Otherwise nothing is collected that the shop has not asked for.
    app.providers.set_capture(Capture::Automatic);
    app.providers.set_delivery(provider, Delivery::Paused);
    let purchase = Purchase::of(app, mug).await;
    let name = purchase.open(provider).await;
    app.providers.succeed(&name).unwrap();
    purchase
}

/// An order of two of that many mugs whose shopper paid and whose deadline was enforced.
async fn expired(app: &TestApp, mugs: i64, provider: Provider) -> Purchase<'_> {
    let purchase = paid_unheard(app, app.product_with_stock(mugs).await, provider).await;
    purchase.expire().await;
    purchase
}

#[tokio::test]
async fn case_06_paid_after_expiry_the_order_is_served_while_stock_is_left() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let purchase = expired(app, 5, provider).await;
            assert_eq!(app.stock_of(purchase.mug).await, (5, 0));

            app.providers.set_delivery(provider, Delivery::Normal);
            hear_all(app).await;

            purchase.assert_paid().await;
            assert_eq!(purchase.timeline().await, ["placed", "deadline_passed", "payment_settled"]);
            assert_eq!(purchase.attempts().await, ["captured"]);
            assert_eq!(app.stock_of(purchase.mug).await, (3, 0));
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_06_paid_after_expiry_and_sold_out_the_money_is_due_back() {
    TestApp::run(async |app| {
        for provider in BOTH {
            let late = expired(app, 2, provider).await;
            let rival = Purchase::of(app, late.mug).await;

            app.providers.set_delivery(provider, Delivery::Normal);
            hear_all(app).await;

            late.assert_not_paid().await;
            assert_eq!(late.fates().await, [Fate::RefundDue(Surplus::OutOfStock)]);
            let timeline = ["placed", "deadline_passed", "payment_refund_due", "refund_succeeded"];
            assert_eq!(late.timeline().await, timeline);
            let due = &late.told_of("payment_refund_due").await[0];
            assert_eq!(due["amount"], UNITS * late.mug.price);
            assert_eq!(due["reason"], "out_of_stock");
            assert_eq!(rival.hold().await, "held");
            assert_eq!(app.stock_of(late.mug).await, (2, 2));

            let list = ctl(app, &["payments", "list", "--not-accepted"]).await;
            let charge_ref = due["charge_ref"].as_str().unwrap();
            let line = list.lines().find(|line| line.contains(charge_ref)).unwrap();
            assert!(line.contains(&late.order_id.to_string()), "{line}");
            assert!(line.contains("refund_due (out_of_stock)"), "{line}");
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_06_an_order_that_lost_its_units_before_anybody_ended_it_is_not_served() {
    TestApp::run(async |app| {
        let mug = app.product_with_stock(2).await;
        let late = paid_unheard(app, mug, Provider::Stripe).await;
        app.age(late.order_id, 16).await;
        let rival = Purchase::of(app, mug).await;
        assert_eq!((&*late.status().await, &*late.hold().await), ("awaiting_payment", "taken"));

        app.providers.set_delivery(Provider::Stripe, Delivery::Normal);
        hear_all(app).await;

        late.assert_not_paid().await;
        assert_eq!(late.status().await, "expired");
        assert_eq!(late.fates().await, [Fate::RefundDue(Surplus::OutOfStock)]);
        assert_eq!(rival.hold().await, "held");
        assert_eq!(app.stock_of(mug).await, (2, 2));
    })
    .await;
}

#[tokio::test]
async fn case_06_money_that_comes_late_takes_over_what_others_hold_beyond_their_deadline() {
    TestApp::run(async |app| {
        let late = expired(app, 2, Provider::Stripe).await;
        let rival = Purchase::of(app, late.mug).await;
        app.age(rival.order_id, 16).await;
        app.providers.set_delivery(Provider::Stripe, Delivery::Normal);
        let events = kept(app).await;

        let settled = settle_events(&app.cx, &events).await;

        assert!(settled.iter().all(Result::is_ok), "{settled:?}");
        assert_eq!((&*late.status().await, &*late.hold().await), ("paid", "sold"));
        assert_eq!((&*rival.status().await, &*rival.hold().await), ("awaiting_payment", "taken"));
        hear_all(app).await;
        late.assert_paid().await;
        assert_eq!(rival.status().await, "expired");
        assert_eq!(app.stock_of(late.mug).await, (0, 0));
    })
    .await;
}

/// Waits until the order's deadline is that many milliseconds away, by the clock that judges it.
async fn until_left(purchase: &Purchase<'_>, ms: i64) {
    until("the moment", async || {
        let left: i64 = sqlx::query_scalar(
            "SELECT (extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint
             FROM orders WHERE id = $1",
        )
        .bind(purchase.order_id)
        .fetch_one(&purchase.app.db)
        .await
        .unwrap();
        if left <= ms { Ok(()) } else { Err(format!("{left} ms are left")) }
    })
    .await;
}

#[tokio::test]
async fn case_06_a_tenth_of_a_second_around_the_deadline_loses_no_order() {
    const IN_TIME: [&str; 2] = ["placed", "payment_settled"];
    const LATE: [&str; 3] = ["placed", "deadline_passed", "payment_settled"];
    TestApp::run(async |app| {
        for provider in BOTH {
            for left_ms in [100, -100] {
                let purchase = paid_unheard(app, app.product_with_stock(2).await, provider).await;
                app.bring_deadline_near(purchase.order_id).await;

                until_left(&purchase, left_ms).await;
                work::sweep(&app.cx).await.unwrap();
                app.providers.set_delivery(provider, Delivery::Normal);
                hear_all(app).await;

                purchase.assert_paid().await;
                assert_eq!(app.stock_of(purchase.mug).await, (0, 0));
                // What comes in time may be heard late on a busy machine.
                let told = purchase.timeline().await;
                assert!(told == LATE || left_ms > 0 && told == IN_TIME, "{left_ms}: {told:?}");
            }
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_08_late_success_on_a_cancelled_order_is_due_back() {
    TestApp::run(async |app| {
        app.providers.set_capture(Capture::Automatic);
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Razorpay).await;
        purchase.shopper.cancel(purchase.order_id).await.assert_status(200);

        app.providers.succeed(&name).unwrap();
        hear_all(app).await;

        purchase.assert_not_paid().await;
        assert_eq!(purchase.status().await, "cancelled");
        assert_eq!(purchase.fates().await, [Fate::RefundDue(Surplus::OrderCancelled)]);
        let timeline = ["placed", "cancelled", "payment_refund_due", "refund_succeeded"];
        assert_eq!(purchase.timeline().await, timeline);
        assert_eq!(app.stock_of(purchase.mug).await, (5, 0));
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_08_an_order_is_not_cancelled_while_an_attempt_may_be_paid_that_nobody_could_withdraw()
{
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let first = purchase.open(Provider::Stripe).await;
        app.providers.fail_next(Operation::CancelIntent, Fault::ResetBefore, 100);
        purchase.open(Provider::Razorpay).await;

        let refusal = purchase.shopper.cancel(purchase.order_id).await;

        refusal.assert_problem(503, "provider-unavailable");
        assert_eq!(purchase.timeline().await, ["placed"]);
        assert_eq!(purchase.attempts().await, ["cancelling", "cancelled"]);
        assert_eq!(purchase.hold().await, "held");

        app.providers.succeed(&first).unwrap();
        hear_all(app).await;
        app.providers.clear_faults();
        app.hurry().await;
        hear_all(app).await;

        purchase.assert_paid().await;
        assert_eq!(purchase.attempts().await, ["captured", "cancelled"]);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_08_money_that_is_set_aside_late_is_left_where_it_is() {
    TestApp::run(async |app| {
        let purchase = Purchase::begin(app).await;
        let name = purchase.open(Provider::Razorpay).await;
        purchase.shopper.cancel(purchase.order_id).await.assert_status(200);

        app.providers.succeed(&name).unwrap();
        hear_all(app).await;

        purchase.assert_not_paid().await;
        assert_eq!(purchase.fates().await, []);
        let timeline = ["placed", "cancelled", "payment_authorized_too_late"];
        assert_eq!(purchase.timeline().await, timeline);
        assert_eq!(app.providers.calls(Operation::CapturePayment), 0);
        assert_eq!(app.providers.ledger().captures, []);
    })
    .await;
}
