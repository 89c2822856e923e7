//! From flags and variables to settings, with everything that is wrong with them.

use std::str::FromStr;

use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;

use super::{
    Api, BadSettings, Common, Environment, Mail, Mailer, Providers, Razorpay, Reaper, Stripe,
    Webhooks,
    arguments::{
        ApiArguments, CommonArguments, MailerArguments, ProviderArguments, ReaperArguments,
        WebhooksArguments,
    },
    files::{FileOf, file_of},
    strict::{is_https, is_open_smtp},
    values::{
        calls, concurrency_of, connections, default_format, environment_of, expose, failpoint_of,
        filter, given, keys, log_format, mail_address, mode_of_razorpay, mode_of_stripe,
        namespace_of, origins, parse, provider_url, proxies_of, razorpay_keys, redis, secrets_of,
        smtp, stripe_keys, time, wait_of, web_url,
    },
};
use crate::kernel::rates::Rates;

impl ApiArguments {
    pub(super) fn settings(self, mut reading: Reading) -> Result<Api, BadSettings> {
        // One batch is in flight at a time; the rest is for reads and logins.
        const POOL: &str = "10";
        // Three slices of checkouts: one at work, one that waits for it, one that is read or answered.
        const CONCURRENCY: &str = "640";
        const LIMITS_WAIT_MS: &str = "50";
        const KEYS: &str = "comma-separated name:key, each name once, of at most 32 letters, digits \
                            and hyphens, each key 32 bytes in base64url";
        const PROXIES: &str =
            "how many proxies of ours a request passes before the API, from 0 to 8";
        const ORIGINS: &str = "comma-separated origins as browsers write them: https://shop.example, \
                               without a path, a default port or capitals";
        let common = reading.common(&self.common, POOL);
        let listen = reading.take("LISTEN", self.listen.as_deref(), ADDRESS, parse);
        let hold = given(self.hold.as_ref()).or(Some("15m"));
        let hold = reading.take("HOLD", hold, "a time from 5s to 24h, as 20s, 15m or 2h", time);
        let mut keys = |name, list: Option<&SecretString>| {
            let keys = reading.take_secret(name, list, KEYS, keys);
            reading.weak_keys(name, keys.as_ref());
            keys
        };
        let token_keys = keys("TOKEN_KEYS", self.token_keys.as_ref());
        let guest_token_keys = keys("GUEST_TOKEN_KEYS", self.guest_token_keys.as_ref());
        reading.distinct(token_keys.as_ref(), guest_token_keys.as_ref());
        let providers = reading.providers(&self.providers);
        let limits = match given(self.limits.as_ref()) {
            None => Some(Rates::default()),
            limits => reading.take("LIMITS", limits, RATES, parse),
        };
        let wait = given(self.limits_wait_ms.as_ref()).or(Some(LIMITS_WAIT_MS));
        let limits_wait = reading.take("LIMITS_WAIT_MS", wait, "a number from 1 to 10000", wait_of);
        let allowed_origins = match given(self.allowed_origins.as_ref()) {
            None => Some(Vec::new()),
            list => reading.take("ALLOWED_ORIGINS", list, ORIGINS, origins),
        };
        let mut origins = allowed_origins.iter().flatten();
        let is_open = origins.any(|origin: &String| !origin.starts_with("https://"));
        reading.weak("ALLOWED_ORIGINS", is_open, "https:// origins only");
        // A wrong number shows in nothing but customers who are refused for one another.
        let proxies = (!reading.is_production).then_some("0");
        let proxies = given(self.trusted_proxies.as_ref()).or(proxies);
        let proxies = reading.take("TRUSTED_PROXIES", proxies, PROXIES, proxies_of);
        let concurrency = given(self.concurrency.as_ref()).or(Some(CONCURRENCY));
        let concurrency =
            reading.take("CONCURRENCY", concurrency, "a number from 16 to 65536", concurrency_of);
        let settings = || {
            Some(Api {
                common: common?,
                listen: listen?,
                hold: hold?,
                token_keys: token_keys?,
                guest_token_keys: guest_token_keys?,
                providers: providers?,
                allowed_origins: allowed_origins?,
                limits: limits?,
                limits_wait: limits_wait?,
                trusted_proxies: proxies?,
                concurrency: concurrency?,
            })
        };
        reading.finish(settings())
    }
}

impl WebhooksArguments {
    pub(super) fn settings(self, mut reading: Reading) -> Result<Webhooks, BadSettings> {
        // No connection is held while a provider is asked; settling payments takes one each.
        const POOL: &str = "8";
        let common = reading.common(&self.common, POOL);
        let providers = reading.providers(&self.providers);
        let settings = || Some(Webhooks { common: common?, providers: providers? });
        reading.finish(settings())
    }
}

