use crate::{
    clients::smtp::MailError,
    identity::IdentityError,
    kernel::{Class, Fault, database},
    orders::OrderError,
};

#[derive(Debug, thiserror::Error)]
pub enum NotificationError {
    #[error("this process has no mail server")]
    NoMailServer,
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("a template cannot be rendered: {0:#}")]
    Template(#[from] minijinja::Error),
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl Fault for NotificationError {
    fn class(&self) -> Class {
        match self {
            Self::NoMailServer | Self::Template(_) | Self::Mail(MailError::BadSettings(_)) => {
                Class::Broken
            }
            Self::Order(error) => error.class(),
            Self::Identity(error) => error.class(),
            Self::Mail(MailError::Refused(_)) => Class::Invalid,
            Self::Mail(MailError::NotAccepted(_)) => Class::Unavailable,
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoMailServer | Self::Template(_) | Self::Mail(MailError::BadSettings(_)) => {
                "internal-error"
            }
            Self::Order(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Mail(MailError::Refused(_)) => "mail-refused",
            Self::Mail(MailError::NotAccepted(_)) => "mail-not-accepted",
            Self::Database(error) => database::code(error),
        }
    }
}
