//! What Stripe answers to each call that it understands.

use poem::http::StatusCode;
use serde_json::{Value, json};

use super::{
    books::{Books, NewIntent, RefundCourse},
    cards::Card,
    identified,
    objects::{CaptureMethod, Charge, Dispute, Intent, IntentStatus, Refund},
    params::Params,
    refusal::Refusal,
};
use crate::providers::{
    front::{Answer, Call},
    operation::Provider,
    webhooks::PostOffice,
    world::World,
};

/// Stripe's page, unless the client asks for another.
const PAGE: i64 = 10;
const PAGE_MAX: i64 = 100;

const NEW_INTENT: &[&str] = &[
    "amount",
    "automatic_payment_methods",
    "capture_method",
    "confirm",
    "confirmation_method",
    "currency",
    "customer",
    "description",
    "expand",
    "metadata",
    "off_session",
    "payment_method",
    "payment_method_options",
    "payment_method_types",
    "receipt_email",
    "return_url",
    "setup_future_usage",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "use_stripe_sdk",
];

const NEW_REFUND: &[&str] =
    &["amount", "charge", "expand", "instructions_email", "metadata", "payment_intent", "reason"];

const REFUND_REASONS: &[&str] = &["duplicate", "fraudulent", "requested_by_customer"];
const CANCELLATION_REASONS: &[&str] =
    &["abandoned", "duplicate", "fraudulent", "requested_by_customer"];

/// Does what `call` asks for.
pub(in crate::providers) fn execute(world: &mut World, post: &PostOffice, call: &Call) -> Answer {
    let outcome = Desk { books: &mut world.stripe, post, params: Params::of(call) }.serve(call);
    identified(match outcome {
        Ok(shown) => Answer::json(StatusCode::OK, &shown, true),
        Err(refusal) => refusal.into_answer(),
    })
}

struct Desk<'a> {
    books: &'a mut Books,
    post: &'a PostOffice,
    params: Params,
}

