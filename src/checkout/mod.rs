//! Checkout: the one place that moves several slices at once. Placing, cancelling and expiring an
//! order each change stock, holds, the order and its follow-up work in one transaction.
//!
//! Owns no table. Every transaction here locks in this order: idempotency keys, callers, orders, stock, holds,
//! payments, then writes ledger and job rows; sorted by id within a table. No provider is asked within one.

mod allowance;
pub mod api;
mod cancel;
mod capture;
mod confirm;
mod dispute;
mod error;
mod events;
mod expire;
mod findings;
mod pay;
mod place;
mod price;
pub mod reconcile;
mod refund;
mod resolve;
mod settle;
mod ship;
mod sold_out;
mod store;
mod unfair;
mod withdraw;
pub mod work;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

pub use allowance::{OPEN_ORDERS_MAX, UNPAID_UNITS_MAX};
pub use cancel::cancel_order;
pub use capture::capture_payment;
pub use confirm::{confirm_payment, find_payment};
pub use dispute::{find_disputes, review_dispute};
pub use error::CheckoutError;
pub use events::{review_payment, settle_events};
pub use expire::expire_overdue;
pub use findings::{CloseFinding, close_finding, list_findings};
pub use pay::{Attempt, OpenPayment, open_payment};
pub use place::{Placement, place_orders};
pub use refund::{
    Heard, OrderRefund, RefundOrder, order_refunds, refund_order, refund_payment, review_refund,
    review_refunds_of, settle_refund,
};
pub use resolve::{
    Resolution, ResolveQuarantined, Resolved, list_quarantined, resolve_quarantined,
};
pub use settle::{EXTENSION, Settled, Settlement, settle};
pub use ship::{ShipOrder, ship_order};
pub use sold_out::SoldOut;
pub use unfair::{Opening, Unfair};
pub use withdraw::cancel_payment;

use crate::{
    idempotency::{ClaimKey, Fingerprint, Key},
    inventory::{allocation::Demand, holds::Hold},
    kernel::{Currency, EmailAddress, Money, OrderId, OwnerId, VariantId},
    orders::OrderNumber,
};

/// The most lines of one order: every line is a row in three tables of a transaction that others wait for.
pub const LINES_MAX: usize = 50;

/// The most units of one variant in one order.
pub const QUANTITY_MAX: i64 = 99;

/// A shopper's wish to order. Its ids are fixed beforehand, so that it can be tried again.
#[derive(Debug, Clone)]
pub struct PlaceOrder {
    pub order_id: OrderId,
    pub number: OrderNumber,
    pub owner_id: OwnerId,
    pub key: Key,
    pub fingerprint: Fingerprint,
    pub email: EmailAddress,
    pub shipping_address: Value,
    pub currency: Currency,
    /// What the shopper was shown; a different total is refused, never charged.
    pub expected_total: Money,
    pub lines: Vec<RequestedLine>,
}

/// A line as the shopper sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedLine {
    pub variant_id: VariantId,
    pub quantity: i64,
}

impl PlaceOrder {
    const OPERATION: &'static str = "placeOrder";

    fn claim(&self) -> ClaimKey<'_> {
        ClaimKey { owner_id: self.owner_id, operation: Self::OPERATION, key: &self.key }
    }

    /// The variants of the lines; one for each line.
    fn variants(&self) -> impl Iterator<Item = VariantId> {
        self.lines.iter().map(|line| line.variant_id)
    }

    /// The units wanted of each variant: lines of the same variant are one wish.
    fn demand(&self) -> Demand {
        let mut demand = BTreeMap::new();
        for line in &self.lines {
            *demand.entry(line.variant_id).or_insert(0) += line.quantity;
        }
        demand
    }
}

/// What a timeline says of the units that went back on sale with an order. Lines that another
/// checkout took over before are not among them.
fn released_detail(released: &[Hold], id: OrderId) -> Value {
    let units: Vec<_> = released
        .iter()
        .filter(|hold| hold.order_id == id)
        .map(|hold| json!({ "variant_id": hold.variant_id.uuid(), "quantity": hold.quantity }))
        .collect();
    json!({ "released": units })
}

/// What the answer to a placed order holds that cannot change; kept with its idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub order_id: Uuid,
    pub number: String,
    pub currency: String,
    pub subtotal_minor: i64,
    pub discount_minor: i64,
    pub shipping_minor: i64,
    pub tax_minor: i64,
    pub total_minor: i64,
    pub lines: Vec<ReceiptLine>,
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptLine {
    pub variant_id: Uuid,
    pub sku: String,
    pub title: String,
    pub quantity: i64,
    pub unit_price_minor: i64,
}
