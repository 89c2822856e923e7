//! Which process consumes which lanes, with what concurrency, and what else it does.
//!
//! | process | consumes | and |
//! |---|---|---|
//! | mailer | mail: 4 wake-ups of up to 20 jobs at once | |
//! | webhooks | settling: 2 wake-ups of up to 200 jobs at once; providers: 4 of up to 20 | |
//! | reaper | deadlines: 4 at once | sweeps for deadlines, pushes overdue rows again, purges, reconciles |
//!
//! The sweep alone would release every hold, and the overdue rows alone would start every job: the
//! wake-ups only make both prompt.

use std::{error::Error, mem, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use jobs::{
    Lane,
    checkout::{
        CancelPayment, CapturePayment, RefundPayment, ReviewDispute, ReviewPayment, ReviewRefund,
        ReviewRefundsOf, SettleEvent,
    },
    ledger,
    notifications::{
        SendAccountMail, SendEmailChanged, SendOrderConfirmed, SendOrderReceived,
        SendPasswordChanged, SendPaymentFailed, SendRefundMade, SendReservationExpired,
        SendSessionRevoked,
    },
    transport::{self, LaneSpec, RunError, Wake},
};
use secrecy::ExposeSecret;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::worker::Pulse;
use crate::{
    boot::{self, Ending},
    checkout::{self, reconcile},
    config,
    context::Context,
    identity::{accounts, sessions},
    notifications,
    payments::findings,
    privacy,
    worker::Crew,
};

/// A deadline whose wake-up was lost is noticed this much later.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// A row whose wake-up was lost waits this long besides the time after which it counts as lost.
const PUSH_EVERY: Duration = Duration::from_millis(500);

/// So many rows are pushed with one statement and one call of Redis.
const PUSH_SLICE: i64 = 500;

/// What a provider has not told is asked for this late at most, besides the pause before each question.
const RECONCILE_EVERY: Duration = Duration::from_secs(10);

const PURGE_EVERY: Duration = Duration::from_mins(1);

/// So many rows are deleted with one statement: a delete that nobody waits for.
const PURGE_SLICE: i64 = 1_000;

const GAUGE_EVERY: Duration = Duration::from_secs(5);

/// People see to findings in minutes at best.
const FINDINGS_EVERY: Duration = Duration::from_secs(15);

/// A step of a background task that takes longer is cut short: above every time limit of the
/// statements it consists of, below the two minutes after which the process is taken for stuck.
const STEP_MAX: Duration = Duration::from_mins(1);

/// A Redis or a database that takes longer to say how much waits is away.
const GAUGE_MAX: Duration = Duration::from_secs(4);

/// A process that works in the background. Any number of each may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    Reaper,
    Mailer,
    Webhooks,
}

impl Process {
    /// The lanes it consumes.
    pub const fn lanes(self) -> &'static [Lane] {
        match self {
            Self::Reaper => &[Lane::Deadlines],
            Self::Mailer => &[Lane::Mail],
            Self::Webhooks => &[Lane::Settling, Lane::Providers],
        }
    }
}

/// The reaper's main: works until the process is told to stop.
pub async fn reaper(
    process: boot::Process,
    settings: config::Reaper,
) -> Result<Ending, Box<dyn Error>> {
    serve(Process::Reaper, process, &settings.common).await
}

/// The mailer's main: works until the process is told to stop.
pub async fn mailer(
    process: boot::Process,
    settings: config::Mailer,
) -> Result<Ending, Box<dyn Error>> {
    serve(Process::Mailer, process, &settings.common).await
}

/// The main of webhooks: works until the process is told to stop.
pub async fn webhooks(
    process: boot::Process,
    settings: config::Webhooks,
) -> Result<Ending, Box<dyn Error>> {
    serve(Process::Webhooks, process, &settings.common).await
}

async fn serve(
    what: Process,
    process: boot::Process,
    common: &config::Common,
) -> Result<Ending, Box<dyn Error>> {
    let pulse = Pulse::default();
    process.liveness.ask({
        let pulse = pulse.clone();
        move || pulse.is_alive()
    });
    let redis_url = common.redis_url.expose_secret();
    run(what, process.cx, redis_url, &common.queue_namespace, pulse, process.shutdown).await?;
    Ok(Ending::Clean)
}

