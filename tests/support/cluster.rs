//! A whole shop on this machine: real processes, a database and a queue of its own, and a mail server.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use holdfast::identity::GuestTokens;
use simulator::{
    inbox::Inbox,
    providers::{Addresses, Config, Provider, Providers},
};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::{
    ports::free_port,
    process::{Process, Recipe, Signal, env, eventually},
    roles::{as_app, grant, make_app_role},
};

/// What a test needs.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) apis: usize,
    pub(crate) reapers: usize,
    pub(crate) mailers: usize,
    pub(crate) webhooks: usize,
    /// How long an order keeps its stock.
    pub(crate) hold: Duration,
    pub(crate) postgres: Origin,
    pub(crate) redis: Origin,
}

impl Plan {
    /// Two APIs and one of each worker.
    pub(crate) const DEFAULT: Self = Self {
        apis: 2,
        reapers: 1,
        mailers: 1,
        webhooks: 0,
        hold: Duration::from_mins(15),
        postgres: Origin::Shared,
        redis: Origin::Shared,
    };
}

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The one of the test run: nobody may stop or empty it.
    Shared,
    /// One that lives and dies with the test.
    Own,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Api,
    Reaper,
    Mailer,
    Webhooks,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Reaper => "reaper",
            Self::Mailer => "mailer",
            Self::Webhooks => "webhooks",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Api => env!("CARGO_BIN_EXE_api"),
            Self::Reaper => env!("CARGO_BIN_EXE_reaper"),
            Self::Mailer => env!("CARGO_BIN_EXE_mailer"),
            Self::Webhooks => env!("CARGO_BIN_EXE_webhooks"),
        }
    }
}

/// The proof of who a guest is, made here as every API process would make it.
pub(crate) struct Guests(GuestTokens);

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guests")
    }
}

impl Guests {
    /// A new guest's id and token.
    pub(crate) fn issue(&self) -> (Uuid, String) {
        let guest = self.0.issue();
        (guest.guest_id.uuid(), guest.token)
    }
}

/// The name that every database of these tests begins with.
const DATABASE_PREFIX: &str = "holdfast_test_survive_";

/// How long a process takes at most until it is ready, on a machine that builds something else.
const START_MAX: Duration = Duration::from_secs(30);

/// More than any test asks for: what a budget does is shown elsewhere.
const CALLS_PER_SECOND: u32 = 500;

/// What signs access tokens, and what signs guests' tokens.
const SEED: [u8; 32] = [7; 32];
const GUEST_SEED: [u8; 32] = [8; 32];

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) apis: Vec<Process>,
    pub(crate) reapers: Vec<Process>,
    pub(crate) mailers: Vec<Process>,
    pub(crate) webhooks: Vec<Process>,
    pub(crate) db: PgPool,
    pub(crate) inbox: Inbox,
    /// Their webhooks go to the first API.
    pub(crate) providers: Arc<Providers>,
    pub(crate) guests: Arc<Guests>,
    /// Only where the plan asks for servers of the test's own.
    pub(crate) postgres: Option<Server>,
    pub(crate) redis: Option<Server>,
    pub(crate) redis_url: String,
    pub(crate) namespace: String,
    plan: Plan,
    started: usize,
    database_url: String,
    database: String,
    folder: PathBuf,
    /// One cluster at a time on this machine: they are heavy, and some measure time.
    _turn: File,
}

