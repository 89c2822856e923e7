//! Disputes: what follows when a shopper's bank claims money back, and when that is over.

use jobs::{Delay, Staged, checkout::RefundPayment};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    CheckoutError, Heard,
    events::{give_up, ignore, lock_order_of, money_under},
};
use crate::{
    context::Context,
    kernel::{EventId, OrderId, failpoint, rerun},
    orders::{
        self, Note,
        store::{Entry, record_events},
    },
    payments::{
        Provider,
        disputes::{
            self, Dispute, State,
            store::{NewDispute, upsert},
        },
        findings::{self, store::NewFinding},
        gateway::{self, DisputeAtProvider},
        inbox::{self, Outcome},
        refunds,
        store::Capture,
    },
};

/// How often a dispute is asked about whose news come faster than they are written.
const ROUNDS_MAX: usize = 3;

/// Asks the provider how the dispute stands, notes it with all that follows, and finishes the webhooks
/// that gave cause to ask.
///
/// The order stays as it is: whether the shopper keeps the goods is a matter for people.
pub async fn review_dispute(
    cx: &Context,
    provider: Provider,
    provider_ref: &str,
    events: &[EventId],
) -> Result<Heard, CheckoutError> {
    for _ in 0..ROUNDS_MAX {
        let before = disputes::store::find_by_ref(&cx.db, provider, provider_ref).await?;
        let told_before = before.map(|dispute| dispute.told);
        let news = gateway::look_at_dispute(cx, provider, provider_ref).await?;
        failpoint::pass("review-dispute.after-call");
        let Some(news) = news else {
            give_up(cx, events).await?;
            return Ok(Heard::Foreign);
        };
        let Some(capture) = money_under(cx, provider, &news.charge_ref).await? else {
            ignore(cx, events).await?;
            return Ok(Heard::Foreign);
        };
        let answer = Answer { capture: &capture, news: &news, told_before };
        let written = rerun(|| settle(cx, &answer, events), CheckoutError::database).await?;
        if let Some(heard) = written {
            return Ok(heard);
        }
    }
    Err(CheckoutError::Busy)
}

/// The disputes about the order, the oldest first.
pub async fn find_disputes(cx: &Context, order_id: OrderId) -> Result<Vec<Dispute>, CheckoutError> {
    let disputes = disputes::store::of_orders(&cx.db, &[order_id]).await?;
    if disputes.is_empty() && orders::store::standings(&cx.db, &[order_id]).await?.is_empty() {
        return Err(CheckoutError::NoSuchOrder);
    }
    Ok(disputes)
}

/// What a provider said of a dispute about money of ours.
struct Answer<'a> {
    capture: &'a Capture,
    news: &'a DisputeAtProvider,
    /// How often it had told of the dispute when it was asked.
    told_before: Option<i32>,
}

