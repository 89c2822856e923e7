use clap::Subcommand;
use sqlx::PgPool;

use super::Outcome;
use crate::inventory::recount;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Hold every counter against its ledger; exit 1 if any differs and was not repaired.
    Recount {
        /// Set the counters that differ to what the ledger says.
        #[arg(long)]
        repair: bool,
    },
}

pub(super) async fn run(db: &PgPool, command: Command) -> Outcome {
    let Command::Recount { repair } = command;
    let differences = recount::recount(db).await?;
    for difference in &differences {
        println!(
            "{}: on hand {} (ledger {}), reserved {} (ledger {})",
            difference.variant_id,
            difference.on_hand,
            difference.ledger_on_hand,
            difference.reserved,
            difference.ledger_reserved,
        );
        if repair {
            recount::repair(db, difference.variant_id).await?;
        }
    }
    match (differences.len(), repair) {
        (0, _) => println!("every counter equals its ledger"),
        (count, true) => println!("{count} variants repaired"),
        (count, false) => println!("{count} variants differ; --repair sets them to the ledger"),
    }
    Ok(differences.is_empty() || repair)
}
