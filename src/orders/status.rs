//! The states of an order and its legal moves.

use std::str::FromStr;

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It keeps its stock until its deadline.
    AwaitingPayment,
    /// Given up by its owner before it was paid.
    Cancelled,
    /// Its deadline passed before it was paid.
    Expired,
    /// The whole amount was captured, and the units are sold.
    Paid,
}

/// What happens to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Cancelled,
    DeadlinePassed,
    /// The amount was captured and every line is sold to the order, even after its deadline.
    PaymentSettled,
}

/// What happens to an order without moving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Note {
    /// A payment was declined; another can be made until the deadline.
    PaymentFailed,
    /// Money came that cannot be kept.
    PaymentRefundDue,
    /// Money came that is not what was asked for.
    PaymentQuarantined,
    /// Money was set aside for an order that no longer wants it.
    PaymentAuthorizedTooLate,
    /// A payment is under way that may take longer than the deadline.
    DeadlineExtended,
}

impl Note {
    /// The name on the order's timeline.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PaymentFailed => "payment_failed",
            Self::PaymentRefundDue => "payment_refund_due",
            Self::PaymentQuarantined => "payment_quarantined",
            Self::PaymentAuthorizedTooLate => "payment_authorized_too_late",
            Self::DeadlineExtended => "deadline_extended",
        }
    }
}

impl Status {
    pub const ALL: [Self; 4] = [Self::AwaitingPayment, Self::Cancelled, Self::Expired, Self::Paid];

    /// The status after `event`, or `None` where the event makes no sense.
    pub const fn on(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::AwaitingPayment, Event::Cancelled) => Some(Self::Cancelled),
            (Self::AwaitingPayment, Event::DeadlinePassed) => Some(Self::Expired),
            (Self::AwaitingPayment | Self::Cancelled | Self::Expired, Event::PaymentSettled) => {
                Some(Self::Paid)
            }
            (
                Self::Cancelled | Self::Expired | Self::Paid,
                Event::Cancelled | Event::DeadlinePassed,
            )
            | (Self::Paid, Event::PaymentSettled) => None,
        }
    }

    /// The name in the database and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Paid => "paid",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no order has this status")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(name: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.name() == name).ok_or(UnknownStatus)
    }
}

impl Event {
    pub const ALL: [Self; 3] = [Self::Cancelled, Self::DeadlinePassed, Self::PaymentSettled];

    /// The name on the order's timeline.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::DeadlinePassed => "deadline_passed",
            Self::PaymentSettled => "payment_settled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of `order_transitions` as the migrations write them.
    fn legal_in_the_database() -> Vec<(&'static str, &'static str)> {
        let migration = include_str!("../../migrations/0004_orders.sql");
        let (_, rest) = migration.split_once("INSERT INTO order_transitions").unwrap();
        let (rows, _) = rest.split_once(';').unwrap();
        let (_, rows) = rows.split_once("VALUES").unwrap();
        rows.split(['(', ')'])
            .filter_map(|row| row.split_once(", "))
            .map(|(from, to)| (from.trim_matches('\''), to.trim_matches('\'')))
            .filter(|(from, _)| !from.is_empty())
            .collect()
    }

    #[test]
    fn the_function_and_the_database_allow_the_same_moves() {
        let mut by_function: Vec<_> = Status::ALL
            .into_iter()
            .flat_map(|from| Event::ALL.map(|event| (from.name(), from.on(event))))
            .filter_map(|(from, to)| Some((from, to?.name())))
            .collect();
        let mut by_database = legal_in_the_database();
        by_function.sort_unstable();
        by_database.sort_unstable();

        assert_eq!(by_function, by_database);
    }

    #[test]
    fn every_name_is_read_back() {
        for status in Status::ALL {
            assert_eq!(status.name().parse(), Ok(status));
        }
        assert_eq!("lost".parse::<Status>(), Err(UnknownStatus));
    }
}
