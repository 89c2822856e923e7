//! What happens to intents, charges, refunds and disputes, and the events that tell of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::objects::{CaptureMethod, Charge, Dispute, DisputeStatus, Intent, IntentStatus, Refund};
use crate::providers::{
    acts::Verdict,
    ledger::{Captured, Ledger, RefundState, Refunded},
    operation::Provider,
    table::Table,
    webhooks::Event,
    world::{Events, new_id, now},
};

/// The version in which events are written.
const API_VERSION: &str = "2026-09-30.endive";

/// How the refunds of a charge go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum RefundCourse {
    #[default]
    Succeeds,
    Waits,
    FailsAfterSuccess,
}

#[derive(Default)]
pub(in crate::providers) struct Books {
    pub(super) intents: Table<Intent>,
    pub(super) charges: Table<Charge>,
    pub(super) refunds: Table<Refund>,
    pub(super) disputes: Table<Dispute>,
    courses: BTreeMap<String, RefundCourse>,
    /// Whether the refunds that are asked for wait for a verdict.
    pub(in crate::providers) refunds_wait: bool,
    pub(in crate::providers) events: Events,
    pub(in crate::providers) ledger: Ledger,
}

/// What an intent begins with.
pub(super) struct NewIntent {
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) capture_method: CaptureMethod,
    pub(super) payment_method: Option<String>,
    pub(super) payment_method_types: Vec<String>,
    pub(super) automatic_payment_methods: bool,
    pub(super) description: Option<String>,
    pub(super) receipt_email: Option<String>,
}

impl Books {
    /// Opens an intent, and names it.
    pub(super) fn create(&mut self, new: NewIntent) -> String {
        let id = new_id("pi", 24);
        let status = match new.payment_method {
            Some(_) => IntentStatus::RequiresConfirmation,
            None => IntentStatus::RequiresPaymentMethod,
        };
        let intent = Intent {
            client_secret: new_id(&format!("{id}_secret"), 25),
            id: id.clone(),
            amount: new.amount,
            amount_capturable: 0,
            amount_received: 0,
            currency: new.currency,
            status,
            metadata: new.metadata,
            latest_charge: None,
            last_payment_error: None,
            created: now(),
            capture_method: new.capture_method,
            payment_method: new.payment_method,
            payment_method_types: new.payment_method_types,
            automatic_payment_methods: new.automatic_payment_methods,
            cancellation_reason: None,
            canceled_at: None,
            description: new.description,
            receipt_email: new.receipt_email,
        };
        self.intents.add(&id, intent);
        self.tell_of_intent("payment_intent.created", &id);
        id
    }

    /// Takes the money, or only sets it aside where the intent is captured by hand.
    pub(super) fn pay(&mut self, id: &str) {
        let charge = self.charge(id, None);
        let Some(intent) = self.intents.find_mut(id) else {
            return;
        };
        let manual = intent.capture_method == CaptureMethod::Manual;
        intent.payment_method.get_or_insert_with(|| new_id("pm", 24));
        intent.last_payment_error = None;
        if manual {
            intent.status = IntentStatus::RequiresCapture;
            intent.amount_capturable = intent.amount;
        }
        self.tell_of_charge("charge.succeeded", &charge);
        if manual {
            self.tell_of_intent("payment_intent.amount_capturable_updated", id);
            return;
        }
        self.settle(id, None);
    }

    /// Takes what was set aside, or a part of it.
    pub(super) fn capture(&mut self, id: &str, amount: i64) {
        let charge = self.settle(id, Some(amount));
        if let Some(charge) = charge {
            self.tell_of_charge("charge.captured", &charge);
        }
    }

    fn settle(&mut self, id: &str, amount: Option<i64>) -> Option<String> {
        let intent = self.intents.find_mut(id)?;
        let amount = amount.unwrap_or(intent.amount);
        intent.status = IntentStatus::Succeeded;
        intent.amount_capturable = 0;
        intent.amount_received = amount;
        self.ledger.captures.push(Captured {
            provider: Provider::Stripe,
            provider_ref: id.to_owned(),
            order_ref: None,
            amount_minor: amount,
            currency: intent.currency.to_uppercase(),
            payment_id: intent.metadata.get("payment_id").cloned(),
            receipt: None,
            at: now(),
        });
        let charge = intent.latest_charge.clone()?;
        if let Some(charge) = self.charges.find_mut(&charge) {
            charge.captured = true;
            charge.amount_captured = amount;
        }
        self.tell_of_intent("payment_intent.succeeded", id);
        Some(charge)
    }

