//! Refunds of whose end nobody has told us.

use sqlx::PgPool;

use super::{Found, Looked, tell};
use crate::{
    checkout::{
        CheckoutError,
        refund::{look, refund_payment},
    },
    context::Context,
    kernel::RefundId,
    payments::{
        Provider, disputes,
        refunds::{Cause, Refund, State, store},
    },
};

/// Has the refunds made that are due, or asks how they stand.
///
/// One that waits for the end of a dispute is left to it.
pub async fn reconcile_refunds(cx: &Context) -> Result<(), CheckoutError> {
    super::reconcile::<Refund>(cx).await
}

impl Looked for Refund {
    type Id = RefundId;

    const NAME: &'static str = "refund";

    fn id(&self) -> RefundId {
        self.id
    }

    async fn take_due(db: &PgPool, provider: Provider, limit: i64) -> sqlx::Result<Vec<Self>> {
        store::take_due(db, provider, limit).await
    }

    async fn ask(&self, cx: &Context) -> Result<(), CheckoutError> {
        if is_withheld(cx, self).await? {
            return Ok(());
        }
        let asked = match self.state {
            // It may have come back.
            State::Succeeded => look(cx, self).await,
            State::Requested | State::Pending | State::Failed => refund_payment(cx, self.id).await,
        };
        let now = store::find(&cx.db, self.id).await?;
        if now.is_some_and(|now| now.state != self.state) {
            tell(Found::Refund, self.provider, 1);
        }
        asked
    }

    async fn look_again(db: &PgPool, ids: &[RefundId]) -> sqlx::Result<()> {
        store::look_again(db, ids).await
    }
}

/// Whether it waits for the end of a dispute, which has it made.
async fn is_withheld(cx: &Context, refund: &Refund) -> Result<bool, CheckoutError> {
    if refund.state != State::Requested || refund.cause == Cause::Staff {
        return Ok(false);
    }
    let disputes = disputes::store::of_orders(&cx.db, &[refund.order_id]).await?;
    Ok(disputes.iter().any(|dispute| {
        dispute.capture_id == refund.capture_id && dispute.state == disputes::State::Open
    }))
}
