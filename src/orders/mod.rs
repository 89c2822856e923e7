//! Orders: what was agreed with a shopper, where it stands, and all that happened to it.
//!
//! Owns `orders`, `order_lines`, `order_events` and `order_transitions`. An order is never removed and
//! never changes but for its status and deadline, each of which leaves one row on the timeline, and for who its
//! shopper is: a user may take over what they ordered as a guest, and have themselves erased. Moving stock or
//! money along with an order is the checkout's and the payments' work, not done here.

pub mod api;
mod error;
mod number;
mod read;
mod status;
pub mod store;

use serde_json::Value;
use time::OffsetDateTime;

pub use error::OrderError;
pub use number::OrderNumber;
pub use read::{Order, find_any_order, find_order, list_orders};
pub use status::{Event, Note, Status};

use crate::kernel::{Money, OrderId, OwnerId, VariantId};

/// An order to be written.
#[derive(Debug, Clone)]
pub struct NewOrder<'a> {
    pub id: OrderId,
    pub number: &'a OrderNumber,
    pub owner_id: OwnerId,
    pub email: &'a str,
    pub shipping_address: &'a Value,
    pub lines: &'a [OrderLine],
    pub totals: Totals,
}

/// What an order says of one variant, with the price and the names of the moment it was placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderLine {
    pub variant_id: VariantId,
    pub sku: String,
    pub title: String,
    pub quantity: i64,
    pub unit_price: Money,
}

/// What an order costs: `total = subtotal - discount + shipping + tax`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub subtotal: Money,
    pub discount: Money,
    pub shipping: Money,
    pub tax: Money,
    pub total: Money,
}

/// One thing that happened to an order.
#[derive(Debug, Clone)]
pub struct TimelineEntry {
    pub kind: String,
    pub status: String,
    pub detail: Value,
    pub recorded_at: OffsetDateTime,
}
