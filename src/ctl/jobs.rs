use clap::Subcommand;
use jobs::ledger::{self, Filter, Row, State, Was};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Outcome, entry};
use crate::audit;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List jobs, the newest first.
    List {
        /// Only jobs of this kind, such as `notifications.send-order-received`.
        #[arg(long)]
        kind: Option<String>,
        /// Only jobs in this state: ready, done, dead or discarded.
        #[arg(long, value_parser = state)]
        state: Option<State>,
        /// Go on after this job.
        #[arg(long)]
        after: Option<Uuid>,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100))]
        limit: i64,
    },
    /// Show everything about one job.
    Show { id: Uuid },
    /// Try a dead or waiting job again, now, with all its attempts before it.
    Retry { id: Uuid },
    /// Say that a dead or waiting job is not to be done, for good.
    Discard {
        id: Uuid,
        /// Who decides, for the record.
        #[arg(long)]
        by: String,
    },
}

fn state(name: &str) -> Result<State, String> {
    State::from_name(name).ok_or_else(|| "ready, done, dead or discarded".to_owned())
}

pub(super) async fn run(db: &PgPool, command: Command) -> Outcome {
    match command {
        Command::List { kind, state, after, limit } => {
            let rows = ledger::list(db, &Filter { kind, state }, after, limit).await?;
            for row in &rows {
                let error = row.last_error.as_deref().unwrap_or("-");
                println!(
                    "{}  {:9}  {}  run_at={}  attempts={}  {error}",
                    row.id, row.state, row.kind, row.run_at, row.attempts,
                );
            }
            println!("{} jobs", rows.len());
            Ok(true)
        }
        Command::Show { id } => {
            let row = ledger::show(db, id).await?;
            Ok(told(row.as_ref(), id))
        }
        Command::Retry { id } => {
            let mut tx = db.begin().await?;
            let was = ledger::retry(&mut *tx, id).await?;
            if let Some(was) = &was {
                let after = json!({ "state": State::Ready.name(), "attempts": 0 });
                audit::record(&mut *tx, &decided("retryJob", id, was, after)).await?;
            }
            tx.commit().await?;
            Ok(changed(was.is_some(), id, "will be tried again"))
        }
        Command::Discard { id, by } => {
            let mut tx = db.begin().await?;
            let was = ledger::discard(&mut *tx, id, &by).await?;
            if let Some(was) = &was {
                let after = json!({ "state": State::Discarded.name(), "by": by });
                audit::record(&mut *tx, &decided("discardJob", id, was, after)).await?;
            }
            tx.commit().await?;
            Ok(changed(was.is_some(), id, "is discarded"))
        }
    }
}

fn decided(action: &str, id: Uuid, was: &Was, after: Value) -> audit::Entry {
    let before = json!({ "kind": was.kind, "state": was.state, "attempts": was.attempts });
    entry(action, format!("job:{id}"), Some(before), after)
}

fn told(row: Option<&Row>, id: Uuid) -> bool {
    match row {
        Some(row) => println!("{row:#?}"),
        None => println!("there is no job {id}"),
    }
    row.is_some()
}

fn changed(changed: bool, id: Uuid, what: &str) -> bool {
    if changed {
        println!("{id} {what}");
    } else {
        println!("there is no job {id} of which that can be said");
    }
    changed
}
