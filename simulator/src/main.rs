//! Runs the simulator until it is told to stop.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use clap::Parser;
use simulator::inbox::Inbox;
use tokio::signal::unix::{SignalKind, signal};

/// A mail server that delivers nothing and shows everything.
#[derive(Debug, Parser)]
#[command(version)]
struct Settings {
    /// Where mail is handed in, by SMTP.
    #[arg(long, env = "SIMULATOR_SMTP_LISTEN", default_value = "127.0.0.1:1025")]
    smtp_listen: SocketAddr,
    /// Where mail is read, with a browser.
    #[arg(long, env = "SIMULATOR_HTTP_LISTEN", default_value = "127.0.0.1:8025")]
    http_listen: SocketAddr,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let settings = Settings::parse();
    let mut terminate = signal(SignalKind::terminate())?;

    let inbox = Inbox::start(settings.smtp_listen, settings.http_listen).await?;
    writeln!(
        io::stdout(),
        "inbox: mail goes in at smtp://{} and is read at http://{}/",
        inbox.smtp_addr(),
        inbox.http_addr(),
    )?;

    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
