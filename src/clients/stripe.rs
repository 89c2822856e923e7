//! Stripe: the requests of async-stripe, over our own HTTP and into our own few fields.
//!
//! The library's answer types are strict: one missing field would make an unknown outcome of a
//! payment that was created. Its error type holds client secrets. Neither is used.

mod disputes;
mod events;
mod refunds;

use std::{collections::HashMap, fmt, sync::Arc};

pub use disputes::Dispute;
pub use events::Event;
pub use refunds::{NewRefund, Refund};

use hyper::{Method, body::Bytes, header::CONTENT_TYPE};
use miniserde::{
    Deserialize,
    json::{self, Number, Value},
};
use secrecy::{ExposeSecret, SecretString};
use stripe::{IdempotencyKey, RequestStrategy};
use stripe_client_core::{
    CustomizableStripeRequest, CustomizedStripeRequest, StripeClient, StripeClientErr,
    StripeMethod, StripeRequest, VERSION,
};
use stripe_core::payment_intent::{
    CancelPaymentIntent, CapturePaymentIntent, CreatePaymentIntent,
    CreatePaymentIntentAutomaticPaymentMethods, ListPaymentIntent, RetrievePaymentIntent,
};
use stripe_types::{Currency, RangeQueryTs};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    budget::Budget,
    call::{BadAccess, CallError, code, id, measured, refusal},
    http::{Answer, Line},
};
use crate::kernel::Money;

const PROVIDER: &str = "stripe";

/// As many as Stripe lists at once.
const PAGE: i64 = 100;

/// A search that reads more is none: it would use the budget up.
const PAGES_MAX: usize = 50;

/// So much is read to find one intent: many payments may have to be found at once.
const FIND_PAGES_MAX: usize = 20;

/// A page that gets lost so often would be lost again.
const PAGE_TRIES_MAX: u32 = 3;

/// Stripe's clock may be behind the database's.
const SKEW: Duration = Duration::minutes(5);

/// What an answer shows in full, rather than its name alone: it says whether money went back.
const CHARGE: &str = "latest_charge";

/// Stripe's answer to whoever cancels or captures an intent in which there is nothing left to cancel
/// or to capture.
const UNEXPECTED_STATE: &str = "payment_intent_unexpected_state";

/// Where Stripe is, and who asks.
#[derive(Debug)]
pub struct StripeAccess {
    /// A path in it and a slash at its end are both fine.
    pub url: String,
    /// Of one account and mode. The first is used; where it is not known, the second.
    pub keys: Vec<SecretString>,
    pub webhook_secrets: Vec<SecretString>,
}

/// Stripe, as one account. Cheap to clone.
#[derive(Clone)]
pub struct Stripe(Arc<Account>);

struct Account {
    line: Line<SecretString>,
    livemode: bool,
    webhook_secrets: Vec<SecretString>,
}

/// What a payment is created from: the same payment always gives the same request.
#[derive(Debug, Clone, Copy)]
pub struct NewIntent<'a> {
    pub amount: Money,
    pub payment_id: Uuid,
    pub order_id: Uuid,
    pub order_number: &'a str,
}

/// A payment as Stripe sees it.
#[derive(Debug, Clone)]
pub struct Intent {
    pub id: String,
    pub status: IntentStatus,
    /// In minor units of ISO 4217, as all our amounts.
    pub amount_minor: i64,
    pub amount_received_minor: i64,
    /// In capital letters.
    pub currency: String,
    pub livemode: bool,
    /// With it a browser can pay, and nothing else.
    pub client_secret: Option<SecretString>,
    /// Which of our payments it is, if it says so.
    pub payment_id: Option<Uuid>,
    /// Why the last try to pay failed.
    pub last_decline: Option<String>,
    /// What of the money was sent back; `None` where the answer does not show the charge.
    pub refunded_minor: Option<i64>,
}

/// How far a payment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Succeeded,
    Canceled,
    /// One that Stripe had not when this was written.
    Unheard(String),
}

impl Stripe {
    /// Stripe for whoever holds these keys. Nothing is connected yet.
    pub fn new(access: StripeAccess, budget: Budget) -> Result<Self, BadAccess> {
        let StripeAccess { url, keys, webhook_secrets } = access;
        let first = keys.first().ok_or(BadAccess::NoKey)?.expose_secret();
        let livemode = first.starts_with("sk_live_") || first.starts_with("rk_live_");
        let line = Line::new(PROVIDER, &url, keys, budget)?;
        Ok(Self(Arc::new(Account { line, livemode, webhook_secrets })))
    }

    /// Whether the money is real.
    pub fn livemode(&self) -> bool {
        self.0.livemode
    }

