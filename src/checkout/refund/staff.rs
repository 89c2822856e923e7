//! Refunds that a member of staff decides, and what is shown of an order's refunds.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CheckoutError, refundable, request};
use crate::{
    audit,
    context::Context,
    idempotency::{self, ClaimKey, Fingerprint, Key, KeyError, NewRecord},
    inventory::holds::{self, Cause as Movement, Hold},
    kernel::{Money, OrderId, OwnerId, RefundId, UserId, VariantId, rerun},
    orders::{self, OrderError},
    payments::{
        self, Fate,
        refunds::{
            Cause, Refund, State,
            store::{self, NewRefund, Restocked},
        },
        store::Capture,
    },
};

/// A member of staff's wish to give money back. Its id is fixed beforehand, so that it can be tried again.
#[derive(Debug, Clone)]
pub struct RefundOrder {
    pub refund_id: RefundId,
    pub order_id: OrderId,
    pub staff_id: UserId,
    pub key: Key,
    /// All that is left, where no amount is named.
    pub amount: Option<Money>,
    /// Of which money; without it, of that which paid the order.
    pub capture_id: Option<Uuid>,
    pub reason: String,
    /// The units that go back on sale, as the request lists them.
    pub restock: Vec<(VariantId, i64)>,
    /// Names the request in the audit log.
    pub request_id: Option<String>,
}

impl RefundOrder {
    const OPERATION: &'static str = "refundOrder";

    fn claim(&self) -> ClaimKey<'_> {
        let owner_id = self.staff_id.into();
        ClaimKey { owner_id, operation: Self::OPERATION, key: &self.key }
    }

    fn fingerprint(&self) -> Fingerprint {
        let amount = self.amount.map(|amount| (amount.minor(), amount.currency().code()));
        let restock: Vec<_> =
            self.restock.iter().map(|(variant_id, units)| (variant_id.uuid(), units)).collect();
        let order_id = self.order_id.uuid();
        let wish = json!([order_id, amount, self.capture_id, self.reason, restock]);
        Fingerprint::of(wish.to_string().as_bytes())
    }

    /// The units wanted of each variant.
    fn units(&self) -> BTreeMap<VariantId, i64> {
        let mut units = BTreeMap::new();
        for (variant_id, quantity) in &self.restock {
            *units.entry(*variant_id).or_default() += quantity;
        }
        units
    }
}

/// A refund of an order, and what went back on sale with it.
#[derive(Debug, Clone)]
pub struct OrderRefund {
    pub refund: Refund,
    pub restocked: Vec<Restocked>,
    /// An earlier request with the same key wanted it.
    pub replayed: bool,
}

/// Gives money of the order back, because a member of staff says so, and puts the named units on sale again.
///
/// The refund, its units, the key and the entry in the audit log commit together; a job has the provider
/// make the refund. A repeat with the same key finds the first one.
pub async fn refund_order(cx: &Context, wish: &RefundOrder) -> Result<OrderRefund, CheckoutError> {
    let (id, replayed) = rerun(|| write(cx, wish), CheckoutError::database).await?;
    let known = order_refunds(cx, wish.order_id, None).await?;
    let found = known.into_iter().find(|known| known.refund.id == id);
    let found = found.ok_or(CheckoutError::UnreadableAnswer)?;
    Ok(OrderRefund { replayed, ..found })
}

/// All refunds of the order, the oldest first; of the owner's order where an owner asks.
pub async fn order_refunds(
    cx: &Context,
    order_id: OrderId,
    owner_id: Option<OwnerId>,
) -> Result<Vec<OrderRefund>, CheckoutError> {
    if let Some(owner_id) = owner_id {
        orders::find_order(&cx.db, order_id, owner_id).await?;
    } else if orders::store::standings(&cx.db, &[order_id]).await?.is_empty() {
        return Err(OrderError::NotFound.into());
    }
    let refunds = store::of_orders(&cx.db, &[order_id]).await?;
    let restocks = store::restocks_of(&cx.db, order_id).await?;
    Ok(refunds
        .into_iter()
        .map(|refund| {
            let of_this = restocks.iter().filter(|(id, _)| *id == refund.id);
            let restocked = of_this.map(|(_, units)| *units).collect();
            OrderRefund { refund, restocked, replayed: false }
        })
        .collect())
}

