//! Razorpay's entities as it shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::providers::ledger::RefundState;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OrderStatus {
    Created,
    Attempted,
    Paid,
}

impl OrderStatus {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Attempted => "attempted",
            Self::Paid => "paid",
        }
    }
}

pub(super) struct Order {
    pub(super) id: String,
    pub(super) amount: i64,
    pub(super) amount_paid: i64,
    pub(super) currency: String,
    pub(super) receipt: Option<String>,
    pub(super) status: OrderStatus,
    pub(super) attempts: u32,
    pub(super) notes: BTreeMap<String, String>,
    pub(super) created_at: i64,
    /// Whether the order itself asks for capture at once.
    pub(super) captures: Option<bool>,
}

impl Order {
    pub(super) fn shown(&self) -> Value {
        json!({
            "id": self.id,
            "entity": "order",
            "amount": self.amount,
            "amount_due": self.amount - self.amount_paid,
            "amount_paid": self.amount_paid,
            "attempts": self.attempts,
            "created_at": self.created_at,
            "currency": self.currency,
            "notes": shown_notes(&self.notes),
            "offer_id": null,
            "receipt": self.receipt,
            "status": self.status,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PaymentStatus {
    Created,
    Authorized,
    Captured,
    Refunded,
    Failed,
}

impl PaymentStatus {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Authorized => "authorized",
            Self::Captured => "captured",
            Self::Refunded => "refunded",
            Self::Failed => "failed",
        }
    }
}

pub(super) struct Payment {
    pub(super) id: String,
    pub(super) order: String,
    pub(super) amount: i64,
    pub(super) amount_refunded: i64,
    pub(super) currency: String,
    pub(super) status: PaymentStatus,
    pub(super) captured: bool,
    pub(super) notes: BTreeMap<String, String>,
    pub(super) created_at: i64,
    /// The bank's word for its refusal.
    pub(super) failure: Option<String>,
}

impl Payment {
    pub(super) fn shown(&self) -> Value {
        let failed = self.status == PaymentStatus::Failed;
        let error = |text: &str| failed.then(|| text.to_owned());
        let refund_status = match self.amount_refunded {
            0 => None,
            all if all >= self.amount => Some("full"),
            _ => Some("partial"),
        };
        json!({
            "id": self.id,
            "entity": "payment",
            "acquirer_data": { "auth_code": "123456" },
            "amount": self.amount,
            "amount_refunded": self.amount_refunded,
            "bank": null,
            "captured": self.captured,
            "card_id": "card_HoldfastVisa01",
            "contact": "+919000090000",
            "created_at": self.created_at,
            "currency": self.currency,
            "description": null,
            "email": "shopper@example.com",
            "error_code": error("BAD_REQUEST_ERROR"),
            "error_description": error("Your payment could not be completed."),
            "error_reason": self.failure.as_deref().filter(|_| failed),
            "error_source": error("customer"),
            "error_step": error("payment_authorization"),
            "fee": self.captured.then_some(self.amount / 50),
            "international": false,
            "invoice_id": null,
            "method": "card",
            "notes": shown_notes(&self.notes),
            "order_id": self.order,
            "refund_status": refund_status,
            "status": self.status,
            "tax": self.captured.then_some(0),
            "vpa": null,
            "wallet": null,
        })
    }
}

pub(super) struct Refund {
    pub(super) id: String,
    pub(super) payment: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) state: RefundState,
    pub(super) receipt: Option<String>,
    pub(super) notes: BTreeMap<String, String>,
    pub(super) created_at: i64,
}

impl Refund {
    pub(super) fn shown(&self) -> Value {
        let status = match self.state {
            RefundState::Pending => "pending",
            RefundState::Succeeded => "processed",
            RefundState::Failed => "failed",
        };
        let processed = self.state == RefundState::Succeeded;
        json!({
            "id": self.id,
            "entity": "refund",
            "acquirer_data": { "arn": null },
            "amount": self.amount,
            "batch_id": null,
            "created_at": self.created_at,
            "currency": self.currency,
            "notes": shown_notes(&self.notes),
            "payment_id": self.payment,
            "receipt": self.receipt,
            "speed_processed": processed.then_some("normal"),
            "speed_requested": "normal",
            "status": status,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DisputeStatus {
    Open,
    Won,
    Lost,
}

pub(super) struct Dispute {
    pub(super) id: String,
    pub(super) payment: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) status: DisputeStatus,
    pub(super) created_at: i64,
}

impl Dispute {
    pub(super) fn shown(&self) -> Value {
        let lost = self.status == DisputeStatus::Lost;
        json!({
            "id": self.id,
            "entity": "dispute",
            "amount": self.amount,
            "amount_deducted": if lost { self.amount } else { 0 },
            "created_at": self.created_at,
            "currency": self.currency,
            "payment_id": self.payment,
            "phase": "chargeback",
            "reason_code": "goods_or_services_not_received_or_partially_received",
            "reason_description": "Goods or services not received",
            "respond_by": self.created_at + 7 * 24 * 60 * 60,
            "status": self.status,
        })
    }
}

/// No notes are an empty *list*, as at the real one.
fn shown_notes(notes: &BTreeMap<String, String>) -> Value {
    if notes.is_empty() { json!([]) } else { json!(notes) }
}
