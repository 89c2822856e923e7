//! A Stripe: forms in, JSON out, and `PaymentIntent`s that live as the real ones do.

mod acts;
mod api;
mod books;
mod cards;
mod objects;
mod params;
mod refusal;

use base64::{Engine, prelude::BASE64_STANDARD};
use poem::http::{Method, StatusCode};

use self::refusal::plain;
pub(super) use self::{api::execute, books::Books};
use super::{
    config::Config,
    front::{Answer, Call},
    operation::Operation,
};
use crate::providers::world::new_id;

/// What `call` asks for; `None` where Stripe has nothing there.
pub(super) fn operation(call: &Call) -> Option<Operation> {
    let get = call.method == Method::GET;
    let post = call.method == Method::POST;
    match call.words().as_slice() {
        ["payment_intents"] if post => Some(Operation::CreateIntent),
        ["payment_intents"] if get => Some(Operation::ListIntents),
        ["payment_intents", "search"] if get => Some(Operation::SearchIntents),
        ["payment_intents", _] if get => Some(Operation::RetrieveIntent),
        ["payment_intents", _, "confirm"] if post => Some(Operation::ConfirmIntent),
        ["payment_intents", _, "cancel"] if post => Some(Operation::CancelIntent),
        ["payment_intents", _, "capture"] if post => Some(Operation::CaptureIntent),
        ["refunds"] if post => Some(Operation::CreateRefund),
        ["refunds"] if get => Some(Operation::ListRefunds),
        ["refunds", _] if get => Some(Operation::RetrieveRefund),
        ["charges", _] if get => Some(Operation::RetrieveCharge),
        ["events"] if get => Some(Operation::ListEvents),
        ["events", _] if get => Some(Operation::RetrieveEvent),
        ["disputes"] if get => Some(Operation::ListDisputes),
        ["disputes", _] if get => Some(Operation::RetrieveDispute),
        _ => None,
    }
}

/// Stripe remembers the key of every POST.
pub(super) fn key(call: &Call) -> Option<&str> {
    call.header("idempotency-key").filter(|_| call.method == Method::POST)
}

/// The key comes as a bearer's token, or as the user of Basic.
pub(super) fn knows_sender(config: &Config, call: &Call) -> bool {
    let Some(authorization) = call.header("authorization") else {
        return false;
    };
    let key = &config.stripe_key;
    authorization == format!("Bearer {key}")
        || authorization == format!("Basic {}", BASE64_STANDARD.encode(format!("{key}:")))
}

pub(super) fn unauthenticated() -> Answer {
    let message = "Invalid API Key provided.";
    identified(plain(StatusCode::UNAUTHORIZED, "invalid_request_error", None, message))
}

pub(super) fn unknown_path(call: &Call) -> Answer {
    let message = format!("Unrecognized request URL ({}: {}).", call.method, call.path);
    identified(plain(StatusCode::NOT_FOUND, "invalid_request_error", None, &message))
}

pub(super) fn rate_limited() -> Answer {
    let message = "Request rate limit exceeded.";
    let code = Some("rate_limit");
    identified(plain(StatusCode::TOO_MANY_REQUESTS, "invalid_request_error", code, message))
}

pub(super) fn internal_error() -> Answer {
    let message = "An unknown error occurred.";
    identified(plain(StatusCode::INTERNAL_SERVER_ERROR, "api_error", None, message))
}

pub(super) fn key_in_use() -> Answer {
    let message = "There is currently another in-progress request using this Idempotency Key.";
    let code = Some("idempotency_key_in_use");
    identified(plain(StatusCode::CONFLICT, "idempotency_error", code, message))
}

pub(super) fn key_misused(other: &str) -> Answer {
    let message = format!(
        "Keys for idempotent requests can only be used with the same {other} they were first \
         used with. Try using a different key if you meant to execute a different request."
    );
    identified(plain(StatusCode::BAD_REQUEST, "idempotency_error", None, &message))
}

fn identified(answer: Answer) -> Answer {
    answer.with_header("request-id", new_id("req", 14))
}
