//! What every slice shares and no slice owns: identifiers, money, errors, batching. No domain, no I/O.

pub mod batch;
pub mod customer;
pub mod database;
pub mod email;
pub mod failpoint;
pub mod fault;
pub mod halves;
pub mod id;
pub mod money;
pub mod pace;
pub mod rates;
pub mod rerun;
pub mod time;
#[cfg(test)]
pub mod transitions;

pub use customer::CustomerKey;
pub use email::{EmailAddress, InvalidEmail};
pub use fault::{Class, Detail, Fault};
pub use id::{
    EventId, GuestId, OrderId, OwnerId, PaymentId, ProductId, RefundId, SessionId, UserId,
    VariantId,
};
pub use money::{Currency, Money, MoneyError};
pub use rerun::rerun;
