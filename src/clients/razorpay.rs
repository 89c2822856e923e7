//! Razorpay: a dozen calls over our own HTTP.
//!
//! It has no keys for repeated requests, but for refunds. An order's receipt does their work: it is
//! unique, and by it an order is found whose creation had an unknown outcome.

mod disputes;
mod refunds;

use std::{fmt, sync::Arc};

pub use disputes::Dispute;
pub use refunds::{NewRefund, Refund};

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::Sha256;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    budget::Budget,
    call::{BadAccess, CallError, code, id, measured, refusal},
    http::{Answer, Line},
};
use crate::kernel::Money;

const PROVIDER: &str = "razorpay";

/// As many as Razorpay lists at once.
const PAGE: usize = 100;

/// A list that is longer is read in pieces, or not at all.
const PAGES_MAX: usize = 10;

/// A page that gets lost so often would be lost again.
const PAGE_TRIES_MAX: u32 = 3;

/// What we call four errors for which Razorpay has no names.
const RECEIPT_TAKEN: &str = "receipt_taken";
const ALREADY_CAPTURED: &str = "already_captured";
const UNKNOWN_ID: &str = "unknown_id";
const IN_PROGRESS: &str = "in_progress";

/// Where Razorpay is, and who asks.
#[derive(Debug)]
pub struct RazorpayAccess {
    /// A path in it and a slash at its end are both fine.
    pub url: String,
    /// Key ids and their secrets, of one account and mode. The first is used; where it is not known,
    /// the second.
    pub keys: Vec<(String, SecretString)>,
    pub webhook_secrets: Vec<SecretString>,
}

/// Razorpay, as one account. Cheap to clone.
#[derive(Clone)]
pub struct Razorpay(Arc<Account>);

struct Account {
    line: Line<(String, SecretString)>,
    key_id: String,
    livemode: bool,
    webhook_secrets: Vec<SecretString>,
}

/// What an order of theirs is created from.
#[derive(Debug, Clone, Copy)]
pub struct NewOrder<'a> {
    pub amount: Money,
    /// Unique, of at most 40 letters, digits, hyphens and underscores.
    pub receipt: &'a str,
    pub payment_id: Uuid,
    pub order_id: Uuid,
    pub order_number: &'a str,
}

/// What they call an order: an amount that one of any number of payments may pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: String,
    pub receipt: Option<String>,
    pub amount_minor: i64,
    pub currency: String,
    /// `created`, `attempted` or `paid`.
    pub status: String,
    /// Which of our payments it is, if it says so.
    pub payment_id: Option<Uuid>,
}

/// One try to pay an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub id: String,
    pub order_id: Option<String>,
    pub status: PaymentStatus,
    pub amount_minor: i64,
    pub currency: String,
    /// Whether the money was ever collected: it stays true when all of it went back.
    pub captured: bool,
    /// What went back, or is on its way.
    pub amount_refunded_minor: i64,
    pub created_at: Option<OffsetDateTime>,
    /// Why it failed: the reason where there is one, else the class of errors.
    pub error_code: Option<String>,
}

/// How far a try to pay is. One that failed may still be authorized, days later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentStatus {
    Created,
    Authorized,
    Captured,
    Refunded,
    Failed,
    /// One that Razorpay had not when this was written.
    Unheard(String),
}

impl Razorpay {
    /// Razorpay for whoever holds these keys. Nothing is connected yet.
    pub fn new(access: RazorpayAccess, budget: Budget) -> Result<Self, BadAccess> {
        let RazorpayAccess { url, keys, webhook_secrets } = access;
        let (key_id, _) = keys.first().ok_or(BadAccess::NoKey)?;
        let key_id = key_id.clone();
        let livemode = key_id.starts_with("rzp_live_");
        let line = Line::new(PROVIDER, &url, keys, budget)?;
        Ok(Self(Arc::new(Account { line, key_id, livemode, webhook_secrets })))
    }

    /// Whether the money is real.
    pub fn livemode(&self) -> bool {
        self.0.livemode
    }

    /// What a browser opens the checkout with; it is no secret.
    pub fn key_id(&self) -> &str {
        &self.0.key_id
    }

    /// What signs webhooks, the newest first.
    pub fn webhook_secrets(&self) -> &[SecretString] {
        &self.0.webhook_secrets
    }

    /// Creates the order, or returns the one that was created under its receipt before.
    ///
    /// One of another amount or currency is refused with 400.
    pub async fn create_order(&self, order: &NewOrder<'_>) -> Result<Order, CallError> {
        let body = json!({
            "amount": order.amount.minor(),
            "currency": order.amount.currency().code(),
            "receipt": order.receipt,
            "unique_receipt": true,
            "notes": {
                "payment_id": order.payment_id,
                "order_id": order.order_id,
                "order_number": order.order_number,
            },
        });
        let created = self.ask("create_order", Method::POST, "v1/orders", Some(body)).await;
        match created.map(|body: OrderBody| Order::from(body)) {
            Err(CallError::Rejected { code: Some(code), .. }) if code == RECEIPT_TAKEN => {}
            result => return adopt(result?, order),
        }
        let before = self.find_order(order.receipt).await?;
        // It is there and cannot be seen yet. It will be.
        let before =
            before.ok_or_else(|| CallError::unknown("the receipt's order is not listed"))?;
        adopt(before, order)
    }

