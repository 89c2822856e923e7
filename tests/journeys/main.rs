//! What people do with the shop, told from their side: shoppers, staff, operators, and programs that
//! call the API well or badly. `slice` looks at the checkout from inside, where a promise is about
//! many shoppers at once.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod account;
mod audit;
mod dispute;
mod drops;
mod edge;
mod generated;
mod guards;
mod limits;
mod operator;
mod paying;
mod provider;
mod quarantine;
mod reconcile;
mod refund;
mod secrets;
mod session;
mod shopper;
mod slice;
mod staff;
mod till;
