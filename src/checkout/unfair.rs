//! Why a wish is against the rules by which everybody gets a part.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::OPEN_ORDERS_MAX;
use crate::kernel::{Class, Detail, Fault};

/// What a sale's rules, or those for what a caller keeps unpaid, say against a wish. Each line is named
/// by its place in the request, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfair {
    #[error("the sale has not opened yet")]
    NotOpen(Vec<(usize, Opening)>),
    /// With the moment when each sale closed.
    #[error("the sale is over")]
    Closed(Vec<(usize, OffsetDateTime)>),
    /// Only customers with an account can buy it, because each may have so many.
    #[error("an account is needed to buy what is limited to some units a customer")]
    NoAccount(Vec<(usize, ())>),
    /// With the units of it that the customer may still have.
    #[error("the customer may not have so many")]
    OverLimit(Vec<(usize, i64)>),
    /// With the time after which the first of them ends.
    #[error("{OPEN_ORDERS_MAX} orders wait for their payment already")]
    TooManyOpen(Duration),
    /// With the units of it that may be ordered before others are paid, and the time after which the first
    /// order of such units ends.
    #[error("too many units are ordered already and not paid")]
    TooManyHeld(Vec<(usize, i64)>, Duration),
}

/// When a sale opens that was not open when somebody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    pub opens_at: OffsetDateTime,
    pub asked_at: OffsetDateTime,
}

impl Opening {
    fn wait(self) -> Duration {
        Duration::try_from(self.opens_at - self.asked_at).unwrap_or_default()
    }
}

impl Fault for Unfair {
    fn class(&self) -> Class {
        match self {
            Self::NotOpen(_)
            | Self::OverLimit(_)
            | Self::TooManyOpen(_)
            | Self::TooManyHeld(..) => Class::Conflict,
            Self::Closed(_) => Class::Gone,
            Self::NoAccount(_) => Class::Forbidden,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotOpen(_) => "sale-not-open",
            Self::Closed(_) => "sale-closed",
            Self::NoAccount(_) => "account-required",
            Self::OverLimit(_) => "purchase-limit-reached",
            Self::TooManyOpen(_) => "too-many-open-orders",
            Self::TooManyHeld(..) => "too-many-units-held",
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::NotOpen(lines) => self.items(lines, "variant_id", |opening| {
                (format!("it opens at {}", text(opening.opens_at)), None)
            }),
            Self::Closed(lines) => self.items(lines, "variant_id", |closed_at| {
                (format!("it closed at {}", text(*closed_at)), None)
            }),
            Self::NoAccount(lines) => self.items(lines, "variant_id", |()| {
                ("only customers with an account can buy it".to_owned(), None)
            }),
            Self::OverLimit(lines) => self.items(lines, "quantity", |left| {
                (format!("this customer may have {left} more of it"), Some(*left))
            }),
            Self::TooManyHeld(lines, _) => self.items(lines, "quantity", |left| {
                (format!("{left} more can be ordered before others are paid"), Some(*left))
            }),
            Self::TooManyOpen(_) => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotOpen(lines) => lines.iter().map(|(_, opening)| opening.wait()).max(),
            Self::TooManyOpen(ends_in) | Self::TooManyHeld(_, ends_in) => Some(*ends_in),
            Self::Closed(_) | Self::NoAccount(_) | Self::OverLimit(_) => None,
        }
    }
}

impl Unfair {
    /// One item for each line, at one of its fields, with what `tell` says of it and how much may be had.
    fn items<T>(
        &self,
        lines: &[(usize, T)],
        field: &str,
        tell: impl Fn(&T) -> (String, Option<i64>),
    ) -> Vec<Detail> {
        let item = |(line, about): &(usize, T)| {
            let (message, available) = tell(about);
            let pointer = format!("/lines/{line}/{field}");
            Detail { pointer, code: self.code(), message, available }
        };
        lines.iter().map(item).collect()
    }
}

/// The moment as the API writes moments.
fn text(moment: OffsetDateTime) -> String {
    moment.format(&Rfc3339).unwrap_or_else(|_| moment.to_string())
}
