//! The states of an order and its legal moves.

use std::str::FromStr;

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It keeps its stock until its deadline.
    AwaitingPayment,
    /// Given up by its owner, before it was paid or afterwards.
    Cancelled,
    /// Its deadline passed before it was paid.
    Expired,
    /// The whole amount was captured, and the units are sold.
    Paid,
    /// It was paid, and its parcel has left.
    Shipped,
}

/// What happens to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Cancelled,
    DeadlinePassed,
    /// The amount was captured and every line is sold to the order, even after its deadline.
    PaymentSettled,
    /// It was given up after it was paid: the money goes back, and the units are on sale again.
    CancelledAfterPayment,
    /// Its parcel was handed over.
    Shipped,
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
    /// Money was set aside that is not what was asked for: it is not collected.
    PaymentNotCollected,
    /// A payment is under way that may take longer than the deadline.
    DeadlineExtended,
    /// Money is to go back.
    RefundRequested,
    /// The provider sent money back.
    RefundSucceeded,
    /// Money that was to go back is still with the shop.
    RefundFailed,
    /// Money that is to go back is under dispute: it waits for the end of that.
    RefundWithheld,
    /// The shopper's bank claims money back, or the claim stands differently now.
    Disputed,
    /// A person decided what becomes of quarantined money.
    QuarantineResolved,
}

impl Note {
    /// The name on the order's timeline.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PaymentFailed => "payment_failed",
            Self::PaymentRefundDue => "payment_refund_due",
            Self::PaymentQuarantined => "payment_quarantined",
            Self::PaymentAuthorizedTooLate => "payment_authorized_too_late",
            Self::PaymentNotCollected => "payment_not_collected",
            Self::DeadlineExtended => "deadline_extended",
            Self::RefundRequested => "refund_requested",
            Self::RefundSucceeded => "refund_succeeded",
            Self::RefundFailed => "refund_failed",
            Self::RefundWithheld => "refund_withheld",
            Self::Disputed => "disputed",
            Self::QuarantineResolved => "quarantine_resolved",
        }
    }
}

impl Status {
    pub const ALL: [Self; 5] =
        [Self::AwaitingPayment, Self::Cancelled, Self::Expired, Self::Paid, Self::Shipped];

    /// The status after `event`, or `None` where the event makes no sense.
    pub const fn on(self, event: Event) -> Option<Self> {
        match (self, event) {
            (Self::AwaitingPayment, Event::Cancelled)
            | (Self::Paid, Event::CancelledAfterPayment) => Some(Self::Cancelled),
            (Self::AwaitingPayment, Event::DeadlinePassed) => Some(Self::Expired),
            (Self::AwaitingPayment | Self::Cancelled | Self::Expired, Event::PaymentSettled) => {
                Some(Self::Paid)
            }
            (Self::Paid, Event::Shipped) => Some(Self::Shipped),
            (
                Self::Cancelled | Self::Expired | Self::Paid,
                Event::Cancelled | Event::DeadlinePassed,
            )
            | (
                Self::AwaitingPayment | Self::Cancelled | Self::Expired,
                Event::CancelledAfterPayment | Event::Shipped,
            )
            | (Self::Paid, Event::PaymentSettled)
            | (
                Self::Shipped,
                Event::Cancelled
                | Event::DeadlinePassed
                | Event::PaymentSettled
                | Event::CancelledAfterPayment
                | Event::Shipped,
            ) => None,
        }
    }

    /// The name in the database and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
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
    pub const ALL: [Self; 5] = [
        Self::Cancelled,
        Self::DeadlinePassed,
        Self::PaymentSettled,
        Self::CancelledAfterPayment,
        Self::Shipped,
    ];

    /// The name on the order's timeline.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::DeadlinePassed => "deadline_passed",
            Self::PaymentSettled => "payment_settled",
            Self::CancelledAfterPayment => "cancelled_after_payment",
            Self::Shipped => "shipped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::transitions::in_migrations;

    #[test]
    fn the_function_and_the_database_allow_the_same_moves() {
        let mut by_function: Vec<_> = Status::ALL
            .into_iter()
            .flat_map(|from| Event::ALL.map(|event| (from.name(), from.on(event))))
            .filter_map(|(from, to)| Some((from.to_owned(), to?.name().to_owned())))
            .collect();
        by_function.sort_unstable();

        assert_eq!(by_function, in_migrations("order_transitions"));
    }

    #[test]
    fn every_name_is_read_back() {
        for status in Status::ALL {
            assert_eq!(status.name().parse(), Ok(status));
        }
        assert_eq!("lost".parse::<Status>(), Err(UnknownStatus));
    }
}
