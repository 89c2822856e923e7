//! How often a provider is called, by all processes together.
//!
//! Beyond its limit a provider answers 429 to everybody, to the shopper who waits as to the job that
//! does not. A call that the budget delays or refuses would have been refused there.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    call::{BadAccess, CallError},
    limiter::{Key, Limit, Limiter, Question},
};
use crate::kernel::pace::{Pace, Rate};

/// Redis is near and answers in less than a millisecond, or is not worth waiting for.
const REDIS_MAX: Duration = Duration::from_millis(50);

/// How long a call waits for its turn: a shopper may be waiting for the call.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The right to call a provider so many times a second, shared by everybody who shares the Redis and
/// its namespace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    limiter: Limiter,
    limit: Limit,
}

impl Budget {
    /// Allows `calls_per_second` calls at once and as many again every second. Call it inside a tokio
    /// runtime.
    pub fn new(
        redis_url: &str,
        namespace: &str,
        provider: &'static str,
        calls_per_second: u32,
    ) -> Result<Self, BadAccess> {
        let limiter =
            Limiter::new(redis_url, namespace, REDIS_MAX).map_err(|_| BadAccess::Budget)?;
        let rate = Rate::new(calls_per_second, Duration::from_secs(1), calls_per_second);
        let limit = Limit {
            name: provider,
            key: Key::of(&[b"budget", provider.as_bytes()]),
            pace: Pace::even(rate.ok_or(BadAccess::Budget)?),
            turns: 1,
            // Without Redis, each process keeps to the same rate by itself.
            is_local: true,
            spares_the_known: false,
            is_cleared: false,
        };
        Ok(Self { limiter, limit })
    }

    /// Waits for the next turn; where that is too far off, the call is not to be made.
    pub async fn take(&self) -> Result<(), CallError> {
        let limits = vec![self.limit];
        let mut question = Question { limits, known: None, patience: PATIENCE, is_shared: false };
        let Some(answer) = self.limiter.take(&mut question).await else { return Ok(()) };
        let wait = answer.place.wait;
        if answer.is_refused {
            return Err(CallError::Busy { retry_after: Some(wait) });
        }
        if wait > Duration::ZERO {
            sleep(wait).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A budget that only this process keeps: nobody listens there.
    fn alone(calls_per_second: u32) -> Result<Budget, BadAccess> {
        Budget::new("redis://127.0.0.1:1", "test", "provider", calls_per_second)
    }

    #[tokio::test]
    async fn a_burst_passes_at_once_and_the_rest_evenly_until_patience_ends() {
        let budget = alone(10).unwrap();

        let taken = futures_util::future::join_all((0..40).map(|_| budget.take())).await;

        // Ten at once, and one each tenth of a second for as long as somebody waits.
        let through = taken.iter().filter(|taken| taken.is_ok()).count();
        assert!((25..30).contains(&through), "{through}");
        for refusal in taken.iter().filter_map(|taken| taken.as_ref().err()) {
            let CallError::Busy { retry_after: Some(wait) } = refusal else {
                panic!("{refusal:?}")
            };
            assert!(*wait > PATIENCE && *wait <= PATIENCE + Duration::from_millis(100), "{wait:?}");
        }
    }

    #[tokio::test]
    async fn nobody_calls_never() {
        assert_eq!(alone(0).unwrap_err(), BadAccess::Budget);
    }
}
