//! Callers who place orders: one order after the other, and who of them is a customer.

pub mod store;
