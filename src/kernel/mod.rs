//! What every slice shares and no slice owns: identifiers, money, errors, batching. No domain, no I/O.

pub mod batch;
pub mod database;
pub mod email;
pub mod failpoint;
pub mod fault;
pub mod halves;
pub mod id;
pub mod money;
pub mod rerun;
pub mod time;
#[cfg(test)]
pub mod transitions;

pub use email::{EmailAddress, InvalidEmail};
pub use fault::{Class, Detail, Fault};
pub use id::{
    EventId, GuestId, OrderId, OwnerId, PaymentId, ProductId, RefundId, UserId, VariantId,
};
pub use money::{Currency, Money, MoneyError};
pub use rerun::rerun;
