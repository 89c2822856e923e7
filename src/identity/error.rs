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
    /// Whatever was wrong with the refresh token.
    #[error("the session has ended: log in again")]
    SessionEnded,
    #[error("there is no such session")]
    UnknownSession,
    #[error("this is not yours to do")]
    Forbidden,
    /// The same whether the address or the password is wrong.
    #[error("the e-mail address or the password is wrong")]
    InvalidCredentials,
    #[error("this e-mail address has an account already")]
    EmailTaken,
    /// Whether it is none of ours, was used or is too old, is nobody's business.
    #[error("the link is not valid, or no longer: ask for another mail")]
    InvalidMailToken,
    #[error("the password is wrong")]
    WrongPassword,
    #[error("there is no such address")]
    UnknownAddress,
    #[error("the account has as many addresses as it can keep")]
    TooManyAddresses,
    #[error("an account of staff is not erased")]
    StaffAccount,
    /// A row holds what no version of this program writes.
    #[error("a {0} cannot be read")]
    Unreadable(&'static str),
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
    #[error("nobody can tell now whether the session still stands")]
    Unchecked,
    #[error("the application was assembled without `Callers`")]
    NotAssembled,
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl IdentityError {
    /// The error of the database behind it, if there is one.
    pub(super) const fn database(&self) -> Option<&sqlx::Error> {
        if let Self::Database(error) = self { Some(error) } else { None }
    }
}

impl Fault for IdentityError {
    fn class(&self) -> Class {
        match self {
            Self::Unauthenticated
            | Self::TokenExpired
            | Self::SessionEnded
            | Self::InvalidCredentials => Class::Unauthenticated,
            Self::Forbidden | Self::WrongPassword => Class::Forbidden,
            Self::EmailTaken | Self::TooManyAddresses | Self::StaffAccount => Class::Conflict,
            Self::Invalid(_) | Self::InvalidMailToken => Class::Invalid,
            Self::UnknownUser | Self::UnknownSession | Self::UnknownAddress => Class::NotFound,
            Self::Busy | Self::Unchecked => Class::Unavailable,
            Self::HashingPanicked
            | Self::Hashing(_)
            | Self::Signing(_)
            | Self::NotAssembled
            | Self::Unreadable(_) => Class::Broken,
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::TokenExpired => "token-expired",
            Self::SessionEnded => "session-ended",
            Self::UnknownSession => "session-not-found",
            Self::Forbidden => "forbidden",
            Self::InvalidCredentials => "invalid-credentials",
            Self::EmailTaken => "email-taken",
            Self::Invalid(_) => "invalid-request",
            Self::UnknownUser => "user-not-found",
            Self::Busy | Self::Unchecked => "temporarily-unavailable",
            Self::InvalidMailToken => "invalid-mail-token",
            Self::WrongPassword => "wrong-password",
            Self::UnknownAddress => "address-not-found",
            Self::TooManyAddresses => "too-many-addresses",
            Self::StaffAccount => "staff-account",
            Self::HashingPanicked
            | Self::Hashing(_)
            | Self::Signing(_)
            | Self::NotAssembled
            | Self::Unreadable(_) => "internal-error",
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
            | Self::SessionEnded
            | Self::UnknownSession
            | Self::Unchecked
            | Self::Forbidden
            | Self::InvalidCredentials
            | Self::InvalidMailToken
            | Self::WrongPassword
            | Self::UnknownAddress
            | Self::TooManyAddresses
            | Self::StaffAccount
            | Self::Unreadable(_)
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