impl Cluster {
    /// Starts everything the plan names, and waits until all of it is ready.
    pub(crate) async fn start(plan: Plan) -> Self {
        let turn = take_turn();
        let namespace = Uuid::now_v7().simple().to_string();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("survive").join(&namespace);
        fs::create_dir_all(&folder).unwrap();
        let postgres = server(Kind::Postgres, plan.postgres, &folder).await;
        let redis = server(Kind::Redis, plan.redis, &folder).await;
        let server_url = url(postgres.as_ref(), Kind::Postgres);
        let database = format!("{DATABASE_PREFIX}{namespace}");
        let owner = create_database(&server_url, &database).await;
        let options = PgPoolOptions::new().max_connections(4).acquire_timeout(START_MAX);
        let db = options.connect_with(owner.clone()).await.unwrap();
        holdfast::MIGRATOR.run(&db).await.unwrap();
        grant(&db).await;
        let guests = GuestTokens::from_seeds(&[("test".to_owned(), GUEST_SEED)]).unwrap();

        let mut cluster = Self {
            apis: Vec::new(),
            reapers: Vec::new(),
            mailers: Vec::new(),
            webhooks: Vec::new(),
            db,
            inbox: Inbox::start(any_port(), any_port()).await.unwrap(),
            providers: Arc::new(
                Providers::start(Addresses::any(), Config::default()).await.unwrap(),
            ),
            guests: Arc::new(Guests(guests)),
            redis_url: url(redis.as_ref(), Kind::Redis),
            postgres,
            redis,
            namespace,
            started: 0,
            database_url: as_app(&owner).to_url_lossy().to_string(),
            database,
            folder,
            _turn: turn,
            plan: plan.clone(),
        };
        cluster.apis = cluster.start_some(Role::Api, plan.apis);
        cluster.reapers = cluster.start_some(Role::Reaper, plan.reapers);
        cluster.mailers = cluster.start_some(Role::Mailer, plan.mailers);
        cluster.webhooks = cluster.start_some(Role::Webhooks, plan.webhooks);
        if plan.apis > 0 {
            cluster.send_webhooks_to(0);
        }
        for process in cluster.processes_mut() {
            ready(process).await;
        }
        cluster
    }

    fn start_some(&mut self, role: Role, count: usize) -> Vec<Process> {
        (0..count).map(|_| Process::start(self.recipe(role, None))).collect()
    }

    /// Starts one more process and waits until it is ready.
    pub(crate) async fn add(&mut self, role: Role) {
        let mut process = Process::start(self.recipe(role, None));
        ready(&mut process).await;
        self.of(role).push(process);
    }

    /// Starts one more process, which dies when it passes `failpoint` (`name` or `name:n`).
    pub(crate) async fn add_doomed(&mut self, role: Role, failpoint: &str) {
        let mut process = Process::start(self.recipe(role, Some(failpoint)));
        // A worker that finds its work at once may be gone before anybody sees it ready.
        if role == Role::Api {
            ready(&mut process).await;
        }
        self.of(role).push(process);
    }

    pub(crate) fn of(&mut self, role: Role) -> &mut Vec<Process> {
        match role {
            Role::Api => &mut self.apis,
            Role::Reaper => &mut self.reapers,
            Role::Mailer => &mut self.mailers,
            Role::Webhooks => &mut self.webhooks,
        }
    }

    fn recipe(&mut self, role: Role, failpoint: Option<&str>) -> Recipe {
        self.started += 1;
        let name = format!("{}-{}", role.name(), self.started);
        let key = |seed| format!("test:{}", BASE64_URL_SAFE_NO_PAD.encode(seed));
        let mut settings = vec![
            ("ENVIRONMENT", "development".to_owned()),
            ("DATABASE_URL", self.database_url.clone()),
            ("REDIS_URL", self.redis_url.clone()),
            ("QUEUE_NAMESPACE", self.namespace.clone()),
            ("HEALTH_LISTEN", free_port().to_string()),
            ("LOG", "info,holdfast::worker=warn,apalis_core=warn".to_owned()),
            ("LOG_FORMAT", "text".to_owned()),
        ];
        match role {
            Role::Api => {
                settings.extend([
                    ("LISTEN", free_port().to_string()),
                    ("HOLD", format!("{}s", self.plan.hold.as_secs())),
                    ("TOKEN_KEYS", key(SEED)),
                    ("GUEST_TOKEN_KEYS", key(GUEST_SEED)),
                    // What a client may use is shown elsewhere.
                    ("LIMITS", "all:1000000/s:1000000".to_owned()),
                    // A race whose start is held up on purpose is no overload.
                    ("CONCURRENCY", "65536".to_owned()),
                ]);
                settings.extend(provider_settings(&self.providers));
            }
            Role::Reaper | Role::Webhooks => settings.extend(provider_settings(&self.providers)),
            Role::Mailer => settings.extend([
                ("SMTP_URL", format!("smtp://{}", self.inbox.smtp_addr())),
                ("MAIL_FROM", "The Shop <orders@shop.example>".to_owned()),
                ("SHOP_NAME", "The Shop".to_owned()),
                ("SHOP_URL", "https://shop.example".to_owned()),
            ]),
        }
        settings.extend(failpoint.map(|name| ("FAILPOINT", name.to_owned())));
        Recipe {
            log: self.folder.join(format!("{name}.log")),
            name,
            program: role.program().into(),
            arguments: Vec::new(),
            settings,
        }
    }

    fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        let workers = self.reapers.iter_mut().chain(&mut self.mailers).chain(&mut self.webhooks);
        self.apis.iter_mut().chain(workers)
    }

    /// Where the API processes listen, those that are down included.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.apis.iter().map(address).collect()
    }

    /// Has the providers send their webhooks to that API from now on.
    pub(crate) fn send_webhooks_to(&self, api: usize) {
        self.providers.set_webhook_base(&format!("http://{}", address(&self.apis[api])));
    }

    /// Starts a process again that has ended, without the failpoint it may have had.
    pub(crate) async fn revive(&mut self, role: Role, place: usize) {
        self.start_again(role, place, None).await;
    }

    /// Starts a process anew, so that it dies when it passes `failpoint` (`name` or `name:n`). It must
    /// have nothing to do before it is ready.
    pub(crate) async fn doom(&mut self, role: Role, place: usize, failpoint: &str) {
        self.start_again(role, place, Some(failpoint)).await;
    }

    async fn start_again(&mut self, role: Role, place: usize, failpoint: Option<&str>) {
        let process = &mut self.of(role)[place];
        process.set("FAILPOINT", failpoint.map(str::to_owned));
        process.restart().await;
        ready(process).await;
    }

    /// Ends every process as an operator would, and asserts that none minds.
    pub(crate) async fn stop(mut self) {
        for process in self.processes_mut() {
            process.signal(Signal::Terminate);
        }
        for process in self.processes_mut() {
            let status = process.ended(Duration::from_secs(30)).await;
            assert!(status.success(), "{} ended with {status}", process.name());
        }
        self.db.close().await;
        if self.postgres.is_none() {
            let options: PgConnectOptions = url(None, Kind::Postgres).parse().unwrap();
            let mut server = options.connect().await.unwrap();
            drop_database(&mut server, &self.database).await;
            server.close().await.unwrap();
        }
        for server in [&mut self.postgres, &mut self.redis].into_iter().flatten() {
            server.stop(Signal::Kill).await;
        }
        // What is left is of use to nobody, and of no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How a process reaches the simulated providers.
fn provider_settings(providers: &Providers) -> [(&'static str, String); 8] {
    let config = providers.config();
    let keys = format!("{}:{}", config.razorpay_key_id, config.razorpay_key_secret);
    [
        ("STRIPE_URL", providers.url(Provider::Stripe)),
        ("STRIPE_KEYS", config.stripe_key.clone()),
        ("STRIPE_WEBHOOK_SECRETS", config.stripe_webhook_secrets.join(",")),
        ("STRIPE_RATE", CALLS_PER_SECOND.to_string()),
        ("RAZORPAY_URL", providers.url(Provider::Razorpay)),
        ("RAZORPAY_KEYS", keys),
        ("RAZORPAY_WEBHOOK_SECRETS", config.razorpay_webhook_secret.clone()),
        ("RAZORPAY_RATE", CALLS_PER_SECOND.to_string()),
    ]
}

/// Where the process answers shoppers.
pub(crate) fn address(api: &Process) -> SocketAddr {
    api.setting("LISTEN").and_then(|address| address.parse().ok()).expect("an API listens")
}

/// Whether the process gives the health check of that path a good mark.
pub(crate) async fn is_healthy(process: &Process, path: &str) -> bool {
    let address = process.setting("HEALTH_LISTEN").expect("every process tells its health");
    let asked = simulator::get(format!("http://{address}{path}")).await;
    asked.is_ok_and(|response| response.status().is_success())
}

/// The sum of the process's counters of that name.
pub(crate) async fn counter(process: &Process, name: &str) -> u64 {
    let address = process.setting("HEALTH_LISTEN").expect("every process has metrics");
    let metrics = simulator::get(format!("http://{address}/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let samples = metrics.lines().filter_map(|line| {
        let (sample, value) = line.rsplit_once(' ')?;
        let (known, _) = sample.split_once('{').unwrap_or((sample, ""));
        (known == name).then(|| value.parse::<u64>().ok())?
    });
    samples.sum()
}

/// Waits until the process says that it is ready.
pub(crate) async fn ready(process: &mut Process) {
    let what = format!("{} is ready", process.name());
    eventually(&what, START_MAX, async || {
        assert!(!process.has_ended(), "{} has ended:\n{}", process.name(), process.log());
        is_healthy(process, "/readyz").await.then_some(())
    })
    .await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Redis,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// The setting that names the server of the test run.
    const fn setting(self) -> &'static str {
        match self {
            Self::Postgres => "DATABASE_URL",
            Self::Redis => "REDIS_URL",
        }
    }
}

/// A PostgreSQL or a Redis of the test's own.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    url: String,
    kind: Kind,
    folder: PathBuf,
}