impl Desk<'_> {
    fn serve(&mut self, call: &Call) -> Result<Value, Refusal> {
        let post = call.method == poem::http::Method::POST;
        match call.words().as_slice() {
            ["payment_intents"] if post => self.create_intent(),
            ["payment_intents"] => self.list_intents(),
            ["payment_intents", "search"] => self.search_intents(),
            ["payment_intents", id] => self.intent(id),
            ["payment_intents", id, "confirm"] => self.confirm(id),
            ["payment_intents", id, "cancel"] => self.cancel(id),
            ["payment_intents", id, "capture"] => self.capture(id),
            ["refunds"] if post => self.create_refund(),
            ["refunds"] => self.list_refunds(),
            ["refunds", id] => {
                let refund = self.books.refunds.find(id);
                let refund = refund.ok_or_else(|| Refusal::no_such("refund", "id", id))?;
                Ok(refund.shown())
            }
            ["charges", id] => {
                let charge = self.books.charges.find(id);
                let charge = charge.ok_or_else(|| Refusal::no_such("charge", "id", id))?;
                Ok(charge.shown())
            }
            ["events"] => self.list_events(),
            ["events", id] => {
                let body = self.post.body(id).and_then(|body| serde_json::from_str(&body).ok());
                body.ok_or_else(|| Refusal::no_such("event", "id", id))
            }
            ["disputes"] => self.list_disputes(),
            ["disputes", id] => {
                let dispute = self.books.disputes.find(id);
                let dispute = dispute.ok_or_else(|| Refusal::no_such("dispute", "id", id))?;
                Ok(dispute.shown())
            }
            _ => Err(Refusal::invalid(None, "Unrecognized request URL.")),
        }
    }

    fn create_intent(&mut self) -> Result<Value, Refusal> {
        let params = &self.params;
        params.only(NEW_INTENT)?;
        let amount = params.amount("amount")?.ok_or_else(|| Refusal::missing("amount"))?;
        let currency = params.required("currency")?.to_lowercase();
        if currency.len() != 3 || !currency.bytes().all(|letter| letter.is_ascii_lowercase()) {
            let message = format!("Invalid currency: {currency}.");
            return Err(Refusal::invalid(Some("currency"), &message));
        }
        let capture_method = match params.get("capture_method") {
            None | Some("automatic_async") => CaptureMethod::AutomaticAsync,
            Some("automatic") => CaptureMethod::Automatic,
            Some("manual") => CaptureMethod::Manual,
            Some(_) => {
                let message = "Invalid capture_method: must be one of automatic, automatic_async, \
                               or manual";
                return Err(Refusal::invalid(Some("capture_method"), message));
            }
        };
        let types = params.list("payment_method_types");
        let automatic = params.get("automatic_payment_methods[enabled]") == Some("true");
        if automatic && !types.is_empty() {
            let message = "You may only specify one of these parameters: \
                           automatic_payment_methods, payment_method_types.";
            return Err(Refusal::invalid(None, message));
        }
        let card = card(params.get("payment_method"))?;
        let confirm = params.get("confirm") == Some("true");
        if confirm && card.is_none() {
            return Err(Refusal::missing("payment_method"));
        }
        let types = if types.is_empty() { vec!["card"] } else { types };
        let new = NewIntent {
            amount,
            currency,
            metadata: params.metadata()?,
            capture_method,
            payment_method: params.get("payment_method").map(str::to_owned),
            payment_method_types: types.into_iter().map(str::to_owned).collect(),
            // Without a word about methods, Stripe takes what the dashboard says.
            automatic_payment_methods: automatic || params.list("payment_method_types").is_empty(),
            description: params.get("description").map(str::to_owned),
            receipt_email: params.get("receipt_email").map(str::to_owned),
        };
        let id = self.books.create(new);
        if let Some(card) = card.filter(|_| confirm) {
            self.charge(&id, card)?;
        }
        self.intent(&id)
    }

    fn find(&self, id: &str) -> Result<&Intent, Refusal> {
        let intent = self.books.intents.find(id);
        intent.ok_or_else(|| Refusal::no_such("payment_intent", "intent", id))
    }

    fn intent(&self, id: &str) -> Result<Value, Refusal> {
        let intent = self.find(id)?;
        let mut shown = intent.shown();
        if self.params.list("expand").contains(&"latest_charge") {
            let charge = intent.latest_charge.as_ref().and_then(|id| self.books.charges.find(id));
            shown["latest_charge"] = charge.map(Charge::shown).into();
        }
        Ok(shown)
    }

    fn confirm(&mut self, id: &str) -> Result<Value, Refusal> {
        let intent = self.find(id)?;
        let named = self.params.get("payment_method").or(intent.payment_method.as_deref());
        let method = named.map(str::to_owned);
        match intent.status {
            IntentStatus::RequiresPaymentMethod
            | IntentStatus::RequiresConfirmation
            | IntentStatus::RequiresAction => {}
            IntentStatus::Processing
            | IntentStatus::RequiresCapture
            | IntentStatus::Succeeded
            | IntentStatus::Canceled => {
                let status = intent.status.name();
                let message = format!(
                    "You cannot confirm this PaymentIntent because it has a status of {status}. \
                     Only a PaymentIntent with one of the following statuses may be confirmed: \
                     requires_confirmation, requires_action."
                );
                return Err(Refusal::unexpected_state(intent.shown(), &message));
            }
        }
        let Some(card) = card(method.as_deref())? else {
            let message = "You cannot confirm this PaymentIntent because it's missing a payment \
                           method. You can either update the PaymentIntent with a payment method \
                           and then confirm it again, or confirm it again directly with a payment \
                           method or ConfirmationToken.";
            return Err(Refusal::unexpected_state(intent.shown(), message));
        };
        if let Some(intent) = self.books.intents.find_mut(id) {
            intent.payment_method = method;
        }
        self.charge(id, card)?;
        self.intent(id)
    }

    /// Does with the intent what the card does.
    fn charge(&mut self, id: &str, card: Card) -> Result<(), Refusal> {
        match card {
            Card::Pays => self.books.pay(id),
            Card::AsksForAction => self.books.ask_for_action(id),
            Card::Processes => self.books.process(id),
            Card::Disputes => {
                self.books.pay(id);
                self.books.dispute(id);
            }
            Card::RefundsLater => {
                self.books.set_course(id, RefundCourse::Waits);
                self.books.pay(id);
            }
            Card::FailsRefunds => {
                self.books.set_course(id, RefundCourse::FailsAfterSuccess);
                self.books.pay(id);
            }
            Card::Declines(code) => {
                self.books.decline(id, code);
                let intent = self.find(id)?;
                let error = intent.last_payment_error.clone().unwrap_or_default();
                return Err(Refusal::declined(
                    &error,
                    intent.latest_charge.clone(),
                    intent.shown(),
                ));
            }
        }
        Ok(())
    }

    fn cancel(&mut self, id: &str) -> Result<Value, Refusal> {
        let reason = self.params.get("cancellation_reason");
        if reason.is_some_and(|reason| !CANCELLATION_REASONS.contains(&reason)) {
            let message = "Invalid cancellation_reason";
            return Err(Refusal::invalid(Some("cancellation_reason"), message));
        }
        let intent = self.find(id)?;
        match intent.status {
            IntentStatus::RequiresPaymentMethod
            | IntentStatus::RequiresConfirmation
            | IntentStatus::RequiresAction
            | IntentStatus::RequiresCapture => self.books.cancel(id, reason),
            IntentStatus::Processing | IntentStatus::Succeeded | IntentStatus::Canceled => {
                let status = intent.status.name();
                let message = format!(
                    "You cannot cancel this PaymentIntent because it has a status of {status}. \
                     Only a PaymentIntent with one of the following statuses may be canceled: \
                     requires_payment_method, requires_capture, requires_confirmation, \
                     requires_action, processing."
                );
                return Err(Refusal::unexpected_state(intent.shown(), &message));
            }
        }
        self.intent(id)
    }

    fn capture(&mut self, id: &str) -> Result<Value, Refusal> {
        let wanted = self.params.amount("amount_to_capture")?;
        let intent = self.find(id)?;
        if intent.status != IntentStatus::RequiresCapture {
            let status = intent.status.name();
            let message = format!(
                "This PaymentIntent could not be captured because it has a status of {status}. \
                 Only a PaymentIntent with one of the following statuses may be captured: \
                 requires_capture."
            );
            return Err(Refusal::unexpected_state(intent.shown(), &message));
        }
        let amount = wanted.unwrap_or(intent.amount_capturable);
        if amount > intent.amount_capturable {
            let message = "The amount_to_capture must be less than or equal to the amount that \
                           was authorized.";
            return Err(Refusal::parameter("amount_too_large", "amount_to_capture", message));
        }
        self.books.capture(id, amount);
        self.intent(id)
    }

    fn create_refund(&mut self) -> Result<Value, Refusal> {
        let params = &self.params;
        params.only(NEW_REFUND)?;
        let wanted = params.amount("amount")?;
        let metadata = params.metadata()?;
        let reason = params.get("reason");
        if reason.is_some_and(|reason| !REFUND_REASONS.contains(&reason)) {
            return Err(Refusal::invalid(Some("reason"), "Invalid reason"));
        }
        let charge = self.charge_to_refund()?;
        if self.books.is_charged_back(&charge.id) {
            let message =
                format!("Charge {} has been charged back; cannot issue a refund.", charge.id);
            return Err(Refusal::state(Some("charge_disputed"), &message));
        }
        let left = charge.amount_captured - charge.amount_refunded;
        if left == 0 {
            let message = format!("Charge {} has already been refunded.", charge.id);
            return Err(Refusal::state(Some("charge_already_refunded"), &message));
        }
        let amount = wanted.unwrap_or(left);
        if amount > left {
            let message = format!(
                "Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            );
            return Err(Refusal::state(None, &message));
        }
        let charge = charge.id.clone();
        let id = self.books.refund(&charge, amount, reason, metadata);
        let refund = self.books.refunds.find(&id);
        refund.map(Refund::shown).ok_or_else(|| Refusal::no_such("refund", "id", &id))
    }

    fn charge_to_refund(&self) -> Result<&Charge, Refusal> {
        let (intent, charge) = (self.params.get("payment_intent"), self.params.get("charge"));
        let id = match (intent, charge) {
            (Some(id), _) => {
                let intent = self.books.intents.find(id);
                let intent = intent
                    .ok_or_else(|| Refusal::no_such("payment_intent", "payment_intent", id))?;
                let paid = intent.latest_charge.clone().filter(|_| intent.amount_received > 0);
                paid.ok_or_else(|| {
                    let message = format!(
                        "This PaymentIntent ({id}) does not have a successful charge to refund."
                    );
                    Refusal::unexpected_state(intent.shown(), &message)
                })?
            }
            (None, Some(id)) => id.to_owned(),
            (None, None) => {
                let message = "One of the following params should be provided for this request: \
                               payment_intent or charge.";
                return Err(Refusal::invalid(None, message));
            }
        };
        self.books.charges.find(&id).ok_or_else(|| Refusal::no_such("charge", "charge", &id))
    }

    fn list_intents(&self) -> Result<Value, Refusal> {
        let mut rows = Vec::new();
        for intent in self.books.intents.newest() {
            if self.params.covers(intent.created)? {
                rows.push((intent.id.as_str(), intent));
            }
        }
        self.page("/v1/payment_intents", "payment_intent", &rows, Intent::shown)
    }

    fn list_refunds(&self) -> Result<Value, Refusal> {
        let (intent, charge) = (self.params.get("payment_intent"), self.params.get("charge"));
        let mut rows = Vec::new();
        for refund in self.books.refunds.newest() {
            let asked = intent.is_none_or(|id| id == refund.intent)
                && charge.is_none_or(|id| id == refund.charge);
            if asked && self.params.covers(refund.created)? {
                rows.push((refund.id.as_str(), refund));
            }
        }
        self.page("/v1/refunds", "refund", &rows, Refund::shown)
    }

    fn list_disputes(&self) -> Result<Value, Refusal> {
        let (intent, charge) = (self.params.get("payment_intent"), self.params.get("charge"));
        let mut rows = Vec::new();
        for dispute in self.books.disputes.newest() {
            let asked = intent.is_none_or(|id| id == dispute.intent)
                && charge.is_none_or(|id| id == dispute.charge);
            if asked && self.params.covers(dispute.created)? {
                rows.push((dispute.id.as_str(), dispute));
            }
        }
        self.page("/v1/disputes", "dispute", &rows, Dispute::shown)
    }

    fn list_events(&self) -> Result<Value, Refusal> {
        let kind = self.params.get("type");
        let kinds = self.params.list("types");
        let told = self.post.bodies(Provider::Stripe);
        let mut rows = Vec::new();
        for event in &told {
            let is = event["type"].as_str().unwrap_or_default();
            let asked = kind.is_none_or(|kind| matches_kind(kind, is))
                && (kinds.is_empty() || kinds.contains(&is));
            if asked && self.params.covers(event["created"].as_i64().unwrap_or_default())? {
                rows.push((event["id"].as_str().unwrap_or_default(), event));
            }
        }
        self.page("/v1/events", "event", &rows, Value::clone)
    }

    /// Cuts the page out of `rows` that the cursors and the limit ask for.
    fn page<T>(
        &self,
        url: &str,
        what: &str,
        rows: &[(&str, &T)],
        show: impl Fn(&T) -> Value,
    ) -> Result<Value, Refusal> {
        let limit = self.params.integer("limit")?.unwrap_or(PAGE);
        if !(1..=PAGE_MAX).contains(&limit) {
            let message = format!("This value must be between 1 and {PAGE_MAX}.");
            return Err(Refusal::parameter("parameter_invalid_integer", "limit", &message));
        }
        let place = |cursor: &str, name: &str| {
            let place = rows.iter().position(|(id, _)| *id == cursor);
            place.ok_or_else(|| Refusal::no_such(what, name, cursor))
        };
        let limit = usize::try_from(limit).unwrap_or(1);
        let (from, to) = match (self.params.get("starting_after"), self.params.get("ending_before"))
        {
            (Some(cursor), _) => (place(cursor, "starting_after")? + 1, rows.len()),
            (None, Some(cursor)) => {
                let to = place(cursor, "ending_before")?;
                (to.saturating_sub(limit), to)
            }
            (None, None) => (0, rows.len()),
        };
        let asked = &rows[from..to];
        let data: Vec<Value> = asked.iter().take(limit).map(|(_, row)| show(row)).collect();
        Ok(json!({
            "object": "list",
            "data": data,
            "has_more": asked.len() > data.len(),
            "url": url,
        }))
    }

    fn search_intents(&self) -> Result<Value, Refusal> {
        let query = self.params.required("query")?;
        let clauses = clauses(query).ok_or_else(|| {
            let message = "We were unable to parse your search query. Try using the format \
                           `metadata[\"key\"]:\"value\"` to query for metadata or key:\"value\" to \
                           query for other fields.";
            Refusal::invalid(Some("query"), message)
        })?;
        let limit = self.params.integer("limit")?.unwrap_or(PAGE).clamp(1, PAGE_MAX);
        let found = self.books.intents.newest().filter(|intent| {
            clauses.iter().all(|(field, value)| match field {
                Field::Metadata(key) => intent.metadata.get(key) == Some(value),
                Field::Status => intent.status.name() == value,
                Field::Currency => intent.currency == value.to_lowercase(),
                Field::Amount => intent.amount.to_string() == *value,
            })
        });
        let found: Vec<Value> = found.map(Intent::shown).collect();
        let limit = usize::try_from(limit).unwrap_or(1);
        Ok(json!({
            "object": "search_result",
            "data": &found[..limit.min(found.len())],
            "has_more": found.len() > limit,
            "next_page": null,
            "url": "/v1/payment_intents/search",
        }))
    }
}

