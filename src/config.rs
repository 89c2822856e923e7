//! The settings of every process, from flags and the environment; nothing else reads the environment.
//!
//! Everything that is missing or wrong is told at once, a line each. No value is ever repeated in
//! such a line, nor shown by `--help` or `Debug`: half of them are secrets.

use std::{
    error::Error,
    fmt,
    io::IsTerminal,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::{Args, Parser};
use lettre::{AsyncSmtpTransport, Tokio1Executor, message::Mailbox};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

/// The hold where nobody says otherwise: a payment with a second factor takes some minutes.
pub const HOLD_DEFAULT: Duration = Duration::from_mins(15);

/// Below, no person could pay; above, a deadline is not a deadline.
const HOLD_MIN: Duration = Duration::from_secs(5);
const HOLD_MAX: Duration = Duration::from_hours(24);

/// PostgreSQL allows 100 connections unless told otherwise; no one process should take more than that.
const DATABASE_POOL_MAX: u32 = 100;

/// More than any provider allows an account unasked.
const CALLS_MAX: u32 = 1_000;

/// What a process is told from outside.
pub trait Settings: Sized {
    /// What the process is called: by the operator, by the database, in logs.
    const PROCESS: &'static str;

    /// Reads flags and environment. Ends the process for `--help` and unknown flags.
    fn read() -> Result<Self, BadSettings>;

    fn common(&self) -> &Common;

    fn hold(&self) -> Duration {
        HOLD_DEFAULT
    }

    /// How mails are sent, in the process that sends them.
    fn mail(&self) -> Option<&Mail> {
        None
    }

    /// How the payment providers are reached, in the processes that ask them.
    fn providers(&self) -> Option<&Providers> {
        None
    }
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSettings(Vec<String>);

impl BadSettings {
    /// A setting whose mistake shows only when it is used.
    pub fn wrong(name: &str, wanted: &str) -> Self {
        Self(vec![format!("{name} is wrong; it should be {wanted}")])
    }
}

impl fmt::Display for BadSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Error for BadSettings {}

/// What every process needs.
#[derive(Debug)]
pub struct Common {
    pub database_url: SecretString,
    pub database_pool: u32,
    pub redis_url: SecretString,
    pub health_listen: SocketAddr,
    pub log: String,
    pub log_format: LogFormat,
    pub queue_namespace: String,
    pub failpoint: Option<Failpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// A named point at which a test lets the process die, at the `n`th passing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failpoint {
    pub name: String,
    pub n: u32,
}

/// Named secrets of 32 bytes. The first signs, the others are still accepted.
pub struct Keys(Vec<(String, [u8; 32])>);

impl Keys {
    /// For whoever assembles the application without an environment.
    pub const fn new(keys: Vec<(String, [u8; 32])>) -> Self {
        Self(keys)
    }

    pub fn expose(&self) -> &[(String, [u8; 32])] {
        &self.0
    }
}

/// Written with the names only.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// The settings of `api`.
#[derive(Debug)]
pub struct Api {
    pub common: Common,
    pub listen: SocketAddr,
    pub hold: Duration,
    pub token_keys: Keys,
    pub guest_token_keys: Keys,
    pub providers: Providers,
}

/// The settings of `webhooks`.
#[derive(Debug)]
pub struct Webhooks {
    pub common: Common,
    pub providers: Providers,
}

/// The payment providers that are offered: those with keys. All keys are of one mode, live or test.
#[derive(Debug, Default)]
pub struct Providers {
    pub stripe: Option<Stripe>,
    pub razorpay: Option<Razorpay>,
}

/// How Stripe is reached.
#[derive(Debug)]
pub struct Stripe {
    pub url: String,
    pub keys: Vec<SecretString>,
    pub webhook_secrets: Vec<SecretString>,
    pub calls_per_second: u32,
}

/// How Razorpay is reached.
#[derive(Debug)]
pub struct Razorpay {
    pub url: String,
    /// Key ids with their secrets.
    pub keys: Vec<(String, SecretString)>,
    pub webhook_secrets: Vec<SecretString>,
    pub calls_per_second: u32,
}

/// The settings of `reaper`.
#[derive(Debug)]
pub struct Reaper {
    pub common: Common,
    pub providers: Providers,
}

/// The settings of `mailer`.
#[derive(Debug)]
pub struct Mailer {
    pub common: Common,
    pub mail: Mail,
}

/// How mails are sent, and in whose name.
#[derive(Debug)]
pub struct Mail {
    pub smtp_url: SecretString,
    pub from: String,
    pub shop_name: String,
    pub shop_url: String,
}

/// The settings of `ctl`.
#[derive(Debug, Args)]
pub struct Ctl {
    /// PostgreSQL: postgres://user:password@host:port/database
    #[arg(long, global = true, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<SecretString>,
}

impl Ctl {
    pub fn database_url(&self) -> Result<String, BadSettings> {
        let mut reading = Reading::default();
        let url = reading.database_url(self.database_url.as_ref());
        reading.finish(url.map(|url| url.expose_secret().to_owned()))
    }
}

#[derive(Args)]
struct CommonArguments {
    /// PostgreSQL: postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<SecretString>,
    /// Database connections of this process at most
    #[arg(long, env = "DATABASE_POOL", hide_env_values = true, value_name = "CONNECTIONS")]
    database_pool: Option<String>,
    /// Redis or Valkey: redis://:password@host:port/0
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    redis_url: Option<SecretString>,
    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "HEALTH_LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    health_listen: Option<String>,
    /// What to log: info, or debug,sqlx=warn [default: info]
    #[arg(long, env = "LOG", hide_env_values = true, value_name = "FILTER")]
    log: Option<String>,
    /// json or text [default: text on a terminal, else json]
    #[arg(long, env = "LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Prefix of this installation's keys in Redis [default: holdfast]
    #[arg(long, env = "QUEUE_NAMESPACE", hide_env_values = true, value_name = "NAME")]
    queue_namespace: Option<String>,
    /// For tests of debug builds: where to die, as name or name:n
    #[arg(long, env = "FAILPOINT", hide_env_values = true, value_name = "NAME[:N]")]
    failpoint: Option<String>,
}

/// Answers the HTTP API.
#[derive(Parser)]
#[command(name = "api", version)]
struct ApiArguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Address of the API
    #[arg(long, env = "LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    listen: Option<String>,
    /// How long an order keeps its stock unpaid: 15m, 90s, 2h [default: 15m]
    #[arg(long, env = "HOLD", hide_env_values = true, value_name = "TIME")]
    hold: Option<String>,
    /// Ed25519 keys of access tokens, the first signs: kid:base64url(seed),…
    #[arg(long, env = "TOKEN_KEYS", hide_env_values = true, value_name = "KEYS")]
    token_keys: Option<SecretString>,
    /// Keys of guest tokens, the first signs: kid:base64url(32 bytes),…
    #[arg(long, env = "GUEST_TOKEN_KEYS", hide_env_values = true, value_name = "KEYS")]
    guest_token_keys: Option<SecretString>,
    #[command(flatten)]
    providers: ProviderArguments,
}

/// Works on what the payment providers report.
#[derive(Parser)]
#[command(name = "webhooks", version)]
struct WebhooksArguments {
    #[command(flatten)]
    common: CommonArguments,
    #[command(flatten)]
    providers: ProviderArguments,
}

#[derive(Args)]
struct ProviderArguments {
    /// Stripe's API [default: the one of api.stripe.com]
    #[arg(long, env = "STRIPE_URL", hide_env_values = true, value_name = "URL")]
    stripe_url: Option<String>,
    /// Stripe's secret keys, the first is used; none: no Stripe
    #[arg(long, env = "STRIPE_KEYS", hide_env_values = true, value_name = "KEY,…")]
    stripe_keys: Option<SecretString>,
    /// What Stripe signs webhooks with, the newest first
    #[arg(long, env = "STRIPE_WEBHOOK_SECRETS", hide_env_values = true, value_name = "SECRET,…")]
    stripe_webhook_secrets: Option<SecretString>,
    /// Calls to Stripe each second at most, of all processes together [default: 20]
    #[arg(long, env = "STRIPE_RATE", hide_env_values = true, value_name = "CALLS")]
    stripe_rate: Option<String>,
    /// Razorpay's API [default: the one of api.razorpay.com]
    #[arg(long, env = "RAZORPAY_URL", hide_env_values = true, value_name = "URL")]
    razorpay_url: Option<String>,
    /// Razorpay's key ids and secrets, the first is used; none: no Razorpay
    #[arg(long, env = "RAZORPAY_KEYS", hide_env_values = true, value_name = "ID:SECRET,…")]
    razorpay_keys: Option<SecretString>,
    /// What Razorpay signs webhooks with, the newest first
    #[arg(long, env = "RAZORPAY_WEBHOOK_SECRETS", hide_env_values = true, value_name = "SECRET,…")]
    razorpay_webhook_secrets: Option<SecretString>,
    /// Calls to Razorpay each second at most, of all processes together [default: 10]
    #[arg(long, env = "RAZORPAY_RATE", hide_env_values = true, value_name = "CALLS")]
    razorpay_rate: Option<String>,
}

/// Ends what nobody paid for, pushes again what was lost on the way, and asks for what nobody told us.
#[derive(Parser)]
#[command(name = "reaper", version)]
struct ReaperArguments {
    #[command(flatten)]
    common: CommonArguments,
    #[command(flatten)]
    providers: ProviderArguments,
}

/// Sends the shop's mails.
#[derive(Parser)]
#[command(name = "mailer", version)]
struct MailerArguments {
    #[command(flatten)]
    common: CommonArguments,
    /// The mail server: smtp://[user:password@]host:port or smtps://…
    #[arg(long, env = "SMTP_URL", hide_env_values = true, value_name = "URL")]
    smtp_url: Option<SecretString>,
    /// Who the mails are from: Shop <orders@shop.example>
    #[arg(long, env = "MAIL_FROM", hide_env_values = true, value_name = "ADDRESS")]
    mail_from: Option<String>,
    /// What the shop is called in mails
    #[arg(long, env = "SHOP_NAME", hide_env_values = true, value_name = "NAME")]
    shop_name: Option<String>,
    /// Where shoppers find the shop, as a URL
    #[arg(long, env = "SHOP_URL", hide_env_values = true, value_name = "URL")]
    shop_url: Option<String>,
}

impl Settings for Api {
    const PROCESS: &'static str = "api";

    fn read() -> Result<Self, BadSettings> {
        Self::try_from(ApiArguments::parse())
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn hold(&self) -> Duration {
        self.hold
    }

    fn providers(&self) -> Option<&Providers> {
        Some(&self.providers)
    }
}

impl Settings for Webhooks {
    const PROCESS: &'static str = "webhooks";

    fn read() -> Result<Self, BadSettings> {
        Self::try_from(WebhooksArguments::parse())
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn providers(&self) -> Option<&Providers> {
        Some(&self.providers)
    }
}

impl Settings for Reaper {
    const PROCESS: &'static str = "reaper";

    fn read() -> Result<Self, BadSettings> {
        Self::try_from(ReaperArguments::parse())
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn providers(&self) -> Option<&Providers> {
        Some(&self.providers)
    }
}

impl Settings for Mailer {
    const PROCESS: &'static str = "mailer";

    fn read() -> Result<Self, BadSettings> {
        Self::try_from(MailerArguments::parse())
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn mail(&self) -> Option<&Mail> {
        Some(&self.mail)
    }
}

impl TryFrom<ApiArguments> for Api {
    type Error = BadSettings;

    fn try_from(arguments: ApiArguments) -> Result<Self, BadSettings> {
        // One batch is in flight at a time; the rest is for reads and logins.
        const POOL: &str = "10";
        const KEYS: &str = "comma-separated name:key, each name once, of at most 32 letters, digits \
                            and hyphens, each key 32 bytes in base64url";
        let mut reading = Reading::default();
        let common = reading.common(&arguments.common, POOL);
        let listen = reading.take("LISTEN", arguments.listen.as_deref(), ADDRESS, parse);
        let hold = given(arguments.hold.as_ref()).or(Some("15m"));
        let hold = reading.take("HOLD", hold, "a time from 5s to 24h, as 20s, 15m or 2h", time);
        let mut keys =
            |name, list: Option<&SecretString>| reading.take(name, list.map(expose), KEYS, keys);
        let token_keys = keys("TOKEN_KEYS", arguments.token_keys.as_ref());
        let guest_token_keys = keys("GUEST_TOKEN_KEYS", arguments.guest_token_keys.as_ref());
        let providers = reading.providers(&arguments.providers);
        let settings = || {
            Some(Self {
                common: common?,
                listen: listen?,
                hold: hold?,
                token_keys: token_keys?,
                guest_token_keys: guest_token_keys?,
                providers: providers?,
            })
        };
        reading.finish(settings())
    }
}

impl TryFrom<WebhooksArguments> for Webhooks {
    type Error = BadSettings;

    fn try_from(arguments: WebhooksArguments) -> Result<Self, BadSettings> {
        // No connection is held while a provider is asked; settling payments takes one each.
        const POOL: &str = "8";
        let mut reading = Reading::default();
        let common = reading.common(&arguments.common, POOL);
        let providers = reading.providers(&arguments.providers);
        let settings = || Some(Self { common: common?, providers: providers? });
        reading.finish(settings())
    }
}

impl TryFrom<ReaperArguments> for Reaper {
    type Error = BadSettings;

    fn try_from(arguments: ReaperArguments) -> Result<Self, BadSettings> {
        // Expiring, sweeping, pushing and purging each have one statement in flight, and reconciling a few.
        const POOL: &str = "10";
        let mut reading = Reading::default();
        let common = reading.common(&arguments.common, POOL);
        let providers = reading.providers(&arguments.providers);
        let settings = || Some(Self { common: common?, providers: providers? });
        reading.finish(settings())
    }
}

impl TryFrom<MailerArguments> for Mailer {
    type Error = BadSettings;

    fn try_from(arguments: MailerArguments) -> Result<Self, BadSettings> {
        // No connection is held while the mail server is asked.
        const POOL: &str = "5";
        let mut reading = Reading::default();
        let common = reading.common(&arguments.common, POOL);
        let smtp_url = arguments.smtp_url.as_ref().map(expose);
        let smtp_url = reading.take(
            "SMTP_URL",
            smtp_url,
            "a mail server as smtp://[user:password@]host:port or smtps://…",
            smtp,
        );
        let from = arguments.mail_from.as_deref();
        let from = reading.take(
            "MAIL_FROM",
            from,
            "an address as Shop <orders@shop.example>",
            mail_address,
        );
        let shop_name = arguments.shop_name.as_deref();
        let shop_name = reading.take("SHOP_NAME", shop_name, "what the shop is called", parse);
        let shop_url = arguments.shop_url.as_deref();
        let shop_url = reading.take("SHOP_URL", shop_url, "an https:// or http:// URL", web_url);
        let settings = || {
            let mail = Mail {
                smtp_url: smtp_url?,
                from: from?,
                shop_name: shop_name?,
                shop_url: shop_url?,
            };
            Some(Self { common: common?, mail })
        };
        reading.finish(settings())
    }
}

const ADDRESS: &str = "an address as 127.0.0.1:8080 or [::]:8080";

/// Reads settings and collects what is wrong with them.
#[derive(Default)]
struct Reading(Vec<String>);

impl Reading {
    fn common(&mut self, arguments: &CommonArguments, pool: &str) -> Option<Common> {
        let log = given(arguments.log.as_ref()).or(Some("info"));
        let pool = given(arguments.database_pool.as_ref()).or(Some(pool));
        let namespace = given(arguments.queue_namespace.as_ref()).or(Some("holdfast"));
        let format = given(arguments.log_format.as_ref()).or_else(|| Some(default_format()));
        let failpoint = given(arguments.failpoint.as_ref());

        let database_url = self.database_url(arguments.database_url.as_ref());
        let database_pool =
            self.take("DATABASE_POOL", pool, "a number of connections from 1 to 100", connections);
        let redis_url = arguments.redis_url.as_ref().map(expose);
        let redis_url =
            self.take("REDIS_URL", redis_url, "a URL as redis://:password@host:port/0", redis);
        let health_listen = arguments.health_listen.as_deref();
        let health_listen = self.take("HEALTH_LISTEN", health_listen, ADDRESS, parse);
        let log = self.take("LOG", log, "a filter as info or debug,sqlx=warn", filter);
        let log_format = self.take("LOG_FORMAT", format, "json or text", log_format);
        let queue_namespace = self.take(
            "QUEUE_NAMESPACE",
            namespace,
            "1 to 40 letters, digits, - or _",
            namespace_of,
        );
        let failpoint = match failpoint {
            None => Some(None),
            failpoint => self.take("FAILPOINT", failpoint, FAILPOINT, failpoint_of).map(Some),
        };
        Some(Common {
            database_url: database_url?,
            database_pool: database_pool?,
            redis_url: redis_url?,
            health_listen: health_listen?,
            log: log?,
            log_format: log_format?,
            queue_namespace: queue_namespace?,
            failpoint: failpoint?,
        })
    }

    fn providers(&mut self, arguments: &ProviderArguments) -> Option<Providers> {
        let problems = self.0.len();
        let stripe_keys = given_secret(arguments.stripe_keys.as_ref());
        let stripe = stripe_keys.and_then(|keys| self.stripe(keys, arguments));
        let razorpay_keys = given_secret(arguments.razorpay_keys.as_ref());
        let razorpay = razorpay_keys.and_then(|keys| self.razorpay(keys, arguments));
        if self.0.len() > problems {
            return None;
        }
        // Test money would pay for real goods.
        let stripe_mode = stripe.as_ref().and_then(|stripe| mode_of_stripe(&stripe.keys));
        let razorpay_mode = razorpay.as_ref().and_then(|razorpay| mode_of_razorpay(&razorpay.keys));
        if stripe_mode.zip(razorpay_mode).is_some_and(|(stripe, razorpay)| stripe != razorpay) {
            let line = "RAZORPAY_KEYS is wrong; it should be of STRIPE_KEYS' mode, live or test";
            self.0.push(line.to_owned());
            return None;
        }
        Some(Providers { stripe, razorpay })
    }

    fn stripe(&mut self, keys: &str, arguments: &ProviderArguments) -> Option<Stripe> {
        const KEYS: &str = "comma-separated secret keys of one mode, as sk_live_… or sk_test_…";
        // Stripe allows 25 calls a second in a sandbox, and in live mode for each kind of object
        // (docs.stripe.com/rate-limits). The rest is for the dashboard and for other programs.
        const RATE: &str = "20";
        let keys = self.take("STRIPE_KEYS", Some(keys), KEYS, stripe_keys);
        let url = given(arguments.stripe_url.as_ref()).or(Some("https://api.stripe.com"));
        let url = self.take("STRIPE_URL", url, PROVIDER_URL, provider_url);
        let rate = given(arguments.stripe_rate.as_ref()).or(Some(RATE));
        let rate = self.take("STRIPE_RATE", rate, CALLS, calls);
        let secrets = arguments.stripe_webhook_secrets.as_ref().map(expose);
        let secrets = self.take("STRIPE_WEBHOOK_SECRETS", secrets, SECRETS, secrets_of);
        Some(Stripe { url: url?, keys: keys?, webhook_secrets: secrets?, calls_per_second: rate? })
    }

    fn razorpay(&mut self, keys: &str, arguments: &ProviderArguments) -> Option<Razorpay> {
        const KEYS: &str = "comma-separated key ids and secrets of one mode, as rzp_live_…:secret or \
                            rzp_test_…:secret";
        // Razorpay limits the rate and publishes no number (razorpay.com/docs/api/pagination). This
        // serves two to three shoppers a second.
        const RATE: &str = "10";
        let keys = self.take("RAZORPAY_KEYS", Some(keys), KEYS, razorpay_keys);
        let url = given(arguments.razorpay_url.as_ref()).or(Some("https://api.razorpay.com"));
        let url = self.take("RAZORPAY_URL", url, PROVIDER_URL, provider_url);
        let rate = given(arguments.razorpay_rate.as_ref()).or(Some(RATE));
        let rate = self.take("RAZORPAY_RATE", rate, CALLS, calls);
        let secrets = arguments.razorpay_webhook_secrets.as_ref().map(expose);
        let secrets = self.take("RAZORPAY_WEBHOOK_SECRETS", secrets, SECRETS, secrets_of);
        Some(Razorpay {
            url: url?,
            keys: keys?,
            webhook_secrets: secrets?,
            calls_per_second: rate?,
        })
    }

    fn database_url(&mut self, url: Option<&SecretString>) -> Option<SecretString> {
        const WANTED: &str = "a URL as postgres://user:password@host:port/database";
        self.take("DATABASE_URL", url.map(expose), WANTED, |url| {
            let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
            let usable = PgConnectOptions::from_str(url).is_ok();
            (known && usable).then(|| SecretString::from(url))
        })
    }

    /// Reads one setting; where it is missing or wrong, notes what it should have been.
    fn take<T>(
        &mut self,
        name: &str,
        text: Option<&str>,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            self.0.push(format!("{name} is missing: {wanted}"));
            return None;
        };
        let value = read(text);
        if value.is_none() {
            self.0.push(format!("{name} is wrong; it should be {wanted}"));
        }
        value
    }

    fn finish<T>(self, settings: Option<T>) -> Result<T, BadSettings> {
        settings.ok_or(BadSettings(self.0))
    }
}

const PROVIDER_URL: &str = "an https:// URL; http:// only on this machine";

const CALLS: &str = "a number of calls a second from 1 to 1000";

const SECRETS: &str = "comma-separated signing secrets, the newest first";

const FAILPOINT: &str = if cfg!(debug_assertions) {
    "the name of a failpoint, or name:n"
} else {
    "unset: this is a release build"
};

/// A variable that is set to nothing is not set.
fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn given_secret(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(expose).filter(|text| !text.is_empty())
}

fn expose(secret: &SecretString) -> &str {
    secret.expose_secret()
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn connections(text: &str) -> Option<u32> {
    parse(text).filter(|connections| (1..=DATABASE_POOL_MAX).contains(connections))
}

fn redis(url: &str) -> Option<SecretString> {
    let known = ["redis://", "rediss://", "unix://", "redis+unix://"];
    known.iter().any(|scheme| url.starts_with(scheme)).then(|| SecretString::from(url))
}

fn smtp(url: &str) -> Option<SecretString> {
    let known = url.starts_with("smtp://") || url.starts_with("smtps://");
    let usable = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).is_ok();
    (known && usable).then(|| SecretString::from(url))
}

fn mail_address(text: &str) -> Option<String> {
    parse::<Mailbox>(text).map(|_| text.to_owned())
}

fn web_url(url: &str) -> Option<String> {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    (!host.is_empty()).then(|| url.trim_end_matches('/').to_owned())
}

fn filter(text: &str) -> Option<String> {
    EnvFilter::try_new(text).is_ok().then(|| text.to_owned())
}

fn default_format() -> &'static str {
    if std::io::stdout().is_terminal() { "text" } else { "json" }
}

fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "json" => Some(LogFormat::Json),
        "text" => Some(LogFormat::Text),
        _ => None,
    }
}

fn is_name(text: &str, length_max: usize) -> bool {
    (1..=length_max).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn namespace_of(text: &str) -> Option<String> {
    is_name(text, 40).then(|| text.to_owned())
}

fn failpoint_of(text: &str) -> Option<Failpoint> {
    if !cfg!(debug_assertions) {
        return None;
    }
    let (name, n) = text.rsplit_once(':').unwrap_or((text, "1"));
    let n = parse(n).filter(|n| *n > 0)?;
    (!name.is_empty()).then(|| Failpoint { name: name.to_owned(), n })
}

/// `20s`, `15m`, `2h`.
fn time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return None,
    };
    let time = Duration::from_secs(parse::<u64>(number)?.checked_mul(seconds)?);
    (HOLD_MIN..=HOLD_MAX).contains(&time).then_some(time)
}

