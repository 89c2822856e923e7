//! The state of both providers, and the one lock around it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use rand::distr::{Alphanumeric, SampleString};

use super::{
    config::Config,
    faults::Faults,
    keys::Keys,
    operation::Operation,
    razorpay, stripe,
    webhooks::{Event, PostOffice},
};

/// What the servers, the shopper and the tests share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) stripe_keys: Keys,
    pub(super) razorpay_keys: Keys,
    pub(super) post: PostOffice,
    world: Mutex<World>,
    faults: Mutex<Faults>,
    calls: Mutex<BTreeMap<Operation, u64>>,
}

/// What both providers know about payments.
pub(super) struct World {
    pub(super) stripe: stripe::Books,
    pub(super) razorpay: razorpay::Books,
}

impl Shared {
    pub(super) fn new(config: Config, post: PostOffice) -> Self {
        let razorpay = razorpay::Books::new(&config);
        Self {
            config,
            stripe_keys: Keys::default(),
            razorpay_keys: Keys::default(),
            post,
            world: Mutex::new(World { stripe: stripe::Books::default(), razorpay }),
            faults: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    /// Changes the world, and posts the events of the change in their order.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = lock(&self.world);
        let outcome = change(&mut world);
        let stripe = std::mem::take(&mut world.stripe.events);
        let razorpay = std::mem::take(&mut world.razorpay.events);
        for event in stripe.into_iter().chain(razorpay) {
            self.post.send(event);
        }
        outcome
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub(super) fn count(&self, operation: Operation) {
        *lock(&self.calls).entry(operation).or_default() += 1;
    }

    pub(super) fn calls(&self) -> BTreeMap<Operation, u64> {
        lock(&self.calls).clone()
    }
}

/// Events that nobody has posted yet.
pub(super) type Events = Vec<Event>;

/// Nothing in here is left half-changed by a panic, so a poisoned lock is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `prefix` and that many letters and digits by chance.
pub(super) fn new_id(prefix: &str, length: usize) -> String {
    let tail = Alphanumeric.sample_string(&mut rand::rng(), length);
    format!("{prefix}_{tail}")
}

/// Unix seconds, which is what both APIs write.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
