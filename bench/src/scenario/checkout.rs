//! An ordinary busy day: many SKUs, a few lines an order.

use uuid::Uuid;

use super::{LONG_HOLD, PLENTY, visit};
use crate::{
    Outcome, Settings,
    ledger::{Ledger, examine},
    load::{Basket, Pace},
    report::Report,
    shop::{Shop, basket},
    statistics::{grouped, median},
};

const SKUS: usize = 1_000;
const BASKETS: usize = 2_048;

pub(crate) async fn run(settings: &Settings) -> Outcome<Report> {
    let mut shop = Shop::open(settings, LONG_HOLD).await?;
    let variants = shop.database.stock_skus(SKUS, PLENTY).await?;
    let baskets = baskets(&variants);
    let mut ledger = Ledger::new(&variants);
    let mut runs = Vec::new();
    for run in 1..=settings.runs {
        eprintln!("checkout: run {run} of {}", settings.runs);
        let tally = visit(settings, &shop, &baskets, Pace::Closed, 201).await?;
        ledger.add(&tally, &baskets);
        runs.push(tally.measured(settings.window));
    }
    shop.stop_processes().await?;

    let mut report = Report::new(format!(
        "checkout: {} clients, {SKUS} SKUs, 1 to 4 lines, {} runs of {} s, medians",
        settings.clients,
        settings.runs,
        settings.window.as_secs(),
    ));
    let accepted_per_s = median(runs.iter().map(|run| run.per_second));
    let p50_ms = median(runs.iter().map(|run| run.latencies.quantile_ms(500)));
    let p99_ms = median(runs.iter().map(|run| run.latencies.quantile_ms(990)));
    let rate = grouped(accepted_per_s);
    report.line(format!("{rate:>9} orders/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms"));
    report.figure("accepted_per_s", accepted_per_s);
    report.figure("p50_ms", p50_ms);
    report.figure("p99_ms", p99_ms);
    ledger.verify(&shop.database, &mut report).await?;
    ledger.verify_held(&shop.database, &mut report).await?;
    examine(&shop.database, &mut report).await?;
    shop.remove().await?;
    Ok(report)
}

/// Orders of 1 to 4 different SKUs, spread evenly and the same in every run.
fn baskets(variants: &[Uuid]) -> Vec<Basket> {
    (0..BASKETS)
        .map(|place| {
            // Steps of distinct primes never meet within four lines.
            let units: Vec<_> = (0..=place % 4)
                .map(|line| ((place * 7_919 + line * 211) % variants.len(), 1))
                .collect();
            basket(variants, &units)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn baskets_have_one_to_four_lines_of_different_skus() {
        let variants: Vec<_> = (0..SKUS).map(|_| Uuid::now_v7()).collect();

        let baskets = baskets(&variants);

        let sizes: HashSet<_> = baskets.iter().map(|basket| basket.units.len()).collect();
        assert_eq!(sizes, HashSet::from([1, 2, 3, 4]));
        let skus: HashSet<_> =
            baskets.iter().flat_map(|basket| &basket.units).map(|(sku, _)| *sku).collect();
        assert!(skus.len() > SKUS / 2);
        for basket in baskets {
            let distinct: HashSet<_> = basket.units.iter().map(|(sku, _)| *sku).collect();
            assert_eq!(distinct.len(), basket.units.len());
        }
    }
}
