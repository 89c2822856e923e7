//! Webhooks that meet a shop without its database or its queue, and answers that break off.

use std::time::Duration;

use simulator::providers::{Fault, Operation, Outcome, Provider};

use super::{PAID_WITHIN, PROVIDERS, TILL, is_paid_once};
use crate::{
    cluster::{Origin, Plan},
    ledger::PlacedOrder,
    process::{Signal, eventually},
    shop::{Shop, survive},
};

/// How many shoppers pay at once.
const CROWD: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_that_come_while_postgres_is_restarted_are_sent_again_and_none_is_lost() {
    let plan = Plan { postgres: Origin::Own, ..TILL };
    survive(plan, async |shop| {
        // A mail that was sent while its row could not be marked is sent again, at each of three stops.
        shop.copies_max = 4;
        for signal in [Signal::Interrupt, Signal::Quit, Signal::Kill] {
            let crowd = shoppers_in_front_of_payments(shop).await;
            let failed_before = answered(shop, 503);
            let (early, late) = crowd.split_at(CROWD / 2);

            pay(shop, early);
            shop.cluster.postgres.as_mut().unwrap().stop(signal).await;
            pay(shop, late);
            eventually("webhooks are refused", Duration::from_secs(10), async || {
                (answered(shop, 503) > failed_before).then_some(())
            })
            .await;
            shop.cluster.postgres.as_mut().unwrap().start_again().await;
            // Whoever was interrupted cannot give its jobs back.
            shop.expire_leases().await;

            for (order, _) in &crowd {
                is_paid_once(shop, order).await;
            }
        }
        let outcomes: Vec<_> =
            shop.cluster.providers.attempts().into_iter().map(|attempt| attempt.outcome).collect();
        // A provider waits only so long, and then sends again.
        let is_kind = |outcome: &Outcome| {
            matches!(outcome, Outcome::Answered(200 | 503) | Outcome::NotAnswered)
        };
        assert!(outcomes.iter().all(is_kind), "{outcomes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_that_come_while_redis_is_down_are_taken_at_once_and_settled_when_it_is_back() {
    let plan = Plan { redis: Origin::Own, ..TILL };
    survive(plan, async |shop| {
        let crowd = shoppers_in_front_of_payments(shop).await;
        shop.all_work_ends().await;

        shop.cluster.redis.as_mut().unwrap().stop(Signal::Kill).await;
        pay(shop, &crowd);
        eventually("every webhook is taken", PAID_WITHIN, async || {
            shop.unheard().is_empty().then_some(())
        })
        .await;
        let attempts = shop.cluster.providers.attempts();
        assert!(attempts.iter().all(|it| it.outcome == Outcome::Answered(200)), "{attempts:?}");
        shop.cluster.redis.as_mut().unwrap().start_again().await;

        for (order, _) in &crowd {
            is_paid_once(shop, order).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_breaks_off_may_say_that_it_was_done_before_and_ends_no_attempt() {
    survive(TILL, async |shop| {
        let mug = shop.stock(1).await;
        let client = shop.client();
        let (wish, order) = client.place(&[(mug, 1)]).await;
        let providers = &shop.cluster.providers;
        providers.fail_next(Operation::CreateOrder, Fault::ResetAfter, 1);
        providers.fail_next(Operation::ListOrders, Fault::ErrorBefore, 1);
        providers.fail_next(Operation::CreateOrder, Fault::MalformedAnswer, 1);

        let (_, reference) = client.pays_with(&wish, &order, Provider::Razorpay).await;
        providers.succeed(&reference).unwrap();

        is_paid_once(shop, &order).await;
    })
    .await;
}

/// Orders, and the providers' names for what is to be paid; each provider has its share.
async fn shoppers_in_front_of_payments(shop: &Shop) -> Vec<(PlacedOrder, String)> {
    let mug = shop.stock(100).await;
    let client = shop.client();
    let mut crowd = Vec::new();
    for provider in PROVIDERS.into_iter().cycle().take(CROWD) {
        let (wish, order) = client.place(&[(mug, 1)]).await;
        let (_, reference) = client.pays_with(&wish, &order, provider).await;
        crowd.push((order, reference));
    }
    crowd
}

fn pay(shop: &Shop, crowd: &[(PlacedOrder, String)]) {
    for (_, reference) in crowd {
        shop.cluster.providers.succeed(reference).unwrap();
    }
}

/// How many attempts to deliver a webhook were answered so.
fn answered(shop: &Shop, status: u16) -> usize {
    let attempts = shop.cluster.providers.attempts();
    attempts.iter().filter(|attempt| attempt.outcome == Outcome::Answered(status)).count()
}
