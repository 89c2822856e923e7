//! The outside world of a shop, on this machine: what Holdfast talks to in production, with the
//! same bytes on the wire and with faults on request.
//!
//! - [`inbox`]: a mail server that keeps what it is sent, and shows it.
//! - [`providers`]: a Stripe and a Razorpay that move no money and sign real webhooks.

mod http;
pub mod inbox;
pub mod providers;

pub use self::http::{get, http_client};
