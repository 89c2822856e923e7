//! When a failed attempt is repeated, and when it is given up.

use std::time::Duration;

use crate::Lane;

/// How patient a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The longest wait after the first failure; it doubles with every further one.
    pub first: Duration,
    /// The longest wait after any failure.
    pub longest: Duration,
    /// The attempt that is not repeated when it fails.
    pub attempts_max: u32,
}

impl Lane {
    /// How patient this lane is with failures.
    pub const fn policy(self) -> Policy {
        match self {
            // A deadline cannot wait, and the sweep comes round anyway.
            Self::Deadlines => Policy {
                first: Duration::from_millis(500),
                longest: Duration::from_secs(30),
                attempts_max: 20,
            },
            // A mail server may be away over a weekend: 3.7 days at most, half of it on average.
            Self::Mail => Policy {
                first: Duration::from_secs(10),
                longest: Duration::from_hours(6),
                attempts_max: 25,
            },
            // Our own database may fail here, or our settings, and the money has already moved: 4 days
            // at most.
            Self::Settling => Policy {
                first: Duration::from_millis(500),
                longest: Duration::from_mins(10),
                attempts_max: 600,
            },
            // A payment may be under way for days, and an outage of a provider for hours: 4 days at most.
            Self::Providers => Policy {
                first: Duration::from_secs(2),
                longest: Duration::from_hours(1),
                attempts_max: 108,
            },
        }
    }
}

impl Policy {
    /// The longest wait after the given attempt (1 is the first) has failed.
    pub fn longest_after(self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// Whether the given attempt was the last.
    pub const fn gives_up_after(self, attempt: u32) -> bool {
        attempt >= self.attempts_max
    }
}

/// How long to wait after the given attempt (1 is the first) of a lane's job has failed.
///
/// Any time up to a bound that doubles ("full jitter"): jobs that failed together come back apart,
/// so neither a server that recovers nor a batch with one bad member meets them all at once again.
pub fn backoff(lane: Lane, attempt: u32) -> Duration {
    rand::random_range(Duration::ZERO..=lane.policy().longest_after(attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_its_cap() {
        let mail = Lane::Mail.policy();

        for (attempt, seconds) in [
            (0, 10),
            (1, 10),
            (2, 20),
            (3, 40),
            (11, 10_240),
            (12, 20_480),
            (13, 21_600),
            (u32::MAX, 21_600),
        ] {
            assert_eq!(mail.longest_after(attempt), Duration::from_secs(seconds), "{attempt}");
        }
    }

    #[test]
    fn mail_is_tried_for_days_and_not_for_ever() {
        let mail = Lane::Mail.policy();
        assert!(mail.gives_up_after(mail.attempts_max));

        let repeated = (1..mail.attempts_max).filter(|&attempt| !mail.gives_up_after(attempt));
        let patience: Duration = repeated.map(|attempt| mail.longest_after(attempt)).sum();

        let days = patience.as_secs() / 86_400;
        assert!((2..7).contains(&days), "{days} days");
    }

    #[test]
    fn the_wait_is_spread_over_the_whole_range_and_never_leaves_it() {
        let bound = Lane::Mail.policy().longest_after(5);

        let waits: Vec<_> = (0..1_000).map(|_| backoff(Lane::Mail, 5)).collect();

        assert!(waits.iter().all(|wait| *wait <= bound));
        for quarter in 0..4 {
            let range = bound / 4 * quarter..=bound / 4 * (quarter + 1);
            assert!(waits.iter().any(|wait| range.contains(wait)), "none in quarter {quarter}");
        }
    }
}