    /// Writes down an attempt to charge the intent's card.
    fn charge(&mut self, id: &str, failure: Option<Value>) -> String {
        let charge_id = new_id("ch", 24);
        let Some(intent) = self.intents.find_mut(id) else {
            return charge_id;
        };
        intent.latest_charge = Some(charge_id.clone());
        let automatic = intent.capture_method != CaptureMethod::Manual && failure.is_none();
        let charge = Charge {
            id: charge_id.clone(),
            intent: id.to_owned(),
            amount: intent.amount,
            amount_captured: if automatic { intent.amount } else { 0 },
            amount_refunded: 0,
            currency: intent.currency.clone(),
            created: now(),
            captured: automatic,
            disputed: false,
            metadata: intent.metadata.clone(),
            payment_method: intent.payment_method.clone(),
            failure,
        };
        self.charges.add(&charge_id, charge);
        charge_id
    }

    /// Lets the bank say no; the intent waits for another card.
    pub(super) fn decline(&mut self, id: &str, code: &str) {
        let error = payment_error(code);
        let charge = self.charge(id, Some(error.clone()));
        if let Some(intent) = self.intents.find_mut(id) {
            intent.status = IntentStatus::RequiresPaymentMethod;
            intent.payment_method = None;
            intent.last_payment_error = Some(error);
            intent.last_payment_error.as_mut().expect("it was just set")["charge"] =
                charge.clone().into();
        }
        self.tell_of_charge("charge.failed", &charge);
        self.tell_of_intent("payment_intent.payment_failed", id);
    }

    /// Has the shopper's bank ask for more.
    pub(super) fn ask_for_action(&mut self, id: &str) {
        self.turn(id, IntentStatus::RequiresAction);
        self.tell_of_intent("payment_intent.requires_action", id);
    }

    /// Leaves the money on its way.
    pub(super) fn process(&mut self, id: &str) {
        self.turn(id, IntentStatus::Processing);
        self.tell_of_intent("payment_intent.processing", id);
    }

    fn turn(&mut self, id: &str, status: IntentStatus) {
        if let Some(intent) = self.intents.find_mut(id) {
            intent.status = status;
            intent.payment_method.get_or_insert_with(|| new_id("pm", 24));
        }
    }

    /// Ends the intent; money that was set aside is free again.
    pub(super) fn cancel(&mut self, id: &str, reason: Option<&str>) {
        if let Some(intent) = self.intents.find_mut(id) {
            intent.status = IntentStatus::Canceled;
            intent.amount_capturable = 0;
            intent.cancellation_reason = reason.map(str::to_owned);
            intent.canceled_at = Some(now());
        }
        self.tell_of_intent("payment_intent.canceled", id);
    }

    /// Changes what the intent asks for, behind the shop's back.
    pub(super) fn forge(&mut self, id: &str, amount: i64, currency: &str) {
        if let Some(intent) = self.intents.find_mut(id) {
            intent.amount = amount;
            intent.currency = currency.to_lowercase();
        }
    }

    pub(super) fn set_course(&mut self, id: &str, course: RefundCourse) {
        self.courses.insert(id.to_owned(), course);
    }