/// Works until `shutdown`, then ends what was begun; an error means that something was left behind.
///
/// Neither the database nor Redis needs to be there at the start. `pulse` tells whether work goes on.
pub async fn run(
    process: Process,
    cx: Context,
    redis_url: &str,
    namespace: &str,
    pulse: Pulse,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let lanes = match process {
        Process::Reaper => vec![deadlines(cx.clone(), pulse.clone())],
        Process::Mailer => vec![
            Crew::new(Lane::Mail, cx.clone(), pulse.clone())
                .with::<SendOrderReceived>()
                .with::<SendReservationExpired>()
                .with::<SendOrderConfirmed>()
                .with::<SendPaymentFailed>()
                .with::<SendRefundMade>()
                .with::<SendAccountMail>()
                .with::<SendPasswordChanged>()
                .with::<SendEmailChanged>()
                .with::<SendSessionRevoked>()
                .consume(4),
        ],
        Process::Webhooks => vec![
            // Two, so that one slice is read while the other is written; more would wait for the same orders.
            Crew::new(Lane::Settling, cx.clone(), pulse.clone()).with::<SettleEvent>().consume(2),
            Crew::new(Lane::Providers, cx.clone(), pulse.clone())
                .with::<ReviewPayment>()
                .with::<ReviewDispute>()
                .with::<ReviewRefund>()
                .with::<ReviewRefundsOf>()
                .with::<CancelPayment>()
                .with::<CapturePayment>()
                .with::<RefundPayment>()
                .consume(4),
        ],
    };
    let background =
        Background { cx, pulse, shutdown: shutdown.clone(), tasks: TaskTracker::new() };
    background.every(GAUGE_EVERY, "gauges", move |cx, pulse| gauge(process, cx, pulse));
    match process {
        Process::Reaper => {
            background.every(FINDINGS_EVERY, "findings", |cx, _| gauge_findings(cx));
            background.every(SWEEP_EVERY, "sweep", sweep);
            background.every(PUSH_EVERY, "push", |cx, _| push(cx));
            background.every(RECONCILE_EVERY, "attempts", |cx, _| reconcile_attempts(cx));
            background.every(RECONCILE_EVERY, "refunds", |cx, _| reconcile_refunds(cx));
            background.every(RECONCILE_EVERY, "disputes", |cx, _| reconcile_disputes(cx));
            background.every(RECONCILE_EVERY, "lists", |cx, _| reconcile_lists(cx));
            background.every(PURGE_EVERY, "purge of keys", |cx, _| purge_checkout(cx));
            background.every(PURGE_EVERY, "purge of sessions", |cx, _| purge_sessions(cx));
            background.every(PURGE_EVERY, "purge of requests", |cx, _| purge_requests(cx));
            background.every(PURGE_EVERY, "purge of mails", |cx, _| purge_mails(cx));
            background.every(PURGE_EVERY, "erasure", |cx, _| erase_left_over(cx));
            background.every(PURGE_EVERY, "purge of jobs", |cx, _| purge_jobs(cx));
            background.every(PURGE_EVERY, "purge of wake-ups", |cx, _| purge_wake_ups(cx));
        }
        Process::Mailer | Process::Webhooks => {}
    }
    let consumed = transport::run(redis_url, namespace, lanes, shutdown.clone().cancelled_owned());
    let consumed = consumed.await;
    background.tasks.close();
    background.tasks.wait().await;
    consumed
}

/// Consumes deadlines: their wake-ups name a second, not rows.
fn deadlines(cx: Context, pulse: Pulse) -> LaneSpec {
    LaneSpec::new(Lane::Deadlines, 4, move |wake| {
        let (cx, pulse) = (cx.clone(), pulse.clone());
        async move {
            let Wake::Deadline(second) = wake else {
                tracing::error!("a wake-up for rows came to the lane of deadlines");
                return;
            };
            let _under_way = pulse.begin();
            if let Err(error) = checkout::work::deadline(&cx, second).await {
                tracing::warn!(second, %error, "a deadline was missed; the sweep will see to it");
            }
        }
    })
}

type Step = Result<(), Box<dyn Error + Send + Sync>>;

async fn sweep(cx: Context, pulse: Pulse) -> Step {
    let _under_way = pulse.begin();
    let ended = checkout::work::sweep(&cx).await?;
    if ended > 0 {
        tracing::info!(orders = ended, "the sweep ended orders whose wake-up had not come");
    }
    Ok(())
}

async fn push(cx: Context) -> Step {
    let slice = usize::try_from(PUSH_SLICE)?;
    while cx.relay.push_overdue(&cx.db, PUSH_SLICE).await? == slice {}
    Ok(())
}

