//! Refunds and disputes of whose end no webhook told.

use holdfast::checkout::reconcile::{reconcile_attempts, reconcile_disputes, reconcile_refunds};
use simulator::providers::{Delivery, Fault, Operation, Provider, Verdict};

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
async fn a_silent_provider_delays_no_refund_of_the_other_and_lengthens_no_pause() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        let waiting = || app.count("refunds WHERE state = 'requested'");
        // A whole slice of refunds at Stripe is due before the one at Razorpay.
        for provider in [[Provider::Stripe; 10].as_slice(), &[Provider::Razorpay]].concat() {
            let visit = Visit::begin(app, provider).await;
            app.providers.succeed(&visit.reference).unwrap();
            make_due(app).await;
            reconcile_attempts(&app.cx).await.unwrap();
            visit.shopper.cancel(visit.order_id).await.assert_status(200);
        }
        app.execute("DELETE FROM job_ledger WHERE kind = 'checkout.refund-payment'").await;
        app.execute(
            "UPDATE refunds SET looks = 5, next_look_at = now() - CASE provider
                WHEN 'stripe' THEN interval '1 minute' ELSE interval '0' END",
        )
        .await;
        app.providers.fail_next(Provider::Stripe, Fault::RateLimited, 1_000);

        reconcile_refunds(&app.cx).await.unwrap_err();

        let made = app.providers.ledger().refunds;
        let made: Vec<_> = made.iter().map(|refund| refund.provider).collect();
        assert_eq!((made, waiting().await), (vec![Provider::Razorpay], 10));
        let soon = "refunds WHERE state = 'requested' AND looks = 5
            AND next_look_at < now() + interval '3 minutes'";
        assert_eq!(app.count(soon).await, 10);
        app.providers.clear_faults();
        make_due(app).await;
        reconcile_refunds(&app.cx).await.unwrap();
        assert_eq!((app.providers.ledger().refunds.len(), waiting().await), (11, 0));
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn a_dispute_that_gets_no_answer_delays_no_other_and_is_asked_about_soon() {
    TestApp::run(async |app| {
        collect_at_once(app);
        app.start_workers().await;
        let of = |state| format!("disputes WHERE state = '{state}'");
        let mut disputes = Vec::new();
        for count in 1..=2 {
            let visit = Visit::begin(app, Provider::Stripe).await;
            app.providers.succeed(&visit.reference).unwrap();
            make_due(app).await;
            reconcile(app).await;
            disputes.push(app.providers.dispute(&visit.reference).unwrap());
            until("the dispute is known", async || match app.count(&of("open")).await {
                known if known == count => Ok(()),
                known => Err(format!("{known} are")),
            })
            .await;
        }
        app.stop_workers().await;
        lose_webhooks(app);
        for dispute in &disputes {
            app.providers.close_dispute(dispute, Verdict::Won).unwrap();
        }
        let soon = format!("{} AND next_look_at < now() + interval '3 minutes'", of("open"));

        make_due(app).await;
        app.providers.fail_next(Operation::RetrieveDispute, Fault::RateLimited, 1);
        reconcile_disputes(&app.cx).await.unwrap();
        assert_eq!((app.count(&of("won")).await, app.count(&soon).await), (1, 1));

        make_due(app).await;
        app.providers.fail_next(Operation::RetrieveDispute, Fault::RateLimited, 1);
        reconcile_disputes(&app.cx).await.unwrap_err();
        assert_eq!(app.count(&soon).await, 1);

        make_due(app).await;
        reconcile(app).await;
        assert_eq!(app.count(&of("won")).await, 2);
    })
    .await;
}

#[tokio::test]
async fn case_22_the_end_of_a_dispute_is_asked_for() {
    TestApp::run(async |app| {
        collect_at_once(app);
        for provider in BOTH {
            app.start_workers().await;
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
            app.stop_workers().await;
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
