//! Many at once.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rand::{RngExt, seq::IndexedRandom};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, Variant},
    cluster::{Plan, Role, counter},
    ledger::{Answer, PlacedOrder, Wish},
    process::{Process, env, eventually},
    shop::{Shop, survive},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_racers_for_fifty_units_get_exactly_fifty() {
    survive(Plan::DEFAULT, async |shop| {
        let (mut rounds, mut stalls) = (0, 0);
        while rounds < ROUNDS {
            let mug = shop.stock(50).await;
            let client = shop.client();
            let wishes: Vec<_> = (0..200).map(|_| client.wish(&[(mug, 1)])).collect();

            // Both processes stand at the start, the crowd behind them, and run at the same moment.
            let lock = shop.lock_stock(mug).await;
            let (mut answers, ()) = tokio::join!(shop.ask_at_once(&wishes), async {
                poised(async || shop.waiting_for_locks("holdfast-api").await == 2).await;
                lock.rollback().await.unwrap();
            });
            if settle(&client, &wishes, &mut answers).await {
                stalls += 1;
                assert!(stalls < 4 * STALLS_MAX, "{}", shop.ledger.summary());
            } else {
                rounds += 1;
            }

            let placed = answers.iter().filter(|answer| answer.placed().is_some()).count();
            let refused = answers.iter().filter(|answer| **answer == Answer::OutOfStock).count();
            assert_eq!((placed, refused), (50, 150), "{}", shop.ledger.summary());
            assert_eq!(shop.reserved(mug).await, 50);
        }
    })
    .await;
}

/// A race that is lost one time in three is not won.
const ROUNDS: usize = 5;

