//! What Razorpay answers to each call that it understands.

use std::collections::BTreeMap;

use poem::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    books::{Books, NewOrder},
    objects::{Dispute, Order, Payment, PaymentStatus, Refund},
    refusal::Refusal,
};
use crate::providers::{
    config::RepeatedReceipt,
    front::{Answer, Call},
};

/// INR 1.00, or one of whatever the currency has a hundred of.
const AMOUNT_MIN: i64 = 100;
const RECEIPT_CHARS_MAX: usize = 40;
const NOTES_MAX: usize = 15;
const NOTE_CHARS_MAX: usize = 256;
const PAGE: usize = 10;
const PAGE_MAX: usize = 100;

/// Does what `call` asks for.
pub(in crate::providers) fn execute(books: &mut Books, call: &Call) -> Answer {
    match serve(books, call) {
        Ok(shown) => Answer::json(StatusCode::OK, &shown, true),
        Err(refusal) => refusal.into_answer(),
    }
}

fn serve(books: &mut Books, call: &Call) -> Result<Value, Refusal> {
    let post = call.method == Method::POST;
    match call.words().as_slice() {
        ["orders"] if post => create_order(books, &body(call)?),
        ["orders"] => list_orders(books, call),
        ["orders", id] => {
            let order = books.orders.find(id).ok_or_else(Refusal::unknown_id)?;
            Ok(order.shown())
        }
        ["orders", id, "payments"] => order_payments(books, id),
        ["payments"] => list_payments(books, call),
        ["payments", id] => Ok(payment(books, id)?.shown()),
        ["payments", id, "capture"] => capture(books, id, &body(call)?),
        ["payments", id, "refund"] => refund(books, id, &body(call)?),
        ["payments", id, "refunds"] => payment_refunds(books, call, id),
        ["refunds", id] | ["payments", _, "refunds", id] => {
            let refund = books.refunds.find(id).ok_or_else(Refusal::unknown_id)?;
            Ok(refund.shown())
        }
        ["refunds"] => list_refunds(books, call),
        ["disputes"] => list_disputes(books, call),
        ["disputes", id] => {
            let dispute = books.disputes.find(id).ok_or_else(Refusal::unknown_id)?;
            Ok(dispute.shown())
        }
        _ => Err(Refusal::bad_request("The requested URL was not found on the server.")),
    }
}

fn body(call: &Call) -> Result<Map<String, Value>, Refusal> {
    if call.body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&call.body)
        .map_err(|_| Refusal::bad_request("The request body is not valid JSON."))
}

fn payment<'a>(books: &'a Books, id: &str) -> Result<&'a Payment, Refusal> {
    books.payments.find(id).ok_or_else(Refusal::unknown_id)
}

fn create_order(books: &mut Books, body: &Map<String, Value>) -> Result<Value, Refusal> {
    let new = new_order(body)?;
    let unique = body.get("unique_receipt").is_none_or(|unique| *unique != json!(false));
    let known = new.receipt.as_ref().filter(|_| unique).and_then(|receipt| {
        books.orders.newest().find(|order| order.receipt.as_ref() == Some(receipt))
    });
    if let Some(known) = known {
        return match books.repeated_receipt {
            RepeatedReceipt::SameOrder => Ok(known.shown()),
            RepeatedReceipt::Refused => {
                Err(Refusal::field("receipt", "Order receipt should be unique"))
            }
        };
    }
    let id = books.create(new);
    let order = books.orders.find(&id).ok_or_else(Refusal::unknown_id)?;
    Ok(order.shown())
}

fn new_order(body: &Map<String, Value>) -> Result<NewOrder, Refusal> {
    let amount = integer(body, "amount", "The amount must be an integer.")?
        .ok_or_else(|| Refusal::field("amount", "The amount field is required."))?;
    if amount < AMOUNT_MIN {
        return Err(Refusal::field("amount", "Order amount less than minimum amount allowed"));
    }
    let currency = body.get("currency").and_then(Value::as_str);
    let currency =
        currency.ok_or_else(|| Refusal::field("currency", "The currency field is required."))?;
    if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_uppercase()) {
        return Err(Refusal::field("currency", "Currency is not supported"));
    }
    let receipt = match body.get("receipt") {
        None | Some(Value::Null) => None,
        Some(Value::String(receipt)) => Some(receipt.clone()),
        Some(_) => return Err(Refusal::field("receipt", "The receipt must be a string.")),
    };
    let length = receipt.as_ref().map_or(0, |receipt| receipt.chars().count());
    if length > RECEIPT_CHARS_MAX {
        let message = "The receipt may not be greater than 40 characters.";
        return Err(Refusal::field("receipt", message));
    }
    let captures = body
        .get("payment_capture")
        .map(|capture| *capture == json!(1) || *capture == json!(true) || *capture == json!("1"));
    let currency = currency.to_owned();
    Ok(NewOrder { amount, currency, receipt, notes: notes(body)?, captures })
}

/// A list of notes is as good as none, for that is how Razorpay itself writes it.
fn notes(body: &Map<String, Value>) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(Value::Object(notes)) = body.get("notes") else {
        return Ok(BTreeMap::new());
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let notes: BTreeMap<String, String> =
        notes.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let too_long = notes.values().any(|note| note.chars().count() > NOTE_CHARS_MAX);
    if notes.len() > NOTES_MAX || too_long {
        let message = "The notes may not have more than 15 items of 256 characters.";
        return Err(Refusal::field("notes", message));
    }
    Ok(notes)
}

fn integer(
    body: &Map<String, Value>,
    name: &'static str,
    message: &str,
) -> Result<Option<i64>, Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(digits)) => {
            digits.parse().map(Some).map_err(|_| Refusal::field(name, message))
        }
        Some(value) => value.as_i64().map(Some).ok_or_else(|| Refusal::field(name, message)),
    }
}

