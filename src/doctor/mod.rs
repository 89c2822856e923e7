//! The doctor: every promise the data must keep, as SQL over one snapshot.

mod invariants;
mod store;

use serde::Serialize;
use sqlx::PgPool;

/// A promise about the data.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Invariant {
    pub name: &'static str,
    /// What must hold.
    pub promise: &'static str,
    /// Selects `(subject, detail)` for every row that breaks the promise.
    #[serde(skip)]
    sql: &'static str,
}

/// A broken promise.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub invariant: &'static str,
    pub promise: &'static str,
    /// The id of the row that breaks it.
    pub subject: String,
    pub detail: String,
}

/// How many findings of one invariant are told: enough to see the pattern.
const FINDINGS_MAX: i64 = 100;

/// Checks every invariant in one snapshot; an empty list says that all hold.
///
/// It reads whole tables: run it by hand, after an incident or on a replica, not every minute.
pub async fn examine(db: &PgPool) -> sqlx::Result<Vec<Finding>> {
    let mut snapshot = store::snapshot(db).await?;
    let mut findings = Vec::new();
    for invariant in invariants::ALL {
        for (subject, detail) in
            store::violations(&mut snapshot, invariant.sql, FINDINGS_MAX).await?
        {
            findings.push(Finding {
                invariant: invariant.name,
                promise: invariant.promise,
                subject,
                detail,
            });
        }
    }
    Ok(findings)
}

/// Every invariant that is checked.
pub const fn invariants() -> &'static [Invariant] {
    invariants::ALL
}
