//! A provider that has news of many payments at once.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use uuid::Uuid;

use super::{LONG_HOLD, PLENTY};
use crate::{
    Outcome, Settings,
    ceiling::Ceiling,
    database::{Database, Waits},
    ledger::examine,
    load::{self, Callers, Measured, Pace, Plan, Tally, WARM_UP},
    news::News,
    reference,
    report::Report,
    shop::{Shop, WEBHOOK_SECRET},
    statistics::{grouped, median, per_second, ratio},
};

/// [`LONG_HOLD`] for the use case that is called in-process.
const HOLD: Duration = Duration::from_mins(15);

const SKUS: usize = 1_000;

/// What the bar is about: far more than a shop's provider ever sends.
const EVENTS_PER_S: u32 = 1_000;

/// So many webhooks wait when the processes that act on them are started.
const BACKLOG: usize = 5_000;

/// How many connections bring a backlog: as many as share it evenly.
const BACKLOG_CONNECTIONS: usize = 50;

/// The payments of the closed loop, which are told about again and again.
const REPEATED: usize = 1_000;

/// Whoever has not acted on its backlog by then never will.
const SETTLE_WAIT_MAX: Duration = Duration::from_mins(2);

/// How exactly settling is observed.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the runs of the scenario yielded.
#[derive(Debug, Default)]
struct Runs {
    steady: Vec<Measured>,
    waits: Vec<Waits>,
    settled_by_one: Vec<f64>,
    settled_by_three: Vec<f64>,
    most: Vec<f64>,
    reference: Vec<f64>,
}

pub(crate) async fn run(settings: &Settings) -> Outcome<Report> {
    let mut shop = Shop::open(settings, LONG_HOLD).await?;
    let variants = shop.database.stock_skus(SKUS, PLENTY).await?;
    shop.start("reaper").await?;
    let mut provider = Provider::new(settings, &shop, variants).await?;
    let mut runs = Runs::default();
    for run in 1..=settings.runs {
        eprintln!("webhooks: run {run} of {}", settings.runs);
        steady(settings, &mut shop, &mut provider, &mut runs).await?;
        runs.settled_by_one.push(backlog(&mut shop, &mut provider, 1).await?);
        runs.settled_by_three.push(backlog(&mut shop, &mut provider, 3).await?);
    }
    let mut report = Report::new(format!(
        "webhooks: {EVENTS_PER_S} events/s over {} connections, {} runs of {} s, medians",
        settings.clients,
        settings.runs,
        settings.window.as_secs(),
    ));
    // Nobody acts on what comes from now on, and nobody is to be woken for it: the doctor, who would
    // wonder, comes before.
    shop.stop("reaper").await?;
    examine(&shop.database, &mut report).await?;
    for run in 1..=settings.runs {
        eprintln!("webhooks: race {run} of {}", settings.runs);
        race(settings, &shop, &mut provider, &mut runs).await?;
    }
    shop.stop_processes().await?;

    runs.tell(&mut report);
    provider.verify(&shop, &mut report).await?;
    shop.remove().await?;
    Ok(report)
}

