//! Stripe: one intent per payment, created under the payment's key and found again by its metadata.

use time::OffsetDateTime;

use super::{
    DisputeAtProvider, DisputeStanding, Handover, Happened, Opened, RefundAtProvider,
    RefundRequest, RefundStanding, absent, complete, found, is_past_its_key, unreadable,
};
use crate::{
    clients::{
        CallError,
        stripe::{Dispute, Event, Intent, IntentStatus, NewIntent, NewRefund, Refund, Stripe},
    },
    context::Context,
    kernel::PaymentId,
    payments::{Charge, News, Payment, PaymentError, Provider, Standing, store},
};

pub(super) fn account(cx: &Context) -> Result<&Stripe, PaymentError> {
    cx.providers.stripe.as_ref().ok_or(PaymentError::ProviderNotOffered)
}

pub(super) async fn ensure(
    cx: &Context,
    payment: &Payment,
    order_number: &str,
) -> Result<Opened, PaymentError> {
    let intent = match &payment.provider_ref {
        Some(id) => account(cx)?.retrieve_intent(id).await?,
        None => find_or_create(cx, payment, order_number).await?,
    };
    let Some(client_secret) = intent.client_secret.clone() else {
        return Err(unreadable("an intent without a client secret").into());
    };
    let handover = Handover::Stripe { payment_intent_id: intent.id.clone(), client_secret };
    Ok(Opened { news: news(cx, intent).await?, handover })
}

pub(super) async fn look(cx: &Context, payment: &Payment) -> Result<Option<News>, PaymentError> {
    if let Some(id) = &payment.provider_ref {
        return look_up(cx, id).await;
    }
    match account(cx)?.find_intent(payment.id.uuid(), payment.created_at).await? {
        Some(intent) => news(cx, intent).await.map(Some),
        None => Ok(None),
    }
}

pub(super) async fn look_up(cx: &Context, id: &str) -> Result<Option<News>, PaymentError> {
    match found(account(cx)?.retrieve_intent(id).await)? {
        Some(intent) => news(cx, intent).await.map(Some),
        None => Ok(None),
    }
}

