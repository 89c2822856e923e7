//! A PostgreSQL that goes and comes back.

use std::time::{Duration, Instant};

use crate::{
    cluster::{Origin, Plan, is_healthy},
    ledger::Answer,
    load::Load,
    process::{Signal, eventually},
    shop::{Shop, survive},
};

/// From the moment at which the database answers again.
const HEALED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_restarted_under_load_loses_no_acknowledged_order() {
    let plan = Plan { postgres: Origin::Own, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        // A mail that was sent while its row could not be marked is sent again.
        shop.copies_max = 2;
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

            let back = Instant::now();
            for api in 0..shop.cluster.apis.len() {
                let client = shop.client().only(api);
                eventually("orders are placed again", HEALED_WITHIN, async || {
                    client.ask(&client.wish(&[(mug, 1)])).await.placed().map(drop)
                })
                .await;
            }
            println!("healed {:?} after {signal:?}", back.elapsed());
            assert!(back.elapsed() < HEALED_WITHIN, "healed after {:?}", back.elapsed());
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
