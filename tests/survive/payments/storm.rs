//! Everything at once: providers that fail, webhooks that go astray, processes that die, and shoppers
//! who change their minds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rand::{
    RngExt,
    seq::{IndexedRandom, SliceRandom},
};
use simulator::providers::{Act, Delivery, Fault, Provider, Providers, RandomFaults};
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{PROVIDERS, TILL};
use crate::{
    client::{Client, Intention, Variant},
    cluster::{Plan, Role},
    ledger::{Answer, PaymentAnswer, PlacedOrder, ToldPayment, Wish},
    process::{env, eventually},
    shop::{Shop, age, survive},
};

/// How long the storm lasts if nobody says otherwise.
const STORM: Duration = Duration::from_secs(30);

/// More than two cores can serve without haste.
const SHOPPERS: usize = 16;

/// Long enough to open a payment; who is late lets time pass.
const HOLD: Duration = Duration::from_mins(2);

/// A second or two before the deadline, if one was quick.
const ALMOST_HOLD: Duration = Duration::from_secs(HOLD.as_secs() - 2);

/// The share of a provider's calls that fail.
const FAILING: f64 = 0.3;

/// How many orders are placed between two blows.
const BLOW_EVERY: usize = 12;

/// How much there is of what everybody wants, and of what nobody can buy up.
const SCARCE: i64 = 8;
const PLENTY: i64 = 1_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_over_shop_and_providers_charges_nobody_twice_and_loses_no_money() {
    let storm = env("STORM_SECONDS").map_or(STORM, |seconds| {
        Duration::from_secs(seconds.parse().expect("STORM_SECONDS is a number of seconds"))
    });
    let plan = Plan { webhooks: 2, hold: HOLD, ..TILL };
    survive(plan, async |shop| {
        let seed = rand::random();
        println!("{storm:?} of storm, seed {seed}");
        let plenty = [shop.stock(PLENTY).await, shop.stock(PLENTY).await];
        let shelf = Shelf { plenty, scarce: Arc::new(Mutex::new(shop.stock(SCARCE).await)) };
        let faults = RandomFaults { rate: FAILING, seed, faults: Fault::ANY.to_vec() };
        shop.cluster.providers.fail_at_random(Some(faults));
        let calm = CancellationToken::new();
        let mut shoppers = JoinSet::new();
        for _ in 0..SHOPPERS {
            let shopper = Shopper::new(shop, &shelf);
            shoppers.spawn(shopper.goes_shopping(calm.clone()));
        }

        let begun = Instant::now();
        let mut kills = 0;
        while begun.elapsed() < storm {
            shelf.put_out(shop.stock(SCARCE).await);
            for provider in PROVIDERS {
                shop.cluster.providers.set_delivery(provider, some_delivery());
            }
            strike(shop).await;
            kills += 1;
        }
        calm.cancel();
        while let Some(shopper) = shoppers.join_next().await {
            shopper.unwrap();
        }

        println!("{kills} kills in {:?}", begun.elapsed());
        let lost = the_storm_ends(shop).await;
        println!("{lost} events were lost at first");
        tell(shop).await;
        nothing_is_oversold(shop).await;
    })
    .await;
}

/// What is on sale.
#[derive(Clone)]
struct Shelf {
    plenty: [Variant; 2],
    /// The latest of what everybody wants.
    scarce: Arc<Mutex<Variant>>,
}

impl Shelf {
    fn put_out(&self, scarce: Variant) {
        *self.scarce.lock().unwrap_or_else(PoisonError::into_inner) = scarce;
    }

    /// One or two variants in any order, a unit or two of each.
    fn some(&self) -> Vec<(Variant, i64)> {
        let mut rng = rand::rng();
        let scarce = *self.scarce.lock().unwrap_or_else(PoisonError::into_inner);
        let mut variants = vec![self.plenty[0], self.plenty[1], scarce];
        variants.shuffle(&mut rng);
        variants.truncate(rng.random_range(1..=2));
        variants.into_iter().map(|variant| (variant, rng.random_range(1..=2))).collect()
    }
}

/// A way for webhooks to go astray.
fn some_delivery() -> Delivery {
    let (rate, seed) = (FAILING, rand::random());
    let ways = [
        Delivery::Normal,
        Delivery::LostAtRandom { rate, seed },
        Delivery::Tripled,
        Delivery::Reordered,
        Delivery::Delayed(700),
    ];
    ways.choose(&mut rand::rng()).expect("there are some").clone()
}

