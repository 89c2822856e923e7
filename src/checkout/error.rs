use std::{sync::Arc, time::Duration};

use super::Unfair;
use crate::{
    idempotency::KeyError,
    inventory::allocation::Shortage,
    kernel::{Class, Detail, Fault, Money, MoneyError, VariantId, batch::Refused, database},
    orders::{OrderError, Status},
    payments::PaymentError,
};

/// Why an order was not placed, paid, cancelled, expired, refunded or shipped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckoutError {
    /// Each entry names the place of a line in the request, from 0.
    #[error("some lines cannot be ordered")]
    BadLines(Vec<(usize, LineProblem)>),
    #[error("too little stock is left")]
    OutOfStock(Vec<(usize, Shortage)>),
    #[error(transparent)]
    Unfair(#[from] Unfair),
    #[error("the total is now {0}")]
    TotalChanged(Money),
    #[error(transparent)]
    Amount(#[from] MoneyError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("an order that is {} cannot be cancelled", .0.name())]
    NotCancellable(Status),
    #[error("an order that is {} cannot be shipped", .0.name())]
    NotShippable(Status),
    #[error("there is no such order")]
    NoSuchOrder,
    #[error("an order that is {} cannot be paid", .0.name())]
    NotPayable(Status),
    #[error("the order is paid")]
    AlreadyPaid,
    #[error("the time to pay the order is over")]
    HoldExpired,
    /// What is left of it is too little for a shopper to pay in.
    #[error("the time to pay the order is almost over")]
    HoldEnding,
    #[error("the order costs nothing")]
    NothingToPay,
    #[error("a payment of the order is under way")]
    PaymentInProgress,
    #[error("there is no such payment")]
    NoSuchPayment,
    #[error("there is no such refund")]
    NoSuchRefund,
    /// The shopper's bank claims the money back, or got it: nothing goes back because the owner says so.
    #[error("the payment of the order is disputed")]
    Disputed,
    /// No money came in that was decided about, or all of it went back.
    #[error("the order has no money that could go back")]
    NothingToRefund,
    /// More than is left, nothing, or another currency.
    #[error("at most {left} {currency} in minor units can go back")]
    RefundTooLarge { left: i64, currency: String },
    /// Each entry names the place of a line in the request, from 0, and what can go back on sale.
    #[error("more units would go back on sale than were sold")]
    RestockTooLarge(Vec<(usize, i64)>),
    #[error("no such money came in")]
    NoSuchCapture,
    /// Somebody has decided, or there was nothing to decide.
    #[error("the money is not in quarantine")]
    NotQuarantined,
    /// What was to pay an order is not what the order costs.
    #[error("the order costs {0}")]
    OtherPrice(Money),
    /// Some of it went back already, or is about to.
    #[error("the money went back, or a part of it")]
    MoneySpent,
    #[error("there is no such finding")]
    NoSuchFinding,
    #[error("the finding is closed")]
    FindingClosed,
    /// What a finding tells of is to be decided, not to be put away.
    #[error("the money is in quarantine: decide about it")]
    Undecided,
    #[error(transparent)]
    Payment(#[from] PaymentError),
    /// The queue is full, or the request waited too long in it. Nothing was done.
    #[error("the shop is busy")]
    Busy,
    /// The order's random number belongs to another order: a repeat draws another.
    #[error("the order's number is taken")]
    NumberTaken,
    /// The connection was lost while the order was being committed: only a repeat with the same
    /// key tells whether it was placed.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// An answer that was recorded cannot be read.
    #[error("a recorded answer cannot be read")]
    UnreadableAnswer,
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
}

/// Why one line cannot be ordered, whatever is in stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineProblem {
    UnknownVariant(VariantId),
    NotSoldInCurrency,
    TooMany,
}

impl LineProblem {
    const fn code(self) -> &'static str {
        match self {
            Self::UnknownVariant(_) => "unknown-variant",
            Self::NotSoldInCurrency => "not-sold-in-currency",
            Self::TooMany => "quantity-too-large",
        }
    }

    fn message(self) -> String {
        match self {
            Self::UnknownVariant(id) => format!("there is no variant {id}"),
            Self::NotSoldInCurrency => "the variant is not sold in this currency".to_owned(),
            Self::TooMany => {
                format!("at most {} units of a variant fit one order", super::QUANTITY_MAX)
            }
        }
    }

    const fn pointer(self) -> &'static str {
        match self {
            Self::UnknownVariant(_) | Self::NotSoldInCurrency => "variant_id",
            Self::TooMany => "quantity",
        }
    }
}

