//! A shop for one scenario: a database of its own, the real API before it, and shoppers with tokens.

use std::{fmt, mem::take, net::SocketAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use holdfast::{
    identity::{self, GuestTokens, Hasher, Password, Role},
    kernel::EmailAddress,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    Outcome, Settings,
    database::{CURRENCY, Database, PRICE_MINOR},
    http::{Connection, Request},
    load::Basket,
    process::{Process, free_address},
};

/// How many accounts the logged-in clients share.
const ACCOUNTS: usize = 8;

/// What signs the provider's webhooks.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_bench";

#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) database: Database,
    pub(crate) address: SocketAddr,
    pub(crate) namespace: String,
    pub(crate) guests: Guests,
    /// Access tokens of some customers.
    pub(crate) customers: Vec<String>,
    redis_url: String,
    processes: Vec<Process>,
    environment: Vec<(&'static str, String)>,
}

impl Shop {
    /// Opens an empty shop whose orders are held as long as `hold` says.
    pub(crate) async fn open(settings: &Settings, hold: &str) -> Outcome<Self> {
        let database = Database::create(&settings.database_url).await?;
        let address = free_address()?;
        let namespace = format!("bench-{}", Uuid::new_v4().simple());
        let (guest_key, seed) = key_and_seed();
        let guests = GuestTokens::from_seeds(&[(KEY_NAME.to_owned(), seed)])?;
        let environment = vec![
            ("ENVIRONMENT", "development".to_owned()),
            ("DATABASE_URL", database.url()),
            ("REDIS_URL", settings.redis_url.clone()),
            ("LISTEN", address.to_string()),
            ("TOKEN_KEYS", key()),
            ("GUEST_TOKEN_KEYS", guest_key),
            ("HOLD", hold.to_owned()),
            // Counted as ever, and above what any client here asks for.
            ("LIMITS", "all:1000000/s:1000000".to_owned()),
            // Nobody asks Stripe for anything: its news is all that comes.
            ("STRIPE_KEYS", "sk_test_bench".to_owned()),
            ("STRIPE_WEBHOOK_SECRETS", WEBHOOK_SECRET.to_owned()),
            ("QUEUE_NAMESPACE", namespace.clone()),
            ("LOG", "warn".to_owned()),
        ];
        let mut shop = Self {
            database,
            address,
            namespace,
            guests: Guests(Arc::new(guests)),
            customers: Vec::new(),
            redis_url: settings.redis_url.clone(),
            processes: Vec::new(),
            environment,
        };
        shop.start("api").await?;
        shop.customers = customers(&shop.database.pool, address).await?;
        Ok(shop)
    }

    /// Starts one more of the shop's processes.
    pub(crate) async fn start(&mut self, name: &'static str) -> Outcome<()> {
        self.processes.push(Process::start(name, self.environment.clone()).await?);
        Ok(())
    }

    /// Starts so many processes of one name at the same time.
    pub(crate) async fn start_together(&mut self, name: &'static str, count: usize) -> Outcome<()> {
        let mut starting = JoinSet::new();
        for _ in 0..count {
            starting.spawn(Process::start(name, self.environment.clone()));
        }
        while let Some(process) = starting.join_next().await {
            self.processes.push(process??);
        }
        Ok(())
    }

    /// Ends the processes of that name; each must end well.
    pub(crate) async fn stop(&mut self, name: &str) -> Outcome<()> {
        let (named, others) = self.processes.drain(..).partition(|process| process.name() == name);
        self.processes = others;
        stop_all(named).await
    }

    /// Ends every process; each must end well.
    pub(crate) async fn stop_processes(&mut self) -> Outcome<()> {
        stop_all(take(&mut self.processes)).await
    }

    /// Clears the shop away, with what it left in Redis.
    pub(crate) async fn remove(mut self) -> Outcome<()> {
        self.stop_processes().await?;
        forget_wake_ups(&self.redis_url, &self.namespace).await?;
        self.database.remove().await
    }
}

async fn stop_all(mut processes: Vec<Process>) -> Outcome<()> {
    while let Some(process) = processes.pop() {
        process.stop().await?;
    }
    Ok(())
}

/// What the keys of tokens are called.
const KEY_NAME: &str = "bench";

/// A secret key for a process that lives some minutes.
fn key() -> String {
    key_and_seed().0
}

/// The same, and what it is made of.
fn key_and_seed() -> (String, [u8; 32]) {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    seed[16..].copy_from_slice(Uuid::new_v4().as_bytes());
    (format!("{KEY_NAME}:{}", BASE64_URL_SAFE_NO_PAD.encode(seed)), seed)
}

/// Makes guests as the API does, without asking it: a load of orders takes thousands.
#[derive(Clone)]
pub(crate) struct Guests(Arc<GuestTokens>);

impl Guests {
    /// A new guest's token, as long as every other's.
    pub(crate) fn token(&self) -> String {
        self.0.issue().token
    }
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guests")
    }
}

/// Opens some accounts; each costs two password hashes.
async fn customers(db: &PgPool, address: SocketAddr) -> Outcome<Vec<String>> {
    let hasher = Hasher::new(1);
    let mut connection = Connection::open(address).await?;
    let mut customers = Vec::with_capacity(ACCOUNTS);
    for account in 0..ACCOUNTS {
        let (email, password) =
            (format!("shopper-{account}@example.com"), Uuid::new_v4().to_string());
        let (address, secret) = (EmailAddress::parse(&email)?, Password::parse(&password)?);
        identity::create_user(db, &hasher, address, secret, Role::Customer).await?;
        let credentials = json!({ "email": email, "password": password });
        let request = Request::post("/v1/auth/login", Some(&credentials));
        customers.push(token(&mut connection, &request, "access_token").await?);
    }
    Ok(customers)
}

async fn token(connection: &mut Connection, request: &Request, name: &str) -> Outcome<String> {
    let answer = connection.ask(request).await?;
    let body: Value = serde_json::from_slice(answer.body)?;
    let token = body.get(name).and_then(Value::as_str).filter(|_| answer.status < 300);
    Ok(token.ok_or_else(|| format!("no token was given: {} {body}", answer.status))?.to_owned())
}

async fn forget_wake_ups(redis_url: &str, namespace: &str) -> Outcome<()> {
    let client = redis::Client::open(redis_url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let pattern = format!("{{{namespace}}}:*");
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(&pattern)
            .arg("COUNT")
            .arg(1_000)
            .query_async(&mut connection)
            .await?;
        if !keys.is_empty() {
            redis::cmd("UNLINK").arg(keys).exec_async(&mut connection).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// Where every parcel of the benchmark goes.
pub(crate) fn address() -> Value {
    json!({
        "name": "Ada Lovelace",
        "line1": "12 St James's Square",
        "city": "London",
        "postal_code": "SW1Y 4JH",
        "country": "GB",
    })
}

/// The e-mail address of every order.
pub(crate) const EMAIL: &str = "ada@example.com";

/// One order of these units, by the places of their SKUs in `variants`.
pub(crate) fn basket(variants: &[Uuid], units: &[(usize, i64)]) -> Basket {
    let lines: Vec<_> = units
        .iter()
        .map(|(sku, quantity)| json!({ "variant_id": variants[*sku], "quantity": quantity }))
        .collect();
    let total: i64 = units.iter().map(|(_, quantity)| quantity * PRICE_MINOR).sum();
    let body = json!({
        "email": EMAIL,
        "currency": CURRENCY,
        "expected_total": { "amount": total, "currency": CURRENCY },
        "lines": lines,
        "shipping_address": address(),
    });
    Basket { body, units: units.to_vec() }
}
