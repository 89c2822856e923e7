//! Razorpay: one order per payment, found again by its receipt. Its own payments, of which an order
//! may have several, are the charges here. There are no keys, and nothing can be withdrawn.

use uuid::Uuid;

use super::{CheckoutProof, Handover, Opened, absent, found, is_past_its_key};
use crate::{
    clients::{
        CallError,
        razorpay::{self, NewOrder, Order, PaymentStatus, Razorpay},
    },
    context::Context,
    kernel::PaymentId,
    payments::{Charge, News, Payment, PaymentError, Provider, Standing},
};

pub(super) fn account(cx: &Context) -> Result<&Razorpay, PaymentError> {
    cx.providers.razorpay.as_ref().ok_or(PaymentError::ProviderNotOffered)
}

pub(super) async fn ensure(
    cx: &Context,
    payment: &Payment,
    order_number: &str,
) -> Result<Opened, PaymentError> {
    let razorpay = account(cx)?;
    let news = match &payment.provider_ref {
        Some(id) => look_up(cx, id).await?.ok_or_else(absent)?,
        None => standing(razorpay, find_or_create(razorpay, payment, order_number).await?).await?,
    };
    let order_id = news.provider_ref.clone();
    let handover = Handover::Razorpay { order_id, key_id: razorpay.key_id().to_owned() };
    Ok(Opened { news, handover })
}

pub(super) async fn look(cx: &Context, payment: &Payment) -> Result<Option<News>, PaymentError> {
    if let Some(id) = &payment.provider_ref {
        return look_up(cx, id).await;
    }
    let razorpay = account(cx)?;
    match razorpay.find_order(&payment.provider_key()).await? {
        Some(order) => Ok(Some(standing(razorpay, order).await?)),
        None => Ok(None),
    }
}

pub(super) async fn look_up(cx: &Context, id: &str) -> Result<Option<News>, PaymentError> {
    let razorpay = account(cx)?;
    match found(razorpay.retrieve_order(id).await)? {
        Some(order) => Ok(Some(standing(razorpay, order).await?)),
        None => Ok(None),
    }
}

/// An order that may still come into being, because its creation is under way, is nobody's to pay:
/// the shopper is not handed the order of a payment that was given up.
pub(super) async fn cancel(cx: &Context, payment: &Payment) -> Result<Option<News>, PaymentError> {
    let news = look(cx, payment).await?;
    Ok(news.map(|news| match news.standing {
        Standing::Captured(_) | Standing::Authorized { .. } | Standing::Cancelled => news,
        Standing::Open { .. } | Standing::Processing => {
            News { standing: Standing::Cancelled, ..news }
        }
    }))
}

pub(super) async fn capture(
    cx: &Context,
    payment: &Payment,
    charge_ref: &str,
) -> Result<News, PaymentError> {
    let (minor, currency) = (payment.amount.minor(), payment.amount.currency());
    let charge = account(cx)?.capture_payment(charge_ref, minor, currency.code()).await?;
    news_of_charge(cx, payment, charge)
}

/// Checks the signature over our order, never over the one that the browser names: a good signature
/// of another order is easily had.
pub(super) fn check_proof(
    cx: &Context,
    payment: &Payment,
    proof: &CheckoutProof,
) -> Result<(), PaymentError> {
    let order_id = payment.provider_ref.as_deref().ok_or(PaymentError::BadSignature)?;
    if !account(cx)?.is_signed_checkout(order_id, &proof.charge_ref, &proof.signature) {
        return Err(PaymentError::BadSignature);
    }
    Ok(())
}

pub(super) async fn look_at_charge(
    cx: &Context,
    payment: &Payment,
    charge_ref: &str,
) -> Result<News, PaymentError> {
    let charge = account(cx)?.retrieve_payment(charge_ref).await?;
    if charge.order_id.is_none() || charge.order_id != payment.provider_ref {
        return Err(PaymentError::BadSignature);
    }
    news_of_charge(cx, payment, charge)
}

/// Creates the order with the payment's receipt, or finds the one that was made before.
async fn find_or_create(
    razorpay: &Razorpay,
    payment: &Payment,
    order_number: &str,
) -> Result<Order, CallError> {
    let receipt = payment.provider_key();
    if is_past_its_key(payment) {
        return razorpay.find_order(&receipt).await?.ok_or_else(absent);
    }
    let new = NewOrder {
        amount: payment.amount,
        receipt: &receipt,
        payment_id: payment.id.uuid(),
        order_id: payment.order_id.uuid(),
        order_number,
    };
    let first = razorpay.create_order(&new).await;
    let Err(CallError::Unknown { .. }) = first else { return first };
    match razorpay.find_order(&receipt).await? {
        Some(order) if is_what_was_asked_for(&order, payment) => Ok(order),
        Some(_) => Err(CallError::Rejected { status: 409, code: Some("RECEIPT_TAKEN".to_owned()) }),
        None => razorpay.create_order(&new).await,
    }
}

fn is_what_was_asked_for(order: &Order, payment: &Payment) -> bool {
    order.amount_minor == payment.amount.minor()
        && order.currency == payment.amount.currency().code()
}

/// Judges an order by its payments: money that was collected counts before money that is set aside,
/// and both before what was declined.
async fn standing(razorpay: &Razorpay, order: Order) -> Result<News, PaymentError> {
    let charges = razorpay.payments_of(&order.id).await?;
    let receipt = order.receipt.as_deref();
    let by_receipt = || receipt.and_then(|receipt| Uuid::try_parse(receipt).ok());
    Ok(News {
        provider: Provider::Razorpay,
        payment_id: order.payment_id.or_else(by_receipt).map(PaymentId::from),
        provider_ref: order.id,
        livemode: razorpay.livemode(),
        standing: of_charges(charges),
    })
}

/// How an order stands that was tried to be paid so, the newest first.
fn of_charges(charges: Vec<razorpay::Payment>) -> Standing {
    let (mut captured, mut authorized, mut last_decline) = (Vec::new(), None, None);
    for charge in charges {
        match charge.status {
            PaymentStatus::Captured => captured.push(collected(charge)),
            PaymentStatus::Authorized => authorized = authorized.or(Some(charge.id)),
            PaymentStatus::Failed => last_decline = last_decline.or(charge.error_code),
            // What was given back is not ours any more. The others are no money yet.
            PaymentStatus::Refunded | PaymentStatus::Created | PaymentStatus::Unheard(_) => {}
        }
    }
    if !captured.is_empty() {
        return Standing::Captured(captured);
    }
    match authorized {
        Some(charge_ref) => Standing::Authorized { charge_ref },
        None => Standing::Open { last_decline },
    }
}

fn collected(charge: razorpay::Payment) -> Charge {
    Charge { charge_ref: charge.id, amount_minor: charge.amount_minor, currency: charge.currency }
}

fn news_of_charge(
    cx: &Context,
    payment: &Payment,
    charge: razorpay::Payment,
) -> Result<News, PaymentError> {
    let order_id = charge.order_id.clone().or_else(|| payment.provider_ref.clone());
    Ok(News {
        provider: Provider::Razorpay,
        provider_ref: order_id.unwrap_or_default(),
        payment_id: Some(payment.id),
        livemode: account(cx)?.livemode(),
        standing: of_charges(vec![charge]),
    })
}
