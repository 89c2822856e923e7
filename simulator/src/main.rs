//! Runs the simulator until it is told to stop.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use clap::Parser;
use simulator::{
    inbox::Inbox,
    providers::{Addresses, Config, Provider, Providers},
};
use tokio::signal::unix::{SignalKind, signal};

/// A mail server that delivers nothing and payment providers that move no money; both show
/// everything.
#[derive(Parser)]
#[command(version)]
struct Settings {
    /// Where mail is handed in, by SMTP.
    #[arg(long, env = "SIMULATOR_SMTP_LISTEN", default_value = "127.0.0.1:1025")]
    smtp_listen: SocketAddr,
    /// Where mail is read and payments are made, with a browser.
    #[arg(long, env = "SIMULATOR_HTTP_LISTEN", default_value = "127.0.0.1:8025")]
    http_listen: SocketAddr,
    /// Where Stripe's API is served.
    #[arg(long, env = "SIMULATOR_STRIPE_LISTEN", default_value = "127.0.0.1:8026")]
    stripe_listen: SocketAddr,
    /// Where Razorpay's API is served.
    #[arg(long, env = "SIMULATOR_RAZORPAY_LISTEN", default_value = "127.0.0.1:8027")]
    razorpay_listen: SocketAddr,
    /// The shop whose `/v1/webhooks/…` the providers tell of payments.
    #[arg(long, env = "SIMULATOR_WEBHOOK_BASE", default_value = "http://127.0.0.1:8080")]
    webhook_base: String,
    /// The key that Stripe knows the shop by.
    #[arg(long, env = "SIMULATOR_STRIPE_KEY", hide_env_values = true)]
    stripe_key: Option<String>,
    /// What Stripe signs webhooks with; several, with commas, while it is rotated.
    #[arg(
        long,
        env = "SIMULATOR_STRIPE_WEBHOOK_SECRETS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    stripe_webhook_secrets: Option<Vec<String>>,
    /// The key that Razorpay knows the shop by, `id:secret`.
    #[arg(long, env = "SIMULATOR_RAZORPAY_KEY", hide_env_values = true)]
    razorpay_key: Option<String>,
    /// What Razorpay signs webhooks with.
    #[arg(long, env = "SIMULATOR_RAZORPAY_WEBHOOK_SECRET", hide_env_values = true)]
    razorpay_webhook_secret: Option<String>,
}

impl Settings {
    fn config(&self) -> Config {
        let defaults = Config::default();
        let (key_id, key_secret) = self
            .razorpay_key
            .as_deref()
            .and_then(|key| key.split_once(':'))
            .unwrap_or((&defaults.razorpay_key_id, &defaults.razorpay_key_secret));
        Config {
            stripe_key: self.stripe_key.clone().unwrap_or(defaults.stripe_key),
            stripe_webhook_secrets: self
                .stripe_webhook_secrets
                .clone()
                .unwrap_or(defaults.stripe_webhook_secrets),
            razorpay_key_id: key_id.to_owned(),
            razorpay_key_secret: key_secret.to_owned(),
            razorpay_webhook_secret: self
                .razorpay_webhook_secret
                .clone()
                .unwrap_or(defaults.razorpay_webhook_secret),
            ..defaults
        }
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let settings = Settings::parse();
    let mut terminate = signal(SignalKind::terminate())?;

    let addresses = Addresses {
        stripe: settings.stripe_listen,
        razorpay: settings.razorpay_listen,
        page: None,
    };
    let providers = Providers::start(addresses, settings.config()).await?;
    providers.set_webhook_base(&settings.webhook_base);
    let pages = providers.pages();
    let inbox = Inbox::start_beside(settings.smtp_listen, settings.http_listen, pages).await?;
    writeln!(
        io::stdout(),
        "inbox: mail goes in at smtp://{smtp} and is read at http://{http}/\n\
         payments: Stripe is at {stripe}, Razorpay at {razorpay}; shoppers pay at \
         http://{http}/payments",
        smtp = inbox.smtp_addr(),
        http = inbox.http_addr(),
        stripe = providers.url(Provider::Stripe),
        razorpay = providers.url(Provider::Razorpay),
    )?;

    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
