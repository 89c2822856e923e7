//! `ctl`, the operator's tool.
#![expect(clippy::print_stdout, reason = "what this tool finds is its output")]

mod jobs;
mod payments;
pub mod privileges;
mod reconcile;
mod seed;
mod stock;
mod store;
mod user;
mod webhooks;

use std::{
    error::Error,
    fs::File,
    io::{Read, stdin},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    audit, config,
    doctor::{self, ProviderLedger},
};

/// Looks after a Holdfast installation.
#[derive(Debug, Parser)]
#[command(name = "ctl", version)]
struct Arguments {
    #[command(flatten)]
    settings: config::Ctl,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the database's schema to this version, and give the role of the processes what they need.
    Migrate(config::Migrate),
    /// Fill an empty shop of a developer with demo products, stock and logins; repeating it adds nothing.
    Seed(config::Seed),
    /// Logins.
    #[command(subcommand)]
    User(user::Command),
    /// Background work: what waits, what is dead, and what to do about it.
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Attempts to pay, and money that came in.
    #[command(subcommand)]
    Payments(payments::Command),
    /// What providers told us.
    #[command(subcommand)]
    Webhooks(webhooks::Command),
    /// What providers know and nobody told us, and what a person has to look at.
    #[command(subcommand)]
    Reconcile(reconcile::Command),
    /// Stock counters.
    #[command(subcommand)]
    Stock(stock::Command),
    /// Check every invariant in one snapshot; exit 1 if any is broken.
    Doctor {
        /// Print one JSON array of findings instead of text.
        #[arg(long)]
        json: bool,
        /// Compare with what the providers collected and sent back, too: a file or `-` with
        /// `{"captures":[{"provider":…,"provider_ref":…,"amount_minor":…,"currency":…},…],
        /// "refunds":[{"provider":…,"provider_ref":…,"payment_ref":…,"amount_minor":…,"state":…},…]}`.
        #[arg(long, value_name = "FILE")]
        provider_ledger: Option<PathBuf>,
    },
}

/// What a command came to, beyond an error: `false` exits with 1.
type Outcome = Result<bool, Box<dyn Error>>;

/// The exit code for wrong arguments and settings, as of every process.
const WRONG_ARGUMENTS: u8 = 2;

/// Runs the tool: exit 0 when all is well, 1 when something is wrong, 2 for wrong arguments or settings.
pub async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ctl: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            if error.is::<config::BadSettings>() {
                return WRONG_ARGUMENTS.into();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { settings, command }: Arguments) -> Outcome {
    let db = async || -> Result<PgPool, Box<dyn Error>> {
        Ok(connect(&settings.database_url()?).await?)
    };
    match command {
        Command::Migrate(arguments) => migrate(settings.owner(&arguments)?).await,
        Command::Seed(arguments) => {
            arguments.check()?;
            seed::run(&db().await?).await
        }
        Command::User(command) => user::run(&db().await?, command).await,
        Command::Jobs(command) => jobs::run(&db().await?, command).await,
        Command::Stock(command) => stock::run(&db().await?, command).await,
        Command::Payments(command) => payments::run(&db().await?, command).await,
        Command::Webhooks(command) => webhooks::run(&db().await?, command).await,
        Command::Reconcile(command) => reconcile::run(&db().await?, command).await,
        Command::Doctor { json, provider_ledger } => {
            examine(&db().await?, json, provider_ledger.as_deref()).await
        }
    }
}

async fn connect(url: &SecretString) -> sqlx::Result<PgPool> {
    // A person waits for one statement after the other.
    PgPoolOptions::new().max_connections(2).connect(url.expose_secret()).await
}

/// What the audit log says of something that was done here. Whoever has a shell is no user of the
/// shop: beside what came of it, `after` names who that was.
fn entry(action: &str, subject: String, before: Option<Value>, mut after: Value) -> audit::Entry {
    after["operator"] = config::operator().into();
    audit::Entry {
        actor_id: audit::OPERATOR,
        action: action.to_owned(),
        subject,
        before,
        after: Some(after),
        request_id: None,
    }
}

async fn migrate(owner: config::Owner) -> Outcome {
    let db = connect(&owner.database_url).await?;
    crate::MIGRATOR.run(&db).await?;
    println!("the schema is up to date");
    let Some(role) = owner.app_role else {
        eprintln!(
            "warning: nothing was granted, because no other role is named: give the role of the \
             processes by DATABASE_URL or APP_ROLE, and that of the owner by MIGRATE_DATABASE_URL"
        );
        return Ok(true);
    };
    for left in privileges::grant(&db, &role).await? {
        eprintln!("warning: {left}, until the owner of the database takes that from everybody");
    }
    println!("{role} may do with the tables what the processes do, and no more");
    Ok(true)
}

async fn examine(db: &PgPool, json: bool, provider_ledger: Option<&Path>) -> Outcome {
    for excess in privileges::excess(db).await? {
        eprintln!("warning: the role of DATABASE_URL may do too much: {excess}");
    }
    let mut findings = doctor::examine(db).await?;
    let mut checked: Vec<_> = doctor::invariants().collect();
    if let Some(file) = provider_ledger {
        let ledger = read_ledger(file)?;
        findings.extend(doctor::compare(db, &ledger).await?);
        checked.push(&doctor::PROVIDER_LEDGER);
        checked.extend(ledger.refunds.is_some().then_some(&doctor::PROVIDER_REFUNDS));
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
        return Ok(findings.is_empty());
    }
    for invariant in checked {
        let broken: Vec<_> =
            findings.iter().filter(|finding| finding.invariant == invariant.name).collect();
        let mark = if broken.is_empty() { "holds" } else { "BROKEN" };
        println!("{mark:7} {}: {}", invariant.name, invariant.promise);
        for finding in broken {
            println!("        {}  {}", finding.subject, finding.detail);
        }
    }
    Ok(findings.is_empty())
}

fn read_ledger(file: &Path) -> Result<ProviderLedger, Box<dyn Error>> {
    let mut text = String::new();
    if file == Path::new("-") {
        stdin().read_to_string(&mut text)?;
    } else {
        File::open(file)?.read_to_string(&mut text)?;
    }
    Ok(serde_json::from_str(&text)?)
}
