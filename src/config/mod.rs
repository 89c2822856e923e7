//! The settings of every process, from flags and the environment; nothing else reads the environment.
//!
//! Everything that is missing or wrong is told at once, a line each. No value is ever repeated in
//! such a line, nor shown by `--help` or `Debug`: half of them are secrets.

mod arguments;
mod files;
mod operator;
mod reading;
mod strict;
mod values;

use std::{error::Error, fmt, net::SocketAddr, time::Duration};

use clap::{Args, Parser};
use secrecy::SecretString;

use crate::kernel::rates::Rates;
use arguments::{ApiArguments, MailerArguments, ReaperArguments, WebhooksArguments};
pub use operator::operator;
use reading::Reading;
use values::{given, user_of};

/// The hold where nobody says otherwise: a payment with a second factor takes some minutes.
pub const HOLD_DEFAULT: Duration = Duration::from_mins(15);

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
    pub environment: Environment,
    pub database_url: SecretString,
    pub database_pool: u32,
    pub redis_url: SecretString,
    pub health_listen: SocketAddr,
    pub log: String,
    pub log_format: LogFormat,
    pub queue_namespace: String,
    pub failpoint: Option<Failpoint>,
}

/// Whom an installation serves. Strict unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// Customers. Settings that are fit for development only are refused.
    Production,
    /// Developers and tests.
    Development,
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
    /// The origins of other hosts whose pages may call, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// How much of the API one client may use.
    pub limits: Rates,
    /// How long a request waits for Redis to count it; then its process counts alone for a while.
    pub limits_wait: Duration,
    /// How many proxies of ours a request passes.
    pub trusted_proxies: u8,
    /// How many requests are worked on at a time.
    pub concurrency: usize,
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

/// What `ctl migrate` is told beside.
#[derive(Debug, Args)]
pub struct Migrate {
    /// PostgreSQL as the owner of the schema [default: `DATABASE_URL`]
    #[arg(
        long,
        env = "MIGRATE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        verbatim_doc_comment
    )]
    migrate_database_url: Option<SecretString>,
    /// The role of the processes, which gets what they need and nothing else [default: the user of
    /// `DATABASE_URL`, where `MIGRATE_DATABASE_URL` names another]
    #[arg(long, env = "APP_ROLE", hide_env_values = true, value_name = "ROLE")]
    app_role: Option<String>,
}

/// Where `ctl seed` runs.
#[derive(Debug, Args)]
pub struct Seed {
    /// The demo's passwords are public: development is the only place for them [default: production]
    #[arg(long, env = "ENVIRONMENT", hide_env_values = true, value_name = "NAME")]
    environment: Option<String>,
}

/// Who migrates, and for whom.
#[derive(Debug)]
pub struct Owner {
    pub database_url: SecretString,
    /// The role of the processes. Without one they run as the owner.
    pub app_role: Option<String>,
}

impl Seed {
    /// Refuses whatever is no developer's installation.
    pub fn check(&self) -> Result<(), BadSettings> {
        let mut reading = Reading::default();
        if reading.environment(self.environment.as_ref()) == Some(Environment::Production) {
            reading.note(
                "ENVIRONMENT is production, where the demo's public passwords would let anybody in; \
                 seed wants ENVIRONMENT=development"
                    .to_owned(),
            );
        }
        reading.finish(Some(()))
    }
}

impl Ctl {
    pub fn database_url(&self) -> Result<SecretString, BadSettings> {
        self.read_url(Reading::default())
    }

    pub fn owner(&self, migrate: &Migrate) -> Result<Owner, BadSettings> {
        self.read_owner(migrate, Reading::default())
    }

    fn read_url(&self, mut reading: Reading) -> Result<SecretString, BadSettings> {
        let url = reading.database_url("DATABASE_URL", self.database_url.as_ref());
        reading.finish(url)
    }

    fn read_owner(&self, migrate: &Migrate, mut reading: Reading) -> Result<Owner, BadSettings> {
        const OWNER: &str = "MIGRATE_DATABASE_URL";
        let own = reading.secret(OWNER, migrate.migrate_database_url.as_ref()).ok().flatten();
        let app_role = given(migrate.app_role.as_ref()).map(str::to_owned);
        let owner = if own.is_none() {
            let database_url = reading.database_url("DATABASE_URL", self.database_url.as_ref());
            database_url.map(|database_url| Owner { database_url, app_role })
        } else {
            let processes = reading.secret("DATABASE_URL", self.database_url.as_ref());
            let processes = processes.ok().flatten();
            let database_url = reading.database_url(OWNER, migrate.migrate_database_url.as_ref());
            database_url.map(|database_url| {
                let app_role = app_role.or_else(|| {
                    let user = user_of(processes.as_ref()?)?;
                    (Some(&user) != user_of(&database_url).as_ref()).then_some(user)
                });
                Owner { database_url, app_role }
            })
        };
        reading.finish(owner)
    }
}

impl Settings for Api {
    const PROCESS: &'static str = "api";

    fn read() -> Result<Self, BadSettings> {
        ApiArguments::parse().settings(Reading::default())
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
        WebhooksArguments::parse().settings(Reading::default())
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
        ReaperArguments::parse().settings(Reading::default())
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
        MailerArguments::parse().settings(Reading::default())
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn mail(&self) -> Option<&Mail> {
        Some(&self.mail)
    }
}

#[cfg(test)]
mod tests;
