//! A Stripe and a Razorpay that move no money: real wire formats, really signed webhooks, faults
//! on request, and books of their own to compare the shop's with.
//!
//! Each listens on a port of its own, at the root path, as the official client libraries want
//! it. Everything lives in memory and ends with the process. What a shopper does in the browser
//! is an [`Act`]; what goes wrong is a [`Fault`] or a [`Delivery`]; what really happened is the
//! [`Ledger`].

mod acts;
mod config;
mod control;
mod faults;
mod front;
mod hands;
mod keys;
mod ledger;
mod operation;
mod page;
mod razorpay;
mod signatures;
mod stripe;
mod table;
mod webhooks;
mod wire;
mod world;

use std::{collections::BTreeMap, fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use poem::{Endpoint, Server, listener::Acceptor};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

pub use self::{
    acts::{Act, ActError, Acted, Checkout, Payment, Verdict},
    config::{Addresses, Capture, Config, RepeatedReceipt},
    faults::{Fault, RandomFaults, Target},
    ledger::{Captured, Ledger, RefundState, Refunded},
    operation::{Operation, Provider},
    signatures::{sign_checkout, sign_for_razorpay, sign_for_stripe},
    webhooks::{Attempt, Delivery, Outcome, Told},
};
use self::{
    front::Front,
    wire::{Connections, Listener},
    world::Shared,
};

/// Both providers at work; dropping them closes every port and connection, and ends every
/// delivery.
pub struct Providers {
    shared: Arc<Shared>,
    stripe_addr: SocketAddr,
    razorpay_addr: SocketAddr,
    page_addr: Option<SocketAddr>,
    /// Closed by the drop, which is what the servers wait for.
    _running: watch::Sender<()>,
    _carriers: JoinSet<()>,
}

impl Providers {
    /// Serves both APIs, and the shopper's page where an address for it is given.
    pub async fn start(addresses: Addresses, config: Config) -> io::Result<Self> {
        let stripe_listener = crate::inbox::bind(addresses.stripe).await?;
        let razorpay_listener = crate::inbox::bind(addresses.razorpay).await?;
        let page_listener = match addresses.page {
            Some(page) => Some(crate::inbox::bind(page).await?),
            None => None,
        };
        let stripe_addr = stripe_listener.local_addr()?;
        let razorpay_addr = razorpay_listener.local_addr()?;
        let page_addr = page_listener.as_ref().map(TcpListener::local_addr).transpose()?;

        let (post, carriers) = webhooks::open(&config);
        let shared = Arc::new(Shared::new(config, post));
        let (running, stopped) = watch::channel(());
        for (provider, listener) in
            [(Provider::Stripe, stripe_listener), (Provider::Razorpay, razorpay_listener)]
        {
            let connections = Connections::default();
            let front =
                Front { provider, shared: Arc::clone(&shared), connections: connections.clone() };
            serve(Listener::new(listener, connections), front, stopped.clone());
        }
        if let Some(listener) = page_listener {
            let listener = Listener::new(listener, Connections::default());
            serve(listener, page::routes(&shared), stopped);
        }
        let mut working = JoinSet::new();
        working.spawn(carriers.work());
        Ok(Self {
            shared,
            stripe_addr,
            razorpay_addr,
            page_addr,
            _running: running,
            _carriers: working,
        })
    }

    /// The shopper's page and the control API, for a server that has a port already.
    pub fn pages(&self) -> poem::Route {
        page::routes(&self.shared)
    }

    pub fn addr(&self, provider: Provider) -> SocketAddr {
        match provider {
            Provider::Stripe => self.stripe_addr,
            Provider::Razorpay => self.razorpay_addr,
        }
    }

    /// `http://127.0.0.1:…`, without a slash at its end.
    pub fn url(&self, provider: Provider) -> String {
        format!("http://{}", self.addr(provider))
    }

    pub fn page_url(&self) -> Option<String> {
        self.page_addr.map(|addr| format!("http://{addr}"))
    }

    /// What the providers know and what signs their webhooks.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }
}

/// Names where they listen, and no secret.
impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers")
            .field("stripe", &self.stripe_addr)
            .field("razorpay", &self.razorpay_addr)
            .finish_non_exhaustive()
    }
}

