//! Start and stop of every process: settings, logs, metrics, the pool, the health port, signals.
//!
//! A process needs nothing to be there when it starts. It tells by `/readyz` whether it can work, and
//! waits for what it misses.

pub(crate) mod descriptors;
mod health;
mod logging;
mod readiness;
mod store;

use std::{error::Error, process::ExitCode, str::FromStr, time::Duration};

use poem::http::uri::Scheme;
use secrecy::ExposeSecret;
use sqlx::{
    Connection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{
        Budget, Providers, Razorpay, Stripe, razorpay::RazorpayAccess, smtp::Mailer,
        stripe::StripeAccess,
    },
    config::{BadSettings, Common, Settings},
    context::{Context, Shop},
    kernel::failpoint,
    web::server::{Drain, Limits, serve},
};

/// How long a request waits for a connection. Who has not got one by then is told to come back:
/// with a queue longer than that, the answers would only come later.
const ACQUIRE_MAX: Duration = Duration::from_millis(1_500);

/// A connection that was used this recently is taken to be alive. The others are asked first, and
/// so a database that was restarted costs no request more than the ones it interrupted.
const FRESH: Duration = Duration::from_secs(1);

/// Between the signal and the end. Orchestrators kill after 30 s.
const STOP_MAX: Duration = Duration::from_secs(28);

/// For connections to say goodbye and blocking threads to finish.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// What a process works with, until `shutdown`.
#[derive(Debug)]
pub struct Process {
    pub cx: Context,
    pub shutdown: CancellationToken,
    /// Whether the process still gets its work done, for `/livez`.
    pub liveness: health::Liveness,
}

/// How the work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Ending {
    /// Everything that was begun is finished.
    Clean,
    /// Something was cut short.
    Cut,
}

impl From<Drain> for Ending {
    fn from(drain: Drain) -> Self {
        match drain {
            Drain::Clean => Self::Clean,
            Drain::Cut { connections } => {
                tracing::error!(connections, "requests were cut short");
                Self::Cut
            }
        }
    }
}

/// Runs a process: reads its settings, does its `work` until a signal comes, and ends.
///
/// Exits with 0 after a clean end, with 2 for bad settings, with 1 for everything else.
pub fn run<S, W>(work: W) -> ExitCode
where
    S: Settings,
    W: AsyncFnOnce(Process, S) -> Result<Ending, Box<dyn Error>>,
{
    let settings = match S::read() {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems),
    };
    let common = settings.common();
    logging::start(&common.log, common.log_format);
    if let Some(point) = &common.failpoint {
        failpoint::arm(&point.name, point.n);
    }
    let runtime = match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let code = runtime.block_on(live(settings, work));
    runtime.shutdown_timeout(FAREWELL_MAX);
    code
}

async fn live<S, W>(settings: S, work: W) -> ExitCode
where
    S: Settings,
    W: AsyncFnOnce(Process, S) -> Result<Ending, Box<dyn Error>>,
{
    let cx = match context(&settings) {
        Ok(cx) => cx,
        Err(problems) => return refuse(&problems),
    };
    let db = cx.db.clone();
    let ended = match start(cx, &settings).await {
        Ok(process) => {
            let shutdown = process.shutdown.clone();
            tokio::select! {
                ended = work(process, settings) => ended,
                () = overtime(shutdown) => Err("the work did not end in time".into()),
            }
        }
        Err(error) => Err(error),
    };
    let _ = timeout(FAREWELL_MAX, db.close()).await;
    match ended {
        Ok(Ending::Clean) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Ok(Ending::Cut) => ExitCode::FAILURE,
        Err(error) => fail(&*error),
    }
}

/// Opens the health port and begins to listen to signals.
async fn start<S: Settings>(cx: Context, settings: &S) -> Result<Process, Box<dyn Error>> {
    let common = settings.common();
    let shutdown = CancellationToken::new();
    stop_on_signal(shutdown.clone())?;
    let listener = TcpListener::bind(common.health_listen)
        .await
        .map_err(|error| format!("HEALTH_LISTEN cannot be listened on: {error}"))?;
    let address = listener.local_addr()?;
    let metrics = health::record_metrics()?;
    let liveness = health::Liveness::default();
    let readiness = readiness::watch(connect_options(common, S::PROCESS)?, shutdown.clone());
    let health = health::app(liveness.clone(), readiness, metrics, cx.db.clone());
    // Probes and a scraper, each with a connection or two. It listens until the very end.
    let limits = Limits { connections: 32, ..Limits::default() };
    tokio::spawn(async move {
        let _ = serve(listener, health, limits, Scheme::HTTP, CancellationToken::new()).await;
    });
    tracing::info!(
        process = S::PROCESS,
        version = env!("CARGO_PKG_VERSION"),
        health = %address,
        "started"
    );
    Ok(Process { cx, shutdown, liveness })
}

