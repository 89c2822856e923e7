//! Disputes that a bank has to decide.

use sqlx::PgPool;
use uuid::Uuid;

use super::{Found, Looked, tell};
use crate::{
    checkout::{CheckoutError, refund::Heard, review_dispute},
    context::Context,
    payments::{
        Provider,
        disputes::{Dispute, store},
    },
};

/// Asks how the disputes stand that are due: a provider's lists tell only of new ones.
pub async fn reconcile_disputes(cx: &Context) -> Result<(), CheckoutError> {
    super::reconcile::<Dispute>(cx).await
}

impl Looked for Dispute {
    type Id = Uuid;

    const NAME: &'static str = "dispute";

    fn id(&self) -> Uuid {
        self.id
    }

    async fn take_due(db: &PgPool, provider: Provider, limit: i64) -> sqlx::Result<Vec<Self>> {
        store::take_due(db, provider, limit).await
    }

    async fn ask(&self, cx: &Context) -> Result<(), CheckoutError> {
        match review_dispute(cx, self.provider, &self.provider_ref, &[]).await? {
            Heard::New => tell(Found::Dispute, self.provider, 1),
            Heard::Known | Heard::Foreign => {}
        }
        Ok(())
    }

    async fn look_again(db: &PgPool, ids: &[Uuid]) -> sqlx::Result<()> {
        store::look_again(db, ids).await
    }
}
