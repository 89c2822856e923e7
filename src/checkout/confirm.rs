//! What the shopper's browser says of a payment: a hint to ask the provider now, never a proof.

use super::{
    CheckoutError,
    events::settle_news,
    pay::{Attempt, view},
};
use crate::{
    context::Context,
    kernel::{OwnerId, PaymentId, failpoint},
    orders::{self, OrderError, Status},
    payments::{
        self, News, Standing, State,
        gateway::{self, CheckoutProof},
    },
};

/// Returns the attempt to pay one of the owner's orders.
pub async fn find_payment(
    cx: &Context,
    id: PaymentId,
    owner_id: OwnerId,
) -> Result<Attempt, CheckoutError> {
    let payment = payments::store::find(&cx.db, id).await?.ok_or(CheckoutError::NoSuchPayment)?;
    orders::find_order(&cx.db, payment.order_id, owner_id).await.map_err(|error| match error {
        OrderError::NotFound => CheckoutError::NoSuchPayment,
        OrderError::Unreadable(..) | OrderError::Database(_) => error.into(),
    })?;
    view(cx, payment, None).await
}

/// Asks the provider how the owner's payment stands, acts on its answer, and returns what came of it.
///
/// Money that is set aside for an order that waits for it is collected at once. A repeat changes nothing.
pub async fn confirm_payment(
    cx: &Context,
    id: PaymentId,
    owner_id: OwnerId,
    proof: Option<&CheckoutProof>,
) -> Result<Attempt, CheckoutError> {
    let attempt = find_payment(cx, id, owner_id).await?;
    let payment = &attempt.payment;
    if let Some(proof) = proof {
        gateway::check_proof(cx, payment, proof)?;
    }
    // What has no name there was handed to nobody.
    if payment.state == State::Captured || payment.provider_ref.is_none() {
        return Ok(attempt);
    }
    let news = match proof {
        Some(proof) => gateway::look_at_charge(cx, payment, &proof.charge_ref).await?,
        None => gateway::look(cx, payment).await?,
    };
    let Some(news) = news else { return Ok(attempt) };
    collect(cx, &attempt, news).await?;
    find_payment(cx, id, owner_id).await
}

/// Settles the news, and collects what is set aside.
async fn collect(cx: &Context, attempt: &Attempt, news: News) -> Result<(), CheckoutError> {
    let Standing::Authorized(charge) = &news.standing else {
        return settle_news(cx, news).await;
    };
    let is_wanted = attempt.payment.asks_for(charge);
    if attempt.order_status != Status::AwaitingPayment || !is_wanted {
        return settle_news(cx, news).await;
    }
    // Before the provider is asked: it stages the job that goes on trying, whatever happens to us.
    settle_news(cx, news.clone()).await?;
    let collected = gateway::capture(cx, &attempt.payment, &charge.charge_ref).await?;
    failpoint::pass("confirm.after-capture");
    settle_news(cx, collected).await
}
