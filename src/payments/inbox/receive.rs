//! Taking webhooks in: a slice of them is stored and promised to be worked on, in one transaction.

use std::collections::HashSet;

use jobs::{Delay, Staged, checkout::SettleEvent};
use sqlx::PgConnection;

use super::{Received, store};
use crate::{
    context::Context,
    kernel::{EventId, failpoint, halves::halves, rerun},
    payments::{PaymentError, Provider},
};

/// What the inbox made of a webhook. The provider need not send it again, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    New,
    /// The same was there before; nothing follows.
    Duplicate,
    /// Another body was there before under the same name, and stays; nothing follows.
    Altered,
}

impl Receipt {
    /// The name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Duplicate => "duplicate",
            Self::Altered => "altered",
        }
    }
}

/// Stores each webhook that is new and sees to it that it will be worked on, or says why not, in the
/// order given.
///
/// A webhook and its work commit together or not at all. However many webhooks the slice has (at most
/// [`SLICE_MAX`](crate::kernel::batch::SLICE_MAX)), one attempt takes 5 statements at most, `BEGIN`
/// and `COMMIT` included.
pub async fn receive(cx: &Context, slice: &[Received]) -> Vec<Result<Receipt, PaymentError>> {
    let attempt = |part| rerun(move || receive_together(cx, part), PaymentError::database);
    halves("webhooks", slice, attempt).await
}

/// One attempt: the whole slice in one transaction.
async fn receive_together(cx: &Context, slice: &[Received]) -> Result<Vec<Receipt>, PaymentError> {
    let mut tx = cx.db.begin().await?;
    let (receipts, staged) = match write(&mut tx, slice).await {
        Ok(written) => written,
        Err(error) => {
            // Not left to the drop: the next attempt would wait for what this one has inserted.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
    };
    failpoint::pass("inbox.before-commit");
    tx.commit().await.map_err(PaymentError::of_commit)?;
    failpoint::pass("inbox.after-commit");

    cx.relay.wake(staged);
    Ok(receipts)
}

async fn write(tx: &mut PgConnection, slice: &[Received]) -> sqlx::Result<(Vec<Receipt>, Staged)> {
    let new: HashSet<_> = store::insert(&mut *tx, slice).await?.into_iter().collect();
    // A statement of its own: only one that starts afterwards sees what the insert has waited for.
    let altered: HashSet<_> = if new.len() < slice.len() {
        store::altered(&mut *tx, slice).await?.into_iter().collect()
    } else {
        HashSet::new()
    };
    let work: Vec<_> = new.iter().map(|id| SettleEvent { event_id: id.uuid() }).collect();
    let staged = jobs::stage(tx, &work, Delay::NONE).await?;
    let receipts = slice.iter().map(|event| receipt(event, &new, &altered)).collect();
    Ok((receipts, staged))
}

fn receipt(event: &Received, new: &HashSet<EventId>, altered: &HashSet<EventId>) -> Receipt {
    if new.contains(&event.id) {
        return Receipt::New;
    }
    if !altered.contains(&event.id) {
        return Receipt::Duplicate;
    }
    warn_of_altered(event);
    Receipt::Altered
}

fn warn_of_altered(event: &Received) {
    const TEXT: &str = "a webhook came again with another body; the first stays";
    let (provider, id) = (event.provider.name(), &event.event_id);
    match event.provider {
        // It counts in the body to how many endpoints an event is still to be sent.
        Provider::Stripe => tracing::warn!(provider, event.id = %id, "{TEXT}"),
        // It repeats bodies as they are, and the name is not signed: somebody plays with old webhooks.
        Provider::Razorpay => tracing::error!(provider, event.id = %id, "{TEXT}"),
    }
}
