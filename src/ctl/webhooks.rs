use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Outcome, entry};
use crate::{
    audit,
    kernel::{EventId, rerun},
    payments::inbox::{
        State, replay,
        store::{self, LIST_MAX},
    },
};

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
    /// Judge webhooks once more, within seconds: parked ones after the cause was mended, or those that
    /// nobody has finished. The bodies of the others are forgotten.
    Replay {
        /// Which, as `list` shows them.
        #[arg(required_unless_present = "parked", conflicts_with = "parked")]
        ids: Vec<Uuid>,
        /// All that are parked, a hundred at a time.
        #[arg(long)]
        parked: bool,
        /// Of these only one kind, such as `refund.updated`.
        #[arg(long, requires = "parked")]
        kind: Option<String>,
    },
}

fn state(name: &str) -> Result<State, String> {
    State::from_name(name).ok_or_else(|| "new, done, ignored or parked".to_owned())
}

pub(super) async fn run(db: &PgPool, command: Command) -> Outcome {
    match command {
        Command::List { state, limit } => list(db, state, limit).await,
        Command::Replay { ids, parked, kind } => {
            let wanted: Vec<_> = if parked {
                store::parked(db, kind.as_deref(), LIST_MAX).await?
            } else {
                ids.into_iter().map(EventId::from).collect()
            };
            let reopened = rerun(|| reopen(db, &wanted), |error| Some(error)).await?;
            for id in wanted.iter().filter(|id| !reopened.contains(id)) {
                println!("{id} is unknown, or finished and its body forgotten");
            }
            println!("{} webhooks will be judged again", reopened.len());
            Ok(reopened.len() == wanted.len())
        }
    }
}

/// Has the webhooks judged anew; returns which.
async fn reopen(db: &PgPool, wanted: &[EventId]) -> sqlx::Result<Vec<EventId>> {
    let mut tx = db.begin().await?;
    let reopened = replay(&mut tx, wanted).await?;
    for event in &reopened {
        let before = json!({ "state": event.state, "reason": event.reason });
        let after = json!({ "state": State::New.name() });
        let entry = entry("replayWebhook", format!("webhook:{}", event.id), Some(before), after);
        audit::record(&mut *tx, &entry).await?;
    }
    tx.commit().await?;
    Ok(reopened.into_iter().map(|event| event.id).collect())
}

async fn list(db: &PgPool, state: State, limit: i64) -> Outcome {
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