    /// What signs webhooks, the newest first.
    pub fn webhook_secrets(&self) -> &[SecretString] {
        &self.0.webhook_secrets
    }

    /// Creates the payment; under the same key it is created once, for at least 24 hours.
    pub async fn create_intent(
        &self,
        intent: &NewIntent<'_>,
        key: &str,
    ) -> Result<Intent, CallError> {
        self.intent("create_intent", creation(intent, key)?).await
    }

    pub async fn retrieve_intent(&self, intent: &str) -> Result<Intent, CallError> {
        let request = RetrievePaymentIntent::new(id(intent)?).expand([CHARGE.to_owned()]);
        self.intent("retrieve_intent", lean(&request, RequestStrategy::Once)).await
    }

    /// Finds the intent that was created for a payment at `since` or later, if it is one of the last
    /// 2,000 that were created.
    ///
    /// Reads the list, which knows of every intent at once; Stripe's search learns of it a minute later.
    pub async fn find_intent(
        &self,
        payment_id: Uuid,
        since: OffsetDateTime,
    ) -> Result<Option<Intent>, CallError> {
        let since = RangeQueryTs::gte((since - SKEW).unix_timestamp());
        let mut request = ListPaymentIntent::new().created(since).limit(PAGE);
        for _ in 0..FIND_PAGES_MAX {
            let page = || lean::<Page<IntentBody>>(&request, RequestStrategy::Once);
            let page = self.page("find_intent", page).await?;
            let last = page.data.last().map(|intent| intent.id.clone());
            let found =
                page.data.into_iter().find(|intent| intent.payment_id() == Some(payment_id));
            if let Some(found) = found {
                return self.read(found).map(Some);
            }
            match last {
                Some(last) if page.has_more => request = request.starting_after(last),
                _ => break,
            }
        }
        Ok(None)
    }

    /// Cancels the intent, unless that is too late: returns it as it stands then.
    pub async fn cancel_intent(&self, intent: &str) -> Result<Intent, CallError> {
        let request = lean(&CancelPaymentIntent::new(id(intent)?), RequestStrategy::Once);
        self.change("cancel_intent", intent, request).await
    }

    /// Collects the money that was set aside, unless that was done before or is too late: returns the
    /// intent as it stands then.
    pub async fn capture_intent(&self, intent: &str) -> Result<Intent, CallError> {
        let request = CapturePaymentIntent::new(id(intent)?).expand([CHARGE.to_owned()]);
        let request = lean(&request, RequestStrategy::Once);
        self.change("capture_intent", intent, request).await
    }

    /// Changes an intent without a key: the intent's state lets it happen once, and under a key Stripe
    /// would repeat for a day what it refused in a state that has long passed.
    async fn change(
        &self,
        operation: &'static str,
        intent: &str,
        request: CustomizableStripeRequest<IntentBody>,
    ) -> Result<Intent, CallError> {
        match self.intent(operation, request).await {
            Err(CallError::Rejected { code: Some(code), .. }) if code == UNEXPECTED_STATE => {
                self.retrieve_intent(intent).await
            }
            result => result,
        }
    }

    async fn intent(
        &self,
        operation: &'static str,
        request: CustomizableStripeRequest<IntentBody>,
    ) -> Result<Intent, CallError> {
        let body = self.ask(operation, request).await?;
        self.read(body)
    }

    /// Reads a list to its end, the newest first; `None` where it goes on after so many pages. `page`
    /// asks for what comes after an object, which `name` names.
    async fn list<T: Deserialize>(
        &self,
        operation: &'static str,
        pages_max: usize,
        page: impl Fn(Option<String>) -> CustomizableStripeRequest<Page<T>>,
        name: fn(&T) -> Option<&str>,
    ) -> Result<Option<Vec<T>>, CallError> {
        let (mut rows, mut after) = (Vec::new(), None);
        for _ in 0..pages_max {
            let read = self.page(operation, || page(after.clone())).await?;
            rows.extend(read.data);
            if !read.has_more {
                return Ok(Some(rows));
            }
            let last = rows.last().and_then(name);
            let last = last.ok_or_else(|| CallError::unknown("a page without an end"))?;
            after = Some(last.to_owned());
        }
        Ok(None)
    }

    /// Reads a page of a list, and again where it got lost: of many pages, one always does.
    async fn page<T: Deserialize>(
        &self,
        operation: &'static str,
        request: impl Fn() -> CustomizableStripeRequest<Page<T>>,
    ) -> Result<Page<T>, CallError> {
        let mut tries = 1;
        loop {
            match self.ask(operation, request()).await {
                Err(CallError::Unknown { .. }) if tries < PAGE_TRIES_MAX => tries += 1,
                answer => return answer,
            }
        }
    }

