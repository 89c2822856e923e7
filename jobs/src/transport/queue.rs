//! One lane's keys in Redis, and the scripts that apalis-redis 1.0 lacks.

use std::{
    convert::Infallible,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use apalis::prelude::{Codec, Task, TaskBuilder, TaskId};
use apalis_redis::{Config, ConnectionManager};
use redis::{Client, Script, aio::ConnectionManagerConfig};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Lane;

/// A worker that was silent for `HEARTBEAT * HEARTBEATS_MISSED` is taken for dead and its wake-ups
/// are given to others: longer than a busy worker may be too busy to say that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
const HEARTBEATS_MISSED: usize = 6;

/// How many wake-ups one script call moves, pushes or deletes: a script stops the whole of Redis.
const SCRIPT_MAX: usize = 500;

/// A finished wake-up is only kept so that another process does not push the same deadline again;
/// each costs about 450 bytes.
const FINISHED_KEPT: Duration = Duration::from_mins(5);

/// A wake-up that was in so many workers' hands when they were lost is dropped: if it is what kills
/// them, the ledger's next wake-up and the sweep for deadlines do without it.
const BURIALS_MAX: usize = 3;

/// The address is not one of a Redis server.
#[derive(Debug, thiserror::Error)]
#[error("the Redis URL cannot be used: {0}")]
pub struct BadUrl(#[from] redis::RedisError);

/// Why Redis did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error(transparent)]
    Apalis(#[from] apalis_redis::Error),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    #[error("redis did not answer in time")]
    TimedOut,
}

/// What a worker is told: where to look, never what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wake {
    /// These rows of the ledger are due.
    Rows(Vec<Uuid>),
    /// Orders may be held until this second, counted from 1970.
    Deadline(i64),
}

/// A wake-up as a worker reads it, or nothing where somebody wrote nonsense.
#[derive(Debug)]
pub(super) struct Heard(pub(super) Option<Wake>);

/// A codec that reads everything: an error of the codec would end the worker, its successor would
/// be given the same wake-up, and so on for ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lenient;

impl Codec<Heard> for Lenient {
    type Error = Infallible;
    type Compact = Vec<u8>;

    fn encode(&self, heard: &Heard) -> Result<Vec<u8>, Infallible> {
        Ok(serde_json::to_vec(&heard.0).unwrap_or_default())
    }

    fn decode(&self, bytes: &Vec<u8>) -> Result<Heard, Infallible> {
        Ok(Heard(serde_json::from_slice(bytes).ok()))
    }
}

/// Writes a wake-up as apalis pushes it. A second one of the same id is ignored by Redis.
pub(crate) fn task(id: String, wake: &Wake, run_at: Option<u64>) -> Task<Vec<u8>> {
    let payload = serde_json::to_vec(wake).expect("uuids and integers are always JSON");
    let task = TaskBuilder::new(payload).task_id(TaskId::from_string(id));
    match run_at {
        Some(run_at) => task.run_at_timestamp(run_at).build(),
        None => task.build(),
    }
}

/// A connection for workers: patient, because a reply that comes late would cost the worker.
pub(super) fn connect_worker(url: &str) -> Result<ConnectionManager, BadUrl> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(2)))
        .set_response_timeout(Some(Duration::from_secs(10)))
        .set_number_of_retries(2)
        .set_max_delay(Duration::from_secs(1));
    connect(url, config)
}

/// A connection for those who send wake-ups: impatient, because a lost one is made good.
pub(crate) fn connect_relay(url: &str) -> Result<ConnectionManager, BadUrl> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(Duration::from_secs(2)))
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(200));
    connect(url, config)
}

fn connect(url: &str, config: ConnectionManagerConfig) -> Result<ConnectionManager, BadUrl> {
    Ok(ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?)
}

/// One lane in Redis. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    connection: ConnectionManager,
    config: Config,
    lane: Lane,
}

impl Queue {
    /// `concurrency` is that of the lane's worker; whoever only sends passes 1.
    pub(crate) fn new(
        connection: ConnectionManager,
        namespace: &str,
        lane: Lane,
        concurrency: usize,
    ) -> Self {
        let config = Config::default()
            // The braces keep all keys of a lane on one node where Redis is sharded by a proxy.
            .queue(format!("{{{namespace}}}:{}", lane.name()))
            // More than can be handled at once would wait in the worker, and while anything waits
            // there it neither says that it lives nor reports what is finished.
            .batch_size(concurrency)
            .heartbeat_interval(HEARTBEAT)
            .missed_heartbeats(HEARTBEATS_MISSED)
            // A lock per wake-up costs time in proportion to the backlog, and protects nothing that
            // the ledger's lease does not.
            .lock_tasks(false)
            .emit_events(false)
            // Without it nothing is ever acknowledged.
            .persist_results(true);
        Self { connection, config, lane }
    }

    pub(crate) const fn lane(&self) -> Lane {
        self.lane
    }

    pub(super) fn into_parts(self) -> (ConnectionManager, Config) {
        (self.connection, self.config)
    }

    /// Hands the wake-ups to Redis. An error may come after some or all of them were taken.
    pub(crate) async fn push(&self, tasks: &[Task<Vec<u8>>]) -> Result<(), QueueError> {
        let mut connection = self.connection.clone();
        for tasks in tasks.chunks(SCRIPT_MAX) {
            apalis_redis::queries::push_tasks(&mut connection, &self.config, tasks).await?;
        }
        Ok(())
    }

