//! A flash sale: everybody wants the one SKU, and there is enough of it.

use std::time::Duration;

use uuid::Uuid;

use super::{LONG_HOLD, PLENTY, one_unit, visit};
use crate::{
    Outcome, Settings,
    ceiling::Ceiling,
    database::{Database, Footprint},
    ledger::{Ledger, examine},
    load::{Measured, Pace},
    reference,
    report::Report,
    shop::Shop,
    statistics::{grouped, median, ratio},
};

/// [`LONG_HOLD`] for the use case that is called in-process.
const HOLD: Duration = Duration::from_mins(15);

/// Moments are written with as many digits as they have, so the rows of two contestants differ by a
/// few characters in a thousand.
const SIZE_TOLERANCE: f64 = 0.01;

/// The phases of one contestant.
#[derive(Debug, Default)]
struct Phases(Vec<Measured>);

impl Phases {
    fn per_second(&self) -> f64 {
        median(self.0.iter().map(|phase| phase.per_second))
    }

    fn quantile_ms(&self, per_mille: usize) -> f64 {
        median(self.0.iter().map(|phase| phase.latencies.quantile_ms(per_mille)))
    }

    fn row(&self, name: &str) -> String {
        let runs: Vec<_> = self.0.iter().map(|phase| grouped(phase.per_second)).collect();
        format!(
            "{name:<32} {:>9} {:>8.1} {:>8.1}   {}",
            grouped(self.per_second()),
            self.quantile_ms(500),
            self.quantile_ms(990),
            runs.join(" "),
        )
    }
}

/// The three ways to place the same orders, each with a SKU of its own.
struct Contest {
    api: Uuid,
    reference: Uuid,
    ceiling: Uuid,
}

/// Measures the API's flash sale against both references, in turn; returns the API's rate, too.
pub(crate) async fn run(settings: &Settings) -> Outcome<(Report, f64)> {
    let mut shop = Shop::open(settings, LONG_HOLD).await?;
    let variants = shop.database.stock_skus(3, PLENTY).await?;
    let contest = Contest { api: variants[0], reference: variants[1], ceiling: variants[2] };
    let server = shop.database.server().await?;
    let mut report = Report::new(format!(
        "flash: {} clients, one SKU, {} runs of {} s, medians (PostgreSQL {}, {})",
        settings.clients,
        settings.runs,
        settings.window.as_secs(),
        server.version.split(' ').next().unwrap_or_default(),
        if server.is_durable { "commits on disk" } else { "COMMITS NOT ON DISK" },
    ));
    report.fact("postgres", server.version);
    report.fact("durable", server.is_durable);

    let peak = race(settings, &shop, &contest, &mut report).await?;
    shop.stop_processes().await?;
    compare_rows(&shop.database, &contest, &mut report).await?;
    examine(&shop.database, &mut report).await?;
    shop.remove().await?;
    Ok((report, peak))
}

/// Runs the three in turn, so that a change of the machine's mood meets all of them.
async fn race(
    settings: &Settings,
    shop: &Shop,
    contest: &Contest,
    report: &mut Report,
) -> Outcome<f64> {
    let (mut api, mut reference, mut ceiling) =
        (Phases::default(), Phases::default(), Phases::default());
    let (mut by_reference, mut by_ceiling) = (0, 0);
    let baskets = one_unit(contest.api);
    let mut ledger = Ledger::new(&[contest.api]);
    let pool = shop.database.connect(reference::CONNECTIONS).await?;
    let use_case = Ceiling::new(settings, shop, HOLD).await?;
    for run in 1..=settings.runs {
        eprintln!("flash: run {run} of {}", settings.runs);
        let tally = visit(settings, shop, &baskets, Pace::Closed, 201).await?;
        ledger.add(&tally, &baskets);
        api.0.push(tally.measured(settings.window));

        shop.database.settle().await;
        let placed = reference::run(&pool, contest.reference, settings.window).await?;
        by_reference += placed.orders;
        reference.0.push(placed.measured);

        shop.database.settle().await;
        let placed = use_case.run(contest.ceiling, settings.window).await?;
        by_ceiling += placed.orders;
        ceiling.0.push(placed.measured);
    }
    pool.close().await;
    use_case.close().await;

    tell(&api, &reference, &ceiling, report);
    ledger.verify(&shop.database, report).await?;
    ledger.verify_held(&shop.database, report).await?;
    for (name, variant, placed) in
        [("reference", contest.reference, by_reference), ("ceiling", contest.ceiling, by_ceiling)]
    {
        let existing = shop.database.count_orders(&[variant]).await?;
        if existing != placed {
            report.broken(format!("the {name} placed {placed} orders, {existing} exist"));
        }
    }
    Ok(api.per_second())
}

