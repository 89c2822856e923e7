//! Money that the shoppers' banks ask back.

use reqwest::Method;
use serde::Deserialize;
use time::OffsetDateTime;

use super::Razorpay;
use crate::clients::call::{CallError, code, id};

/// A dispute as Razorpay sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    pub id: String,
    pub payment: String,
    /// `open`, `under_review`, `won`, `lost` or `closed`.
    pub status: String,
    pub amount_minor: i64,
    /// In capital letters.
    pub currency: String,
    pub reason: Option<String>,
}

impl Razorpay {
    pub async fn retrieve_dispute(&self, dispute: &str) -> Result<Dispute, CallError> {
        let path = format!("v1/disputes/{}", id(dispute)?);
        let dispute: DisputeBody = self.ask("retrieve_dispute", Method::GET, &path, None).await?;
        Ok(dispute.into())
    }

    /// Every dispute that was opened from `from` to `to`, both whole seconds, the oldest first; `None`
    /// where those are more than a thousand.
    pub async fn disputes_between(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> Result<Option<Vec<Dispute>>, CallError> {
        self.between::<DisputeBody, _>("disputes_between", "v1/disputes", from, to).await
    }
}

#[derive(Deserialize)]
struct DisputeBody {
    id: String,
    payment_id: String,
    status: String,
    amount: i64,
    currency: String,
    reason_code: Option<String>,
}

impl From<DisputeBody> for Dispute {
    fn from(body: DisputeBody) -> Self {
        Self {
            id: body.id,
            payment: body.payment_id,
            status: body.status,
            amount_minor: body.amount,
            currency: body.currency.to_ascii_uppercase(),
            reason: code(body.reason_code),
        }
    }
}
