//! What a shopper waits at half the peak, whether the answers before were quick or not.

use super::{LONG_HOLD, PLENTY, one_unit, visit};
use crate::{
    Outcome, Settings,
    ledger::{Ledger, examine},
    load::Pace,
    report::Report,
    shop::Shop,
    statistics::{grouped, median},
};

/// Measures latency at half of the `peak` rate, which is measured first where it is not known.
pub(crate) async fn run(settings: &Settings, peak: Option<f64>) -> Outcome<Report> {
    let mut shop = Shop::open(settings, LONG_HOLD).await?;
    let variants = shop.database.stock_skus(1, PLENTY).await?;
    let baskets = one_unit(variants[0]);
    let mut ledger = Ledger::new(&variants);
    let peak = if let Some(peak) = peak {
        peak
    } else {
        eprintln!("latency: the peak");
        let tally = visit(settings, &shop, &baskets, Pace::Closed, 201).await?;
        ledger.add(&tally, &baskets);
        tally.measured(settings.window).per_second
    };
    let rate = peak / 2.0;
    if rate < 1.0 {
        return Err("the peak is too low to halve".into());
    }
    let mut runs = Vec::new();
    for run in 1..=settings.runs {
        eprintln!("latency: run {run} of {}", settings.runs);
        let pace = Pace::Open { per_second: rate };
        let tally = visit(settings, &shop, &baskets, pace, 201).await?;
        ledger.add(&tally, &baskets);
        runs.push(tally.measured(settings.window));
    }
    shop.stop_processes().await?;

    let mut report = Report::new(format!(
        "latency: {} orders/s, half the peak, over {} connections, {} runs of {} s, medians",
        grouped(rate),
        settings.clients,
        settings.runs,
        settings.window.as_secs(),
    ));
    let quantile = |per_mille| median(runs.iter().map(|run| run.latencies.quantile_ms(per_mille)));
    let (p50_ms, p99_ms, tail_ms) = (quantile(500), quantile(990), quantile(999));
    let reached = median(runs.iter().map(|run| run.per_second));
    report.line(format!("p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, p99.9 {tail_ms:.1} ms"));
    report.line(format!("{} orders/s were answered", grouped(reached)));
    report.figure("peak_per_s", peak);
    report.figure("rate_per_s", rate);
    report.figure("accepted_per_s", reached);
    report.figure("p50_ms", p50_ms);
    report.figure("p99_ms", p99_ms);
    report.figure("p999_ms", tail_ms);
    report.bar(format!("p99 {p99_ms:.1} ms (below 30 ms)"), p99_ms < 30.0);
    ledger.verify(&shop.database, &mut report).await?;
    ledger.verify_held(&shop.database, &mut report).await?;
    examine(&shop.database, &mut report).await?;
    shop.remove().await?;
    Ok(report)
}
