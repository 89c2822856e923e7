//! What the providers' own books say about money, to be compared with the shop's.

use serde::{Deserialize, Serialize};

use super::operation::Provider;

/// Money that a provider took from a shopper, once per intent or payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    pub provider: Provider,
    /// `pi_…` or `pay_…`.
    pub provider_ref: String,
    /// `order_…` at Razorpay.
    pub order_ref: Option<String>,
    pub amount_minor: i64,
    /// Upper case, whatever the provider writes.
    pub currency: String,
    /// `payment_id` of the metadata or notes.
    pub payment_id: Option<String>,
    /// Of the Razorpay order.
    pub receipt: Option<String>,
    /// Unix seconds.
    pub at: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefundState {
    Pending,
    Succeeded,
    Failed,
}

/// Money that goes back; a failed refund stays in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refunded {
    pub provider: Provider,
    /// `re_…` or `rfnd_…`.
    pub provider_ref: String,
    /// `pi_…` or `pay_…`.
    pub payment_ref: String,
    pub amount_minor: i64,
    pub currency: String,
    pub state: RefundState,
    /// Unix seconds.
    pub at: i64,
}

/// Every capture and every refund in the order of their happening.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub captures: Vec<Captured>,
    pub refunds: Vec<Refunded>,
}

impl Ledger {
    pub(super) fn note_state(&mut self, refund: &str, state: RefundState) {
        for refunded in self.refunds.iter_mut().filter(|noted| noted.provider_ref == refund) {
            refunded.state = state;
        }
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.captures.extend(other.captures);
        self.refunds.extend(other.refunds);
        self.captures.sort_by_key(|captured| captured.at);
        self.refunds.sort_by_key(|refunded| refunded.at);
        self
    }
}
