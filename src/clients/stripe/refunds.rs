//! Money that Stripe sends back.

use std::collections::HashMap;

use miniserde::Deserialize;
use stripe::RequestStrategy;
use stripe_client_core::CustomizableStripeRequest;
use stripe_core::refund::{CreateRefund, ListRefund, RetrieveRefund};
use uuid::Uuid;

use super::{PAGE, PAGES_MAX, Stripe, UNUSABLE, amount_read, amount_there, lean, under};
use crate::clients::call::{CallError, code, id};

/// What a refund is created from: the same refund always gives the same request.
#[derive(Debug, Clone, Copy)]
pub struct NewRefund<'a> {
    pub payment_intent: &'a str,
    pub amount_minor: i64,
    /// The intent's, in capital letters.
    pub currency: &'a str,
    pub refund_id: Uuid,
}

/// A refund as Stripe sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    pub id: String,
    /// A charge that was made without an intent has none.
    pub payment_intent: Option<String>,
    pub charge: Option<String>,
    /// `pending`, `requires_action`, `succeeded`, `failed` or `canceled`. One that succeeded may fail.
    pub status: Option<String>,
    pub amount_minor: i64,
    /// In capital letters.
    pub currency: String,
    /// Which of our refunds it is, if it says so.
    pub refund_id: Option<Uuid>,
    pub failure_reason: Option<String>,
}

impl Stripe {
    /// Sends money back; under the same key once, for at least 24 hours.
    pub async fn create_refund(
        &self,
        refund: &NewRefund<'_>,
        key: &str,
    ) -> Result<Refund, CallError> {
        read(self.ask("create_refund", creation(refund, key)?).await?)
    }

    pub async fn retrieve_refund(&self, refund: &str) -> Result<Refund, CallError> {
        let request = lean(&RetrieveRefund::new(id(refund)?), RequestStrategy::Once);
        read(self.ask("retrieve_refund", request).await?)
    }

    /// Every refund of an intent, the newest first.
    pub async fn refunds_of(&self, payment_intent: &str) -> Result<Vec<Refund>, CallError> {
        let intent = id(payment_intent)?;
        let page = |after| {
            let request = ListRefund::new().payment_intent(intent).limit(PAGE);
            let request = match after {
                Some(after) => request.starting_after(after),
                None => request,
            };
            lean(&request, RequestStrategy::Once)
        };
        let refunds = self
            .list("refunds_of", PAGES_MAX, page, |refund: &RefundBody| Some(&refund.id))
            .await?;
        let refunds = refunds.ok_or_else(|| CallError::unknown("there are too many refunds"))?;
        refunds.into_iter().map(read).collect()
    }
}

fn creation(
    refund: &NewRefund<'_>,
    key: &str,
) -> Result<CustomizableStripeRequest<RefundBody>, CallError> {
    let amount = amount_there(refund.amount_minor, refund.currency).ok_or(UNUSABLE)?;
    let request = CreateRefund::new()
        .payment_intent(refund.payment_intent)
        .amount(amount)
        .metadata([("refund_id".to_owned(), refund.refund_id.to_string())]);
    Ok(lean(&request, under(key)?))
}

#[derive(Deserialize)]
struct RefundBody {
    id: String,
    payment_intent: Option<String>,
    charge: Option<String>,
    status: Option<String>,
    amount: i64,
    currency: String,
    metadata: Option<HashMap<String, String>>,
    failure_reason: Option<String>,
}

fn read(body: RefundBody) -> Result<Refund, CallError> {
    let currency = body.currency.to_ascii_uppercase();
    let noted = body.metadata.as_ref().and_then(|metadata| metadata.get("refund_id"));
    Ok(Refund {
        amount_minor: amount_read(body.amount, &currency)?,
        refund_id: noted.and_then(|id| id.parse().ok()),
        id: body.id,
        payment_intent: body.payment_intent,
        charge: body.charge,
        status: body.status,
        failure_reason: code(body.failure_reason),
        currency,
    })
}
