//! Money that the shoppers' banks ask back.

use miniserde::Deserialize;
use stripe::RequestStrategy;
use stripe_core::dispute::{ListDispute, RetrieveDispute};

use super::{PAGE, PAGES_MAX, Stripe, amount_read, lean};
use crate::clients::call::{CallError, code, id};

/// A dispute as Stripe sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    pub id: String,
    /// A charge that was made without an intent has none.
    pub payment_intent: Option<String>,
    pub charge: Option<String>,
    /// `needs_response`, `under_review`, `won` or `lost`; of an inquiry `warning_needs_response`,
    /// `warning_under_review` or `warning_closed`; `prevented`.
    pub status: String,
    pub amount_minor: i64,
    /// In capital letters.
    pub currency: String,
    pub reason: Option<String>,
}

impl Stripe {
    pub async fn retrieve_dispute(&self, dispute: &str) -> Result<Dispute, CallError> {
        let request = lean(&RetrieveDispute::new(id(dispute)?), RequestStrategy::Once);
        read(self.ask("retrieve_dispute", request).await?)
    }

    /// Every dispute of an intent, the newest first.
    pub async fn disputes_of(&self, payment_intent: &str) -> Result<Vec<Dispute>, CallError> {
        let intent = id(payment_intent)?;
        let page = |after| {
            let request = ListDispute::new().payment_intent(intent).limit(PAGE);
            let request = match after {
                Some(after) => request.starting_after(after),
                None => request,
            };
            lean(&request, RequestStrategy::Once)
        };
        let disputes = self
            .list("disputes_of", PAGES_MAX, page, |dispute: &DisputeBody| Some(&dispute.id))
            .await?;
        let disputes = disputes.ok_or_else(|| CallError::unknown("there are too many disputes"))?;
        disputes.into_iter().map(read).collect()
    }
}

#[derive(Deserialize)]
struct DisputeBody {
    id: String,
    payment_intent: Option<String>,
    charge: Option<String>,
    status: String,
    amount: i64,
    currency: String,
    reason: Option<String>,
}

fn read(body: DisputeBody) -> Result<Dispute, CallError> {
    let currency = body.currency.to_ascii_uppercase();
    Ok(Dispute {
        amount_minor: amount_read(body.amount, &currency)?,
        id: body.id,
        payment_intent: body.payment_intent,
        charge: body.charge,
        status: body.status,
        reason: code(body.reason),
        currency,
    })
}
