use std::io::Read;

use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;

use super::{Outcome, entry};
use crate::{
    audit,
    identity::{self, Account, EmailAddress, Hasher, IdentityError, Password, Role},
    kernel::UserId,
};

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
            let account = create(db, &Hasher::new(1), email, password, role).await?;
            println!("{} {} ({})", account.id, account.email, account.role.as_str());
        }
        Command::SetRole { email, role } => {
            let address = EmailAddress::parse(&email)?;
            let mut tx = db.begin().await?;
            let (id, before) = identity::set_role(&mut *tx, &address, role).await?;
            audit::record(&mut *tx, &given("setRole", id, Some(before), role)).await?;
            tx.commit().await?;
            println!("{email} is {} now", role.as_str());
        }
    }
    Ok(true)
}

/// Adds a login, and to the audit log who did.
pub(super) async fn create(
    db: &PgPool,
    hasher: &Hasher,
    email: EmailAddress,
    password: Password,
    role: Role,
) -> Result<Account, IdentityError> {
    let mut tx = db.begin().await?;
    let account = identity::create_user(&mut *tx, hasher, email, password, role).await?;
    audit::record(&mut *tx, &given("createUser", account.id, None, role)).await?;
    tx.commit().await?;
    Ok(account)
}

/// What the audit log says of a role that was given.
fn given(action: &str, id: UserId, before: Option<Role>, after: Role) -> audit::Entry {
    let role = |role| json!({ "role": role });
    entry(action, format!("user:{}", id.uuid()), before.map(role), role(after))
}
