//! Mails for the eye, and for tests in other processes.

use std::sync::Arc;

use minijinja::{Environment, Value, context};
use poem::{
    Endpoint, EndpointExt, IntoResponse, Response, Route,
    error::{InternalServerError, NotFoundError},
    get, handler,
    http::StatusCode,
    put,
    web::{Data, Html, Json, Path},
};
use serde::Deserialize;
use time::{format_description::BorrowedFormatItem, macros::format_description};

use super::{fault::Fault, mail::Mail, shelf::Shelf};

/// As many as anyone scrolls through.
const LISTED_MAX: usize = 200;

/// As many strikes as one order can ask for: each is a place in a queue.
const STRIKES_MAX: u32 = 100_000;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

/// - `GET /` lists the newest mails, `GET /mails/{number}` shows one, `…/html` and `…/raw` are
///   its parts.
/// - `GET /api/mails` answers every mail in the order of acceptance, `DELETE` forgets them.
/// - `PUT /api/fault` with `{"fault": "temporary-failure", "times": 2}` strikes the next two
///   clients; without `times` the fault lasts, and `{"fault": null}` ends every fault.
pub(super) fn routes(shelf: Arc<Shelf>, others: Route) -> impl Endpoint {
    others
        .at("/", get(list))
        .at("/mails/:number", get(show))
        .at("/mails/:number/html", get(html_part))
        .at("/mails/:number/raw", get(raw))
        .at("/api/mails", get(all_mails).delete(forget_mails))
        .at("/api/fault", put(set_fault))
        .data(shelf)
}

/// A mail as the templates want it.
fn shown(mail: &Mail) -> poem::Result<Value> {
    let received_at = mail.received_at.format(TIME).map_err(InternalServerError)?;
    Ok(context! {
        number => mail.number,
        from => mail.from.as_str(),
        to => mail.to.join(", "),
        subject => mail.subject.as_str(),
        received_at => received_at,
        text => mail.text.as_str(),
        has_html => !mail.html.is_empty(),
    })
}

#[handler]
fn list(Data(shelf): Data<&Arc<Shelf>>) -> poem::Result<Html<String>> {
    let mails = shelf.mails();
    let newest = mails.iter().rev().take(LISTED_MAX);
    let newest = newest.map(|mail| shown(mail)).collect::<poem::Result<Vec<_>>>()?;
    render(include_str!("list.html"), context! { mails => newest, total => mails.len() })
}

#[handler]
fn show(Data(shelf): Data<&Arc<Shelf>>, Path(number): Path<u64>) -> poem::Result<Html<String>> {
    let mail = shelf.find(number).ok_or(NotFoundError)?;
    render(include_str!("mail.html"), context! { mail => shown(&mail)? })
}

/// Renders `template` with HTML escaping, which minijinja derives from the name.
fn render(template: &str, values: Value) -> poem::Result<Html<String>> {
    Environment::new()
        .render_named_str("page.html", template, values)
        .map(Html)
        .map_err(InternalServerError)
}

/// The HTML part alone: no script, no form, nothing loaded from elsewhere, even if opened
/// outside the frame.
#[handler]
fn html_part(Data(shelf): Data<&Arc<Shelf>>, Path(number): Path<u64>) -> poem::Result<Response> {
    let mail = shelf.find(number).ok_or(NotFoundError)?;
    Ok(Html(mail.html.clone())
        .with_header(
            "content-security-policy",
            "sandbox allow-popups; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        )
        .into_response())
}

#[handler]
fn raw(Data(shelf): Data<&Arc<Shelf>>, Path(number): Path<u64>) -> poem::Result<Response> {
    let mail = shelf.find(number).ok_or(NotFoundError)?;
    Ok(Response::builder()
        .content_type("text/plain; charset=utf-8")
        .header("x-content-type-options", "nosniff")
        .body(mail.raw.clone()))
}

#[handler]
fn all_mails(Data(shelf): Data<&Arc<Shelf>>) -> impl IntoResponse {
    let mails = shelf.mails();
    let mails: Vec<&Mail> = mails.iter().map(AsRef::as_ref).collect();
    Json(mails).into_response()
}

#[handler]
fn forget_mails(Data(shelf): Data<&Arc<Shelf>>) -> StatusCode {
    shelf.clear();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrder {
    fault: Option<Fault>,
    times: Option<u32>,
}

#[handler]
fn set_fault(Data(shelf): Data<&Arc<Shelf>>, Json(order): Json<FaultOrder>) -> StatusCode {
    match (order.fault, order.times) {
        (_, Some(times)) if times > STRIKES_MAX => return StatusCode::UNPROCESSABLE_ENTITY,
        (None, Some(_)) => return StatusCode::UNPROCESSABLE_ENTITY,
        (Some(fault), Some(times)) => shelf.faults().strike_next(fault, times),
        (fault, None) => shelf.faults().strike_always(fault),
    }
    StatusCode::NO_CONTENT
}
