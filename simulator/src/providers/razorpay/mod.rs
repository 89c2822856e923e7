//! A Razorpay: JSON in and out, orders, and payments that may come late.

mod acts;
mod api;
mod books;
mod objects;
mod refusal;

use base64::{Engine, prelude::BASE64_STANDARD};
use poem::http::{Method, StatusCode};

use self::refusal::Refusal;
pub(super) use self::{api::execute, books::Books};
use super::{
    config::Config,
    front::{Answer, Call},
    operation::Operation,
};

/// Razorpay's limit for a refund's key.
const KEY_CHARS_MIN: usize = 10;

/// What `call` asks for; `None` where Razorpay has nothing there.
pub(super) fn operation(call: &Call) -> Option<Operation> {
    let get = call.method == Method::GET;
    let post = call.method == Method::POST;
    match call.words().as_slice() {
        ["orders"] if post => Some(Operation::CreateOrder),
        ["orders"] if get => Some(Operation::ListOrders),
        ["orders", _] if get => Some(Operation::RetrieveOrder),
        ["orders", _, "payments"] if get => Some(Operation::ListOrderPayments),
        ["payments"] if get => Some(Operation::ListPayments),
        ["payments", _] if get => Some(Operation::RetrievePayment),
        ["payments", _, "capture"] if post => Some(Operation::CapturePayment),
        ["payments", _, "refund"] if post => Some(Operation::RefundPayment),
        ["payments", _, "refunds"] if get => Some(Operation::ListPaymentRefunds),
        ["refunds", _] | ["payments", _, "refunds", _] if get => {
            Some(Operation::RetrievePaymentRefund)
        }
        ["refunds"] if get => Some(Operation::ListAllRefunds),
        ["disputes"] if get => Some(Operation::ListPaymentDisputes),
        ["disputes", _] if get => Some(Operation::RetrievePaymentDispute),
        _ => None,
    }
}

/// Razorpay remembers the keys of refunds, and of nothing else.
pub(super) fn key(call: &Call, operation: Operation) -> Result<Option<&str>, Answer> {
    let Some(key) = call.header("x-refund-idempotency") else {
        return Ok(None);
    };
    if operation != Operation::RefundPayment {
        return Ok(None);
    }
    let allowed = |letter: u8| letter.is_ascii_alphanumeric() || b"-_".contains(&letter);
    if key.len() < KEY_CHARS_MIN || !key.bytes().all(allowed) {
        let message = "The idempotency key must have at least 10 characters of A-Z, a-z, 0-9, - \
                       and _.";
        return Err(Refusal::bad_request(message).into_answer());
    }
    Ok(Some(key))
}

pub(super) fn knows_sender(config: &Config, call: &Call) -> bool {
    let pair = format!("{}:{}", config.razorpay_key_id, config.razorpay_key_secret);
    let expected = format!("Basic {}", BASE64_STANDARD.encode(pair));
    call.header("authorization") == Some(expected.as_str())
}

pub(super) fn unauthenticated() -> Answer {
    Refusal::bad_request("Authentication failed")
        .with_status(StatusCode::UNAUTHORIZED)
        .into_answer()
}

pub(super) fn unknown_path() -> Answer {
    let message = "The requested URL was not found on the server.";
    Refusal::bad_request(message).with_status(StatusCode::NOT_FOUND).into_answer()
}

pub(super) fn rate_limited() -> Answer {
    Refusal::bad_request("Request failed. Please try after sometime.")
        .with_status(StatusCode::TOO_MANY_REQUESTS)
        .into_answer()
}

pub(super) fn internal_error() -> Answer {
    Refusal::server_error().into_answer()
}

pub(super) fn key_in_use() -> Answer {
    let message = "The request is already in progress. Please retry after some time.";
    Refusal::bad_request(message).with_status(StatusCode::CONFLICT).into_answer()
}

pub(super) fn key_misused() -> Answer {
    let message = "Different request body sent with the same idempotency key.";
    Refusal::bad_request(message).into_answer()
}
