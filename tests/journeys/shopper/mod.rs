//! Shoppers: what they order, and what becomes of it.

mod cancel;
mod deadline;
mod mail;
mod order;
mod read;
mod repeat;
mod takeover;
