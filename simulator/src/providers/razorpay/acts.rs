//! What a shopper and the bank do with an order.

use std::collections::BTreeMap;

use super::{
    books::{Books, NewOrder},
    objects::{Order, OrderStatus, PaymentStatus},
};
use crate::providers::{
    acts::{Act, ActError, Acted, Checkout, Payment},
    operation::Provider,
    signatures::sign_checkout,
};

impl Books {
    pub(in crate::providers) fn knows(&self, reference: &str) -> bool {
        self.orders.find(reference).is_some() || self.payments.find(reference).is_some()
    }

    /// Does `act` to an order, or to the order of a payment.
    pub(in crate::providers) fn act(
        &mut self,
        reference: &str,
        act: &Act,
    ) -> Result<Acted, ActError> {
        let unknown = || ActError::Unknown(reference.to_owned());
        let id = match self.payments.find(reference) {
            Some(payment) => payment.order.clone(),
            None => reference.to_owned(),
        };
        let order = self.orders.find(&id).ok_or_else(unknown)?;
        let impossible = ActError::Impossible {
            reference: reference.to_owned(),
            status: order.status.name().to_owned(),
        };
        let (paid, amount, currency) =
            (order.status == OrderStatus::Paid, order.amount, order.currency.clone());
        let payment = match act {
            Act::AuthoriseLate => self.latest(&id, PaymentStatus::Failed),
            Act::Lapse => self.latest(&id, PaymentStatus::Authorized),
            Act::Succeed
            | Act::SucceedAfterMs(_)
            | Act::Decline(_)
            | Act::RequireAction
            | Act::Process
            | Act::PayWrong { .. }
                if paid =>
            {
                None
            }
            Act::PayWrong { amount_minor, currency } => {
                Some(self.begin(&id, *amount_minor, currency))
            }
            Act::Succeed | Act::SucceedAfterMs(_) | Act::Decline(_) => {
                let begun = self.latest(&id, PaymentStatus::Created);
                Some(begun.unwrap_or_else(|| self.begin(&id, amount, &currency)))
            }
            Act::PayAgain | Act::RequireAction | Act::Process => {
                Some(self.begin(&id, amount, &currency))
            }
        };
        let payment = payment.ok_or(impossible)?;
        match act {
            Act::Succeed
            | Act::SucceedAfterMs(_)
            | Act::AuthoriseLate
            | Act::PayAgain
            | Act::PayWrong { .. } => self.authorise(&payment),
            Act::Decline(code) => self.fail(&payment, code),
            Act::RequireAction | Act::Process => {}
            Act::Lapse => {
                let amount = self.payments.find(&payment).map_or(amount, |it| it.amount);
                self.refund(&payment, amount, None, BTreeMap::new());
            }
        }
        self.acted(&id, &payment).ok_or_else(unknown)
    }

    fn latest(&self, order: &str, status: PaymentStatus) -> Option<String> {
        let mut payments = self.payments.newest().filter(|payment| payment.order == order);
        payments.find(|payment| payment.status == status).map(|payment| payment.id.clone())
    }

    fn acted(&self, order: &str, payment: &str) -> Option<Acted> {
        let status = self.payments.find(payment)?.status;
        let agreed = matches!(status, PaymentStatus::Authorized | PaymentStatus::Captured);
        Some(Acted {
            provider: Provider::Razorpay,
            reference: order.to_owned(),
            payment_ref: Some(payment.to_owned()),
            status: status.name().to_owned(),
            checkout: agreed.then(|| Checkout {
                razorpay_payment_id: payment.to_owned(),
                razorpay_order_id: order.to_owned(),
                razorpay_signature: sign_checkout(&self.key_secret, order, payment),
            }),
        })
    }

    /// Opens an order that the shop did not ask for.
    pub(in crate::providers) fn foreign(
        &mut self,
        amount: i64,
        currency: &str,
        notes: BTreeMap<String, String>,
    ) -> String {
        let currency = currency.to_uppercase();
        self.create(NewOrder { amount, currency, receipt: None, notes, captures: None })
    }

    /// Sends a part of a captured payment back, as an operator does in the dashboard.
    pub(in crate::providers) fn refund_by_hand(
        &mut self,
        payment: &str,
        amount: Option<i64>,
    ) -> Option<String> {
        let known = self.payments.find(payment).filter(|payment| payment.captured)?;
        let left = known.amount - known.amount_refunded;
        let amount = amount.unwrap_or(left);
        if amount < 1 || amount > left {
            return None;
        }
        Some(self.refund(payment, amount, None, BTreeMap::new()))
    }

    /// Every order in the order of its making, with its attempts.
    pub(in crate::providers) fn orders(&self) -> Vec<Payment> {
        self.orders.oldest().map(|order| self.as_payment(order)).collect()
    }

    fn as_payment(&self, order: &Order) -> Payment {
        let payments = self.payments.oldest().filter(|payment| payment.order == order.id);
        Payment {
            provider: Provider::Razorpay,
            reference: order.id.clone(),
            amount_minor: order.amount,
            currency: order.currency.clone(),
            status: order.status.name().to_owned(),
            is_open: order.status != OrderStatus::Paid,
            receipt: order.receipt.clone(),
            metadata: order.notes.clone(),
            payments: payments
                .map(|payment| (payment.id.clone(), payment.status.name().to_owned()))
                .collect(),
            created: order.created_at,
        }
    }
}