    /// Moves everything that is due to where workers look for it.
    pub(super) async fn promote(&self) -> Result<(), QueueError> {
        static PROMOTE: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                r"
                local ids = redis.call('zrangebyscore', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
                if #ids == 0 then return 0 end
                redis.call('rpush', KEYS[2], unpack(ids))
                redis.call('zrem', KEYS[1], unpack(ids))
                return #ids
                ",
            )
        });
        loop {
            let promoted: usize = PROMOTE
                .key(self.config.scheduled_jobs_set())
                .key(self.config.active_jobs_list())
                .arg(now())
                .arg(SCRIPT_MAX)
                .invoke_async(&mut self.connection.clone())
                .await?;
            if promoted < SCRIPT_MAX {
                return Ok(());
            }
        }
    }

    /// Gives back what a worker held that is no more, and forgets its name.
    ///
    /// Otherwise it would be given back after a minute, and the name's keys stay for ever.
    pub(super) async fn bury(&self, worker: &str) -> Result<(), QueueError> {
        static BURY: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                r"
                for _, id in ipairs(redis.call('smembers', KEYS[1])) do
                    local meta = KEYS[4] .. ':' .. id
                    local is_whole = redis.call('hexists', KEYS[3], id) == 1
                    if is_whole and redis.call('hincrby', meta, 'burials', 1) <= tonumber(ARGV[2]) then
                        redis.call('rpush', KEYS[2], id)
                    else
                        redis.call('hdel', KEYS[3], id)
                        redis.call('del', meta)
                    end
                end
                redis.call('del', KEYS[1], KEYS[6])
                redis.call('zrem', KEYS[5], ARGV[1])
                return 0
                ",
            )
        });
        let _: i64 = BURY
            .key(format!("{}:{worker}", self.config.inflight_jobs_set()))
            .key(self.config.active_jobs_list())
            .key(self.config.job_data_hash())
            .key(self.config.job_meta_hash())
            .key(self.config.workers_set())
            .key(format!("{}:metadata:{worker}", self.config.workers_set()))
            .arg(worker)
            .arg(BURIALS_MAX)
            .invoke_async(&mut self.connection.clone())
            .await?;
        Ok(())
    }

    /// Deletes the wake-ups that ended a while ago and returns how many; apalis keeps them for ever.
    pub(crate) async fn purge(&self) -> Result<u64, QueueError> {
        let mut purged = 0;
        for set in [self.config.done_jobs_set(), self.config.dead_jobs_set()] {
            purged += self.purge_set(&set).await?;
        }
        Ok(purged)
    }

    async fn purge_set(&self, set: &str) -> Result<u64, QueueError> {
        static PURGE: LazyLock<Script> = LazyLock::new(|| {
            Script::new(
                r"
                local purged = 0
                for i = 2, #ARGV do
                    local meta = KEYS[3] .. ':' .. ARGV[i]
                    local done_at = tonumber(redis.call('hget', meta, 'done_at') or '0')
                    if done_at <= tonumber(ARGV[1]) then
                        redis.call('srem', KEYS[1], ARGV[i])
                        redis.call('hdel', KEYS[2], ARGV[i])
                        redis.call('del', meta)
                        purged = purged + 1
                    end
                end
                return purged
                ",
            )
        });
        let mut connection = self.connection.clone();
        let done_before = now().saturating_sub(FINISHED_KEPT.as_secs());
        let (mut purged, mut cursor) = (0, 0_u64);
        loop {
            let (next, ids): (u64, Vec<String>) = redis::cmd("SSCAN")
                .arg(set)
                .arg(cursor)
                .arg("COUNT")
                .arg(SCRIPT_MAX)
                .query_async(&mut connection)
                .await?;
            purged += PURGE
                .key(set)
                .key(self.config.job_data_hash())
                .key(self.config.job_meta_hash())
                .arg(done_before)
                .arg(ids)
                .invoke_async::<u64>(&mut connection)
                .await?;
            cursor = next;
            if cursor == 0 {
                return Ok(purged);
            }
        }
    }

    /// Counts the wake-ups that are due and in nobody's hands.
    pub(crate) async fn backlog(&self) -> Result<u64, QueueError> {
        let (active, due): (u64, u64) = redis::pipe()
            .llen(self.config.active_jobs_list())
            .zcount(self.config.scheduled_jobs_set(), "-inf", now())
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(active + due)
    }
}

/// The second that apalis would call this one.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_is_read_as_it_was_written_and_nonsense_as_nothing() {
        let read = |bytes: &[u8]| Lenient.decode(&bytes.to_vec()).unwrap().0;

        assert_eq!(read(br#"{"deadline": 17}"#), Some(Wake::Deadline(17)));
        assert_eq!(read(br#"{"rows": []}"#), Some(Wake::Rows(Vec::new())));
        assert_eq!(read(br#"{"rows": [1]}"#), None);
        assert_eq!(read(b"\xff\x00 not even text"), None);

        let rows = Wake::Rows(vec![Uuid::now_v7()]);
        assert_eq!(read(&task("wake:1".to_owned(), &rows, None).args), Some(rows));
    }
}
