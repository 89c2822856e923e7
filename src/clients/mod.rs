//! The outside world, without a decision of ours: how to speak to it and what its answers mean.

mod budget;
mod call;
mod http;
pub mod limiter;
pub mod razorpay;
pub mod smtp;
pub mod stripe;

pub use budget::Budget;
pub use call::{BadAccess, CallError, refusal};
pub use razorpay::Razorpay;
pub use stripe::Stripe;

/// The payment providers that this installation offers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    pub stripe: Option<Stripe>,
    pub razorpay: Option<Razorpay>,
}
