//! What a value has to look like.

use std::{io::IsTerminal, net::IpAddr, str::FromStr, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use lettre::{AsyncSmtpTransport, Tokio1Executor, message::Mailbox};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

use super::{Environment, Failpoint, Keys, LogFormat};

/// Below, no person could pay; above, a deadline is not a deadline.
const HOLD_MIN: Duration = Duration::from_secs(5);
const HOLD_MAX: Duration = Duration::from_hours(24);

/// PostgreSQL allows 100 connections unless told otherwise; no one process should take more than that.
const DATABASE_POOL_MAX: u32 = 100;

/// More than any provider allows an account unasked.
const CALLS_MAX: u32 = 1_000;

/// A variable that is set to nothing is not set.
pub(super) fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

pub(super) fn expose(secret: &SecretString) -> &str {
    secret.expose_secret()
}

pub(super) fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

pub(super) fn connections(text: &str) -> Option<u32> {
    parse(text).filter(|connections| (1..=DATABASE_POOL_MAX).contains(connections))
}

/// As whom a URL of PostgreSQL logs in.
pub(super) fn user_of(url: &SecretString) -> Option<String> {
    let options = PgConnectOptions::from_str(expose(url)).ok()?;
    Some(options.get_username().to_owned())
}

/// More proxies in a row nobody has.
pub(super) fn proxies_of(text: &str) -> Option<u8> {
    parse(text).filter(|proxies| *proxies <= 8)
}

pub(super) fn concurrency_of(text: &str) -> Option<usize> {
    parse(text).filter(|requests| (16..=65_536).contains(requests))
}

pub(super) fn wait_of(text: &str) -> Option<Duration> {
    parse(text).filter(|ms| (1..=10_000).contains(ms)).map(Duration::from_millis)
}

pub(super) fn redis(url: &str) -> Option<SecretString> {
    let known = ["redis://", "rediss://", "unix://", "redis+unix://"];
    known.iter().any(|scheme| url.starts_with(scheme)).then(|| SecretString::from(url))
}

pub(super) fn smtp(url: &str) -> Option<SecretString> {
    let known = url.starts_with("smtp://") || url.starts_with("smtps://");
    let usable = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).is_ok();
    (known && usable).then(|| SecretString::from(url))
}

pub(super) fn mail_address(text: &str) -> Option<String> {
    parse::<Mailbox>(text).map(|_| text.to_owned())
}

pub(super) fn web_url(url: &str) -> Option<String> {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    (!host.is_empty()).then(|| url.trim_end_matches('/').to_owned())
}

pub(super) fn filter(text: &str) -> Option<String> {
    EnvFilter::try_new(text).is_ok().then(|| text.to_owned())
}

pub(super) fn default_format() -> &'static str {
    if std::io::stdout().is_terminal() { "text" } else { "json" }
}

pub(super) fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "json" => Some(LogFormat::Json),
        "text" => Some(LogFormat::Text),
        _ => None,
    }
}

pub(super) fn environment_of(text: &str) -> Option<Environment> {
    match text {
        "production" => Some(Environment::Production),
        "development" => Some(Environment::Development),
        _ => None,
    }
}

fn is_name(text: &str, length_max: usize) -> bool {
    (1..=length_max).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

pub(super) fn namespace_of(text: &str) -> Option<String> {
    is_name(text, 40).then(|| text.to_owned())
}

pub(super) fn failpoint_of(text: &str) -> Option<Failpoint> {
    if !cfg!(debug_assertions) {
        return None;
    }
    let (name, n) = text.rsplit_once(':').unwrap_or((text, "1"));
    let n = parse(n).filter(|n| *n > 0)?;
    (!name.is_empty()).then(|| Failpoint { name: name.to_owned(), n })
}

/// `20s`, `15m`, `2h`.
pub(super) fn time(text: &str) -> Option<Duration> {
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

pub(super) fn keys(list: &str) -> Option<Keys> {
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
pub(super) enum Mode {
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

pub(super) fn mode_of_stripe(keys: &[SecretString]) -> Option<Mode> {
    one_mode(keys.iter().map(|key| Mode::of_stripe(expose(key))))
}

pub(super) fn mode_of_razorpay(keys: &[(String, SecretString)]) -> Option<Mode> {
    one_mode(keys.iter().map(|(id, _)| Mode::of_razorpay(id)))
}

/// The mode of all, if they have one.
pub(super) fn one_mode(mut modes: impl Iterator<Item = Option<Mode>>) -> Option<Mode> {
    let first = modes.next()??;
    modes.all(|mode| mode == Some(first)).then_some(first)
}

pub(super) fn stripe_keys(list: &str) -> Option<Vec<SecretString>> {
    secrets_of(list).filter(|keys| mode_of_stripe(keys).is_some())
}

pub(super) fn razorpay_keys(list: &str) -> Option<Vec<(String, SecretString)>> {
    let key = |entry: SecretString| {
        let (id, secret) = expose(&entry).split_once(':')?;
        (is_name(id, 64) && !secret.is_empty()).then(|| (id.to_owned(), SecretString::from(secret)))
    };
    let keys: Vec<_> = secrets_of(list)?.into_iter().map(key).collect::<Option<_>>()?;
    mode_of_razorpay(&keys).map(|_| keys)
}

/// Secrets between commas, each of what can stand in a header.
pub(super) fn secrets_of(list: &str) -> Option<Vec<SecretString>> {
    let secret = |entry: &str| {
        let is_word = !entry.is_empty() && entry.bytes().all(|byte| byte.is_ascii_graphic());
        is_word.then(|| SecretString::from(entry))
    };
    list.split(',').map(|entry| secret(entry.trim())).collect()
}

/// Origins between commas, each as a browser writes it: nothing else is ever equal to what it sends.
pub(super) fn origins(list: &str) -> Option<Vec<String>> {
    let origin = |text: &str| {
        let url = Url::parse(text).ok()?;
        // A star would match nothing, and look as if it did.
        let is_web = matches!(url.scheme(), "https" | "http") && !text.contains('*');
        (is_web && url.origin().ascii_serialization() == text).then(|| text.to_owned())
    };
    list.split(',').map(|text| origin(text.trim())).collect()
}

pub(super) fn calls(text: &str) -> Option<u32> {
    parse(text).filter(|calls| (1..=CALLS_MAX).contains(calls))
}

/// The URL of a provider. Keys travel there, and only on this machine may they travel unencrypted.
pub(super) fn provider_url(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_here(url.host_str()?));
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    (is_safe && is_plain).then(|| text.to_owned())
}

/// Whether a URL's host is this machine.
pub(super) fn is_here(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || parse::<IpAddr>(host).is_some_and(|ip| ip.is_loopback())
}
