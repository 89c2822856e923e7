//! What a caller may keep unpaid, and what a customer may have of a limited variant. Where nobody
//! keeps to such rules, one of them sits on the stock of all.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use sqlx::PgConnection;

use super::{
    PlaceOrder, QUANTITY_MAX, Unfair,
    store::{self, Limited},
};
use crate::{
    catalog::PurchaseLimit,
    identity,
    inventory::allocation::Demand,
    kernel::{CustomerKey, OrderId, OwnerId, VariantId},
    orders::{self, store::Waiting},
};

/// The most orders of one caller that wait for their payment: enough for a family's tabs, and few
/// enough that whoever never pays keeps little from those who would.
pub const OPEN_ORDERS_MAX: usize = 5;

/// The most units of one variant that one caller keeps without having paid: as many as fit one
/// order, so that a second order gains nothing.
pub const UNPAID_UNITS_MAX: i64 = QUANTITY_MAX;

/// What the callers and customers of a slice may still have. Every order that is granted draws on it.
#[derive(Debug, Default)]
pub(super) struct Allowances {
    customers: HashMap<OwnerId, CustomerKey>,
    limits: HashMap<VariantId, PurchaseLimit>,
    purchased: HashMap<(CustomerKey, VariantId), i64>,
    unpaid: HashMap<OwnerId, Unpaid>,
    /// How long an order that is placed now waits for its payment.
    hold: Duration,
}

/// What a caller keeps without having paid.
#[derive(Debug, Default)]
struct Unpaid {
    orders: HashSet<OrderId>,
    units: HashMap<VariantId, i64>,
    /// When the first of the orders ends, and the first of those with the variant.
    ends_in: Option<Duration>,
    units_end_in: HashMap<VariantId, Duration>,
}

impl Allowances {
    /// Locks the callers of the wishes, and reads who they are and what they have not paid.
    ///
    /// From here to the end of the transaction nobody else places an order for them. Two statements.
    pub(super) async fn of_callers(
        tx: &mut PgConnection,
        wishes: &[&PlaceOrder],
        limits: HashMap<VariantId, PurchaseLimit>,
        hold: Duration,
    ) -> sqlx::Result<Self> {
        let owners: BTreeSet<_> = wishes.iter().map(|wish| wish.owner_id).collect();
        let owners: Vec<_> = owners.into_iter().collect();
        let customers = identity::callers::store::lock(&mut *tx, &owners).await?;
        let variants: BTreeSet<_> = wishes.iter().flat_map(|wish| wish.variants()).collect();
        let variants: Vec<_> = variants.into_iter().collect();
        let limit = i64::try_from(OPEN_ORDERS_MAX).unwrap_or(i64::MAX);
        // A statement of its own: only one that starts after the lock sees what its last holder did.
        let waiting = orders::store::waiting(tx, &owners, &variants, limit).await?;
        let mut allowances = Self { customers, limits, hold, ..Self::default() };
        for waiting in &waiting {
            allowances.note(waiting);
        }
        Ok(allowances)
    }

    /// Reads what the customers have of limited variants, whose stock rows are locked now. One
    /// statement, or none where nothing is limited.
    pub(super) async fn count_purchases(
        &mut self,
        tx: &mut PgConnection,
        wishes: &[&PlaceOrder],
    ) -> sqlx::Result<()> {
        let limited = self.limited(wishes);
        if !limited.is_empty() {
            let purchased = store::purchased(tx, &limited).await?;
            let keys = limited.iter().map(|limited| (limited.customer, limited.variant_id));
            self.purchased = keys.zip(purchased).collect();
        }
        Ok(())
    }

    /// Every limit that a customer among the wishes could meet.
    fn limited(&self, wishes: &[&PlaceOrder]) -> Vec<Limited> {
        let pairs: BTreeSet<_> = wishes
            .iter()
            .filter_map(|wish| Some((*self.customers.get(&wish.owner_id)?, wish)))
            .flat_map(|(customer, wish)| wish.variants().map(move |variant| (customer, variant)))
            .collect();
        pairs
            .into_iter()
            .filter_map(|(customer, variant_id)| {
                let limit = *self.limits.get(&variant_id)?;
                Some(Limited { customer, variant_id, limit })
            })
            .collect()
    }

    fn note(&mut self, waiting: &Waiting) {
        let ends_in = Duration::from_millis(u64::try_from(waiting.ends_in_ms).unwrap_or(0));
        let unpaid = self.unpaid.entry(waiting.owner_id).or_default();
        unpaid.add(waiting.order_id, ends_in, waiting.line);
    }

    /// The key that the wish's holds count for; none for a guest.
    pub(super) fn customer(&self, wish: &PlaceOrder) -> Option<CustomerKey> {
        self.customers.get(&wish.owner_id).copied()
    }

    /// Says why the caller may not have it: no account for what is limited, or too much unpaid.
    pub(super) fn check_caller(&self, wish: &PlaceOrder, demand: &Demand) -> Result<(), Unfair> {
        if self.customer(wish).is_none() {
            let limited = demand.keys().filter(|id| self.limits.contains_key(id));
            let limited: HashMap<_, _> = limited.map(|id| (*id, 0)).collect();
            if !limited.is_empty() {
                let lines = lines(wish, &limited).into_iter();
                return Err(Unfair::NoAccount(lines.map(|(place, _)| (place, ())).collect()));
            }
        }
        let Some(unpaid) = self.unpaid.get(&wish.owner_id) else { return Ok(()) };
        if unpaid.orders.len() >= OPEN_ORDERS_MAX {
            return Err(Unfair::TooManyOpen(unpaid.ends_in.unwrap_or(self.hold)));
        }
        let over = beyond(demand, |id| Some(UNPAID_UNITS_MAX - unpaid.units_of(id)));
        if over.is_empty() {
            return Ok(());
        }
        let ends = over.keys().filter_map(|id| unpaid.units_end_in.get(id)).max();
        let ends_in = ends.copied().unwrap_or(self.hold);
        Err(Unfair::TooManyHeld(lines(wish, &over), ends_in))
    }

