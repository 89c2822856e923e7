//! Privacy: what people may have the shop do with what it knows of them, in every slice at once. Taking over
//! what they ordered as guests, seeing all that is kept of them, and being forgotten.
//!
//! Owns no table: it moves accounts, orders and mails together, each in one transaction.

pub mod api;
mod erase;
mod error;
mod export;
mod store;
mod verify;

pub use erase::{erase_account, erase_left_over};
pub use error::PrivacyError;
pub use export::{Export, export};
pub use store::{GuestOrder, OrderRefund};
pub use verify::verify_email;
