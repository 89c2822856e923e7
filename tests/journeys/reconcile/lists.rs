//! The providers' own lists: they name what has no row here.

use std::collections::BTreeMap;

use holdfast::{
    checkout::reconcile::{Listed, read_list, reconcile_lists},
    payments::reconciliation::{
        Reading, Run,
        store::{claim, newest},
    },
};
use simulator::providers::{Act, Delivery, Fault, Operation, Provider};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use uuid::Uuid;

use super::{BOTH, UNITS, Visit, assert_ledgers_agree, collect_at_once, lose_webhooks, ours, soon};
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
    let listed = read_list(&app.cx, &reading, soon()).await.unwrap();
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

/// The readings of the provider's lists, the oldest first: they leave nothing out, and none was there before.
async fn runs(app: &TestApp, provider: Provider) -> Vec<Run> {
    let mut runs = newest(&app.db, 1_000).await.unwrap();
    runs.retain(|run| run.provider == ours(provider));
    runs.reverse();
    for pair in runs.windows(2) {
        assert!(pair[1].read_from <= pair[0].read_until, "{runs:#?}");
        assert!(pair[1].read_from > pair[0].read_from, "{runs:#?}");
    }
    runs
}

/// How much of the past the readings cover, and how much of it is left.
async fn covered(app: &TestApp, runs: &[Run]) -> (Duration, Duration) {
    let now: OffsetDateTime = app.scalar("SELECT now()").await;
    let (first, last) = (&runs[0], &runs[runs.len() - 1]);
    (last.read_until - first.read_from, now - last.read_until)
}

/// The time has come to read Stripe's lists, if that is within a minute.
async fn let_a_minute_pass(app: &TestApp) {
    app.execute(
        "UPDATE reconciliation_cursors SET next_read_at = next_read_at - interval '1 minute'
         WHERE provider = 'stripe'",
    )
    .await;
}

#[tokio::test]
async fn a_list_is_read_by_one_process_at_a_time_and_from_where_it_ended() {
    TestApp::run(async |app| {
        lose_webhooks(app);
        let (one, other) = tokio::join!(reconcile_lists(&app.cx), reconcile_lists(&app.cx));
        one.unwrap();
        other.unwrap();
        let before = [runs(app, BOTH[0]).await, runs(app, BOTH[1]).await];
        app.execute("UPDATE reconciliation_cursors SET next_read_at = now()").await;
        reconcile_lists(&app.cx).await.unwrap();

        for (provider, before) in BOTH.into_iter().zip(before) {
            let after = runs(app, provider).await;
            assert_eq!(after.len(), before.len() + 1);
            let (last, before) = (&after[before.len()], &after[before.len() - 1]);
            assert!(last.read_until > before.read_until);
            // What is listed late is among what is read again.
            let again = before.read_until - last.read_from;
            assert!(again > Duration::minutes(4), "{again}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_day_in_which_little_happened_is_read_with_few_questions() {
    TestApp::run(async |app| {
        reconcile_lists(&app.cx).await.unwrap();

        let (read, left) = covered(app, &runs(app, Provider::Stripe).await).await;
        assert!(read > Duration::hours(23) && left < Duration::minutes(3), "{read}, {left}");
        assert!(app.providers.calls(Operation::ListEvents) < 10);
    })
    .await;
}

#[tokio::test]
async fn a_backlog_that_is_longer_than_a_round_is_read_to_its_end_piece_by_piece() {
    TestApp::run(async |app| {
        app.execute(
            "INSERT INTO reconciliation_cursors (provider, read_until)
             VALUES ('stripe', now() - interval '6 hours')",
        )
        .await;

        // Each round is over when its first piece is read, and the next one is due at once.
        let over = Instant::now();
        while let Some(reading) = claim(&app.db, ours(Provider::Stripe)).await.unwrap() {
            read_list(&app.cx, &reading, over).await.unwrap();
        }

        let runs = runs(app, Provider::Stripe).await;
        let (read, left) = covered(app, &runs).await;
        assert!(read > Duration::minutes(350) && left < Duration::minutes(3), "{read}, {left}");
        let longest = runs.iter().map(|run| run.read_until - run.read_from).max().unwrap();
        assert!(longest <= Duration::minutes(15), "{longest}");
        // However much happens in some minutes, what is old is read once.
        assert!(runs.len() <= 25, "{runs:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_round_that_is_cut_off_is_taken_up_soon_where_its_last_piece_ended() {
    TestApp::run(async |app| {
        let calls = || app.providers.calls(Operation::ListEvents);
        let answer_and_then = |answers, fault| {
            app.providers.clear_faults();
            let as_usual = Fault::Slow(std::time::Duration::ZERO);
            app.providers.fail_next(Operation::ListEvents, as_usual, answers);
            app.providers.fail_next(Operation::ListEvents, fault, 1);
        };

        answer_and_then(2, Fault::HangBefore);
        let third = crate::support::client::until("the third piece is asked for", async || {
            if calls() == 3 { Ok(()) } else { Err(format!("{} were", calls())) }
        });
        tokio::select! {
            ended = reconcile_lists(&app.cx) => panic!("{ended:?}"),
            () = third => {}
        }
        assert_eq!(runs(app, Provider::Stripe).await.len(), 2);

        answer_and_then(1, Fault::RateLimited);
        let_a_minute_pass(app).await;
        reconcile_lists(&app.cx).await.unwrap_err();
        assert_eq!(runs(app, Provider::Stripe).await.len(), 3);

        app.providers.clear_faults();
        let_a_minute_pass(app).await;
        reconcile_lists(&app.cx).await.unwrap();
        let (read, left) = covered(app, &runs(app, Provider::Stripe).await).await;
        assert!(read > Duration::hours(23) && left < Duration::minutes(3), "{read}, {left}");
    })
    .await;
}

#[tokio::test]
async fn a_list_that_nobody_answered_is_read_from_the_same_place_again() {
    TestApp::run(async |app| {
        app.providers.fail_next(Operation::ListEvents, Fault::ErrorBefore, 10);
        reconcile_lists(&app.cx).await.unwrap_err();
        assert!(runs(app, Provider::Stripe).await.is_empty());
        app.providers.clear_faults();
        let_a_minute_pass(app).await;

        reconcile_lists(&app.cx).await.unwrap();

        let (read, _) = covered(app, &runs(app, Provider::Stripe).await).await;
        assert!(read > Duration::hours(23), "{read}");
    })
    .await;
}
