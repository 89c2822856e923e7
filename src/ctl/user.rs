use std::io::Read;

use clap::Subcommand;
use sqlx::PgPool;

use super::Outcome;
use crate::identity::{self, EmailAddress, Hasher, Password, Role};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a login. The password is read from standard input, so that no process list shows it.
    Create {
        email: String,
        /// customer, staff or admin.
        #[arg(long, default_value = "customer")]
        role: Role,
    },
    /// Give a login another role; tokens issued before become worthless.
    SetRole {
        email: String,
        /// customer, staff or admin.
        role: Role,
    },
}

pub(super) async fn run(db: &PgPool, command: Command) -> Outcome {
    match command {
        Command::Create { email, role } => {
            let mut password = String::new();
            std::io::stdin().read_to_string(&mut password)?;
            let password = Password::parse(password.trim_end_matches(['\r', '\n']))?;
            let email = EmailAddress::parse(&email)?;
            let account = identity::create_user(db, &Hasher::new(1), email, password, role).await?;
            println!("{} {} ({})", account.id, account.email, account.role.as_str());
        }
        Command::SetRole { email, role } => {
            identity::set_role(db, &EmailAddress::parse(&email)?, role).await?;
            println!("{email} is {} now", role.as_str());
        }
    }
    Ok(true)
}