async fn write(cx: &Context, wish: &RefundOrder) -> Result<(RefundId, bool), CheckoutError> {
    let mut tx = cx.db.begin().await?;
    match attempt(&mut tx, wish).await {
        Ok((id, staged)) => {
            tx.commit().await.map_err(CheckoutError::of_commit)?;
            cx.relay.wake(staged);
            Ok((id, id != wish.refund_id))
        }
        Err(error) => {
            // Not left to the drop, which would keep the key claimed while the next attempt asks for it.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

async fn attempt(
    tx: &mut PgConnection,
    wish: &RefundOrder,
) -> Result<(RefundId, jobs::Staged), CheckoutError> {
    if idempotency::claim(&mut *tx, &[wish.claim()]).await? != [true] {
        return Err(KeyError::InFlight.into());
    }
    // A statement of its own: only one that starts after the claim sees what the last claimant committed.
    let recorded = idempotency::find(&mut *tx, &[wish.claim()]).await?;
    if let Some(recorded) = recorded.into_iter().flatten().next() {
        recorded.check(wish.fingerprint())?;
        return Ok((recorded.subject_id.into(), jobs::Staged::default()));
    }
    if orders::store::lock(&mut *tx, &[wish.order_id]).await?.is_empty() {
        return Err(CheckoutError::NoSuchOrder);
    }
    let units = restock(&mut *tx, wish).await?;
    let captures = payments::store::captures_of(&mut *tx, &[wish.order_id]).await?;
    let refunds = store::of_orders(&mut *tx, &[wish.order_id]).await?;
    let (capture, left) = choose(wish, &captures, &refunds)?;
    let new = part_of(wish, capture, left)?;

    let movements: Vec<_> = units
        .iter()
        .map(|units| Hold {
            order_id: wish.order_id,
            variant_id: units.variant_id,
            quantity: units.quantity,
        })
        .collect();
    let actor = Some(wish.staff_id.uuid());
    holds::put_back(&mut *tx, &movements, Movement::OrderRefunded, actor).await?;
    let entry = entry(wish, &new, left, &units);
    let staged = request(&mut *tx, &[new]).await?;
    if !units.is_empty() {
        store::insert_restocks(&mut *tx, wish.order_id, wish.refund_id, &units).await?;
    }
    audit::record(&mut *tx, &entry).await?;
    let record = NewRecord {
        claim: wish.claim(),
        fingerprint: wish.fingerprint(),
        subject_id: wish.refund_id.uuid(),
        answer: json!({}),
    };
    idempotency::record(tx, &[record]).await?;
    Ok((wish.refund_id, staged))
}

/// Locks the stock of what is to go back on sale, and refuses more than is sold and was not put back before.
async fn restock(
    tx: &mut PgConnection,
    wish: &RefundOrder,
) -> Result<Vec<Restocked>, CheckoutError> {
    let wanted = wish.units();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let variants: Vec<_> = wanted.keys().copied().collect();
    holds::store::lock_stock(&mut *tx, &variants).await?;
    // A statement of its own: only one that starts after the lock sees what the last holder did.
    let kept = holds::store::of_orders(&mut *tx, &[wish.order_id]).await?;
    let restocked = store::restocked(tx, wish.order_id).await?;
    let mut left = still_sold(&kept, &restocked);
    let mut refused = Vec::new();
    for (line, (variant_id, quantity)) in wish.restock.iter().enumerate() {
        let units = left.entry(*variant_id).or_default();
        if quantity > units {
            refused.push((line, *units));
        } else {
            *units -= quantity;
        }
    }
    if !refused.is_empty() {
        return Err(CheckoutError::RestockTooLarge(refused));
    }
    let restocked = |(variant_id, quantity)| Restocked { variant_id, quantity };
    Ok(wanted.into_iter().map(restocked).collect())
}

/// The units of each variant that are sold to the order and did not go back on sale.
pub(in crate::checkout) fn still_sold(
    kept: &[holds::Kept],
    restocked: &[Restocked],
) -> BTreeMap<VariantId, i64> {
    let sold = kept.iter().filter(|kept| kept.state == holds::State::Sold);
    let mut units: BTreeMap<_, _> =
        sold.map(|kept| (kept.hold.variant_id, kept.hold.quantity)).collect();
    for back in restocked {
        if let Some(units) = units.get_mut(&back.variant_id) {
            *units -= back.quantity;
        }
    }
    units
}

/// The money that is meant, and what is left of it to go back: that which paid the order, or else what
/// has to go back anyway. Of money that nobody has decided about yet, nothing goes back here.
fn choose<'a>(
    wish: &RefundOrder,
    captures: &'a [Capture],
    refunds: &[Refund],
) -> Result<(&'a Capture, i64), CheckoutError> {
    let left = |capture: &'a Capture| (capture, refundable(capture, refunds));
    let decided = |capture: &&Capture| match capture.fate {
        Fate::Accepted | Fate::RefundDue(_) => true,
        Fate::Quarantined(_) => false,
    };
    if let Some(id) = wish.capture_id {
        let named = captures.iter().filter(decided).find(|capture| capture.id == id);
        return named.map(left).ok_or(CheckoutError::NothingToRefund);
    }
    let accepted = captures.iter().find(|capture| capture.fate == Fate::Accepted);
    let due = || captures.iter().filter(decided).map(left).find(|(_, left)| *left > 0);
    accepted.map(left).or_else(due).ok_or(CheckoutError::NothingToRefund)
}

/// The refund that is wanted, if that much is left.
fn part_of(wish: &RefundOrder, capture: &Capture, left: i64) -> Result<NewRefund, CheckoutError> {
    let amount_minor = match wish.amount {
        None if left == 0 => return Err(CheckoutError::NothingToRefund),
        None => left,
        Some(amount) => {
            let fits = amount.currency().code() == capture.currency
                && (1..=left).contains(&amount.minor());
            if !fits {
                let currency = capture.currency.clone();
                return Err(CheckoutError::RefundTooLarge { left, currency });
            }
            amount.minor()
        }
    };
    Ok(NewRefund {
        id: wish.refund_id,
        capture_id: capture.id,
        order_id: wish.order_id,
        provider: capture.provider,
        amount_minor,
        currency: capture.currency.clone(),
        state: State::Requested,
        cause: Cause::Staff,
        reason: Some(wish.reason.clone()),
        requested_by: Some(wish.staff_id),
        provider_ref: None,
    })
}

/// What the audit log says of it.
fn entry(wish: &RefundOrder, new: &NewRefund, left: i64, units: &[Restocked]) -> audit::Entry {
    let restock: Vec<_> = units
        .iter()
        .map(|units| json!({ "variant_id": units.variant_id.uuid(), "quantity": units.quantity }))
        .collect();
    audit::Entry {
        actor_id: wish.staff_id,
        action: RefundOrder::OPERATION.to_owned(),
        subject: format!("order:{}", wish.order_id),
        before: Some(json!({ "capture_id": new.capture_id, "refundable": left })),
        after: Some(json!({
            "refund_id": new.id.uuid(),
            "capture_id": new.capture_id,
            "amount": new.amount_minor,
            "currency": new.currency,
            "reason": new.reason,
            "restock": restock,
            "refundable": left - new.amount_minor,
        })),
        request_id: wish.request_id.clone(),
    }
}