/// What happens in the browser, at the banks and in the dashboards.
impl Providers {
    /// Does what a shopper does with an intent (`pi_…`) or an order (`order_…`).
    ///
    /// The webhooks that tell of it are on their way afterwards, not arrived.
    pub fn act(&self, reference: &str, act: &Act) -> Result<Acted, ActError> {
        self.shared.act(reference, act)
    }

    /// [`Act::Succeed`], which no test does without.
    pub fn succeed(&self, reference: &str) -> Result<Acted, ActError> {
        self.act(reference, &Act::Succeed)
    }

    /// [`Act::Decline`] with the bank's code.
    pub fn decline(&self, reference: &str, code: &str) -> Result<Acted, ActError> {
        self.act(reference, &Act::Decline(code.to_owned()))
    }

    /// Every intent or order of `provider` in the order of its making.
    pub fn payments(&self, provider: Provider) -> Vec<Payment> {
        self.shared.payments(provider)
    }

    /// The intents and orders whose metadata, notes or receipt say so.
    pub fn payments_with(&self, provider: Provider, key: &str, value: &str) -> Vec<Payment> {
        let mut payments = self.payments(provider);
        payments.retain(|payment| {
            payment.metadata.get(key).is_some_and(|known| known == value)
                || key == "receipt" && payment.receipt.as_deref() == Some(value)
        });
        payments
    }

    /// Opens an intent or order that the shop did not ask for, and names it.
    pub fn create_foreign(
        &self,
        provider: Provider,
        amount_minor: i64,
        currency: &str,
        metadata: BTreeMap<String, String>,
    ) -> String {
        self.shared.create_foreign(provider, amount_minor, currency, metadata)
    }

    /// Refunds a `pi_…` or `pay_…` as an operator does in the provider's dashboard: all that is
    /// left, unless an amount is named.
    pub fn refund(&self, payment: &str, amount_minor: Option<i64>) -> Result<String, ActError> {
        self.shared.refund(payment, amount_minor)
    }

    /// Has the refunds that come wait as pending for [`finish_refund`](Self::finish_refund), or
    /// succeed at once.
    pub fn set_refunds_wait(&self, provider: Provider, wait: bool) {
        self.shared.set_refunds_wait(provider, wait);
    }

    /// Ends a refund (`re_…`, `rfnd_…`); one that has succeeded can still be lost.
    pub fn finish_refund(&self, refund: &str, verdict: Verdict) -> Result<(), ActError> {
        self.shared.finish_refund(refund, verdict)
    }

    /// Disputes a paid `pi_…` or `pay_…`, and names the dispute.
    pub fn dispute(&self, payment: &str) -> Result<String, ActError> {
        self.shared.dispute(payment)
    }

    pub fn close_dispute(&self, dispute: &str, verdict: Verdict) -> Result<(), ActError> {
        self.shared.close_dispute(dispute, verdict)
    }

    /// Whether Razorpay captures by itself from now on.
    pub fn set_capture(&self, capture: Capture) {
        self.shared.change(|world| world.razorpay.capture = capture);
    }

    pub fn set_repeated_receipt(&self, answer: RepeatedReceipt) {
        self.shared.change(|world| world.razorpay.repeated_receipt = answer);
    }
}

/// What goes wrong.
impl Providers {
    /// Strikes the next `times` calls of a provider or an operation, after the faults that were
    /// asked for before.
    pub fn fail_next(&self, target: impl Into<Target>, fault: Fault, times: u32) {
        self.shared.faults().strike_next(target.into(), fault, times);
    }

