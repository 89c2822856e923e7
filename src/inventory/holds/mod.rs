//! Holds: what orders keep of the stock until they are paid, cancelled or too late.
//!
//! A hold changes its state only while the stock row of its variant is locked, and is read in a
//! statement after that lock. Whoever locks several stock rows locks them in the order of their ids.

pub mod store;

use std::str::FromStr;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::kernel::{OrderId, VariantId};

/// One movement of units between two accounts of one variant.
#[derive(Debug, Clone, Copy)]
pub struct Movement {
    pub variant_id: VariantId,
    pub from: Account,
    pub to: Account,
    pub quantity: i64,
    pub cause: Cause,
    /// The order, receipt or correction that moved the units.
    pub cause_id: Uuid,
    /// The member of staff who did it, where a person did.
    pub actor_id: Option<Uuid>,
}

/// Where units are. `available` and `held` together are on hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    Supplier,
    Available,
    Held,
    Sold,
    WrittenOff,
}

impl Account {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supplier => "supplier",
            Self::Available => "available",
            Self::Held => "held",
            Self::Sold => "sold",
            Self::WrittenOff => "written_off",
        }
    }
}

/// Why units moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Receipt,
    Correction,
    OrderPlaced,
    OrderCancelled,
    OrderExpired,
    HoldTaken,
    OrderPaid,
    OrderRefunded,
}

impl Cause {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Correction => "correction",
            Self::OrderPlaced => "order_placed",
            Self::OrderCancelled => "order_cancelled",
            Self::OrderExpired => "order_expired",
            Self::HoldTaken => "hold_taken",
            Self::OrderPaid => "order_paid",
            Self::OrderRefunded => "order_refunded",
        }
    }
}

/// Units of one variant that one order keeps or kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    pub order_id: OrderId,
    pub variant_id: VariantId,
    pub quantity: i64,
}

/// What became of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Held,
    /// The order was paid.
    Sold,
    /// The order was cancelled, also after it was paid, or too late.
    Released,
    /// Another checkout took it over after its deadline.
    Taken,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Held, Self::Sold, Self::Released, Self::Taken];

    /// The name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Sold => "sold",
            Self::Released => "released",
            Self::Taken => "taken",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no hold has this state")]
pub struct UnknownState;

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(name: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or(UnknownState)
    }
}

/// A hold and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub hold: Hold,
    pub state: State,
}

impl Kept {
    pub fn is_held(&self) -> bool {
        self.state == State::Held
    }
}

/// Gives back what the orders still hold and returns it.
///
/// The caller has locked the orders. Holds that were taken over or sold stay as they are, so a
/// repeat gives nothing back twice.
pub async fn release(
    tx: &mut PgConnection,
    order_ids: &[OrderId],
    cause: Cause,
) -> sqlx::Result<Vec<Hold>> {
    let variants = store::held_variants(&mut *tx, order_ids).await?;
    if variants.is_empty() {
        return Ok(Vec::new());
    }
    store::lock_stock(&mut *tx, &variants).await?;
    let released = store::release(&mut *tx, order_ids).await?;
    let movements: Vec<_> =
        released.iter().map(|hold| moved(hold, Account::Held, Account::Available, cause)).collect();
    store::change_counters(&mut *tx, &movements).await?;
    store::record_movements(&mut *tx, &movements).await?;
    Ok(released)
}

/// Puts sold units back on sale: all that an order bought of a variant, or a part of it.
///
/// The caller has locked the stock rows, and knows that the units are sold and did not go back before.
pub async fn put_back(
    tx: &mut PgConnection,
    units: &[Hold],
    cause: Cause,
    actor_id: Option<Uuid>,
) -> sqlx::Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    let movements: Vec<_> = units
        .iter()
        .map(|unit| Movement { actor_id, ..moved(unit, Account::Sold, Account::Available, cause) })
        .collect();
    store::change_counters(&mut *tx, &movements).await?;
    store::record_movements(tx, &movements).await
}

/// The ledger's row for a change of a hold, caused by the hold's own order.
pub fn moved(hold: &Hold, from: Account, to: Account, cause: Cause) -> Movement {
    Movement {
        variant_id: hold.variant_id,
        from,
        to,
        quantity: hold.quantity,
        cause,
        cause_id: hold.order_id.uuid(),
        actor_id: None,
    }
}