    /// Sends a part of a charge back, and names the refund.
    pub(super) fn refund(
        &mut self,
        charge_id: &str,
        amount: i64,
        reason: Option<&str>,
        metadata: BTreeMap<String, String>,
    ) -> String {
        let id = new_id("re", 24);
        let Some(charge) = self.charges.find_mut(charge_id) else {
            return id;
        };
        charge.amount_refunded += amount;
        let course = self.courses.get(&charge.intent).copied().unwrap_or_default();
        let waits = self.refunds_wait || course == RefundCourse::Waits;
        let refund = Refund {
            id: id.clone(),
            charge: charge_id.to_owned(),
            intent: charge.intent.clone(),
            amount,
            currency: charge.currency.clone(),
            created: now(),
            state: if waits { RefundState::Pending } else { RefundState::Succeeded },
            reason: reason.map(str::to_owned),
            metadata,
        };
        self.ledger.refunds.push(Refunded {
            provider: Provider::Stripe,
            provider_ref: id.clone(),
            payment_ref: refund.intent.clone(),
            amount_minor: amount,
            currency: refund.currency.to_uppercase(),
            state: refund.state,
            at: refund.created,
        });
        self.refunds.add(&id, refund);
        self.tell_of_refund("refund.created", &id);
        self.tell_of_charge("charge.refunded", charge_id);
        if course == RefundCourse::FailsAfterSuccess {
            self.finish_refund(&id, Verdict::Lost);
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
        let (amount, charge) = (refund.amount, refund.charge.clone());
        self.ledger.note_state(id, state);
        if state == RefundState::Failed
            && let Some(charge) = self.charges.find_mut(&charge)
        {
            charge.amount_refunded -= amount;
        }
        self.tell_of_refund("refund.updated", id);
        self.tell_of_refund("charge.refund.updated", id);
        if state == RefundState::Failed {
            self.tell_of_refund("refund.failed", id);
        }
        true
    }

    /// Has the shopper's bank take the money of a paid intent back, and names the dispute.
    pub(in crate::providers) fn dispute(&mut self, intent: &str) -> Option<String> {
        let charge_id = self.intents.find(intent)?.latest_charge.clone()?;
        let charge = self.charges.find_mut(&charge_id).filter(|charge| charge.captured)?;
        charge.disputed = true;
        let id = new_id("du", 24);
        let dispute = Dispute {
            id: id.clone(),
            charge: charge_id,
            intent: intent.to_owned(),
            amount: charge.amount_captured - charge.amount_refunded,
            currency: charge.currency.clone(),
            created: now(),
            status: DisputeStatus::NeedsResponse,
        };
        self.disputes.add(&id, dispute);
        self.tell_of_dispute("charge.dispute.created", &id);
        self.tell_of_dispute("charge.dispute.funds_withdrawn", &id);
        Some(id)
    }

    /// Whether the charge's money is claimed, or lost to a claim.
    pub(super) fn is_charged_back(&self, charge: &str) -> bool {
        let mut disputes = self.disputes.oldest();
        disputes.any(|it| it.charge == charge && it.status != DisputeStatus::Won)
    }

    pub(in crate::providers) fn close_dispute(&mut self, id: &str, verdict: Verdict) -> bool {
        let open = self.disputes.find_mut(id);
        let Some(dispute) = open.filter(|it| it.status == DisputeStatus::NeedsResponse) else {
            return false;
        };
        dispute.status = match verdict {
            Verdict::Won => DisputeStatus::Won,
            Verdict::Lost => DisputeStatus::Lost,
        };
        if verdict == Verdict::Won {
            self.tell_of_dispute("charge.dispute.funds_reinstated", id);
        }
        self.tell_of_dispute("charge.dispute.closed", id);
        true
    }

    fn tell_of_intent(&mut self, kind: &str, id: &str) {
        if let Some(shown) = self.intents.find(id).map(Intent::shown) {
            self.tell(kind, id, &shown);
        }
    }

    fn tell_of_charge(&mut self, kind: &str, id: &str) {
        let charge = self.charges.find(id);
        if let Some((shown, about)) = charge.map(|it| (it.shown(), it.intent.clone())) {
            self.tell(kind, &about, &shown);
        }
    }

    fn tell_of_refund(&mut self, kind: &str, id: &str) {
        let refund = self.refunds.find(id);
        if let Some((shown, about)) = refund.map(|it| (it.shown(), it.intent.clone())) {
            self.tell(kind, &about, &shown);
        }
    }

    fn tell_of_dispute(&mut self, kind: &str, id: &str) {
        let dispute = self.disputes.find(id);
        if let Some((shown, about)) = dispute.map(|it| (it.shown(), it.intent.clone())) {
            self.tell(kind, &about, &shown);
        }
    }

    /// Writes an event that shows `object` as it is now.
    pub(in crate::providers) fn tell(&mut self, kind: &str, about: &str, object: &Value) -> String {
        let (id, created) = (new_id("evt", 24), now());
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": API_VERSION,
            "created": created,
            "data": { "object": object },
            "livemode": false,
            "pending_webhooks": 1,
            "request": { "id": new_id("req", 14), "idempotency_key": null },
            "type": kind,
        });
        self.events.push(Event {
            provider: Provider::Stripe,
            id: id.clone(),
            kind: kind.to_owned(),
            about: about.to_owned(),
            created,
            body: body.to_string(),
        });
        id
    }
}

/// The `last_payment_error` that a bank's `code` makes.
fn payment_error(code: &str) -> Value {
    let (kind, code, decline_code) = match code {
        "payment_intent_authentication_failure" => ("invalid_request_error", code, None),
        "expired_card" | "incorrect_cvc" | "processing_error" => ("card_error", code, Some(code)),
        _ => ("card_error", "card_declined", Some(code)),
    };
    let message = match decline_code.unwrap_or(code) {
        "insufficient_funds" => "Your card has insufficient funds.",
        "expired_card" => "Your card has expired.",
        "incorrect_cvc" => "Your card's security code is incorrect.",
        "processing_error" => "An error occurred while processing your card. Try again shortly.",
        "payment_intent_authentication_failure" => {
            "The provided PaymentMethod has failed authentication. You can provide \
             payment_method_data or a new PaymentMethod to attempt to fulfill this PaymentIntent \
             again."
        }
        _ => "Your card was declined.",
    };
    let mut error = json!({
        "code": code,
        "doc_url": format!("https://stripe.com/docs/error-codes/{code}"),
        "message": message,
        "type": kind,
    });
    if let Some(decline_code) = decline_code {
        error["decline_code"] = decline_code.into();
    }
    error
}
