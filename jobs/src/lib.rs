//! Contracts of background work: what a job is, the ledger that remembers it, and the wake-ups that
//! carry it to a worker.
//!
//! Owns the table `job_ledger`. A job is a row that was written in the transaction of its cause;
//! Redis carries wake-ups that name such rows, and nothing else. So a wake-up may be lost, repeated
//! or delivered twice at once: only the conditional claim of [`ledger::claim`] decides who works.
//!
//! ```text
//! cause ── stage ──▶ job_ledger ◀── claim, record ── worker
//!            │            ▲                            ▲
//!            └─ wake ─────┼──▶ Relay ──▶ Redis ────────┘
//!                         └── push_overdue (whatever was not picked up)
//! ```
//!
//! What holds, whatever crashes: a committed row is handled at least once, or is `dead` with a
//! reason; a verdict counts only while its attempt still has the lease.

pub mod checkout;
mod job;
pub mod ledger;
pub mod notifications;
mod relay;
pub mod retry;
pub mod transport;

pub use job::{Delay, Job, Lane, Undecodable, decode};
pub use ledger::{Staged, stage};
pub use relay::{PushError, Relay};
pub use transport::BadUrl;
