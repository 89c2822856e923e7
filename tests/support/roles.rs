//! The two roles of a shop's database: the owner, who migrates, and the one that the processes are.

use holdfast::ctl::privileges;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool, postgres::PgConnectOptions};

/// What every process of these tests is to PostgreSQL. A role belongs to the server, so all tests share it.
pub(crate) const APP_ROLE: &str = "holdfast_test_app";

/// Makes the role of the processes, unless the server has it.
pub(crate) async fn make_app_role(server: &mut PgConnection, owner: &PgConnectOptions) {
    // Another test may be at it, too. The password is of digits and letters only.
    let make = format!(
        "
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN
                CREATE ROLE {APP_ROLE} LOGIN PASSWORD '{}';
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END $$
        ",
        password(owner)
    );
    sqlx::query(AssertSqlSafe(make)).execute(server).await.unwrap();
}

/// Gives the role what `ctl migrate` gives it.
pub(crate) async fn grant(owner: &PgPool) {
    privileges::grant(owner, APP_ROLE).await.unwrap();
}

/// The way into the owner's database for a process.
pub(crate) fn as_app(owner: &PgConnectOptions) -> PgConnectOptions {
    owner.clone().username(APP_ROLE).password(&password(owner))
}

/// Found again by every test process, and by nobody who does not know the owner's.
fn password(owner: &PgConnectOptions) -> String {
    let url = owner.to_url_lossy();
    hex::encode(Sha256::digest(format!("{APP_ROLE}:{}", url.password().unwrap_or_default())))
}