    /// Finds the order that was created under a receipt.
    pub async fn find_order(&self, receipt: &str) -> Result<Option<Order>, CallError> {
        let path = format!("v1/orders?receipt={}", id(receipt)?);
        let found: Items<OrderBody> = self.ask("find_order", Method::GET, &path, None).await?;
        let found = found.items.into_iter().map(Order::from);
        Ok(found.into_iter().find(|order| order.receipt.as_deref() == Some(receipt)))
    }

    pub async fn retrieve_order(&self, order: &str) -> Result<Order, CallError> {
        let path = format!("v1/orders/{}", id(order)?);
        let order: OrderBody = self.ask("retrieve_order", Method::GET, &path, None).await?;
        Ok(order.into())
    }

    /// Every try to pay an order.
    pub async fn payments_of(&self, order: &str) -> Result<Vec<Payment>, CallError> {
        let path = format!("v1/orders/{}/payments", id(order)?);
        let payments: Items<PaymentBody> =
            self.ask("payments_of", Method::GET, &path, None).await?;
        Ok(payments.items.into_iter().map(Payment::from).collect())
    }

    pub async fn retrieve_payment(&self, payment: &str) -> Result<Payment, CallError> {
        let path = format!("v1/payments/{}", id(payment)?);
        let payment: PaymentBody = self.ask("retrieve_payment", Method::GET, &path, None).await?;
        Ok(payment.into())
    }

    /// Every payment that was begun from `from` to `to`, both whole seconds, the oldest first; `None`
    /// where those are more than a thousand. One that was authorised later was begun no later.
    pub async fn payments_between(
        &self,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> Result<Option<Vec<Payment>>, CallError> {
        self.between::<PaymentBody, _>("payments_between", "v1/payments", from, to).await
    }

    /// Collects the money that was set aside, in full, unless that was done before.
    pub async fn capture_payment(
        &self,
        payment: &str,
        amount_minor: i64,
        currency: &str,
    ) -> Result<Payment, CallError> {
        let path = format!("v1/payments/{}/capture", id(payment)?);
        let body = json!({ "amount": amount_minor, "currency": currency });
        match self.ask("capture_payment", Method::POST, &path, Some(body)).await {
            Err(CallError::Rejected { code: Some(code), .. }) if code == ALREADY_CAPTURED => {
                self.retrieve_payment(payment).await
            }
            result => result.map(|body: PaymentBody| body.into()),
        }
    }

    /// Whether the checkout's signature is that of this order and payment, under any of our keys.
    ///
    /// `order_id` must be the one we stored: a browser could bring a signed pair of another order.
    pub fn is_signed_checkout(&self, order_id: &str, payment_id: &str, signature: &str) -> bool {
        let Ok(signature) = hex::decode(signature) else {
            return false;
        };
        let signed = format!("{order_id}|{payment_id}");
        self.0.line.keys().iter().any(|(_, secret)| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
                .expect("a key of any length will do");
            mac.update(signed.as_bytes());
            mac.verify_slice(&signature).is_ok()
        })
    }

