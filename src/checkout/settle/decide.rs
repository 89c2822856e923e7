//! What follows from news of payments: a pure function, so that every order of arrival can be tried.

use std::collections::{BTreeMap, HashMap, HashSet};

use jobs::{
    checkout::{CancelPayment, CapturePayment},
    notifications::{SendPaymentFailed, SendRefundMade},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    checkout::refund,
    inventory::{allocation::Demand, holds::Kept},
    kernel::{EventId, OrderId, PaymentId, RefundId},
    orders::{
        Note, Status,
        store::{Entry, LockedForPayment},
    },
    payments::{
        Charge, Fate, Mismatch, News, Payment, Provider, Standing, State, Surplus, findings,
        findings::store::NewFinding,
        gateway::RefundStanding,
        inbox::Outcome,
        refunds,
        refunds::store::NewRefund,
        store::{NewCapture, StateChange},
    },
};

/// News of a payment of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) payment_id: PaymentId,
    pub(super) order_id: OrderId,
    pub(super) news: &'a News,
    pub(super) event_id: Option<EventId>,
}

impl<'a> Named<'a> {
    /// The providers' names for the money that the news is of.
    pub(super) fn charge_names(&self) -> impl Iterator<Item = (Provider, &'a str)> + use<'a> {
        let provider = self.news.provider;
        self.charges().iter().map(move |charge| (provider, &*charge.charge_ref))
    }

    fn charges(&self) -> &'a [Charge] {
        match &self.news.standing {
            Standing::Captured(charges) => charges,
            Standing::Open { .. }
            | Standing::Processing
            | Standing::Authorized(_)
            | Standing::Cancelled => &[],
        }
    }

    /// The money that is set aside and is not what the payment asks for.
    pub(super) fn misfit(
        &self,
        payments: &BTreeMap<PaymentId, Payment>,
    ) -> Option<(Provider, &'a Charge)> {
        let Standing::Authorized(charge) = &self.news.standing else { return None };
        let payment = payments.get(&self.payment_id)?;
        (!payment.asks_for(charge)).then_some((self.news.provider, charge))
    }
}

/// How things stand under the locks.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) orders: HashMap<OrderId, LockedForPayment>,
    /// Every attempt to pay one of the orders.
    pub(super) payments: BTreeMap<PaymentId, Payment>,
    /// The providers' names for the money that is on record.
    pub(super) recorded: HashSet<(Provider, String)>,
    /// The same names for what is set aside, is not what was asked for, and was told to people before.
    pub(super) reported: HashSet<(Provider, String)>,
}

/// An order that becomes paid, and what its timeline says of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Paid {
    pub(super) order_id: OrderId,
    pub(super) detail: Value,
}

/// All that follows from a slice of news.
#[derive(Debug, Clone, Default)]
pub(super) struct Decision {
    /// In the order in which they were paid.
    pub(super) paid: Vec<Paid>,
    pub(super) captures: Vec<NewCapture>,
    /// The money that goes back at once.
    pub(super) refunds: Vec<NewRefund>,
    /// What was sent back at the provider before anybody here heard of the money.
    pub(super) adopted: Vec<NewRefund>,
    /// Of that, what has reached its shopper.
    pub(super) refunded: Vec<SendRefundMade>,
    /// What a person has to look at.
    pub(super) findings: Vec<NewFinding>,
    pub(super) changes: Vec<StateChange>,
    pub(super) entries: Vec<Entry>,
    /// The orders whose deadline moves, unless it was moved before.
    pub(super) extended: Vec<OrderId>,
    pub(super) declined: Vec<SendPaymentFailed>,
    pub(super) withdrawn: Vec<CancelPayment>,
    pub(super) set_aside: Vec<CapturePayment>,
    /// What became of the webhooks.
    pub(super) heard: Vec<(EventId, Outcome)>,
}