    /// Strikes a share of all calls; `None` ends it. Faults on request come first.
    pub fn fail_at_random(&self, faults: Option<RandomFaults>) {
        self.shared.faults().strike_at_random(faults);
    }

    /// Ends every fault.
    pub fn clear_faults(&self) {
        self.shared.faults().clear();
    }

    /// Forgets every idempotency key whose call has ended, as a day would.
    pub fn expire_idempotency_keys(&self) {
        self.shared.expire_idempotency_keys();
    }
}

/// How the shop is told.
impl Providers {
    /// Where the webhooks of `provider` go from the next attempt on; without a URL they go
    /// nowhere, and are not tried again.
    pub fn set_webhook_url(&self, provider: Provider, url: Option<&str>) {
        self.shared.post.set_url(provider, url);
    }

    /// Sends every webhook below `base`, where Holdfast waits for them.
    pub fn set_webhook_base(&self, base: &str) {
        for provider in [Provider::Stripe, Provider::Razorpay] {
            let url = format!("{}/v1/webhooks/{provider}", base.trim_end_matches('/'));
            self.set_webhook_url(provider, Some(&url));
        }
    }

    /// Signs with other secrets: Stripe's next attempts carry a `v1` for each, Razorpay's next
    /// *events* the first one; a retry of an older Razorpay event keeps its own.
    pub fn set_webhook_secrets(&self, provider: Provider, secrets: &[&str]) {
        let secrets = secrets.iter().map(|&secret| secret.to_owned()).collect();
        self.shared.post.set_secrets(provider, secrets);
    }

    /// How webhooks travel from now on; what was held until now goes first.
    pub fn set_delivery(&self, provider: Provider, delivery: Delivery) {
        self.shared.post.set_delivery(provider, delivery);
    }

    /// Loses the next `times` events for good.
    pub fn lose_next(&self, provider: Provider, times: u32) {
        self.shared.post.lose_next(provider, times);
    }

    /// Sends an event once more, even if it was lost; `false` where it is unknown.
    pub fn redeliver(&self, event_id: &str) -> bool {
        self.shared.post.redeliver(event_id)
    }

    /// Sends an event of any kind and shape, well signed, and names it.
    ///
    /// `object` is Stripe's `data.object`, and Razorpay's `payment.entity`.
    pub fn tell(&self, provider: Provider, kind: &str, object: &Value) -> String {
        self.shared.change(|world| match provider {
            Provider::Stripe => world.stripe.tell(kind, "", object),
            Provider::Razorpay => world.razorpay.tell(kind, "", &[("payment", object.clone())]),
        })
    }

    /// Every event that was told, or lost, in the order of its happening.
    pub fn events(&self) -> Vec<Told> {
        self.shared.post.told()
    }

    /// The raw body of an event, for those who deliver it themselves.
    pub fn event_body(&self, event_id: &str) -> Option<String> {
        self.shared.post.body(event_id)
    }

    /// Every attempt to deliver an event, in the order of its end.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.shared.post.attempts()
    }
}

/// What really happened.
impl Providers {
    pub fn ledger(&self) -> Ledger {
        self.shared.ledger()
    }

    /// How often an operation was asked for by somebody with a valid key, failed calls and
    /// replays included.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.shared.calls().get(&operation).copied().unwrap_or_default()
    }
}

/// Serves until `stopped` closes; then every connection is cut.
fn serve(
    listener: impl Acceptor + 'static,
    endpoint: impl Endpoint + 'static,
    mut stopped: watch::Receiver<()>,
) {
    tokio::spawn(async move {
        let server = Server::new_with_acceptor(listener);
        let stop = async move {
            // It has no other news than its end.
            while stopped.changed().await.is_ok() {}
        };
        // Only binding can fail, and that has happened.
        drop(server.run_with_graceful_shutdown(endpoint, stop, Some(Duration::ZERO)).await);
    });
}