impl Runs {
    fn tell(&self, report: &mut Report) {
        let quantile = |rank| median(self.steady.iter().map(|run| run.latencies.quantile_ms(rank)));
        let (p50_ms, p99_ms, tail_ms) = (quantile(500), quantile(990), quantile(999));
        let acknowledged = median(self.steady.iter().map(|run| run.per_second));
        report.line(format!(
            "{} acknowledged/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, p99.9 {tail_ms:.1} ms",
            grouped(acknowledged),
        ));
        report.figure("acknowledged_per_s", acknowledged);
        report.figure("p50_ms", p50_ms);
        report.figure("p99_ms", p99_ms);
        report.figure("p999_ms", tail_ms);

        let half_ms = median(self.waits.iter().map(|waits| waits.p50_ms));
        let most_ms = median(self.waits.iter().map(|waits| waits.p99_ms));
        report.line(format!("paid after the webhook: p50 {half_ms:.0} ms, p99 {most_ms:.0} ms"));
        report.figure("paid_p50_ms", half_ms);
        report.figure("paid_p99_ms", most_ms);

        let (one, three) =
            (median(self.settled_by_one.clone()), median(self.settled_by_three.clone()));
        report.line(format!(
            "{BACKLOG} that waited: {}/s settled by one process, {}/s by three",
            grouped(one),
            grouped(three),
        ));
        report.figure("settled_per_s_by_one", one);
        report.figure("settled_per_s_by_three", three);

        let (most, reference) = (median(self.most.clone()), median(self.reference.clone()));
        let times = ratio(most, reference);
        report.line(format!(
            "at most {} acknowledged/s, {times:.1} x the reference's {}/s",
            grouped(most),
            grouped(reference),
        ));
        report.figure("max_per_s", most);
        report.figure("reference_per_s", reference);
        report.figure("ratio_to_reference", times);
        report.bar(
            format!("p99 {p99_ms:.1} ms at {EVENTS_PER_S} events/s (below 50 ms)"),
            p99_ms < 50.0,
        );
    }
}

/// The provider, with what it was told and what it collected.
struct Provider {
    use_case: Ceiling,
    variants: Vec<Uuid>,
    /// How many events begin with each name, by the answers.
    acknowledged: Vec<(String, usize)>,
    /// The orders that are paid if every acknowledged webhook was acted on.
    paid: Vec<Uuid>,
    failures: u64,
}

impl Provider {
    async fn new(settings: &Settings, shop: &Shop, variants: Vec<Uuid>) -> Outcome<Self> {
        let use_case = Ceiling::new(settings, shop, HOLD).await?;
        let (acknowledged, paid) = (Vec::new(), Vec::new());
        Ok(Self { use_case, variants, acknowledged, paid, failures: 0 })
    }

    /// Collects the money of so many new orders, and has news of it.
    async fn collect(&self, shop: &Shop, orders: usize, repeats: bool) -> Outcome<News> {
        self.use_case.place_spread(&self.variants, orders).await?;
        let payments = shop.database.open_payments().await?;
        let name = Uuid::new_v4().simple().to_string();
        Ok(News { name, secret: WEBHOOK_SECRET, payments, repeats })
    }

    /// Sends the news until the window ends or there is no more of it.
    async fn send(
        &mut self,
        shop: &Shop,
        news: &News,
        connections: usize,
        pace: Pace,
        window: Duration,
    ) -> Outcome<Tally> {
        shop.database.settle().await;
        let tally = load::run(Plan {
            address: shop.address,
            callers: Callers::Provider { connections, news: news.clone() },
            pace,
            counted: 200,
            window,
        })
        .await?;
        let good = tally.answers.get(&200).copied().unwrap_or(0);
        let all: u64 = tally.answers.values().sum();
        self.failures += all - good + tally.unanswered;
        self.acknowledged.push((news.event_id_prefix(), tally.acknowledged.len()));
        Ok(tally)
    }

    /// Notes the orders that the acknowledged webhooks are to pay.
    fn expect_paid(&mut self, news: &News, tally: &Tally) {
        let orders = tally.acknowledged.iter().map(|(_, event)| news.payments[*event].order_id);
        self.paid.extend(orders);
    }

    /// Holds every promise against the database: each webhook is kept, and what it tells was done.
    async fn verify(self, shop: &Shop, report: &mut Report) -> Outcome<()> {
        let (mut events, mut lost) = (0, 0);
        for (prefix, acknowledged) in &self.acknowledged {
            let kept = shop.database.count_events(prefix).await?;
            events += acknowledged;
            lost += acknowledged.saturating_sub(kept);
        }
        let paid = shop.database.count_paid(&self.paid).await?;
        let unpaid = self.paid.len() - paid;
        let captures = shop.database.count_captures().await?;
        self.use_case.close().await;
        report.fact("acknowledged", events);
        report.fact("lost", lost);
        report.fact("paid", paid);
        report.fact("captures", captures);
        report.fact("failed", self.failures);
        report.line(format!(
            "{events} events acknowledged, {lost} lost, {paid} orders paid by {captures} captures"
        ));
        if lost > 0 {
            report.broken(format!("{lost} acknowledged events are not in the inbox"));
        }
        if unpaid > 0 {
            report.broken(format!("{unpaid} orders whose payment was told about are not paid"));
        }
        if captures != self.paid.len() {
            let told = self.paid.len();
            report.broken(format!("{captures} captures are on record, {told} were told about"));
        }
        if self.failures > 0 {
            report.broken(format!("{} webhooks were not acknowledged", self.failures));
        }
        Ok(())
    }
}

