use std::time::Duration;

use crate::{
    identity::IdentityError,
    kernel::{Class, Detail, Fault, database},
    orders::OrderError,
};

#[derive(Debug, thiserror::Error)]
pub enum PrivacyError {
    #[error("an order is not settled yet: wait for its end, or cancel it")]
    OpenOrders,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl PrivacyError {
    pub(super) const fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error)
            | Self::Identity(IdentityError::Database(error))
            | Self::Order(OrderError::Database(error)) => Some(error),
            Self::OpenOrders | Self::Identity(_) | Self::Order(_) => None,
        }
    }
}

impl Fault for PrivacyError {
    fn class(&self) -> Class {
        match self {
            Self::OpenOrders => Class::Conflict,
            Self::Identity(error) => error.class(),
            Self::Order(error) => error.class(),
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::OpenOrders => "open-orders",
            Self::Identity(error) => error.code(),
            Self::Order(error) => error.code(),
            Self::Database(error) => database::code(error),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Identity(error) => error.details(),
            Self::Order(error) => error.details(),
            Self::OpenOrders | Self::Database(_) => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Identity(error) => error.retry_after(),
            Self::Order(error) => error.retry_after(),
            Self::OpenOrders | Self::Database(_) => None,
        }
    }
}
