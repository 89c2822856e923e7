//! Stripe's errors, in its envelope.

use poem::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::providers::front::Answer;

/// Why Stripe does not do what it is asked to.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    kind: &'static str,
    code: Option<String>,
    message: String,
    param: Option<String>,
    declined: Option<Box<Declined>>,
    intent: Option<Box<Value>>,
    /// Parameters that make no sense leave an idempotency key free; everything later uses it.
    executed: bool,
}

#[derive(Debug)]
struct Declined {
    code: Option<String>,
    charge: Option<String>,
}

impl Refusal {
    /// The parameters make no sense.
    pub(super) fn invalid(param: Option<&str>, message: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            code: None,
            message: message.to_owned(),
            param: param.map(str::to_owned),
            declined: None,
            intent: None,
            executed: false,
        }
    }

    pub(super) fn parameter(code: &str, param: &str, message: &str) -> Self {
        Self { code: Some(code.to_owned()), ..Self::invalid(Some(param), message) }
    }

    pub(super) fn missing(param: &str) -> Self {
        let message = format!("Missing required param: {param}.");
        Self::parameter("parameter_missing", param, &message)
    }

    pub(super) fn no_such(what: &str, param: &str, id: &str) -> Self {
        let message = format!("No such {what}: '{id}'");
        Self {
            status: StatusCode::NOT_FOUND,
            ..Self::parameter("resource_missing", param, &message)
        }
    }

    /// The state of things forbids it.
    pub(super) fn state(code: Option<&str>, message: &str) -> Self {
        Self { code: code.map(str::to_owned), executed: true, ..Self::invalid(None, message) }
    }

    pub(super) fn unexpected_state(intent: Value, message: &str) -> Self {
        Self {
            intent: Some(Box::new(intent)),
            ..Self::state(Some("payment_intent_unexpected_state"), message)
        }
    }

    /// The card was declined; `error` is the intent's `last_payment_error`.
    pub(super) fn declined(error: &Value, charge: Option<String>, intent: Value) -> Self {
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        Self {
            status: StatusCode::PAYMENT_REQUIRED,
            kind: "card_error",
            declined: Some(Box::new(Declined { code: text("decline_code"), charge })),
            ..Self {
                code: text("code"),
                ..Self::unexpected_state(intent, &text("message").unwrap_or_default())
            }
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut error = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                error.insert(name.to_owned(), value);
            }
        };
        if let Some(declined) = self.declined {
            set("charge", declined.charge.map(Value::from));
            set("decline_code", declined.code.map(Value::from));
        }
        set("message", Some(self.message.into()));
        set("param", self.param.map(Value::from));
        set("payment_intent", self.intent.map(|intent| *intent));
        set("request_log_url", Some("https://dashboard.stripe.com/test/logs".into()));
        set("type", Some(self.kind.into()));
        if let Some(code) = self.code {
            set("doc_url", Some(format!("https://stripe.com/docs/error-codes/{code}").into()));
            set("code", Some(code.into()));
        }
        Answer::json(self.status, &json!({ "error": error }), self.executed)
    }
}

/// A refusal that has nothing to do with what was asked.
pub(super) fn plain(status: StatusCode, kind: &str, code: Option<&str>, message: &str) -> Answer {
    let mut error = json!({ "message": message, "type": kind });
    if let Some(code) = code {
        error["code"] = code.into();
    }
    // Only a failure in mid-execution stays under its key.
    let executed = status.is_server_error();
    Answer::json(status, &json!({ "error": error }), executed)
}