/// Kills a process and starts it again when the shop has gone on without it for a while.
async fn strike(shop: &mut Shop) {
    let roles = [Role::Api, Role::Webhooks, Role::Webhooks, Role::Reaper];
    let role = *roles.choose(&mut rand::rng()).expect("there are some");
    let place = rand::random_range(0..shop.cluster.of(role).len());
    shop.until_placed(BLOW_EVERY).await;
    shop.cluster.of(role)[place].kill9().await;
    shop.until_placed(BLOW_EVERY).await;
    shop.cluster.revive(role, place).await;
}

/// Ends every fault, tells again what was lost, and lets the last deadlines pass. Returns how many
/// events had been lost.
async fn the_storm_ends(shop: &Shop) -> usize {
    let providers = &shop.cluster.providers;
    providers.clear_faults();
    for provider in PROVIDERS {
        providers.set_delivery(provider, Delivery::Normal);
    }
    let lost = shop.unheard();
    for event in &lost {
        assert!(providers.redeliver(event), "{event} is forgotten");
    }
    // The leases of the dead; of mails nobody died.
    sqlx::query(
        "
        UPDATE job_ledger
        SET lease_until = now(), next_push_at = now()
        WHERE state = 'ready' AND lane <> 'mail' AND lease_until > now()
        ",
    )
    .execute(shop.db())
    .await
    .unwrap();
    shop.all_work_ends().await;
    // Whoever never paid, and whoever's payment never ended.
    shop.age_orders(Duration::from_hours(2)).await;
    shop.all_work_ends().await;
    eventually("no attempt is left open", Duration::from_secs(30), async || {
        let open = "
            SELECT count(*)
            FROM payments
            WHERE state NOT IN ('captured', 'cancelled', 'rejected')";
        (shop.count(open).await == 0).then_some(())
    })
    .await;
    lost.len()
}

/// Figures, for people to read.
async fn tell(shop: &Shop) {
    let counted: Vec<(String, i64)> = sqlx::query_as(
        "
        SELECT 'orders ' || status, count(*) FROM orders GROUP BY 1
        UNION ALL SELECT 'payments ' || provider || ' ' || state, count(*) FROM payments GROUP BY 1
        UNION ALL SELECT concat_ws(' ', 'captures', fate, reason), count(*) FROM captures GROUP BY 1
        UNION ALL SELECT 'events ' || state, count(*) FROM provider_events GROUP BY 1
        UNION ALL SELECT concat_ws(' ', 'jobs', kind, state, 'with up to', max(attempts), 'attempts'), count(*)
            FROM job_ledger GROUP BY kind, state
        UNION ALL SELECT 'holds taken over', count(*) FROM stock_ledger WHERE cause = 'hold_taken'
        ORDER BY 1
        ",
    )
    .fetch_all(shop.db())
    .await
    .unwrap();
    for (what, count) in counted {
        println!("{count} {what}");
    }
    println!("payments: {}", shop.ledger.payment_summary());
    let providers = &shop.cluster.providers;
    println!("{} events, {} deliveries", providers.events().len(), providers.attempts().len());
}

/// No variant was sold more often than it was had.
async fn nothing_is_oversold(shop: &Shop) {
    let oversold = "
        SELECT count(*)
        FROM (
            SELECT variant_id, sum(quantity) AS units
            FROM order_lines
            JOIN orders ON orders.id = order_lines.order_id
            WHERE status = 'paid'
            GROUP BY variant_id
        ) AS sold
        JOIN (
            SELECT variant_id, sum(quantity) AS units
            FROM stock_ledger
            WHERE cause = 'receipt'
            GROUP BY variant_id
        ) AS received USING (variant_id)
        WHERE sold.units > received.units";
    assert_eq!(shop.count(oversold).await, 0);
    let sold_out = "SELECT count(*) FROM stock WHERE on_hand = 0";
    println!("{} variants are sold to the last unit", shop.count(sold_out).await);
}

/// One of the crowd.
struct Shopper {
    client: Client,
    providers: Arc<Providers>,
    db: PgPool,
    shelf: Shelf,
}

/// What came of opening a payment: it, and the provider's name for it.
type Opened = (ToldPayment, String);