impl Server {
    async fn start(kind: Kind, folder: PathBuf, log: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let mut settings: Vec<_> = ["HOME", "USER", "LANG"]
            .into_iter()
            .filter_map(|name| Some((name, env(name)?)))
            .collect();
        // A server that is to be killed must keep what it acknowledged, as in production.
        settings.push(("DEV_DURABLE", "1".to_owned()));
        let recipe = Recipe {
            name: kind.name().to_owned(),
            program: PathBuf::from("./dev"),
            arguments: vec![kind.name().to_owned(), folder.display().to_string()],
            settings,
            log,
        };
        let process = Process::start(recipe);
        let mut server = Self { process, url: String::new(), kind, folder };
        server.answers().await;
        server
    }

    /// Starts it again, over the data that the last run left.
    pub(crate) async fn start_again(&mut self) {
        self.process.restart().await;
        self.answers().await;
    }

    /// Waits until it answers. One that was killed may have left children who keep the next one from
    /// starting for a moment.
    async fn answers(&mut self) {
        let what = format!("{} answers", self.kind.name());
        self.url = eventually(&what, START_MAX, async || {
            if self.process.has_ended() {
                self.process.restart().await;
            }
            let url = fs::read_to_string(self.folder.join("url")).ok()?.trim().to_owned();
            let answered = match self.kind {
                Kind::Postgres => PgConnection::connect(&url).await.is_ok(),
                Kind::Redis => redis_answers(&url).await,
            };
            answered.then_some(url)
        })
        .await;
    }

    /// Stops it and waits until it is gone.
    pub(crate) async fn stop(&mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.ended(START_MAX).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its last processes may still write: what is left then is a folder in the machine's place for such.
        self.process.signal(Signal::Kill);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn redis_answers(url: &str) -> bool {
    let Ok(client) = redis::Client::open(url) else { return false };
    let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
    redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
}

/// A server of the test's own if the plan wants one, or if the test run has none.
async fn server(kind: Kind, origin: Origin, folder: &Path) -> Option<Server> {
    if origin == Origin::Shared && env(kind.setting()).is_some() {
        return None;
    }
    let name = kind.name();
    // A socket's path may have a hundred characters only, and a build folder's alone may be longer.
    let home = std::env::temp_dir().join(format!("holdfast-{name}-{}", Uuid::now_v7().simple()));
    Some(Server::start(kind, home, folder.join(format!("{name}.log"))).await)
}

fn url(server: Option<&Server>, kind: Kind) -> String {
    match server {
        Some(server) => server.url.clone(),
        None => env(kind.setting()).expect("without a server of the test's own there is a setting"),
    }
}

/// Makes an empty database, and says how its owner gets in. What earlier runs left behind is removed.
async fn create_database(server_url: &str, name: &str) -> PgConnectOptions {
    let options: PgConnectOptions = server_url.parse().unwrap();
    let mut server = options.connect().await.unwrap();
    let stale: Vec<String> = sqlx::query_scalar(
        "
        SELECT datname
        FROM pg_database
        WHERE starts_with(datname, $1)
            AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE pg_stat_activity.datname = pg_database.datname)
        ",
    )
    .bind(DATABASE_PREFIX)
    .fetch_all(&mut server)
    .await
    .unwrap();
    for name in &stale {
        drop_database(&mut server, name).await;
    }
    // The name is made of letters, digits and underscores only.
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut server)
        .await
        .unwrap();
    make_app_role(&mut server, &options).await;
    server.close().await.unwrap();
    options.database(name)
}

async fn drop_database(server: &mut PgConnection, name: &str) {
    sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")))
        .execute(server)
        .await
        .unwrap();
}

/// Waits for the turn of this test; the file is let go with the cluster, or with the process.
fn take_turn() -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("survive.lock");
    let turn = File::options().create(true).truncate(false).write(true).open(path).unwrap();
    turn.lock().unwrap();
    turn
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}