/// A payment without an intent is given one first: whoever may still be creating it under the same
/// key then gets the one that was withdrawn.
pub(super) async fn cancel(
    cx: &Context,
    payment: &Payment,
    order_number: &str,
) -> Result<Option<News>, PaymentError> {
    let id = match &payment.provider_ref {
        Some(id) => id.clone(),
        None => match find_or_create(cx, payment, order_number).await {
            Ok(intent) => intent.id,
            Err(PaymentError::Provider(error)) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    match found(account(cx)?.cancel_intent(&id).await)? {
        Some(intent) => news(cx, intent).await.map(Some),
        None => Ok(None),
    }
}

pub(super) async fn capture(cx: &Context, id: &str) -> Result<News, PaymentError> {
    let intent = account(cx)?.capture_intent(id).await?;
    news(cx, intent).await
}

pub(super) async fn refund(
    cx: &Context,
    request: &RefundRequest<'_>,
) -> Result<RefundAtProvider, PaymentError> {
    let new = NewRefund {
        payment_intent: request.charge_ref,
        amount_minor: request.amount_minor,
        currency: request.currency,
        refund_id: request.refund_id,
    };
    refunded(account(cx)?.create_refund(&new, request.key).await?)
}

pub(super) async fn look_at_refund(
    cx: &Context,
    id: &str,
) -> Result<Option<RefundAtProvider>, PaymentError> {
    found(account(cx)?.retrieve_refund(id).await)?.map(refunded).transpose()
}

pub(super) async fn refunds_of(
    cx: &Context,
    intent: &str,
) -> Result<Vec<RefundAtProvider>, PaymentError> {
    account(cx)?.refunds_of(intent).await?.into_iter().map(refunded).collect()
}

pub(super) async fn look_at_dispute(
    cx: &Context,
    id: &str,
) -> Result<Option<DisputeAtProvider>, PaymentError> {
    found(account(cx)?.retrieve_dispute(id).await)?.map(disputed).transpose()
}

pub(super) async fn disputes_of(
    cx: &Context,
    intent: &str,
) -> Result<Vec<DisputeAtProvider>, PaymentError> {
    account(cx)?.disputes_of(intent).await?.into_iter().map(disputed).collect()
}

/// What is read of webhooks.
const KINDS: [&str; 14] = [
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.canceled",
    "payment_intent.requires_action",
    "payment_intent.amount_capturable_updated",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
];

pub(super) async fn happened(
    cx: &Context,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<Option<Vec<Happened>>, PaymentError> {
    let events = account(cx)?.events_between(from, to, &KINDS).await?;
    let told = |events: Vec<Event>| {
        events.into_iter().map(|event| Happened::Event { body: event.body }).collect()
    };
    Ok(events.map(told))
}

/// Creates the intent under the payment's key, or finds the one that was made before.
async fn find_or_create(
    cx: &Context,
    payment: &Payment,
    order_number: &str,
) -> Result<Intent, PaymentError> {
    let stripe = account(cx)?;
    if is_past_its_key(payment) {
        let intent = stripe.find_intent(payment.id.uuid(), payment.created_at).await?;
        return Ok(intent.ok_or_else(absent)?);
    }
    let new = NewIntent {
        amount: payment.amount,
        payment_id: payment.id.uuid(),
        order_id: payment.order_id.uuid(),
        order_number,
    };
    // Boxed, as the request is large.
    let create = async |key: &str| Box::pin(stripe.create_intent(&new, key)).await;
    let key = payment.provider_key();
    let first = create(&key).await;
    let Err(CallError::Unknown { .. }) = first else { return Ok(first?) };
    // The same request under the same key is done once, and is told what came of the first.
    let second = create(&key).await;
    let Err(CallError::Unknown { answered_5xx, .. }) = second else { return Ok(second?) };
    if let Some(intent) = stripe.find_intent(payment.id.uuid(), payment.created_at).await? {
        return Ok(intent);
    }
    // A failure is kept under its key and would be repeated for a day. Nothing came of it, so that
    // another key makes no second intent; after a silence the first may still be made. In a rush the
    // first may be out of sight, too: nobody was given its secret, so nobody can pay it.
    if !answered_5xx || !store::next_key(&cx.db, payment.id, payment.key_generation).await? {
        return Ok(second?);
    }
    let next = Payment { key_generation: payment.key_generation + 1, ..payment.clone() };
    Ok(create(&next.provider_key()).await?)
}

async fn news(cx: &Context, intent: Intent) -> Result<News, PaymentError> {
    let standing = match intent.status {
        IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction => Standing::Open { last_decline: intent.last_decline },
        IntentStatus::Processing => Standing::Processing,
        IntentStatus::RequiresCapture => Standing::Authorized(Charge {
            charge_ref: intent.id.clone(),
            amount_minor: intent.amount_minor,
            currency: intent.currency,
            refunds: Vec::new(),
        }),
        IntentStatus::Succeeded => Standing::Captured(vec![collected(cx, &intent).await?]),
        IntentStatus::Canceled => Standing::Cancelled,
        // A word of next year: it is neither money nor the end of it.
        IntentStatus::Unheard(_) => Standing::Open { last_decline: None },
    };
    Ok(News {
        provider: Provider::Stripe,
        provider_ref: intent.id,
        payment_id: intent.payment_id.map(PaymentId::from),
        livemode: intent.livemode,
        standing,
    })
}

/// The money, with all that went back of it, for which Stripe is asked where there is any.
async fn collected(cx: &Context, intent: &Intent) -> Result<Charge, PaymentError> {
    let refunded_minor = match intent.refunded_minor {
        Some(refunded_minor) => refunded_minor,
        // A list shows no charges.
        None => account(cx)?.retrieve_intent(&intent.id).await?.refunded_minor.unwrap_or(0),
    };
    let refunds = if refunded_minor == 0 { Vec::new() } else { refunds_of(cx, &intent.id).await? };
    let charge = Charge {
        charge_ref: intent.id.clone(),
        amount_minor: intent.amount_received_minor,
        currency: intent.currency.clone(),
        refunds,
    };
    complete(charge, refunded_minor)
}

fn refunded(refund: Refund) -> Result<RefundAtProvider, PaymentError> {
    let standing = match refund.status.as_deref() {
        Some("succeeded") => RefundStanding::Succeeded,
        Some("failed") => RefundStanding::Failed { reason: refund.failure_reason },
        Some("canceled") => {
            RefundStanding::Failed { reason: refund.failure_reason.or(refund.status) }
        }
        // `requires_action`, none, or a word of next year: it is no end.
        _ => RefundStanding::Pending,
    };
    let charge_ref = refund.payment_intent.or(refund.charge);
    Ok(RefundAtProvider {
        charge_ref: charge_ref.ok_or_else(|| unreadable("a refund of nothing"))?,
        provider_ref: refund.id,
        refund_id: refund.refund_id,
        amount_minor: refund.amount_minor,
        currency: refund.currency,
        standing,
    })
}

fn disputed(dispute: Dispute) -> Result<DisputeAtProvider, PaymentError> {
    let standing = match &*dispute.status {
        "won" => DisputeStanding::Won,
        "lost" => DisputeStanding::Lost,
        "warning_closed" | "prevented" | "charge_refunded" => DisputeStanding::Closed,
        // Someone asks the money back, whatever the word for it.
        _ => DisputeStanding::Open,
    };
    let charge_ref = dispute.payment_intent.or(dispute.charge);
    Ok(DisputeAtProvider {
        charge_ref: charge_ref.ok_or_else(|| unreadable("a dispute about nothing"))?,
        provider_ref: dispute.id,
        amount_minor: dispute.amount_minor,
        currency: dispute.currency,
        reason: dispute.reason,
        status: dispute.status,
        standing,
    })
}