impl Shopper {
    fn new(shop: &Shop, shelf: &Shelf) -> Self {
        Self {
            client: shop.client(),
            providers: Arc::clone(&shop.cluster.providers),
            db: shop.db().clone(),
            shelf: shelf.clone(),
        }
    }

    async fn goes_shopping(self, calm: CancellationToken) {
        while !calm.is_cancelled() {
            let wish = self.client.wish(&self.shelf.some());
            if let Answer::Placed(order) = self.client.order(&wish).await {
                self.makes_up_their_mind(&wish, &order).await;
            }
            // Even the keenest shopper needs a moment for the next click.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn makes_up_their_mind(&self, wish: &Wish, order: &PlacedOrder) {
        let (one, other) = two_providers();
        match rand::random_range(0..10) {
            0..3 => self.pays(wish, order, one).await,
            3 => self.is_declined_and_pays(wish, order, one).await,
            4 | 5 => self.pays_late(wish, order, one).await,
            6 => self.pays_twice(wish, order, one, other).await,
            7 => self.cancels_while_paying(wish, order, one).await,
            8 => self.waits_for_the_bank(wish, order, one).await,
            _ => self.forgets(wish, order, one).await,
        }
    }

    async fn pays(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) {
        let Some((payment, reference)) = self.opens(wish, order, provider).await else { return };
        let acted = self.providers.succeed(&reference);
        // Some browsers are closed before they come back.
        if let Ok(acted) = acted
            && rand::random()
        {
            self.client.confirm(wish, payment.id, acted.checkout.as_ref()).await;
        }
    }

    async fn is_declined_and_pays(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) {
        let Some((payment, reference)) = self.opens(wish, order, provider).await else { return };
        let _ = self.providers.decline(&reference, "insufficient_funds");
        self.client.confirm(wish, payment.id, None).await;
        let _ = self.providers.succeed(&reference);
    }

    /// Pays around the deadline, or after it.
    async fn pays_late(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) {
        let Some((payment, reference)) = self.opens(wish, order, provider).await else { return };
        age(&self.db, Some(order.id), ALMOST_HOLD + Duration::from_secs(rand::random_range(0..3)))
            .await;
        let act = Act::SucceedAfterMs(rand::random_range(0..3_000));
        let _ = self.providers.act(&reference, &act);
        self.client.confirm(wish, payment.id, None).await;
    }

    async fn pays_twice(&self, wish: &Wish, order: &PlacedOrder, one: Provider, other: Provider) {
        let first = self.opens(wish, order, one).await;
        let second = self.opens(wish, order, other).await;
        for (_, reference) in [second, first].into_iter().flatten() {
            let _ = self.providers.succeed(&reference);
        }
    }

    async fn cancels_while_paying(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) {
        let Some((_, reference)) = self.opens(wish, order, provider).await else { return };
        let act = Act::SucceedAfterMs(rand::random_range(0..100));
        let _ = self.providers.act(&reference, &act);
        self.client.cancel(wish, order).await;
    }

    /// Pays in a way that takes its time, and may fail in the end.
    async fn waits_for_the_bank(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) {
        let Some((payment, reference)) = self.opens(wish, order, provider).await else { return };
        let _ = self.providers.act(&reference, &Act::Process);
        self.client.confirm(wish, payment.id, None).await;
        let _ = if rand::random() {
            self.providers.succeed(&reference)
        } else {
            self.providers.decline(&reference, "generic_decline")
        };
    }

    /// Leaves before paying, perhaps while the payment is being opened.
    async fn forgets(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) {
        self.client.ask_to_pay(wish, &Intention::new(order, provider)).await;
        age(&self.db, Some(order.id), HOLD).await;
    }

    /// Opens a payment; `None` where the shopper cannot pay, for whatever reason the shop gives.
    async fn opens(&self, wish: &Wish, order: &PlacedOrder, provider: Provider) -> Option<Opened> {
        let answer = self.client.open_payment(wish, &Intention::new(order, provider)).await;
        let PaymentAnswer::Told(payment) = answer else { return None };
        let reference = payment.reference.clone()?;
        Some((payment, reference))
    }
}

fn two_providers() -> (Provider, Provider) {
    let [one, other] = PROVIDERS;
    if rand::random() { (one, other) } else { (other, one) }
}
