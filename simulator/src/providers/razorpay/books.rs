//! What happens to orders, payments, refunds and disputes, and the events that tell of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::objects::{Dispute, DisputeStatus, Order, OrderStatus, Payment, PaymentStatus, Refund};
use crate::providers::{
    acts::Verdict,
    config::{Capture, Config, RepeatedReceipt},
    ledger::{Captured, Ledger, RefundState, Refunded},
    operation::Provider,
    table::Table,
    webhooks::Event,
    world::{Events, new_id, now},
};

/// Whose account all of this is.
const ACCOUNT: &str = "acc_HoldfastDemo01";

pub(in crate::providers) struct Books {
    pub(super) orders: Table<Order>,
    pub(super) payments: Table<Payment>,
    pub(super) refunds: Table<Refund>,
    pub(super) disputes: Table<Dispute>,
    /// What signs the browser's answer.
    pub(super) key_secret: String,
    pub(in crate::providers) capture: Capture,
    pub(in crate::providers) repeated_receipt: RepeatedReceipt,
    /// Whether the refunds that are asked for wait for a verdict.
    pub(in crate::providers) refunds_wait: bool,
    pub(in crate::providers) events: Events,
    pub(in crate::providers) ledger: Ledger,
}

/// What an order begins with.
pub(super) struct NewOrder {
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) receipt: Option<String>,
    pub(super) notes: BTreeMap<String, String>,
    pub(super) captures: Option<bool>,
}

impl Books {
    pub(in crate::providers) fn new(config: &Config) -> Self {
        Self {
            orders: Table::default(),
            payments: Table::default(),
            refunds: Table::default(),
            disputes: Table::default(),
            key_secret: config.razorpay_key_secret.clone(),
            capture: config.razorpay_capture,
            repeated_receipt: config.razorpay_repeated_receipt,
            refunds_wait: false,
            events: Events::default(),
            ledger: Ledger::default(),
        }
    }

    /// Opens an order, and names it.
    pub(super) fn create(&mut self, new: NewOrder) -> String {
        let id = new_id("order", 14);
        let order = Order {
            id: id.clone(),
            amount: new.amount,
            amount_paid: 0,
            currency: new.currency,
            receipt: new.receipt,
            status: OrderStatus::Created,
            attempts: 0,
            notes: new.notes,
            created_at: now(),
            captures: new.captures,
        };
        self.orders.add(&id, order);
        id
    }

    /// Begins a payment of an order, and names it.
    pub(super) fn begin(&mut self, order: &str, amount: i64, currency: &str) -> String {
        let id = new_id("pay", 14);
        let Some(order) = self.orders.find_mut(order) else {
            return id;
        };
        order.attempts += 1;
        if order.status == OrderStatus::Created {
            order.status = OrderStatus::Attempted;
        }
        let payment = Payment {
            id: id.clone(),
            order: order.id.clone(),
            amount,
            amount_refunded: 0,
            currency: currency.to_uppercase(),
            status: PaymentStatus::Created,
            captured: false,
            // Checkout hands the order's notes on, unless the page has its own.
            notes: order.notes.clone(),
            created_at: now(),
            failure: None,
        };
        self.payments.add(&id, payment);
        id
    }

    /// Lets the bank agree; the money is set aside, and captured where that is automatic.
    pub(super) fn authorise(&mut self, id: &str) {
        let Some(payment) = self.payments.find_mut(id) else {
            return;
        };
        payment.status = PaymentStatus::Authorized;
        payment.failure = None;
        let own = self.orders.find(&payment.order).and_then(|order| order.captures);
        self.tell_of_payment("payment.authorized", id);
        if own.unwrap_or(self.capture == Capture::Automatic) {
            self.take(id);
        }
    }

    /// Takes what the bank has set aside.
    pub(super) fn take(&mut self, id: &str) {
        let Some(payment) = self.payments.find_mut(id) else {
            return;
        };
        payment.status = PaymentStatus::Captured;
        payment.captured = true;
        let order = self.orders.find_mut(&payment.order);
        self.ledger.captures.push(Captured {
            provider: Provider::Razorpay,
            provider_ref: id.to_owned(),
            order_ref: Some(payment.order.clone()),
            amount_minor: payment.amount,
            currency: payment.currency.clone(),
            payment_id: payment.notes.get("payment_id").cloned(),
            receipt: order.as_ref().and_then(|order| order.receipt.clone()),
            at: now(),
        });
        let mut paid = false;
        if let Some(order) = order {
            paid = order.status != OrderStatus::Paid;
            order.status = OrderStatus::Paid;
            order.amount_paid = order.amount;
        }
        self.tell_of_payment("payment.captured", id);
        if paid {
            self.tell_of_payment("order.paid", id);
        }
    }

    pub(super) fn fail(&mut self, id: &str, reason: &str) {
        if let Some(payment) = self.payments.find_mut(id) {
            payment.status = PaymentStatus::Failed;
            payment.failure = Some(reason.to_owned());
        }
        self.tell_of_payment("payment.failed", id);
    }

