//! One attempt to settle a slice: lock and read, decide, write.

use std::collections::{BTreeSet, HashMap, HashSet};

use jobs::{Delay, Staged, checkout::RefundPayment, notifications::SendOrderConfirmed};
use serde_json::json;
use sqlx::PgConnection;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    EXTENSION, Settled, Settlement,
    decide::{Decision, Facts, Named, Paid, decide, missing},
};
use crate::{
    checkout::allowance::LateAllowances,
    inventory::{
        allocation::{self, Available, Demand, shortfall},
        holds::{self, Account, Cause, Hold, Kept, Movement, moved},
    },
    kernel::{EventId, OrderId, PaymentId, VariantId},
    orders::{
        self, Event, Note, Status,
        store::{Entry, Extended, LockedForPayment},
    },
    payments::{
        self, Payment, Standing, findings,
        inbox::{self, Outcome},
        refunds::store::NewRefund,
        store::NewCapture,
    },
};

/// What an attempt came to before its end.
pub(super) struct Attempt {
    pub(super) settled: Vec<Settled>,
    /// `None` where no news is of a payment of ours.
    pub(super) written: Option<Written>,
}

/// What was written, as far as it matters after the commit.
pub(super) struct Written {
    pub(super) paid: usize,
    pub(super) captures: Vec<NewCapture>,
    /// The new deadlines of orders that wait longer for their payment.
    pub(super) deadlines: BTreeSet<OffsetDateTime>,
    pub(super) staged: Staged,
}

/// Settles the slice within the transaction.
pub(super) async fn attempt(tx: &mut PgConnection, slice: &[Settlement]) -> sqlx::Result<Attempt> {
    let known = find_payments(&mut *tx, slice).await?;
    let settled: Vec<_> = known.iter().map(|payment| settled(payment.as_ref())).collect();
    let named: Vec<_> = slice
        .iter()
        .zip(&known)
        .filter_map(|(settlement, payment)| {
            let payment = payment.as_ref()?;
            let Settlement { news, event_id } = settlement;
            let (payment_id, order_id) = (payment.id, payment.order_id);
            Some(Named { payment_id, order_id, news, event_id: *event_id })
        })
        .collect();
    if named.is_empty() {
        return Ok(Attempt { settled, written: None });
    }

    let order_ids: BTreeSet<_> = named.iter().map(|named| named.order_id).collect();
    let order_ids: Vec<_> = order_ids.into_iter().collect();
    let locked = orders::store::lock(&mut *tx, &order_ids).await?;
    let stock = lock_stock(&mut *tx, &needing_stock(&locked, &named)).await?;
    let facts = read_payments(&mut *tx, locked, &order_ids, &named).await?;
    // Who would be paid if there were enough of everything; only their holds matter then.
    let claimants = paid_ids(&decide(&facts, &named, |_| true).paid);
    let served = serve(&mut *tx, &stock, &claimants, &order_ids).await?;
    let decision = decide(&facts, &named, |order_id| served.order_ids.contains(&order_id));
    let written = write(tx, &stock, &served.taken, decision).await?;
    Ok(Attempt { settled, written: Some(written) })
}

/// The payment that each news is of, by the provider's name for it, or else by the id that we gave
/// it. Nothing is locked, because their orders have to be locked first.
async fn find_payments(
    tx: &mut PgConnection,
    slice: &[Settlement],
) -> sqlx::Result<Vec<Option<Payment>>> {
    let names: Vec<_> = slice
        .iter()
        .map(|settlement| (settlement.news.provider, &*settlement.news.provider_ref))
        .collect();
    let ids: Vec<_> = slice.iter().filter_map(|settlement| settlement.news.payment_id).collect();
    let found = payments::store::find_named(tx, &names, &ids).await?;
    let by_id: HashMap<PaymentId, &Payment> =
        found.iter().map(|payment| (payment.id, payment)).collect();
    let by_name: HashMap<_, &Payment> = found
        .iter()
        .filter_map(|payment| Some(((payment.provider, payment.provider_ref.as_deref()?), payment)))
        .collect();
    Ok(slice
        .iter()
        .zip(names)
        .map(|(settlement, name)| {
            let of_id = || by_id.get(&settlement.news.payment_id?);
            by_name.get(&name).or_else(of_id).map(|payment| (*payment).clone())
        })
        .collect())
}

fn settled(payment: Option<&Payment>) -> Settled {
    payment.map_or(Settled::Unknown, |payment| Settled::Applied {
        payment_id: payment.id,
        order_id: payment.order_id,
    })
}

