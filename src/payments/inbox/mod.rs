//! The inbox: what providers tell by webhook.
//!
//! Owns `provider_events`. A webhook is stored, as it came, before it is answered with a yes, and is
//! judged afterwards by a worker: so the provider never waits for our work, and nothing it told is
//! lost. Whoever wants it stored has to prove by its signature that the provider wrote it; what can
//! then not be read is parked, never refused.

mod fields;
mod listed;
mod razorpay;
mod receive;
mod replay;
pub mod signature;
pub mod store;
mod stripe;

use std::fmt;

use fields::Unreadable;
pub use listed::receive_listed;
pub use receive::{Receipt, receive};
pub use replay::replay;
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};

use crate::{
    kernel::EventId,
    payments::{News, Provider},
};

/// A webhook's body, byte for byte as it was signed. It names people, and is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(Vec<u8>);

impl Body {
    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// A webhook with a good signature, on its way into the inbox. Its id is fixed beforehand, so that
/// it can be tried again.
#[derive(Debug, Clone)]
pub struct Received {
    id: EventId,
    provider: Provider,
    /// The provider's name for the event: the same for every time it is sent.
    event_id: String,
    /// The provider's name of what happened; empty where the body does not say.
    kind: String,
    body: Body,
    sha256: [u8; 32],
}

/// The columns are text of these lengths at most, without control characters: a provider's names are
/// far shorter, and whatever else it signs must find its place, too.
const EVENT_ID_LENGTH_MAX: usize = 255;
const KIND_LENGTH_MAX: usize = 100;

impl Received {
    /// Takes what Stripe has signed.
    pub fn from_stripe(body: Vec<u8>) -> Self {
        let stripe::Envelope { id, kind } = stripe::envelope(&body);
        Self::new(Provider::Stripe, id.as_deref(), kind, body.into())
    }

    /// Takes what Razorpay has signed; `event_id` is a header that it has not signed.
    pub fn from_razorpay(event_id: Option<&str>, body: Vec<u8>) -> Self {
        let kind = razorpay::kind(&body);
        Self::new(Provider::Razorpay, event_id, kind, body.into())
    }

    pub const fn provider(&self) -> Provider {
        self.provider
    }

    fn new(provider: Provider, event_id: Option<&str>, kind: Option<String>, body: Body) -> Self {
        let sha256 = body.sha256();
        let event_id = match event_id {
            Some(id) if is_name(id) => id.to_owned(),
            // Two names that we cannot store are still two names.
            Some(id) if !id.is_empty() => hex::encode(Sha256::digest(id)),
            Some(_) | None => hex::encode(sha256),
        };
        let kind = kind.unwrap_or_default();
        let kind = kind.chars().filter(|letter| !letter.is_control()).take(KIND_LENGTH_MAX);
        Self { id: EventId::generate(), provider, event_id, kind: kind.collect(), body, sha256 }
    }
}

/// Whether the text can be what a provider calls one of its objects.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= EVENT_ID_LENGTH_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A webhook of the inbox that waits to be judged.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    pub id: EventId,
    pub provider: Provider,
    pub kind: String,
    pub body: Body,
}

/// What a webhook says to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Money was collected.
    Settle(News),
    /// Something else happened to a payment: how it stands now, only its provider knows.
    Review { provider_ref: String },
    /// Something happened to a refund: how it stands now, only its provider knows.
    ReviewRefund { provider_ref: String },
    /// Something happened to one of the refunds of a charge.
    ReviewRefundsOf { charge_ref: String },
    /// Something happened to a dispute: how it stands now, only its provider knows.
    ReviewDispute { provider_ref: String },
    /// It is nothing that we act on; the text says why.
    Ignore(&'static str),
    /// It concerns us and cannot be acted on: a person has to look. The text says why, and nothing
    /// of what the webhook holds.
    Park(String),
}

/// How long a webhook's picture of collected money is believed, from its making. What waited through a
/// shorter outage of ours is settled without asking, of which a provider allows only so much each second;
/// by then nobody has sent the money of an order back that nobody has seen.
const FRESH_MAX: Duration = Duration::minutes(15);

/// Reads what a stored webhook says to do, for a shop whose payments are real if `livemode`.
///
/// `now` is by any clock that agrees with the provider's to a minute or so. Of money that was collected
/// a while before it, some may have gone back meanwhile: its provider is to be asked.
pub fn read(event: &StoredEvent, livemode: bool, now: OffsetDateTime) -> Reading {
    let Ok(body) = serde_json::from_slice::<Value>(event.body.as_ref()) else {
        return Reading::Park("the body is not JSON".to_owned());
    };
    let reading = match event.provider {
        Provider::Stripe => stripe::read(&event.kind, &body, livemode),
        Provider::Razorpay => razorpay::read(&event.kind, &body, livemode),
    };
    match reading {
        Ok(Reading::Settle(news)) if is_late(event.provider, &body, now) => {
            Reading::Review { provider_ref: news.provider_ref }
        }
        Ok(reading) => reading,
        Err(Unreadable(field)) => Reading::Park(format!("`{field}` cannot be read")),
    }
}

fn is_late(provider: Provider, body: &Value, now: OffsetDateTime) -> bool {
    let created = match provider {
        Provider::Stripe => "created",
        Provider::Razorpay => "created_at",
    };
    let created = body.get(created).and_then(Value::as_i64);
    let created = created.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    created.is_some_and(|created| now - created > FRESH_MAX)
}

/// Why an event is ignored that no provider would be asked about.
const NOT_ACTED_ON: &str = "a kind that is not acted on";

/// What became of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was acted on.
    Done,
    /// It was none of our business; the text says why.
    Ignored(String),
    /// A person has to look; the text says why.
    Parked(String),
}

impl Outcome {
    pub const fn state(&self) -> State {
        match self {
            Self::Done => State::Done,
            Self::Ignored(_) => State::Ignored,
            Self::Parked(_) => State::Parked,
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Ignored(reason) | Self::Parked(reason) => Some(reason),
        }
    }
}

/// Where a webhook of the inbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    New,
    Done,
    Ignored,
    Parked,
}

impl State {
    pub const ALL: [Self; 4] = [Self::New, Self::Done, Self::Ignored, Self::Parked];

    /// The name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Done => "done",
            Self::Ignored => "ignored",
            Self::Parked => "parked",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A webhook as an operator sees it: without its body.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: EventId,
    pub provider: Provider,
    pub event_id: String,
    pub kind: String,
    pub state: State,
    pub reason: Option<String>,
    pub received_at: OffsetDateTime,
    pub finished_at: Option<OffsetDateTime>,
}

#[cfg(test)]
mod tests;
