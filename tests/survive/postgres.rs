//! A PostgreSQL that goes and comes back.

use std::time::{Duration, Instant};

use crate::{
    cluster::{Origin, Plan, is_healthy},
    ledger::Answer,
    load::Load,
    process::{Signal, eventually},
    shop::{Shop, survive},
};

/// Each API, from the moment at which the database answers again. A slow machine takes some seconds.
const HEALED_WITHIN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_restarted_under_load_loses_no_acknowledged_order() {
    let plan = Plan { postgres: Origin::Own, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        // A mail that was sent while its row could not be marked is sent again, at each of three stops.
        shop.copies_max = 4;
        let mug = shop.stock(100_000).await;
        let load = Load::start(&shop.client(), 8, mug);

        for signal in [Signal::Interrupt, Signal::Quit, Signal::Kill] {
            shop.until_placed(40).await;
            let told_before = told_to_come_back(shop);
            shop.cluster.postgres.as_mut().unwrap().stop(signal).await;
            eventually("shoppers are told to come back", Duration::from_secs(10), async || {
                (told_to_come_back(shop) > told_before).then_some(())
            })
            .await;
            for worker in shop.cluster.reapers.iter().chain(&shop.cluster.mailers) {
                assert!(is_healthy(worker, "/livez").await, "{}", worker.name());
            }
            shop.cluster.postgres.as_mut().unwrap().start_again().await;

            for api in 0..shop.cluster.apis.len() {
                let back = Instant::now();
                let client = shop.client().only(api);
                let wish = client.wish(&[(mug, 1)]);
                eventually("orders are placed again", HEALED_WITHIN, async || {
                    client.ask(&wish).await.placed().map(drop)
                })
                .await;
                println!("API {api} healed {:?} after {signal:?}", back.elapsed());
            }
        }
        shop.until_placed(40).await;
        load.stop().await;

        let answers = shop.ledger.summary();
        let unkind = |answer: &Answer| matches!(answer, Answer::Lost(_) | Answer::Refused(..));
        assert_eq!(shop.ledger.count(unkind), 0, "{answers}");
    })
    .await;
}

fn told_to_come_back(shop: &Shop) -> usize {
    shop.ledger.count(|answer| matches!(answer, Answer::Unavailable(_)))
}

/// A slice is given up after 8 s; then the pool must find that its other connections are dead, too.
/// A slow machine needs several attempts for that.
const SILENCE_MAX: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fall_silent_stop_no_checkout_for_long() {
    survive(Plan { apis: 1, ..Plan::DEFAULT }, async |shop| {
        let mug = shop.stock(100).await;
        let client = shop.client();
        client.place(&[(mug, 1)]).await;

        let frozen = backends(shop, "holdfast-api").await;
        assert!(!frozen.is_empty());
        signal(&frozen, "-STOP");
        let began = Instant::now();
        let wish = client.wish(&[(mug, 1)]);
        let placed = tokio::time::timeout(SILENCE_MAX, client.order(&wish)).await;
        // Whatever comes of it, the database must be able to go on.
        signal(&frozen, "-CONT");

        assert!(placed.is_ok(), "no order within {SILENCE_MAX:?}: {}", shop.ledger.summary());
        println!("an order was placed {:?} after the silence began", began.elapsed());
        let unkind = |answer: &Answer| matches!(answer, Answer::Lost(_) | Answer::Refused(..));
        assert_eq!(shop.ledger.count(unkind), 0, "{}", shop.ledger.summary());
    })
    .await;
}

/// The database's own processes behind the connections of a process of ours.
async fn backends(shop: &Shop, process: &str) -> Vec<i32> {
    sqlx::query_scalar(
        "
        SELECT pid
        FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = $1
        ",
    )
    .bind(process)
    .fetch_all(shop.db())
    .await
    .unwrap()
}

/// Stops or continues processes, as a network that loses every packet would.
fn signal(pids: &[i32], signal: &str) {
    let mut kill = std::process::Command::new("kill");
    kill.arg(signal).args(pids.iter().map(ToString::to_string));
    assert!(kill.status().unwrap().success());
}
