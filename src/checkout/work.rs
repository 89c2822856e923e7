//! The reaper's part of the checkout.

use std::time::Duration;

use super::{CheckoutError, expire_overdue};
use crate::{context::Context, idempotency, orders};

/// A wake-up that is this early is one of another clock; the sweep will see to its orders.
const EARLY_MAX: Duration = Duration::from_secs(5);

/// Ends the orders whose deadline is the given second; returns how many orders it ended.
///
/// A wake-up may fire a second early, because its clock is not the database's and knows whole
/// seconds only: it waits until the database agrees that the second has come.
pub async fn deadline(cx: &Context, epoch_second: i64) -> Result<usize, CheckoutError> {
    let ms = orders::store::milliseconds_until(&cx.db, epoch_second).await?;
    let early = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    if early > EARLY_MAX {
        return Ok(0);
    }
    tokio::time::sleep(early).await;
    sweep(cx).await
}

/// Ends every order whose deadline has passed, slice after slice; returns how many.
pub async fn sweep(cx: &Context) -> Result<usize, CheckoutError> {
    let mut ended = 0;
    loop {
        let slice = expire_overdue(cx).await?;
        ended += slice;
        if slice == 0 {
            return Ok(ended);
        }
    }
}

/// How many rows one statement removes: a delete that nobody waits for.
const PURGE_SLICE: i64 = 5_000;

/// Forgets idempotency keys that are older than 48 hours; returns how many.
pub async fn purge(cx: &Context) -> Result<u64, CheckoutError> {
    Ok(idempotency::purge(&cx.db, PURGE_SLICE).await?)
}
