//! Reconciliation: how far the providers' own lists were read.
//!
//! Owns `reconciliation_cursors` and `reconciliation_runs`. The last minutes of a list are read
//! again by the next reading, so that what a provider lists late is not missed; what is known by then is
//! passed over.

pub mod store;

use time::OffsetDateTime;

use super::Provider;

/// The part of a provider's lists that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    pub provider: Provider,
    /// Where the last reading ended, but for the minutes that are read again.
    pub from: OffsetDateTime,
    pub until: OffsetDateTime,
}

/// One reading of a provider's lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub provider: Provider,
    pub read_from: OffsetDateTime,
    pub read_until: OffsetDateTime,
    /// What the provider listed, and how much of it nobody had told us.
    pub listed: i32,
    pub found: i32,
    pub finished_at: OffsetDateTime,
}
