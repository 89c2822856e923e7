//! What the system is for: crash, loss, repetition and rush, on real processes.
//!
//! Every test runs a shop of its own (`Cluster`), lets clients keep a ledger of all they were told,
//! breaks something, and then compares: all promised work ends, every invariant of the doctor holds,
//! and no answer disagrees with the database.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a failed test shows what it saw")]

#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/roles.rs"]
mod roles;

mod client;
mod ledger;
mod load;
mod shop;

mod crash;
mod day;
mod deadlines;
mod mail;
mod payments;
mod postgres;
mod race;
mod redis_loss;
mod shutdown;
