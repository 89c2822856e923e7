//! Settling what a provider says of a refund: the one path for our own questions, webhooks and lists.

use jobs::{Delay, Staged, notifications::SendRefundMade};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    super::events::{lock_order_of, money_under},
    CheckoutError, detail, refundable,
};
use crate::{
    context::Context,
    kernel::{RefundId, failpoint, rerun},
    orders::{self, Note, store::Entry},
    payments::{
        Provider, findings,
        findings::store::NewFinding,
        gateway::{RefundAtProvider, RefundStanding},
        refunds::{Cause, Refund, State, store, store::NewRefund},
        store::Capture,
    },
};

/// What became of a provider's word on a refund or a dispute; of several, the last counts most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    /// It is of no money of ours. Nothing was written.
    Foreign,
    /// It said nothing new.
    Known,
    /// It was acted on.
    New,
}

/// Acts on how a refund stands at its provider: ours, or one that was made in its dashboard, which is
/// taken over once.
///
/// It only moves forward, so the same word twice or late changes nothing.
pub async fn settle_refund(
    cx: &Context,
    provider: Provider,
    news: &RefundAtProvider,
) -> Result<Heard, CheckoutError> {
    let capture = money_under(cx, provider, &news.charge_ref).await?;
    let Some(capture) = capture.filter(|_| news.amount_minor > 0) else {
        return Ok(Heard::Foreign);
    };
    rerun(|| settle(cx, &capture, news), CheckoutError::database).await
}

