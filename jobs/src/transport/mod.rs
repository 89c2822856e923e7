//! Carries wake-ups from Redis to this process's handlers, over apalis-redis.
//!
//! What apalis would decide is decided elsewhere: its own retry, timeout and dead set are not used,
//! because a panic or a timeout goes to its dead set at once, its attempts are fixed at 25 within
//! five minutes, and none of it survives Redis. A handler always ends well as far as apalis is
//! concerned; the ledger knows better.

mod queue;

use std::{fmt, process, sync::Arc, time::Duration};

use apalis::prelude::{BackendExt, WorkerBuilder, WorkerBuilderExt, WorkerContext, WorkerError};
use apalis_redis::RedisStorage;
use futures_util::{
    FutureExt,
    future::{self, BoxFuture, Shared},
};
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinHandle},
    time,
};
use uuid::Uuid;

pub use self::queue::{BadUrl, QueueError, Wake};
use self::queue::{Heard, Lenient};
pub(crate) use self::queue::{Queue, connect_relay, now, task};
use crate::Lane;

/// How long handlers may go on after the signal to stop: below the 30 s after which process managers
/// kill, and above every handler's own limit.
const DRAIN: Duration = Duration::from_secs(25);

/// Any error of Redis ends an apalis worker, and without a pause it would be rebuilt hundreds of
/// times a second.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

/// How often wake-ups that have become due are moved to where workers look for them.
const PROMOTION_PAUSE: Duration = Duration::from_millis(100);

type Shutdown = Shared<BoxFuture<'static, ()>>;
type Handler = Arc<dyn Fn(Wake) -> BoxFuture<'static, ()> + Send + Sync>;

/// A lane that this process consumes.
#[derive(Clone)]
pub struct LaneSpec {
    lane: Lane,
    concurrency: usize,
    handler: Handler,
}

impl LaneSpec {
    /// At most `concurrency` wake-ups are in `handler`'s hands at once.
    ///
    /// The handler sees some wake-ups twice, perhaps at once, and may lose any: it finds out in the
    /// database what there is to do. A panic costs its wake-up.
    pub fn new<F, Fut>(lane: Lane, concurrency: usize, handler: F) -> Self
    where
        F: Fn(Wake) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self { lane, concurrency, handler: Arc::new(move |wake| handler(wake).boxed()) }
    }
}

impl fmt::Debug for LaneSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSpec")
            .field("lane", &self.lane)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

/// Why consuming ended other than well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Url(#[from] BadUrl),
    #[error("some handlers did not end within {} s of the signal to stop", DRAIN.as_secs())]
    Undrained,
}

/// Consumes the lanes until `shutdown` is ready, and returns when every handler has ended.
///
/// Redis may be away at the start and at any time later: it is tried again for ever. A handler that
/// outlives the drain is left behind; the lease of its rows runs out and they are worked on again.
pub async fn run(
    redis_url: &str,
    namespace: &str,
    lanes: Vec<LaneSpec>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    let connection = queue::connect_worker(redis_url)?;
    let shutdown = shutdown.boxed().shared();
    let lanes = lanes.into_iter().map(|spec| {
        let queue = Queue::new(connection.clone(), namespace, spec.lane, spec.concurrency);
        consume(queue, spec, shutdown.clone())
    });
    let drained = future::join_all(lanes).await;
    if drained.into_iter().all(|is_drained| is_drained) { Ok(()) } else { Err(RunError::Undrained) }
}

/// Runs one worker after the other until the shutdown; `true` when the last was drained.
async fn consume(queue: Queue, spec: LaneSpec, shutdown: Shutdown) -> bool {
    let slots = Arc::new(Semaphore::new(spec.concurrency));
    let workers = async {
        let mut buried_later: Vec<String> = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.clone() => return drain(&queue, &spec, &slots, None).await,
                () = prepare(&queue, &mut buried_later) => {}
            }
            // A name is never used twice: Redis would refuse it until the old one is forgotten.
            let name = format!("{}-{}-{}", spec.lane.name(), process::id(), Uuid::now_v7());
            let context = WorkerContext::new(&name);
            let mut worker =
                tokio::spawn(work(queue.clone(), spec.clone(), slots.clone(), &context));
            tokio::select! {
                () = shutdown.clone() => {
                    let last = Some(Running { name, context, worker });
                    return drain(&queue, &spec, &slots, last).await;
                }
                ended = &mut worker => report(spec.lane, ended),
            }
            buried_later.push(name);
            time::sleep(RESTART_PAUSE).await;
        }
    };
    tokio::select! {
        is_drained = workers => is_drained,
        never = promote_for_ever(&queue) => match never {},
    }
}

