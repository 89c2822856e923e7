//! The process's sender of wake-ups.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use apalis::prelude::Task;
use apalis_redis::ConnectionManager;
use sqlx::PgPool;
use tokio::{sync::mpsc, time};
use uuid::Uuid;

use crate::{
    Lane, Staged, ledger,
    ledger::Overdue,
    transport::{self, BadUrl, Queue, QueueError, Wake},
};

/// How many commits may wait for the sender: with Redis away each costs up to [`PUSH_LIMIT`], and
/// what does not fit is made good by the reaper.
const QUEUE_MAX: usize = 1_024;

/// How long one push may take, reconnecting included.
const PUSH_LIMIT: Duration = Duration::from_secs(3);

/// When rows are tried again that Redis did not take.
const RETRY: Duration = Duration::from_secs(2);

/// More than the seconds of the longest hold; the earliest are forgotten first.
const SECONDS_REMEMBERED: usize = 4_096;

/// Over how many seconds the wake-ups of rows are spread that were lost with their worker twice.
const SUSPECT_SPREAD: u64 = 30;

/// Sends wake-ups, off the path of whoever commits. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Relay {
    queue: mpsc::Sender<Signal>,
    wire: Wire,
}

#[derive(Debug)]
enum Signal {
    Staged(Staged),
    Deadline(i64),
}

/// Why overdue rows were not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("the ledger did not answer: {0}")]
    Database(#[from] sqlx::Error),
    #[error("redis did not take the wake-ups: {0}")]
    Redis(#[from] QueueError),
}

impl Relay {
    /// Starts the process's sender of wake-ups; call it inside a tokio runtime.
    ///
    /// Redis is not asked for anything yet, and may be away then and later.
    pub fn start(redis_url: &str, namespace: &str) -> Result<Self, BadUrl> {
        let wire = Wire {
            connection: transport::connect_relay(redis_url)?,
            namespace: namespace.into(),
            is_away: Arc::default(),
        };
        let (queue, signals) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(send(wire.clone(), signals));
        Ok(Self { queue, wire })
    }

    /// Wakes workers for what a committed transaction staged.
    ///
    /// Never blocks and never fails: what cannot be sent is pushed by the reaper a few seconds later.
    pub fn wake(&self, staged: Staged) {
        if !staged.is_empty() {
            self.signal(Signal::Staged(staged));
        }
    }

    /// Wakes a worker at that second, counted from 1970, to look for orders whose hold runs out.
    ///
    /// Never blocks and never fails: what cannot be sent is found by the reaper's sweep. One wake-up
    /// serves all orders of a second, whichever processes ask for it.
    pub fn deadline(&self, epoch_second: i64) {
        self.signal(Signal::Deadline(epoch_second));
    }

    fn signal(&self, signal: Signal) {
        if self.queue.try_send(signal).is_err() {
            metrics::counter!("wake_ups_dropped_total").increment(1);
        }
    }

    /// Sends wake-ups again for up to `limit` due, unfinished rows that nobody has picked up, and
    /// returns for how many.
    ///
    /// Call it again at once when it returns `limit`. Any number of processes may call it.
    pub async fn push_overdue(&self, db: &PgPool, limit: i64) -> Result<usize, PushError> {
        let overdue = ledger::take_overdue(db, limit).await?;
        let count = overdue.len();
        let (suspects, innocent): (Vec<_>, Vec<_>) =
            overdue.into_iter().partition(|row| row.losses > 0);
        let mut tasks = wake_ups(innocent.into_iter().map(|row| (row.lane, row.id)));
        for suspect in suspects {
            tasks.entry(suspect.lane).or_default().push(suspicious(&suspect));
        }
        let mut failure = None;
        for (lane, tasks) in tasks {
            if let Err(error) =
                self.wire.push(lane, tasks.iter().map(|wake_up| &wake_up.task)).await
            {
                let ids: Vec<_> = tasks.into_iter().flat_map(|wake_up| wake_up.rows).collect();
                ledger::push_again(db, &ids, RETRY).await?;
                failure = Some(error);
            }
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(count),
        }
    }

    /// Counts the due wake-ups of the lanes that no worker has taken; an error means that Redis is
    /// away.
    pub async fn backlog(&self, lanes: &[Lane]) -> Result<u64, QueueError> {
        let mut backlog = 0;
        for lane in lanes {
            backlog += limited(self.wire.queue(*lane).backlog()).await?;
        }
        Ok(backlog)
    }

    /// Deletes the finished wake-ups of every lane from Redis and returns how many.
    pub async fn purge(&self) -> Result<u64, QueueError> {
        let mut purged = 0;
        for lane in Lane::ALL {
            purged += self.wire.queue(lane).purge().await?;
        }
        Ok(purged)
    }
}

/// A connection and what is known of it.
#[derive(Debug, Clone)]
struct Wire {
    connection: ConnectionManager,
    namespace: Arc<str>,
    is_away: Arc<AtomicBool>,
}

impl Wire {
    fn queue(&self, lane: Lane) -> Queue {
        Queue::new(self.connection.clone(), &self.namespace, lane, 1)
    }

    /// Pushes with a time limit, and says once that Redis is away and once that it is back.
    async fn push(
        &self,
        lane: Lane,
        tasks: impl IntoIterator<Item = &Task<Vec<u8>>>,
    ) -> Result<(), QueueError> {
        let tasks: Vec<_> = tasks.into_iter().cloned().collect();
        let queue = self.queue(lane);
        let pushed = limited(async {
            // The first call after a restart of Redis meets the old connection, and only its failure
            // makes a new one. A wake-up that is sent twice does no harm.
            match queue.push(&tasks).await {
                Ok(()) => Ok(()),
                Err(_) => queue.push(&tasks).await,
            }
        })
        .await;
        let outcome = if pushed.is_ok() { "sent" } else { "lost" };
        metrics::counter!("wake_ups_total", "lane" => lane.name(), "outcome" => outcome)
            .increment(tasks.len() as u64);
        match &pushed {
            Ok(()) if self.is_away.swap(false, Ordering::Relaxed) => {
                tracing::info!("redis takes wake-ups again");
            }
            Err(error) if !self.is_away.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "redis takes no wake-ups; the reaper will send them again");
            }
            Ok(()) | Err(_) => {}
        }
        pushed
    }
}

