//! The outside world, without a decision of ours: how to speak to it and what its answers mean.

pub mod smtp;
