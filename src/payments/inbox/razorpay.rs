//! What Razorpay's webhooks say.
//!
//! They do not say whether money is real: each mode has an endpoint with a secret of its own.

use serde::Deserialize;
use serde_json::Value;

use super::{
    NOT_ACTED_ON, Reading,
    fields::{Unreadable, charge, name, name_if_any, payment_id, text},
};
use crate::payments::{News, Provider, Standing};

/// Reads what happened; `None` where the body is not as we know it.
pub(super) fn kind(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        event: String,
    }
    serde_json::from_slice(body).ok().map(|Envelope { event }| event)
}

const PAYMENT: &str = "/payload/payment/entity/id";
const ORDER_OF_PAYMENT: &str = "/payload/payment/entity/order_id";
const STATUS: &str = "/payload/payment/entity/status";
const REFUND: &str = "/payload/refund/entity/id";
const DISPUTE: &str = "/payload/dispute/entity/id";

pub(super) fn read(kind: &str, body: &Value, livemode: bool) -> Result<Reading, Unreadable> {
    match kind {
        "" => Err(Unreadable("/event")),
        // Both tell of the same money.
        "payment.captured" | "order.paid" => captured(body, livemode),
        "payment.authorized" | "payment.failed" => Ok(match order(body)? {
            Some(provider_ref) => Reading::Review { provider_ref },
            None => Reading::Ignore(WITHOUT_ORDER),
        }),
        "refund.created" | "refund.processed" | "refund.failed" | "refund.speed_changed" => {
            Ok(Reading::ReviewRefund { provider_ref: name(body, REFUND)? })
        }
        // Whatever it says: how the dispute stands, its object tells.
        kind if kind.starts_with("payment.dispute.") => {
            Ok(Reading::ReviewDispute { provider_ref: name(body, DISPUTE)? })
        }
        _ => Ok(Reading::Ignore(NOT_ACTED_ON)),
    }
}

/// Ours are never without: the order at Razorpay is made before the shopper can pay.
const WITHOUT_ORDER: &str = "a payment without an order";

/// Razorpay's order that the payment belongs to.
fn order(body: &Value) -> Result<Option<String>, Unreadable> {
    // Without a payment nothing says that it belongs to no order.
    name(body, PAYMENT)?;
    Ok(match name_if_any(body, ORDER_OF_PAYMENT)? {
        Some(order) => Some(order),
        None => name_if_any(body, "/payload/order/entity/id")?,
    })
}

fn captured(body: &Value, livemode: bool) -> Result<Reading, Unreadable> {
    let Some(provider_ref) = order(body)? else { return Ok(Reading::Ignore(WITHOUT_ORDER)) };
    // An event is a picture of its moment. One that contradicts itself is none of money collected.
    if text(body, STATUS) != Some("captured") {
        return Ok(Reading::Review { provider_ref });
    }
    let charge = charge(
        body,
        name(body, PAYMENT)?,
        "/payload/payment/entity/amount",
        "/payload/payment/entity/currency",
    )?;
    // The order's are ours; the payment's may come from the browser.
    let notes =
        ["/payload/order/entity/notes/payment_id", "/payload/payment/entity/notes/payment_id"];
    Ok(Reading::Settle(News {
        provider: Provider::Razorpay,
        provider_ref,
        payment_id: notes.into_iter().find_map(|pointer| payment_id(body, pointer)),
        livemode,
        standing: Standing::Captured(vec![charge]),
    }))
}
