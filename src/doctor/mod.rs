//! The doctor: every promise the data must keep, as SQL over one snapshot.

mod invariants;
mod money;
mod refunds;
mod sales;
mod store;

use serde::{Deserialize, Serialize};
use sqlx::PgPool;

pub use self::{money::PROVIDER_LEDGER, refunds::PROVIDER_REFUNDS};

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
    /// The id of the row that breaks it, or the provider's name for the money.
    pub subject: String,
    pub detail: String,
}

/// What providers say they collected and sent back: all of it, since the shop was opened.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProviderLedger {
    pub captures: Vec<ProviderCapture>,
    /// Without a list of them refunds are not compared.
    #[serde(default)]
    pub refunds: Option<Vec<ProviderRefund>>,
}

/// Money that a provider says it collected.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProviderCapture {
    /// `stripe` or `razorpay`.
    pub provider: String,
    /// `pi_…` or `pay_…`.
    pub provider_ref: String,
    pub amount_minor: i64,
    pub currency: String,
    /// Our payment's id in its metadata or notes, and null where it has none: somebody else collected
    /// it over the same account. A list of our payments alone may leave it out.
    #[serde(default = "ours")]
    pub payment_id: Option<String>,
}

/// Money that a provider says it sent back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProviderRefund {
    /// `stripe` or `razorpay`.
    pub provider: String,
    /// `re_…` or `rfnd_…`.
    pub provider_ref: String,
    /// The capture's name there: `pi_…` or `pay_…`.
    pub payment_ref: String,
    pub amount_minor: i64,
    /// `failed`, or anything else.
    pub state: String,
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for the field")]
fn ours() -> Option<String> {
    Some(String::new())
}

/// How many findings of one invariant are told: enough to see the pattern.
const FINDINGS_MAX: usize = 100;

/// Checks every invariant in one snapshot; an empty list says that all hold.
///
/// It reads whole tables: run it by hand, after an incident or on a replica, not every minute.
pub async fn examine(db: &PgPool) -> sqlx::Result<Vec<Finding>> {
    let mut snapshot = store::snapshot(db).await?;
    let mut findings = Vec::new();
    for invariant in invariants() {
        let violations = store::violations(&mut snapshot, invariant.sql, FINDINGS_MAX).await?;
        findings.extend(invariant.findings(violations));
    }
    Ok(findings)
}

/// Holds what the providers collected and sent back against what we recorded; an empty list says that
/// both agree.
///
/// Money on its way shows: a capture or a refund whose webhook was not settled yet is a finding.
pub async fn compare(db: &PgPool, ledger: &ProviderLedger) -> sqlx::Result<Vec<Finding>> {
    let ProviderLedger { captures, refunds } = ledger;
    let mut snapshot = store::snapshot(db).await?;
    let sql = PROVIDER_LEDGER.sql;
    let violations = store::violations_of(&mut snapshot, sql, captures, FINDINGS_MAX).await?;
    let mut findings = PROVIDER_LEDGER.findings(violations);
    if let Some(refunds) = refunds {
        let sql = PROVIDER_REFUNDS.sql;
        let violations = store::violations_of(&mut snapshot, sql, refunds, FINDINGS_MAX).await?;
        findings.extend(PROVIDER_REFUNDS.findings(violations));
    }
    Ok(findings)
}

/// Every invariant that is checked.
pub fn invariants() -> impl Iterator<Item = &'static Invariant> {
    invariants::ALL.iter().chain(money::ALL).chain(refunds::ALL).chain(sales::ALL)
}

impl Invariant {
    fn findings(&self, violations: Vec<(String, String)>) -> Vec<Finding> {
        let finding = |(subject, detail)| Finding {
            invariant: self.name,
            promise: self.promise,
            subject,
            detail,
        };
        violations.into_iter().map(finding).collect()
    }
}
