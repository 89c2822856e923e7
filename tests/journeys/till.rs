//! Attempts to pay, and what providers say of them, without a provider.

use holdfast::{
    checkout::{Settlement, settle},
    kernel::{OrderId, PaymentId},
    orders::find_any_order,
    payments::{
        Charge, News, Payment, Provider, Standing,
        store::{NewPayment, find, insert},
    },
};
use uuid::Uuid;

use crate::support::app::TestApp;

impl TestApp {
    /// Begins to pay the order.
    pub(crate) async fn attempt(&self, order_id: Uuid, provider: Provider) -> Payment {
        let order = find_any_order(&self.db, OrderId::from(order_id)).await.unwrap();
        let id = PaymentId::generate();
        let amount = order.totals.total;
        let new = NewPayment { id, order_id: order.id, provider, livemode: false, amount };
        insert(&self.db, &new).await.unwrap();
        find(&self.db, id).await.unwrap().unwrap()
    }

    /// Hears how the payment stands at its provider.
    pub(crate) async fn hear(&self, payment: &Payment, standing: Standing) {
        for settled in settle(&self.cx, &[news(payment, standing)]).await {
            settled.unwrap();
        }
    }

    /// Pays the order in full; returns the provider's name for the money.
    pub(crate) async fn pay(&self, order_id: Uuid) -> String {
        let payment = self.attempt(order_id, Provider::Stripe).await;
        let charge = charge(&payment);
        let charge_ref = charge.charge_ref.clone();
        self.hear(&payment, Standing::Captured(vec![charge])).await;
        charge_ref
    }
}

/// What the provider says of how the payment stands.
pub(crate) fn news(payment: &Payment, standing: Standing) -> Settlement {
    let news = News {
        provider: payment.provider,
        provider_ref: format!("pi_{}", payment.id.uuid().simple()),
        payment_id: Some(payment.id),
        livemode: payment.livemode,
        standing,
    };
    Settlement { news, event_id: None }
}

/// All that the payment asks for.
pub(crate) fn charge(payment: &Payment) -> Charge {
    Charge {
        charge_ref: format!("pi_{}", payment.id.uuid().simple()),
        amount_minor: payment.amount.minor(),
        currency: payment.amount.currency().code().to_owned(),
        refunds: Vec::new(),
    }
}