impl ReaperArguments {
    pub(super) fn settings(self, mut reading: Reading) -> Result<Reaper, BadSettings> {
        // Expiring, sweeping, pushing and purging each have one statement in flight, and reconciling a few.
        const POOL: &str = "10";
        let common = reading.common(&self.common, POOL);
        let providers = reading.providers(&self.providers);
        let settings = || Some(Reaper { common: common?, providers: providers? });
        reading.finish(settings())
    }
}

impl MailerArguments {
    pub(super) fn settings(self, mut reading: Reading) -> Result<Mailer, BadSettings> {
        // No connection is held while the mail server is asked.
        const POOL: &str = "5";
        let common = reading.common(&self.common, POOL);
        let smtp_url = reading.take_secret(
            "SMTP_URL",
            self.smtp_url.as_ref(),
            "a mail server as smtp://[user:password@]host:port or smtps://…",
            smtp,
        );
        let is_open = smtp_url.as_ref().is_some_and(|url| is_open_smtp(expose(url)));
        reading.weak("SMTP_URL", is_open, "smtps://…, or smtp://…?tls=required, unless it is here");
        let from = self.mail_from.as_deref();
        let from = reading.take(
            "MAIL_FROM",
            from,
            "an address as Shop <orders@shop.example>",
            mail_address,
        );
        let shop_name = self.shop_name.as_deref();
        let shop_name = reading.take("SHOP_NAME", shop_name, "what the shop is called", parse);
        let shop_url = self.shop_url.as_deref();
        let shop_url = reading.take("SHOP_URL", shop_url, "an https:// or http:// URL", web_url);
        let is_open = shop_url.as_ref().is_some_and(|url| !is_https(url));
        reading.weak("SHOP_URL", is_open, "an https:// URL");
        let settings = || {
            let mail = Mail {
                smtp_url: smtp_url?,
                from: from?,
                shop_name: shop_name?,
                shop_url: shop_url?,
            };
            Some(Mailer { common: common?, mail })
        };
        reading.finish(settings())
    }
}

const RATES: &str = "known names, each once, with their rates, as browse:100/s:200,cart:10/s:60";

const ADDRESS: &str = "an address as 127.0.0.1:8080 or [::]:8080";

/// Reads settings and collects what is wrong with them.
pub(super) struct Reading {
    pub(super) problems: Vec<String>,
    /// Until somebody says otherwise.
    pub(super) is_production: bool,
    pub(super) file_of: FileOf,
}

impl Default for Reading {
    fn default() -> Self {
        Self { problems: Vec::new(), is_production: true, file_of: Box::new(file_of) }
    }
}

impl Reading {
    /// Whom the installation serves. What is read from then on is judged by it.
    pub(super) fn environment(&mut self, environment: Option<&String>) -> Option<Environment> {
        let environment = given(environment).or(Some("production"));
        let environment =
            self.take("ENVIRONMENT", environment, "production or development", environment_of);
        self.is_production = environment != Some(Environment::Development);
        environment
    }

