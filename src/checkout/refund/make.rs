//! Making a refund: it is asked for under its own key, until the provider says what came of it.

use jobs::Staged;
use serde_json::json;
use sqlx::PgConnection;

use super::{
    CheckoutError, is_disputed,
    news::{entry, fail, forget_failures, is_under_way, settle_refund},
    request,
};
use crate::{
    clients::{CallError, refusal},
    context::Context,
    kernel::{RefundId, failpoint, rerun},
    orders::{self, Note},
    payments::{
        self, PaymentError, disputes, findings,
        findings::store::NewFinding,
        gateway::{self, KEY_EXPIRED, RefundRequest},
        refunds::{Cause, Refund, State, store, store::NewRefund},
        store::Capture,
    },
};

/// Has the provider send the money back, or asks it how that stands.
///
/// While the money is under dispute, only a refund that a person wants is made; another is withheld,
/// and asked for again when the dispute ends. What the provider refuses for good has failed.
pub async fn refund_payment(cx: &Context, id: RefundId) -> Result<(), CheckoutError> {
    let refund = store::find(&cx.db, id).await?.ok_or(CheckoutError::NoSuchRefund)?;
    match refund.state {
        State::Succeeded | State::Failed => Ok(()),
        State::Pending => look(cx, &refund).await,
        State::Requested => make(cx, &refund).await,
    }
}

/// Asks the provider how a refund stands that it has.
pub(in crate::checkout) async fn look(cx: &Context, refund: &Refund) -> Result<(), CheckoutError> {
    let Some(name) = &refund.provider_ref else { return Ok(()) };
    if let Some(news) = gateway::look_at_refund(cx, refund.provider, name).await? {
        settle_refund(cx, refund.provider, &news).await?;
    }
    Ok(())
}

async fn make(cx: &Context, refund: &Refund) -> Result<(), CheckoutError> {
    let withheld = Unmade::Withheld { told_by_provider: false };
    if must_wait(cx, refund).await? && note(cx, refund.id, withheld).await? {
        return Ok(());
    }
    let captures = payments::store::captures_of(&cx.db, &[refund.order_id]).await?;
    let capture = captures.into_iter().find(|capture| capture.id == refund.capture_id);
    let capture = capture.ok_or(CheckoutError::NoSuchRefund)?;
    let key = refund.provider_key();
    let request = RefundRequest {
        provider: refund.provider,
        refund_id: refund.id.uuid(),
        charge_ref: &capture.charge_ref,
        amount_minor: refund.amount_minor,
        currency: &refund.currency,
        key: &key,
        created_at: refund.created_at,
    };
    failpoint::pass("refund.before-call");
    let answer = gateway::refund(cx, &request).await;
    failpoint::pass("refund.after-call");
    match answer {
        Ok(news) => settle_refund(cx, refund.provider, &news).await.map(drop),
        Err(PaymentError::Provider(error)) => follow(cx, refund, &capture, error).await,
        Err(error) => Err(error.into()),
    }
}

/// Does what follows from a provider's no, or from its silence.
async fn follow(
    cx: &Context,
    refund: &Refund,
    capture: &Capture,
    error: CallError,
) -> Result<(), CheckoutError> {
    if gateway::is_key_spent(refund.provider, &error) {
        store::next_key(&cx.db, refund.id, refund.key_generation).await?;
    }
    let unmade = match Refusal::of(&error, refund.cause) {
        None => return Err(PaymentError::from(error).into()),
        Some(Refusal::Disputed) => Unmade::Withheld { told_by_provider: true },
        Some(Refusal::TooLate) => Unmade::TooLate { next: RefundId::generate() },
        Some(Refusal::Final(code)) => {
            tracing::error!(refund.id = %refund.id, %error, "a provider refused a refund");
            take_over_others(cx, refund, &capture.charge_ref).await?;
            return note(cx, refund.id, Unmade::Refused { code: &code, capture }).await.map(drop);
        }
    };
    note(cx, refund.id, unmade).await.map(drop)
}

/// What a provider's definite no means for a refund.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// A dispute that nobody told us of is under way.
    Disputed,
    /// Its key may be forgotten, and it was not made under it.
    TooLate,
    /// It will never be made.
    Final(String),
}

impl Refusal {
    /// `None` where the provider may say something else next time: also one that does not know us says
    /// nothing of the refund.
    fn of(error: &CallError, cause: Cause) -> Option<Self> {
        let code = match error {
            CallError::Unknown { .. }
            | CallError::Busy { .. }
            | CallError::Rejected { status: 401 | 403, .. } => return None,
            CallError::Declined { code } => code.clone(),
            CallError::Rejected { status, code } => {
                code.clone().unwrap_or_else(|| format!("status {status}"))
            }
        };
        Some(match &*code {
            refusal::DISPUTED if cause != Cause::Staff => Self::Disputed,
            KEY_EXPIRED => Self::TooLate,
            _ => Self::Final(code),
        })
    }
}

/// Whether a dispute keeps the refund waiting.
async fn must_wait(cx: &Context, refund: &Refund) -> Result<bool, CheckoutError> {
    if refund.cause == Cause::Staff {
        return Ok(false);
    }
    let disputes = disputes::store::of_orders(&cx.db, &[refund.order_id]).await?;
    Ok(is_disputed(&disputes, refund.capture_id))
}