    async fn ask<T: Deserialize>(
        &self,
        operation: &'static str,
        request: CustomizableStripeRequest<T>,
    ) -> Result<T, CallError> {
        measured(PROVIDER, operation, request.send(&*self.0)).await
    }

    fn read(&self, body: IntentBody) -> Result<Intent, CallError> {
        let payment_id = body.payment_id();
        let currency = body.currency.to_ascii_uppercase();
        let here = |amount| amount_read(amount, &currency);
        let refunded_minor = body.latest_charge.as_ref().and_then(refunded).map(here);
        let last_decline =
            body.last_payment_error.and_then(|error| code(error.decline_code.or(error.code)));
        Ok(Intent {
            amount_minor: here(body.amount)?,
            amount_received_minor: here(body.amount_received.unwrap_or(0))?,
            id: body.id,
            status: IntentStatus::from(body.status),
            // A key only sees what is of its own mode.
            livemode: body.livemode.unwrap_or(self.0.livemode),
            client_secret: body.client_secret.map(SecretString::from),
            payment_id,
            last_decline,
            refunded_minor: refunded_minor.transpose()?,
            currency,
        })
    }
}

impl fmt::Debug for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Account { line, livemode, .. } = &*self.0;
        f.debug_struct("Stripe")
            .field("url", &line.url().as_str())
            .field("livemode", livemode)
            .finish_non_exhaustive()
    }
}

impl From<String> for IntentStatus {
    fn from(status: String) -> Self {
        match status.as_str() {
            "requires_payment_method" => Self::RequiresPaymentMethod,
            "requires_confirmation" => Self::RequiresConfirmation,
            "requires_action" => Self::RequiresAction,
            "processing" => Self::Processing,
            "requires_capture" => Self::RequiresCapture,
            "succeeded" => Self::Succeeded,
            "canceled" => Self::Canceled,
            _ => Self::Unheard(status),
        }
    }
}

/// The amount as Stripe counts it. In three currencies its minor unit is not that of ISO 4217
/// (docs.stripe.com/currencies, zero-decimal currencies and special cases).
///
/// `currency` is three capital letters.
fn amount_there(minor: i64, currency: &str) -> Option<i64> {
    match currency {
        "ISK" | "UGX" => minor.checked_mul(100),
        "MGA" => hundredth(minor),
        _ => Some(minor),
    }
}

/// The amount as ISO 4217 counts it; `None` where Stripe's cannot be counted so.
///
/// `currency` is three capital letters.
pub fn amount_here(amount: i64, currency: &str) -> Option<i64> {
    match currency {
        "ISK" | "UGX" => hundredth(amount),
        "MGA" => amount.checked_mul(100),
        _ => Some(amount),
    }
}

/// The amount of an answer.
fn amount_read(amount: i64, currency: &str) -> Result<i64, CallError> {
    amount_here(amount, currency).ok_or_else(|| CallError::unknown("an odd amount"))
}

fn hundredth(amount: i64) -> Option<i64> {
    (amount % 100 == 0).then_some(amount / 100)
}

fn creation(
    intent: &NewIntent<'_>,
    key: &str,
) -> Result<CustomizableStripeRequest<IntentBody>, CallError> {
    let currency = intent.amount.currency().code();
    let amount = amount_there(intent.amount.minor(), currency).ok_or(UNUSABLE)?;
    let Ok(currency) = currency.to_ascii_lowercase().parse::<Currency>();
    let request = CreatePaymentIntent::new(amount, currency)
        .automatic_payment_methods(CreatePaymentIntentAutomaticPaymentMethods::new(true))
        .metadata([
            ("payment_id".to_owned(), intent.payment_id.to_string()),
            ("order_id".to_owned(), intent.order_id.to_string()),
            ("order_number".to_owned(), intent.order_number.to_owned()),
        ]);
    Ok(lean(&request, under(key)?))
}

/// What Stripe would refuse.
const UNUSABLE: CallError = CallError::Rejected { status: 400, code: None };

/// Has a request done once under its key.
fn under(key: &str) -> Result<RequestStrategy, CallError> {
    let key = IdempotencyKey::new(key).map_err(|_| UNUSABLE)?;
    Ok(RequestStrategy::Idempotent(key))
}

/// A request of async-stripe whose answer is read as a `T`.
fn lean<T>(
    request: &impl StripeRequest,
    strategy: RequestStrategy,
) -> CustomizableStripeRequest<T> {
    request.build().customize().request_strategy(strategy)
}

impl StripeClient for Account {
    type Err = CallError;

