//! One classification of errors for the whole program.

use std::time::Duration;

/// What kind of failure it is. HTTP makes a status of it, a job a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request cannot be read.
    Malformed,
    /// Nobody we know asks.
    Unauthenticated,
    /// Somebody we know asks for what is not theirs to do.
    Forbidden,
    /// It does not exist, or belongs to somebody else.
    NotFound,
    /// It contradicts the state of things; the same request may succeed later.
    Conflict,
    /// It existed and never will again.
    Gone,
    /// The caller's copy is not the current one.
    Precondition,
    /// The request is larger than we read.
    TooLarge,
    /// The request can be read and cannot be done.
    Invalid,
    /// The caller asks too often.
    Limited,
    /// Something we need does not answer; the same request will succeed later.
    Unavailable,
    /// A bug of ours.
    Broken,
}

/// One problem of a request among several, with the place it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// A JSON pointer (RFC 6901) into the request's body, or a header's name.
    pub pointer: String,
    pub code: &'static str,
    pub message: String,
    /// For short stock: the units that could be had.
    pub available: Option<i64>,
}

/// An error that knows what it means to whoever receives it.
///
/// The error's text is shown to clients, except for [`Class::Unavailable`] and [`Class::Broken`].
pub trait Fault: std::error::Error {
    fn class(&self) -> Class;

    /// A stable name for programs to act on, listed in `docs/api.md`.
    fn code(&self) -> &'static str;

    fn details(&self) -> Vec<Detail> {
        Vec::new()
    }

    /// When the same request is worth repeating.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}
