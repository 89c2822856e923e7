//! The shop in this process: the real edge on a socket, the real workers, a database and a queue of
//! its own, and a mail server that keeps what it is sent.

use std::{
    net::{Ipv4Addr, SocketAddr},
    panic::{AssertUnwindSafe, resume_unwind},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use holdfast::{
    assembly, boot,
    config::{self, HOLD_DEFAULT, Keys, LogFormat},
    context::Context,
    doctor, fleet,
    identity::{self, Hasher, Password, Role},
    kernel::EmailAddress,
    web::server,
    worker::Pulse,
};
use jobs::transport::RunError;
use secrecy::SecretString;
use serde_json::json;
use simulator::{
    inbox::{Inbox, Mail},
    providers::{Addresses, Config, Provider, Providers},
};
use sqlx::{
    ConnectOptions, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    client::{Client, until},
    roles::as_app,
    server::{SERVERS, create_database, drop_database, forget_queue},
    shop::Variant,
};

/// A test that takes longer hangs, however slow the machine is.
const TEST_MAX: Duration = Duration::from_mins(4);

/// Whoever stops in time has drained.
const STOP_MAX: Duration = Duration::from_secs(30);

/// More than any test asks for: what a budget does is shown elsewhere.
const CALLS_PER_SECOND: u32 = 500;

/// The same for the limits of what one client may use.
pub(crate) const NO_LIMITS: &str = "all:1000000/s:1000000";

/// Where the shop's pages are in these tests.
pub(crate) const ORIGIN: &str = "https://shop.example";

/// What every password is in these tests.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// What signs every token in these tests, and the setting that says so.
pub(crate) const SEED: [u8; 32] = [7; 32];
pub(crate) const KEYS: &str = "test:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
pub(crate) const GUEST_KEYS: &str = "test:CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg";

pub(crate) struct TestApp {
    /// The test's own look behind the API, as the owner of everything.
    pub(crate) db: PgPool,
    /// What the API's use cases work with.
    pub(crate) cx: Context,
    pub(crate) inbox: Inbox,
    /// A Stripe and a Razorpay of the test's own; their webhooks come to this shop.
    pub(crate) providers: Providers,
    /// As the processes get in.
    pub(crate) database_url: String,
    /// As the one who migrates gets in.
    pub(crate) owner_url: String,
    pub(crate) address: SocketAddr,
    anybody: Client,
    database: String,
    namespace: String,
    shutdown: CancellationToken,
    server: JoinHandle<server::Drain>,
    workers: Mutex<Workers>,
    may_leave_jobs: AtomicBool,
}

/// The workers that run.
#[derive(Default)]
struct Workers {
    tasks: Vec<JoinHandle<Result<(), RunError>>>,
    shutdown: CancellationToken,
}

impl Workers {
    async fn stop(&mut self) {
        self.shutdown.cancel();
        for worker in self.tasks.drain(..) {
            worker.await.unwrap().unwrap();
        }
    }
}

impl TestApp {
    /// Gives the test a shop; afterwards all work is done, every invariant holds, and the shop is gone.
    pub(crate) async fn run(test: impl AsyncFnOnce(&Self)) {
        Self::run_holding(HOLD_DEFAULT, test).await;
    }

    /// The same, in a shop whose orders keep their stock that long.
    pub(crate) async fn run_holding(hold: Duration, test: impl AsyncFnOnce(&Self)) {
        Self::run_within(TEST_MAX, hold, test).await;
    }

    /// The same, for a test that may take that long.
    pub(crate) async fn run_within(
        time_max: Duration,
        hold: Duration,
        test: impl AsyncFnOnce(&Self),
    ) {
        let app = Self::start(hold).await;
        let journey = async {
            test(&app).await;
            app.assert_all_is_well().await;
        };
        let journey = AssertUnwindSafe(timeout(time_max, journey)).catch_unwind();
        let outcome = journey.await;
        app.stop(matches!(outcome, Ok(Ok(())))).await;
        match outcome {
            Ok(ended) => ended.expect("the journey ends in time"),
            Err(panic) => resume_unwind(panic),
        }
    }

    async fn start(hold: Duration) -> Self {
        show_warnings();
        let (database, options) = create_database().await;
        let owner_url = options.to_url_lossy().to_string();
        let database_url = as_app(&options).to_url_lossy().to_string();
        let namespace = database.clone();
        let providers = Providers::start(Addresses::any(), Config::default()).await.unwrap();
        let settings = api(&database_url, &namespace, hold, &providers);
        let cx = boot::context(&settings).unwrap();
        let listener = TcpListener::bind(settings.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        providers.set_webhook_base(&format!("http://{address}"));
        let shutdown = CancellationToken::new();
        let app = assembly::app(cx.clone(), &settings).unwrap();
        let (limits, scheme) = (server::Limits::default(), assembly::scheme(&settings));
        let server = server::serve(listener, app, limits, scheme, shutdown.clone());
        let server = tokio::spawn(server);
        Self {
            db: PgPoolOptions::new().max_connections(4).connect_lazy_with(options),
            cx,
            inbox: Inbox::start(any_port(), any_port()).await.unwrap(),
            providers,
            database_url,
            owner_url,
            address,
            anybody: Client::new(&format!("http://{address}")),
            database,
            namespace,
            shutdown,
            server,
            workers: Mutex::default(),
            may_leave_jobs: AtomicBool::new(false),
        }
    }

    /// Starts another API process of this shop, with a view of its own of the outside world.
    pub(crate) async fn another_api(&self, cx: Context) -> Client {
        self.another_api_with(cx, |_| ()).await
    }

    /// The same with other settings.
    pub(crate) async fn another_api_with(
        &self,
        cx: Context,
        change: impl FnOnce(&mut config::Api),
    ) -> Client {
        let address = self.open(cx, change, server::Limits::default()).await;
        Client::new(&format!("http://{address}"))
    }

    /// Starts another API process of this shop, whose connections have these limits.
    pub(crate) async fn open(
        &self,
        cx: Context,
        change: impl FnOnce(&mut config::Api),
        limits: server::Limits,
    ) -> SocketAddr {
        let mut settings = api(&self.database_url, &self.namespace, cx.hold, &self.providers);
        change(&mut settings);
        let listener = TcpListener::bind(settings.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = assembly::app(cx, &settings).unwrap();
        let scheme = assembly::scheme(&settings);
        tokio::spawn(server::serve(listener, app, limits, scheme, self.shutdown.clone()));
        address
    }

    /// Starts one of each worker, unless they work already.
    pub(crate) async fn start_workers(&self) {
        let mut workers = self.workers.lock().await;
        if !workers.tasks.is_empty() {
            return;
        }
        workers.shutdown = self.shutdown.child_token();
        let mailer = config::Mailer {
            common: common(&self.database_url, &self.namespace),
            mail: config::Mail {
                smtp_url: format!("smtp://{}", self.inbox.smtp_addr()).into(),
                from: "The Shop <orders@shop.example>".to_owned(),
                shop_name: "The Shop".to_owned(),
                shop_url: "https://shop.example".to_owned(),
            },
        };
        let webhooks = config::Webhooks {
            common: common(&self.database_url, &self.namespace),
            providers: provider_settings(&self.providers),
        };
        let mailer = boot::context(&mailer).unwrap();
        for (process, cx) in [
            (fleet::Process::Reaper, mailer.clone()),
            (fleet::Process::Mailer, mailer),
            (fleet::Process::Webhooks, boot::context(&webhooks).unwrap()),
        ] {
            let namespace = self.namespace.clone();
            let shutdown = workers.shutdown.clone();
            workers.tasks.push(tokio::spawn(async move {
                let redis_url = &SERVERS.redis_url;
                fleet::run(process, cx, redis_url, &namespace, Pulse::default(), shutdown).await
            }));
        }
    }

    /// Stops the workers, so that the test can do alone what they would do now and then.
    pub(crate) async fn stop_workers(&self) {
        timeout(STOP_MAX, self.workers.lock().await.stop()).await.expect("the workers stop");
    }

    /// Has everything that is due be done: no job is, and no order is overdue.
    pub(crate) async fn settle(&self) {
        if self.due().await == (0, 0) {
            return;
        }
        self.work_until("everything due is done", async || match self.due().await {
            (0, 0) => Ok(()),
            (jobs, orders) => Err(format!("{jobs} jobs are due and {orders} orders are overdue")),
        })
        .await;
    }

    /// Has the workers work until the condition holds. Those that it starts for that stop again, so that
    /// nothing happens behind the back of a test that did not start any.
    pub(crate) async fn work_until<T>(
        &self,
        what: &str,
        condition: impl AsyncFnMut() -> Result<T, String>,
    ) -> T {
        let work_already = !self.workers.lock().await.tasks.is_empty();
        self.start_workers().await;
        let outcome = until(what, condition).await;
        if !work_already {
            self.stop_workers().await;
        }
        outcome
    }

    /// Has everything be done, also what waits for a later attempt.
    pub(crate) async fn work_off(&self) {
        self.work_until("everything is done", async || {
            self.hurry().await;
            // Ending an order makes jobs.
            let overdue = "orders WHERE status = 'awaiting_payment' AND expires_at <= now()";
            let overdue = self.count(overdue).await;
            match (self.count("job_ledger WHERE state = 'ready'").await, overdue) {
                (0, 0) => Ok(()),
                (jobs, orders) => {
                    Err(format!("{jobs} jobs are left and {orders} orders are overdue"))
                }
            }
        })
        .await;
    }

    /// The jobs that are due, and the orders that are overdue.
    pub(crate) async fn due(&self) -> (i64, i64) {
        // Whom a busy machine's database had no time for, or who was too many at once, is not to wait.
        self.execute(
            "
            UPDATE job_ledger SET run_at = now(), next_push_at = now()
            WHERE state = 'ready' AND run_at > now() AND lease_until IS NULL
                AND (starts_with(last_error, 'temporarily-unavailable:') OR starts_with(last_error, 'busy:'))
            ",
        )
        .await;
        sqlx::query_as(
            "
            SELECT
                (SELECT count(*) FROM job_ledger WHERE state = 'ready' AND run_at <= now()),
                (SELECT count(*) FROM orders WHERE status = 'awaiting_payment' AND expires_at <= now())
            ",
        )
        .fetch_one(&self.db)
        .await
        .unwrap()
    }

    /// Lets every job that waits for a later attempt be due now.
    pub(crate) async fn hurry(&self) {
        self.execute(
            "UPDATE job_ledger SET run_at = now(), next_push_at = now()
             WHERE state = 'ready' AND lease_until IS NULL",
        )
        .await;
    }

    /// Lets time pass for webhooks that wait for what they are about.
    pub(crate) async fn age_webhooks(&self) {
        self.execute(
            "UPDATE provider_events SET received_at = received_at - interval '1 hour'
             WHERE state = 'new'",
        )
        .await;
        self.hurry().await;
    }

    /// Says that this test may end with jobs that are not done.
    pub(crate) fn expect_unfinished_jobs(&self) {
        self.may_leave_jobs.store(true, Ordering::Relaxed);
    }

    async fn assert_all_is_well(&self) {
        if !self.may_leave_jobs.load(Ordering::Relaxed) {
            self.settle().await;
            let unfinished: Vec<(String, String, Option<String>)> = sqlx::query_as(
                "SELECT kind, state, last_error FROM job_ledger WHERE state <> 'done'",
            )
            .fetch_all(&self.db)
            .await
            .unwrap();
            assert_eq!(
                unfinished,
                [],
                "every job is done at the end, unless the test says otherwise"
            );
        }
        let findings = doctor::examine(&self.db).await.unwrap();
        assert!(findings.is_empty(), "{findings:#?}");
    }

    /// Ends everything. After a test that failed nothing more is expected of it.
    async fn stop(self, is_well: bool) {
        self.shutdown.cancel();
        let mut workers = self.workers.into_inner();
        let stopped = timeout(STOP_MAX, async {
            workers.stop().await;
            assert_eq!(self.server.await.unwrap(), server::Drain::Clean);
        });
        let stopped = AssertUnwindSafe(stopped).catch_unwind().await;
        self.cx.db.close().await;
        self.db.close().await;
        drop_database(&self.database).await;
        forget_queue(&self.namespace).await;
        assert!(!is_well || matches!(stopped, Ok(Ok(()))), "the shop does not stop cleanly");
    }

    /// Somebody without a token.
    pub(crate) fn anybody(&self) -> Client {
        self.anybody.clone()
    }

    pub(crate) async fn guest(&self) -> Client {
        let answer = self.anybody.post("/v1/auth/guest", &json!(null)).await;
        answer.assert_status(201);
        let (token, id) = (answer.at("/token"), answer.at("/guest_id"));
        self.anybody
            .with_token(token.as_str().unwrap(), id.as_str().unwrap().parse::<Uuid>().unwrap())
    }

    pub(crate) async fn customer(&self) -> Client {
        self.somebody(Role::Customer).await
    }

    pub(crate) async fn staff(&self) -> Client {
        self.somebody(Role::Staff).await
    }

    pub(crate) async fn somebody(&self, role: Role) -> Client {
        let email = format!("{role}-{}@example.com", Uuid::now_v7().simple());
        self.user(&email, role).await;
        self.log_in(&email, PASSWORD).await
    }

    /// Adds somebody who can log in with the address and [`PASSWORD`].
    pub(crate) async fn user(&self, email: &str, role: Role) {
        let password = Password::parse(PASSWORD).unwrap();
        let address = EmailAddress::parse(email).unwrap();
        identity::create_user(&self.db, &Hasher::new(1), address, password, role).await.unwrap();
    }

    /// Logs in, which must succeed.
    pub(crate) async fn log_in(&self, email: &str, password: &str) -> Client {
        let credentials = json!({ "email": email, "password": password });
        let answer = self.anybody.post("/v1/auth/login", &credentials).await;
        answer.assert_status(200);
        let (token, id) = (answer.at("/access_token"), answer.at("/user_id"));
        self.anybody
            .with_token(token.as_str().unwrap(), id.as_str().unwrap().parse::<Uuid>().unwrap())
    }

    /// The mails about an order that were accepted so far, by the first part of their Message-ID.
    pub(crate) fn mails(&self, template: &str, order_id: Uuid) -> Vec<Mail> {
        let id = format!("{template}.{order_id}@shop.example");
        let mails = self.inbox.mails();
        mails.iter().filter(|mail| mail.message_id == id).map(|mail| (**mail).clone()).collect()
    }

    pub(crate) fn redis_url() -> &'static str {
        &SERVERS.redis_url
    }

    /// Has Redis forget all that it knows of this shop.
    pub(crate) async fn flush_redis(&self) {
        forget_queue(&self.namespace).await;
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.db).await.unwrap();
    }

    pub(crate) async fn scalar<T>(&self, sql: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap()
    }

    /// What the API works with, but that it waits for a lock for as long as a busy machine may take.
    pub(crate) fn patient(&self) -> Context {
        let options: PgConnectOptions = self.database_url.parse().unwrap();
        let options = options.options([("lock_timeout", "10s"), ("timezone", "UTC")]);
        let db = PgPoolOptions::new().max_connections(4).connect_lazy_with(options);
        Context { db, ..self.cx.clone() }
    }

    /// Keeps everybody else from selling the variant, until the transaction ends.
    pub(crate) async fn block(&self, variant: Variant) -> Transaction<'static, Postgres> {
        let mut tx = self.db.begin().await.unwrap();
        sqlx::query("SELECT FROM stock WHERE variant_id = $1 FOR UPDATE")
            .bind(variant.id)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx
    }

    /// Has somebody whom the holder keeps waiting wait in vain once, and then lets them go on. `None` if
    /// they gave up, as they may where the machine stalls.
    pub(crate) async fn hold_up<T>(
        &self,
        holder: Transaction<'_, Postgres>,
        held_up: impl Future<Output = T>,
    ) -> Option<T> {
        let attempt = async || -> Option<String> {
            self.scalar(
                "
                SELECT min(xact_start)::text
                FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'
                ",
            )
            .await
        };
        let waits_again = async {
            let first = until("somebody waits", async || {
                attempt().await.ok_or_else(|| "nobody does".to_owned())
            })
            .await;
            until("the second attempt", async || match attempt().await {
                Some(attempt) if attempt != first => Ok(()),
                attempt => Err(format!("{attempt:?}")),
            })
            .await;
        };
        let mut held_up = pin!(held_up);
        tokio::select! {
            _ = &mut held_up => return None,
            () = waits_again => holder.rollback().await.unwrap(),
        }
        Some(held_up.await)
    }

    /// Waits until somebody is kept waiting by [`block`](Self::block).
    pub(crate) async fn until_blocked(&self) {
        until("somebody waits for a lock", async || {
            let waiting: i64 = self
                .scalar(
                    "
                    SELECT count(*)
                    FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'
                    ",
                )
                .await;
            if waiting > 0 { Ok(()) } else { Err("nobody does".to_owned()) }
        })
        .await;
    }
}