    /// Sends a part of a payment back, and names the refund.
    pub(super) fn refund(
        &mut self,
        payment_id: &str,
        amount: i64,
        receipt: Option<String>,
        notes: BTreeMap<String, String>,
    ) -> String {
        let id = new_id("rfnd", 14);
        let Some(payment) = self.payments.find_mut(payment_id) else {
            return id;
        };
        payment.amount_refunded += amount;
        if payment.amount_refunded >= payment.amount {
            payment.status = PaymentStatus::Refunded;
        }
        let waits = self.refunds_wait;
        let refund = Refund {
            id: id.clone(),
            payment: payment_id.to_owned(),
            amount,
            currency: payment.currency.clone(),
            state: if waits { RefundState::Pending } else { RefundState::Succeeded },
            receipt,
            notes,
            created_at: now(),
        };
        // What was never captured is not the shop's money, and its return no refund of it.
        if payment.captured {
            self.ledger.refunds.push(Refunded {
                provider: Provider::Razorpay,
                provider_ref: id.clone(),
                payment_ref: payment_id.to_owned(),
                amount_minor: amount,
                currency: payment.currency.clone(),
                state: refund.state,
                at: refund.created_at,
            });
        }
        self.refunds.add(&id, refund);
        self.tell_of_refund("refund.created", &id);
        if !waits {
            self.tell_of_refund("refund.processed", &id);
        }
        id
    }

    /// Gives a refund its end: won reaches the shopper, lost comes back. `false` where that
    /// makes no sense.
    pub(in crate::providers) fn finish_refund(&mut self, id: &str, verdict: Verdict) -> bool {
        let Some(refund) = self.refunds.find_mut(id) else {
            return false;
        };
        let state = match (refund.state, verdict) {
            (RefundState::Pending, Verdict::Won) => RefundState::Succeeded,
            (RefundState::Pending | RefundState::Succeeded, Verdict::Lost) => RefundState::Failed,
            (RefundState::Succeeded, Verdict::Won) | (RefundState::Failed, _) => return false,
        };
        refund.state = state;
        let (amount, payment) = (refund.amount, refund.payment.clone());
        self.ledger.note_state(id, state);
        if state == RefundState::Succeeded {
            self.tell_of_refund("refund.processed", id);
            return true;
        }
        if let Some(payment) = self.payments.find_mut(&payment) {
            payment.amount_refunded -= amount;
            if payment.captured {
                payment.status = PaymentStatus::Captured;
            }
        }
        self.tell_of_refund("refund.failed", id);
        true
    }

    /// Has the shopper's bank ask a captured payment back, and names the dispute.
    pub(in crate::providers) fn dispute(&mut self, payment: &str) -> Option<String> {
        let payment = self.payments.find(payment).filter(|payment| payment.captured)?;
        let id = new_id("disp", 14);
        let dispute = Dispute {
            id: id.clone(),
            payment: payment.id.clone(),
            amount: payment.amount - payment.amount_refunded,
            currency: payment.currency.clone(),
            status: DisputeStatus::Open,
            created_at: now(),
        };
        self.disputes.add(&id, dispute);
        self.tell_of_dispute("payment.dispute.created", &id);
        Some(id)
    }

    /// Whether the payment's money is claimed, or lost to a claim.
    pub(super) fn is_charged_back(&self, payment: &str) -> bool {
        let mut disputes = self.disputes.oldest();
        disputes.any(|it| it.payment == payment && it.status != DisputeStatus::Won)
    }

    pub(in crate::providers) fn close_dispute(&mut self, id: &str, verdict: Verdict) -> bool {
        let open = self.disputes.find_mut(id);
        let Some(dispute) = open.filter(|dispute| dispute.status == DisputeStatus::Open) else {
            return false;
        };
        let (status, kind) = match verdict {
            Verdict::Won => (DisputeStatus::Won, "payment.dispute.won"),
            Verdict::Lost => (DisputeStatus::Lost, "payment.dispute.lost"),
        };
        dispute.status = status;
        self.tell_of_dispute(kind, id);
        true
    }

    fn tell_of_payment(&mut self, kind: &str, id: &str) {
        let Some(payment) = self.payments.find(id) else {
            return;
        };
        let order = self.orders.find(&payment.order).filter(|_| kind == "order.paid");
        let mut told = vec![("payment", payment.shown())];
        told.extend(order.map(|order| ("order", order.shown())));
        self.tell(kind, id, &told);
    }

    fn tell_of_refund(&mut self, kind: &str, id: &str) {
        let Some(refund) = self.refunds.find(id) else {
            return;
        };
        let payment = self.payments.find(&refund.payment);
        let about = refund.payment.clone();
        let mut told = vec![("refund", refund.shown())];
        told.extend(payment.map(|payment| ("payment", payment.shown())));
        self.tell(kind, &about, &told);
    }

    fn tell_of_dispute(&mut self, kind: &str, id: &str) {
        let Some(dispute) = self.disputes.find(id) else {
            return;
        };
        let payment = self.payments.find(&dispute.payment);
        let about = dispute.payment.clone();
        let mut told: Vec<_> = payment.map(|it| ("payment", it.shown())).into_iter().collect();
        told.push(("dispute", dispute.shown()));
        self.tell(kind, &about, &told);
    }

    /// Writes an event that shows the entities as they are now.
    pub(in crate::providers) fn tell(
        &mut self,
        kind: &str,
        about: &str,
        entities: &[(&str, Value)],
    ) -> String {
        let (id, created) = (new_id("evt", 14), now());
        let contains: Vec<&str> = entities.iter().map(|(name, _)| *name).collect();
        let mut payload = Map::new();
        for (name, entity) in entities {
            payload.insert((*name).to_owned(), json!({ "entity": entity }));
        }
        let body = json!({
            "entity": "event",
            "account_id": ACCOUNT,
            "event": kind,
            "contains": contains,
            "payload": payload,
            "created_at": created,
        });
        self.events.push(Event {
            provider: Provider::Razorpay,
            id: id.clone(),
            kind: kind.to_owned(),
            about: about.to_owned(),
            created,
            body: body.to_string(),
        });
        id
    }
}