async fn settle(
    cx: &Context,
    capture: &Capture,
    news: &RefundAtProvider,
) -> Result<Heard, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    let staged = match hear(&mut tx, capture, news).await {
        Ok(staged) => staged,
        Err(error) => {
            // Not left to the drop, which would keep the order locked while the next attempt asks for it.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    };
    let Some(staged) = staged else {
        tx.rollback().await?;
        return Ok(Heard::Known);
    };
    failpoint::pass("settle-refund.before-commit");
    tx.commit().await.map_err(CheckoutError::of_commit)?;
    failpoint::pass("settle-refund.after-commit");
    cx.relay.wake(staged);
    if let RefundStanding::Failed { .. } = news.standing {
        tracing::error!(
            order.id = %capture.order_id,
            refund.provider_ref = news.provider_ref,
            "a refund failed: the money is still here, somebody has to look"
        );
    }
    Ok(Heard::New)
}

/// Writes what the news changes within the transaction; `None` where it changes nothing.
async fn hear(
    tx: &mut PgConnection,
    capture: &Capture,
    news: &RefundAtProvider,
) -> sqlx::Result<Option<Staged>> {
    let capture = &lock_order_of(&mut *tx, capture).await?;
    let refunds = store::of_orders(&mut *tx, &[capture.order_id]).await?;
    let known = refunds.iter().find(|refund| is_meant(refund, capture, news));
    let ours = refunds.iter().find(|refund| news.refund_id == Some(refund.id.uuid()));
    let next = match news.standing {
        RefundStanding::Pending => State::Pending,
        RefundStanding::Succeeded => State::Succeeded,
        RefundStanding::Failed { .. } => State::Failed,
    };
    match known {
        Some(refund) if refund.state.allows(next) => {
            conclude(tx, capture, refund, next, news).await.map(Some)
        }
        Some(_) => Ok(None),
        None => {
            let adopted = adopt(&mut *tx, capture, news).await?;
            if next != State::Failed
                && let Some(taken_for_failed) = ours
            {
                // People need not look: it was made all the same.
                let subject = taken_for_failed.id.to_string();
                findings::store::settle(&mut *tx, findings::Kind::RefundFailed, &subject).await?;
            }
            if next == State::Pending {
                return Ok(Some(Staged::default()));
            }
            conclude(tx, capture, &adopted, next, news).await.map(Some)
        }
    }
}

/// Whether the news is of the refund. One that has another name there, or that was refused, is not
/// meant even where its id was copied.
fn is_meant(refund: &Refund, capture: &Capture, news: &RefundAtProvider) -> bool {
    if refund.provider != capture.provider {
        return false;
    }
    match &refund.provider_ref {
        Some(known) => *known == news.provider_ref,
        None => {
            refund.capture_id == capture.id
                && refund.state == State::Requested
                && news.refund_id == Some(refund.id.uuid())
        }
    }
}

/// Takes over a refund that somebody made at the provider.
async fn adopt(
    tx: &mut PgConnection,
    capture: &Capture,
    news: &RefundAtProvider,
) -> sqlx::Result<Refund> {
    let new = NewRefund {
        id: RefundId::generate(),
        capture_id: capture.id,
        order_id: capture.order_id,
        provider: capture.provider,
        amount_minor: news.amount_minor,
        // Of the same money; some answers lack it.
        currency: capture.currency.clone(),
        state: State::Pending,
        cause: Cause::Provider,
        reason: None,
        requested_by: None,
        provider_ref: Some(news.provider_ref.clone()),
    };
    let id = new.id;
    store::insert(&mut *tx, &[new]).await?;
    let adopted = store::find(&mut *tx, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let entry = entry(&adopted, Note::RefundRequested);
    orders::store::record_events(tx, &[entry]).await?;
    Ok(adopted)
}

/// Writes where the refund stands now, and what follows from that.
async fn conclude(
    tx: &mut PgConnection,
    capture: &Capture,
    refund: &Refund,
    next: State,
    news: &RefundAtProvider,
) -> sqlx::Result<Staged> {
    let failure = match &news.standing {
        RefundStanding::Failed { reason } => reason.as_deref(),
        RefundStanding::Pending | RefundStanding::Succeeded => None,
    };
    let name = Some(&*news.provider_ref);
    match next {
        State::Requested | State::Pending => {
            store::set_state(&mut *tx, refund.id, next, name, None).await?;
            is_under_way(tx, refund.id).await?;
            Ok(Staged::default())
        }
        State::Succeeded => {
            store::set_state(&mut *tx, refund.id, next, name, None).await?;
            orders::store::record_events(&mut *tx, &[entry(refund, Note::RefundSucceeded)]).await?;
            is_under_way(&mut *tx, refund.id).await?;
            forget_failures(&mut *tx, capture).await?;
            let (order_id, refund_id) = (refund.order_id.uuid(), refund.id.uuid());
            jobs::stage(tx, &[SendRefundMade { order_id, refund_id }], Delay::NONE).await
        }
        State::Failed => {
            fail(tx, refund, name, failure).await?;
            Ok(Staged::default())
        }
    }
}

/// Notes that the money is still here, and tells people. The order is locked.
pub(super) async fn fail(
    tx: &mut PgConnection,
    refund: &Refund,
    provider_ref: Option<&str>,
    failure: Option<&str>,
) -> sqlx::Result<()> {
    store::set_state(&mut *tx, refund.id, State::Failed, provider_ref, failure).await?;
    let mut entry = entry(refund, Note::RefundFailed);
    entry.detail["reason"] = json!(failure);
    let finding = NewFinding {
        kind: findings::Kind::RefundFailed,
        subject: refund.id.to_string(),
        order_id: Some(refund.order_id),
        detail: json!({
            "capture_id": refund.capture_id,
            "provider": refund.provider.name(),
            "provider_ref": provider_ref.or(refund.provider_ref.as_deref()),
            "amount": refund.amount_minor,
            "currency": refund.currency,
            "reason": failure,
        }),
    };
    orders::store::record_events(&mut *tx, &[entry]).await?;
    is_under_way(&mut *tx, refund.id).await?;
    findings::store::open(tx, &[finding]).await?;
    Ok(())
}

/// Closes what said that refunds of the capture failed, where all of it goes back in other ways: should one
/// of those fail, that is told by itself.
pub(super) async fn forget_failures(tx: &mut PgConnection, capture: &Capture) -> sqlx::Result<()> {
    let refunds = store::of_orders(&mut *tx, &[capture.order_id]).await?;
    if refundable(capture, &refunds) > 0 {
        return Ok(());
    }
    let is_failed =
        |refund: &&Refund| refund.capture_id == capture.id && refund.state == State::Failed;
    for failed in refunds.iter().filter(is_failed) {
        let subject = failed.id.to_string();
        findings::store::settle(&mut *tx, findings::Kind::RefundFailed, &subject).await?;
    }
    Ok(())
}

/// Closes what said that the refund is withheld.
pub(super) async fn is_under_way(tx: &mut PgConnection, id: RefundId) -> sqlx::Result<()> {
    findings::store::settle(tx, findings::Kind::RefundWithheld, &id.to_string()).await
}

pub(super) fn entry(refund: &Refund, note: Note) -> Entry {
    Entry { order_id: refund.order_id, note, detail: detail(refund) }
}
