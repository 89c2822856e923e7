//! Inventory: how many units of each variant there are, and who keeps which.
//!
//! Owns `stock`, `holds` and `stock_ledger`. `0 <= reserved <= on_hand` for every variant; whatever
//! changes a counter appends to the ledger in the same transaction, so that the sums of the ledger
//! equal the counters in every snapshot. The counters and holds of a variant change only while its
//! stock row is locked.

pub mod allocation;
pub mod api;
mod error;
pub mod holds;
mod receive;
pub mod recount;
pub mod store;

pub use error::InventoryError;
pub use receive::{ReceiveStock, Received, receive_stock};
pub use store::Level;
