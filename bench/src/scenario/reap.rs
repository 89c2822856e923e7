//! How soon after their deadline orders give their stock back, with the real reaper.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use uuid::Uuid;

use super::{PLENTY, one_unit, visit};
use crate::{
    Outcome, Settings,
    ceiling::Ceiling,
    database::{Database, Overdue},
    ledger::{Ledger, examine},
    load::Pace,
    report::Report,
    shop::Shop,
    statistics::Latencies,
};

/// The shortest hold that the processes accept.
const HOLD: Duration = Duration::from_secs(5);

/// A steady trickle: what is measured is how soon, not how much.
const ORDERS_PER_S: f64 = 200.0;

/// So many orders expire in one second.
const BURST: usize = 20_000;

/// Within this the burst is placed, on a slow machine too.
const BURST_LEAD_S: i64 = 20;

/// Whoever has not been released by then is not.
const RELEASE_WAIT_MAX: Duration = Duration::from_mins(1);

/// How exactly a release is observed.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(crate) async fn run(settings: &Settings) -> Outcome<Report> {
    let mut shop = Shop::open(settings, &format!("{}s", HOLD.as_secs())).await?;
    let variants = shop.database.stock_skus(2, PLENTY).await?;
    shop.start("reaper").await?;
    let mut report = Report::new(format!(
        "reap: API and reaper, {ORDERS_PER_S:.0} orders/s held for {} s, then {BURST} at once",
        HOLD.as_secs(),
    ));
    eprintln!("reap: steady orders");
    let ledger = steady(settings, &shop, variants[0], &mut report).await?;
    eprintln!("reap: the burst");
    burst(settings, &shop, variants[1], &mut report).await?;
    shop.stop_processes().await?;

    ledger.verify(&shop.database, &mut report).await?;
    let reserved: i64 =
        shop.database.stock(&variants).await?.iter().map(|stock| stock.reserved).sum();
    let waiting = shop.database.count_waiting().await?;
    if reserved != 0 || waiting != 0 {
        report.broken(format!("{reserved} units and {waiting} orders were never released"));
    }
    examine(&shop.database, &mut report).await?;
    shop.remove().await?;
    Ok(report)
}

/// Places orders steadily and watches each being released.
async fn steady(
    settings: &Settings,
    shop: &Shop,
    variant: Uuid,
    report: &mut Report,
) -> Outcome<Ledger> {
    let baskets = one_unit(variant);
    let mut ledger = Ledger::new(&[variant]);
    let pace = Pace::Open { per_second: ORDERS_PER_S };
    let (tally, looks) = tokio::try_join!(
        visit(settings, shop, &baskets, pace, 201),
        // The last order is placed at the end of the window.
        watch(&shop.database, settings.window + HOLD + Duration::from_secs(3)),
    )?;
    ledger.add(&tally, &baskets);

    let released = releases(&shop.database.deadlines().await?, &looks);
    let p99_ms = released.quantile_ms(990);
    report.line(format!(
        "released after the deadline: p50 {:.0} ms, p99 {p99_ms:.0} ms, at most {:.0} ms",
        released.quantile_ms(500),
        released.max_ms(),
    ));
    report.figure("p50_ms", released.quantile_ms(500));
    report.figure("p99_ms", p99_ms);
    report.figure("max_ms", released.max_ms());
    report.bar(format!("p99 {p99_ms:.0} ms after the deadline (below 2,000 ms)"), p99_ms < 2_000.0);
    Ok(ledger)
}

/// Places a burst of orders with one deadline and watches how long their release takes.
async fn burst(
    settings: &Settings,
    shop: &Shop,
    variant: Uuid,
    report: &mut Report,
) -> Outcome<()> {
    let mut use_case = Ceiling::new(settings, shop, HOLD).await?;
    let deadline_s = shop.database.now_ms().await? / 1_000 + BURST_LEAD_S;
    use_case.place_for(shop, variant, BURST, deadline_s).await?;
    use_case.close().await;
    let left_ms = u64::try_from(deadline_s * 1_000 - shop.database.now_ms().await?)?;
    let looks = watch(&shop.database, Duration::from_millis(left_ms + 1_000)).await?;

    let mut placed = shop.database.deadlines().await?;
    placed.retain(|placed| placed.deadline_s == deadline_s);
    let orders: i64 = placed.iter().map(|placed| placed.orders).sum();
    if orders != i64::try_from(BURST)? {
        report.broken(format!("{orders} orders of the burst share their deadline, not {BURST}"));
    }
    let released = releases(&placed, &looks);
    report.line(format!(
        "{BURST} holds of one second: half released after {:.0} ms, all after {:.0} ms",
        released.quantile_ms(500),
        released.max_ms(),
    ));
    report.figure("burst_half_ms", released.quantile_ms(500));
    report.figure("burst_all_ms", released.max_ms());
    Ok(())
}

/// Which orders were overdue at one moment, in milliseconds since 1970.
type Look = (i64, Vec<Overdue>);

/// Looks at what is overdue for at least so long, and then until nothing is.
async fn watch(database: &Database, at_least: Duration) -> Outcome<Vec<Look>> {
    let start = Instant::now();
    let mut looks = Vec::new();
    while start.elapsed() < at_least + RELEASE_WAIT_MAX {
        let look = database.overdue().await?;
        let is_over = look.1.is_empty() && start.elapsed() > at_least;
        looks.push(look);
        if is_over {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(looks)
}

/// How long after its deadline each order was seen to be released; the orders of one deadline that
/// vanished between two looks were seen at the second.
fn releases(deadlines: &[Overdue], looks: &[Look]) -> Latencies {
    let mut waiting: BTreeMap<i64, i64> =
        deadlines.iter().map(|deadline| (deadline.deadline_s, deadline.orders)).collect();
    let mut released = Vec::new();
    for (now_ms, overdue) in looks {
        for (deadline_s, left) in &mut waiting {
            let Ok(late_ms) = u32::try_from(now_ms - deadline_s * 1_000) else { continue };
            let still = overdue
                .iter()
                .find(|overdue| overdue.deadline_s == *deadline_s)
                .map_or(0, |overdue| overdue.orders);
            let gone = usize::try_from(*left - still).unwrap_or(0);
            released.extend(std::iter::repeat_n(late_ms.saturating_mul(1_000), gone));
            *left = still;
        }
    }
    Latencies::new(released)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_released_at_the_first_look_that_misses_it() {
        let overdue = |orders| vec![Overdue { deadline_s: 10, orders }];
        let looks = [
            (9_990, Vec::new()),
            (10_100, overdue(4)),
            (10_200, overdue(1)),
            (10_300, Vec::new()),
            (10_400, Vec::new()),
        ];

        let released = releases(&overdue(4), &looks);

        assert_eq!(released.quantile_ms(750).to_bits(), 200_f64.to_bits());
        assert_eq!(released.max_ms().to_bits(), 300_f64.to_bits());
    }

    #[test]
    fn an_order_that_no_look_finds_overdue_was_released_at_once() {
        let deadline = [Overdue { deadline_s: 10, orders: 2 }];

        let released = releases(&deadline, &[(9_999, Vec::new()), (10_004, Vec::new())]);

        assert_eq!(released.max_ms().to_bits(), 4_f64.to_bits());
    }
}