fn api(database_url: &str, namespace: &str, hold: Duration, providers: &Providers) -> config::Api {
    config::Api {
        common: common(database_url, namespace),
        listen: any_port(),
        hold,
        token_keys: keys(),
        guest_token_keys: keys(),
        providers: provider_settings(providers),
        allowed_origins: vec![ORIGIN.to_owned()],
        limits: NO_LIMITS.parse().unwrap(),
        // A busy machine may pause for longer than Redis ever takes.
        limits_wait: Duration::from_secs(5),
        trusted_proxies: 0,
        concurrency: 640,
    }
}

/// How the shop reaches the simulated providers.
fn provider_settings(providers: &Providers) -> config::Providers {
    let known = providers.config();
    let stripe = config::Stripe {
        url: providers.url(Provider::Stripe),
        keys: vec![known.stripe_key.as_str().into()],
        webhook_secrets: secrets(&known.stripe_webhook_secrets),
        calls_per_second: CALLS_PER_SECOND,
    };
    let razorpay = config::Razorpay {
        url: providers.url(Provider::Razorpay),
        keys: vec![(known.razorpay_key_id.clone(), known.razorpay_key_secret.as_str().into())],
        webhook_secrets: secrets(std::slice::from_ref(&known.razorpay_webhook_secret)),
        calls_per_second: CALLS_PER_SECOND,
    };
    config::Providers { stripe: Some(stripe), razorpay: Some(razorpay) }
}

fn secrets(secrets: &[String]) -> Vec<SecretString> {
    secrets.iter().map(|secret| secret.as_str().into()).collect()
}

fn common(database_url: &str, namespace: &str) -> config::Common {
    config::Common {
        environment: config::Environment::Development,
        database_url: database_url.into(),
        database_pool: 8,
        redis_url: SecretString::from(&*SERVERS.redis_url),
        health_listen: any_port(),
        log: "info".to_owned(),
        log_format: LogFormat::Text,
        queue_namespace: namespace.to_owned(),
        failpoint: None,
    }
}

fn keys() -> Keys {
    Keys::new(vec![("test".to_owned(), SEED)])
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Shows what the shop warns of beside a test that fails.
fn show_warnings() {
    let filter = tracing_subscriber::EnvFilter::new("warn");
    // Only the first test of a process can.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}