/// Decides what follows from the news, taken in their order.
///
/// `can_have` says of an order that still wants its units whether it gets every one of them.
pub(super) fn decide(
    facts: &Facts,
    named: &[Named<'_>],
    can_have: impl Fn(OrderId) -> bool,
) -> Decision {
    let mut desk = Desk {
        orders: facts.orders.clone(),
        payments: facts.payments.clone(),
        recorded: facts.recorded.clone(),
        reported: facts.reported.clone(),
        can_have,
        declined: Vec::new(),
        processing: Vec::new(),
        authorized: Vec::new(),
        decision: Decision::default(),
    };
    for named in named {
        desk.hear(named);
    }
    desk.close(facts)
}

/// What each order no longer holds of its lines; nothing where it still holds them all.
pub(super) fn missing(holds: &[Kept], order_ids: &[OrderId]) -> Vec<Demand> {
    let mut of_order = HashMap::<OrderId, Demand>::new();
    for kept in holds.iter().filter(|kept| !kept.is_held()) {
        let demand = of_order.entry(kept.hold.order_id).or_default();
        *demand.entry(kept.hold.variant_id).or_default() += kept.hold.quantity;
    }
    order_ids.iter().map(|id| of_order.remove(id).unwrap_or_default()).collect()
}

/// How things stand after the news heard so far.
struct Desk<C> {
    orders: HashMap<OrderId, LockedForPayment>,
    payments: BTreeMap<PaymentId, Payment>,
    recorded: HashSet<(Provider, String)>,
    reported: HashSet<(Provider, String)>,
    can_have: C,
    /// What depends on where order and payment stand when all news is heard.
    declined: Vec<PaymentId>,
    processing: Vec<PaymentId>,
    authorized: Vec<(PaymentId, Charge)>,
    decision: Decision,
}

impl<C: Fn(OrderId) -> bool> Desk<C> {
    fn hear(&mut self, named: &Named<'_>) {
        let Named { payment_id: id, news, .. } = *named;
        let Some(payment) = self.payments.get_mut(&id) else { return };
        if is_foreign(payment, news) {
            self.quarantine(named);
            return;
        }
        payment.provider_ref.get_or_insert_with(|| news.provider_ref.clone());
        self.decision.heard.extend(named.event_id.map(|event_id| (event_id, Outcome::Done)));
        match &news.standing {
            Standing::Open { last_decline } => {
                self.advance(id, State::Open);
                self.note_decline(id, last_decline.as_deref());
            }
            Standing::Processing => {
                self.advance(id, State::Processing);
                self.processing.push(id);
            }
            Standing::Authorized(charge) => {
                // What was not asked for is not collected: the shopper may still pay.
                let next = if payment.asks_for(charge) { State::Authorized } else { State::Open };
                self.advance(id, next);
                self.authorized.push((id, charge.clone()));
            }
            Standing::Captured(_) => {
                for charge in self.unrecorded(named) {
                    self.advance(id, State::Captured);
                    let fate = self.judge(id, charge);
                    self.record(named, charge, kept(charge, fate));
                }
            }
            Standing::Cancelled => self.advance(id, State::Cancelled),
        }
    }

    /// Records money of another object that names a payment of ours, and believes nothing else of it.
    fn quarantine(&mut self, named: &Named<'_>) {
        for charge in self.unrecorded(named) {
            self.record(named, charge, kept(charge, FOREIGN));
        }
        let outcome = match named.charges() {
            [] => Outcome::Ignored("it is of another object than our payment".to_owned()),
            [..] => Outcome::Done,
        };
        self.decision.heard.extend(named.event_id.map(|event_id| (event_id, outcome)));
    }

    /// Moves the payment where that is legal. News that comes too late moves nothing.
    fn advance(&mut self, id: PaymentId, next: State) {
        if let Some(payment) = self.payments.get_mut(&id)
            && payment.state.allows(next)
        {
            payment.state = next;
        }
    }

    fn note_decline(&mut self, id: PaymentId, code: Option<&str>) {
        let (Some(code), Some(payment)) = (code, self.payments.get_mut(&id)) else { return };
        // A decline of what was withdrawn or went through meanwhile is of no interest any more.
        if payment.state != State::Open || payment.last_decline.as_deref() == Some(code) {
            return;
        }
        payment.last_decline = Some(code.to_owned());
        let (order_id, provider) = (payment.order_id, payment.provider.name());
        let detail = json!({ "payment_id": id.uuid(), "provider": provider, "code": code });
        self.note(order_id, Note::PaymentFailed, detail);
        self.declined.push(id);
    }

    /// The money that is not on record yet; from now on it is.
    fn unrecorded<'a>(&mut self, named: &Named<'a>) -> Vec<&'a Charge> {
        let provider = named.news.provider;
        let is_new = |charge: &&Charge| self.recorded.insert((provider, charge.charge_ref.clone()));
        named.charges().iter().filter(is_new).collect()
    }

    /// What becomes of money that was collected for the payment. Pays the order where it can.
    fn judge(&mut self, id: PaymentId, charge: &Charge) -> Fate {
        let Some(payment) = self.payments.get(&id) else { return FOREIGN };
        let Some(order) = self.orders.get_mut(&payment.order_id) else { return FOREIGN };
        let asked = payment.amount;
        if charge.currency != asked.currency().code() {
            return Fate::Quarantined(Mismatch::WrongCurrency);
        }
        if charge.amount_minor != asked.minor() || asked != order.total {
            return Fate::Quarantined(Mismatch::WrongAmount);
        }
        match order.status {
            Status::Paid | Status::Shipped => return Fate::RefundDue(Surplus::AlreadyPaid),
            // The state machine would allow it: a person may decide so.
            Status::Cancelled => return Fate::RefundDue(Surplus::OrderCancelled),
            Status::AwaitingPayment | Status::Expired => {}
        }
        if charge.is_gone() {
            return Fate::RefundDue(Surplus::Refused(Mismatch::WrongAmount));
        }
        if !(self.can_have)(order.id) {
            return Fate::RefundDue(Surplus::OutOfStock);
        }
        order.status = Status::Paid;
        let detail = json!({
            "payment_id": id.uuid(),
            "provider": payment.provider.name(),
            "amount": charge.amount_minor,
            "currency": charge.currency,
        });
        self.decision.paid.push(Paid { order_id: order.id, detail });
        Fate::Accepted
    }

    fn record(&mut self, named: &Named<'_>, charge: &Charge, fate: Fate) {
        let note = match fate {
            Fate::Accepted => None,
            Fate::RefundDue(_) => Some(Note::PaymentRefundDue),
            Fate::Quarantined(_) => Some(Note::PaymentQuarantined),
        };
        if let Some(note) = note {
            let mut detail = json!({
                "payment_id": named.payment_id.uuid(),
                "charge_ref": charge.charge_ref,
                "amount": charge.amount_minor,
                "currency": charge.currency,
                "reason": fate.reason(),
            });
            if charge.refunded_minor() > 0 {
                detail["refunded"] = json!(charge.refunded_minor());
            }
            self.note(named.order_id, note, detail);
        }
        let capture = NewCapture {
            id: Uuid::now_v7(),
            payment_id: named.payment_id,
            order_id: named.order_id,
            provider: named.news.provider,
            charge_ref: charge.charge_ref.clone(),
            amount_minor: charge.amount_minor,
            currency: charge.currency.clone(),
            fate,
        };
        self.adopt(&capture, charge);
        match fate {
            Fate::Accepted => {}
            Fate::RefundDue(_) => {
                let left = charge.amount_minor - charge.refunded_minor();
                self.decision.refunds.extend((left > 0).then(|| refund_of(&capture, left)));
            }
            Fate::Quarantined(_) => self.decision.findings.push(finding_of(&capture)),
        }
        self.decision.captures.push(capture);
    }

    /// Takes over what was sent back of the money at its provider. One that failed moved nothing.
    fn adopt(&mut self, capture: &NewCapture, charge: &Charge) {
        for made in charge.refunds_that_hold() {
            let state = match made.standing {
                RefundStanding::Succeeded => refunds::State::Succeeded,
                RefundStanding::Pending | RefundStanding::Failed { .. } => refunds::State::Pending,
            };
            let new = NewRefund {
                state,
                cause: refunds::Cause::Provider,
                provider_ref: Some(made.provider_ref.clone()),
                ..refund_of(capture, made.amount_minor)
            };
            let (order_id, refund_id) = (new.order_id.uuid(), new.id.uuid());
            self.note(new.order_id, Note::RefundRequested, refund::detail_of_new(&new));
            if state == refunds::State::Succeeded {
                self.note(new.order_id, Note::RefundSucceeded, refund::detail_of_new(&new));
                self.decision.refunded.push(SendRefundMade { order_id, refund_id });
            }
            self.decision.adopted.push(new);
        }
    }

    /// Puts it on the order's timeline, once.
    fn note(&mut self, order_id: OrderId, note: Note, detail: Value) {
        let entry = Entry { order_id, note, detail };
        if !self.decision.entries.contains(&entry) {
            self.decision.entries.push(entry);
        }
    }

    /// Draws what follows from where everything stands now that all news is heard: in which order
    /// the news of a slice came must not matter to it.
    fn close(mut self, facts: &Facts) -> Decision {
        self.collect_or_give_back();
        self.extend_deadlines();
        self.withdraw_others();
        self.ask_to_try_again();
        self.decision.changes = self
            .payments
            .values()
            .filter(|payment| facts.payments.get(&payment.id) != Some(payment))
            .map(|payment| StateChange {
                id: payment.id,
                state: payment.state,
                provider_ref: payment.provider_ref.clone(),
                last_decline: payment.last_decline.clone(),
            })
            .collect();
        self.decision
    }

    /// Has the money collected that was set aside for an order that wants it. Other money is set
    /// aside in vain: it is given back, where the provider does not do that by itself.
    fn collect_or_give_back(&mut self) {
        for (id, charge) in std::mem::take(&mut self.authorized) {
            let Some(payment) = self.payments.get(&id).cloned() else { continue };
            if payment.state == State::Captured {
                continue;
            }
            if self.awaits_payment(payment.order_id) {
                if payment.asks_for(&charge) {
                    let (payment_id, charge_ref) = (id.uuid(), charge.charge_ref);
                    self.decision.set_aside.push(CapturePayment { payment_id, charge_ref });
                } else {
                    self.report(&payment, &charge);
                }
                continue;
            }
            let provider = payment.provider.name();
            let detail = json!({ "payment_id": id.uuid(), "provider": provider });
            self.note(payment.order_id, Note::PaymentAuthorizedTooLate, detail);
            if payment.provider == Provider::Stripe && payment.state != State::Cancelled {
                self.withdraw(id);
            }
        }
    }

    /// Tells people, once, of money that is set aside and is not what was asked for: it is left where it
    /// is, and the provider gives it back.
    fn report(&mut self, payment: &Payment, charge: &Charge) {
        if !self.reported.insert((payment.provider, charge.charge_ref.clone())) {
            return;
        }
        let detail = json!({
            "payment_id": payment.id.uuid(),
            "provider": payment.provider.name(),
            "charge_ref": charge.charge_ref,
            "amount": charge.amount_minor,
            "currency": charge.currency,
            "asked": payment.amount.minor(),
            "asked_currency": payment.amount.currency().code(),
        });
        self.decision.findings.push(NewFinding {
            kind: findings::Kind::UnknownMoney,
            subject: charge.charge_ref.clone(),
            order_id: Some(payment.order_id),
            detail: detail.clone(),
        });
        self.note(payment.order_id, Note::PaymentNotCollected, detail);
    }

    /// Gives orders more time whose payment is under way.
    fn extend_deadlines(&mut self) {
        let under_way = |payment: &&Payment| {
            matches!(payment.state, State::Processing | State::Authorized | State::Cancelling)
        };
        let processing = self.processing.iter().filter_map(|id| self.payments.get(id));
        let authorized = self
            .decision
            .set_aside
            .iter()
            .filter_map(|job| self.payments.get(&job.payment_id.into()));
        let mut order_ids: Vec<_> = processing
            .filter(under_way)
            .chain(authorized)
            .map(|payment| payment.order_id)
            .filter(|id| self.orders.get(id).is_some_and(|order| !order.extended))
            .filter(|id| self.awaits_payment(*id))
            .collect();
        order_ids.sort_unstable();
        order_ids.dedup();
        self.decision.extended = order_ids;
    }

    /// Withdraws whatever else could still be paid for an order that is paid now.
    fn withdraw_others(&mut self) {
        let paid: HashSet<_> = self.decision.paid.iter().map(|paid| paid.order_id).collect();
        let others: Vec<_> = self
            .payments
            .values()
            .filter(|payment| paid.contains(&payment.order_id))
            .filter(|payment| payment.state.is_open() || payment.state == State::Cancelling)
            .map(|payment| payment.id)
            .collect();
        for id in others {
            self.withdraw(id);
        }
    }

    fn withdraw(&mut self, id: PaymentId) {
        self.advance(id, State::Cancelling);
        let job = CancelPayment { payment_id: id.uuid() };
        if !self.decision.withdrawn.contains(&job) {
            self.decision.withdrawn.push(job);
        }
    }

    /// Tells shoppers of a decline while they can still do something about it.
    fn ask_to_try_again(&mut self) {
        for id in std::mem::take(&mut self.declined) {
            let Some(payment) = self.payments.get(&id) else { continue };
            let order_id = payment.order_id;
            if payment.state == State::Open && self.awaits_payment(order_id) {
                let job = SendPaymentFailed { order_id: order_id.uuid(), payment_id: id.uuid() };
                self.decision.declined.push(job);
            }
        }
    }

    fn awaits_payment(&self, id: OrderId) -> bool {
        self.orders.get(&id).is_some_and(|order| order.status == Status::AwaitingPayment)
    }
}