fn capture(books: &mut Books, id: &str, body: &Map<String, Value>) -> Result<Value, Refusal> {
    let amount = integer(body, "amount", "The amount must be an integer.")?
        .ok_or_else(|| Refusal::field("amount", "The amount field is required."))?;
    let known = payment(books, id)?;
    match known.status {
        PaymentStatus::Authorized => {}
        PaymentStatus::Captured | PaymentStatus::Refunded => {
            return Err(Refusal::bad_request("This payment has already been captured"));
        }
        PaymentStatus::Created | PaymentStatus::Failed => {
            let message = "Only payments which have been authorized and not yet captured can be \
                           captured";
            return Err(Refusal::bad_request(message));
        }
    }
    let currency = body.get("currency").and_then(Value::as_str).unwrap_or("INR");
    if amount != known.amount || currency != known.currency {
        let message = "Capture amount must be equal to the amount authorized";
        return Err(Refusal::field("amount", message));
    }
    books.take(id);
    Ok(payment(books, id)?.shown())
}

fn refund(books: &mut Books, id: &str, body: &Map<String, Value>) -> Result<Value, Refusal> {
    let known = payment(books, id)?;
    let left = known.amount - known.amount_refunded;
    match known.status {
        PaymentStatus::Captured => {}
        PaymentStatus::Refunded => {
            return Err(Refusal::bad_request("The payment has been fully refunded already"));
        }
        PaymentStatus::Created | PaymentStatus::Authorized | PaymentStatus::Failed => {
            let message = "The payment status should be captured for action to be taken";
            return Err(Refusal::bad_request(message));
        }
    }
    if books.is_charged_back(id) {
        let message = "The payment cannot be refunded while it is under dispute";
        return Err(Refusal::bad_request(message));
    }
    let amount = integer(body, "amount", "The amount must be an integer.")?.unwrap_or(left);
    if amount < AMOUNT_MIN.min(left) {
        return Err(Refusal::field("amount", "The amount must be atleast INR 1.00"));
    }
    if amount > left {
        let message = "The total refund amount is greater than the refund payment amount";
        return Err(Refusal::field("amount", message));
    }
    let receipt = body.get("receipt").and_then(Value::as_str).map(str::to_owned);
    let refund = books.refund(id, amount, receipt, notes(body)?);
    let refund = books.refunds.find(&refund).ok_or_else(Refusal::unknown_id)?;
    Ok(refund.shown())
}

fn order_payments(books: &Books, id: &str) -> Result<Value, Refusal> {
    books.orders.find(id).ok_or_else(Refusal::unknown_id)?;
    let payments = books.payments.newest().filter(|payment| payment.order == id);
    Ok(collection(&payments.map(Payment::shown).collect::<Vec<_>>()))
}

fn list_orders(books: &Books, call: &Call) -> Result<Value, Refusal> {
    let page = Page::of(call)?;
    let receipt = asked(call, "receipt");
    let orders = books.orders.newest().filter(|order| {
        receipt.is_none_or(|receipt| order.receipt.as_deref() == Some(receipt))
            && page.covers(order.created_at)
    });
    Ok(collection(&page.cut(orders.map(Order::shown))))
}

fn list_payments(books: &Books, call: &Call) -> Result<Value, Refusal> {
    let page = Page::of(call)?;
    let payments = books.payments.newest().filter(|payment| page.covers(payment.created_at));
    Ok(collection(&page.cut(payments.map(Payment::shown))))
}

fn payment_refunds(books: &Books, call: &Call, id: &str) -> Result<Value, Refusal> {
    payment(books, id)?;
    let page = Page::of(call)?;
    let refunds = books.refunds.newest();
    let refunds = refunds.filter(|refund| refund.payment == id && page.covers(refund.created_at));
    Ok(collection(&page.cut(refunds.map(Refund::shown))))
}

fn list_refunds(books: &Books, call: &Call) -> Result<Value, Refusal> {
    let page = Page::of(call)?;
    let refunds = books.refunds.newest().filter(|refund| page.covers(refund.created_at));
    Ok(collection(&page.cut(refunds.map(Refund::shown))))
}

fn list_disputes(books: &Books, call: &Call) -> Result<Value, Refusal> {
    let page = Page::of(call)?;
    let disputes = books.disputes.newest().filter(|dispute| page.covers(dispute.created_at));
    Ok(collection(&page.cut(disputes.map(Dispute::shown))))
}

fn collection(items: &[Value]) -> Value {
    json!({ "entity": "collection", "count": items.len(), "items": items })
}

fn asked<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    let found = call.query.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// What of a list is asked for.
struct Page {
    from: i64,
    to: i64,
    count: usize,
    skip: usize,
}

impl Page {
    fn of(call: &Call) -> Result<Self, Refusal> {
        let number = |name: &'static str, default: i64| match asked(call, name) {
            None => Ok(default),
            Some(digits) => {
                digits.parse().map_err(|_| Refusal::field(name, "It must be an integer."))
            }
        };
        let count = usize::try_from(number("count", 10)?).unwrap_or(PAGE);
        if count > PAGE_MAX {
            return Err(Refusal::field("count", "The count may not be greater than 100."));
        }
        Ok(Self {
            from: number("from", i64::MIN)?,
            to: number("to", i64::MAX)?,
            count,
            skip: usize::try_from(number("skip", 0)?).unwrap_or_default(),
        })
    }

    fn covers(&self, created_at: i64) -> bool {
        (self.from..=self.to).contains(&created_at)
    }

    fn cut(&self, rows: impl Iterator<Item = Value>) -> Vec<Value> {
        rows.skip(self.skip).take(self.count).collect()
    }
}
