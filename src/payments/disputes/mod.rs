//! Disputes: claims of shoppers against captures, brought by their banks.
//!
//! Owns `disputes`. How one stands is taken from the provider's object, never from an event's name. A
//! dispute changes no order by itself; while one is open, nothing is refunded without a person.

pub mod store;

use std::str::FromStr;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Provider, gateway::DisputeStanding};
use crate::kernel::OrderId;

/// A claim against a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispute {
    pub id: Uuid,
    pub capture_id: Uuid,
    pub order_id: OrderId,
    pub provider: Provider,
    pub provider_ref: String,
    pub amount_minor: i64,
    pub currency: String,
    pub state: State,
    /// The provider's words for where it stands, and for what is claimed.
    pub status: String,
    pub reason: Option<String>,
    /// How often its provider has told how it stands.
    pub told: i32,
    pub opened_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
}

/// Where a dispute stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Open,
    /// The money is ours.
    Won,
    /// The money is the shopper's.
    Lost,
    /// It ended without a verdict: an inquiry that led to nothing.
    Closed,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Open, Self::Won, Self::Lost, Self::Closed];

    /// The name in the database and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Closed => "closed",
        }
    }
}

impl From<DisputeStanding> for State {
    fn from(standing: DisputeStanding) -> Self {
        match standing {
            DisputeStanding::Open => Self::Open,
            DisputeStanding::Won => Self::Won,
            DisputeStanding::Lost => Self::Lost,
            DisputeStanding::Closed => Self::Closed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no dispute has this state")]
pub struct UnknownState;

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or(UnknownState)
    }
}
