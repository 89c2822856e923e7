//! What the Rust handle, the control API and the page do to the world.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    acts::{Act, ActError, Acted, Payment, Verdict},
    ledger::Ledger,
    operation::Provider,
    world::Shared,
};

impl Shared {
    pub(super) fn act(self: &Arc<Self>, reference: &str, act: &Act) -> Result<Acted, ActError> {
        let Some(delay) = act.delay() else {
            return self.act_now(reference, act);
        };
        let known = self.change(|world| {
            world
                .stripe
                .knows(reference)
                .then_some(Provider::Stripe)
                .or_else(|| world.razorpay.knows(reference).then_some(Provider::Razorpay))
        });
        let provider = known.ok_or_else(|| ActError::Unknown(reference.to_owned()))?;
        let (shared, late) = (Arc::downgrade(self), reference.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if let Some(shared) = shared.upgrade() {
                // What has become impossible meanwhile does not happen.
                drop(shared.act_now(&late, &Act::Succeed));
            }
        });
        Ok(Acted {
            provider,
            reference: reference.to_owned(),
            payment_ref: None,
            status: "later".to_owned(),
            checkout: None,
        })
    }

    fn act_now(&self, reference: &str, act: &Act) -> Result<Acted, ActError> {
        self.change(|world| {
            if world.stripe.knows(reference) {
                return world.stripe.act(reference, act);
            }
            world.razorpay.act(reference, act)
        })
    }

    pub(super) fn payments(&self, provider: Provider) -> Vec<Payment> {
        self.change(|world| match provider {
            Provider::Stripe => world.stripe.payments(),
            Provider::Razorpay => world.razorpay.orders(),
        })
    }

    pub(super) fn create_foreign(
        &self,
        provider: Provider,
        amount_minor: i64,
        currency: &str,
        metadata: BTreeMap<String, String>,
    ) -> String {
        self.change(|world| match provider {
            Provider::Stripe => world.stripe.foreign(amount_minor, currency, metadata),
            Provider::Razorpay => world.razorpay.foreign(amount_minor, currency, metadata),
        })
    }

    pub(super) fn refund(
        &self,
        payment: &str,
        amount_minor: Option<i64>,
    ) -> Result<String, ActError> {
        let refund = self.change(|world| {
            let at_stripe = world.stripe.refund_by_hand(payment, amount_minor);
            at_stripe.or_else(|| world.razorpay.refund_by_hand(payment, amount_minor))
        });
        refund.ok_or_else(|| impossible(payment))
    }

    pub(super) fn set_refunds_wait(&self, provider: Provider, wait: bool) {
        self.change(|world| match provider {
            Provider::Stripe => world.stripe.refunds_wait = wait,
            Provider::Razorpay => world.razorpay.refunds_wait = wait,
        });
    }

    pub(super) fn expire_idempotency_keys(&self) {
        self.stripe_keys.expire();
        self.razorpay_keys.expire();
    }

    pub(super) fn finish_refund(&self, refund: &str, verdict: Verdict) -> Result<(), ActError> {
        let finished = self.change(|world| {
            world.stripe.finish_refund(refund, verdict)
                || world.razorpay.finish_refund(refund, verdict)
        });
        finished.then_some(()).ok_or_else(|| impossible(refund))
    }

    pub(super) fn dispute(&self, payment: &str) -> Result<String, ActError> {
        let dispute = self.change(|world| {
            world.stripe.dispute(payment).or_else(|| world.razorpay.dispute(payment))
        });
        dispute.ok_or_else(|| impossible(payment))
    }

    pub(super) fn close_dispute(&self, dispute: &str, verdict: Verdict) -> Result<(), ActError> {
        let closed = self.change(|world| {
            world.stripe.close_dispute(dispute, verdict)
                || world.razorpay.close_dispute(dispute, verdict)
        });
        closed.then_some(()).ok_or_else(|| impossible(dispute))
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.change(|world| world.stripe.ledger.clone().and(world.razorpay.ledger.clone()))
    }
}

fn impossible(reference: &str) -> ActError {
    ActError::Impossible {
        reference: reference.to_owned(),
        status: "unknown, or in another state".to_owned(),
    }
}