fn keys(list: &str) -> Option<Keys> {
    let mut keys: Vec<(String, [u8; 32])> = Vec::new();
    for entry in list.split(',') {
        let (name, key) = entry.trim().split_once(':')?;
        // A name is written into every token: no more than a JSON Web Key's usual `kid`.
        let is_new = keys.iter().all(|(other, _)| other != name);
        if !is_name(name, 32) || name.contains('_') || !is_new {
            return None;
        }
        let key = BASE64_URL_SAFE_NO_PAD.decode(key.trim_end_matches('=')).ok()?;
        keys.push((name.to_owned(), key.try_into().ok()?));
    }
    Some(Keys(keys))
}

/// Whether money is real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Live,
    Test,
}

impl Mode {
    fn of_stripe(key: &str) -> Option<Self> {
        Self::starting(key.strip_prefix("sk_").or_else(|| key.strip_prefix("rk_"))?)
    }

    fn of_razorpay(key_id: &str) -> Option<Self> {
        Self::starting(key_id.strip_prefix("rzp_")?)
    }

    fn starting(name: &str) -> Option<Self> {
        match name.split_once('_')? {
            ("live", _) => Some(Self::Live),
            ("test", _) => Some(Self::Test),
            _ => None,
        }
    }
}

fn mode_of_stripe(keys: &[SecretString]) -> Option<Mode> {
    one_mode(keys.iter().map(|key| Mode::of_stripe(expose(key))))
}

