//! Processes that die between two steps.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use crate::{
    cluster::{Origin, Plan, Role},
    ledger::{Answer, PlacedOrder},
    process::{Process, Signal, eventually},
    shop::{Shop, message_id, survive},
};

const HOLD: Duration = Duration::from_secs(5);

/// A deadline is enforced that late at most: after one sweep, and the time that the work itself takes.
const LATENESS_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_dies_before_its_commit_has_done_nothing() {
    let plan = Plan { apis: 1, hold: HOLD, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        let order = order_from_a_doomed_api(shop, "checkout.before-commit").await;

        assert!(!order.replayed, "the first request left an order behind");
        the_deadline_is_kept(shop).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_dies_after_its_commit_has_placed_the_order_and_the_repeat_finds_it() {
    let plan = Plan { apis: 1, hold: HOLD, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        let order = order_from_a_doomed_api(shop, "checkout.after-commit").await;

        assert!(order.replayed, "the first request left no order behind");
        the_deadline_is_kept(shop).await;
    })
    .await;
}

/// Sends a wish to a process that dies of it, and repeats it to another until it is answered.
async fn order_from_a_doomed_api(shop: &mut Shop, failpoint: &str) -> PlacedOrder {
    let mug = shop.stock(5).await;
    shop.cluster.add_doomed(Role::Api, failpoint).await;
    let client = shop.client();
    let wish = client.wish(&[(mug, 2)]);

    let answer = client.only(1).ask(&wish).await;
    assert!(matches!(answer, Answer::Lost(_)), "{answer:?}");
    has_aborted(&mut shop.cluster.apis[1]).await;

    let answer = client.only(0).order(&wish).await;
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 1);
    shop.cluster.revive(Role::Api, 1).await;
    answer.placed().expect("there is stock").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_dies_before_it_could_wake_anybody_leaves_the_work_to_the_reaper() {
    let plan = Plan { hold: HOLD, redis: Origin::Own, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        let mug = shop.stock(5).await;
        shop.cluster.redis.as_mut().unwrap().stop(Signal::Kill).await;

        let (wish, order) = shop.client().only(0).place(&[(mug, 2)]).await;
        shop.cluster.apis[0].kill9().await;
        shop.cluster.redis.as_mut().unwrap().start_again().await;

        let repeat = shop.client().only(1).order(&wish).await;
        assert_eq!(repeat.placed().map(|repeat| repeat.id), Some(order.id));
        shop.cluster.revive(Role::Api, 0).await;
        the_deadline_is_kept(shop).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reaper_that_dies_before_its_commit_has_ended_no_order() {
    a_reaper_dies_in_mid_batch("reaper.before-commit", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reaper_that_dies_after_its_commit_has_ended_the_orders_and_their_mails_go_out() {
    a_reaper_dies_in_mid_batch("reaper.after-commit", ORDERS).await;
}

const ORDERS: i64 = 20;

/// A reaper dies of its first batch, which has ended `ended` orders by then; another does the rest.
async fn a_reaper_dies_in_mid_batch(failpoint: &str, ended: i64) {
    let plan = Plan { reapers: 0, hold: HOLD, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        let mug = shop.stock(ORDERS).await;
        for _ in 0..ORDERS {
            shop.client().place(&[(mug, 1)]).await;
        }
        shop.age_orders(HOLD * 2).await;

        shop.cluster.add_doomed(Role::Reaper, failpoint).await;
        has_aborted(&mut shop.cluster.reapers[0]).await;
        // The database learns a moment later than we do that its client is gone.
        the_database_is_at_rest(shop).await;
        assert_eq!(shop.count("SELECT count(*) FROM orders WHERE status = 'expired'").await, ended);
        shop.cluster.revive(Role::Reaper, 0).await;

        eventually("all orders are ended", Duration::from_secs(10), async || {
            let ended = shop.count("SELECT count(*) FROM orders WHERE status = 'expired'").await;
            (ended == ORDERS).then_some(())
        })
        .await;
        assert_eq!(shop.reserved(mug).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailer_that_dies_before_it_sends_sends_the_mail_once() {
    assert_eq!(copies_after_a_mailer_died("mailer.before-send").await, (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailer_that_dies_after_it_sent_sends_the_same_mail_once_more() {
    assert_eq!(copies_after_a_mailer_died("mailer.after-send").await, (1, 2));
}

/// How many copies of the one mail were in the inbox when the mailer died, and in the end. They all
/// have one Message-ID.
async fn copies_after_a_mailer_died(failpoint: &str) -> (usize, usize) {
    let mut copies = (0, 0);
    let plan = Plan { apis: 1, mailers: 0, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        shop.copies_max = 2;
        let mug = shop.stock(1).await;
        shop.cluster.add_doomed(Role::Mailer, failpoint).await;

        let (_, order) = shop.client().place(&[(mug, 1)]).await;
        has_aborted(&mut shop.cluster.mailers[0]).await;
        copies.0 = shop.cluster.inbox.mails().len();
        shop.expire_leases().await;
        shop.cluster.revive(Role::Mailer, 0).await;
        shop.all_work_ends().await;

        let mails = shop.cluster.inbox.mails();
        copies.1 = mails.len();
        let message_id = message_id("order-received", order.id);
        assert!(mails.iter().all(|mail| mail.message_id == message_id), "{mails:?}");
        assert_eq!(
            shop.count("SELECT count(*) FROM deliveries WHERE sent_at IS NOT NULL").await,
            1
        );
    })
    .await;
    copies
}

/// Waits until the process has died of its failpoint.
pub(super) async fn has_aborted(process: &mut Process) {
    let status = process.ended(Duration::from_secs(20)).await;
    assert_eq!(status.signal(), Some(6), "{} ended with {status}", process.name());
}

/// Waits until nobody has a transaction open.
async fn the_database_is_at_rest(shop: &Shop) {
    eventually("no transaction is open", Duration::from_secs(5), async || {
        let open = shop
            .count(
                "
                SELECT count(*)
                FROM pg_stat_activity
                WHERE datname = current_database()
                    AND xact_start IS NOT NULL
                    AND pid <> pg_backend_pid()
                ",
            )
            .await;
        (open == 0).then_some(())
    })
    .await;
}

/// Waits until the orders have run out, and checks that none was kept for longer than promised.
async fn the_deadline_is_kept(shop: &Shop) {
    let within = HOLD + LATENESS_MAX + Duration::from_secs(1);
    eventually("the order has run out", within, async || {
        let waiting =
            shop.count("SELECT count(*) FROM orders WHERE status = 'awaiting_payment'").await;
        (waiting == 0).then_some(())
    })
    .await;
    let lateness = shop.lateness_max().await;
    assert!(lateness <= LATENESS_MAX, "{lateness:?} late");
}
