//! How often something may be done: evenly, with a burst (GCRA), and where it has to be, ever more slowly.
//!
//! The arithmetic alone. `clients::limiter` keeps the turns in Redis, by the same arithmetic in a script,
//! and in this process.

use std::{str::FromStr, time::Duration};

use tokio::time::Instant;

/// So many at once, and then one each interval: `5/s:20` is twenty at once and five each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval: Duration,
    burst: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number, a unit of s, m, h or d, and a burst, as 5/s:20")]
pub struct InvalidRate;

impl Rate {
    /// Redis counts in microseconds.
    const INTERVAL_MIN: Duration = Duration::from_micros(1);

    /// No limit needs more; the sum of a burst's intervals has to stay a number of microseconds that
    /// a script of Redis can hold exactly (2^53).
    const BURST_MAX: u32 = 1_000_000;

    /// `burst` at once, and then `count` evenly each `time`; `None` where one of them is nothing or
    /// more than can be counted.
    pub fn new(count: u32, time: Duration, burst: u32) -> Option<Self> {
        let interval = time.checked_div(count)?;
        let is_countable = (Self::INTERVAL_MIN..=Duration::from_hours(24)).contains(&interval)
            && (1..=Self::BURST_MAX).contains(&burst);
        is_countable.then_some(Self { interval, burst })
    }

    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// How long it takes until all of a burst may be had again.
    pub fn window(self) -> Duration {
        self.interval * self.burst
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (count, rest) = text.split_once('/').ok_or(InvalidRate)?;
        let (unit, burst) = rest.split_once(':').ok_or(InvalidRate)?;
        let time = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            "d" => Duration::from_hours(24),
            _ => return Err(InvalidRate),
        };
        let number = |text: &str| text.parse().map_err(|_| InvalidRate);
        Self::new(number(count)?, time, number(burst)?).ok_or(InvalidRate)
    }
}

/// A rate, and what becomes of it when it is used up again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    interval: Duration,
    burst: u32,
    /// The longest interval.
    slowest: Duration,
    /// For how long after the last turn the slowness lasts.
    memory: Duration,
}

/// Where somebody stands: when their next turn would be if all had come evenly, and how many they took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    at: Instant,
    taken: u32,
}

/// What somebody is told of a pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How long until the turn that was asked for; zero where it has come.
    pub wait: Duration,
    /// How many more may be had at once.
    pub left: u32,
    /// How long until as many may be had as ever.
    pub whole_in: Duration,
}

impl Pace {
    /// Always the same.
    pub const fn even(rate: Rate) -> Self {
        let Rate { interval, burst } = rate;
        Self { interval, burst, slowest: interval, memory: Duration::ZERO }
    }

    /// After a burst each interval is twice the last, `doublings` times at most; whoever takes no turn
    /// for the time of `memory` begins anew.
    pub fn slowing(rate: Rate, doublings: u32, memory: Duration) -> Self {
        let slowest = rate.interval * (1 << doublings.min(20));
        Self { slowest, memory, ..Self::even(rate) }
    }

    pub const fn interval(self) -> Duration {
        self.interval
    }

    pub const fn burst(self) -> u32 {
        self.burst
    }

    pub const fn slowest(self) -> Duration {
        self.slowest
    }

    pub const fn memory(self) -> Duration {
        self.memory
    }

    /// How long it takes until all of a burst may be had again, for whoever was never slowed down.
    pub fn window(self) -> Duration {
        self.interval * self.burst
    }

    /// How far ahead of an even pace a burst may be.
    fn span(self) -> Duration {
        self.interval * (self.burst - 1)
    }

    /// The distance of the turn after this one.
    fn step(self, taken: u32) -> Duration {
        let doublings = (taken + 1).saturating_sub(self.burst).min(30);
        self.interval.saturating_mul(1 << doublings).min(self.slowest)
    }

    /// Where somebody stands now; who was never seen, or not for long, stands at the beginning.
    fn now(self, turn: Option<Turn>, now: Instant) -> Turn {
        match turn {
            Some(turn) if turn.at + self.memory > now => Turn { at: turn.at.max(now), ..turn },
            Some(_) | None => Turn { at: now, taken: 0 },
        }
    }

    /// How long somebody has to wait for their next turn.
    pub fn wait(self, turn: Option<Turn>, now: Instant) -> Duration {
        (self.now(turn, now).at - now).saturating_sub(self.span())
    }

    /// Where somebody stands who has taken so many turns at once, each as far from the next as the first.
    pub fn take(self, turn: Option<Turn>, turns: u32, now: Instant) -> Turn {
        let Turn { at, taken } = self.now(turn, now);
        Turn { at: at + self.step(taken) * turns, taken: taken.saturating_add(turns) }
    }

    /// Where somebody stands whose last turns, taken at once, do not count after all.
    pub fn give_back(self, turn: Turn, turns: u32, now: Instant) -> Option<Turn> {
        let taken = turn.taken.checked_sub(turns).filter(|taken| *taken > 0)?;
        let at = turn.at.checked_sub(self.step(taken) * turns).unwrap_or(now);
        Some(Turn { at: at.max(now), taken })
    }