fn mode_of_razorpay(keys: &[(String, SecretString)]) -> Option<Mode> {
    one_mode(keys.iter().map(|(id, _)| Mode::of_razorpay(id)))
}

/// The mode of all, if they have one.
fn one_mode(mut modes: impl Iterator<Item = Option<Mode>>) -> Option<Mode> {
    let first = modes.next()??;
    modes.all(|mode| mode == Some(first)).then_some(first)
}

fn stripe_keys(list: &str) -> Option<Vec<SecretString>> {
    secrets_of(list).filter(|keys| mode_of_stripe(keys).is_some())
}

fn razorpay_keys(list: &str) -> Option<Vec<(String, SecretString)>> {
    let key = |entry: SecretString| {
        let (id, secret) = expose(&entry).split_once(':')?;
        (is_name(id, 64) && !secret.is_empty()).then(|| (id.to_owned(), SecretString::from(secret)))
    };
    let keys: Vec<_> = secrets_of(list)?.into_iter().map(key).collect::<Option<_>>()?;
    mode_of_razorpay(&keys).map(|_| keys)
}

/// Secrets between commas, each of what can stand in a header.
fn secrets_of(list: &str) -> Option<Vec<SecretString>> {
    let secret = |entry: &str| {
        let is_word = !entry.is_empty() && entry.bytes().all(|byte| byte.is_ascii_graphic());
        is_word.then(|| SecretString::from(entry))
    };
    list.split(',').map(|entry| secret(entry.trim())).collect()
}

