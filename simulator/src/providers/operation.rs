//! Whom a client calls, and for what.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    Stripe,
    Razorpay,
}

impl Provider {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Razorpay => "razorpay",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A call of one of the two APIs; no name means something at both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    CreateIntent,
    RetrieveIntent,
    ListIntents,
    SearchIntents,
    ConfirmIntent,
    CancelIntent,
    CaptureIntent,
    CreateRefund,
    RetrieveRefund,
    ListRefunds,
    RetrieveCharge,
    RetrieveEvent,
    ListEvents,
    RetrieveDispute,
    ListDisputes,
    CreateOrder,
    RetrieveOrder,
    ListOrders,
    ListOrderPayments,
    RetrievePayment,
    ListPayments,
    CapturePayment,
    RefundPayment,
    ListPaymentRefunds,
    RetrievePaymentRefund,
    ListAllRefunds,
    RetrievePaymentDispute,
    ListPaymentDisputes,
}

impl Operation {
    pub const fn provider(self) -> Provider {
        match self {
            Self::CreateIntent
            | Self::RetrieveIntent
            | Self::ListIntents
            | Self::SearchIntents
            | Self::ConfirmIntent
            | Self::CancelIntent
            | Self::CaptureIntent
            | Self::CreateRefund
            | Self::RetrieveRefund
            | Self::ListRefunds
            | Self::RetrieveCharge
            | Self::RetrieveEvent
            | Self::ListEvents
            | Self::RetrieveDispute
            | Self::ListDisputes => Provider::Stripe,
            Self::CreateOrder
            | Self::RetrieveOrder
            | Self::ListOrders
            | Self::ListOrderPayments
            | Self::RetrievePayment
            | Self::ListPayments
            | Self::CapturePayment
            | Self::RefundPayment
            | Self::ListPaymentRefunds
            | Self::RetrievePaymentRefund
            | Self::ListAllRefunds
            | Self::RetrievePaymentDispute
            | Self::ListPaymentDisputes => Provider::Razorpay,
        }
    }
}
