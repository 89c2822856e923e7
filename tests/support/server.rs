//! The servers that the shops of these tests stand on: a database and a queue for each test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, SystemTime},
};

use holdfast::{MIGRATOR, ctl::privileges::RULES};
use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool, postgres::PgConnectOptions,
};

use super::{
    client::until,
    roles::{grant, make_app_role},
};

/// Where the servers are, for every test of this process.
pub(crate) struct Servers {
    database_url: String,
    pub(crate) redis_url: String,
    /// Keeps the private servers' folder ours.
    _turn: Option<File>,
}

pub(crate) static SERVERS: LazyLock<Servers> = LazyLock::new(|| {
    if let (Some(database_url), Some(redis_url)) = (env("DATABASE_URL"), env("REDIS_URL")) {
        return Servers { database_url, redis_url, _turn: None };
    }
    let (turn, folder) = own_folder();
    Servers {
        database_url: env("DATABASE_URL").unwrap_or_else(|| start_server("postgres", &folder)),
        redis_url: env("REDIS_URL").unwrap_or_else(|| start_server("redis", &folder)),
        _turn: Some(turn),
    }
});

#[expect(clippy::disallowed_methods, reason = "where the servers are is all that a test is told")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A folder that no other process uses. It is used again by later runs, which spares them most of the start.
fn own_folder() -> (File, PathBuf) {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("journeys");
    for place in 0_u32.. {
        let folder = home.join(place.to_string());
        fs::create_dir_all(&folder).unwrap();
        let turn = folder.join("turn");
        let turn = File::options().create(true).truncate(false).write(true).open(turn).unwrap();
        if turn.try_lock().is_ok() {
            return (turn, folder);
        }
    }
    unreachable!("folders do not run out")
}

/// Runs a private server that ends with this process, and returns its URL once it listens.
#[expect(clippy::zombie_processes, reason = "it watches us and ends after us")]
fn start_server(kind: &str, folder: &Path) -> String {
    const START_MAX: Duration = Duration::from_mins(1);
    const PAUSE: Duration = Duration::from_millis(20);
    let url_file = folder.join(kind).join("url");
    // The last run's server is gone, and so is its address.
    let _ = fs::remove_file(&url_file);
    let log = File::create(folder.join(format!("{kind}.log"))).unwrap();
    let mut server = Command::new("./dev")
        .arg(kind)
        .arg(folder.join(kind))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let until = SystemTime::now() + START_MAX;
    while SystemTime::now() < until {
        assert_eq!(server.try_wait().unwrap(), None, "{kind} ended; see {}", folder.display());
        if let Some(url) = fs::read_to_string(&url_file).ok().filter(|url| listens(url)) {
            return url.trim().to_owned();
        }
        thread::sleep(PAUSE);
    }
    panic!("{kind} does not start; see {}", folder.display());
}

/// Whether somebody listens where the URL says, which ends in `@host:port/name`.
fn listens(url: &str) -> bool {
    let address = url.trim().rsplit_once('@').and_then(|(_, rest)| rest.split('/').next());
    address.is_some_and(|address| std::net::TcpStream::connect(address).is_ok())
}

/// What the names of these tests' databases begin with, and how long one may be of use to anybody.
const PREFIX: &str = "holdfast_test_journey_";
const STALE_AFTER: Duration = Duration::from_hours(1);

/// Makes a database with the schema and nothing in it, as a copy of one that is made once, and says how
/// its owner gets in.
pub(crate) async fn create_database() -> (String, PgConnectOptions) {
    let mut server = connect_to_server().await;
    let template = template(&mut server).await;
    drop_stale_databases(&mut server).await;
    let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let name = format!("{PREFIX}{second}_{:08x}", rand::random::<u32>());
    execute(&mut server, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    // What holds for a database itself is not copied.
    execute(&mut server, format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")).await;
    server.close().await.unwrap();
    let options: PgConnectOptions = SERVERS.database_url.parse().unwrap();
    (name.clone(), options.database(&name))
}

async fn connect_to_server() -> PgConnection {
    let options: PgConnectOptions = SERVERS.database_url.parse().unwrap();
    let options = options.database("postgres");
    // A private server may listen a moment before it answers.
    until("the database answers", async || {
        options.connect().await.map_err(|error| error.to_string())
    })
    .await
}

/// The database with today's migrations and privileges, made by whoever comes first.
async fn template(server: &mut PgConnection) -> String {
    // "journeys", as a number: whoever holds it makes a template.
    const LOCK: i64 = 0x6a6f_7572_6e65_7973;
    let mut hash = Sha256::new();
    for migration in MIGRATOR.iter() {
        hash.update(&migration.checksum);
    }
    hash.update(format!("{RULES:?}"));
    let hash = <[u8; 32]>::from(hash.finalize());
    let hash = u64::from_be_bytes(*hash.first_chunk().unwrap());
    let name = format!("holdfast_template_{hash:016x}");
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut *server).await.unwrap();
    let is_there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&name)
            .fetch_one(&mut *server)
            .await
            .unwrap();
    if !is_there {
        let draft = format!("{name}_draft");
        execute(server, format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await;
        execute(server, format!("CREATE DATABASE {draft}")).await;
        let options: PgConnectOptions = SERVERS.database_url.parse().unwrap();
        make_app_role(server, &options).await;
        let owner = PgPool::connect_with(options.database(&draft)).await.unwrap();
        MIGRATOR.run(&owner).await.unwrap();
        grant(&owner).await;
        owner.close().await;
        execute(server, format!("ALTER DATABASE {draft} RENAME TO {name}")).await;
    }
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(&mut *server).await.unwrap();
    name
}

/// Drops what runs that were killed have left behind.
async fn drop_stale_databases(server: &mut PgConnection) {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT datname FROM pg_database WHERE starts_with(datname, $1)")
            .bind(PREFIX)
            .fetch_all(&mut *server)
            .await
            .unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    for name in names {
        let born: Option<u64> =
            name[PREFIX.len()..].split('_').next().and_then(|second| second.parse().ok());
        if born.is_some_and(|second| now > Duration::from_secs(second) + STALE_AFTER) {
            // Another test may be at it, too.
            let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
            let _ = sqlx::query(drop).execute(&mut *server).await;
        }
    }
}

pub(crate) async fn drop_database(name: &str) {
    let mut server = connect_to_server().await;
    execute(&mut server, format!("DROP DATABASE {name} WITH (FORCE)")).await;
    server.close().await.unwrap();
}

async fn execute(server: &mut PgConnection, sql: String) {
    sqlx::query(AssertSqlSafe(sql)).execute(server).await.unwrap();
}

/// Removes the test's keys from Redis.
pub(crate) async fn forget_queue(namespace: &str) {
    let client = redis::Client::open(&*SERVERS.redis_url).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("*{namespace}*"))
            .arg("COUNT")
            .arg(1_000)
            .query_async(&mut redis)
            .await
            .unwrap();
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).exec_async(&mut redis).await.unwrap();
        }
        cursor = next;
        if cursor == 0 {
            return;
        }
    }
}