/// Makes Redis ready for a new worker, however long that takes.
///
/// What earlier workers held is given back first. Then everything due is promoted, because the
/// worker's own promotion fails for ever once about 8,000 wake-ups are due at the same time.
async fn prepare(queue: &Queue, lost: &mut Vec<String>) {
    let mut is_away = false;
    loop {
        match try_to_prepare(queue, lost).await {
            Ok(()) => return,
            Err(error) if is_away => {
                tracing::debug!(lane = queue.lane().name(), %error, "redis is still away");
            }
            Err(error) => {
                is_away = true;
                tracing::warn!(lane = queue.lane().name(), %error, "redis is away; trying again");
            }
        }
        time::sleep(RESTART_PAUSE).await;
    }
}

async fn try_to_prepare(queue: &Queue, lost: &mut Vec<String>) -> Result<(), QueueError> {
    while let Some(name) = lost.last() {
        queue.bury(name).await?;
        lost.pop();
    }
    queue.promote().await
}

/// Promotes what becomes due while workers run, so that they never meet too much of it at once.
async fn promote_for_ever(queue: &Queue) -> std::convert::Infallible {
    loop {
        time::sleep(PROMOTION_PAUSE).await;
        if let Err(error) = queue.promote().await {
            // The worker meets the same error and says so.
            tracing::debug!(lane = queue.lane().name(), %error, "wake-ups were not promoted");
        }
    }
}

/// Runs one apalis worker until it is stopped or Redis makes an error.
fn work(
    queue: Queue,
    spec: LaneSpec,
    slots: Arc<Semaphore>,
    context: &WorkerContext,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    let (connection, config) = queue.into_parts();
    let storage = RedisStorage::<Heard>::new(connection)
        .with_config(config)
        .with_codec(Lenient)
        // Unasked, an idle storage looks into Redis once per heartbeat.
        .poll_with_interval(spec.lane.poll_interval());
    WorkerBuilder::new(context)
        .backend(storage)
        .concurrency(spec.concurrency)
        .build(move |heard: Heard| handle(heard, spec.handler.clone(), slots.clone()).boxed())
        .run()
        .boxed()
}

/// Hands a wake-up to its handler, in a task of its own: one that computes does not hold up the
/// others, and the loss of the worker does not cut it short.
async fn handle(heard: Heard, handler: Handler, slots: Arc<Semaphore>) {
    let Heard(Some(wake)) = heard else {
        tracing::error!("a wake-up could not be read and was dropped");
        return;
    };
    // Handlers of a lost worker may still run: together they must not be more than allowed.
    let slot = slots.acquire_owned().await.expect("nobody closes it");
    let work = tokio::spawn(async move {
        handler(wake).await;
        drop(slot);
    });
    if let Err(error) = work.await {
        tracing::error!(%error, "the handler of a wake-up panicked");
    }
}

fn report(lane: Lane, ended: Result<Result<(), WorkerError>, JoinError>) {
    let lane = lane.name();
    match ended {
        Ok(Ok(())) => tracing::error!(lane, "the worker ended without a signal; starting another"),
        Err(error) => tracing::error!(lane, %error, "the worker panicked; starting another"),
        Ok(Err(error)) => tracing::warn!(lane, %error, "the worker was lost; starting another"),
    }
}

struct Running {
    name: String,
    context: WorkerContext,
    worker: JoinHandle<Result<(), WorkerError>>,
}

/// Takes no more wake-ups and waits for the handlers; `true` when all have ended in time.
async fn drain(queue: &Queue, spec: &LaneSpec, slots: &Semaphore, last: Option<Running>) -> bool {
    let deadline = time::Instant::now() + DRAIN;
    if let Some(Running { name, context, mut worker }) = last {
        // A worker that was not even started cannot be stopped, and holds nothing.
        if context.stop().is_err() || time::timeout_at(deadline, &mut worker).await.is_err() {
            worker.abort();
        }
        // Redis being away is no reason to fail: the others will notice that this one is gone.
        let _ = time::timeout(RESTART_PAUSE, queue.bury(&name)).await;
    }
    let all = u32::try_from(spec.concurrency).unwrap_or(u32::MAX);
    let is_drained = time::timeout_at(deadline, slots.acquire_many(all)).await.is_ok();
    if !is_drained {
        let running = spec.concurrency.saturating_sub(slots.available_permits());
        tracing::error!(lane = spec.lane.name(), running, "handlers did not end in time");
    }
    is_drained
}
