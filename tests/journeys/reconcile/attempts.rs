//! Attempts to pay of whose end no webhook told.

use holdfast::checkout::{reconcile::reconcile_attempts, work};
use simulator::providers::{Act, Fault, Operation, Provider};
use uuid::Uuid;

use super::{
    BOTH, UNITS, Visit, assert_ledgers_agree, collect_at_once, lose_webhooks, make_due, open,
    reconcile,
};
use crate::support::app::TestApp;

#[tokio::test]
async fn case_22_an_order_is_paid_of_which_no_webhook_ever_tells() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            app.providers.succeed(&visit.reference).unwrap();

            reconcile(app).await;
            assert_eq!(visit.status(app).await, "awaiting_payment", "two minutes are not over");
            make_due(app).await;
            reconcile(app).await;

            assert_eq!(visit.status(app).await, "paid");
            assert_eq!(visit.told_of("payment_settled").await, 1);
            assert_eq!(app.mails("order-confirmed", visit.order_id).len(), 1);
        }
        assert_eq!(app.count("provider_events").await, 0);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_22_asking_again_and_at_the_same_time_pays_an_order_once() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            app.providers.succeed(&visit.reference).unwrap();
            for _ in 0..3 {
                make_due(app).await;
                let (one, other) =
                    tokio::join!(reconcile_attempts(&app.cx), reconcile_attempts(&app.cx));
                one.unwrap();
                other.unwrap();
            }
            app.settle().await;

            assert_eq!(visit.status(app).await, "paid");
            assert_eq!(visit.told_of("payment_settled").await, 1);
        }
        assert_eq!(app.count("payments WHERE next_look_at IS NOT NULL").await, 0);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_22_money_of_an_order_that_ended_and_is_sold_out_is_found_and_goes_back() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let mug = app.product_with_stock(UNITS).await;
            let late = Visit::of(app, mug, provider).await;
            app.providers.succeed(&late.reference).unwrap();
            // Nobody withdraws what nobody asks about.
            app.age(late.order_id, 16).await;
            work::sweep(&app.cx).await.unwrap();
            app.execute("DELETE FROM job_ledger WHERE kind = 'checkout.cancel-payment'").await;
            app.guest().await.order_for(&[(mug, UNITS)]).await;

            make_due(app).await;
            reconcile(app).await;

            assert_eq!(late.status(app).await, "expired");
            assert_eq!(late.told_of("payment_refund_due").await, 1);
            assert_eq!(late.told_of("refund_succeeded").await, 1);
        }
        let refunds = app.providers.ledger().refunds;
        assert_eq!(refunds.len(), 2, "{refunds:?}");
        assert!(refunds.iter().all(|refund| refund.amount_minor == UNITS * 12_99), "{refunds:?}");
        assert_ledgers_agree(app).await;
    })
    .await;
}

/// In how many seconds the payment is to be looked at, if ever, and how often it was.
async fn schedule(app: &TestApp) -> (Option<i64>, i32) {
    sqlx::query_as(
        "SELECT round(extract(epoch FROM next_look_at - now()) / 60)::bigint, looks FROM payments",
    )
    .fetch_one(&app.db)
    .await
    .unwrap()
}

#[tokio::test]
async fn case_23_the_pauses_grow_and_a_silent_provider_does_not_lengthen_them() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        let visit = Visit::begin(app, Provider::Stripe).await;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            make_due(app).await;
            reconcile_attempts(&app.cx).await.unwrap();
            pauses.extend(schedule(app).await.0);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 360]);

        app.providers.fail_next(Operation::RetrieveIntent, Fault::ErrorBefore, 100);
        for _ in 0..3 {
            make_due(app).await;
            reconcile_attempts(&app.cx).await.unwrap_err();
        }
        app.providers.clear_faults();

        assert_eq!(schedule(app).await.0, Some(2));
        assert_eq!(visit.status(app).await, "awaiting_payment");
        app.providers.succeed(&visit.reference).unwrap();
        make_due(app).await;
        reconcile(app).await;
        assert_eq!(visit.status(app).await, "paid");
    })
    .await;
}

