//! Asking a provider how refunds stand, because a webhook or a list gives cause to.

use super::{CheckoutError, Heard, settle_refund};
use crate::{
    checkout::events::give_up,
    context::Context,
    kernel::{EventId, failpoint},
    payments::{
        Provider, gateway,
        gateway::RefundAtProvider,
        inbox::{self, Outcome},
    },
};

/// Why an event is ignored whose refund is of no money of ours: others may share the account, and
/// providers give back by themselves what was never collected.
const NOT_OURS: &str = "not ours";

/// Asks how the refund stands, acts on the answer, and finishes the webhooks about it.
pub async fn review_refund(
    cx: &Context,
    provider: Provider,
    provider_ref: &str,
    events: &[EventId],
) -> Result<Heard, CheckoutError> {
    let news = gateway::look_at_refund(cx, provider, provider_ref).await?;
    failpoint::pass("review-refund.after-call");
    let Some(news) = news else {
        give_up(cx, events).await?;
        return Ok(Heard::Foreign);
    };
    act_on(cx, provider, &[news], events).await
}

/// The same for every refund of a charge, where a webhook does not say which is meant.
pub async fn review_refunds_of(
    cx: &Context,
    provider: Provider,
    charge_ref: &str,
    events: &[EventId],
) -> Result<Heard, CheckoutError> {
    let news = gateway::refunds_of(cx, provider, charge_ref).await?;
    act_on(cx, provider, &news, events).await
}

async fn act_on(
    cx: &Context,
    provider: Provider,
    news: &[RefundAtProvider],
    events: &[EventId],
) -> Result<Heard, CheckoutError> {
    let mut heard = Heard::Foreign;
    for news in news {
        heard = heard.max(settle_refund(cx, provider, news).await?);
    }
    let outcome = match heard {
        Heard::Foreign => Outcome::Ignored(NOT_OURS.to_owned()),
        Heard::Known | Heard::New => Outcome::Done,
    };
    let outcomes: Vec<_> = events.iter().map(|&id| (id, outcome.clone())).collect();
    if !outcomes.is_empty() {
        inbox::store::finish(&cx.db, &outcomes).await?;
    }
    Ok(heard)
}