/// The orders that may be paid, or whose deadline may move: what they hold is decided here.
fn needing_stock(locked: &[LockedForPayment], named: &[Named<'_>]) -> Vec<OrderId> {
    let needs_stock = |order: &&LockedForPayment| {
        named.iter().filter(|named| named.order_id == order.id).any(|named| {
            let is_waiting = order.status == Status::AwaitingPayment;
            match named.news.standing {
                Standing::Captured(_) => is_waiting || order.status == Status::Expired,
                Standing::Processing | Standing::Authorized(_) => is_waiting && !order.extended,
                Standing::Open { .. } | Standing::Cancelled => false,
            }
        })
    };
    locked.iter().filter(needs_stock).map(|order| order.id).collect()
}

/// The locked stock of some orders, and all their holds.
#[derive(Default)]
pub(in crate::checkout) struct LockedStock {
    available: Available,
    holds: Vec<Kept>,
}

pub(in crate::checkout) async fn lock_stock(
    tx: &mut PgConnection,
    order_ids: &[OrderId],
) -> sqlx::Result<LockedStock> {
    if order_ids.is_empty() {
        return Ok(LockedStock::default());
    }
    let variants: Vec<VariantId> = holds::store::variants_of(&mut *tx, order_ids).await?;
    let available = holds::store::lock_stock(&mut *tx, &variants)
        .await?
        .into_iter()
        .map(|stock| (stock.variant_id, stock.on_hand - stock.reserved))
        .collect();
    // A statement of its own: only one that starts after the lock sees what the last holder did.
    let holds = holds::store::of_orders(tx, order_ids).await?;
    Ok(LockedStock { available, holds })
}

/// Locks every attempt to pay the orders and reads what came in for them.
async fn read_payments(
    tx: &mut PgConnection,
    locked: Vec<LockedForPayment>,
    order_ids: &[OrderId],
    named: &[Named<'_>],
) -> sqlx::Result<Facts> {
    let payments = payments::store::lock_of(&mut *tx, order_ids).await?;
    let charges: Vec<_> = named.iter().flat_map(Named::charge_names).collect();
    let captures = payments::store::captures_known(&mut *tx, order_ids, &charges).await?;
    let payments = payments.into_iter().map(|payment| (payment.id, payment)).collect();
    let misfits: Vec<_> = named.iter().filter_map(|named| named.misfit(&payments)).collect();
    let subjects: Vec<_> = misfits.iter().map(|(_, charge)| &*charge.charge_ref).collect();
    let told = if subjects.is_empty() {
        HashSet::new()
    } else {
        let kind = findings::Kind::UnknownMoney;
        findings::store::told(tx, kind, &subjects).await?.into_iter().collect()
    };
    let misfits = misfits.into_iter();
    let misfits = misfits.map(|(provider, charge)| (provider, charge.charge_ref.clone()));
    Ok(Facts {
        orders: locked.into_iter().map(|order| (order.id, order)).collect(),
        payments,
        reported: misfits.filter(|(_, name)| told.contains(name)).collect(),
        recorded: captures
            .into_iter()
            .map(|capture| (capture.provider, capture.charge_ref))
            .collect(),
    })
}

/// Who gets all that is needed.
pub(in crate::checkout) struct Served {
    pub(in crate::checkout) order_ids: HashSet<OrderId>,
    /// What was taken from others for it.
    pub(in crate::checkout) taken: Vec<Hold>,
}

/// Holds again what the claimants no longer hold, in their order, each whole or not at all, and only
/// as far as their customers may still have it. Where they are short, expired holds are taken over, but
/// for those of the slice's own orders.
pub(in crate::checkout) async fn serve(
    tx: &mut PgConnection,
    stock: &LockedStock,
    claimants: &[OrderId],
    slice_order_ids: &[OrderId],
) -> sqlx::Result<Served> {
    let mut available = stock.available.clone();
    let claims = claimants.iter().copied().zip(missing(&stock.holds, claimants));
    let mut claims: Vec<(OrderId, Demand)> = claims.collect();
    let late = claims.iter().map(|(order_id, lost)| (*order_id, lost));
    let mut allowances = LateAllowances::read(&mut *tx, late).await?;
    // Nobody is taken anything for an order that cannot be served anyway.
    claims.retain(|(order_id, lost)| allowances.allow(*order_id, lost));
    let shortages = shortfall(&available, claims.iter().map(|(_, lost)| lost));
    let mut taken = Vec::new();
    if !shortages.is_empty() {
        taken = holds::store::take_over(tx, &shortages, slice_order_ids).await?;
        for hold in &taken {
            *available.entry(hold.variant_id).or_default() += hold.quantity;
        }
    }
    let mut order_ids = HashSet::with_capacity(claims.len());
    for (order_id, lost) in claims {
        if allowances.allow(order_id, &lost) && allocation::serve(&mut available, &lost).is_ok() {
            allowances.draw(order_id, &lost);
            order_ids.insert(order_id);
        }
    }
    Ok(Served { order_ids, taken })
}

/// Writes the decision and stages what follows from it.
async fn write(
    tx: &mut PgConnection,
    stock: &LockedStock,
    taken: &[Hold],
    decision: Decision,
) -> sqlx::Result<Written> {
    let paid = paid_ids(&decision.paid);
    if !paid.is_empty() {
        let details: Vec<_> = decision.paid.iter().map(|paid| paid.detail.clone()).collect();
        orders::store::transition(&mut *tx, &paid, Event::PaymentSettled, Status::Paid, &details)
            .await?;
    }
    let extended = extend(&mut *tx, &holding_all(stock, &decision.extended)).await?;
    let mut entries = decision.entries;
    entries.extend(extended.iter().map(extension));
    if !entries.is_empty() {
        orders::store::record_events(&mut *tx, &entries).await?;
    }
    move_stock(&mut *tx, stock, taken, &paid).await?;
    if !decision.changes.is_empty() {
        payments::store::set_states(&mut *tx, &decision.changes).await?;
    }
    if !decision.captures.is_empty() {
        payments::store::insert_captures(&mut *tx, &decision.captures).await?;
    }
    let refunds = [&*decision.refunds, &*decision.adopted].concat();
    if !refunds.is_empty() {
        payments::refunds::store::insert(&mut *tx, &refunds).await?;
    }
    if !decision.findings.is_empty() {
        findings::store::open(&mut *tx, &decision.findings).await?;
    }

    let mails: Vec<_> = paid.iter().map(|id| SendOrderConfirmed { order_id: id.uuid() }).collect();
    let mut staged = jobs::stage(&mut *tx, &mails, Delay::NONE).await?;
    staged.merge(jobs::stage(&mut *tx, &decision.declined, Delay::NONE).await?);
    staged.merge(jobs::stage(&mut *tx, &decision.withdrawn, Delay::NONE).await?);
    staged.merge(jobs::stage(&mut *tx, &decision.set_aside, Delay::NONE).await?);
    staged.merge(jobs::stage(&mut *tx, &decision.refunded, Delay::NONE).await?);
    let refund = |refund: &NewRefund| RefundPayment { refund_id: refund.id.uuid() };
    let refunds: Vec<_> = decision.refunds.iter().map(refund).collect();
    staged.merge(jobs::stage(&mut *tx, &refunds, Delay::NONE).await?);
    finish(tx, decision.heard).await?;
    let deadlines = extended.iter().map(|order| order.expires_at).collect();
    Ok(Written { paid: paid.len(), captures: decision.captures, deadlines, staged })
}

fn paid_ids(paid: &[Paid]) -> Vec<OrderId> {
    paid.iter().map(|paid| paid.order_id).collect()
}

/// The orders that still hold all their units: more time is of no use to the others.
fn holding_all(stock: &LockedStock, order_ids: &[OrderId]) -> Vec<OrderId> {
    let lost: Vec<Demand> = missing(&stock.holds, order_ids);
    let kept = order_ids.iter().zip(lost).filter(|(_, lost)| lost.is_empty());
    kept.map(|(order_id, _)| *order_id).collect()
}

/// Moves the deadlines of the orders and of all their holds; returns those that moved.
async fn extend(tx: &mut PgConnection, order_ids: &[OrderId]) -> sqlx::Result<Vec<Extended>> {
    if order_ids.is_empty() {
        return Ok(Vec::new());
    }
    let extended = orders::store::extend_deadlines(&mut *tx, order_ids, EXTENSION).await?;
    if let Some(Extended { expires_at, .. }) = extended.first() {
        // One moment for all of them, counted from the transaction's own.
        let ids: Vec<_> = extended.iter().map(|order| order.id).collect();
        holds::store::extend(tx, &ids, *expires_at).await?;
    }
    Ok(extended)
}

fn extension(order: &Extended) -> Entry {
    let detail = json!({ "expires_at": order.expires_at.format(&Rfc3339).ok() });
    Entry { order_id: order.id, note: Note::DeadlineExtended, detail }
}

/// Sells what the paid orders hold, or hold again, and books what was taken from others for it.
pub(in crate::checkout) async fn move_stock(
    tx: &mut PgConnection,
    stock: &LockedStock,
    taken: &[Hold],
    paid: &[OrderId],
) -> sqlx::Result<()> {
    let paid_set: HashSet<_> = paid.iter().collect();
    let sold = stock.holds.iter().filter(|kept| paid_set.contains(&kept.hold.order_id));
    let movements: Vec<Movement> = taken
        .iter()
        .map(|hold| moved(hold, Account::Held, Account::Available, Cause::HoldTaken))
        .chain(sold.map(|kept| {
            let from = if kept.is_held() { Account::Held } else { Account::Available };
            moved(&kept.hold, from, Account::Sold, Cause::OrderPaid)
        }))
        .collect();
    if movements.is_empty() {
        return Ok(());
    }
    holds::store::sell(&mut *tx, paid).await?;
    holds::store::change_counters(&mut *tx, &movements).await?;
    holds::store::record_movements(tx, &movements).await
}

/// Notes what became of the webhooks.
async fn finish(tx: &mut PgConnection, heard: Vec<(EventId, Outcome)>) -> sqlx::Result<()> {
    if !heard.is_empty() {
        inbox::store::finish(tx, &heard).await?;
    }
    Ok(())
}