#[tokio::test]
async fn case_23_an_attempt_whose_withdrawal_died_is_withdrawn_by_asking() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            app.age(visit.order_id, 16).await;
            work::sweep(&app.cx).await.unwrap();
            app.execute("DELETE FROM job_ledger WHERE kind = 'checkout.cancel-payment'").await;

            make_due(app).await;
            reconcile(app).await;

            let open = "payments WHERE state <> 'cancelled'";
            assert_eq!(app.count(open).await, 0);
            assert_eq!(visit.status(app).await, "expired");
        }
    })
    .await;
}

#[tokio::test]
async fn case_33_money_that_a_bank_agrees_to_days_later_is_found_and_goes_back() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        let visit = Visit::begin(app, Provider::Razorpay).await;
        app.providers.decline(&visit.reference, "payment_failed").unwrap();
        visit.shopper.cancel(visit.order_id).await.assert_status(200);
        app.execute("UPDATE payments SET created_at = now() - interval '5 days'").await;
        for _ in 0..3 {
            make_due(app).await;
            reconcile(app).await;
        }
        assert_eq!(app.count("payments WHERE state = 'cancelled'").await, 1);

        app.providers.act(&visit.reference, &Act::AuthoriseLate).unwrap();
        make_due(app).await;
        reconcile(app).await;

        assert_eq!(visit.status(app).await, "cancelled");
        assert_eq!(visit.told_of("refund_succeeded").await, 1);
        assert_eq!(app.providers.ledger().refunds.len(), 1);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_33_money_set_aside_late_for_a_dead_order_stays_where_it_is() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        let visit = Visit::begin(app, Provider::Razorpay).await;
        app.providers.decline(&visit.reference, "payment_failed").unwrap();
        visit.shopper.cancel(visit.order_id).await.assert_status(200);
        app.providers.act(&visit.reference, &Act::AuthoriseLate).unwrap();
        for _ in 0..3 {
            make_due(app).await;
            reconcile(app).await;
        }

        assert!(app.providers.ledger().captures.is_empty());
        assert_eq!(app.count("captures").await, 0);
        assert!(visit.told_of("payment_authorized_too_late").await <= 1);
        // After the days in which a bank may change its mind nobody asks any more.
        app.execute("UPDATE payments SET created_at = now() - interval '6 days 1 hour'").await;
        make_due(app).await;
        reconcile(app).await;
        assert_eq!(schedule(app).await.0, None);
    })
    .await;
}

#[tokio::test]
async fn case_33_money_set_aside_late_pays_the_order_that_still_waits() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        let visit = Visit::begin(app, Provider::Razorpay).await;
        app.providers.decline(&visit.reference, "payment_failed").unwrap();
        let second = open(&visit.shopper, visit.order_id, Provider::Stripe).await;
        assert_eq!(app.count("payments WHERE state = 'cancelled'").await, 1);

        app.providers.act(&visit.reference, &Act::AuthoriseLate).unwrap();
        make_due(app).await;
        reconcile(app).await;

        assert_eq!(visit.status(app).await, "paid");
        assert!(app.providers.succeed(&second).is_err(), "the other attempt is withdrawn");
        assert_eq!(app.providers.ledger().captures.len(), 1);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_no_provider_ever_heard_of_waits_for_its_deadline() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        for provider in BOTH {
            let mug = app.product_with_stock(5).await;
            let order_id: Uuid = app.guest().await.order_for(&[(mug, 1)]).await;
            app.attempt(order_id, super::ours(provider)).await;

            make_due(app).await;
            reconcile(app).await;

            assert_eq!(app.status_of(order_id).await, "awaiting_payment");
        }
        assert_eq!(app.count("payments WHERE state = 'creating'").await, 2);
        assert!(app.providers.payments(Provider::Stripe).is_empty());
    })
    .await;
}
