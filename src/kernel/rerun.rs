//! Running a business transaction again when the database asks for it.

use std::{future::Future, time::Duration};

use rand::RngExt;

use crate::kernel::database;

/// How often a transaction is tried: two retries clear every deadlock and lock wait that a slice
/// in the documented lock order can meet; after that the caller is told to come back.
pub const ATTEMPTS_MAX: u32 = 3;

/// Runs `transaction` until it ends with something else than a serialization failure, a deadlock or
/// a lock that took too long, at most [`ATTEMPTS_MAX`] times.
pub async fn rerun<T, E, F>(
    mut transaction: impl FnMut() -> F,
    cause: impl Fn(&E) -> Option<&sqlx::Error>,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut attempt = 1;
    loop {
        let outcome = transaction().await;
        let Err(error) = &outcome else { return outcome };
        let rerunnable = cause(error).is_some_and(database::is_rerunnable);
        if !rerunnable || attempt == ATTEMPTS_MAX {
            return outcome;
        }
        metrics::counter!("transaction_reruns_total").increment(1);
        // Two transactions that met once should not meet again in step.
        let pause_ms = rand::rng().random_range(1..=10 * u64::from(attempt));
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        attempt += 1;
    }
}
