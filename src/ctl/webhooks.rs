use clap::Subcommand;
use sqlx::PgPool;

use super::Outcome;
use crate::payments::inbox::{State, store};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List webhooks of the inbox, the newest first, without their bodies.
    List {
        /// Only webhooks in this state: new, done, ignored or parked.
        #[arg(long, default_value = "parked", value_parser = state)]
        state: State,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100))]
        limit: i64,
    },
}

fn state(name: &str) -> Result<State, String> {
    State::from_name(name).ok_or_else(|| "new, done, ignored or parked".to_owned())
}

pub(super) async fn run(db: &PgPool, command: Command) -> Outcome {
    let Command::List { state, limit } = command;
    let events = store::list(db, state, limit).await?;
    for event in &events {
        println!(
            "{}  {:8}  {}  {}  received {}  {}",
            event.id,
            event.provider.name(),
            event.event_id,
            event.kind,
            event.received_at,
            event.reason.as_deref().unwrap_or("-"),
        );
    }
    println!("{} webhooks", events.len());
    Ok(true)
}
