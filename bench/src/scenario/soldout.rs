//! Sold out: everybody still asks for the SKU of which every unit is held.

use super::{LONG_HOLD, PLENTY, one_unit, visit};
use crate::{
    Outcome, Settings,
    ledger::{Ledger, examine},
    load::Pace,
    report::Report,
    shop::Shop,
    statistics::{grouped, median, ratio},
};

/// So few that the first moment of the warm-up sells them.
const UNITS: i64 = 500;

/// Measures how fast refusals are, and how that compares with orders.
pub(crate) async fn run(settings: &Settings) -> Outcome<Report> {
    let mut shop = Shop::open(settings, LONG_HOLD).await?;
    let plenty = shop.database.stock_skus(1, PLENTY).await?;
    let few = shop.database.stock_skus(1, UNITS).await?;
    let (sale, rush) = (one_unit(plenty[0]), one_unit(few[0]));
    let (mut sold, mut refused) = (Ledger::new(&plenty), Ledger::new(&few));
    let (mut orders, mut refusals) = (Vec::new(), Vec::new());
    for run in 1..=settings.runs {
        eprintln!("soldout: run {run} of {}", settings.runs);
        let tally = visit(settings, &shop, &sale, Pace::Closed, 201).await?;
        sold.add(&tally, &sale);
        orders.push(tally.measured(settings.window));

        let tally = visit(settings, &shop, &rush, Pace::Closed, 409).await?;
        refused.add(&tally, &rush);
        refusals.push(tally.measured(settings.window));
    }
    shop.stop_processes().await?;

    let mut report = Report::new(format!(
        "soldout: {} clients, one SKU with nothing left, {} runs of {} s, medians",
        settings.clients,
        settings.runs,
        settings.window.as_secs(),
    ));
    let accepted_per_s = median(orders.iter().map(|run| run.per_second));
    let refused_per_s = median(refusals.iter().map(|run| run.per_second));
    let p99_ms = median(refusals.iter().map(|run| run.latencies.quantile_ms(990)));
    let times = ratio(refused_per_s, accepted_per_s);
    report.line(format!("{:>9} refusals/s, p99 {p99_ms:.1} ms", grouped(refused_per_s)));
    report.line(format!("{:>9} orders/s of the SKU that is in stock", grouped(accepted_per_s)));
    report.figure("refused_per_s", refused_per_s);
    report.figure("accepted_per_s", accepted_per_s);
    report.figure("ratio_to_accepted", times);
    report.figure("p99_ms", p99_ms);
    report.bar(format!("{times:.1} x as many refusals as orders (3 x)"), times >= 3.0);
    for ledger in [&sold, &refused] {
        ledger.verify(&shop.database, &mut report).await?;
        ledger.verify_held(&shop.database, &mut report).await?;
    }
    examine(&shop.database, &mut report).await?;
    shop.remove().await?;
    Ok(report)
}
