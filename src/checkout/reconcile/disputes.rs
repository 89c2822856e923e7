//! Disputes that a bank has to decide.

use super::{Found, SLICE, is_silence, offered, tell};
use crate::{
    checkout::{CheckoutError, refund::Heard, review_dispute},
    context::Context,
    payments::disputes::store::take_due,
};

/// Asks how the disputes stand that are due: a provider's lists tell only of new ones.
pub async fn reconcile_disputes(cx: &Context) -> Result<(), CheckoutError> {
    let providers: Vec<_> = offered(cx).collect();
    for dispute in take_due(&cx.db, &providers, SLICE).await? {
        match review_dispute(cx, dispute.provider, &dispute.provider_ref, &[]).await {
            Ok(Heard::New) => tell(Found::Dispute, dispute.provider, 1),
            Ok(Heard::Known | Heard::Foreign) => {}
            Err(error) if is_silence(&error) => return Err(error),
            Err(error) => {
                tracing::error!(dispute.id = %dispute.id, %error, "a dispute cannot be reconciled");
            }
        }
    }
    Ok(())
}
