//! The audit log: what members of staff and operators did, one row each, never changed.
//!
//! Owns `audit_log`. A row is written in the transaction of what it tells of.

mod store;

use serde_json::Value;
pub use store::{of_subject, record};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::kernel::UserId;

/// Stands for an operator at the command line, who needs no account.
pub const OPERATOR: UserId = UserId::of(Uuid::nil());

/// A member of staff who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub id: UserId,
    /// Names the request in our logs.
    pub request_id: Option<String>,
}

/// Something that a member of staff did.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub actor_id: UserId,
    /// The operation's id in the API: `refundOrder`.
    pub action: String,
    /// What it was done to: `order:0198…`.
    pub subject: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// Names the request in our logs.
    pub request_id: Option<String>,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub entry: Entry,
    pub recorded_at: OffsetDateTime,
}
