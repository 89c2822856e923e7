//! Why a payment or a webhook was refused.

use std::{sync::Arc, time::Duration};

use crate::{
    clients::CallError,
    kernel::{Class, Fault, batch::Refused, database},
};

/// Why a payment or a webhook was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PaymentError {
    #[error("the shop does not take payments through this provider")]
    ProviderNotOffered,
    /// A webhook of a provider that is not configured here.
    #[error("the shop has no account with this provider")]
    NoAccount,
    /// Which rule it breaks is for our logs: whoever forges one learns nothing.
    #[error("the signature does not fit the request")]
    BadSignature,
    /// The queue is full, or the request waited too long in it. Nothing was done.
    #[error("the shop is busy")]
    Busy,
    /// The connection was lost while the work was being committed: only a repeat tells whether it was.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// The provider was asked and did not do it.
    #[error(transparent)]
    Provider(#[from] CallError),
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
}

/// When a request is worth repeating that a provider did not answer: most outages last for seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl Fault for PaymentError {
    fn class(&self) -> Class {
        match self {
            Self::ProviderNotOffered => Class::Invalid,
            Self::NoAccount => Class::NotFound,
            Self::BadSignature => Class::Malformed,
            Self::Busy | Self::OutcomeUnknown | Self::Provider(_) => Class::Unavailable,
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::ProviderNotOffered | Self::NoAccount => "provider-not-offered",
            Self::BadSignature => "bad-signature",
            Self::Busy => "busy",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Provider(CallError::Declined { .. } | CallError::Rejected { .. }) => {
                "provider-rejected"
            }
            Self::Provider(CallError::Unknown { .. } | CallError::Busy { .. }) => {
                "provider-unavailable"
            }
            Self::Database(error) => database::code(error),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provider(CallError::Busy { retry_after }) => retry_after.or(Some(RETRY_AFTER)),
            Self::Provider(
                CallError::Unknown { .. } | CallError::Declined { .. } | CallError::Rejected { .. },
            ) => Some(RETRY_AFTER),
            Self::ProviderNotOffered
            | Self::NoAccount
            | Self::BadSignature
            | Self::Busy
            | Self::OutcomeUnknown
            | Self::Database(_) => None,
        }
    }
}

impl PaymentError {
    /// What a failed COMMIT means.
    pub(super) fn of_commit(error: sqlx::Error) -> Self {
        if database::leaves_open(&error) { Self::OutcomeUnknown } else { error.into() }
    }

    /// The database's part in it.
    pub(super) fn database(&self) -> Option<&sqlx::Error> {
        if let Self::Database(error) = self { Some(error) } else { None }
    }
}

impl From<sqlx::Error> for PaymentError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

impl From<Refused> for PaymentError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full | Refused::TooLate => Self::Busy,
            Refused::Lost => Self::OutcomeUnknown,
        }
    }
}
