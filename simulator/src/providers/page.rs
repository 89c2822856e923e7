//! The shopper's page: what can be paid, and a button for whatever a bank may say.

use std::sync::Arc;

use minijinja::{Environment, Value, context};
use poem::{
    EndpointExt, IntoResponse, Response, Route, RouteMethod,
    error::InternalServerError,
    get, handler,
    http::StatusCode,
    post,
    web::{Data, Form, Html, Redirect},
};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::{
    acts::{Act, Payment},
    control,
    operation::Provider,
    signatures::sign_checkout,
    webhooks::{Attempt, Delivery, Outcome},
    world::Shared,
};

/// As many as anyone scrolls through.
const LISTED_MAX: usize = 50;

const TIME: &[BorrowedFormatItem<'_>] = format_description!("[hour]:[minute]:[second]");

/// - `GET /payments` shows what can be paid, what was, and how the shop was told.
/// - What its buttons post is redirected back to it.
/// - The rest is for other processes, in JSON.
pub(super) fn routes(shared: &Arc<Shared>) -> Route {
    let with = |endpoint: RouteMethod| endpoint.data(Arc::clone(shared));
    control::routes(shared)
        .at("/payments", with(get(list)))
        .at("/payments/act", with(post(act)))
        .at("/payments/delivery", with(post(set_delivery)))
        .at("/payments/redeliver", with(post(redeliver)))
        .at("/payments/clear-faults", with(post(clear_faults)))
}

#[handler]
fn list(Data(shared): Data<&Arc<Shared>>) -> poem::Result<Html<String>> {
    let mut payments = shared.payments(Provider::Stripe);
    payments.extend(shared.payments(Provider::Razorpay));
    payments.sort_by_key(|payment| std::cmp::Reverse(payment.created));
    let (open, closed): (Vec<_>, Vec<_>) = payments.iter().partition(|payment| payment.is_open);
    let secret = &shared.config.razorpay_key_secret;
    let shown = |payments: &[&Payment]| -> Vec<Value> {
        payments.iter().take(LISTED_MAX).map(|payment| shown_payment(payment, secret)).collect()
    };
    let attempts = shared.post.attempts();
    let attempts: Vec<_> = attempts.iter().rev().take(LISTED_MAX).map(shown_attempt).collect();
    let deliveries: Vec<_> = [Provider::Stripe, Provider::Razorpay]
        .map(|provider| {
            let delivery = format!("{:?}", shared.post.delivery(provider));
            context! { provider => provider.name(), delivery => delivery }
        })
        .into();
    let faults = shared.faults().shown();
    let page = context! {
        open => shown(&open),
        open_total => open.len(),
        closed => shown(&closed),
        attempts => attempts,
        deliveries => deliveries,
        faults => faults,
    };
    // The name is what has minijinja escape HTML.
    Environment::new()
        .render_named_str("page.html", include_str!("page.html"), page)
        .map(Html)
        .map_err(InternalServerError)
}

fn shown_payment(payment: &Payment, key_secret: &str) -> Value {
    let attempts: Vec<Value> = payment
        .payments
        .iter()
        .map(|(id, status)| {
            let agreed = status == "authorized" || status == "captured";
            let signature = agreed.then(|| sign_checkout(key_secret, &payment.reference, id));
            context! { id => id, status => status, signature => signature }
        })
        .collect();
    let metadata: Vec<_> =
        payment.metadata.iter().map(|(key, value)| format!("{key} {value}")).collect();
    context! {
        provider => payment.provider.name(),
        reference => payment.reference.as_str(),
        amount => shown_amount(payment.amount_minor, &payment.currency),
        status => payment.status.as_str(),
        receipt => payment.receipt.as_deref(),
        metadata => metadata,
        attempts => attempts,
        created => shown_time(payment.created),
    }
}

fn shown_attempt(attempt: &Attempt) -> Value {
    let outcome = match attempt.outcome {
        Outcome::Answered(status) => status.to_string(),
        Outcome::NotAnswered => "no answer".to_owned(),
        Outcome::Lost => "lost".to_owned(),
        Outcome::Undeliverable => "no URL".to_owned(),
    };
    context! {
        provider => attempt.provider.name(),
        event_id => attempt.event_id.as_str(),
        kind => attempt.kind.as_str(),
        number => attempt.number,
        outcome => outcome,
        at => shown_time(attempt.at),
    }
}

/// `at` as a time of the day in UTC.
fn shown_time(at: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at).ok();
    at.and_then(|at| at.format(TIME).ok()).unwrap_or_default()
}

/// Minor units as people write them.
fn shown_amount(amount_minor: i64, currency: &str) -> String {
    let (units, digits) = match currency {
        "CLP" | "ISK" | "JPY" | "KRW" | "PYG" | "UGX" | "VND" | "XAF" | "XOF" | "XPF" => (1, 0),
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => (1_000, 3),
        _ => (100, 2),
    };
    match digits {
        0 => format!("{currency} {amount_minor}"),
        _ => format!("{currency} {}.{:0digits$}", amount_minor / units, amount_minor % units),
    }
}

fn back() -> Response {
    Redirect::see_other("/payments").into_response()
}

#[derive(Deserialize)]
struct Pressed {
    reference: String,
    act: String,
}

#[handler]
fn act(Data(shared): Data<&Arc<Shared>>, Form(pressed): Form<Pressed>) -> Response {
    let act = match pressed.act.as_str() {
        "succeed" => Act::Succeed,
        "succeed-later" => Act::SucceedAfterMs(10_000),
        "require-action" => Act::RequireAction,
        "process" => Act::Process,
        "authorise-late" => Act::AuthoriseLate,
        "lapse" => Act::Lapse,
        code => Act::Decline(code.to_owned()),
    };
    match shared.act(&pressed.reference, &act) {
        Ok(_) => back(),
        Err(error) => error.to_string().with_status(StatusCode::CONFLICT).into_response(),
    }
}

#[derive(Deserialize)]
struct Chosen {
    provider: Provider,
    delivery: String,
}

#[handler]
fn set_delivery(Data(shared): Data<&Arc<Shared>>, Form(chosen): Form<Chosen>) -> Response {
    let delivery = match chosen.delivery.as_str() {
        "normal" => Delivery::Normal,
        "lost" => Delivery::Lost,
        "tripled" => Delivery::Tripled,
        "reordered" => Delivery::Reordered,
        "delayed" => Delivery::Delayed(10_000),
        "paused" => Delivery::Paused,
        _ => return StatusCode::UNPROCESSABLE_ENTITY.into_response(),
    };
    shared.post.set_delivery(chosen.provider, delivery);
    back()
}

#[derive(Deserialize)]
struct Again {
    event_id: String,
}

#[handler]
fn redeliver(Data(shared): Data<&Arc<Shared>>, Form(again): Form<Again>) -> Response {
    shared.post.redeliver(&again.event_id);
    back()
}

#[handler]
fn clear_faults(Data(shared): Data<&Arc<Shared>>) -> Response {
    shared.faults().clear();
    back()
}
