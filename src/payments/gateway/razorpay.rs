//! Razorpay: one order per payment, found again by its receipt. Its own payments, of which an order
//! may have several, are the charges here. There are no keys, and nothing can be withdrawn.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    CheckoutProof, DisputeAtProvider, DisputeStanding, Handover, Happened, Opened,
    RefundAtProvider, RefundRequest, RefundStanding, absent, complete, found, is_past_its_key,
    unreadable,
};
use crate::{
    clients::{
        CallError,
        razorpay::{self, Dispute, NewOrder, NewRefund, Order, PaymentStatus, Razorpay, Refund},
    },
    context::Context,
    kernel::{self, PaymentId},
    payments::{Charge, News, Payment, PaymentError, Provider, Standing},
};

/// Razorpay's clock may be ahead of ours.
const SKEW: Duration = Duration::minutes(5);

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

pub(super) async fn look_up_charge(cx: &Context, id: &str) -> Result<Option<News>, PaymentError> {
    let charge = found(account(cx)?.retrieve_payment(id).await)?;
    match charge.and_then(|charge| charge.order_id) {
        Some(order) => look_up(cx, &order).await,
        None => Ok(None),
    }
}

/// An order that may still come into being, because its creation is under way, is nobody's to pay:
/// the shopper is not handed the order of a payment that was given up.
pub(super) async fn cancel(cx: &Context, payment: &Payment) -> Result<Option<News>, PaymentError> {
    let news = look(cx, payment).await?;
    Ok(news.map(|news| match &news.standing {
        Standing::Captured(_) | Standing::Cancelled => news,
        Standing::Authorized(charge) if payment.asks_for(charge) => news,
        // What was not asked for is not collected either.
        Standing::Authorized(_) | Standing::Open { .. } | Standing::Processing => {
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
    news_of_charge(cx, payment, charge).await
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
    news_of_charge(cx, payment, charge).await
}

pub(super) async fn refund(
    cx: &Context,
    request: &RefundRequest<'_>,
) -> Result<RefundAtProvider, PaymentError> {
    let new = NewRefund {
        payment: request.charge_ref,
        amount_minor: request.amount_minor,
        refund_id: request.refund_id,
    };
    let refund = account(cx)?.refund_payment(&new, request.key).await?;
    Ok(refunded(refund, request.currency))
}

pub(super) async fn look_at_refund(
    cx: &Context,
    id: &str,
) -> Result<Option<RefundAtProvider>, PaymentError> {
    let razorpay = account(cx)?;
    let Some(refund) = found(razorpay.retrieve_refund(id).await)? else { return Ok(None) };
    let currency = match &refund.currency {
        Some(currency) => currency.clone(),
        None => razorpay.retrieve_payment(&refund.payment).await?.currency,
    };
    Ok(Some(refunded(refund, &currency)))
}

pub(super) async fn refunds_of(
    cx: &Context,
    payment: &str,
) -> Result<Vec<RefundAtProvider>, PaymentError> {
    let razorpay = account(cx)?;
    let refunds = razorpay.refunds_of(payment).await?;
    let currency = if refunds.iter().all(|refund| refund.currency.is_some()) {
        String::new()
    } else {
        razorpay.retrieve_payment(payment).await?.currency
    };
    Ok(refunds.into_iter().map(|refund| refunded(refund, &currency)).collect())
}

pub(super) async fn look_at_dispute(
    cx: &Context,
    id: &str,
) -> Result<Option<DisputeAtProvider>, PaymentError> {
    Ok(found(account(cx)?.retrieve_dispute(id).await)?.map(disputed))
}

pub(super) async fn disputes_of(
    cx: &Context,
    payment: &str,
) -> Result<Vec<DisputeAtProvider>, PaymentError> {
    let razorpay = account(cx)?;
    let begun = razorpay.retrieve_payment(payment).await?.created_at;
    let begun = begun.ok_or_else(|| unreadable("a payment without its time"))?;
    let disputes = razorpay.disputes_between(begun, kernel::time::now() + SKEW).await?;
    let disputes = disputes.ok_or_else(|| unreadable("there are too many disputes to search"))?;
    let disputes = disputes.into_iter().rev().filter(|dispute| dispute.payment == payment);
    Ok(disputes.map(disputed).collect())
}

/// One list after another, as one that is too long makes the others useless.
pub(super) async fn happened(
    cx: &Context,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<Option<Vec<Happened>>, PaymentError> {
    let razorpay = account(cx)?;
    let Some(payments) = razorpay.payments_between(from, to).await? else { return Ok(None) };
    let Some(refunds) = razorpay.refunds_between(from, to).await? else { return Ok(None) };
    let Some(disputes) = razorpay.disputes_between(from, to).await? else { return Ok(None) };
    let payments = orders_with_money(payments);
    let refunds = refunds.into_iter().map(|refund| Happened::Refund { provider_ref: refund.id });
    let disputes =
        disputes.into_iter().map(|dispute| Happened::Dispute { provider_ref: dispute.id });
    Ok(Some(payments.into_iter().chain(refunds).chain(disputes).collect()))
}

/// The orders of the payments in which there is or was money, each once.
fn orders_with_money(payments: Vec<razorpay::Payment>) -> Vec<Happened> {
    let mut places = HashMap::new();
    let mut orders = Vec::<(String, Vec<String>)>::new();
    for payment in payments {
        let is_collected = match payment.status {
            PaymentStatus::Created | PaymentStatus::Failed => continue,
            PaymentStatus::Captured => true,
            PaymentStatus::Authorized | PaymentStatus::Refunded | PaymentStatus::Unheard(_) => {
                payment.captured
            }
        };
        let Some(order) = payment.order_id else { continue };
        let place = *places.entry(order.clone()).or_insert(orders.len());
        if place == orders.len() {
            orders.push((order, Vec::new()));
        }
        if is_collected && let Some((_, charges)) = orders.get_mut(place) {
            charges.push(payment.id);
        }
    }
    let payment = |(provider_ref, charges)| Happened::Payment { provider_ref, charges };
    orders.into_iter().map(payment).collect()
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
        standing: of_charges(razorpay, charges).await?,
    })
}

/// How an order stands that was tried to be paid so, the newest first.
async fn of_charges(
    razorpay: &Razorpay,
    charges: Vec<razorpay::Payment>,
) -> Result<Standing, PaymentError> {
    let (mut captured, mut authorized, mut last_decline) = (Vec::new(), None, None);
    for charge in charges {
        match charge.status {
            PaymentStatus::Captured => captured.push(collected(razorpay, charge).await?),
            // It came and went. What goes back by itself was never collected.
            PaymentStatus::Refunded if charge.captured => {
                captured.push(collected(razorpay, charge).await?);
            }
            PaymentStatus::Authorized => authorized = authorized.or(Some(charge)),
            PaymentStatus::Failed => last_decline = last_decline.or(charge.error_code),
            // They are no money yet, or never were.
            PaymentStatus::Refunded | PaymentStatus::Created | PaymentStatus::Unheard(_) => {}
        }
    }
    if !captured.is_empty() {
        return Ok(Standing::Captured(captured));
    }
    Ok(match authorized {
        Some(charge) => Standing::Authorized(money(charge, Vec::new())),
        None => Standing::Open { last_decline },
    })
}

/// The money, with all that went back of it, for which Razorpay is asked where there is any.
async fn collected(razorpay: &Razorpay, charge: razorpay::Payment) -> Result<Charge, PaymentError> {
    let refunded_minor = match charge.status {
        PaymentStatus::Refunded => charge.amount_minor,
        PaymentStatus::Created
        | PaymentStatus::Authorized
        | PaymentStatus::Captured
        | PaymentStatus::Failed
        | PaymentStatus::Unheard(_) => charge.amount_refunded_minor,
    };
    if refunded_minor == 0 {
        return Ok(money(charge, Vec::new()));
    }
    let refunds = razorpay.refunds_of(&charge.id).await?;
    let refunds = refunds.into_iter().map(|refund| refunded(refund, &charge.currency)).collect();
    complete(money(charge, refunds), refunded_minor)
}

fn money(charge: razorpay::Payment, refunds: Vec<RefundAtProvider>) -> Charge {
    Charge {
        charge_ref: charge.id,
        amount_minor: charge.amount_minor,
        currency: charge.currency,
        refunds,
    }
}

async fn news_of_charge(
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
        standing: of_charges(account(cx)?, vec![charge]).await?,
    })
}

/// `currency` is the payment's, for an answer that lacks it.
fn refunded(refund: Refund, currency: &str) -> RefundAtProvider {
    let standing = match refund.status.as_deref() {
        Some("processed") => RefundStanding::Succeeded,
        Some("failed") => RefundStanding::Failed { reason: None },
        // None, or a word of next year: it is no end.
        _ => RefundStanding::Pending,
    };
    RefundAtProvider {
        provider_ref: refund.id,
        refund_id: refund.refund_id,
        charge_ref: refund.payment,
        amount_minor: refund.amount_minor,
        currency: refund.currency.unwrap_or_else(|| currency.to_owned()),
        standing,
    }
}

fn disputed(dispute: Dispute) -> DisputeAtProvider {
    let standing = match &*dispute.status {
        "won" => DisputeStanding::Won,
        "lost" => DisputeStanding::Lost,
        "closed" => DisputeStanding::Closed,
        // Someone asks the money back, whatever the word for it.
        _ => DisputeStanding::Open,
    };
    DisputeAtProvider {
        provider_ref: dispute.id,
        charge_ref: dispute.payment,
        amount_minor: dispute.amount_minor,
        currency: dispute.currency,
        reason: dispute.reason,
        status: dispute.status,
        standing,
    }
}