/// What a process with these settings works with. Nothing is connected yet; call it inside a tokio runtime.
pub fn context<S: Settings>(settings: &S) -> Result<Context, BadSettings> {
    let common = settings.common();
    let relay = jobs::Relay::start(common.redis_url.expose_secret(), &common.queue_namespace)
        .map_err(|_| BadSettings::wrong("REDIS_URL", "a URL that Redis understands"))?;
    let mailer = settings.mail().map(|mail| {
        Mailer::new(mail.smtp_url.expose_secret(), &mail.from)
            .map_err(|_| BadSettings::wrong("SMTP_URL", "a URL that a mail server understands"))
    });
    let shop = settings.mail().map(|mail| (mail.shop_name.clone(), mail.shop_url.clone()));
    let (name, url) = shop.unwrap_or_default();
    let options = connect_options(common, S::PROCESS)
        .map_err(|_| BadSettings::wrong("DATABASE_URL", "a URL that PostgreSQL understands"))?;
    Ok(Context {
        db: pool(options, common.database_pool),
        relay,
        hold: settings.hold(),
        mailer: mailer.transpose()?,
        providers: providers(settings)?,
        shop: Shop { name, url },
    })
}

/// The providers that are offered, in a process that asks them.
fn providers<S: Settings>(settings: &S) -> Result<Providers, BadSettings> {
    let Some(offered) = settings.providers() else {
        return Ok(Providers::default());
    };
    let Common { redis_url, queue_namespace, .. } = settings.common();
    let budget = |provider, calls_per_second| {
        Budget::new(redis_url.expose_secret(), queue_namespace, provider, calls_per_second)
            .map_err(|_| BadSettings::wrong("REDIS_URL", "a URL that Redis understands"))
    };
    let stripe = offered.stripe.as_ref().map(|stripe| {
        let access = StripeAccess {
            url: stripe.url.clone(),
            keys: stripe.keys.clone(),
            webhook_secrets: stripe.webhook_secrets.clone(),
        };
        Stripe::new(access, budget("stripe", stripe.calls_per_second)?)
            .map_err(|_| BadSettings::wrong("STRIPE_URL", "a URL that can be asked"))
    });
    let razorpay = offered.razorpay.as_ref().map(|razorpay| {
        let access = RazorpayAccess {
            url: razorpay.url.clone(),
            keys: razorpay.keys.clone(),
            webhook_secrets: razorpay.webhook_secrets.clone(),
        };
        Razorpay::new(access, budget("razorpay", razorpay.calls_per_second)?)
            .map_err(|_| BadSettings::wrong("RAZORPAY_URL", "a URL that can be asked"))
    });
    Ok(Providers { stripe: stripe.transpose()?, razorpay: razorpay.transpose()? })
}

/// How every connection of a process behaves. The timeouts are PostgreSQL's own, so that they hold
/// even for a statement that nobody here waits for any more.
fn connect_options(common: &Common, process: &str) -> sqlx::Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(common.database_url.expose_secret())?;
    Ok(options.application_name(&format!("holdfast-{process}")).options([
        // Nothing here takes a second; what takes five holds locks that others wait for.
        ("statement_timeout", "5s"),
        // A lock waits for one other transaction's commit, or something is wrong and is tried again.
        ("lock_timeout", "500ms"),
        // A process that was stopped in mid-transaction must not keep its locks.
        ("idle_in_transaction_session_timeout", "5s"),
        ("timezone", "UTC"),
    ]))
}

/// A pool that connects when somebody asks, and heals by itself.
fn pool(options: PgConnectOptions, connections_max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_MAX)
        // It would ask before every use, which costs each transaction a round trip. A connection is
        // asked on its return to the pool anyway.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > FRESH {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// Ends the work at the first SIGTERM or SIGINT, and the process at the second.
fn stop_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                tracing::error!("stopped at once, by a second signal");
                std::process::exit(1);
            }
            tracing::info!("stopping");
            shutdown.cancel();
        }
    });
    Ok(())
}

async fn overtime(shutdown: CancellationToken) {
    shutdown.cancelled().await;
    sleep(STOP_MAX).await;
}

fn refuse(problems: &BadSettings) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::from(2)
}

fn fail(error: &dyn Error) -> ExitCode {
    tracing::error!(%error, "stopped by a failure");
    ExitCode::FAILURE
}