const FOREIGN: Fate = Fate::Quarantined(Mismatch::ForeignObject);

/// What becomes of the money where some of it may have gone back: where nothing is left, there is nothing
/// to decide.
fn kept(charge: &Charge, fate: Fate) -> Fate {
    match fate {
        Fate::Quarantined(mismatch) if charge.is_gone() => {
            Fate::RefundDue(Surplus::Refused(mismatch))
        }
        Fate::Accepted | Fate::RefundDue(_) | Fate::Quarantined(_) => fate,
    }
}

/// So much of the money, on its way back.
fn refund_of(capture: &NewCapture, amount_minor: i64) -> NewRefund {
    NewRefund {
        id: RefundId::generate(),
        capture_id: capture.id,
        order_id: capture.order_id,
        provider: capture.provider,
        amount_minor,
        currency: capture.currency.clone(),
        state: refunds::State::Requested,
        cause: refunds::Cause::Surplus,
        reason: None,
        requested_by: None,
        provider_ref: None,
    }
}

/// Tells people of money that they have to decide about.
fn finding_of(capture: &NewCapture) -> NewFinding {
    NewFinding {
        kind: findings::Kind::Quarantined,
        subject: capture.id.to_string(),
        order_id: Some(capture.order_id),
        detail: json!({
            "payment_id": capture.payment_id.uuid(),
            "provider": capture.provider.name(),
            "charge_ref": capture.charge_ref,
            "amount": capture.amount_minor,
            "currency": capture.currency,
            "reason": capture.fate.reason(),
        }),
    }
}

/// Whether the news names the payment and is of another object than the provider has for it.
fn is_foreign(payment: &Payment, news: &News) -> bool {
    let is_other = |known: &str| known != news.provider_ref;
    payment.provider != news.provider
        || payment.livemode != news.livemode
        || payment.provider_ref.as_deref().is_some_and(is_other)
}

#[cfg(test)]
mod tests;
