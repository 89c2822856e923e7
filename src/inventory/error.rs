use std::time::Duration;

use crate::{
    idempotency::KeyError,
    kernel::{Class, Fault, VariantId, database},
};

#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    #[error("there is no variant {0}")]
    UnknownVariant(VariantId),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl Fault for InventoryError {
    fn class(&self) -> Class {
        match self {
            Self::UnknownVariant(_) => Class::NotFound,
            Self::Key(error) => error.class(),
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::UnknownVariant(_) => "variant-not-found",
            Self::Key(error) => error.code(),
            Self::Database(error) => database::code(error),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Key(error) => error.retry_after(),
            Self::UnknownVariant(_) | Self::Database(_) => None,
        }
    }
}
