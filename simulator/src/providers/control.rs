//! What other processes ask of the simulator, in JSON: the same as the Rust handle can do.

use std::{collections::BTreeMap, sync::Arc};

use poem::{
    EndpointExt, IntoResponse, Response, Route, RouteMethod, get, handler,
    http::StatusCode,
    post,
    web::{Data, Json},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    acts::{Act, ActError, Verdict},
    config::{Capture, RepeatedReceipt},
    faults::{Fault, RandomFaults, Target},
    operation::Provider,
    webhooks::Delivery,
    world::Shared,
};

/// As many strikes as one order can ask for.
const STRIKES_MAX: u32 = 100_000;

/// One thing to do, as in `{"fail-next": {"target": {"operation": "create-intent"}, "fault":
/// "error-after", "times": 2}}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Command {
    Act {
        reference: String,
        act: Act,
    },
    CreateForeign {
        provider: Provider,
        amount_minor: i64,
        currency: String,
        #[serde(default)]
        metadata: BTreeMap<String, String>,
    },
    Refund {
        payment: String,
        amount_minor: Option<i64>,
    },
    SetRefundsWait {
        provider: Provider,
        wait: bool,
    },
    FinishRefund {
        refund: String,
        verdict: Verdict,
    },
    Dispute {
        payment: String,
    },
    CloseDispute {
        dispute: String,
        verdict: Verdict,
    },
    SetCapture(Capture),
    SetRepeatedReceipt(RepeatedReceipt),
    FailNext {
        target: Target,
        fault: Fault,
        times: u32,
    },
    FailAtRandom(RandomFaults),
    ClearFaults,
    ExpireIdempotencyKeys,
    SetWebhookUrl {
        provider: Provider,
        url: Option<String>,
    },
    SetWebhookSecrets {
        provider: Provider,
        secrets: Vec<String>,
    },
    SetDelivery {
        provider: Provider,
        delivery: Delivery,
    },
    LoseNext {
        provider: Provider,
        times: u32,
    },
    Redeliver {
        event_id: String,
    },
}

/// - `POST /api/control` does one [`Command`].
/// - `GET /ledger`, `/api/payments`, `/api/events`, `/api/attempts` and `/api/calls` tell what
///   happened.
pub(super) fn routes(shared: &Arc<Shared>) -> Route {
    let with = |endpoint: RouteMethod| endpoint.data(Arc::clone(shared));
    Route::new()
        .at("/ledger", with(get(ledger)))
        .at("/api/control", with(post(control)))
        .at("/api/payments", with(get(payments)))
        .at("/api/events", with(get(events)))
        .at("/api/attempts", with(get(attempts)))
        .at("/api/calls", with(get(calls)))
}

#[handler]
fn ledger(Data(shared): Data<&Arc<Shared>>) -> Response {
    Json(shared.ledger()).into_response()
}

#[handler]
fn payments(Data(shared): Data<&Arc<Shared>>) -> Response {
    let mut payments = shared.payments(Provider::Stripe);
    payments.extend(shared.payments(Provider::Razorpay));
    Json(payments).into_response()
}

#[handler]
fn events(Data(shared): Data<&Arc<Shared>>) -> Response {
    Json(shared.post.told()).into_response()
}

#[handler]
fn attempts(Data(shared): Data<&Arc<Shared>>) -> Response {
    Json(shared.post.attempts()).into_response()
}

#[handler]
fn calls(Data(shared): Data<&Arc<Shared>>) -> Response {
    Json(shared.calls()).into_response()
}

#[handler]
fn control(Data(shared): Data<&Arc<Shared>>, Json(command): Json<Command>) -> Response {
    match command.run(shared) {
        Ok(answer) => answer,
        Err(error) => {
            let status = match error {
                ActError::Unknown(_) => StatusCode::NOT_FOUND,
                ActError::Impossible { .. } => StatusCode::CONFLICT,
            };
            let body = Json(json!({ "error": error.to_string() }));
            body.with_status(status).into_response()
        }
    }
}

impl Command {
    fn run(self, shared: &Arc<Shared>) -> Result<Response, ActError> {
        match self {
            Self::Act { reference, act } => {
                let acted = shared.act(&reference, &act)?;
                return Ok(Json(acted).into_response());
            }
            Self::CreateForeign { provider, amount_minor, currency, metadata } => {
                let id = shared.create_foreign(provider, amount_minor, &currency, metadata);
                return Ok(named(&id));
            }
            Self::Refund { payment, amount_minor } => {
                return Ok(named(&shared.refund(&payment, amount_minor)?));
            }
            Self::Dispute { payment } => return Ok(named(&shared.dispute(&payment)?)),
            Self::FinishRefund { refund, verdict } => shared.finish_refund(&refund, verdict)?,
            Self::CloseDispute { dispute, verdict } => shared.close_dispute(&dispute, verdict)?,
            Self::SetRefundsWait { provider, wait } => shared.set_refunds_wait(provider, wait),
            Self::SetCapture(capture) => shared.change(|world| world.razorpay.capture = capture),
            Self::SetRepeatedReceipt(answer) => {
                shared.change(|world| world.razorpay.repeated_receipt = answer);
            }
            Self::FailNext { target, fault, times } => {
                shared.faults().strike_next(target, fault, times.min(STRIKES_MAX));
            }
            Self::FailAtRandom(random) => shared.faults().strike_at_random(Some(random)),
            Self::ClearFaults => shared.faults().clear(),
            Self::ExpireIdempotencyKeys => shared.expire_idempotency_keys(),
            Self::SetWebhookUrl { provider, url } => shared.post.set_url(provider, url.as_deref()),
            Self::SetWebhookSecrets { provider, secrets } => {
                shared.post.set_secrets(provider, secrets);
            }
            Self::SetDelivery { provider, delivery } => {
                shared.post.set_delivery(provider, delivery);
            }
            Self::LoseNext { provider, times } => shared.post.lose_next(provider, times),
            Self::Redeliver { event_id } => {
                if !shared.post.redeliver(&event_id) {
                    return Err(ActError::Unknown(event_id));
                }
            }
        }
        Ok(StatusCode::NO_CONTENT.into_response())
    }
}

fn named(id: &str) -> Response {
    Json(json!({ "id": id })).into_response()
}
