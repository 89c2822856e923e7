//! The outside world of a shop, on this machine: what Holdfast talks to in production, with the
//! same bytes on the wire and with faults on request.
//!
//! - [`inbox`]: a mail server that keeps what it is sent, and shows it.

pub mod inbox;
