//! Holding the counters against the ledger.

use sqlx::{PgConnection, PgPool};

use super::holds::store;
pub use super::holds::store::Difference;
use crate::kernel::VariantId;

/// Finds every variant whose counters differ from its ledger, in one snapshot.
pub async fn recount(db: &PgPool) -> sqlx::Result<Vec<Difference>> {
    store::differences(db).await
}

/// Sets the variant's counters to what its ledger adds up to; returns what they were before, or
/// `None` if nothing differed.
///
/// The stock row is locked before the ledger is added up, so that no movement slips in between.
pub async fn repair(
    tx: &mut PgConnection,
    variant_id: VariantId,
) -> sqlx::Result<Option<Difference>> {
    store::lock_stock(&mut *tx, &[variant_id]).await?;
    let difference = store::difference(&mut *tx, variant_id).await?;
    if let Some(difference) = difference {
        store::set_counters(tx, &difference).await?;
    }
    Ok(difference)
}
