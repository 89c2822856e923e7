//! Razorpay's errors, in its envelope.

use poem::http::StatusCode;
use serde_json::json;

use crate::providers::front::Answer;

/// Why Razorpay does not do what it is asked to.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    description: String,
    field: Option<&'static str>,
}

impl Refusal {
    pub(super) fn bad_request(description: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "BAD_REQUEST_ERROR",
            description: description.to_owned(),
            field: None,
        }
    }

    pub(super) fn field(field: &'static str, description: &str) -> Self {
        Self { field: Some(field), ..Self::bad_request(description) }
    }

    pub(super) fn unknown_id() -> Self {
        Self::bad_request("The id provided does not exist")
    }

    pub(super) fn server_error() -> Self {
        Self {
            code: "SERVER_ERROR",
            ..Self::bad_request("We are facing some trouble completing your request at the moment.")
        }
        .with_status(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut error = json!({
            "code": self.code,
            "description": self.description,
            "metadata": {},
            "reason": "input_validation_failed",
            "source": "business",
            "step": "payment_initiation",
        });
        // What Razorpay cannot attribute to the caller's input has no reason.
        if self.status != StatusCode::BAD_REQUEST {
            for name in ["reason", "source", "step"] {
                error[name] = "NA".into();
            }
        }
        if let Some(field) = self.field {
            error["field"] = field.into();
        }
        Answer::json(self.status, &json!({ "error": error }), false)
    }
}
