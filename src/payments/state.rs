//! The states of a payment and its legal moves.

use std::str::FromStr;

/// Where an attempt to pay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It is committed here; whether the provider knows it is not yet known.
    Creating,
    /// The provider waits for the shopper. A decline leads back here.
    Open,
    /// The provider works on it, for minutes or days.
    Processing,
    /// The shopper's bank has set the money aside; it is not collected yet.
    Authorized,
    /// Nobody wants it any more; whether the provider agrees is not yet known.
    Cancelling,
    /// The money was collected. What became of it, the captures say.
    Captured,
    /// The provider will collect nothing for it. (Razorpay cannot promise that.)
    Cancelled,
    /// The provider refused to have it at all.
    Rejected,
}

impl State {
    pub const ALL: [Self; 8] = [
        Self::Creating,
        Self::Open,
        Self::Processing,
        Self::Authorized,
        Self::Cancelling,
        Self::Captured,
        Self::Cancelled,
        Self::Rejected,
    ];

    /// Whether a payment may go from this state to `next`; staying is no move.
    pub const fn allows(self, next: Self) -> bool {
        match next {
            Self::Creating => false,
            Self::Open => matches!(self, Self::Creating | Self::Processing),
            Self::Processing => matches!(self, Self::Creating | Self::Open),
            Self::Authorized => matches!(self, Self::Creating | Self::Open | Self::Processing),
            Self::Cancelling => self.is_open(),
            Self::Captured => !matches!(self, Self::Captured),
            Self::Cancelled => self.is_open() || matches!(self, Self::Cancelling),
            Self::Rejected => matches!(self, Self::Creating),
        }
    }

    /// Whether it is the attempt under way: an order has one at most.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Creating | Self::Open | Self::Processing | Self::Authorized)
    }

    /// The name in the database and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Open => "open",
            Self::Processing => "processing",
            Self::Authorized => "authorized",
            Self::Cancelling => "cancelling",
            Self::Captured => "captured",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no payment has this state")]
pub struct UnknownState;

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or(UnknownState)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::transitions::in_migrations;

    #[test]
    fn the_function_and_the_database_allow_the_same_moves() {
        let mut by_function: Vec<_> = State::ALL
            .into_iter()
            .flat_map(|from| State::ALL.map(|to| (from, to)))
            .filter(|(from, to)| from.allows(*to))
            .map(|(from, to)| (from.name().to_owned(), to.name().to_owned()))
            .collect();
        by_function.sort_unstable();

        assert_eq!(by_function, in_migrations("payment_transitions"));
    }

    #[test]
    fn money_that_came_is_recorded_whatever_was_thought_before() {
        for state in State::ALL {
            assert_eq!(state.allows(State::Captured), state != State::Captured, "{state:?}");
            assert!(!State::Captured.allows(state), "{state:?}");
        }
    }

    #[test]
    fn every_name_is_read_back() {
        for state in State::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
        assert_eq!("lost".parse::<State>(), Err(UnknownState));
    }
}
