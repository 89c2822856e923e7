//! Idempotency: what the first call under a key was answered, and that it is still running.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::front::Answer;

/// As long as Stripe promises.
const KEPT: Duration = Duration::from_hours(24);

#[derive(Debug, Default)]
pub(super) struct Keys {
    kept: Mutex<HashMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    body: Vec<u8>,
    claimed_at: Instant,
    /// `None` while the first call runs.
    answer: Option<Answer>,
}

/// What a key's history makes of a call.
pub(super) enum Claim<'a> {
    /// It is the first, and runs.
    First(Slot<'a>),
    /// It is answered as the first one was.
    Repeat(Answer),
    /// The first one is still running.
    Running,
    /// The first one had another path.
    OtherPath,
    /// The first one had other parameters.
    OtherBody,
}

/// A key that is in use until an answer is kept under it, or this is dropped.
pub(super) struct Slot<'a> {
    keys: &'a Keys,
    key: &'a str,
}

impl Keys {
    pub(super) fn claim<'a>(&'a self, key: &'a str, path: &str, body: &[u8]) -> Claim<'a> {
        let mut kept = self.lock();
        let known = kept.get(key);
        let Some(entry) = known.filter(|known| known.claimed_at.elapsed() < KEPT) else {
            let entry = Entry {
                path: path.to_owned(),
                body: body.to_vec(),
                claimed_at: Instant::now(),
                answer: None,
            };
            kept.insert(key.to_owned(), entry);
            return Claim::First(Slot { keys: self, key });
        };
        if entry.path != path {
            return Claim::OtherPath;
        }
        if entry.body != body {
            return Claim::OtherBody;
        }
        match &entry.answer {
            Some(answer) => Claim::Repeat(answer.clone()),
            None => Claim::Running,
        }
    }

    /// Forgets every answer, as a day would.
    pub(super) fn expire(&self) {
        self.lock().retain(|_, entry| entry.answer.is_none());
    }

    /// Nothing in here is left half-changed by a panic, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot<'_> {
    pub(super) fn keep(self, answer: Answer) {
        if let Some(entry) = self.keys.lock().get_mut(self.key) {
            entry.answer = Some(answer);
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut kept = self.keys.lock();
        if kept.get(self.key).is_some_and(|entry| entry.answer.is_none()) {
            kept.remove(self.key);
        }
    }
}