/// Long enough for a batch or two to pass, short enough that a shopper still waits.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Fault for CheckoutError {
    fn class(&self) -> Class {
        match self {
            Self::BadLines(_)
            | Self::Amount(_)
            | Self::NothingToPay
            | Self::RefundTooLarge { .. }
            | Self::RestockTooLarge(_) => Class::Invalid,
            Self::OutOfStock(_)
            | Self::TotalChanged(_)
            | Self::NotCancellable(_)
            | Self::NotShippable(_)
            | Self::NotPayable(_)
            | Self::AlreadyPaid
            | Self::PaymentInProgress
            | Self::Disputed
            | Self::NothingToRefund
            | Self::NotQuarantined
            | Self::OtherPrice(_)
            | Self::MoneySpent
            | Self::FindingClosed
            | Self::Undecided => Class::Conflict,
            Self::Unfair(error) => error.class(),
            Self::Key(error) => error.class(),
            Self::Payment(error) => error.class(),
            Self::NoSuchOrder
            | Self::NoSuchPayment
            | Self::NoSuchRefund
            | Self::NoSuchCapture
            | Self::NoSuchFinding => Class::NotFound,
            Self::HoldExpired | Self::HoldEnding => Class::Gone,
            Self::Busy | Self::NumberTaken | Self::OutcomeUnknown => Class::Unavailable,
            Self::UnreadableAnswer => Class::Broken,
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::BadLines(_) => "lines-not-orderable",
            Self::OutOfStock(_) => "out-of-stock",
            Self::Unfair(error) => error.code(),
            Self::TotalChanged(_) => "total-changed",
            Self::Amount(_) => "invalid-amount",
            Self::Key(error) => error.code(),
            Self::NotCancellable(_) => "order-not-cancellable",
            Self::NotShippable(_) => "order-not-shippable",
            Self::NoSuchOrder => "order-not-found",
            Self::NotPayable(_) => "order-not-payable",
            Self::AlreadyPaid => "order-already-paid",
            Self::HoldExpired => "hold-expired",
            Self::HoldEnding => "hold-ending",
            Self::NothingToPay => "nothing-to-pay",
            Self::PaymentInProgress => "payment-in-progress",
            Self::NoSuchPayment => "payment-not-found",
            Self::NoSuchRefund => "refund-not-found",
            Self::Disputed => "order-disputed",
            Self::NothingToRefund => "nothing-to-refund",
            Self::RefundTooLarge { .. } => "refund-too-large",
            Self::RestockTooLarge(_) => "restock-too-large",
            Self::NoSuchCapture => "capture-not-found",
            Self::NotQuarantined => "not-quarantined",
            Self::OtherPrice(_) => "price-differs",
            Self::MoneySpent => "money-went-back",
            Self::NoSuchFinding => "finding-not-found",
            Self::FindingClosed => "finding-closed",
            Self::Undecided => "capture-not-resolved",
            Self::Payment(error) => error.code(),
            Self::Busy | Self::NumberTaken => "busy",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::UnreadableAnswer => "internal-error",
            Self::Database(error) => database::code(error),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::BadLines(problems) => problems
                .iter()
                .map(|(line, problem)| Detail {
                    pointer: format!("/lines/{line}/{}", problem.pointer()),
                    code: problem.code(),
                    message: problem.message(),
                    available: None,
                })
                .collect(),
            Self::OutOfStock(shortages) => shortages
                .iter()
                .map(|(line, shortage)| Detail {
                    pointer: format!("/lines/{line}/quantity"),
                    code: "out-of-stock",
                    message: format!("{} of this variant can be had", shortage.available),
                    available: Some(shortage.available),
                })
                .collect(),
            Self::Unfair(error) => error.details(),
            Self::TotalChanged(total) => vec![Detail {
                pointer: "/expected_total".to_owned(),
                code: "total-changed",
                message: format!("the total is {} {}", total.minor(), total.currency()),
                available: None,
            }],
            Self::RefundTooLarge { left, currency } => vec![Detail {
                pointer: "/amount".to_owned(),
                code: "refund-too-large",
                message: format!("{left} {currency} in minor units can go back"),
                available: Some(*left),
            }],
            Self::RestockTooLarge(lines) => lines
                .iter()
                .map(|(line, units)| Detail {
                    pointer: format!("/restock/{line}/quantity"),
                    code: "restock-too-large",
                    message: format!("{units} of this variant can go back on sale"),
                    available: Some(*units),
                })
                .collect(),
            Self::Amount(_)
            | Self::Key(_)
            | Self::NotCancellable(_)
            | Self::NotShippable(_)
            | Self::NoSuchOrder
            | Self::NotPayable(_)
            | Self::AlreadyPaid
            | Self::HoldExpired
            | Self::HoldEnding
            | Self::NothingToPay
            | Self::PaymentInProgress
            | Self::NoSuchPayment
            | Self::NoSuchRefund
            | Self::Disputed
            | Self::NothingToRefund
            | Self::NoSuchCapture
            | Self::NotQuarantined
            | Self::OtherPrice(_)
            | Self::MoneySpent
            | Self::NoSuchFinding
            | Self::FindingClosed
            | Self::Undecided
            | Self::Payment(_)
            | Self::Busy
            | Self::NumberTaken
            | Self::OutcomeUnknown
            | Self::UnreadableAnswer
            | Self::Database(_) => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        if let Self::Key(error) = self {
            return error.retry_after();
        }
        if let Self::Payment(error) = self {
            return error.retry_after();
        }
        if let Self::Unfair(error) = self {
            return error.retry_after();
        }
        (self.class() == Class::Unavailable).then_some(RETRY_AFTER)
    }
}

impl CheckoutError {
    /// What a failed COMMIT means.
    pub(super) fn of_commit(error: sqlx::Error) -> Self {
        if database::leaves_open(&error) { Self::OutcomeUnknown } else { error.into() }
    }

    /// The database's part in it.
    pub(super) fn database(&self) -> Option<&sqlx::Error> {
        if let Self::Database(error) = self { Some(error) } else { None }
    }
}

impl From<sqlx::Error> for CheckoutError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<Refused> for CheckoutError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full | Refused::TooLate => Self::Busy,
            Refused::Lost => Self::OutcomeUnknown,
        }
    }
}

impl From<OrderError> for CheckoutError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::NotFound => Self::NoSuchOrder,
            OrderError::Unreadable(..) => Self::UnreadableAnswer,
            OrderError::Database(error) => error.into(),
        }
    }
}
