//! Money that the shoppers' banks ask back.

use super::{razorpay, stripe};
use crate::{
    context::Context,
    payments::{PaymentError, Provider},
};

/// A dispute as its provider sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisputeAtProvider {
    /// `du_…`, `dp_…` or `disp_…`.
    pub provider_ref: String,
    /// `pi_…` or `pay_…`.
    pub charge_ref: String,
    pub amount_minor: i64,
    /// Three capital letters.
    pub currency: String,
    pub reason: Option<String>,
    /// The provider's own word.
    pub status: String,
    pub standing: DisputeStanding,
}

/// How far a dispute is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisputeStanding {
    /// An inquiry, too, may become a claim, and is open until it is closed.
    Open,
    Won,
    Lost,
    /// It ended without a verdict.
    Closed,
}

/// Tells how a dispute stands; `None` where the provider has none of this name.
pub async fn look_at_dispute(
    cx: &Context,
    provider: Provider,
    provider_ref: &str,
) -> Result<Option<DisputeAtProvider>, PaymentError> {
    match provider {
        Provider::Stripe => stripe::look_at_dispute(cx, provider_ref).await,
        Provider::Razorpay => razorpay::look_at_dispute(cx, provider_ref).await,
    }
}

/// Every dispute of a charge, the newest first.
///
/// Razorpay has no such list: there, all disputes since the charge are read.
pub async fn disputes_of(
    cx: &Context,
    provider: Provider,
    charge_ref: &str,
) -> Result<Vec<DisputeAtProvider>, PaymentError> {
    match provider {
        Provider::Stripe => stripe::disputes_of(cx, charge_ref).await,
        Provider::Razorpay => razorpay::disputes_of(cx, charge_ref).await,
    }
}