/// Sends webhooks at an even rate while one process acts on them.
async fn steady(
    settings: &Settings,
    shop: &mut Shop,
    provider: &mut Provider,
    runs: &mut Runs,
) -> Outcome<()> {
    let seconds = usize::try_from((WARM_UP + settings.window).as_secs())?;
    let orders = seconds * EVENTS_PER_S as usize;
    let news = provider.collect(shop, orders, false).await?;
    shop.start("webhooks").await?;
    let pace = Pace::Open { per_second: f64::from(EVENTS_PER_S) };
    let tally = provider.send(shop, &news, settings.clients, pace, settings.window).await?;
    provider.expect_paid(&news, &tally);
    runs.steady.push(tally.measured(settings.window));
    drain(shop).await?;
    runs.waits.push(shop.database.waits(&news.event_id_prefix()).await?);
    shop.stop("webhooks").await?;
    Ok(())
}

/// Lets a backlog come while nobody acts on it; returns how many a second so many processes settle then.
async fn backlog(shop: &mut Shop, provider: &mut Provider, processes: usize) -> Outcome<f64> {
    let news = provider.collect(shop, BACKLOG, false).await?;
    let window = SETTLE_WAIT_MAX;
    let tally = provider.send(shop, &news, BACKLOG_CONNECTIONS, Pace::Closed, window).await?;
    provider.expect_paid(&news, &tally);
    let database = shop.database.clone();
    let watch = tokio::spawn(async move { watch(&database).await });
    shop.start_together("webhooks", processes).await?;
    let settled_per_s = watch.await??;
    shop.stop("webhooks").await?;
    Ok(settled_per_s)
}

/// Compares the API, asked as fast as it answers, with the reference.
async fn race(
    settings: &Settings,
    shop: &Shop,
    provider: &mut Provider,
    runs: &mut Runs,
) -> Outcome<()> {
    let news = provider.collect(shop, REPEATED, true).await?;
    let (connections, window) = (settings.clients, settings.window);
    let tally = provider.send(shop, &news, connections, Pace::Closed, window).await?;
    runs.most.push(tally.measured(window).per_second);

    shop.database.settle().await;
    let pool = shop.database.connect(reference::CONNECTIONS).await?;
    let name = Uuid::new_v4().simple().to_string();
    let kept = reference::receive(&pool, News { name, ..news.clone() }, window).await?;
    runs.reference.push(kept.measured.per_second);
    pool.close().await;
    Ok(())
}

/// Waits until nothing is left to act on.
async fn drain(shop: &Shop) -> Outcome<()> {
    let start = Instant::now();
    while shop.database.count_new_events().await? > 0 {
        if start.elapsed() > SETTLE_WAIT_MAX {
            return Err("webhooks were not acted on in time".into());
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// How many webhooks a second are settled, from the first look that misses some to the first that
/// finds none.
async fn watch(database: &Database) -> Outcome<f64> {
    let start = Instant::now();
    let all = database.count_new_events().await?;
    let mut began = None;
    while start.elapsed() < SETTLE_WAIT_MAX {
        let left = database.count_new_events().await?;
        let now = Instant::now();
        match began {
            None if left < all => began = Some((now, left)),
            Some((began, then)) if left == 0 => return Ok(per_second(then, now - began)),
            None | Some(_) => {}
        }
        sleep(LOOK_EVERY).await;
    }
    Err("webhooks were not acted on in time".into())
}
