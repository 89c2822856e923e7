//! Stripe: one intent per payment, created under the payment's key and found again by its metadata.

use super::{Handover, Opened, absent, found, is_past_its_key};
use crate::{
    clients::{
        CallError,
        stripe::{Intent, IntentStatus, NewIntent, Stripe},
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
    Ok(Opened { news: news(intent), handover })
}

pub(super) async fn look(cx: &Context, payment: &Payment) -> Result<Option<News>, PaymentError> {
    if let Some(id) = &payment.provider_ref {
        return look_up(cx, id).await;
    }
    let intent = account(cx)?.find_intent(payment.id.uuid(), payment.created_at).await?;
    Ok(intent.map(news))
}

pub(super) async fn look_up(cx: &Context, id: &str) -> Result<Option<News>, PaymentError> {
    Ok(found(account(cx)?.retrieve_intent(id).await)?.map(news))
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
    Ok(found(account(cx)?.cancel_intent(&id).await)?.map(news))
}

pub(super) async fn capture(cx: &Context, id: &str) -> Result<News, PaymentError> {
    Ok(news(account(cx)?.capture_intent(id).await?))
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
    // another key makes no second intent; after a silence the first may still be made.
    if !answered_5xx || !store::next_key(&cx.db, payment.id, payment.key_generation).await? {
        return Ok(second?);
    }
    let next = Payment { key_generation: payment.key_generation + 1, ..payment.clone() };
    Ok(create(&next.provider_key()).await?)
}

fn unreadable(why: &str) -> CallError {
    CallError::Unknown { why: why.to_owned(), answered_5xx: false }
}

fn news(intent: Intent) -> News {
    let charge_ref = intent.id.clone();
    let standing = match intent.status {
        IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction => Standing::Open { last_decline: intent.last_decline },
        IntentStatus::Processing => Standing::Processing,
        IntentStatus::RequiresCapture => Standing::Authorized { charge_ref },
        IntentStatus::Succeeded => Standing::Captured(vec![Charge {
            charge_ref,
            amount_minor: intent.amount_received_minor,
            currency: intent.currency,
        }]),
        IntentStatus::Canceled => Standing::Cancelled,
        // A word of next year: it is neither money nor the end of it.
        IntentStatus::Unheard(_) => Standing::Open { last_decline: None },
    };
    News {
        provider: Provider::Stripe,
        provider_ref: intent.id,
        payment_id: intent.payment_id.map(PaymentId::from),
        livemode: intent.livemode,
        standing,
    }
}
