//! A day in the life of the shop, in half a minute: what is asked about in minutes and hours is asked
//! about in seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use simulator::providers::{
    Capture, Delivery, Fault, Provider, Providers, RandomFaults, RefundState,
};
use sqlx::PgPool;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, Intention, Variant},
    cluster::{Origin, Plan},
    ledger::{Answer, PaymentAnswer, PlacedOrder, Wish},
    process::eventually,
    shop::{Shop, age, survive},
};

const DAY: Duration = Duration::from_secs(20);

const SHOPPERS: usize = 8;

const HOLD: Duration = Duration::from_mins(15);

const PROVIDERS: [Provider; 2] = [Provider::Stripe, Provider::Razorpay];

/// The share of a provider's calls that fail.
const FAILING: f64 = 0.3;

/// A few rounds of the reaper, each ten seconds after the last, and jobs in between.
const RECONCILED_WITHIN: Duration = Duration::from_mins(2);

/// Two reapers that must not be in each other's way.
const TILL: Plan = Plan { webhooks: 1, reapers: 2, hold: HOLD, ..Plan::DEFAULT };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_without_a_single_webhook_leaves_every_order_and_every_cent_in_its_place() {
    survive(TILL, async |shop| {
        for provider in PROVIDERS {
            shop.cluster.providers.set_delivery(provider, Delivery::Lost);
        }

        a_day(shop, async |_| {}).await;

        assert_eq!(shop.count("SELECT count(*) FROM provider_events").await, 0);
        let before = state_of(shop).await;
        // Now they all come, days late.
        the_webhooks_come(shop).await;
        assert_eq!(state_of(shop).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_failing_providers_and_a_forgetful_redis_refunds_nothing_twice() {
    let plan = Plan { redis: Origin::Own, ..TILL };
    survive(plan, async |shop| {
        let seed = rand::random();
        println!("seed {seed}");
        let faults = RandomFaults { rate: FAILING, seed, faults: Fault::ANY.to_vec() };
        shop.cluster.providers.fail_at_random(Some(faults));
        for provider in PROVIDERS {
            let delivery = Delivery::LostAtRandom { rate: FAILING, seed };
            shop.cluster.providers.set_delivery(provider, delivery);
        }

        a_day(shop, async |shop: &Shop| {
            let redis = redis::Client::open(shop.cluster.redis_url.as_str()).unwrap();
            let mut connection = redis.get_multiplexed_async_connection().await.unwrap();
            redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
        })
        .await;

        the_webhooks_come(shop).await;
    })
    .await;
}

/// Lets shoppers come and go, with a blow every few seconds, and waits until all is in order again.
async fn a_day(shop: &Shop, blow: impl AsyncFn(&Shop)) {
    shop.cluster.providers.set_capture(Capture::Automatic);
    let mug = shop.stock(100_000).await;
    let (evening, night) = (CancellationToken::new(), CancellationToken::new());
    let clock = tokio::spawn(time_flies(shop.db().clone(), night.clone()));
    let mut shoppers = JoinSet::new();
    for turn in 0..SHOPPERS {
        let shopper = Shopper {
            client: shop.client(),
            providers: Arc::clone(&shop.cluster.providers),
            db: shop.db().clone(),
            mug,
        };
        shoppers.spawn(shopper.goes_shopping(turn, evening.clone()));
    }
    let begun = Instant::now();
    while begun.elapsed() < DAY {
        tokio::time::sleep(Duration::from_secs(3)).await;
        blow(shop).await;
    }
    evening.cancel();
    while let Some(shopper) = shoppers.join_next().await {
        shopper.unwrap();
    }
    shop.cluster.providers.clear_faults();
    // Whoever never paid.
    shop.age_orders(Duration::from_hours(2)).await;
    all_is_in_its_place(shop).await;
    night.cancel();
    clock.await.unwrap();
}

/// Makes due what is due in minutes and hours.
async fn time_flies(db: PgPool, night: CancellationToken) {
    while !night.is_cancelled() {
        for table in [
            "UPDATE payments SET next_look_at = now() WHERE next_look_at > now() + interval '1 second'",
            "UPDATE refunds SET next_look_at = now() WHERE next_look_at > now() + interval '1 second'",
            "UPDATE job_ledger SET run_at = least(run_at, now()), next_push_at = now()
             WHERE state = 'ready' AND (lease_until IS NULL OR lease_until <= now())",
        ] {
            // A deadlock with the shop's own work: next time.
            let _ = sqlx::query(table).execute(&db).await;
        }
        let _ = tokio::time::timeout(Duration::from_secs(3), night.cancelled()).await;
    }
}

/// Waits until every attempt has its end and all money that nobody may keep is back.
async fn all_is_in_its_place(shop: &Shop) {
    eventually("all is in its place", RECONCILED_WITHIN, async || {
        let unfinished = "
            SELECT
                (SELECT count(*) FROM orders WHERE status = 'awaiting_payment')
                + (SELECT count(*) FROM payments WHERE state NOT IN ('captured', 'cancelled', 'rejected'))
                + (SELECT count(*) FROM refunds WHERE state IN ('requested', 'pending'))
                + (SELECT count(*) FROM job_ledger WHERE state = 'ready')";
        if shop.count(unfinished).await > 0 {
            return None;
        }
        // Money of attempts that nobody wanted any more is found last.
        (shop.cluster.providers.ledger().captures.len() == captures(shop).await).then_some(())
    })
    .await;
    let owed = "
        SELECT count(*)
        FROM captures
        JOIN orders ON orders.id = captures.order_id
        WHERE (fate = 'refund_due' OR status = 'cancelled')
            AND amount_minor <> (
                SELECT coalesce(sum(refunds.amount_minor), 0)
                FROM refunds
                WHERE refunds.capture_id = captures.id AND state = 'succeeded'
            )";
    assert_eq!(shop.count(owed).await, 0, "money is owed to shoppers");
    assert_eq!(shop.count("SELECT count(*) FROM findings WHERE closed_at IS NULL").await, 0);
    refunds_agree(shop).await;
}

async fn captures(shop: &Shop) -> usize {
    usize::try_from(shop.count("SELECT count(*) FROM captures").await).unwrap()
}

/// What went back according to the providers is what went back according to us, and no refund was made
/// for which nobody had a reason.
async fn refunds_agree(shop: &Shop) {
    let theirs: BTreeSet<_> = shop
        .cluster
        .providers
        .ledger()
        .refunds
        .into_iter()
        .filter(|refund| refund.state == RefundState::Succeeded)
        .map(|refund| (refund.provider_ref, refund.amount_minor))
        .collect();
    let ours: Vec<(String, i64)> =
        sqlx::query_as("SELECT provider_ref, amount_minor FROM refunds WHERE state = 'succeeded'")
            .fetch_all(shop.db())
            .await
            .unwrap();
    println!("{} refunds", ours.len());
    assert_eq!(theirs, ours.into_iter().collect());
    let adopted = "SELECT count(*) FROM refunds WHERE cause = 'provider'";
    assert_eq!(shop.count(adopted).await, 0, "made at the provider, and not known as ours");
    let failed = "SELECT count(*) FROM refunds WHERE state = 'failed'";
    assert_eq!(shop.count(failed).await, 0);
}

/// Sends every webhook that was lost.
async fn the_webhooks_come(shop: &Shop) {
    let providers = &shop.cluster.providers;
    for provider in PROVIDERS {
        providers.set_delivery(provider, Delivery::Normal);
    }
    let lost = shop.unheard();
    println!("{} of {} events were lost", lost.len(), providers.events().len());
    for event in &lost {
        assert!(providers.redeliver(event), "{event} is forgotten");
    }
    shop.all_work_ends().await;
    refunds_agree(shop).await;
}

/// How many orders, attempts, captures and refunds stand where.
async fn state_of(shop: &Shop) -> BTreeMap<String, i64> {
    let counted: Vec<(String, i64)> = sqlx::query_as(
        "
        SELECT 'orders ' || status, count(*) FROM orders GROUP BY 1
        UNION ALL SELECT 'payments ' || provider || ' ' || state, count(*) FROM payments GROUP BY 1
        UNION ALL SELECT concat_ws(' ', 'captures', fate, reason), count(*) FROM captures GROUP BY 1
        UNION ALL SELECT concat_ws(' ', 'refunds', provider, cause, state), count(*) FROM refunds GROUP BY 1
        UNION ALL SELECT 'on hand', sum(on_hand)::bigint FROM stock
        ",
    )
    .fetch_all(shop.db())
    .await
    .unwrap();
    println!("{counted:?}");
    counted.into_iter().collect()
}

/// One of the crowd; they close the browser at the provider's, and none comes back to the shop's page.
struct Shopper {
    client: Client,
    providers: Arc<Providers>,
    db: PgPool,
    mug: Variant,
}

impl Shopper {
    async fn goes_shopping(self, turn: usize, evening: CancellationToken) {
        let mut visits = turn;
        while !evening.is_cancelled() {
            let wish = self.client.wish(&[(self.mug, 1)]);
            if let Answer::Placed(order) = self.client.order(&wish).await {
                self.visits(visits, &wish, &order).await;
            }
            visits += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn visits(&self, visit: usize, wish: &Wish, order: &PlacedOrder) {
        let (one, other) = if visit.is_multiple_of(2) {
            (Provider::Stripe, Provider::Razorpay)
        } else {
            (Provider::Razorpay, Provider::Stripe)
        };
        match visit / 2 % 6 {
            0 => self.pays(wish, order, one).await,
            1 => {
                self.pays(wish, order, one).await;
                age(&self.db, Some(order.id), HOLD).await;
            }
            2 => {
                // Two tabs.
                let first = self.opens(wish, order, one).await;
                let second = self.opens(wish, order, other).await;
                for reference in [second, first].into_iter().flatten() {
                    let _ = self.providers.succeed(&reference);
                }
            }
            3 => {
                self.pays(wish, order, one).await;
                self.client.cancel(wish, order).await;
            }
            4 => {
                let reference = self.opens(wish, order, one).await;
                self.client.cancel(wish, order).await;
                if let Some(reference) = reference {
                    let _ = self.providers.succeed(&reference);
                }
            }
            _ => {
                self.opens(wish, order, one).await;
            }
        }
    }

    async fn pays(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) {
        if let Some(reference) = self.opens(wish, order, provider).await {
            let _ = self.providers.succeed(&reference);
        }
    }

    /// Opens a payment; `None` where the shopper cannot pay, for whatever reason the shop gives.
    async fn opens(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) -> Option<String> {
        let answer = self.client.open_payment(wish, &Intention::new(order, provider)).await;
        let PaymentAnswer::Told(payment) = answer else { return None };
        payment.reference
    }
}