/// Gives a race its start: waits until the runners are `ready`, and no longer than they are patient.
///
/// On a slow machine some may still be on their way; the race is decided the same.
async fn poised(mut ready: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !ready().await && begun.elapsed() < LOCK_MAX {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A checkout waits for locked stock for half a second, three times; some machines are slow.
const LOCK_MAX: Duration = Duration::from_secs(1);

/// How often a machine may stall for so long that the lock outlasts a checkout's patience.
const STALLS_MAX: usize = 5;

/// Asks again for those who were told to come back, until they know. Returns whether there were any.
async fn settle(client: &Client, wishes: &[Wish], answers: &mut [Answer]) -> bool {
    let mut were_any = false;
    for (wish, answer) in wishes.iter().zip(answers) {
        if matches!(answer, Answer::Unavailable(_)) {
            were_any = true;
            *answer = client.order(wish).await;
        }
    }
    were_any
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_a_hundred_times_at_once_makes_one_order() {
    survive(Plan::DEFAULT, async |shop| {
        for orders in 1..=STALLS_MAX {
            let mug = shop.stock(500).await;
            let wish = shop.client().wish(&[(mug, 3)]);

            // Whoever comes first waits for the stock until some others have met it.
            let lock = shop.lock_stock(mug).await;
            let met = shop.ledger.count(|answer| *answer == Answer::InFlight);
            let others_have_come =
                poised(async || shop.ledger.count(|answer| *answer == Answer::InFlight) > met);
            let wishes = vec![wish.clone(); 100];
            let (mut answers, ()) = tokio::join!(shop.ask_at_once(&wishes), async {
                others_have_come.await;
                lock.rollback().await.unwrap();
            });
            let has_stalled = settle(&shop.client(), &wishes, &mut answers).await;
            for answer in &mut answers {
                let is_open = *answer == Answer::InFlight;
                assert!(is_open || answer.placed().is_some(), "{answer:?}");
                if is_open {
                    *answer = shop.client().order(&wish).await;
                }
            }

            let ids: HashSet<_> =
                answers.iter().map(|answer| answer.placed().unwrap().id).collect();
            assert_eq!(ids.len(), 1, "{ids:?}");
            assert_eq!(shop.reserved(mug).await, 3);
            let made = shop.count("SELECT count(*) FROM orders").await;
            assert_eq!(made, i64::try_from(orders).unwrap());
            if !has_stalled {
                return;
            }
        }
        panic!("somebody was told to come back every time: {}", shop.ledger.summary());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_that_waited_too_long_for_its_stock_tries_again_by_itself() {
    survive(Plan { apis: 1, ..Plan::DEFAULT }, async |shop| {
        let client = shop.client();
        for _ in 0..STALLS_MAX {
            let mug = shop.stock(1).await;
            let wishes = [client.wish(&[(mug, 1)])];

            let lock = shop.lock_stock(mug).await;
            let before = reruns(shop).await;
            let (answer, ()) = tokio::join!(client.ask(&wishes[0]), async {
                eventually("it tries again", Duration::from_secs(5), async || {
                    (reruns(shop).await > before).then_some(())
                })
                .await;
                lock.rollback().await.unwrap();
            });

            let mut answers = [answer];
            let has_stalled = settle(&client, &wishes, &mut answers).await;
            assert!(answers[0].placed().is_some(), "{answers:?}");
            if !has_stalled {
                return;
            }
        }
        panic!("it was told to come back every time: {}", shop.ledger.summary());
    })
    .await;
}

/// How often the API processes have run a transaction again because of somebody else's lock.
async fn reruns(shop: &Shop) -> u64 {
    let mut reruns = 0;
    for api in &shop.cluster.apis {
        reruns += counter(api, "transaction_reruns_total").await;
    }
    reruns
}

/// How long the storm lasts if nobody says otherwise.
const STORM: Duration = Duration::from_secs(30);

/// More than two cores can serve at once, fewer than would wait for longer than a lock may.
const STORM_SHOPPERS: usize = 24;

const STORM_HOLD: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_cancellations_takeovers_and_reapers_on_the_same_variants_fail_no_shopper() {
    let storm = env("SURVIVE_SECONDS").map_or(STORM, |seconds| {
        Duration::from_secs(seconds.parse().expect("SURVIVE_SECONDS is a number of seconds"))
    });
    let plan = Plan { reapers: 2, hold: STORM_HOLD, ..Plan::DEFAULT };
    survive(plan, async |shop| {
        let mut variants = Vec::new();
        for _ in 0..4 {
            variants.push(shop.stock(40).await);
        }
        let calm = CancellationToken::new();
        let mut shoppers = JoinSet::new();
        for _ in 0..STORM_SHOPPERS {
            shoppers.spawn(go_shopping(shop.client(), variants.clone(), calm.clone()));
        }

        let begun = Instant::now();
        while begun.elapsed() < storm {
            let expired = happened(shop, EXPIRED).await;
            until_more(shop, "orders expire", EXPIRED, expired).await;
            // While nobody reaps, whoever is short takes over what has expired.
            for reaper in &mut shop.cluster.reapers {
                reaper.kill9().await;
            }
            let taken = happened(shop, TAKEN).await;
            until_more(shop, "holds are taken over", TAKEN, taken).await;
            for place in 0..shop.cluster.reapers.len() {
                shop.cluster.revive(Role::Reaper, place).await;
            }
        }
        calm.cancel();
        while let Some(shopper) = shoppers.join_next().await {
            shopper.unwrap();
        }

        // Whoever waits for a lock gives up before PostgreSQL looks for a deadlock: one would be seen as
        // transactions that run again.
        let deadlocks = shop
            .count("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            .await;
        println!(
            "{} cancelled, {} expired, {} taken over, {} reruns, {deadlocks} deadlocks",
            happened(shop, CANCELLED).await,
            happened(shop, EXPIRED).await,
            happened(shop, TAKEN).await,
            reruns(shop).await,
        );
        shop.ledger.assert_served(shop.ledger.answers());
        assert!(happened(shop, CANCELLED).await > 0);
    })
    .await;
}

const EXPIRED: &str = "SELECT count(*) FROM order_events WHERE kind = 'deadline_passed'";
const CANCELLED: &str = "SELECT count(*) FROM order_events WHERE kind = 'cancelled'";
const TAKEN: &str = "SELECT count(*) FROM stock_ledger WHERE cause = 'hold_taken'";

async fn happened(shop: &Shop, what: &'static str) -> i64 {
    shop.count(what).await
}

async fn until_more(shop: &Shop, what: &str, sql: &'static str, before: i64) {
    let within = STORM_HOLD + Duration::from_secs(20);
    eventually(what, within, async || (happened(shop, sql).await > before).then_some(())).await;
}

/// Orders a little of this and that again and again. Of the orders some are cancelled at once, some
/// at their deadline, some never.
async fn go_shopping(client: Client, variants: Vec<Variant>, calm: CancellationToken) {
    let mut second_thoughts = JoinSet::new();
    while !calm.is_cancelled() {
        let wish = client.wish(&some_of(&variants));
        if let Answer::Placed(order) = client.order(&wish).await {
            match rand::random_range(0..3) {
                0 => drop(client.cancel(&wish, &order).await),
                1 => drop(second_thoughts.spawn(cancel_late(client.clone(), wish, order))),
                _ => {}
            }
        }
        while second_thoughts.try_join_next().is_some() {}
        // Even the keenest shopper needs a moment for the next click.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while let Some(second_thought) = second_thoughts.join_next().await {
        second_thought.unwrap();
    }
}

/// Cancels around the deadline, when the reaper wants the same order.
async fn cancel_late(client: Client, wish: Wish, order: PlacedOrder) {
    let late = rand::random_range(0..1_200);
    tokio::time::sleep(STORM_HOLD + Duration::from_millis(late)).await;
    client.cancel(&wish, &order).await;
}

/// One to three variants in any order, one to three units of each.
fn some_of(variants: &[Variant]) -> Vec<(Variant, i64)> {
    let mut rng = rand::rng();
    let count = rng.random_range(1..=3);
    variants.sample(&mut rng, count).map(|variant| (*variant, rng_units())).collect()
}

fn rng_units() -> i64 {
    rand::random_range(1..=3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_the_database_refuses_fails_alone_in_a_full_batch() {
    survive(Plan::DEFAULT, async |shop| {
        let mug = shop.stock(1_000).await;
        poison_orders_of(shop, "poison-%").await;
        let client = shop.client();
        let mut wishes: Vec<_> = (0..400).map(|_| client.wish(&[(mug, 1)])).collect();
        for place in [3, 150, 151, 399] {
            wishes[place].email = format!("poison-{}", wishes[place].email);
        }

        let mut answers = shop.ask_at_once(&wishes).await;
        settle(&client, &wishes, &mut answers).await;

        for (wish, answer) in wishes.iter().zip(&answers) {
            let is_right = if wish.email.starts_with("poison-") {
                *answer == Answer::Refused(500, "internal-error".to_owned())
            } else {
                answer.placed().is_some()
            };
            assert!(is_right, "{}: {answer:?}", wish.email);
        }
        assert_eq!(shop.reserved(mug).await, 396);
        let log: String = shop.cluster.apis.iter().map(Process::log).collect();
        assert!(log.contains("is halved"), "the poison never met anybody in a batch");
    })
    .await;
}

/// Lets the database refuse orders by their e-mail address, as it would for a bug nobody knows yet.
async fn poison_orders_of(shop: &Shop, pattern: &str) {
    let sql = format!(
        "
        CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'poison';
        END
        $$;
        CREATE TRIGGER refuse_poison BEFORE INSERT ON orders
            FOR EACH ROW WHEN (NEW.email LIKE '{pattern}') EXECUTE FUNCTION refuse_poison();
        "
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(shop.db()).await.unwrap();
}