    /// Says why the customer may not have it: more than a limit leaves to them.
    pub(super) fn check_customer(&self, wish: &PlaceOrder, demand: &Demand) -> Result<(), Unfair> {
        let Some(customer) = self.customer(wish) else { return Ok(()) };
        let over = beyond(demand, |id| {
            Some(self.limits.get(&id)?.units - self.purchased_by(customer, id))
        });
        if over.is_empty() { Ok(()) } else { Err(Unfair::OverLimit(lines(wish, &over))) }
    }

    fn purchased_by(&self, customer: CustomerKey, variant_id: VariantId) -> i64 {
        self.purchased.get(&(customer, variant_id)).copied().unwrap_or(0)
    }

    /// Counts the wish, which was granted.
    pub(super) fn draw(&mut self, wish: &PlaceOrder, demand: &Demand) {
        let customer = self.customer(wish);
        let unpaid = self.unpaid.entry(wish.owner_id).or_default();
        for (&variant_id, &quantity) in demand {
            unpaid.add(wish.order_id, self.hold, Some((variant_id, quantity)));
            if let Some(customer) = customer {
                *self.purchased.entry((customer, variant_id)).or_default() += quantity;
            }
        }
    }
}

impl Unpaid {
    fn add(&mut self, order_id: OrderId, ends_in: Duration, line: Option<(VariantId, i64)>) {
        self.orders.insert(order_id);
        self.ends_in = Some(self.ends_in.map_or(ends_in, |first| first.min(ends_in)));
        if let Some((variant_id, quantity)) = line {
            *self.units.entry(variant_id).or_default() += quantity;
            let first = self.units_end_in.entry(variant_id).or_insert(ends_in);
            *first = ends_in.min(*first);
        }
    }

    fn units_of(&self, variant_id: VariantId) -> i64 {
        self.units.get(&variant_id).copied().unwrap_or(0)
    }
}

/// The variants of which more is wanted than is left, with what is left. Where nothing is said, there
/// is no bound.
fn beyond(demand: &Demand, left: impl Fn(VariantId) -> Option<i64>) -> HashMap<VariantId, i64> {
    let over = demand.iter().filter_map(|(&id, &quantity)| {
        let left = left(id)?;
        (quantity > left).then_some((id, left.max(0)))
    });
    over.collect()
}

/// The places of the request's lines of these variants, with what may still be had.
fn lines(wish: &PlaceOrder, left: &HashMap<VariantId, i64>) -> Vec<(usize, i64)> {
    let places = wish.lines.iter().enumerate();
    places.filter_map(|(place, line)| Some((place, *left.get(&line.variant_id)?))).collect()
}

/// What the purchase limits leave to orders that are paid late: an order that ran out gave its
/// allowance back, and its customer may have used it since.
#[derive(Debug, Default)]
pub(super) struct LateAllowances {
    customers: HashMap<OrderId, CustomerKey>,
    left: HashMap<(OrderId, VariantId), i64>,
    drawn: HashMap<(CustomerKey, VariantId), i64>,
}

impl LateAllowances {
    /// Reads what is left to the customers of the orders, which no longer hold all their units. The
    /// stock rows are locked. One statement, or none where no order lost a hold.
    pub(super) async fn read(
        tx: &mut PgConnection,
        orders: impl Iterator<Item = (OrderId, &Demand)>,
    ) -> sqlx::Result<Self> {
        let late: Vec<_> =
            orders.filter(|(_, lost)| !lost.is_empty()).map(|(order_id, _)| order_id).collect();
        let mut allowances = Self::default();
        if late.is_empty() {
            return Ok(allowances);
        }
        for left in store::left_to_late(tx, &late).await? {
            allowances.customers.insert(left.order_id, left.customer);
            allowances.left.insert((left.order_id, left.variant_id), left.left);
        }
        Ok(allowances)
    }

    /// Whether the order may have again what it lost.
    pub(super) fn allow(&self, order_id: OrderId, lost: &Demand) -> bool {
        lost.iter().all(|(&variant_id, &quantity)| {
            let Some(left) = self.left.get(&(order_id, variant_id)) else { return true };
            quantity <= left - self.drawn_of(order_id, variant_id)
        })
    }

    fn drawn_of(&self, order_id: OrderId, variant_id: VariantId) -> i64 {
        let customer = self.customers.get(&order_id);
        let drawn = customer.and_then(|customer| self.drawn.get(&(*customer, variant_id)));
        drawn.copied().unwrap_or(0)
    }

    /// Counts what the order has again.
    pub(super) fn draw(&mut self, order_id: OrderId, lost: &Demand) {
        let Some(customer) = self.customers.get(&order_id) else { return };
        for (&variant_id, &quantity) in lost {
            *self.drawn.entry((*customer, variant_id)).or_default() += quantity;
        }
    }
}
