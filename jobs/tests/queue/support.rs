//! A database of its own for each test, keys of its own in Redis, and jobs to stage.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use jobs::{Delay, Relay, Staged, notifications::SendOrderReceived};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

/// Long enough for a busy machine, short enough to wait for when something is broken.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// What one test works with.
pub(crate) struct Place {
    pub(crate) db: PgPool,
    pub(crate) redis_url: String,
    pub(crate) namespace: String,
}

/// Runs the test in a database of its own, which is dropped even if the test fails.
pub(crate) async fn run(test: impl AsyncFnOnce(&mut Place)) {
    let options: PgConnectOptions = setting("DATABASE_URL").parse().unwrap();
    let name = format!("holdfast_test_{}", Uuid::now_v7().simple());
    let mut admin =
        PgConnection::connect_with(&options.clone().database("postgres")).await.unwrap();
    execute(&mut admin, format!("CREATE DATABASE {name}")).await;

    let db = PgPoolOptions::new()
        .max_connections(20)
        .connect_with(options.database(&name))
        .await
        .unwrap();
    let mut place = Place { db, redis_url: setting("REDIS_URL"), namespace: name.clone() };
    let outcome = AssertUnwindSafe(async {
        sqlx::migrate!("../migrations").run(&place.db).await.unwrap();
        test(&mut place).await;
    })
    .catch_unwind()
    .await;

    place.db.close().await;
    execute(&mut admin, format!("DROP DATABASE {name} WITH (FORCE)")).await;
    forget(&place).await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

impl Place {
    /// Makes the test use a Redis that nobody else does.
    pub(crate) fn use_redis(&mut self, redis: &OwnRedis) {
        self.redis_url = redis.url();
    }

    pub(crate) fn relay(&self) -> Relay {
        Relay::start(&self.redis_url, &self.namespace).unwrap()
    }

    pub(crate) async fn stage(&self, jobs: &[SendOrderReceived], delay: Delay) -> Staged {
        let mut tx = self.db.begin().await.unwrap();
        let staged = jobs::stage(&mut tx, jobs, delay).await.unwrap();
        tx.commit().await.unwrap();
        staged
    }

    /// Lets every row's wake-up be overdue, as if its time had passed.
    pub(crate) async fn age_wake_ups(&self) {
        sqlx::query("UPDATE job_ledger SET next_push_at = now() WHERE state = 'ready'")
            .execute(&self.db)
            .await
            .unwrap();
    }

    /// Lets the worker of every claimed row be lost.
    pub(crate) async fn expire_leases(&self) {
        sqlx::query("UPDATE job_ledger SET lease_until = now() WHERE lease_until IS NOT NULL")
            .execute(&self.db)
            .await
            .unwrap();
    }

    pub(crate) async fn count(&self, state: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM job_ledger WHERE state = $1")
            .bind(state)
            .fetch_one(&self.db)
            .await
            .unwrap()
    }

    pub(crate) async fn show(&self, id: Uuid) -> jobs::ledger::Row {
        jobs::ledger::show(&self.db, id).await.unwrap().unwrap()
    }

    pub(crate) async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(&*self.redis_url).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// The name of a lane's keys in Redis, as operators know it.
    pub(crate) fn key(&self, lane: &str, suffix: &str) -> String {
        format!("{{{}}}:{lane}:{suffix}", self.namespace)
    }
}

/// Jobs of that many orders.
pub(crate) fn orders(count: usize) -> Vec<SendOrderReceived> {
    (0..count).map(|_| SendOrderReceived { order_id: Uuid::now_v7() }).collect()
}

/// Waits until `holds` is true.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A Redis server that a test may flush and stop, by `./dev redis`.
pub(crate) struct OwnRedis {
    folder: PathBuf,
    server: Option<Child>,
}

impl OwnRedis {
    /// Has an address; nobody answers there yet.
    pub(crate) async fn absent() -> Self {
        let mut redis = Self::started().await;
        redis.stop();
        redis
    }

    pub(crate) async fn started() -> Self {
        let folder = std::env::temp_dir().join(format!("holdfast-redis-{}", Uuid::now_v7()));
        let mut redis = Self { folder, server: None };
        redis.start().await;
        redis
    }

    pub(crate) async fn start(&mut self) {
        let server = Command::new("../dev")
            .arg("redis")
            .arg(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(server);
        eventually("the redis of the test starts", async || {
            let Ok(client) = redis::Client::open(self.url()) else { return false };
            let Ok(mut redis) = client.get_multiplexed_async_connection().await else {
                return false;
            };
            redis::cmd("PING").exec_async(&mut redis).await.is_ok()
        })
        .await;
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Empty until the server has started once.
    fn url(&self) -> String {
        let url = std::fs::read_to_string(self.folder.join("url")).unwrap_or_default();
        url.trim().to_owned()
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn execute(admin: &mut PgConnection, statement: String) {
    sqlx::query(AssertSqlSafe(statement)).execute(admin).await.unwrap();
}

/// Deletes the test's keys, if its Redis is still there.
async fn forget(place: &Place) {
    let client = redis::Client::open(&*place.redis_url).unwrap();
    let Ok(mut redis) = client.get_multiplexed_async_connection().await else { return };
    let pattern = format!("{{{}}}:*", place.namespace);
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
    for keys in keys.chunks(1_000) {
        redis::cmd("DEL").arg(keys).exec_async(&mut redis).await.unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "where the servers are is all a test needs to know")]
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}
