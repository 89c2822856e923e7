//! Cancelling an order, paid or not.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{
    CheckoutError, refund, released_detail,
    withdraw::{Withdrawal, withdraw},
};
use crate::{
    context::Context,
    inventory::holds::{self, Cause, Hold},
    kernel::{OrderId, OwnerId, RefundId, rerun},
    orders::{self, Event, Status},
    payments::{
        self, Fate, Payment, State, disputes,
        refunds::{self, store::NewRefund},
    },
};

/// How long providers are waited for in all: less than the edge waits.
const WITHDRAW_MAX: Duration = Duration::from_secs(9);

/// How many attempts of other tabs are withdrawn, before the shopper is told that a payment is under way.
const ROUNDS_MAX: usize = 3;

/// Gives up the owner's order and puts its stock back on sale.
///
/// An attempt to pay it is withdrawn at its provider first: an order that may yet be paid is not
/// cancelled. Of one that is paid, whatever of the money did not go back before goes back now, and so do
/// the units; that is refused where staff gave all of it back, or it is under dispute or was lost in one. A
/// repeat changes nothing. An order whose deadline was enforced is refused, and one that was shipped.
pub async fn cancel_order(
    cx: &Context,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<(), CheckoutError> {
    let until = Instant::now() + WITHDRAW_MAX;
    for _ in 0..ROUNDS_MAX {
        let cancelled = rerun(|| cancel(cx, id, owner_id), CheckoutError::database).await?;
        let Some(attempt) = cancelled else { return Ok(()) };
        let order = orders::find_any_order(&cx.db, id).await?;
        match withdraw(cx, &attempt, &order.number, until).await? {
            Withdrawal::Over => {}
            Withdrawal::UnderWay => break,
            Withdrawal::Unknown(error) => return Err(error.into()),
        }
    }
    Err(CheckoutError::PaymentInProgress)
}

/// Cancels the order, unless an attempt to pay it is under way, which is returned instead.
async fn cancel(
    cx: &Context,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<Option<Payment>, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    match give_up(&mut tx, id, owner_id).await {
        Ok(cancelled) => {
            tx.commit().await.map_err(CheckoutError::of_commit)?;
            match cancelled {
                Cancelled::Not(attempt) => Ok(Some(attempt)),
                Cancelled::Done(staged) => {
                    cx.relay.wake(staged);
                    Ok(None)
                }
            }
        }
        Err(error) => {
            // Not left to the drop, which would keep the order locked while the next attempt asks for it.
            let _ = tx.rollback().await;
            Err(error)
        }
    }
}

/// What a transaction came to.
enum Cancelled {
    Done(jobs::Staged),
    /// Nothing was written: this attempt has to be withdrawn first.
    Not(Payment),
}

async fn give_up(
    tx: &mut PgConnection,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<Cancelled, CheckoutError> {
    let order = orders::store::lock_owned(&mut *tx, id, owner_id)
        .await?
        .ok_or(CheckoutError::NoSuchOrder)?;
    if order.status == Status::Cancelled {
        return Ok(Cancelled::Done(jobs::Staged::default()));
    }
    if let Some(status) = order.status.on(Event::CancelledAfterPayment) {
        return give_back(tx, id, status).await.map(Cancelled::Done);
    }
    let status =
        order.status.on(Event::Cancelled).ok_or(CheckoutError::NotCancellable(order.status))?;
    // Under the order's lock nobody opens another. Not locked: the holds' turn comes before theirs.
    let attempts = payments::store::of_order(&mut *tx, id).await?;
    let may_be_paid = |state: State| state.is_open() || state == State::Cancelling;
    if let Some(attempt) = attempts.into_iter().find(|attempt| may_be_paid(attempt.state)) {
        return Ok(Cancelled::Not(attempt));
    }
    let released = holds::release(&mut *tx, &[id], Cause::OrderCancelled).await?;
    let detail = released_detail(&released, id);
    orders::store::transition(tx, &[id], Event::Cancelled, status, &[detail]).await?;
    Ok(Cancelled::Done(jobs::Staged::default()))
}

/// Undoes a paid order: its money goes back, and its units are on sale again.
async fn give_back(
    tx: &mut PgConnection,
    id: OrderId,
    status: Status,
) -> Result<jobs::Staged, CheckoutError> {
    let mut captures = payments::store::captures_of(&mut *tx, &[id]).await?;
    captures.retain(|capture| capture.fate == Fate::Accepted);
    let disputes = disputes::store::of_orders(&mut *tx, &[id]).await?;
    let has_paid = |capture_id| captures.iter().any(|capture| capture.id == capture_id);
    let is_claimed = |dispute: &disputes::Dispute| match dispute.state {
        disputes::State::Open | disputes::State::Lost => has_paid(dispute.capture_id),
        disputes::State::Won | disputes::State::Closed => false,
    };
    if disputes.iter().any(is_claimed) {
        return Err(CheckoutError::Disputed);
    }
    let known = refunds::store::of_orders(&mut *tx, &[id]).await?;
    let due: Vec<_> = captures
        .iter()
        .map(|capture| NewRefund {
            id: RefundId::generate(),
            capture_id: capture.id,
            order_id: id,
            provider: capture.provider,
            amount_minor: refund::refundable(capture, &known),
            currency: capture.currency.clone(),
            state: refunds::State::Requested,
            cause: refunds::Cause::Cancelled,
            reason: None,
            requested_by: None,
            provider_ref: None,
        })
        .filter(|due| due.amount_minor > 0)
        .collect();
    // Staff who gave it all back have decided about the units as well; the provider's dashboard has not.
    let is_decided = |refund: &refunds::Refund| {
        has_paid(refund.capture_id)
            && refund.cause == refunds::Cause::Staff
            && refund.state != refunds::State::Failed
    };
    if due.is_empty() && known.iter().any(is_decided) {
        return Err(CheckoutError::NothingToRefund);
    }
    let units = take_back(&mut *tx, id).await?;
    let detail = released_detail(&units, id);
    let event = Event::CancelledAfterPayment;
    orders::store::transition(&mut *tx, &[id], event, status, &[detail]).await?;
    Ok(refund::request(tx, &due).await?)
}

/// Puts what was sold to the order back on sale, but for what went back before; returns what went back.
async fn take_back(tx: &mut PgConnection, id: OrderId) -> sqlx::Result<Vec<Hold>> {
    let variants = holds::store::variants_of(&mut *tx, &[id]).await?;
    holds::store::lock_stock(&mut *tx, &variants).await?;
    // A statement of its own: only one that starts after the lock sees what the last holder did.
    let kept = holds::store::of_orders(&mut *tx, &[id]).await?;
    let restocked = refunds::store::restocked(&mut *tx, id).await?;
    let units: Vec<_> = refund::still_sold(&kept, &restocked)
        .into_iter()
        .filter(|(_, quantity)| *quantity > 0)
        .map(|(variant_id, quantity)| Hold { order_id: id, variant_id, quantity })
        .collect();
    holds::store::unsell(&mut *tx, id).await?;
    holds::put_back(tx, &units, Cause::OrderCancelled, None).await?;
    Ok(units)
}