fn calls(text: &str) -> Option<u32> {
    parse(text).filter(|calls| (1..=CALLS_MAX).contains(calls))
}

/// The URL of a provider. Keys travel there, and only on this machine may they travel unencrypted.
fn provider_url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let is_here = host == "localhost" || parse::<IpAddr>(host).is_some_and(|ip| ip.is_loopback());
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_here);
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (is_safe && is_plain).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    /// Every setting as a flag, so that no environment has a say.
    fn read_api(changes: &[(&str, &str)]) -> Result<Api, BadSettings> {
        let keys = format!("new:{KEY},old:{KEY}");
        let mut flags = vec![
            ("--database-url", "postgres://hunter2@localhost/shop"),
            ("--database-pool", "7"),
            ("--redis-url", "redis://:hunter2@localhost"),
            ("--health-listen", "127.0.0.1:9090"),
            ("--log", "info"),
            ("--log-format", "json"),
            ("--queue-namespace", "holdfast"),
            ("--failpoint", "checkout-commit:3"),
            ("--listen", "127.0.0.1:8080"),
            ("--hold", "20s"),
            ("--token-keys", &keys),
            ("--guest-token-keys", &keys),
            ("--stripe-url", ""),
            ("--stripe-keys", "sk_test_hunter2,rk_test_hunter2"),
            ("--stripe-webhook-secrets", "whsec_hunter2, whsec_old"),
            ("--stripe-rate", ""),
            ("--razorpay-url", "http://127.0.0.1:4000/razorpay/"),
            ("--razorpay-keys", "rzp_test_1:hunter2"),
            ("--razorpay-webhook-secrets", "hunter2"),
            ("--razorpay-rate", "7"),
        ];
        for (flag, value) in changes {
            flags.iter_mut().find(|(name, _)| name == flag).unwrap().1 = value;
        }
        let flags = flags.iter().map(|(flag, value)| format!("{flag}={value}"));
        ApiArguments::try_parse_from(std::iter::once("api".to_owned()).chain(flags))
            .unwrap()
            .try_into()
    }

    #[test]
    fn good_settings_are_read() {
        let settings = read_api(&[]).unwrap();

        assert_eq!(settings.hold, Duration::from_secs(20));
        assert_eq!(settings.common.database_pool, 7);
        assert_eq!(
            settings.common.failpoint,
            Some(Failpoint { name: "checkout-commit".into(), n: 3 })
        );
        assert_eq!(settings.token_keys.expose()[1].0, "old");
        assert_eq!(settings.token_keys.expose()[0].1[31], 31);

        let stripe = settings.providers.stripe.unwrap();
        assert_eq!((&*stripe.url, stripe.calls_per_second), ("https://api.stripe.com", 20));
        assert_eq!(expose(&stripe.keys[1]), "rk_test_hunter2");
        assert_eq!(expose(&stripe.webhook_secrets[1]), "whsec_old");
        let razorpay = settings.providers.razorpay.unwrap();
        assert_eq!(razorpay.calls_per_second, 7);
        assert_eq!((&*razorpay.keys[0].0, expose(&razorpay.keys[0].1)), ("rzp_test_1", "hunter2"));
    }

    #[test]
    fn a_provider_without_keys_is_not_offered() {
        let settings = read_api(&[("--stripe-keys", ""), ("--razorpay-keys", "")]).unwrap();

        assert!(settings.providers.stripe.is_none() && settings.providers.razorpay.is_none());
    }

    #[test]
    fn live_and_test_keys_do_not_mix_and_webhooks_need_a_secret() {
        for (flag, value, complaint) in [
            ("--stripe-keys", "sk_live_hunter2,sk_test_hunter2", "STRIPE_KEYS is wrong"),
            ("--stripe-keys", "sk_live_hunter2", "RAZORPAY_KEYS is wrong"),
            ("--stripe-keys", "hunter2", "STRIPE_KEYS is wrong"),
            ("--stripe-webhook-secrets", "", "STRIPE_WEBHOOK_SECRETS is missing"),
            ("--stripe-rate", "0", "STRIPE_RATE is wrong"),
            ("--stripe-url", "http://hunter2.example", "STRIPE_URL is wrong"),
            ("--razorpay-keys", "rzp_live_1:hunter2", "RAZORPAY_KEYS is wrong"),
            ("--razorpay-keys", "rzp_test_1", "RAZORPAY_KEYS is wrong"),
            ("--razorpay-webhook-secrets", "a,,b", "RAZORPAY_WEBHOOK_SECRETS is wrong"),
        ] {
            let problems = read_api(&[(flag, value)]).unwrap_err().to_string();

            assert!(problems.starts_with(complaint), "{flag}={value}: {problems}");
            assert_eq!(problems.lines().count(), 1, "{problems}");
            assert!(!problems.contains("hunter2"), "{problems}");
        }
    }

    #[test]
    fn a_providers_url_is_encrypted_unless_it_is_here() {
        for (url, usable) in [
            ("https://api.stripe.com", true),
            ("https://proxy.example:8443/stripe/", true),
            ("http://127.0.0.1:4000", true),
            ("http://localhost:4000/stripe", true),
            ("http://[::1]:4000", true),
            ("http://api.stripe.com", false),
            ("http://127.0.0.1.example", false),
            ("https://user:password@api.stripe.com", false),
            ("https://api.stripe.com/?a=b", false),
            ("ftp://localhost", false),
            ("api.stripe.com", false),
        ] {
            assert_eq!(provider_url(url).is_some(), usable, "{url}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_no_value_with_it() {
        let problems = read_api(&[
            ("--database-url", "mysql://hunter2"),
            ("--redis-url", ""),
            ("--listen", "hunter2"),
            ("--hold", "1s"),
            ("--token-keys", "hunter2"),
            ("--guest-token-keys", ""),
            ("--stripe-keys", "hunter2"),
            ("--razorpay-webhook-secrets", ""),
        ])
        .unwrap_err()
        .to_string();

        let names = problems.lines().map(|line| line.split(' ').next().unwrap());
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                "DATABASE_URL",
                "REDIS_URL",
                "LISTEN",
                "HOLD",
                "TOKEN_KEYS",
                "GUEST_TOKEN_KEYS",
                "STRIPE_KEYS",
                "RAZORPAY_WEBHOOK_SECRETS"
            ]
        );
        assert!(!problems.contains("hunter2"), "{problems}");
    }

    #[test]
    fn neither_help_nor_debug_shows_a_secret() {
        let debug = format!("{:?}", read_api(&[]).unwrap());
        assert!(!debug.contains("hunter2") && !debug.contains(KEY), "{debug}");

        for command in [
            ApiArguments::command(),
            WebhooksArguments::command(),
            ReaperArguments::command(),
            MailerArguments::command(),
        ] {
            let with_environment =
                command.get_arguments().filter(|argument| argument.get_env().is_some());
            for argument in with_environment {
                assert!(argument.is_hide_env_values_set(), "{}", argument.get_id());
            }
        }
    }

    #[test]
    fn a_time_has_a_unit_and_a_measure() {
        for (text, seconds) in [
            ("5s", Some(5)),
            ("15m", Some(900)),
            ("24h", Some(86_400)),
            ("4s", None),
            ("25h", None),
            ("15", None),
            ("m", None),
            ("", None),
            ("-5s", None),
            ("1.5h", None),
            ("99999999999999999999h", None),
            ("18446744073709551615h", None),
            ("5µ", None),
        ] {
            assert_eq!(time(text), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn keys_are_complete_and_differ_in_name() {
        for (list, usable) in [
            (format!("a:{KEY}"), true),
            (format!("a:{KEY}="), true),
            (format!("a:{KEY}, b:{KEY}"), true),
            (format!("a:{KEY},a:{KEY}"), false),
            (format!("a:{KEY},"), false),
            (format!(":{KEY}"), false),
            (format!("a_b:{KEY}"), false),
            ("a:AAEC".to_owned(), false),
            (KEY.to_owned(), false),
        ] {
            assert_eq!(keys(&list).is_some(), usable, "{list}");
        }
    }
}
