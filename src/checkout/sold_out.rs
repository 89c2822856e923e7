//! The memory of what is sold out, which makes a refusal cheap.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    inventory::allocation::{Demand, Shortage},
    kernel::VariantId,
};

/// How long it may stay unnoticed that a sold-out variant can be had again: below what a shopper
/// notices, and enough that a sold-out flash sale costs the database next to nothing.
const MEMORY_MAX: Duration = Duration::from_millis(200);

/// The variants that had no unit left a moment ago, in this process.
///
/// An entry never outlives the moment at which one of the variant's holds expires, because from
/// then on the next checkout takes that hold over.
#[derive(Debug, Default)]
pub struct SoldOut {
    until: Mutex<HashMap<VariantId, Instant>>,
}

impl SoldOut {
    /// The variants of the demand that are known to have nothing left; none where the demand may
    /// be served.
    pub(super) fn shortages(&self, demand: &Demand) -> Vec<Shortage> {
        let until = self.entries();
        if until.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        demand
            .iter()
            .filter(|(variant_id, _)| until.get(variant_id).is_some_and(|until| now < *until))
            .map(|(&variant_id, &requested)| Shortage { variant_id, requested, available: 0 })
            .collect()
    }

    /// Remembers that nothing was left at `seen_at`; `next_expiry` is how long after it a hold expires.
    pub(super) fn remember(
        &self,
        variant_id: VariantId,
        seen_at: Instant,
        next_expiry: Option<Duration>,
    ) {
        let lasts = next_expiry.map_or(MEMORY_MAX, |expiry| expiry.min(MEMORY_MAX));
        let mut until = self.entries();
        let now = Instant::now();
        until.retain(|_, until| now < *until);
        until.insert(variant_id, seen_at + lasts);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<VariantId, Instant>> {
        // The map is whole after every operation, whoever panicked elsewhere.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_ends_at_the_next_expiry_even_if_that_is_sooner() {
        let variant_id = VariantId::generate();
        let demand = Demand::from([(variant_id, 1)]);
        let sold_out = SoldOut::default();

        sold_out.remember(variant_id, Instant::now(), Some(Duration::ZERO));
        assert_eq!(sold_out.shortages(&demand), []);

        sold_out.remember(variant_id, Instant::now(), None);
        assert_eq!(
            sold_out.shortages(&demand),
            [Shortage { variant_id, requested: 1, available: 0 }]
        );
        assert_eq!(sold_out.shortages(&Demand::from([(VariantId::generate(), 1)])), []);

        let long_ago = Instant::now().checked_sub(MEMORY_MAX).unwrap();
        sold_out.remember(variant_id, long_ago, None);
        assert_eq!(sold_out.shortages(&demand), []);
    }
}
