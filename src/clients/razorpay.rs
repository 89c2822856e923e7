//! Razorpay: six calls over our own HTTP.
//!
//! It has no keys for repeated requests. An order's receipt does their work: it is unique, and by it
//! an order is found whose creation had an unknown outcome.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use super::{
    budget::Budget,
    call::{BadAccess, CallError, code, id, measured},
    http::{Answer, Line},
};
use crate::kernel::Money;

const PROVIDER: &str = "razorpay";

/// What we call three errors for which Razorpay has no names.
const RECEIPT_TAKEN: &str = "receipt_taken";
const ALREADY_CAPTURED: &str = "already_captured";
const UNKNOWN_ID: &str = "unknown_id";

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

    async fn ask<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, CallError> {
        let ask = |http: &reqwest::Client, url, (key_id, secret): &(String, SecretString)| {
            let asked =
                http.request(method.clone(), url).basic_auth(key_id, Some(secret.expose_secret()));
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
        match self.line.refusal(answer, code) {
            // It answers with 400 to a name that it does not know.
            CallError::Rejected { code: Some(code), .. } if code == UNKNOWN_ID => {
                CallError::Rejected { status: 404, code: Some(code) }
            }
            refusal => refusal,
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
    /// The name of the error. Three that we must know have none, and only a description in English.
    fn code(self) -> Option<String> {
        let description = self.description.unwrap_or_default().to_ascii_lowercase();
        if description.contains("receipt should be unique") {
            return Some(RECEIPT_TAKEN.to_owned());
        }
        if description.contains("already been captured") {
            return Some(ALREADY_CAPTURED.to_owned());
        }
        if description.contains("id provided does not exist") {
            return Some(UNKNOWN_ID.to_owned());
        }
        code(self.reason).or_else(|| code(self.code))
    }
}
