//! The benchmark: loads the real processes like a busy shop, compares them with what is the least
//! and the most to be expected, and makes sure that every promise was kept meanwhile.
//!
//! It fails when an order was lost, a unit sold twice or an invariant broken; never for speed.

#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    reason = "rates, ratios and latencies are statistics, not money"
)]

mod ceiling;
mod database;
mod http;
mod ledger;
mod load;
mod news;
mod process;
mod reference;
mod report;
mod scenario;
mod shop;
mod statistics;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    report::{Report, print},
    scenario::{checkout, flash, latency, overload, reap, soldout, webhooks},
};

/// A benchmark cannot mend what it meets: it says so and ends.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Parser)]
#[command(version, about = "Measures the shop's API and workers on this machine")]
struct Arguments {
    #[arg(value_enum, default_value = "all")]
    scenario: Scenario,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// How long each run is measured, after a second that is not.
    #[arg(long, default_value = "10", value_parser = value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// How many clients ask at once.
    #[arg(long, default_value = "256", value_parser = value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// How often each measurement is repeated; medians are told.
    #[arg(long, default_value = "3", value_parser = value_parser!(u8).range(1..=5))]
    runs: u8,
    /// A server on which the database `holdfast_bench` may be made anew.
    #[arg(long, env, hide_env_values = true)]
    database_url: String,
    #[arg(long, env, hide_env_values = true)]
    redis_url: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Everybody wants the one SKU, and there is enough of it.
    Flash,
    /// Everybody wants the one SKU, and nothing is left.
    Soldout,
    /// 1,000 SKUs, 1 to 4 lines an order.
    Checkout,
    /// Orders at half the peak rate, timed from when they were due.
    Latency,
    /// How soon after the deadline stock is released.
    Reap,
    /// Five times as much as can be done, of looks and orders: how much of it is done.
    Overload,
    /// A provider's news: how soon it is acknowledged, and how fast it is acted on.
    Webhooks,
    All,
}

/// What every scenario goes by.
#[derive(Debug, Clone)]
struct Settings {
    database_url: String,
    redis_url: String,
    clients: usize,
    window: Duration,
    runs: u8,
}

#[tokio::main]
async fn main() -> Outcome<ExitCode> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    // Whatever ends the run early drops it, and with it the processes it started.
    let reports = tokio::select! {
        reports = run(&arguments) => reports?,
        _ = tokio::signal::ctrl_c() => return Err("interrupted".into()),
        _ = terminate.recv() => return Err("told to stop".into()),
    };
    let is_well = reports.iter().all(|(_, report)| report.is_well());
    print(reports, arguments.json);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(arguments: &Arguments) -> Outcome<Vec<(&'static str, Report)>> {
    let settings = Settings {
        database_url: arguments.database_url.clone(),
        redis_url: arguments.redis_url.clone(),
        clients: arguments.clients.into(),
        window: Duration::from_secs(arguments.seconds),
        runs: arguments.runs,
    };
    let scenario = arguments.scenario;
    let wanted = |one| scenario == one || scenario == Scenario::All;
    let mut reports = Vec::new();
    let mut peak = None;
    if wanted(Scenario::Flash) {
        let (report, accepted_per_s) = flash::run(&settings).await?;
        peak = Some(accepted_per_s);
        reports.push(("flash", report));
    }
    if wanted(Scenario::Soldout) {
        reports.push(("soldout", soldout::run(&settings).await?));
    }
    if wanted(Scenario::Checkout) {
        reports.push(("checkout", checkout::run(&settings).await?));
    }
    if wanted(Scenario::Latency) {
        reports.push(("latency", latency::run(&settings, peak).await?));
    }
    if wanted(Scenario::Reap) {
        reports.push(("reap", reap::run(&settings).await?));
    }
    if wanted(Scenario::Overload) {
        reports.push(("overload", overload::run(&settings).await?));
    }
    if wanted(Scenario::Webhooks) {
        reports.push(("webhooks", webhooks::run(&settings).await?));
    }
    Ok(reports)
}
