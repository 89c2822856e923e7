//! Findings: what a person has to look at.
//!
//! Owns `findings`. One is opened in the transaction that meets with the trouble, once for as long as
//! it lasts; it is closed by a person with a note, or by whatever ends the trouble.

pub mod store;

use std::str::FromStr;

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::kernel::{OrderId, UserId};

/// Something that a person has to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub id: Uuid,
    pub kind: Kind,
    /// The id of a capture, refund, dispute or webhook, or a provider's name for one.
    pub subject: String,
    pub order_id: Option<OrderId>,
    pub detail: Value,
    pub opened_at: OffsetDateTime,
    pub closed_at: Option<OffsetDateTime>,
    pub closed_by: Option<UserId>,
    pub note: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Money came in that is not what was asked for. The subject is the capture.
    Quarantined,
    /// Money that was to go back is still with us. The subject is the refund.
    RefundFailed,
    /// Money is to go back and does not: it is under dispute, or the provider has not made the refund for
    /// as long as a key lasts. The subject is the refund.
    RefundWithheld,
    /// A shopper's bank claims money back. The subject is the provider's name for the dispute.
    Disputed,
    /// A webhook that concerns us cannot be read. The subject is the webhook.
    ParkedWebhook,
    /// The provider has money in our name that is not on our books: nobody here knows of the payment, or
    /// what is set aside is not what was asked for. The subject is the provider's name for it.
    UnknownMoney,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Quarantined,
        Self::RefundFailed,
        Self::RefundWithheld,
        Self::Disputed,
        Self::ParkedWebhook,
        Self::UnknownMoney,
    ];

    /// The name in the database and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::RefundFailed => "refund_failed",
            Self::RefundWithheld => "refund_withheld",
            Self::Disputed => "disputed",
            Self::ParkedWebhook => "parked_webhook",
            Self::UnknownMoney => "unknown_money",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no finding is of this kind")]
pub struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(UnknownKind)
    }
}