    fn common(&mut self, arguments: &CommonArguments, pool: &str) -> Option<Common> {
        let environment = self.environment(arguments.environment.as_ref());
        let log = given(arguments.log.as_ref()).or(Some("info"));
        let pool = given(arguments.database_pool.as_ref()).or(Some(pool));
        let namespace = given(arguments.queue_namespace.as_ref()).or(Some("holdfast"));
        let format = given(arguments.log_format.as_ref()).or_else(|| Some(default_format()));
        let failpoint = given(arguments.failpoint.as_ref());

        let database_url = self.database_url("DATABASE_URL", arguments.database_url.as_ref());
        let database_pool =
            self.take("DATABASE_POOL", pool, "a number of connections from 1 to 100", connections);
        let redis_url = arguments.redis_url.as_ref();
        let redis_url = self.take_secret(
            "REDIS_URL",
            redis_url,
            "a URL as redis://:password@host:port/0",
            redis,
        );
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
        self.weak("FAILPOINT", failpoint.is_some(), "unset");
        let failpoint = match failpoint {
            None => Some(None),
            failpoint => self.take("FAILPOINT", failpoint, FAILPOINT, failpoint_of).map(Some),
        };
        Some(Common {
            environment: environment?,
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
        let problems = self.problems.len();
        let stripe_keys = self.secret("STRIPE_KEYS", arguments.stripe_keys.as_ref());
        let stripe_keys = stripe_keys.ok().flatten();
        let stripe = stripe_keys.and_then(|keys| self.stripe(&keys, arguments));
        let razorpay_keys = self.secret("RAZORPAY_KEYS", arguments.razorpay_keys.as_ref());
        let razorpay_keys = razorpay_keys.ok().flatten();
        let razorpay = razorpay_keys.and_then(|keys| self.razorpay(&keys, arguments));
        if self.problems.len() > problems {
            return None;
        }
        // Test money would pay for real goods.
        let stripe_mode = stripe.as_ref().and_then(|stripe| mode_of_stripe(&stripe.keys));
        let razorpay_mode = razorpay.as_ref().and_then(|razorpay| mode_of_razorpay(&razorpay.keys));
        if stripe_mode.zip(razorpay_mode).is_some_and(|(stripe, razorpay)| stripe != razorpay) {
            let line = "RAZORPAY_KEYS is wrong; it should be of STRIPE_KEYS' mode, live or test";
            self.note(line.to_owned());
            return None;
        }
        let providers = Providers { stripe, razorpay };
        self.weak_providers(&providers);
        Some(providers)
    }

    fn stripe(&mut self, keys: &SecretString, arguments: &ProviderArguments) -> Option<Stripe> {
        const KEYS: &str = "comma-separated secret keys of one mode, as sk_live_… or sk_test_…";
        // Stripe allows 25 calls a second in a sandbox, and in live mode for each kind of object
        // (docs.stripe.com/rate-limits). The rest is for the dashboard and for other programs.
        const RATE: &str = "20";
        let keys = self.take("STRIPE_KEYS", Some(expose(keys)), KEYS, stripe_keys);
        let url = given(arguments.stripe_url.as_ref()).or(Some("https://api.stripe.com"));
        let url = self.take("STRIPE_URL", url, PROVIDER_URL, provider_url);
        let rate = given(arguments.stripe_rate.as_ref()).or(Some(RATE));
        let rate = self.take("STRIPE_RATE", rate, CALLS, calls);
        let secrets = arguments.stripe_webhook_secrets.as_ref();
        let secrets = self.take_secret("STRIPE_WEBHOOK_SECRETS", secrets, SECRETS, secrets_of);
        Some(Stripe { url: url?, keys: keys?, webhook_secrets: secrets?, calls_per_second: rate? })
    }

    fn razorpay(&mut self, keys: &SecretString, arguments: &ProviderArguments) -> Option<Razorpay> {
        const KEYS: &str = "comma-separated key ids and secrets of one mode, as rzp_live_…:secret or \
                            rzp_test_…:secret";
        // Razorpay limits the rate and publishes no number (razorpay.com/docs/api/pagination). This
        // serves two to three shoppers a second.
        const RATE: &str = "10";
        let keys = self.take("RAZORPAY_KEYS", Some(expose(keys)), KEYS, razorpay_keys);
        let url = given(arguments.razorpay_url.as_ref()).or(Some("https://api.razorpay.com"));
        let url = self.take("RAZORPAY_URL", url, PROVIDER_URL, provider_url);
        let rate = given(arguments.razorpay_rate.as_ref()).or(Some(RATE));
        let rate = self.take("RAZORPAY_RATE", rate, CALLS, calls);
        let secrets = arguments.razorpay_webhook_secrets.as_ref();
        let secrets = self.take_secret("RAZORPAY_WEBHOOK_SECRETS", secrets, SECRETS, secrets_of);
        Some(Razorpay {
            url: url?,
            keys: keys?,
            webhook_secrets: secrets?,
            calls_per_second: rate?,
        })
    }

    pub(super) fn database_url(
        &mut self,
        name: &str,
        url: Option<&SecretString>,
    ) -> Option<SecretString> {
        const WANTED: &str = "a URL as postgres://user:password@host:port/database";
        self.take_secret(name, url, WANTED, |url| {
            let known = url.starts_with("postgres://") || url.starts_with("postgresql://");
            let usable = PgConnectOptions::from_str(url).is_ok();
            (known && usable).then(|| SecretString::from(url))
        })
    }

    /// Reads one setting; where it is missing or wrong, notes what it should have been.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        text: Option<&str>,
        wanted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            self.note(format!("{name} is missing: {wanted}"));
            return None;
        };
        let value = read(text);
        if value.is_none() {
            self.note(format!("{name} is wrong; it should be {wanted}"));
        }
        value
    }

    pub(super) fn note(&mut self, problem: String) {
        self.problems.push(problem);
    }

    pub(super) fn finish<T>(self, settings: Option<T>) -> Result<T, BadSettings> {
        match settings {
            Some(settings) if self.problems.is_empty() => Ok(settings),
            _ => Err(BadSettings(self.problems)),
        }
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
