//! What a job is: a payload with a name, a lane and a version.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A queue of its own, so that slow work of one sort never delays another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Orders whose hold runs out. It has no ledger rows: the order is the record.
    Deadlines,
    /// E-mails to shoppers.
    Mail,
    /// Webhooks to act on. Nobody outside is asked, so that no provider can delay it.
    Settling,
    /// Calls to payment providers, which may be slow or away.
    Providers,
}

impl Lane {
    pub const ALL: [Self; 4] = [Self::Deadlines, Self::Mail, Self::Settling, Self::Providers];

    /// The name in the ledger, in Redis and in metrics; stored for years.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deadlines => "deadlines",
            Self::Mail => "mail",
            Self::Settling => "settling",
            Self::Providers => "providers",
        }
    }

    /// The lane of that name, or `None` where a newer version of the program knows more lanes.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.name() == name)
    }

    /// How many rows a worker is woken for, and claims, at once.
    pub const fn rows_per_wake_up(self) -> usize {
        match self {
            // One set-based statement handles them all.
            Self::Deadlines | Self::Settling => 200,
            // Few, so that a burst spreads over all processes and a slow server delays few.
            Self::Mail | Self::Providers => 20,
        }
    }

    /// Whether a worker takes others that are due along with the rows that it was woken for, up to as
    /// many as it is woken for at once.
    pub const fn fills_up(self) -> bool {
        match self {
            // A slice of few costs as much as one of many, and wake-ups of few come by the hundred.
            Self::Settling => true,
            Self::Deadlines | Self::Mail | Self::Providers => false,
        }
    }

    /// How often an idle worker asks Redis; it has no way to be told.
    pub(crate) const fn poll_interval(self) -> Duration {
        match self {
            Self::Deadlines | Self::Settling => Duration::from_millis(100),
            Self::Mail | Self::Providers => Duration::from_millis(250),
        }
    }
}

/// A promise with a name: work that will be done after the transaction that staged it commits.
///
/// Whoever handles it must be able to repeat it. Fields are ids, never personal data; they are only
/// added, with a default, because a row written today may be read by the program of next year.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// `slice.verb-noun`; stored for years, never renamed.
    const KIND: &'static str;
    const LANE: Lane;
    /// Raised when an older program must not touch the payload; it postpones what it does not know.
    const VERSION: u16 = 1;

    /// Names the effect: at most one row has this key.
    fn dedupe_key(&self) -> Option<String> {
        None
    }
}

/// How long a job waits at least, counted by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay(Duration);

impl Delay {
    pub const NONE: Self = Self(Duration::ZERO);

    pub const fn of(delay: Duration) -> Self {
        Self(delay)
    }

    pub(crate) const fn duration(self) -> Duration {
        self.0
    }
}

/// Why a stored payload is not a job of ours.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// A newer program wrote it, and a newer worker will read it.
    #[error("version {0} of the payload is not known here")]
    UnknownVersion(u64),
    #[error("the payload has no version")]
    NoVersion,
    #[error("the payload does not decode: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Writes the job as it is stored: its fields, and its version as `v`.
pub(crate) fn encode<J: Job>(job: &J) -> Result<Value, serde_json::Error> {
    let mut payload = serde_json::to_value(job)?;
    let Some(fields) = payload.as_object_mut() else {
        return Err(serde::ser::Error::custom("a job's payload must be an object"));
    };
    fields.insert("v".to_owned(), J::VERSION.into());
    Ok(payload)
}

/// Reads a stored payload of any version up to the job's own.
pub fn decode<J: Job>(payload: Value) -> Result<J, Undecodable> {
    let version = payload.get("v").and_then(Value::as_u64).ok_or(Undecodable::NoVersion)?;
    if version > u64::from(J::VERSION) {
        return Err(Undecodable::UnknownVersion(version));
    }
    Ok(serde_json::from_value(payload)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_is_found_by_its_name() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_name(lane.name()), Some(lane));
        }
        assert_eq!(Lane::from_name("a lane of next year"), None);
    }
}
