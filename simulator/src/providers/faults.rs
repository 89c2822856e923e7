//! What goes wrong at the providers, and how often.

use std::{collections::VecDeque, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::operation::{Operation, Provider};

/// A way in which an API fails its clients; "before" and "after" mean the effect of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// 500, and nothing happened. Stripe keeps it under the idempotency key, as it really does:
    /// the key is burnt for a day.
    ErrorBefore,
    /// 500, and it happened. Stripe replays the 500 under the same key for a day.
    ErrorAfter,
    /// Nothing happens until the client leaves, and then nothing happened; its idempotency key
    /// is in use meanwhile.
    HangBefore,
    /// It happened, and nobody answers.
    HangAfter,
    /// The connection is reset, and nothing happened.
    ResetBefore,
    /// It happened, and the connection is reset.
    ResetAfter,
    /// 429 with `Retry-After`, and nothing happened.
    RateLimited,
    /// It happened, and the 200 breaks off in the middle of its JSON.
    MalformedAnswer,
    /// A gateway's 502 in HTML, and nothing happened.
    BadGatewayBefore,
    /// A gateway's 502 in HTML, and it happened.
    BadGatewayAfter,
    /// It happens and is answered, that much later; the idempotency key is in use meanwhile.
    #[serde(rename = "slow-ms")]
    Slow(#[serde(deserialize_with = "milliseconds", serialize_with = "as_milliseconds")] Duration),
}

impl Fault {
    /// What a seed draws from: everything that a client gets over without waiting long.
    pub const ANY: [Self; 9] = [
        Self::ErrorBefore,
        Self::ErrorAfter,
        Self::HangAfter,
        Self::ResetBefore,
        Self::ResetAfter,
        Self::RateLimited,
        Self::MalformedAnswer,
        Self::BadGatewayBefore,
        Self::BadGatewayAfter,
    ];
}

fn milliseconds<'de, D: Deserializer<'de>>(wire: D) -> Result<Duration, D::Error> {
    u32::deserialize(wire).map(|ms| Duration::from_millis(ms.into()))
}

fn as_milliseconds<S: Serializer>(duration: &Duration, wire: S) -> Result<S::Ok, S::Error> {
    wire.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// The calls that a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    Provider(Provider),
    Operation(Operation),
}

impl From<Provider> for Target {
    fn from(provider: Provider) -> Self {
        Self::Provider(provider)
    }
}

impl From<Operation> for Target {
    fn from(operation: Operation) -> Self {
        Self::Operation(operation)
    }
}

impl Target {
    fn covers(self, operation: Operation) -> bool {
        match self {
            Self::Provider(provider) => provider == operation.provider(),
            Self::Operation(struck) => struck == operation,
        }
    }
}

/// Faults by chance, and the same ones again from the same seed and order of calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomFaults {
    /// The share of calls that fail, from 0 to 1.
    pub rate: f64,
    pub seed: u64,
    /// What is drawn from.
    #[serde(default = "any")]
    pub faults: Vec<Fault>,
}

fn any() -> Vec<Fault> {
    Fault::ANY.to_vec()
}

/// Strikes that somebody asked for and that have not all come.
#[derive(Debug)]
struct Ordered {
    target: Target,
    fault: Fault,
    times: u32,
}

/// The faults to come: those that were asked for, then those by chance.
#[derive(Debug, Default)]
pub(super) struct Faults {
    ordered: VecDeque<Ordered>,
    random: Option<(RandomFaults, StdRng)>,
}

impl Faults {
    pub(super) fn strike_next(&mut self, target: Target, fault: Fault, times: u32) {
        if times > 0 {
            self.ordered.push_back(Ordered { target, fault, times });
        }
    }

    pub(super) fn strike_at_random(&mut self, random: Option<RandomFaults>) {
        self.random = random.map(|random| {
            let dice = StdRng::seed_from_u64(random.seed);
            (random, dice)
        });
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// One line for each fault to come.
    pub(super) fn shown(&self) -> Vec<String> {
        let ordered = self.ordered.iter().map(|it| {
            let Ordered { target, fault, times } = it;
            format!("{times} × {fault:?} at {target:?}")
        });
        let random = self.random.iter().map(|(it, _)| {
            format!("{:?} at {} of all calls, seed {}", it.faults, it.rate, it.seed)
        });
        ordered.chain(random).collect()
    }

    /// The fault that strikes this call, which uses it up.
    pub(super) fn take(&mut self, operation: Operation) -> Option<Fault> {
        let due = self.ordered.iter().position(|ordered| ordered.target.covers(operation));
        if let Some(due) = due {
            let ordered = &mut self.ordered[due];
            let fault = ordered.fault;
            ordered.times = ordered.times.saturating_sub(1);
            if ordered.times == 0 {
                self.ordered.remove(due);
            }
            return Some(fault);
        }
        let (random, dice) = self.random.as_mut()?;
        let rate = random.rate.clamp(0.0, 1.0);
        dice.random_bool(rate).then(|| random.faults.choose(dice).copied()).flatten()
    }
}