/// Writes the answer; `None` where another one was written since the question: which of the two is the
/// newer cannot be told.
async fn settle(
    cx: &Context,
    answer: &Answer<'_>,
    events: &[EventId],
) -> Result<Option<Heard>, CheckoutError> {
    let mut tx = cx.db.begin().await?;
    let written = match write(&mut tx, answer, events).await {
        Ok(written) => written,
        Err(error) => {
            // Not left to the drop, which would keep the order locked while the next attempt asks for it.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    };
    let Some(Written { heard, staged }) = written else {
        tx.rollback().await?;
        return Ok(None);
    };
    failpoint::pass("review-dispute.before-commit");
    tx.commit().await.map_err(CheckoutError::of_commit)?;

    cx.relay.wake(staged);
    if heard == Heard::New {
        tell(answer);
    }
    Ok(Some(heard))
}

struct Written {
    heard: Heard,
    staged: Staged,
}

async fn write(
    tx: &mut PgConnection,
    answer: &Answer<'_>,
    events: &[EventId],
) -> sqlx::Result<Option<Written>> {
    let capture = &lock_order_of(&mut *tx, answer.capture).await?;
    let answer = &Answer { capture, ..*answer };
    let Answer { news, told_before, .. } = *answer;
    let before =
        disputes::store::find_by_ref(&mut *tx, capture.provider, &news.provider_ref).await?;
    if before.as_ref().map(|dispute| dispute.told) != told_before {
        return Ok(None);
    }
    upsert(&mut *tx, &row(answer)).await?;
    let state = State::from(news.standing);
    let mut written = Written { heard: Heard::Known, staged: Staged::default() };
    if before.is_none_or(|dispute| dispute.state != state) {
        written.heard = Heard::New;
        written.staged = follow(&mut *tx, answer, state).await?;
    }
    if !events.is_empty() {
        let done: Vec<_> = events.iter().map(|&id| (id, Outcome::Done)).collect();
        inbox::store::finish(tx, &done).await?;
    }
    Ok(Some(written))
}

fn row(answer: &Answer<'_>) -> NewDispute {
    let Answer { capture, news, .. } = *answer;
    NewDispute {
        capture_id: capture.id,
        order_id: capture.order_id,
        provider: capture.provider,
        provider_ref: news.provider_ref.clone(),
        amount_minor: news.amount_minor,
        currency: news.currency.clone(),
        state: news.standing.into(),
        status: news.status.clone(),
        reason: news.reason.clone(),
    }
}

/// Does what follows when the dispute comes to the state.
async fn follow(tx: &mut PgConnection, answer: &Answer<'_>, state: State) -> sqlx::Result<Staged> {
    let Answer { capture, news, .. } = *answer;
    let detail = json!({
        "provider": capture.provider.name(),
        "charge_ref": capture.charge_ref,
        "dispute_ref": news.provider_ref,
        "state": state.name(),
        "status": news.status,
        "amount": news.amount_minor,
        "currency": news.currency,
    });
    let entry = Entry { order_id: capture.order_id, note: Note::Disputed, detail: detail.clone() };
    record_events(&mut *tx, &[entry]).await?;
    match state {
        State::Open => {
            let finding = NewFinding {
                kind: findings::Kind::Disputed,
                subject: news.provider_ref.clone(),
                order_id: Some(capture.order_id),
                detail,
            };
            findings::store::open(tx, &[finding]).await?;
            Ok(Staged::default())
        }
        State::Won | State::Lost | State::Closed => {
            findings::store::settle(&mut *tx, findings::Kind::Disputed, &news.provider_ref).await?;
            release_refunds(tx, capture).await
        }
    }
}

/// Has the provider asked for the refunds that waited for the end of the capture's disputes, unless
/// there is another.
///
/// It is asked after a defeat, too: it knows what of the money is left, and refuses what is not.
async fn release_refunds(tx: &mut PgConnection, capture: &Capture) -> sqlx::Result<Staged> {
    let order = [capture.order_id];
    let disputes = disputes::store::of_orders(&mut *tx, &order).await?;
    let is_open =
        |dispute: &Dispute| dispute.capture_id == capture.id && dispute.state == State::Open;
    if disputes.iter().any(is_open) {
        return Ok(Staged::default());
    }
    let mut waiting = refunds::store::of_orders(&mut *tx, &order).await?;
    waiting.retain(|refund| {
        refund.capture_id == capture.id && refund.state == refunds::State::Requested
    });
    for refund in &waiting {
        let subject = refund.id.to_string();
        let kind = findings::Kind::RefundWithheld;
        findings::store::settle_others(&mut *tx, kind, &subject, gateway::KEY_EXPIRED).await?;
    }
    let work: Vec<_> =
        waiting.iter().map(|refund| RefundPayment { refund_id: refund.id.uuid() }).collect();
    jobs::stage(tx, &work, Delay::NONE).await
}

/// Makes a dispute visible to whoever watches the shop.
fn tell(answer: &Answer<'_>) {
    let Answer { capture, news, .. } = *answer;
    let (provider, state) = (capture.provider.name(), State::from(news.standing).name());
    metrics::counter!("disputes_moved_total", "provider" => provider, "state" => state)
        .increment(1);
    tracing::warn!(
        order.id = %capture.order_id,
        capture.provider_ref = capture.charge_ref,
        dispute.provider_ref = news.provider_ref,
        state,
        "a shopper's bank claims money back, or its claim stands elsewhere"
    );
}
