//! Whether a process still gets work done.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Far above every handler's limit: below it, slow work would be taken for none.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// Whether a process still gets work done. Cheap to clone; all clones beat together.
///
/// It is about *this* process. A database, a Redis or a mail server that is away is no reason to
/// restart it: an attempt that fails has ended, too.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Mutex<Beat>>);

impl Pulse {
    /// Whether the process should be left alone; `false` when work has waited, or has been under
    /// way, for two minutes and no attempt has ended in that time.
    pub fn is_alive(&self) -> bool {
        self.beat().is_alive(Instant::now())
    }

    /// Notes that an attempt begins; it ends when the returned value is dropped.
    pub fn begin(&self) -> UnderWay {
        self.beat().begin(Instant::now());
        UnderWay(self.clone())
    }

    /// Notes how many wake-ups nobody has taken yet.
    pub fn saw_backlog(&self, backlog: u64) {
        self.beat().saw_backlog(backlog, Instant::now());
    }

    /// Notes that the database or Redis does not answer.
    pub fn saw_outage(&self) {
        self.beat().progress(Instant::now());
    }

    fn beat(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt that has not ended.
#[derive(Debug)]
#[must_use]
pub struct UnderWay(Pulse);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.beat().end(Instant::now());
    }
}

#[derive(Debug, Default)]
struct Beat {
    under_way: usize,
    has_backlog: bool,
    /// Since when something waits and nothing has ended.
    silent_since: Option<Instant>,
}

impl Beat {
    fn is_alive(&self, now: Instant) -> bool {
        self.silent_since.is_none_or(|since| now.duration_since(since) <= SILENCE_MAX)
    }

    fn begin(&mut self, now: Instant) {
        self.under_way += 1;
        self.silent_since.get_or_insert(now);
    }

    fn end(&mut self, now: Instant) {
        self.under_way -= 1;
        self.progress(now);
    }

    fn saw_backlog(&mut self, backlog: u64, now: Instant) {
        self.has_backlog = backlog > 0;
        if !self.has_work() {
            self.silent_since = None;
            return;
        }
        self.silent_since.get_or_insert(now);
    }

    fn progress(&mut self, now: Instant) {
        self.silent_since = self.has_work().then_some(now);
    }

    const fn has_work(&self) -> bool {
        self.under_way > 0 || self.has_backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A beat, and a clock that starts with it.
    fn beat() -> (Beat, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Beat::default(), move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn nothing_to_do_is_no_illness() {
        let (mut beat, at) = beat();

        beat.saw_backlog(0, at(5));

        assert!(beat.is_alive(at(100_000)));
    }

    #[test]
    fn work_that_waits_while_nothing_ends_is() {
        let (mut beat, at) = beat();
        beat.saw_backlog(3, at(0));
        beat.saw_backlog(3, at(60));

        assert!(beat.is_alive(at(120)));
        assert!(!beat.is_alive(at(121)));

        beat.saw_backlog(0, at(130));
        assert!(beat.is_alive(at(10_000)), "somebody else has done it");
    }

    #[test]
    fn an_attempt_that_never_ends_is_and_another_that_does_is_a_sign_of_life() {
        let (mut beat, at) = beat();
        beat.begin(at(0));
        assert!(!beat.is_alive(at(121)));

        beat.begin(at(100));
        beat.end(at(110));

        assert!(beat.is_alive(at(121)));
        assert!(!beat.is_alive(at(231)));
        beat.end(at(240));
        assert!(beat.is_alive(at(10_000)));
    }

    #[test]
    fn an_outage_is_not_held_against_the_process() {
        let (mut beat, at) = beat();
        beat.saw_backlog(3, at(0));

        for seconds in (5..600).step_by(5) {
            beat.progress(at(seconds));
            assert!(beat.is_alive(at(seconds)));
        }
    }
}
