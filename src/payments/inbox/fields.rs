//! Reading single fields of a webhook, so that whatever else it holds can be as it likes.

use serde_json::Value;

use super::is_name;
use crate::{kernel::PaymentId, payments::Charge};

/// The JSON pointer of a field that is missing, or not what we know it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

/// The provider's name for one of its objects.
pub(super) fn name(body: &Value, pointer: &'static str) -> Result<String, Unreadable> {
    text(body, pointer).filter(|name| is_name(name)).map(str::to_owned).ok_or(Unreadable(pointer))
}

/// The same, where it need not be there.
pub(super) fn name_if_any(
    body: &Value,
    pointer: &'static str,
) -> Result<Option<String>, Unreadable> {
    match body.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(_) => name(body, pointer).map(Some),
    }
}

pub(super) fn text<'a>(body: &'a Value, pointer: &str) -> Option<&'a str> {
    body.pointer(pointer)?.as_str()
}

pub(super) fn truth(body: &Value, pointer: &'static str) -> Result<bool, Unreadable> {
    body.pointer(pointer).and_then(Value::as_bool).ok_or(Unreadable(pointer))
}

/// The money that was collected under that name.
pub(super) fn charge(
    body: &Value,
    charge_ref: String,
    amount: &'static str,
    currency: &'static str,
) -> Result<Charge, Unreadable> {
    let amount_minor = body.pointer(amount).and_then(Value::as_i64).filter(|amount| *amount >= 0);
    let letters = text(body, currency)
        .filter(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_alphabetic()));
    Ok(Charge {
        charge_ref,
        amount_minor: amount_minor.ok_or(Unreadable(amount))?,
        currency: letters.ok_or(Unreadable(currency))?.to_ascii_uppercase(),
        refunds: Vec::new(),
    })
}

/// The id that we gave the payment, if it is there: a payment that somebody else made has none.
pub(super) fn payment_id(body: &Value, pointer: &str) -> Option<PaymentId> {
    let id: uuid::Uuid = text(body, pointer)?.parse().ok()?;
    Some(id.into())
}