    async fn execute(&self, request: CustomizedStripeRequest) -> Result<Bytes, CallError> {
        let (request, config) = request.into_pieces();
        let key = config.request_strategy.and_then(|strategy| strategy.get_key());
        let query = request.query.filter(|query| !query.is_empty());
        let path = match query {
            Some(query) => format!("v1{}?{query}", request.path),
            None => format!("v1{}", request.path),
        };
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let form = request.body.map(|body| in_order(&body));
        let ask = |http: &reqwest::Client, url, secret: &SecretString| {
            let mut asked = http
                .request(method.clone(), url)
                .bearer_auth(secret.expose_secret())
                .header("stripe-version", VERSION.as_str());
            if let Some(key) = &key {
                asked = asked.header("idempotency-key", key.as_str());
            }
            match &form {
                Some(form) => asked
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.clone()),
                None => asked,
            }
        };
        let answer = self.line.ask(&path, ask).await?;
        if answer.is_success() { Ok(answer.body) } else { Err(self.refusal(&answer)) }
    }
}

impl Account {
    fn refusal(&self, answer: &Answer) -> CallError {
        let body = std::str::from_utf8(&answer.body).unwrap_or_default();
        let error = json::from_str::<ErrorBody>(body).ok().and_then(|body| body.error);
        let error = error.unwrap_or_default();
        let kind = code(error.kind);
        if answer.status == 402 || kind.as_deref() == Some("card_error") {
            let code = code(error.decline_code).or_else(|| code(error.code)).or(kind);
            return CallError::Declined { code: code.unwrap_or_default() };
        }
        let code = code(error.code).or_else(|| over_refund(error.message.as_deref()));
        self.line.refusal(answer, code.or(kind))
    }
}

/// Whether more was to go back than is left: that has no name, and only a message in English.
fn over_refund(message: Option<&str>) -> Option<String> {
    let is_over = message?.contains("greater than unrefunded amount");
    is_over.then(|| refusal::REFUND_TOO_LARGE.to_owned())
}

impl StripeClientErr for CallError {
    /// The library could not read a success. Its words are not repeated: they could hold the answer's.
    fn deserialize_err(_: impl fmt::Display) -> Self {
        Self::unknown("the answer cannot be read")
    }
}

/// The pairs of a form in one order: the library writes metadata in an order of chance, and a request
/// that is repeated under its key shall be the same to the byte.
fn in_order(form: &str) -> String {
    let mut pairs: Vec<_> = form.split('&').collect();
    pairs.sort_unstable();
    pairs.join("&")
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    has_more: bool,
}

#[derive(Deserialize)]
struct IntentBody {
    id: String,
    status: String,
    amount: i64,
    amount_received: Option<i64>,
    currency: String,
    livemode: Option<bool>,
    client_secret: Option<String>,
    metadata: Option<HashMap<String, String>>,
    last_payment_error: Option<ErrorFields>,
    /// Its name, or all of it where that was asked for.
    latest_charge: Option<Value>,
}

/// What of a charge was sent back, if the answer shows more of it than its name.
fn refunded(charge: &Value) -> Option<i64> {
    let Value::Object(fields) = charge else { return None };
    match fields.get("amount_refunded") {
        Some(Value::Number(Number::I64(amount))) => Some(*amount),
        Some(Value::Number(Number::U64(amount))) => i64::try_from(*amount).ok(),
        _ => None,
    }
}

impl IntentBody {
    fn payment_id(&self) -> Option<Uuid> {
        self.metadata.as_ref()?.get("payment_id")?.parse().ok()
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: Option<ErrorFields>,
}

#[derive(Default, Deserialize)]
struct ErrorFields {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_the_same_money_there_and_here() {
        for (minor, code, there) in [
            (1_234, "USD", Some(1_234)),
            (500, "JPY", Some(500)),
            (1_230, "KWD", Some(1_230)),
            (5, "ISK", Some(500)),
            (5, "UGX", Some(500)),
            (500, "MGA", Some(5)),
            (550, "MGA", None),
        ] {
            assert_eq!(amount_there(minor, code), there, "{minor} {code}");
            assert_eq!(there.and_then(|there| amount_here(there, code)), there.map(|_| minor));
        }
        let exponent = |code: &str| code.parse::<crate::kernel::Currency>().unwrap().exponent();
        assert_eq!(["ISK", "UGX", "MGA"].map(exponent), [0, 0, 2]);
    }

    #[test]
    fn a_form_is_the_same_whatever_the_order_of_its_metadata() {
        assert_eq!(in_order("b=2&a=1&c[x]=3"), in_order("c[x]=3&b=2&a=1"));
    }
}
