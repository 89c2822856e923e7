//! Who gets the units that are left: a pure function, so that its rules can be tested by the thousand.

use std::collections::{BTreeMap, HashMap};

use crate::kernel::VariantId;

/// What one order needs, summed per variant.
pub type Demand = BTreeMap<VariantId, i64>;

/// Units that can be had, per variant. A variant that is missing has none.
pub type Available = HashMap<VariantId, i64>;

/// One variant of which an order wanted more than was left when its turn came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    pub variant_id: VariantId,
    pub requested: i64,
    pub available: i64,
}

/// Serves the demands in their order, as a slice does.
#[cfg(test)]
pub fn allocate<'a>(
    available: &mut Available,
    demands: impl IntoIterator<Item = &'a Demand>,
) -> Vec<Result<(), Vec<Shortage>>> {
    demands.into_iter().map(|demand| serve(available, demand)).collect()
}

/// Serves the demand whole and takes what it gave from `available`, or says what it is short of and
/// takes nothing.
///
/// Orders are served one after the other: after a refusal a later and smaller one may still be served.
pub fn serve(available: &mut Available, demand: &Demand) -> Result<(), Vec<Shortage>> {
    let shortages: Vec<_> = demand
        .iter()
        .filter_map(|(&variant_id, &requested)| {
            let available = available.get(&variant_id).copied().unwrap_or(0);
            (requested > available).then_some(Shortage { variant_id, requested, available })
        })
        .collect();
    if !shortages.is_empty() {
        return Err(shortages);
    }
    for (variant_id, quantity) in demand {
        if let Some(left) = available.get_mut(variant_id) {
            *left -= quantity;
        }
    }
    Ok(())
}

/// How many units are missing, per variant, to serve every demand.
pub fn shortfall<'a>(
    available: &Available,
    demands: impl IntoIterator<Item = &'a Demand>,
) -> BTreeMap<VariantId, i64> {
    let mut wanted = BTreeMap::<VariantId, i64>::new();
    for (&variant_id, &quantity) in demands.into_iter().flatten() {
        *wanted.entry(variant_id).or_default() += quantity;
    }
    wanted.retain(|variant_id, quantity| {
        *quantity -= available.get(variant_id).copied().unwrap_or(0);
        *quantity > 0
    });
    wanted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn variant(n: u8) -> VariantId {
        Uuid::from_u128(u128::from(n)).into()
    }

    fn stock() -> impl Strategy<Value = Available> {
        prop::collection::hash_map((0..6_u8).prop_map(variant), 0..20_i64, 0..6)
    }

    fn demands() -> impl Strategy<Value = Vec<Demand>> {
        let demand = prop::collection::btree_map((0..7_u8).prop_map(variant), 1..8_i64, 1..5);
        prop::collection::vec(demand, 0..40)
    }

    #[test]
    fn the_first_who_come_are_served_and_a_refusal_names_every_short_variant() {
        let mut available = Available::from([(variant(1), 3), (variant(2), 1)]);
        let demands = [
            Demand::from([(variant(1), 2)]),
            Demand::from([(variant(1), 2), (variant(2), 2)]),
            Demand::from([(variant(1), 1), (variant(2), 1)]),
        ];

        let outcome = allocate(&mut available, &demands);

        let short =
            |n, requested, available| Shortage { variant_id: variant(n), requested, available };
        assert_eq!(outcome, [Ok(()), Err(vec![short(1, 2, 1), short(2, 2, 1)]), Ok(())]);
        assert_eq!(available, Available::from([(variant(1), 0), (variant(2), 0)]));
    }

    proptest! {
        #[test]
        fn units_are_given_once_and_none_is_lost(before in stock(), demands in demands()) {
            let mut left = before.clone();

            let outcomes = allocate(&mut left, &demands);

            for (variant_id, &units) in &before {
                let given: i64 = demands.iter().zip(&outcomes)
                    .filter(|(_, outcome)| outcome.is_ok())
                    .filter_map(|(demand, _)| demand.get(variant_id))
                    .sum();
                prop_assert!(given <= units);
                prop_assert_eq!(left[variant_id], units - given);
            }
        }

        #[test]
        fn a_demand_is_refused_only_if_it_did_not_fit_at_its_turn(before in stock(), demands in demands()) {
            let outcomes = allocate(&mut before.clone(), &demands);

            let mut left = before;
            for (demand, outcome) in demands.iter().zip(outcomes) {
                let fits = demand.iter().all(|(v, q)| left.get(v).copied().unwrap_or(0) >= *q);
                prop_assert_eq!(fits, outcome.is_ok());
                if fits {
                    for (v, q) in demand {
                        *left.get_mut(v).unwrap() -= q;
                    }
                }
            }
        }

        #[test]
        fn with_the_shortfall_added_everybody_is_served(before in stock(), demands in demands()) {
            let mut available = before;
            for (variant_id, missing) in shortfall(&available, &demands) {
                prop_assert!(missing > 0);
                *available.entry(variant_id).or_default() += missing;
            }

            prop_assert!(allocate(&mut available, &demands).iter().all(Result::is_ok));
        }
    }
}
