//! What a shopper does with an intent in the browser.

use std::collections::BTreeMap;

use super::{
    books::{Books, NewIntent},
    objects::{CaptureMethod, Intent, IntentStatus},
};
use crate::providers::{
    acts::{Act, ActError, Acted, Payment},
    operation::Provider,
};

impl Books {
    pub(in crate::providers) fn knows(&self, reference: &str) -> bool {
        self.intents.find(reference).is_some()
    }

    /// Does `act` to an intent.
    pub(in crate::providers) fn act(&mut self, id: &str, act: &Act) -> Result<Acted, ActError> {
        let unknown = || ActError::Unknown(id.to_owned());
        let status = self.intents.find(id).ok_or_else(unknown)?.status;
        let possible = match act {
            Act::Succeed
            | Act::SucceedAfterMs(_)
            | Act::AuthoriseLate
            | Act::Decline(_)
            | Act::PayWrong { .. } => status.is_open(),
            Act::RequireAction | Act::Process => {
                status.is_open() && status != IntentStatus::Processing
            }
            Act::Lapse => status == IntentStatus::RequiresCapture,
            Act::PayAgain => false,
        };
        if !possible {
            return Err(ActError::Impossible {
                reference: id.to_owned(),
                status: status.name().to_owned(),
            });
        }
        match act {
            Act::Succeed | Act::SucceedAfterMs(_) | Act::AuthoriseLate | Act::PayAgain => {
                self.pay(id);
            }
            Act::Decline(code) => self.decline(id, code),
            Act::RequireAction => self.ask_for_action(id),
            Act::Process => self.process(id),
            Act::Lapse => self.cancel(id, Some("automatic")),
            Act::PayWrong { amount_minor, currency } => {
                self.forge(id, *amount_minor, currency);
                self.pay(id);
            }
        }
        let status = self.intents.find(id).ok_or_else(unknown)?.status;
        Ok(Acted {
            provider: Provider::Stripe,
            reference: id.to_owned(),
            payment_ref: Some(id.to_owned()),
            status: status.name().to_owned(),
            checkout: None,
        })
    }

    /// Opens an intent that the shop did not ask for.
    pub(in crate::providers) fn foreign(
        &mut self,
        amount: i64,
        currency: &str,
        metadata: BTreeMap<String, String>,
    ) -> String {
        self.create(NewIntent {
            amount,
            currency: currency.to_lowercase(),
            metadata,
            capture_method: CaptureMethod::AutomaticAsync,
            payment_method: None,
            payment_method_types: vec!["card".to_owned()],
            automatic_payment_methods: false,
            description: None,
            receipt_email: None,
        })
    }

    /// Sends a part of a paid intent's money back, as an operator does in the dashboard.
    pub(in crate::providers) fn refund_by_hand(
        &mut self,
        intent: &str,
        amount: Option<i64>,
    ) -> Option<String> {
        let charge = self.intents.find(intent)?.latest_charge.clone()?;
        let known = self.charges.find(&charge)?;
        let left = known.amount_captured - known.amount_refunded;
        let amount = amount.unwrap_or(left);
        if amount < 1 || amount > left {
            return None;
        }
        Some(self.refund(&charge, amount, None, BTreeMap::new()))
    }

    /// Every intent in the order of its making.
    pub(in crate::providers) fn payments(&self) -> Vec<Payment> {
        self.intents.oldest().map(Intent::as_payment).collect()
    }
}

impl Intent {
    fn as_payment(&self) -> Payment {
        Payment {
            provider: Provider::Stripe,
            reference: self.id.clone(),
            amount_minor: self.amount,
            currency: self.currency.to_uppercase(),
            status: self.status.name().to_owned(),
            is_open: self.status.is_open(),
            receipt: None,
            metadata: self.metadata.clone(),
            payments: Vec::new(),
            created: self.created,
        }
    }
}