async fn limited<T>(asked: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    time::timeout(PUSH_LIMIT, asked).await.unwrap_or(Err(QueueError::TimedOut))
}

/// Sends what was signalled, as few pushes as possible, until every relay is gone.
async fn send(wire: Wire, mut signals: mpsc::Receiver<Signal>) {
    let mut arrived = Vec::new();
    let mut known_seconds = BTreeSet::new();
    while signals.recv_many(&mut arrived, QUEUE_MAX).await > 0 {
        let mut staged = Staged::default();
        let mut seconds = BTreeSet::new();
        for signal in arrived.drain(..) {
            match signal {
                Signal::Staged(more) => staged.merge(more),
                Signal::Deadline(second) => {
                    if !known_seconds.contains(&second) {
                        seconds.insert(second);
                    }
                }
            }
        }
        for (lane, wake_ups) in wake_ups(staged.due) {
            // An error was reported; the rows come again.
            let _ = wire.push(lane, wake_ups.iter().map(|wake_up| &wake_up.task)).await;
        }
        if !seconds.is_empty() {
            let tasks: Vec<_> = seconds.iter().map(|second| deadline(*second)).collect();
            // Only what Redis took is remembered: the next order of the same second asks again.
            if wire.push(Lane::Deadlines, &tasks).await.is_ok() {
                known_seconds.append(&mut seconds);
            }
        }
        while known_seconds.len() > SECONDS_REMEMBERED {
            known_seconds.pop_first();
        }
    }
}

/// A wake-up and the rows it is for.
struct WakeUp {
    task: Task<Vec<u8>>,
    rows: Vec<Uuid>,
}

/// Makes wake-ups of as many rows as a lane's worker takes at once.
fn wake_ups(rows: impl IntoIterator<Item = (Lane, Uuid)>) -> BTreeMap<Lane, Vec<WakeUp>> {
    let mut by_lane: BTreeMap<Lane, Vec<Uuid>> = BTreeMap::new();
    for (lane, id) in rows {
        by_lane.entry(lane).or_default().push(id);
    }
    by_lane
        .into_iter()
        .map(|(lane, rows)| {
            let wake_ups = rows.chunks(lane.rows_per_wake_up());
            (lane, wake_ups.map(|rows| wake_up(rows.to_vec(), None)).collect())
        })
        .collect()
}

/// Wakes a worker for a row whose last claim ended without a verdict, for it alone.
///
/// From the second time on it is also delayed by chance. One job that kills its worker takes the
/// worker's other jobs along: apart from it they end well, and only the culprit is lost each time.
fn suspicious(row: &Overdue) -> WakeUp {
    let run_at = (row.losses > 1).then(|| transport::now() + rand::random_range(0..SUSPECT_SPREAD));
    wake_up(vec![row.id], run_at)
}

fn wake_up(rows: Vec<Uuid>, run_at: Option<u64>) -> WakeUp {
    // No two have the same id: it is the ledger that knows whether the rows still need anybody.
    let id = format!("wake:{}", Uuid::now_v7());
    WakeUp { task: transport::task(id, &Wake::Rows(rows.clone()), run_at), rows }
}

fn deadline(second: i64) -> Task<Vec<u8>> {
    let run_at = u64::try_from(second).unwrap_or(0);
    transport::task(format!("deadline:{second}"), &Wake::Deadline(second), Some(run_at))
}