fn tell(api: &Phases, reference: &Phases, ceiling: &Phases, report: &mut Report) {
    report.line(format!(
        "{:<32} {:>9} {:>8} {:>8}   orders/s of each run",
        "", "orders/s", "p50 ms", "p99 ms",
    ));
    report.line(api.row("the API over HTTP"));
    report.line(reference.row("reference: one transaction each"));
    report.line(ceiling.row("ceiling: full slices, in-process"));
    let to_reference = ratio(api.per_second(), reference.per_second());
    let to_ceiling = ratio(api.per_second(), ceiling.per_second());
    report.figure("accepted_per_s", api.per_second());
    report.figure("reference_per_s", reference.per_second());
    report.figure("ceiling_per_s", ceiling.per_second());
    report.figure("ratio_to_reference", to_reference);
    report.figure("ratio_to_ceiling", to_ceiling);
    report.figure("p50_ms", api.quantile_ms(500));
    report.figure("p99_ms", api.quantile_ms(990));
    report.bar(format!("{to_reference:.1} x the reference (8 x)"), to_reference >= 8.0);
    report.bar(format!("{:.0} % of the ceiling (40 %)", 100.0 * to_ceiling), to_ceiling >= 0.4);
}

/// Makes sure that the contestants did the same work: as many rows an order, of the same size.
async fn compare_rows(database: &Database, contest: &Contest, report: &mut Report) -> Outcome<()> {
    let api = database.footprints(contest.api).await?;
    let mut are_equal = true;
    for (name, variant) in [("reference", contest.reference), ("ceiling", contest.ceiling)] {
        let other = database.footprints(variant).await?;
        if let Some(difference) = difference(&api, &other) {
            are_equal = false;
            report.broken(format!("the {name} writes other rows than the API: {difference}"));
        }
    }
    report.fact("rows_equal", are_equal);
    if are_equal {
        let (rows, size) = per_order(&api);
        report.line(format!(
            "each order is {rows:.0} rows in {} tables, {size:.0} characters, whoever wrote it",
            api.len(),
        ));
    }
    Ok(())
}

/// The table in which an order of one contestant leaves more, or larger, rows than one of the other.
fn difference(one: &[Footprint], other: &[Footprint]) -> Option<String> {
    let orders = |all: &[Footprint]| all.iter().find(|part| part.table == "orders").cloned();
    let (one_orders, other_orders) = (orders(one)?, orders(other)?);
    if one.len() != other.len() {
        return Some("rows in another number of tables".to_owned());
    }
    one.iter().zip(other).find_map(|(one, other)| {
        let same_rows = one.rows * other_orders.rows == other.rows * one_orders.rows;
        let size = ratio(one.size as f64, one.rows as f64);
        let other_size = ratio(other.size as f64, other.rows as f64);
        let same_size = (size - other_size).abs() <= SIZE_TOLERANCE * size;
        (one.table != other.table || !same_rows || !same_size).then(|| {
            format!(
                "{}: {} rows of {other_size:.1} characters, not {size:.1}",
                other.table, other.rows
            )
        })
    })
}

/// How many rows and characters one order is.
fn per_order(footprints: &[Footprint]) -> (f64, f64) {
    let orders = footprints.iter().find(|part| part.table == "orders").map_or(0, |part| part.rows);
    let sum = |of: fn(&Footprint) -> i64| footprints.iter().map(of).sum::<i64>() as f64;
    (ratio(sum(|part| part.rows), orders as f64), ratio(sum(|part| part.size), orders as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint(table: &str, rows: i64, size: i64) -> Footprint {
        Footprint { table: table.to_owned(), rows, size }
    }

    #[test]
    fn contestants_are_compared_by_the_order() {
        let one = [footprint("holds", 10, 500), footprint("orders", 10, 2_000)];
        let twice = [footprint("holds", 20, 1_001), footprint("orders", 20, 4_000)];
        let too_few = [footprint("holds", 19, 950), footprint("orders", 20, 4_000)];
        let too_large = [footprint("holds", 20, 1_100), footprint("orders", 20, 4_000)];

        assert_eq!(difference(&one, &twice), None);
        assert!(difference(&one, &too_few).is_some());
        assert!(difference(&one, &too_large).is_some());
        assert!(difference(&one, &twice[1..]).is_some());
    }
}
