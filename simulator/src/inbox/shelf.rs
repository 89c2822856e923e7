//! Where accepted mails and the faults to come are kept.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{fault::Faults, mail::Mail};

/// More than any test sends; an inbox that runs for weeks drops its oldest mails instead of
/// filling the memory.
const MAILS_MAX: usize = 50_000;

#[derive(Debug, Default)]
pub(super) struct Shelf {
    mails: Mutex<Mails>,
    faults: Mutex<Faults>,
}

#[derive(Debug, Default)]
struct Mails {
    kept: VecDeque<Arc<Mail>>,
    last_number: u64,
}

impl Shelf {
    /// Keeps `mail` under the next number.
    pub(super) fn keep(&self, mut mail: Mail) {
        let mut mails = lock(&self.mails);
        mails.last_number += 1;
        mail.number = mails.last_number;
        if mails.kept.len() == MAILS_MAX {
            mails.kept.pop_front();
        }
        mails.kept.push_back(Arc::new(mail));
    }

    pub(super) fn mails(&self) -> Vec<Arc<Mail>> {
        lock(&self.mails).kept.iter().cloned().collect()
    }

    pub(super) fn find(&self, number: u64) -> Option<Arc<Mail>> {
        let mails = lock(&self.mails);
        mails.kept.iter().find(|mail| mail.number == number).cloned()
    }

    pub(super) fn clear(&self) {
        lock(&self.mails).kept.clear();
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }
}

/// Nothing in here is left half-changed by a panic, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
