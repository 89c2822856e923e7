//! Refunds: money that goes back, a part of one capture or all of it.
//!
//! Owns `refunds`, `refund_transitions` and `restocks`. A refund is committed before its provider is
//! asked, under a key that is made of its id. It is not final until the provider says so, and not even then:
//! a bank may send the money back. The refunds of a capture that did not fail never come to more than
//! the capture; whoever adds one has locked the order.

pub mod store;

use std::str::FromStr;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Provider;
use crate::kernel::{OrderId, RefundId, UserId};

/// Money that goes back to a shopper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    pub id: RefundId,
    pub capture_id: Uuid,
    pub order_id: OrderId,
    pub provider: Provider,
    pub amount_minor: i64,
    /// Three capital letters, as the capture has them.
    pub currency: String,
    pub state: State,
    pub cause: Cause,
    /// Why, in the words of the member of staff.
    pub reason: Option<String>,
    pub requested_by: Option<UserId>,
    /// The provider's name for it, once it is known.
    pub provider_ref: Option<String>,
    /// Why it failed, in the provider's words.
    pub failure: Option<String>,
    pub key_generation: i32,
    pub created_at: OffsetDateTime,
}

impl Refund {
    /// The key under which its provider is asked to make it: the same request under the same key is
    /// done once.
    pub fn provider_key(&self) -> String {
        match self.key_generation {
            1 => format!("refund-{}", self.id),
            generation => format!("refund-{}-{generation}", self.id),
        }
    }
}

/// Where a refund stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It is committed here; whether the provider knows it is not yet known.
    Requested,
    /// The provider works on it.
    Pending,
    /// The money is on its way to the shopper.
    Succeeded,
    /// The money is still with us, or came back.
    Failed,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Requested, Self::Pending, Self::Succeeded, Self::Failed];

    /// Whether a refund may go from this state to `next`; staying is no move.
    pub const fn allows(self, next: Self) -> bool {
        match next {
            Self::Requested => false,
            Self::Pending => matches!(self, Self::Requested),
            Self::Succeeded => matches!(self, Self::Requested | Self::Pending),
            Self::Failed => !matches!(self, Self::Failed),
        }
    }

    /// The name in the database and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no refund has this")]
pub struct Unknown;

impl FromStr for State {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or(Unknown)
    }
}

/// Who wanted a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nobody: the money could not be kept.
    Surplus,
    /// The order was given up after it was paid.
    Cancelled,
    /// A member of staff.
    Staff,
    /// Whoever used the provider's dashboard.
    Provider,
}

impl Cause {
    pub const ALL: [Self; 4] = [Self::Surplus, Self::Cancelled, Self::Staff, Self::Provider];

    /// The name in the database and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Surplus => "surplus",
            Self::Cancelled => "cancelled",
            Self::Staff => "staff",
            Self::Provider => "provider",
        }
    }
}

impl FromStr for Cause {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        Self::ALL.into_iter().find(|cause| cause.name() == name).ok_or(Unknown)
    }
}

/// What of a capture's amount no refund speaks for. The refunds are those of the capture.
pub fn refundable(captured_minor: i64, refunds: &[Refund]) -> i64 {
    let spoken_for: i64 = refunds
        .iter()
        .filter(|refund| refund.state != State::Failed)
        .map(|refund| refund.amount_minor)
        .sum();
    (captured_minor - spoken_for).max(0)
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

        assert_eq!(by_function, in_migrations("refund_transitions"));
    }

    fn refund(amount_minor: i64, state: State) -> Refund {
        Refund {
            id: RefundId::generate(),
            capture_id: Uuid::nil(),
            order_id: OrderId::from(Uuid::nil()),
            provider: Provider::Stripe,
            amount_minor,
            currency: "USD".to_owned(),
            state,
            cause: Cause::Surplus,
            reason: None,
            requested_by: None,
            provider_ref: None,
            failure: None,
            key_generation: 1,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_what_failed_can_go_back_again() {
        assert_eq!(refundable(1_000, &[]), 1_000);
        let refunds = [State::Requested, State::Pending, State::Succeeded, State::Failed]
            .map(|state| refund(300, state));
        assert_eq!(refundable(1_000, &refunds), 100);
        // Made in the dashboard at the same time as here.
        assert_eq!(refundable(500, &refunds), 0);
    }
}
