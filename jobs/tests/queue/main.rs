//! What the ledger and its wake-ups promise, on a real PostgreSQL and a real Redis.
//!
//! `DATABASE_URL` names a server on which databases may be created, `REDIS_URL` a Redis.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod ledger;
mod support;
mod wake_ups;
