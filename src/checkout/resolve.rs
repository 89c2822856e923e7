//! Quarantined money: a person decides what becomes of it, once.

use std::collections::BTreeSet;

use jobs::{Delay, Staged, checkout::CancelPayment, notifications::SendOrderConfirmed};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    CheckoutError, refund,
    settle::{lock_stock, move_stock, serve},
};
use crate::{
    audit,
    context::Context,
    idempotency::{self, ClaimKey, Fingerprint, Key, KeyError, NewRecord},
    kernel::{OrderId, RefundId, UserId, rerun},
    orders::{
        self, Event, Note, Status,
        store::{Entry, LockedForPayment},
    },
    payments::{
        self, Fate, Mismatch, State, Surplus, disputes, findings,
        refunds::{self, Refund, store::NewRefund},
        store::{Capture, StateChange},
    },
};

/// What is to become of quarantined money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// It pays the order for which it came in, even where it is more or less than was asked for.
    Accept,
    /// It goes back in full.
    Refund,
    /// It pays another order, which costs just as much.
    Attach(OrderId),
}

impl Resolution {
    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Refund => "refund",
            Self::Attach(_) => "attach",
        }
    }
}

/// A member of staff's decision.
#[derive(Debug, Clone)]
pub struct ResolveQuarantined {
    pub capture_id: Uuid,
    pub staff_id: UserId,
    pub key: Key,
    pub resolution: Resolution,
    /// Why, for colleagues.
    pub note: String,
    /// Names the request in the audit log.
    pub request_id: Option<String>,
}

impl ResolveQuarantined {
    const OPERATION: &'static str = "resolveQuarantined";

    fn claim(&self) -> ClaimKey<'_> {
        let owner_id = self.staff_id.into();
        ClaimKey { owner_id, operation: Self::OPERATION, key: &self.key }
    }

    fn fingerprint(&self) -> Fingerprint {
        let target = self.target().map(OrderId::uuid);
        let wish = json!([self.capture_id, self.resolution.name(), target, self.note]);
        Fingerprint::of(wish.to_string().as_bytes())
    }

    /// The other order that is to be paid.
    const fn target(&self) -> Option<OrderId> {
        match self.resolution {
            Resolution::Attach(order_id) => Some(order_id),
            Resolution::Accept | Resolution::Refund => None,
        }
    }
}

/// Money that was decided about.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub capture: Capture,
    /// An earlier request with the same key decided.
    pub replayed: bool,
}

/// Does with the money what a member of staff decided, closes the finding, and notes who it was.
///
/// Accepted money pays its order as any other would: every unit has to be there, and whatever else
/// could be paid for it is withdrawn.
pub async fn resolve_quarantined(
    cx: &Context,
    wish: &ResolveQuarantined,
) -> Result<Resolved, CheckoutError> {
    let replayed = rerun(|| write(cx, wish), CheckoutError::database).await?;
    let capture = payments::store::find_capture(&cx.db, wish.capture_id).await?;
    Ok(Resolved { capture: capture.ok_or(CheckoutError::NoSuchCapture)?, replayed })
}

