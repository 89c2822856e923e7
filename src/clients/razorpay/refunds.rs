//! Money that Razorpay sends back.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{RECEIPT_TAKEN, Razorpay};
use crate::clients::call::{CallError, id};

/// Razorpay takes no shorter key.
const KEY_LENGTH_MIN: usize = 10;

/// What a refund is created from: the same refund always gives the same request.
#[derive(Debug, Clone, Copy)]
pub struct NewRefund<'a> {
    /// `pay_…`, which was captured.
    pub payment: &'a str,
    pub amount_minor: i64,
    pub refund_id: Uuid,
}

/// A refund as Razorpay sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    pub id: String,
    pub payment: String,
    /// `pending`, `processed` or `failed`. One that was processed may fail.
    pub status: Option<String>,
    pub amount_minor: i64,
    /// In capital letters. Some answers lack it; it is the payment's.
    pub currency: Option<String>,
    /// Which of our refunds it is, if it says so.
    pub refund_id: Option<Uuid>,
}

impl Razorpay {
    /// Sends money back. A repeat under the same key that has the same contents gets the same refund;
    /// how long that is so, and whether also after a failure, Razorpay does not say.
    pub async fn refund_payment(
        &self,
        refund: &NewRefund<'_>,
        key: &str,
    ) -> Result<Refund, CallError> {
        let path = format!("v1/payments/{}/refund", id(refund.payment)?);
        if key.len() < KEY_LENGTH_MIN || id(key).is_err() {
            return Err(CallError::Rejected { status: 400, code: None });
        }
        let body = json!({
            "amount": refund.amount_minor,
            "receipt": refund.refund_id.simple(),
            "notes": { "refund_id": refund.refund_id },
        });
        match self.ask_under(Some(key), "refund_payment", Method::POST, &path, Some(body)).await {
            // It is there, or is being made, and may not be listed yet. It will be.
            Err(CallError::Rejected { code: Some(code), .. }) if code == RECEIPT_TAKEN => {
                Err(CallError::unknown("the receipt's refund was asked for before"))
            }
            answer => answer.map(|refund: RefundBody| refund.into()),
        }
    }

    pub async fn retrieve_refund(&self, refund: &str) -> Result<Refund, CallError> {
        let path = format!("v1/refunds/{}", id(refund)?);
        let refund: RefundBody = self.ask("retrieve_refund", Method::GET, &path, None).await?;
        Ok(refund.into())
    }

    /// Every refund of a payment, the newest first.
    pub async fn refunds_of(&self, payment: &str) -> Result<Vec<Refund>, CallError> {
        let path = format!("v1/payments/{}/refunds", id(payment)?);
        let refunds = self.list::<RefundBody>("refunds_of", &path, "").await?;
        let refunds = refunds.ok_or_else(|| CallError::unknown("there are too many refunds"))?;
        Ok(refunds.into_iter().map(Refund::from).collect())
    }

    /// Every refund that was made from `from` to `to`, both whole seconds, the oldest first; `None`
    /// where those are more than a thousand.
    pub async fn refunds_between(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> Result<Option<Vec<Refund>>, CallError> {
        self.between::<RefundBody, _>("refunds_between", "v1/refunds", from, to).await
    }
}

#[derive(Deserialize)]
struct RefundBody {
    id: String,
    payment_id: String,
    status: Option<String>,
    amount: i64,
    currency: Option<String>,
    receipt: Option<String>,
    /// An object, but an empty array where there are none.
    notes: Option<Value>,
}

impl From<RefundBody> for Refund {
    fn from(body: RefundBody) -> Self {
        let noted = body.notes.as_ref().and_then(|notes| notes.get("refund_id")?.as_str());
        let named = [noted, body.receipt.as_deref()];
        Self {
            refund_id: named.into_iter().flatten().find_map(|id| id.parse().ok()),
            id: body.id,
            payment: body.payment_id,
            status: body.status,
            amount_minor: body.amount,
            currency: body
                .currency
                .filter(|currency| !currency.is_empty())
                .map(|currency| currency.to_ascii_uppercase()),
        }
    }
}