    /// What was made from `from` to `to`, the oldest first; `None` where that is too much.
    async fn between<T: DeserializeOwned, U: From<T>>(
        &self,
        operation: &'static str,
        path: &str,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> Result<Option<Vec<U>>, CallError> {
        let range = format!("&from={}&to={}", from.unix_timestamp(), to.unix_timestamp());
        let newest_first = self.list::<T>(operation, path, &range).await?;
        Ok(newest_first.map(|rows| rows.into_iter().rev().map(U::from).collect()))
    }

    /// Reads a list to its end, the newest first; `None` where it goes on after so many pages.
    async fn list<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &str,
        filter: &str,
    ) -> Result<Option<Vec<T>>, CallError> {
        let mut rows = Vec::new();
        for _ in 0..PAGES_MAX {
            let path = format!("{path}?count={PAGE}&skip={}{filter}", rows.len());
            let page: Items<T> = self.page(operation, &path).await?;
            let is_last = page.items.len() < PAGE;
            rows.extend(page.items);
            if is_last {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    /// Reads a page of a list, and again where it got lost: of many pages, one always does.
    async fn page<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        path: &str,
    ) -> Result<Items<T>, CallError> {
        let mut tries = 1;
        loop {
            match self.ask(operation, Method::GET, path, None).await {
                Err(CallError::Unknown { .. }) if tries < PAGE_TRIES_MAX => tries += 1,
                answer => return answer,
            }
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, CallError> {
        self.ask_under(None, operation, method, path, body).await
    }

    /// Asks under a refund's key, if there is one.
    async fn ask_under<T: DeserializeOwned>(
        &self,
        key: Option<&str>,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, CallError> {
        let ask = |http: &reqwest::Client, url, (key_id, secret): &(String, SecretString)| {
            let asked =
                http.request(method.clone(), url).basic_auth(key_id, Some(secret.expose_secret()));
            let asked = match key {
                Some(key) => asked.header("x-refund-idempotency", key),
                None => asked,
            };
            match &body {
                Some(body) => asked.json(body),
                None => asked,
            }
        };
        measured(PROVIDER, operation, async {
            let answer = self.0.line.ask(path, ask).await?;
            if !answer.is_success() {
                return Err(self.0.refusal(&answer));
            }
            serde_json::from_slice(&answer.body)
                .map_err(|_| CallError::unknown("the answer cannot be read"))
        })
        .await
    }
}

impl Account {
    fn refusal(&self, answer: &Answer) -> CallError {
        let body = serde_json::from_slice::<ErrorBody>(&answer.body).unwrap_or_default();
        let code = body.error.and_then(ErrorFields::code);
        let refusal = self.line.refusal(answer, code);
        let CallError::Rejected { status, code } = &refusal else { return refusal };
        match (status, code.as_deref()) {
            // It answers with 400 to a name that it does not know.
            (_, Some(UNKNOWN_ID)) => CallError::Rejected { status: 404, code: code.clone() },
            // Two that change the same payment at once get in each other's way.
            (400, Some(IN_PROGRESS)) => CallError::Busy { retry_after: None },
            // And with 400 that what is asked for was done before: broken off, it may say so.
            (400, None) => CallError::unknown("the refusal cannot be read"),
            (_, _) => refusal,
        }
    }
}

impl fmt::Debug for Razorpay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { line, key_id, livemode, .. } = &*self.0;
        f.debug_struct("Razorpay")
            .field("url", &line.url().as_str())
            .field("key_id", key_id)
            .field("livemode", livemode)
            .finish_non_exhaustive()
    }
}

/// The order, if it is what was asked for.
fn adopt(order: Order, asked: &NewOrder<'_>) -> Result<Order, CallError> {
    let is_asked_for = order.amount_minor == asked.amount.minor()
        && order.currency == asked.amount.currency().code();
    if is_asked_for {
        return Ok(order);
    }
    Err(CallError::Rejected { status: 400, code: Some(RECEIPT_TAKEN.to_owned()) })
}

#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct OrderBody {
    id: String,
    receipt: Option<String>,
    amount: i64,
    currency: String,
    status: String,
    /// An object, but an empty array where there are none.
    notes: Option<Value>,
}

impl From<OrderBody> for Order {
    fn from(body: OrderBody) -> Self {
        let noted = body.notes.as_ref().and_then(|notes| notes.get("payment_id")?.as_str());
        Self {
            payment_id: noted.and_then(|id| id.parse().ok()),
            id: body.id,
            receipt: body.receipt,
            amount_minor: body.amount,
            currency: body.currency.to_ascii_uppercase(),
            status: body.status,
        }
    }
}

#[derive(Deserialize)]
struct PaymentBody {
    id: String,
    order_id: Option<String>,
    status: String,
    amount: i64,
    currency: String,
    captured: Option<bool>,
    amount_refunded: Option<i64>,
    created_at: Option<i64>,
    error_reason: Option<String>,
    error_code: Option<String>,
}

impl From<PaymentBody> for Payment {
    fn from(body: PaymentBody) -> Self {
        Self {
            id: body.id,
            order_id: body.order_id,
            status: PaymentStatus::from(body.status),
            amount_minor: body.amount,
            currency: body.currency.to_ascii_uppercase(),
            captured: body.captured.unwrap_or(false),
            amount_refunded_minor: body.amount_refunded.unwrap_or(0),
            created_at: body.created_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
            error_code: code(body.error_reason).or_else(|| code(body.error_code)),
        }
    }
}

impl From<String> for PaymentStatus {
    fn from(status: String) -> Self {
        match status.as_str() {
            "created" => Self::Created,
            "authorized" => Self::Authorized,
            "captured" => Self::Captured,
            "refunded" => Self::Refunded,
            "failed" => Self::Failed,
            _ => Self::Unheard(status),
        }
    }
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    error: Option<ErrorFields>,
}

#[derive(Deserialize)]
struct ErrorFields {
    code: Option<String>,
    reason: Option<String>,
    description: Option<String>,
}

impl ErrorFields {
    /// The name of the error. Those that we must know have none, and only a description in English.
    fn code(self) -> Option<String> {
        let description = self.description.unwrap_or_default().to_ascii_lowercase();
        let known = KNOWN.iter().find(|(words, _)| description.contains(words));
        match known {
            Some((_, name)) => Some((*name).to_owned()),
            None => code(self.reason).or_else(|| code(self.code)),
        }
    }
}

/// Words of a description, and what we call the error.
const KNOWN: [(&str, &str); 8] = [
    ("receipt should be unique", RECEIPT_TAKEN),
    ("duplicate receipt", RECEIPT_TAKEN),
    ("already been captured", ALREADY_CAPTURED),
    ("another payment operation is in progress", IN_PROGRESS),
    ("id provided does not exist", UNKNOWN_ID),
    ("fully refunded already", refusal::ALREADY_REFUNDED),
    ("greater than the refund payment amount", refusal::REFUND_TOO_LARGE),
    ("dispute", refusal::DISPUTED),
];
