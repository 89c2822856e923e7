//! The flags and variables that each process reads.

use clap::{Args, Parser};
use secrecy::SecretString;

use super::files::FILES;

#[derive(Args)]
pub(super) struct CommonArguments {
    /// production refuses settings that are fit for development only [default: production]
    #[arg(long, env = "ENVIRONMENT", hide_env_values = true, value_name = "NAME")]
    pub(super) environment: Option<String>,
    /// PostgreSQL: postgres://user:password@host:port/database
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(super) database_url: Option<SecretString>,
    /// Database connections of this process at most
    #[arg(long, env = "DATABASE_POOL", hide_env_values = true, value_name = "CONNECTIONS")]
    pub(super) database_pool: Option<String>,
    /// Redis or Valkey: redis://:password@host:port/0
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub(super) redis_url: Option<SecretString>,
    /// Address of /livez, /readyz and /metrics
    #[arg(long, env = "HEALTH_LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    pub(super) health_listen: Option<String>,
    /// What to log: info, or debug,sqlx=warn [default: info]
    #[arg(long, env = "LOG", hide_env_values = true, value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// json or text [default: text on a terminal, else json]
    #[arg(long, env = "LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// Prefix of this installation's keys in Redis [default: holdfast]
    #[arg(long, env = "QUEUE_NAMESPACE", hide_env_values = true, value_name = "NAME")]
    pub(super) queue_namespace: Option<String>,
    /// For tests of debug builds: where to die, as name or name:n
    #[arg(long, env = "FAILPOINT", hide_env_values = true, value_name = "NAME[:N]")]
    pub(super) failpoint: Option<String>,
}

/// Answers the HTTP API.
#[derive(Parser)]
#[command(name = "api", version, after_help = FILES)]
pub(super) struct ApiArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// Address of the API
    #[arg(long, env = "LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    pub(super) listen: Option<String>,
    /// How long an order keeps its stock unpaid: 15m, 90s, 2h [default: 15m]
    #[arg(long, env = "HOLD", hide_env_values = true, value_name = "TIME")]
    pub(super) hold: Option<String>,
    /// Ed25519 keys of access tokens, the first signs: kid:base64url(seed),…
    #[arg(long, env = "TOKEN_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub(super) token_keys: Option<SecretString>,
    /// Keys of guest tokens, the first signs: kid:base64url(32 bytes),…
    #[arg(long, env = "GUEST_TOKEN_KEYS", hide_env_values = true, value_name = "KEYS")]
    pub(super) guest_token_keys: Option<SecretString>,
    /// How often one client may ask, by kind: name:count/unit:burst,… [default: docs/operations.md]
    #[arg(long, env = "LIMITS", hide_env_values = true, value_name = "LIMITS")]
    pub(super) limits: Option<String>,
    /// Milliseconds that a request waits for Redis to count it [default: 50]
    #[arg(long, env = "LIMITS_WAIT_MS", hide_env_values = true, value_name = "MS")]
    pub(super) limits_wait_ms: Option<String>,
    /// Origins whose pages may call the API: `https://shop.example,…` [default: its own]
    #[arg(long, env = "ALLOWED_ORIGINS", hide_env_values = true, value_name = "ORIGIN,…")]
    pub(super) allowed_origins: Option<String>,
    /// Proxies of ours before the API; each adds to X-Forwarded-For [default in development: 0]
    #[arg(long, env = "TRUSTED_PROXIES", hide_env_values = true, value_name = "PROXIES")]
    pub(super) trusted_proxies: Option<String>,
    /// Requests that are worked on at a time [default: 640]
    #[arg(long, env = "CONCURRENCY", hide_env_values = true, value_name = "REQUESTS")]
    pub(super) concurrency: Option<String>,
    #[command(flatten)]
    pub(super) providers: ProviderArguments,
}

/// Works on what the payment providers report.
#[derive(Parser)]
#[command(name = "webhooks", version, after_help = FILES)]
pub(super) struct WebhooksArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    #[command(flatten)]
    pub(super) providers: ProviderArguments,
}

#[derive(Args)]
pub(super) struct ProviderArguments {
    /// Stripe's API [default: the one of api.stripe.com]
    #[arg(long, env = "STRIPE_URL", hide_env_values = true, value_name = "URL")]
    pub(super) stripe_url: Option<String>,
    /// Stripe's secret keys, the first is used; none: no Stripe
    #[arg(long, env = "STRIPE_KEYS", hide_env_values = true, value_name = "KEY,…")]
    pub(super) stripe_keys: Option<SecretString>,
    /// What Stripe signs webhooks with, the newest first
    #[arg(long, env = "STRIPE_WEBHOOK_SECRETS", hide_env_values = true, value_name = "SECRET,…")]
    pub(super) stripe_webhook_secrets: Option<SecretString>,
    /// Calls to Stripe each second at most, of all processes together [default: 20]
    #[arg(long, env = "STRIPE_RATE", hide_env_values = true, value_name = "CALLS")]
    pub(super) stripe_rate: Option<String>,
    /// Razorpay's API [default: the one of api.razorpay.com]
    #[arg(long, env = "RAZORPAY_URL", hide_env_values = true, value_name = "URL")]
    pub(super) razorpay_url: Option<String>,
    /// Razorpay's key ids and secrets, the first is used; none: no Razorpay
    #[arg(long, env = "RAZORPAY_KEYS", hide_env_values = true, value_name = "ID:SECRET,…")]
    pub(super) razorpay_keys: Option<SecretString>,
    /// What Razorpay signs webhooks with, the newest first
    #[arg(long, env = "RAZORPAY_WEBHOOK_SECRETS", hide_env_values = true, value_name = "SECRET,…")]
    pub(super) razorpay_webhook_secrets: Option<SecretString>,
    /// Calls to Razorpay each second at most, of all processes together [default: 10]
    #[arg(long, env = "RAZORPAY_RATE", hide_env_values = true, value_name = "CALLS")]
    pub(super) razorpay_rate: Option<String>,
}

/// Ends what nobody paid for, pushes again what was lost on the way, and asks for what nobody told us.
#[derive(Parser)]
#[command(name = "reaper", version, after_help = FILES)]
pub(super) struct ReaperArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    #[command(flatten)]
    pub(super) providers: ProviderArguments,
}

/// Sends the shop's mails.
#[derive(Parser)]
#[command(name = "mailer", version, after_help = FILES)]
pub(super) struct MailerArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// The mail server: smtp://[user:password@]host:port or smtps://…
    #[arg(long, env = "SMTP_URL", hide_env_values = true, value_name = "URL")]
    pub(super) smtp_url: Option<SecretString>,
    /// Who the mails are from: Shop <orders@shop.example>
    #[arg(long, env = "MAIL_FROM", hide_env_values = true, value_name = "ADDRESS")]
    pub(super) mail_from: Option<String>,
    /// What the shop is called in mails
    #[arg(long, env = "SHOP_NAME", hide_env_values = true, value_name = "NAME")]
    pub(super) shop_name: Option<String>,
    /// Where shoppers find the shop, as a URL
    #[arg(long, env = "SHOP_URL", hide_env_values = true, value_name = "URL")]
    pub(super) shop_url: Option<String>,
}
