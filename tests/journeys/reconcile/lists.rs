//! The providers' own lists: they name what has no row here.

use std::collections::BTreeMap;

use holdfast::{
    checkout::reconcile::{Listed, read_list, reconcile_lists},
    payments::reconciliation::{Reading, store::newest},
};
use simulator::providers::{Act, Delivery, Provider};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{BOTH, UNITS, Visit, assert_ledgers_agree, collect_at_once, lose_webhooks, ours};
use crate::support::app::TestApp;

/// Reads what happened at the provider in the last hour, whatever was read before, and lets the work be
/// done that follows from it.
async fn read(app: &TestApp, provider: Provider) -> Listed {
    let now: OffsetDateTime = app.scalar("SELECT now()").await;
    let reading = Reading {
        provider: ours(provider),
        from: now - Duration::hours(1),
        until: now + Duration::seconds(2),
    };
    let listed = read_list(&app.cx, &reading).await.unwrap();
    app.settle().await;
    listed
}

#[tokio::test]
async fn case_40_what_happened_while_the_shop_was_deaf_is_read_from_the_lists_once() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            app.providers.succeed(&visit.reference).unwrap();

            let first = read(app, provider).await;
            let second = read(app, provider).await;

            assert!(first.found > 0 && first.listed >= first.found, "{first:?}");
            assert_eq!(second, Listed { listed: first.listed, found: 0 });
            assert_eq!(visit.status(app).await, "paid");
            assert_eq!(visit.told_of("payment_settled").await, 1);
        }
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_40_an_event_that_came_by_webhook_is_not_taken_in_again() {
    TestApp::run(async |app| {
        let visit = Visit::begin(app, Provider::Stripe).await;
        app.providers.set_delivery(Provider::Stripe, Delivery::Normal);
        app.providers.succeed(&visit.reference).unwrap();
        crate::support::client::until("the webhooks are taken", async || {
            match app.count("provider_events").await {
                0 => Err("none is".to_owned()),
                _ if app.providers.events().len() == app.providers.attempts().len() => Ok(()),
                count => Err(format!("{count} are")),
            }
        })
        .await;
        app.settle().await;
        let before = app.count("provider_events").await;

        let read = read(app, Provider::Stripe).await;

        assert_eq!((read.found, app.count("provider_events").await), (0, before));
        assert!(read.listed > 0);
        assert_eq!(visit.status(app).await, "paid");
    })
    .await;
}

#[tokio::test]
async fn case_40_a_second_charge_a_refund_and_a_dispute_that_nobody_told_of_are_found() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let visit = Visit::begin(app, provider).await;
            let paid = app.providers.succeed(&visit.reference).unwrap();
            let charge = match provider {
                Provider::Stripe => visit.reference.clone(),
                Provider::Razorpay => paid.payment_ref.unwrap(),
            };
            read(app, provider).await;
            if provider == Provider::Razorpay {
                app.providers.act(&visit.reference, &Act::PayAgain).unwrap();
            }
            let refund = app.providers.refund(&charge, Some(100)).unwrap();
            let dispute = app.providers.dispute(&charge).unwrap();

            let found = read(app, provider).await.found;

            assert!(found >= 2, "{found}");
            let adopted =
                format!("refunds WHERE provider_ref = '{refund}' AND cause = 'provider' AND state = 'succeeded'");
            assert_eq!(app.count(&adopted).await, 1);
            let known = format!("disputes WHERE provider_ref = '{dispute}' AND state = 'open'");
            assert_eq!(app.count(&known).await, 1);
            if provider == Provider::Razorpay {
                assert_eq!(app.count("captures WHERE reason = 'already_paid'").await, 1);
                assert_eq!(visit.told_of("refund_succeeded").await, 2);
            }
        }
        let refunds = app.providers.ledger().refunds;
        let amounts: Vec<_> = refunds.iter().map(|refund| refund.amount_minor).collect();
        assert_eq!(amounts, [100, 100, UNITS * 12_99]);
        assert_ledgers_agree(app).await;
    })
    .await;
}

#[tokio::test]
async fn case_40_money_of_a_payment_that_a_restore_has_lost_is_told_to_people() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        collect_at_once(app);
        for provider in BOTH {
            let lost = Uuid::now_v7().to_string();
            let ours = BTreeMap::from([("payment_id".to_owned(), lost.clone())]);
            let ours = app.providers.create_foreign(provider, 5_00, "USD", ours);
            let strangers =
                app.providers.create_foreign(provider, 5_00, "USD", BTreeMap::default());
            for reference in [&ours, &strangers] {
                app.providers.succeed(reference).unwrap();
            }

            read(app, provider).await;
            read(app, provider).await;

            let found = format!(
                "findings WHERE kind = 'unknown_money' AND closed_at IS NULL AND detail ->> 'payment_id' = '{lost}'"
            );
            assert_eq!(app.count(&found).await, 1);
        }
        assert_eq!(app.count("findings").await, 2);
        assert_eq!(app.count("captures").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_list_is_read_by_one_process_at_a_time_and_from_where_it_ended() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        let (one, other) = tokio::join!(reconcile_lists(&app.cx), reconcile_lists(&app.cx));
        one.unwrap();
        other.unwrap();
        let first = newest(&app.db, 10).await.unwrap();
        app.execute("UPDATE reconciliation_cursors SET next_read_at = now()").await;
        reconcile_lists(&app.cx).await.unwrap();
        let second = newest(&app.db, 10).await.unwrap();

        assert_eq!((first.len(), second.len()), (2, 4));
        for run in &second[..2] {
            let before = first.iter().find(|before| before.provider == run.provider).unwrap();
            assert_eq!(run.read_from, before.read_until);
            assert!(run.read_until > run.read_from);
        }
    })
    .await;
}

#[tokio::test]
async fn a_list_that_nobody_answered_is_read_from_the_same_place_again() {
    TestApp::run(async |app| {
        use simulator::providers::{Fault, Operation};
        app.providers.fail_next(Operation::ListEvents, Fault::ErrorBefore, 10);
        reconcile_lists(&app.cx).await.unwrap_err();
        assert_eq!(app.count("reconciliation_runs WHERE provider = 'stripe'").await, 0);
        app.providers.clear_faults();
        app.execute("UPDATE reconciliation_cursors SET next_read_at = now()").await;

        reconcile_lists(&app.cx).await.unwrap();

        let runs = newest(&app.db, 10).await.unwrap();
        let stripe = runs.iter().find(|run| run.provider == ours(Provider::Stripe)).unwrap();
        assert!(stripe.read_until - stripe.read_from > Duration::hours(23));
    })
    .await;
}
