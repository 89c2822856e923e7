//! What an error of the database means.

use sqlx::Error;

use crate::kernel::Class;

/// Whether the database did not answer, or answered that our statement is wrong.
pub fn class(error: &Error) -> Class {
    let is_gone = matches!(
        error,
        Error::Io(_)
            | Error::Tls(_)
            | Error::PoolTimedOut
            | Error::PoolClosed
            | Error::WorkerCrashed
            | Error::Protocol(_)
    );
    let is_refusing = sql_state(error).is_some_and(|state| {
        // Connection lost, out of resources, shutting down or starting up.
        ["08", "53", "57P"].iter().any(|prefix| state.starts_with(prefix))
            // Read-only (a fail-over in progress), idle too long in a transaction, statement too long.
            || matches!(state.as_str(), "25006" | "25P03" | "57014")
    });
    let is_unavailable = is_gone || is_refusing || is_rerunnable(error);
    if is_unavailable { Class::Unavailable } else { Class::Broken }
}

/// The stable code that a client sees of a database error.
pub fn code(error: &Error) -> &'static str {
    if class(error) == Class::Unavailable { "temporarily-unavailable" } else { "internal-error" }
}

/// Whether the whole transaction may simply be run again: a serialization failure, a deadlock,
/// or a wait for a lock that was cut short (`lock_timeout`).
pub fn is_rerunnable(error: &Error) -> bool {
    sql_state(error).is_some_and(|state| matches!(state.as_str(), "40001" | "40P01" | "55P03"))
}

/// Whether nobody knows what became of the transaction whose COMMIT failed like this: the connection
/// was lost with it.
pub fn leaves_open(error: &Error) -> bool {
    class(error) == Class::Unavailable && !is_rerunnable(error)
}

/// The name of the constraint that refused a row.
pub fn violated_constraint(error: &Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

fn sql_state(error: &Error) -> Option<String> {
    error.as_database_error()?.code().map(Into::into)
}
