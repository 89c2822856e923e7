//! The settings of every process, from flags and the environment; nothing else reads the environment.
//!
//! Everything that is missing or wrong is told at once, a line each. No value is ever repeated in
//! such a line, nor shown by `--help` or `Debug`: half of them are secrets.

use std::{error::Error, fmt, io::IsTerminal, net::SocketAddr, str::FromStr, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::{Args, Parser};
use lettre::{AsyncSmtpTransport, Tokio1Executor, message::Mailbox};
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
}

/// The settings of `reaper`.
#[derive(Debug)]
pub struct Reaper {
    pub common: Common,
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
}

/// Ends what nobody paid for, and pushes again what was lost on the way.
#[derive(Parser)]
#[command(name = "reaper", version)]
struct ReaperArguments {
    #[command(flatten)]
    common: CommonArguments,
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
}

impl Settings for Reaper {
    const PROCESS: &'static str = "reaper";

    fn read() -> Result<Self, BadSettings> {
        Self::try_from(ReaperArguments::parse())
    }

    fn common(&self) -> &Common {
        &self.common
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
        let settings = || {
            Some(Self {
                common: common?,
                listen: listen?,
                hold: hold?,
                token_keys: token_keys?,
                guest_token_keys: guest_token_keys?,
            })
        };
        reading.finish(settings())
    }
}

impl TryFrom<ReaperArguments> for Reaper {
    type Error = BadSettings;

    fn try_from(arguments: ReaperArguments) -> Result<Self, BadSettings> {
        // Expiring, sweeping, pushing and purging each have one statement in flight.
        const POOL: &str = "8";
        let mut reading = Reading::default();
        let common = reading.common(&arguments.common, POOL);
        reading.finish(common.map(|common| Self { common }))
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

const FAILPOINT: &str = if cfg!(debug_assertions) {
    "the name of a failpoint, or name:n"
} else {
    "unset: this is a release build"
};

/// A variable that is set to nothing is not set.
fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
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
        ])
        .unwrap_err()
        .to_string();

        let names = problems.lines().map(|line| line.split(' ').next().unwrap());
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["DATABASE_URL", "REDIS_URL", "LISTEN", "HOLD", "TOKEN_KEYS", "GUEST_TOKEN_KEYS"]
        );
        assert!(!problems.contains("hunter2"), "{problems}");
    }

    #[test]
    fn neither_help_nor_debug_shows_a_secret() {
        let debug = format!("{:?}", read_api(&[]).unwrap());
        assert!(!debug.contains("hunter2") && !debug.contains(KEY), "{debug}");

        for command in
            [ApiArguments::command(), ReaperArguments::command(), MailerArguments::command()]
        {
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
