//! One classification of errors for the whole program.

use std::{error::Error, fmt, time::Duration};

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
pub trait Fault: Error {
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

/// Writes an error with everything that caused it, on one line.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the database failed")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_chain_of_causes_is_one_line() {
        let error = Outer(std::io::Error::other("refused"));

        assert_eq!(Chain(&error).to_string(), "the database failed: refused");
    }
}
