use crate::kernel::{Class, Fault, OrderId, database};

#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Also for an order of somebody else, which must not be told apart from none.
    #[error("there is no such order")]
    NotFound,
    /// A row holds what no version of this program writes.
    #[error("order {0} cannot be read: {1}")]
    Unreadable(OrderId, &'static str),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl Fault for OrderError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound => Class::NotFound,
            Self::Unreadable(..) => Class::Broken,
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "order-not-found",
            Self::Unreadable(..) => "internal-error",
            Self::Database(error) => database::code(error),
        }
    }
}
