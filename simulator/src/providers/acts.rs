//! What shoppers, their banks and other people do to payments, whatever the shop wants.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::operation::Provider;

/// What a shopper does with an open intent (`pi_…`) or order (`order_…`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// The bank agrees: the money is captured, or set aside where capture is by hand.
    ///
    /// After `RequireAction` and `Process` it ends what they began.
    Succeed,
    /// The same, that many milliseconds later, if it is possible then.
    SucceedAfterMs(u32),
    /// The bank says no, with its code: `insufficient_funds`, `generic_decline`,
    /// `payment_intent_authentication_failure`, ….
    Decline(String),
    /// The bank asks the shopper for more, as with 3-D Secure.
    RequireAction,
    /// The money is on its way, and nobody knows whether it arrives.
    Process,
    /// The bank agrees after all: at Razorpay, a failed payment is authorised.
    AuthoriseLate,
    /// What was set aside and never captured goes back to the shopper.
    Lapse,
    /// The money comes, but not as much or not in the currency that was asked for.
    PayWrong { amount_minor: i64, currency: String },
    /// A Razorpay order is paid once more, whatever its state.
    PayAgain,
}

impl Act {
    pub(super) fn delay(&self) -> Option<Duration> {
        match self {
            Self::SucceedAfterMs(ms) => Some(Duration::from_millis((*ms).into())),
            Self::Succeed
            | Self::Decline(_)
            | Self::RequireAction
            | Self::Process
            | Self::AuthoriseLate
            | Self::Lapse
            | Self::PayWrong { .. }
            | Self::PayAgain => None,
        }
    }
}

/// How a refund or a dispute ends, seen by the shop's hopes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The refund reaches the shopper; the shop keeps the disputed money.
    Won,
    /// The refund fails; the disputed money is gone.
    Lost,
}

/// What came of an act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    pub provider: Provider,
    /// What was acted on: `pi_…` or `order_…`.
    pub reference: String,
    /// `pi_…` or `pay_…`.
    pub payment_ref: Option<String>,
    /// The intent's or payment's own word for its state.
    pub status: String,
    /// What Razorpay's checkout hands to the browser after an agreement.
    pub checkout: Option<Checkout>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    pub razorpay_payment_id: String,
    pub razorpay_order_id: String,
    pub razorpay_signature: String,
}

/// A payment as the page and the tests see it: an intent, or an order with its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub provider: Provider,
    /// `pi_…` or `order_…`.
    pub reference: String,
    pub amount_minor: i64,
    /// Upper case.
    pub currency: String,
    pub status: String,
    /// Whether a shopper can still pay.
    pub is_open: bool,
    pub receipt: Option<String>,
    /// Metadata at Stripe, notes at Razorpay.
    pub metadata: BTreeMap<String, String>,
    /// The attempts at Razorpay, `pay_…` and status, in their order.
    pub payments: Vec<(String, String)>,
    pub created: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    #[error("no payment, refund or dispute {0} is known")]
    Unknown(String),
    #[error("{reference} is {status}, which does not allow it")]
    Impossible { reference: String, status: String },
}