/// `charge.*` matches every kind that begins so.
fn matches_kind(asked: &str, is: &str) -> bool {
    match asked.strip_suffix('*') {
        Some(beginning) => is.starts_with(beginning),
        None => asked == is,
    }
}

enum Field {
    Metadata(String),
    Status,
    Currency,
    Amount,
}

/// The clauses of Stripe's search language that are joined by `AND`; `None` for anything else.
fn clauses(query: &str) -> Option<Vec<(Field, String)>> {
    let clause = |clause: &str| {
        let (field, value) = clause.trim().split_once(':')?;
        let field = match field {
            "status" => Field::Status,
            "currency" => Field::Currency,
            "amount" => Field::Amount,
            _ => Field::Metadata(unquoted(field.strip_prefix("metadata[")?.strip_suffix(']')?)?),
        };
        let value = match field {
            Field::Amount => value.to_owned(),
            Field::Metadata(_) | Field::Status | Field::Currency => unquoted(value)?,
        };
        Some((field, value))
    };
    query.split(" AND ").map(clause).collect()
}

fn unquoted(quoted: &str) -> Option<String> {
    ['\'', '"']
        .iter()
        .find_map(|&quote| quoted.strip_prefix(quote)?.strip_suffix(quote).map(str::to_owned))
}

fn card(method: Option<&str>) -> Result<Option<Card>, Refusal> {
    let Some(method) = method else {
        return Ok(None);
    };
    let card = Card::named(method);
    card.map(Some).ok_or_else(|| Refusal::no_such("PaymentMethod", "payment_method", method))
}
