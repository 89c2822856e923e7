//! Payments: the attempts to pay orders, the money that came in, and the providers' news of both.
//!
//! Owns `payments`, `payment_transitions`, `captures`, and what its modules own. An attempt is committed
//! before its provider is asked; money is recorded once, under the provider's name for it, whatever
//! became of the order; a webhook is stored before it is believed. What follows from news for stock
//! and orders is the checkout's to decide.

pub mod api;
pub mod disputes;
mod error;
pub mod findings;
pub mod gateway;
pub mod inbox;
pub mod reconciliation;
pub mod refunds;
mod state;
pub mod store;

use std::str::FromStr;

pub use error::PaymentError;
pub use state::{State, UnknownState};

use self::gateway::{RefundAtProvider, RefundStanding};
use crate::kernel::{Money, OrderId, PaymentId};

/// Who collects the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    Stripe,
    Razorpay,
}

impl Provider {
    pub const ALL: [Self; 2] = [Self::Stripe, Self::Razorpay];

    /// The name in the database, in jobs and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Razorpay => "razorpay",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no provider has this name")]
pub struct UnknownProvider;

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        Self::ALL.into_iter().find(|provider| provider.name() == name).ok_or(UnknownProvider)
    }
}

/// One attempt to pay one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub id: PaymentId,
    pub order_id: OrderId,
    pub provider: Provider,
    pub livemode: bool,
    pub state: State,
    pub amount: Money,
    pub key_generation: i32,
    /// `pi_…` or `order_…`, once it is known.
    pub provider_ref: Option<String>,
    pub last_decline: Option<String>,
    pub created_at: time::OffsetDateTime,
}

impl Payment {
    /// The key under which its provider is asked to create it: the same request under the same key is
    /// done once. For Razorpay, which has no keys, it is the receipt by which the order is found again.
    pub fn provider_key(&self) -> String {
        match self.provider {
            Provider::Stripe => format!("payment-{}-{}", self.id, self.key_generation),
            Provider::Razorpay => self.id.uuid().simple().to_string(),
        }
    }

    /// Whether it is all that the provider was asked to collect, and nothing else.
    pub fn asks_for(&self, charge: &Charge) -> bool {
        let asked = (self.amount.minor(), self.amount.currency().code());
        asked == (charge.amount_minor, &*charge.currency)
    }
}

/// What a provider says of a payment, by a signed webhook or by its answer to a question.
///
/// News of one payment may come twice, late and in any order; only [`Standing::Captured`] is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub provider: Provider,
    /// `pi_…` or `order_…`.
    pub provider_ref: String,
    /// The id we gave the payment when we created it there, where the provider repeats it.
    pub payment_id: Option<PaymentId>,
    pub livemode: bool,
    pub standing: Standing,
}

/// Where a payment stands at its provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It waits for the shopper; the last try, if any, was declined with the provider's code.
    Open { last_decline: Option<String> },
    /// It is under way, for minutes or days.
    Processing,
    /// The shopper's bank has set the money aside: it has to be captured.
    Authorized(Charge),
    /// Money was collected: one charge, but for a provider that took it twice.
    Captured(Vec<Charge>),
    /// It will never be paid.
    Cancelled,
}

/// Money that a provider collected, or may collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The provider's name for the money: `pi_…` or `pay_…`.
    pub charge_ref: String,
    pub amount_minor: i64,
    /// Three capital letters, as the provider says; not necessarily one of ISO 4217.
    pub currency: String,
    /// What of it was sent back, as its provider says when it is asked; a webhook of the money says
    /// nothing of that.
    pub refunds: Vec<RefundAtProvider>,
}

impl Charge {
    /// What of it went back or is on its way, in minor units.
    pub fn refunded_minor(&self) -> i64 {
        self.refunds_that_hold().map(|refund| refund.amount_minor).sum()
    }

    /// The refunds that did not fail.
    pub fn refunds_that_hold(&self) -> impl Iterator<Item = &RefundAtProvider> {
        let holds = |standing: &RefundStanding| match standing {
            RefundStanding::Pending | RefundStanding::Succeeded => true,
            RefundStanding::Failed { .. } => false,
        };
        self.refunds.iter().filter(move |refund| refund.amount_minor > 0 && holds(&refund.standing))
    }

    /// Whether all of it went back before anybody here heard of it.
    pub fn is_gone(&self) -> bool {
        let refunded = self.refunded_minor();
        refunded > 0 && refunded >= self.amount_minor
    }
}

/// What became of money that was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It paid the order.
    Accepted,
    /// It must go back in full.
    RefundDue(Surplus),
    /// It is not what was asked for; a person decides.
    Quarantined(Mismatch),
}

/// Why good money cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surplus {
    /// It came after the deadline, and the units are sold to others.
    OutOfStock,
    /// It came after the shopper had given the order up.
    OrderCancelled,
    /// The order was paid before.
    AlreadyPaid,
    /// It is not what was asked for: a person would not have it, or it was sent back at the provider
    /// before anybody here heard of it, and nothing of it is left.
    Refused(Mismatch),
}

/// How money differs from what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    WrongAmount,
    WrongCurrency,
    /// It names a payment of ours and was collected for something else.
    ForeignObject,
}

impl Mismatch {
    const fn name(self) -> &'static str {
        match self {
            Self::WrongAmount => "wrong_amount",
            Self::WrongCurrency => "wrong_currency",
            Self::ForeignObject => "foreign_object",
        }
    }
}

impl Fate {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::RefundDue(_) => "refund_due",
            Self::Quarantined(_) => "quarantined",
        }
    }

    /// Why it did not pay the order.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Accepted => None,
            Self::RefundDue(Surplus::OutOfStock) => Some("out_of_stock"),
            Self::RefundDue(Surplus::OrderCancelled) => Some("order_cancelled"),
            Self::RefundDue(Surplus::AlreadyPaid) => Some("already_paid"),
            Self::RefundDue(Surplus::Refused(mismatch)) | Self::Quarantined(mismatch) => {
                Some(mismatch.name())
            }
        }
    }
}
