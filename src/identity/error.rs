use std::time::Duration;

use argon2::password_hash;

use crate::kernel::{Class, Detail, Fault, database};

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No token, or one that is not ours, or that has been made worthless: which, is nobody's business.
    #[error("a valid access token or guest token is required")]
    Unauthenticated,
    #[error("the token has expired")]
    TokenExpired,
    #[error("this is not yours to do")]
    Forbidden,
    /// The same whether the address or the password is wrong.
    #[error("the e-mail address or the password is wrong")]
    InvalidCredentials,
    #[error("this e-mail address has an account already")]
    EmailTaken,
    #[error("the request cannot be accepted")]
    Invalid(Vec<Detail>),
    #[error("there is no such user")]
    UnknownUser,
    #[error("too many passwords wait to be checked")]
    Busy,
    #[error("the thread that hashed a password panicked")]
    HashingPanicked,
    #[error("a password hash cannot be made or read")]
    Hashing(#[from] password_hash::Error),
    #[error("a token cannot be signed")]
    Signing(#[from] jsonwebtoken::errors::Error),
    #[error("the application was assembled without `Callers`")]
    NotAssembled,
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl Fault for IdentityError {
    fn class(&self) -> Class {
        match self {
            Self::Unauthenticated | Self::TokenExpired | Self::InvalidCredentials => {
                Class::Unauthenticated
            }
            Self::Forbidden => Class::Forbidden,
            Self::EmailTaken => Class::Conflict,
            Self::Invalid(_) => Class::Invalid,
            Self::UnknownUser => Class::NotFound,
            Self::Busy => Class::Unavailable,
            Self::HashingPanicked | Self::Hashing(_) | Self::Signing(_) | Self::NotAssembled => {
                Class::Broken
            }
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::TokenExpired => "token-expired",
            Self::Forbidden => "forbidden",
            Self::InvalidCredentials => "invalid-credentials",
            Self::EmailTaken => "email-taken",
            Self::Invalid(_) => "invalid-request",
            Self::UnknownUser => "user-not-found",
            Self::Busy => "temporarily-unavailable",
            Self::HashingPanicked | Self::Hashing(_) | Self::Signing(_) | Self::NotAssembled => {
                "internal-error"
            }
            Self::Database(error) => database::code(error),
        }
    }

    fn details(&self) -> Vec<Detail> {
        match self {
            Self::Invalid(details) => details.clone(),
            Self::EmailTaken => vec![Detail {
                pointer: "/email".to_owned(),
                code: self.code(),
                message: self.to_string(),
                available: None,
            }],
            Self::Unauthenticated
            | Self::TokenExpired
            | Self::Forbidden
            | Self::InvalidCredentials
            | Self::UnknownUser
            | Self::Busy
            | Self::HashingPanicked
            | Self::Hashing(_)
            | Self::Signing(_)
            | Self::NotAssembled
            | Self::Database(_) => Vec::new(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        // By then those who wait now have been served or have given up.
        matches!(self, Self::Busy).then_some(Duration::from_secs(2))
    }
}
