use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;

use super::{Outcome, entry};
use crate::{audit, inventory::recount, kernel::VariantId};

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
            repair_one(db, difference.variant_id).await?;
        }
    }
    match (differences.len(), repair) {
        (0, _) => println!("every counter equals its ledger"),
        (count, true) => println!("{count} variants repaired"),
        (count, false) => println!("{count} variants differ; --repair sets them to the ledger"),
    }
    Ok(differences.is_empty() || repair)
}

async fn repair_one(db: &PgPool, variant_id: VariantId) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    if let Some(was) = recount::repair(&mut tx, variant_id).await? {
        let counters =
            |on_hand: i64, reserved: i64| json!({ "on_hand": on_hand, "reserved": reserved });
        let entry = entry(
            "repairStock",
            format!("variant:{variant_id}"),
            Some(counters(was.on_hand, was.reserved)),
            counters(was.ledger_on_hand, was.ledger_reserved),
        );
        audit::record(&mut *tx, &entry).await?;
    }
    tx.commit().await
}