    /// What somebody is told who waited `wait` for the turn they have taken.
    pub fn place(self, turn: Turn, wait: Duration, now: Instant) -> Place {
        let ahead = turn.at.saturating_duration_since(now);
        let left = match self.span().checked_sub(ahead) {
            Some(slack) => slack.as_nanos() / self.step(turn.taken).as_nanos() + 1,
            None => 0,
        };
        let left = u32::try_from(left).unwrap_or(u32::MAX).min(self.burst);
        Place { wait, left, whole_in: ahead }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Takes as many turns as may be had at this moment.
    fn burst(pace: Pace, turn: &mut Option<Turn>, now: Instant) -> u32 {
        let mut taken = 0;
        while pace.wait(*turn, now).is_zero() && taken < 1_000 {
            *turn = Some(pace.take(*turn, 1, now));
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_rate_is_written_as_people_say_it() {
        for (text, rate) in [
            ("5/s:20", Rate::new(5, SECOND, 20)),
            ("6/h:3", Rate::new(6, Duration::from_hours(1), 3)),
            ("1/d:1", Rate::new(1, Duration::from_hours(24), 1)),
            ("1000000/s:1000000", Rate::new(1_000_000, SECOND, 1_000_000)),
        ] {
            assert_eq!(text.parse().ok(), rate, "{text}");
            assert!(rate.is_some(), "{text}");
        }
        for text in
            ["", "5/s", "5:20", "5/s:0", "0/s:1", "-5/s:1", "5/w:1", "5/s:1000001", "1.5/s:2"]
        {
            assert_eq!(text.parse::<Rate>(), Err(InvalidRate), "{text}");
        }
        assert_eq!("2000000/s:1".parse::<Rate>(), Err(InvalidRate));
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_evenly() {
        let pace = Pace::even("10/s:5".parse().unwrap());
        let (mut turn, start) = (None, Instant::now());

        assert_eq!(burst(pace, &mut turn, start), 5);
        assert_eq!(pace.wait(turn, start), SECOND / 10);
        assert_eq!(burst(pace, &mut turn, start + SECOND / 10), 1);
        assert_eq!(burst(pace, &mut turn, start + SECOND * 3 / 10), 2);
        assert_eq!(burst(pace, &mut turn, start + SECOND * 60), 5);
    }

    #[test]
    fn whoever_goes_on_waits_twice_as_long_each_time_up_to_a_limit() {
        let pace = Pace::slowing("1/s:3".parse().unwrap(), 4, SECOND * 100);
        let (mut turn, mut now) = (None, Instant::now());
        assert_eq!(burst(pace, &mut turn, now), 3);

        let mut waits = Vec::new();
        for _ in 0..7 {
            let wait = pace.wait(turn, now);
            now += wait;
            assert_eq!(burst(pace, &mut turn, now), 1);
            waits.push(wait.as_secs());
        }

        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
        // What was slow stays slow for a while.
        now += SECOND * 60;
        assert!(burst(pace, &mut turn, now) <= 1);
        now += SECOND * 200;
        assert_eq!(burst(pace, &mut turn, now), 3);
    }

    #[test]
    fn what_is_told_is_what_may_be_had() {
        let pace = Pace::even("1/s:4".parse().unwrap());
        let (mut turn, now) = (None, Instant::now());

        for left in (0..4).rev() {
            let taken = pace.take(turn, 1, now);
            turn = Some(taken);
            let whole_in = SECOND * (4 - left);
            assert_eq!(
                pace.place(taken, Duration::ZERO, now),
                Place { wait: Duration::ZERO, left, whole_in }
            );
        }
    }

    proptest! {
        #[test]
        fn no_time_of_any_length_has_more_turns_than_its_rate_and_a_burst(
            count in 1_u32..50,
            size in 1_u32..50,
            pauses in proptest::collection::vec(0_u64..3_000, 1..200),
        ) {
            let pace = Pace::even(Rate::new(count, SECOND, size).unwrap());
            let start = Instant::now();
            let (mut turn, mut now, mut taken) = (None, start, 0_u32);
            for pause in pauses {
                now += Duration::from_millis(pause);
                taken += burst(pace, &mut turn, now);
            }
            let fair = u128::from(size) + (now - start).as_nanos() / pace.interval().as_nanos();
            prop_assert!(u128::from(taken) <= fair, "{taken} of {fair}");
        }

        #[test]
        fn a_turn_that_is_given_back_was_never_taken(
            size in 1_u32..20,
            doublings in 0_u32..10,
            before in 1_u32..40,
            turns in 1_u32..100,
        ) {
            let pace = Pace::slowing(Rate::new(1, SECOND, size).unwrap(), doublings, SECOND * 1_000);
            let now = Instant::now();
            let mut turn = None;
            for _ in 0..before {
                turn = Some(pace.take(turn, 1, now));
            }

            let after = pace.take(turn, turns, now);

            prop_assert_eq!(pace.give_back(after, turns, now), turn);
        }
    }
}
