//! What the journeys stand on: a whole shop in this process, with a database and a queue of its own,
//! and the people who use it.

pub(crate) mod app;
pub(crate) mod client;
pub(crate) mod ports;
pub(crate) mod roles;
pub(crate) mod server;
pub(crate) mod shop;

/// One key per intention, of a legal length.
pub(crate) const KEY: &str = "one-key-per-intention";
