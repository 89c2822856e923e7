//! What Stripe's webhooks say.

use serde::Deserialize;
use serde_json::Value;

use super::{
    NOT_ACTED_ON, Reading,
    fields::{Unreadable, charge, name, payment_id, text, truth},
};
use crate::{
    clients::stripe::amount_here,
    payments::{Charge, News, Provider, Standing},
};

/// What every event of Stripe has.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Envelope {
    pub(super) id: Option<String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// Reads the envelope of an event; nothing of it where the body is not as we know it.
pub(super) fn envelope(body: &[u8]) -> Envelope {
    serde_json::from_slice(body).unwrap_or_default()
}

const INTENT: &str = "/data/object/id";
const AMOUNT: &str = "/data/object/amount_received";

pub(super) fn read(kind: &str, body: &Value, livemode: bool) -> Result<Reading, Unreadable> {
    if kind.is_empty() {
        return Err(Unreadable("/type"));
    }
    // Whatever it is: our endpoint is not where the other mode's events belong.
    match truth(body, "/livemode") {
        Ok(theirs) if theirs == livemode => {}
        Ok(true) => return Ok(Reading::Park("live-mode event".to_owned())),
        Ok(false) => return Ok(Reading::Park("test-mode event".to_owned())),
        // It matters only where money does.
        Err(_) if !is_acted_on(kind) => {}
        Err(unreadable) => return Err(unreadable),
    }
    match kind {
        "payment_intent.succeeded" => succeeded(body, livemode),
        kind if is_acted_on(kind) => Ok(Reading::Review { provider_ref: name(body, INTENT)? }),
        _ => Ok(Reading::Ignore(NOT_ACTED_ON)),
    }
}

fn is_acted_on(kind: &str) -> bool {
    matches!(
        kind,
        "payment_intent.succeeded"
            | "payment_intent.payment_failed"
            | "payment_intent.processing"
            | "payment_intent.canceled"
            | "payment_intent.requires_action"
            | "payment_intent.amount_capturable_updated"
    )
}

fn succeeded(body: &Value, livemode: bool) -> Result<Reading, Unreadable> {
    let provider_ref = name(body, INTENT)?;
    // An event is a picture of its moment. One that contradicts itself is none of money collected.
    if text(body, "/data/object/status") != Some("succeeded") {
        return Ok(Reading::Review { provider_ref });
    }
    let charge = charge(body, provider_ref.clone(), AMOUNT, "/data/object/currency")?;
    let amount_minor =
        amount_here(charge.amount_minor, &charge.currency).ok_or(Unreadable(AMOUNT))?;
    let charge = Charge { amount_minor, ..charge };
    Ok(Reading::Settle(News {
        provider: Provider::Stripe,
        provider_ref,
        payment_id: payment_id(body, "/data/object/metadata/payment_id"),
        livemode,
        standing: Standing::Captured(vec![charge]),
    }))
}