/// `true` where an earlier request decided.
async fn write(cx: &Context, wish: &ResolveQuarantined) -> Result<bool, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    match attempt(&mut tx, wish).await {
        Ok(Some(staged)) => {
            tx.commit().await.map_err(CheckoutError::of_commit)?;
            cx.relay.wake(staged);
            if wish.resolution != Resolution::Refund {
                metrics::counter!("orders_paid_total").increment(1);
            }
            Ok(false)
        }
        Ok(None) => {
            tx.rollback().await?;
            Ok(true)
        }
        Err(error) => {
            // Not left to the drop, which would keep the key claimed while the next attempt asks for it.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

/// Decides within the transaction; `None` where an earlier request did.
async fn attempt(
    tx: &mut PgConnection,
    wish: &ResolveQuarantined,
) -> Result<Option<Staged>, CheckoutError> {
    if idempotency::claim(&mut *tx, &[wish.claim()]).await? != [true] {
        return Err(KeyError::InFlight.into());
    }
    // A statement of its own: only one that starts after the claim sees what the last claimant committed.
    let recorded = idempotency::find(&mut *tx, &[wish.claim()]).await?;
    if let Some(recorded) = recorded.into_iter().flatten().next() {
        recorded.check(wish.fingerprint())?;
        return Ok(None);
    }
    let matter = read(&mut *tx, wish).await?;
    let staged = match wish.resolution {
        Resolution::Refund => send_back(&mut *tx, wish, &matter).await?,
        Resolution::Accept => {
            pay(&mut *tx, &matter, matter.order(matter.capture.order_id)?).await?
        }
        Resolution::Attach(id) => attach(&mut *tx, &matter, matter.order(id)?).await?,
    };
    orders::store::record_events(&mut *tx, &matter.entries(wish)).await?;
    let subject = wish.capture_id.to_string();
    let kind = findings::Kind::Quarantined;
    findings::store::close_about(&mut *tx, kind, &subject, wish.staff_id, &wish.note).await?;
    audit::record(&mut *tx, &matter.audit(wish)).await?;
    let record = NewRecord {
        claim: wish.claim(),
        fingerprint: wish.fingerprint(),
        subject_id: wish.capture_id,
        answer: json!({}),
    };
    idempotency::record(tx, &[record]).await?;
    Ok(Some(staged))
}

/// Quarantined money, and all that counts for what becomes of it, as it stands under the orders' locks.
struct Matter {
    capture: Capture,
    mismatch: Mismatch,
    /// The order for which the money came in, and the other one that it may pay.
    orders: Vec<LockedForPayment>,
    refunds: Vec<Refund>,
}

async fn read(tx: &mut PgConnection, wish: &ResolveQuarantined) -> Result<Matter, CheckoutError> {
    let capture = payments::store::find_capture(&mut *tx, wish.capture_id)
        .await?
        .ok_or(CheckoutError::NoSuchCapture)?;
    let ids: BTreeSet<_> = [capture.order_id].into_iter().chain(wish.target()).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let orders = orders::store::lock(&mut *tx, &ids).await?;
    // A statement of its own: only one that starts after the lock sees what the last holder did.
    let capture = payments::store::find_capture(&mut *tx, wish.capture_id)
        .await?
        .ok_or(CheckoutError::NoSuchCapture)?;
    let Fate::Quarantined(mismatch) = capture.fate else {
        return Err(CheckoutError::NotQuarantined);
    };
    let refunds = refunds::store::of_orders(tx, &[capture.order_id]).await?;
    Ok(Matter { capture, mismatch, orders, refunds })
}

impl Matter {
    fn order(&self, id: OrderId) -> Result<LockedForPayment, CheckoutError> {
        let order = self.orders.iter().find(|order| order.id == id);
        order.copied().ok_or(CheckoutError::NoSuchOrder)
    }

    /// The refunds of this money.
    fn refunds(&self) -> impl Iterator<Item = &Refund> {
        self.refunds.iter().filter(|refund| refund.capture_id == self.capture.id)
    }

    /// What the timelines of the orders tell of it.
    fn entries(&self, wish: &ResolveQuarantined) -> Vec<Entry> {
        let Capture { id, payment_id, charge_ref, amount_minor, currency, .. } = &self.capture;
        let detail = json!({
            "capture_id": id,
            "payment_id": payment_id.uuid(),
            "charge_ref": charge_ref,
            "amount": amount_minor,
            "currency": currency,
            "reason": self.capture.fate.reason(),
            "resolution": wish.resolution.name(),
        });
        let note = Note::QuarantineResolved;
        let entry =
            |order: &LockedForPayment| Entry { order_id: order.id, note, detail: detail.clone() };
        self.orders.iter().map(entry).collect()
    }

    fn audit(&self, wish: &ResolveQuarantined) -> audit::Entry {
        let Capture { order_id, amount_minor, currency, fate, .. } = &self.capture;
        audit::Entry {
            actor_id: wish.staff_id,
            action: ResolveQuarantined::OPERATION.to_owned(),
            subject: format!("capture:{}", wish.capture_id),
            before: Some(json!({
                "fate": fate.name(),
                "reason": fate.reason(),
                "order_id": order_id.uuid(),
                "amount": amount_minor,
                "currency": currency,
            })),
            after: Some(json!({
                "resolution": wish.resolution.name(),
                "order_id": wish.target().unwrap_or(*order_id).uuid(),
                "note": wish.note,
            })),
            request_id: wish.request_id.clone(),
        }
    }
}

/// Has all of the money go back that did not go back already.
async fn send_back(
    tx: &mut PgConnection,
    wish: &ResolveQuarantined,
    matter: &Matter,
) -> Result<Staged, CheckoutError> {
    let capture = &matter.capture;
    let fate = Fate::RefundDue(Surplus::Refused(matter.mismatch));
    decide(&mut *tx, capture, capture.order_id, fate).await?;
    let amount_minor = refund::refundable(capture, &matter.refunds);
    if amount_minor == 0 {
        return Ok(Staged::default());
    }
    let new = NewRefund {
        id: RefundId::generate(),
        capture_id: capture.id,
        order_id: capture.order_id,
        provider: capture.provider,
        amount_minor,
        currency: capture.currency.clone(),
        state: refunds::State::Requested,
        cause: refunds::Cause::Staff,
        reason: Some(wish.note.clone()),
        requested_by: Some(wish.staff_id),
        provider_ref: None,
    };
    Ok(refund::request(tx, &[new]).await?)
}

/// Pays another order with the money, which belongs to that from now on.
async fn attach(
    tx: &mut PgConnection,
    matter: &Matter,
    order: LockedForPayment,
) -> Result<Staged, CheckoutError> {
    let capture = &matter.capture;
    if matter.refunds().next().is_some() {
        return Err(CheckoutError::MoneySpent);
    }
    let costs = (order.total.minor(), order.total.currency().code());
    if costs != (capture.amount_minor, &*capture.currency) {
        return Err(CheckoutError::OtherPrice(order.total));
    }
    match order.status {
        Status::AwaitingPayment | Status::Expired => pay(tx, matter, order).await,
        Status::Paid | Status::Shipped => Err(CheckoutError::AlreadyPaid),
        Status::Cancelled => Err(CheckoutError::NotPayable(order.status)),
    }
}

/// Pays the order with the money: its units are sold, and nothing else can be paid for it any more.
async fn pay(
    tx: &mut PgConnection,
    matter: &Matter,
    order: LockedForPayment,
) -> Result<Staged, CheckoutError> {
    let capture = &matter.capture;
    let id = order.id;
    may_pay(&mut *tx, matter, &order).await?;
    let status = order.status.on(Event::PaymentSettled).ok_or(CheckoutError::AlreadyPaid)?;
    let stock = lock_stock(&mut *tx, &[id]).await?;
    let served = serve(&mut *tx, &stock, &[id], &[id]).await?;
    if !served.order_ids.contains(&id) {
        return Err(CheckoutError::OutOfStock(Vec::new()));
    }
    let detail = json!({
        "payment_id": capture.payment_id.uuid(),
        "provider": capture.provider.name(),
        "amount": capture.amount_minor,
        "currency": capture.currency,
    });
    orders::store::transition(&mut *tx, &[id], Event::PaymentSettled, status, &[detail]).await?;
    move_stock(&mut *tx, &stock, &served.taken, &[id]).await?;
    let withdrawn = withdraw_others(&mut *tx, id).await?;
    decide(&mut *tx, capture, id, Fate::Accepted).await?;
    let mail = SendOrderConfirmed { order_id: id.uuid() };
    let mut staged = jobs::stage(&mut *tx, &[mail], Delay::NONE).await?;
    staged.merge(jobs::stage(tx, &withdrawn, Delay::NONE).await?);
    Ok(staged)
}

/// Whether the money can be kept, and the order be paid with money of its kind.
async fn may_pay(
    tx: &mut PgConnection,
    matter: &Matter,
    order: &LockedForPayment,
) -> Result<(), CheckoutError> {
    let capture = &matter.capture;
    if capture.amount_minor == 0 || capture.currency != order.total.currency().code() {
        return Err(CheckoutError::OtherPrice(order.total));
    }
    if matter.refunds().any(|refund| refund.state != refunds::State::Failed) {
        return Err(CheckoutError::MoneySpent);
    }
    let disputes = disputes::store::of_orders(&mut *tx, &[capture.order_id]).await?;
    if disputes.iter().any(|dispute| dispute.capture_id == capture.id) {
        return Err(CheckoutError::Disputed);
    }
    // One that was paid and given up afterwards keeps the money that paid it on its books.
    let known = payments::store::captures_of(tx, &[order.id]).await?;
    if known.iter().any(|capture| capture.fate == Fate::Accepted) {
        return Err(match order.status {
            Status::Cancelled => CheckoutError::NotPayable(order.status),
            Status::AwaitingPayment | Status::Expired | Status::Paid | Status::Shipped => {
                CheckoutError::AlreadyPaid
            }
        });
    }
    Ok(())
}

/// Has withdrawn whatever else could be paid for the order.
async fn withdraw_others(
    tx: &mut PgConnection,
    order_id: OrderId,
) -> sqlx::Result<Vec<CancelPayment>> {
    let mut others = payments::store::lock_of(&mut *tx, &[order_id]).await?;
    others.retain(|payment| payment.state.is_open() || payment.state == State::Cancelling);
    let changes: Vec<_> = others
        .iter()
        .filter(|payment| payment.state.allows(State::Cancelling))
        .map(|payment| StateChange {
            id: payment.id,
            state: State::Cancelling,
            provider_ref: None,
            last_decline: None,
        })
        .collect();
    if !changes.is_empty() {
        payments::store::set_states(tx, &changes).await?;
    }
    Ok(others.iter().map(|payment| CancelPayment { payment_id: payment.id.uuid() }).collect())
}

/// Writes what became of the money.
async fn decide(
    tx: &mut PgConnection,
    capture: &Capture,
    order_id: OrderId,
    fate: Fate,
) -> Result<(), CheckoutError> {
    if payments::store::resolve(tx, capture.id, order_id, fate).await? {
        return Ok(());
    }
    Err(CheckoutError::NotQuarantined)
}

/// The money that waits for a decision, the newest first; `before` is the last of the page before.
pub async fn list_quarantined(
    cx: &Context,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Capture>, CheckoutError> {
    Ok(payments::store::quarantined(&cx.db, before, limit).await?)
}