/// The provider's books say what was sent back in place of ours.
async fn take_over_others(
    cx: &Context,
    refund: &Refund,
    charge_ref: &str,
) -> Result<(), CheckoutError> {
    for news in gateway::refunds_of(cx, refund.provider, charge_ref).await? {
        settle_refund(cx, refund.provider, &news).await?;
    }
    Ok(())
}

/// What is written of a refund that was not made.
#[derive(Debug, Clone, Copy)]
enum Unmade<'a> {
    /// It waits while the money is under dispute, as we or as the provider knows.
    Withheld { told_by_provider: bool },
    /// The provider will never make it.
    Refused { code: &'a str, capture: &'a Capture },
    /// Another one, with a key of its own, takes its place.
    TooLate { next: RefundId },
}

/// Writes it, unless the refund was made meanwhile; `false` where there was nothing to write.
async fn note(cx: &Context, id: RefundId, unmade: Unmade<'_>) -> Result<bool, CheckoutError> {
    rerun(|| note_once(cx, id, unmade), CheckoutError::database).await
}

async fn note_once(cx: &Context, id: RefundId, unmade: Unmade<'_>) -> Result<bool, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    match write(&mut tx, id, unmade).await {
        Ok(staged) => {
            tx.commit().await.map_err(CheckoutError::of_commit)?;
            let is_written = staged.is_some();
            cx.relay.wake(staged.unwrap_or_default());
            Ok(is_written)
        }
        Err(error) => {
            // Not left to the drop, which would keep the order locked while the next attempt asks for it.
            let _ = tx.rollback().await;
            Err(error.into())
        }
    }
}

async fn write(
    tx: &mut PgConnection,
    id: RefundId,
    unmade: Unmade<'_>,
) -> sqlx::Result<Option<Staged>> {
    let refund = store::find(&mut *tx, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    orders::store::lock(&mut *tx, &[refund.order_id]).await?;
    // A statement of its own: only one that starts after the lock sees what the last holder did.
    let refund = store::find(&mut *tx, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    if refund.state != State::Requested {
        return Ok(None);
    }
    match unmade {
        Unmade::Withheld { told_by_provider } => {
            let disputes = disputes::store::of_orders(&mut *tx, &[refund.order_id]).await?;
            let is_open = is_disputed(&disputes, refund.capture_id);
            if !told_by_provider && !is_open {
                return Ok(None);
            }
            let is_lost = |dispute: &disputes::Dispute| {
                dispute.capture_id == refund.capture_id && dispute.state == disputes::State::Lost
            };
            if !is_open && disputes.iter().any(is_lost) {
                // The shopper has the money already.
                fail(tx, &refund, None, Some(refusal::DISPUTED)).await?;
                return Ok(Some(Staged::default()));
            }
            if withhold(&mut *tx, &refund, "disputed").await? {
                let entry = entry(&refund, Note::RefundWithheld);
                orders::store::record_events(tx, &[entry]).await?;
            }
            Ok(Some(Staged::default()))
        }
        Unmade::Refused { code, capture } => {
            fail(&mut *tx, &refund, None, Some(code)).await?;
            forget_failures(tx, capture).await?;
            Ok(Some(Staged::default()))
        }
        Unmade::TooLate { next } => Ok(Some(replace(tx, &refund, next).await?)),
    }
}

/// Tells people of a refund that stays where it is; `false` where they were told and it stayed there.
async fn withhold(tx: &mut PgConnection, refund: &Refund, reason: &str) -> sqlx::Result<bool> {
    let finding = NewFinding {
        kind: findings::Kind::RefundWithheld,
        subject: refund.id.to_string(),
        order_id: Some(refund.order_id),
        detail: json!({
            "capture_id": refund.capture_id,
            "provider": refund.provider.name(),
            "amount": refund.amount_minor,
            "currency": refund.currency,
            "reason": reason,
        }),
    };
    // What kept it before is over.
    findings::store::settle_others(&mut *tx, finding.kind, &finding.subject, reason).await?;
    Ok(findings::store::open(tx, &[finding]).await? > 0)
}

/// Puts another refund in the place of this one. People are told: it was not made for as long as a key
/// lasts; but not where a dispute kept it, of which they were told.
async fn replace(tx: &mut PgConnection, refund: &Refund, next: RefundId) -> sqlx::Result<Staged> {
    store::set_state(&mut *tx, refund.id, State::Failed, None, Some(KEY_EXPIRED)).await?;
    let (kind, subject) = (findings::Kind::RefundWithheld, refund.id.to_string());
    let was_disputed =
        findings::store::told_otherwise(&mut *tx, kind, &subject, KEY_EXPIRED).await?;
    is_under_way(&mut *tx, refund.id).await?;
    if !was_disputed {
        let mut failed = entry(refund, Note::RefundFailed);
        failed.detail["reason"] = json!(KEY_EXPIRED);
        orders::store::record_events(&mut *tx, &[failed]).await?;
    }
    let new = NewRefund {
        id: next,
        capture_id: refund.capture_id,
        order_id: refund.order_id,
        provider: refund.provider,
        amount_minor: refund.amount_minor,
        currency: refund.currency.clone(),
        state: State::Requested,
        cause: refund.cause,
        reason: refund.reason.clone(),
        requested_by: refund.requested_by,
        provider_ref: None,
    };
    let staged = request(&mut *tx, &[new]).await?;
    if !was_disputed {
        let next = store::find(&mut *tx, next).await?.ok_or(sqlx::Error::RowNotFound)?;
        withhold(tx, &next, KEY_EXPIRED).await?;
    }
    Ok(staged)
}
