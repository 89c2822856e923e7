//! What Stripe's webhooks say.

use serde::Deserialize;
use serde_json::Value;

use super::{
    NOT_ACTED_ON, Reading,
    fields::{Unreadable, charge, name, name_if_any, payment_id, text, truth},
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

const OBJECT: &str = "/data/object/id";
const INTENT_OF_CHARGE: &str = "/data/object/payment_intent";
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
        Err(_) if about(kind).is_none() => {}
        Err(unreadable) => return Err(unreadable),
    }
    Ok(match about(kind) {
        Some(About::Money) => succeeded(body, livemode)?,
        Some(About::Intent) => Reading::Review { provider_ref: name(body, OBJECT)? },
        Some(About::Refund) => Reading::ReviewRefund { provider_ref: name(body, OBJECT)? },
        Some(About::Charge) => match name_if_any(body, INTENT_OF_CHARGE)? {
            Some(charge_ref) => Reading::ReviewRefundsOf { charge_ref },
            None => Reading::Ignore(WITHOUT_INTENT),
        },
        Some(About::Dispute) => Reading::ReviewDispute { provider_ref: name(body, OBJECT)? },
        None => Reading::Ignore(NOT_ACTED_ON),
    })
}

/// Ours are never without: money is collected for intents alone.
const WITHOUT_INTENT: &str = "a charge without an intent";

/// What an event tells of, which is the object that it holds.
enum About {
    /// An intent that was paid.
    Money,
    Intent,
    Refund,
    /// A charge of which some went back.
    Charge,
    Dispute,
}

/// What an event of the kind tells of; `None` where it is nothing that we act on.
fn about(kind: &str) -> Option<About> {
    match kind {
        "payment_intent.succeeded" => Some(About::Money),
        "payment_intent.payment_failed"
        | "payment_intent.processing"
        | "payment_intent.canceled"
        | "payment_intent.requires_action"
        | "payment_intent.amount_capturable_updated" => Some(About::Intent),
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => {
            Some(About::Refund)
        }
        "charge.refunded" => Some(About::Charge),
        // Whatever it says: how the dispute stands, its object tells.
        kind if kind.starts_with("charge.dispute.") => Some(About::Dispute),
        _ => None,
    }
}

fn succeeded(body: &Value, livemode: bool) -> Result<Reading, Unreadable> {
    let provider_ref = name(body, OBJECT)?;
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
