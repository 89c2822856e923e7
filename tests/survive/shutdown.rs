//! Processes that are told to stop.

use std::time::Duration;

use simulator::inbox::Fault;

use crate::{
    cluster::{Plan, Role},
    ledger::Answer,
    load::Load,
    process::{Process, Signal, eventually},
    shop::{Shop, survive},
};

/// Below the time after which process managers lose their patience.
const DRAIN_MAX: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_leaves_no_request_that_was_heard_unanswered() {
    survive(Plan::DEFAULT, async |shop| {
        let mug = shop.stock(100_000).await;
        let client = shop.client();
        let mut load = Load::start(&client, 6, mug);
        load.join(&client.without_keep_alive(), 6, mug);

        for place in [0, 1, 0, 1] {
            shop.until_placed(60).await;
            drains(&mut shop.cluster.apis[place]).await;
            shop.until_placed(20).await;
            shop.cluster.revive(Role::Api, place).await;
        }
        shop.until_placed(60).await;
        load.stop().await;

        let (told, lost) =
            (shop.ledger.summary(), |answer: &Answer| matches!(answer, Answer::Lost(_)));
        println!("{} connections were reset before a request was heard", shop.ledger.count(lost));
        shop.ledger.assert_served(shop.ledger.answers());
        assert_eq!(shop.ledger.heard_but_unanswered(), Vec::<String>::new(), "{told}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailer_that_is_stopped_in_mid_mail_ends_what_it_has_begun() {
    survive(Plan { apis: 1, ..Plan::DEFAULT }, async |shop| {
        let mug = shop.stock(3).await;
        shop.cluster.inbox.set_fault(Some(Fault::Slow(Duration::from_secs(5))));
        for _ in 0..3 {
            shop.client().place(&[(mug, 1)]).await;
        }
        eventually("all mails are being sent", Duration::from_secs(10), async || {
            let begun = "SELECT count(*) FROM job_ledger WHERE lease_until > now()";
            (shop.count(begun).await == 3).then_some(())
        })
        .await;

        drains(&mut shop.cluster.mailers[0]).await;

        let done = "SELECT count(*) FROM job_ledger WHERE state = 'done'";
        assert_eq!(shop.count(done).await, 3);
        shop.cluster.inbox.set_fault(None);
        shop.cluster.revive(Role::Mailer, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reaper_that_is_stopped_in_mid_batch_ends_what_it_has_begun() {
    survive(Plan { apis: 1, ..Plan::DEFAULT }, async |shop| {
        for _ in 0..TRIES_MAX {
            if is_ended_by_a_stopped_reaper(shop).await {
                return;
            }
        }
        panic!("a reaper that was stopped in mid-batch never ended it");
    })
    .await;
}

/// A reaper waits for stock for half a second. Where the machine stalls for as long, the batch was given up
/// before the stop and not because of it.
const TRIES_MAX: usize = 5;

/// Whether three orders were ended by a reaper that was told to stop while it waited for their stock. If
/// not, the next reaper ends them.
async fn is_ended_by_a_stopped_reaper(shop: &mut Shop) -> bool {
    let mug = shop.stock(3).await;
    for _ in 0..3 {
        shop.client().place(&[(mug, 1)]).await;
    }
    let lock = shop.lock_stock(mug).await;
    shop.age_orders(Duration::from_hours(1)).await;
    eventually("the reaper waits for the stock", Duration::from_secs(10), async || {
        let waiting = shop.waiting_for_locks("holdfast-reaper").await;
        (waiting > 0).then_some(())
    })
    .await;

    shop.cluster.reapers[0].signal(Signal::Terminate);
    lock.rollback().await.unwrap();
    has_drained(&mut shop.cluster.reapers[0]).await;

    let kept = shop.count("SELECT count(*) FROM orders WHERE status <> 'expired'").await;
    assert!(kept == 0 || kept == 3, "{kept} of 3 were left behind");
    assert_eq!(shop.reserved(mug).await, kept);
    shop.cluster.revive(Role::Reaper, 0).await;
    shop.all_work_ends().await;
    assert_eq!(shop.reserved(mug).await, 0);
    kept == 0
}

/// Tells the process to stop, and asserts that it ends in time and content.
async fn drains(process: &mut Process) {
    process.signal(Signal::Terminate);
    has_drained(process).await;
}

async fn has_drained(process: &mut Process) {
    let status = process.ended(DRAIN_MAX).await;
    assert!(status.success(), "{} ended with {status}", process.name());
}
