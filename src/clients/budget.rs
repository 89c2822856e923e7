//! How often a provider is called, by all processes together.
//!
//! Beyond its limit a provider answers 429 to everybody, to the shopper who waits as to the job that
//! does not. A call that the budget delays or refuses would have been refused there.

use std::{
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use redis::{
    Client, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::{Instant, sleep, timeout};

use super::call::{BadAccess, CallError};

/// How long a call waits for its turn: a shopper may be waiting for the call.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Redis is near and answers in less than a millisecond, or is not worth waiting for.
const REDIS_MAX: Duration = Duration::from_millis(50);

/// Takes the next turn and returns how many microseconds it is off, if that is within the patience.
///
/// The key holds when the next turn would be if all had come evenly (GCRA). Time is Redis's own, so
/// that the processes' clocks may differ.
static NEXT_TURN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        local interval = tonumber(ARGV[1])
        local burst = tonumber(ARGV[2])
        local patience = tonumber(ARGV[3])
        local clock = redis.call('TIME')
        local now = clock[1] * 1000000 + clock[2]
        local turn = tonumber(redis.call('GET', KEYS[1]) or now)
        -- A turn that far off was taken before the clock was put back.
        if turn < now or turn > now + burst + patience + interval then
            turn = now
        end
        local wait = math.max(0, turn - burst - now)
        if wait <= patience then
            turn = turn + interval
            redis.call('SET', KEYS[1], string.format('%.0f', turn),
                       'PX', math.ceil((turn - now) / 1000))
        end
        return wait
        ",
    )
});

/// The right to call a provider so many times a second, shared by everybody who shares the Redis and
/// its namespace. Cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    key: String,
    pace: Pace,
    redis: ConnectionManager,
    own: Mutex<Option<Instant>>,
}

/// The time between two calls, and how far ahead of it a burst may be.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval: Duration,
    burst: Duration,
}

impl Budget {
    /// Allows `calls_per_second` calls at once and as many again every second. Connects at the first.
    pub fn new(
        redis_url: &str,
        namespace: &str,
        provider: &str,
        calls_per_second: u32,
    ) -> Result<Self, BadAccess> {
        let pace = Pace::of(calls_per_second).ok_or(BadAccess::Budget)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(REDIS_MAX))
            .set_response_timeout(Some(REDIS_MAX))
            .set_number_of_retries(0);
        let redis = Client::open(redis_url)
            .and_then(|client| ConnectionManager::new_lazy_with_config(client, config))
            .map_err(|_| BadAccess::Budget)?;
        let key = format!("{namespace}:budget:{provider}");
        Ok(Self(Arc::new(Shared { key, pace, redis, own: Mutex::default() })))
    }

    /// Waits for the next turn; where that is too far off, the call is not to be made.
    ///
    /// Without Redis, this process keeps to the same rate by itself.
    pub async fn take(&self) -> Result<(), CallError> {
        let shared = self.shared_turn().await;
        // The own count goes on in any case: the loss of Redis is no occasion for a burst.
        let own = self.own_turn();
        let wait = shared.unwrap_or(own);
        if wait > PATIENCE {
            return Err(CallError::Busy { retry_after: Some(wait) });
        }
        if wait > Duration::ZERO {
            sleep(wait).await;
        }
        Ok(())
    }

    async fn shared_turn(&self) -> Option<Duration> {
        let Shared { key, pace, redis, .. } = &*self.0;
        let mut redis = redis.clone();
        let mut call = NEXT_TURN.key(key);
        call.arg(micros(pace.interval)).arg(micros(pace.burst)).arg(micros(PATIENCE));
        match timeout(REDIS_MAX, call.invoke_async::<u64>(&mut redis)).await {
            Ok(Ok(wait)) => Some(Duration::from_micros(wait)),
            Ok(Err(error)) => {
                tracing::debug!(key, kind = ?error.kind(), "the budget is kept without redis");
                None
            }
            Err(_) => {
                tracing::debug!(key, "redis is slow; the budget is kept without it");
                None
            }
        }
    }

    fn own_turn(&self) -> Duration {
        let mut turn = self.0.own.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.pace.next_turn(&mut turn, Instant::now())
    }
}

/// Redis's URL has a password.
impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("key", &self.0.key).finish_non_exhaustive()
    }
}

impl Pace {
    fn of(calls_per_second: u32) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(calls_per_second)?;
        Some(Self { interval, burst: interval * (calls_per_second - 1) })
    }

    /// What the script does, for one process.
    fn next_turn(self, turn: &mut Option<Instant>, now: Instant) -> Duration {
        let next = turn.map_or(now, |turn| turn.max(now));
        let wait = (next - now).saturating_sub(self.burst);
        if wait <= PATIENCE {
            *turn = Some(next + self.interval);
        }
        wait
    }
}

/// Whole microseconds, as Redis counts.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_at_once_and_the_rest_evenly_until_patience_ends() {
        let pace = Pace::of(10).unwrap();
        let (mut turn, now) = (None, Instant::now());

        let waits: Vec<_> = (0..40).map(|_| pace.next_turn(&mut turn, now).as_millis()).collect();

        assert_eq!(waits[..10], [0; 10]);
        assert_eq!(waits[10..13], [100, 200, 300]);
        assert_eq!(waits[24], 1_500);
        assert!(waits[25..].iter().all(|wait| *wait == 1_600), "{waits:?}");
    }

    #[test]
    fn nobody_calls_never() {
        assert!(Pace::of(0).is_none());
    }
}