async fn reconcile_attempts(cx: Context) -> Step {
    Ok(reconcile::reconcile_attempts(&cx).await?)
}

async fn reconcile_refunds(cx: Context) -> Step {
    Ok(reconcile::reconcile_refunds(&cx).await?)
}

async fn reconcile_disputes(cx: Context) -> Step {
    Ok(reconcile::reconcile_disputes(&cx).await?)
}

async fn reconcile_lists(cx: Context) -> Step {
    Ok(reconcile::reconcile_lists(&cx).await?)
}

/// Publishes how many findings of each kind are open.
async fn gauge_findings(cx: Context) -> Step {
    let open = findings::store::count_open(&cx.db).await?;
    for kind in findings::Kind::ALL {
        let of_kind = open.iter().find(|(known, _)| *known == kind).map_or(0, |(_, count)| *count);
        let count = u32::try_from(of_kind).unwrap_or(u32::MAX);
        metrics::gauge!("findings_open", "kind" => kind.name()).set(count);
    }
    Ok(())
}

async fn purge_checkout(cx: Context) -> Step {
    checkout::work::purge(&cx).await?;
    Ok(())
}

async fn purge_sessions(cx: Context) -> Step {
    sessions::purge(&cx.db).await?;
    Ok(())
}

async fn purge_requests(cx: Context) -> Step {
    accounts::purge(&cx.db).await?;
    Ok(())
}

async fn purge_mails(cx: Context) -> Step {
    notifications::purge(&cx.db).await?;
    Ok(())
}

async fn erase_left_over(cx: Context) -> Step {
    while privacy::erase_left_over(&cx).await? > 0 {}
    Ok(())
}

async fn purge_jobs(cx: Context) -> Step {
    let slice = u64::try_from(PURGE_SLICE)?;
    while ledger::purge(&cx.db, PURGE_SLICE).await? == slice {}
    Ok(())
}

async fn purge_wake_ups(cx: Context) -> Step {
    cx.relay.purge().await?;
    Ok(())
}

/// Publishes how much waits in each lane, and lets the pulse know whether anything waits for us.
async fn gauge(process: Process, cx: Context, pulse: Pulse) -> Step {
    let asked = async {
        let backlog = cx.relay.backlog(process.lanes()).await?;
        let depths = ledger::depths(&cx.db).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>((backlog, depths))
    };
    let answer = timeout(GAUGE_MAX, asked).await.map_err(Into::into).flatten();
    let (backlog, depths) = answer.inspect_err(|_| pulse.saw_outage())?;
    pulse.saw_backlog(backlog);
    for depth in depths {
        let due = u32::try_from(depth.due).unwrap_or(u32::MAX);
        metrics::gauge!("lane_depth", "lane" => depth.lane.name()).set(due);
        metrics::gauge!("lane_oldest_due_seconds", "lane" => depth.lane.name())
            .set(depth.oldest_due_seconds);
    }
    Ok(())
}

/// The tasks of a process besides its lanes: each has its own clock, and none waits for another.
struct Background {
    cx: Context,
    pulse: Pulse,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Background {
    /// Runs the step now and after each period, until the shutdown; a step that fails, hangs or
    /// panics is logged, and the next one comes all the same.
    fn every<F, Fut>(&self, period: Duration, task: &'static str, step: F)
    where
        F: Fn(Context, Pulse) -> Fut + Send + 'static,
        Fut: Future<Output = Step> + Send + 'static,
    {
        let (cx, pulse, shutdown) = (self.cx.clone(), self.pulse.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            let mut is_failing = false;
            let mut clock = interval(period);
            // A slow step is not followed by a burst.
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while shutdown.run_until_cancelled(clock.tick()).await.is_some() {
                let step = AssertUnwindSafe(step(cx.clone(), pulse.clone())).catch_unwind();
                let failure = match timeout(STEP_MAX, step).await {
                    Ok(Ok(Ok(()))) => {
                        if mem::take(&mut is_failing) {
                            tracing::info!(task, "a background task succeeds again");
                        }
                        continue;
                    }
                    Ok(Ok(Err(error))) => error,
                    Ok(Err(_)) => "it panicked".into(),
                    Err(_) => "it took too long".into(),
                };
                metrics::counter!("background_failures_total", "task" => task).increment(1);
                // Said once: with Redis away it would fail every few seconds.
                if !mem::replace(&mut is_failing, true) {
                    tracing::warn!(task, error = %failure, "a background task failed; it goes on");
                }
            }
        });
    }
}
