//! Refunds and disputes of whose end no webhook told.

use holdfast::checkout::reconcile::{reconcile_attempts, reconcile_refunds};
use simulator::providers::{Delivery, Provider, Verdict};

use super::{
    BOTH, UNITS, Visit, assert_ledgers_agree, collect_at_once, lose_webhooks, make_due, reconcile,
};
use crate::support::{app::TestApp, client::until};

/// A shopper who has paid and changed their mind; the refund waits at the provider, which names it.
async fn refund_under_way(app: &TestApp, provider: Provider) -> (Visit, String) {
    app.providers.set_refunds_wait(provider, true);
    let visit = Visit::begin(app, provider).await;
    app.providers.succeed(&visit.reference).unwrap();
    make_due(app).await;
    reconcile(app).await;
    visit.shopper.cancel(visit.order_id).await.assert_status(200);
    app.settle().await;
    let refund = app.providers.ledger().refunds.pop().unwrap();
    (visit, refund.provider_ref)
}

#[tokio::test]
async fn case_22_the_end_of_a_refund_is_asked_for() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            for (verdict, state) in [(Verdict::Won, "succeeded"), (Verdict::Lost, "failed")] {
                let (visit, refund) = refund_under_way(app, provider).await;
                assert_eq!(app.count("refunds WHERE state = 'pending'").await, 1);
                app.providers.finish_refund(&refund, verdict).unwrap();

                make_due(app).await;
                reconcile(app).await;

                let told = format!("refund_{state}");
                assert_eq!(visit.told_of(&told).await, 1, "{provider}, {told}");
                assert_eq!(app.count("refunds WHERE state = 'pending'").await, 0);
            }
        }
        assert_eq!(app.count("findings WHERE kind = 'refund_failed'").await, 2);
        assert_eq!(app.providers.ledger().refunds.len(), 4);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_18_a_refund_that_came_back_unheard_is_found() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        let (visit, refund) = refund_under_way(app, Provider::Razorpay).await;
        app.providers.finish_refund(&refund, Verdict::Won).unwrap();
        make_due(app).await;
        reconcile(app).await;
        assert_eq!(visit.told_of("refund_succeeded").await, 1);
        app.providers.finish_refund(&refund, Verdict::Lost).unwrap();

        make_due(app).await;
        reconcile(app).await;

        assert_eq!(visit.told_of("refund_failed").await, 1);
        assert_eq!(app.count("findings WHERE kind = 'refund_failed'").await, 1);
        assert_ledgers_agree(app).await;

        // After a month nobody asks any more.
        app.execute("UPDATE refunds SET created_at = now() - interval '31 days'").await;
        let (visit, refund) = refund_under_way(app, Provider::Razorpay).await;
        app.providers.finish_refund(&refund, Verdict::Won).unwrap();
        make_due(app).await;
        reconcile(app).await;
        assert_eq!(visit.told_of("refund_succeeded").await, 1);
        app.execute("UPDATE refunds SET created_at = now() - interval '31 days'").await;
        make_due(app).await;
        reconcile(app).await;
        assert_eq!(app.count("refunds WHERE next_look_at IS NULL").await, 1);
    })
    .await;
}

#[tokio::test]
async fn case_22_a_refund_whose_job_died_is_made_once() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            app.providers.succeed(&visit.reference).unwrap();
            make_due(app).await;
            reconcile_attempts(&app.cx).await.unwrap();
            visit.shopper.cancel(visit.order_id).await.assert_status(200);
            // No worker has started yet.
            app.execute("DELETE FROM job_ledger WHERE kind = 'checkout.refund-payment'").await;

            for _ in 0..2 {
                make_due(app).await;
                reconcile_refunds(&app.cx).await.unwrap();
            }

            assert_eq!(visit.told_of("refund_succeeded").await, 1);
        }
        let refunds = app.providers.ledger().refunds;
        assert_eq!(refunds.len(), 2, "{refunds:?}");
        assert!(refunds.iter().all(|refund| refund.amount_minor == UNITS * 12_99), "{refunds:?}");
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_22_the_end_of_a_dispute_is_asked_for() {
    TestApp::run(async |app| {
        collect_at_once(app);
        app.start_workers().await;
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            let paid = app.providers.succeed(&visit.reference).unwrap();
            let charge = match provider {
                Provider::Stripe => visit.reference.clone(),
                Provider::Razorpay => paid.payment_ref.unwrap(),
            };
            make_due(app).await;
            reconcile(app).await;
            let dispute = app.providers.dispute(&charge).unwrap();
            let disputes = format!("disputes WHERE provider_ref = '{dispute}' AND state");
            until("the dispute is known", async || {
                match app.count(&format!("{disputes} = 'open'")).await {
                    1 => Ok(()),
                    count => Err(format!("{count} disputes")),
                }
            })
            .await;
            lose_webhooks(app);
            app.providers.close_dispute(&dispute, Verdict::Won).unwrap();

            make_due(app).await;
            reconcile(app).await;

            assert_eq!(app.count(&format!("{disputes} = 'won'")).await, 1);
            assert_eq!(app.count("findings WHERE closed_at IS NULL").await, 0);
            for provider in BOTH {
                app.providers.set_delivery(provider, Delivery::Normal);
            }
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}
