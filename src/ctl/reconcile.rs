use std::error::Error;

use clap::Subcommand;
use serde_json::{Value, json};
use sqlx::PgPool;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Outcome, entry};
use crate::{
    audit,
    kernel::{OrderId, UserId},
    payments::{
        Provider, disputes,
        findings::{Finding, store::list},
        reconciliation::store::{newest, read_now},
        refunds,
        store::look_now,
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Have the providers asked about everything that is under way, and their lists read, within seconds.
    Run {
        /// stripe or razorpay; both if none is named.
        #[arg(long)]
        provider: Option<Provider>,
        /// Read the lists from then on, as 2026-11-21T12:00:00Z: after a restore, from the backup's time.
        #[arg(long, value_parser = moment)]
        since: Option<OffsetDateTime>,
    },
    /// List what a person has to look at, the newest first.
    Findings {
        /// Those that are closed, too.
        #[arg(long)]
        all: bool,
        /// Print one JSON array instead of text.
        #[arg(long)]
        json: bool,
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100))]
        limit: i64,
    },
    /// List the readings of the providers' lists, the newest first.
    Runs {
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=100))]
        limit: i64,
    },
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "a time as 2026-11-21T12:00:00Z".to_owned())
}

pub(super) async fn run(db: &PgPool, command: Command) -> Outcome {
    match command {
        Command::Run { provider, since } => {
            let providers = provider.map_or(Provider::ALL.to_vec(), |provider| vec![provider]);
            for provider in providers {
                let mut tx = db.begin().await?;
                let payments = look_now(&mut *tx, provider).await?;
                let refunds = refunds::store::look_now(&mut *tx, provider).await?;
                let disputes = disputes::store::look_now(&mut *tx, provider).await?;
                read_now(&mut *tx, provider, since).await?;
                let since = since.map(|since| since.format(&Rfc3339)).transpose()?;
                let subject = format!("provider:{}", provider.name());
                let entry = entry("reconcile", subject, None, json!({ "since": since }));
                audit::record(&mut *tx, &entry).await?;
                tx.commit().await?;
                println!(
                    "{} will be asked about {payments} payments, {refunds} refunds and {disputes} disputes, \
                     and its lists read",
                    provider.name()
                );
            }
            Ok(true)
        }
        Command::Findings { all, json, limit } => findings(db, all, json, limit).await,
        Command::Runs { limit } => {
            for run in newest(db, limit).await? {
                println!(
                    "{}  {:8}  from {} to {}  {} listed, {} found",
                    run.finished_at,
                    run.provider.name(),
                    run.read_from,
                    run.read_until,
                    run.listed,
                    run.found,
                );
            }
            Ok(true)
        }
    }
}

async fn findings(db: &PgPool, all: bool, json: bool, limit: i64) -> Outcome {
    let findings = list(db, !all, None, limit).await?;
    if json {
        let objects = findings.iter().map(object).collect::<Result<Vec<_>, _>>()?;
        println!("{}", serde_json::to_string_pretty(&objects)?);
        return Ok(true);
    }
    for finding in &findings {
        let order = finding.order_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let end = match (finding.closed_at, &finding.note) {
            (None, _) => "open".to_owned(),
            (Some(at), None) => format!("over at {at}"),
            (Some(at), Some(note)) => format!("closed at {at}: {note}"),
        };
        println!(
            "{}  {:15}  {}  order {order}  opened {}  {end}  {}",
            finding.id,
            finding.kind.name(),
            finding.subject,
            finding.opened_at,
            finding.detail,
        );
    }
    println!("{} findings", findings.len());
    Ok(true)
}

fn object(finding: &Finding) -> Result<Value, Box<dyn Error>> {
    let closed_at = finding.closed_at.map(|at| at.format(&Rfc3339)).transpose()?;
    Ok(json!({
        "id": finding.id,
        "kind": finding.kind.name(),
        "subject": finding.subject,
        "order_id": finding.order_id.map(OrderId::uuid),
        "detail": finding.detail,
        "opened_at": finding.opened_at.format(&Rfc3339)?,
        "closed_at": closed_at,
        "closed_by": finding.closed_by.map(UserId::uuid),
        "note": finding.note,
    }))
}
