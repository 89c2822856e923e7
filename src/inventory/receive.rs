use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    InventoryError,
    holds::{self, Account, Cause, Movement},
    store,
};
use crate::{
    audit,
    idempotency::{self, ClaimKey, Fingerprint, Key, KeyError, NewRecord},
    kernel::{UserId, VariantId, rerun},
};

/// Units of one variant that came in from a supplier.
#[derive(Debug, Clone)]
pub struct ReceiveStock {
    /// Also the cause of the ledger's row.
    pub receipt_id: Uuid,
    pub variant_id: VariantId,
    /// 1 to [`ReceiveStock::QUANTITY_MAX`].
    pub quantity: i64,
    pub staff_id: UserId,
    pub key: Key,
    /// Names the request in the audit log.
    pub request_id: Option<String>,
}

impl ReceiveStock {
    /// More than a lorry carries: a larger number is a slip of the finger.
    pub const QUANTITY_MAX: i64 = 1_000_000;

    const OPERATION: &'static str = "receiveStock";

    fn claim(&self) -> ClaimKey<'_> {
        let owner_id = self.staff_id.into();
        ClaimKey { owner_id, operation: Self::OPERATION, key: &self.key }
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(format!("{} {}", self.variant_id, self.quantity).as_bytes())
    }
}

/// A receipt that was booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub receipt_id: Uuid,
    /// An earlier request with the same key booked it.
    pub replayed: bool,
}

/// Puts the units on sale, and notes in the audit log who did it. A second call with the same key adds nothing and returns the first receipt.
pub async fn receive_stock(
    db: &PgPool,
    receipt: &ReceiveStock,
) -> Result<Received, InventoryError> {
    rerun(|| receive(db, receipt), cause).await
}

fn cause(error: &InventoryError) -> Option<&sqlx::Error> {
    match error {
        InventoryError::Database(error) => Some(error),
        InventoryError::UnknownVariant(_) | InventoryError::Key(_) => None,
    }
}

async fn receive(db: &PgPool, receipt: &ReceiveStock) -> Result<Received, InventoryError> {
    let mut tx = db.begin().await?;
    let outcome = book(&mut tx, receipt).await;
    match &outcome {
        Ok(Received { replayed: false, .. }) => tx.commit().await?,
        // Not left to the drop, which would keep the key claimed for a moment after the answer.
        Ok(Received { replayed: true, .. }) | Err(_) => tx.rollback().await?,
    }
    outcome
}

async fn book(tx: &mut PgConnection, receipt: &ReceiveStock) -> Result<Received, InventoryError> {
    let (claim, fingerprint) = (receipt.claim(), receipt.fingerprint());
    if idempotency::claim(&mut *tx, &[claim]).await? != [true] {
        return Err(KeyError::InFlight.into());
    }
    let recorded = idempotency::find(&mut *tx, &[claim]).await?;
    if let Some(recorded) = recorded.into_iter().flatten().next() {
        recorded.check(fingerprint)?;
        return Ok(Received { receipt_id: recorded.subject_id, replayed: true });
    }

    let ReceiveStock { receipt_id, variant_id, quantity, staff_id, .. } = *receipt;
    let Some(on_hand) = store::add(&mut *tx, variant_id, quantity).await? else {
        return Err(InventoryError::UnknownVariant(variant_id));
    };
    let movement = Movement {
        variant_id,
        from: Account::Supplier,
        to: Account::Available,
        quantity,
        cause: Cause::Receipt,
        cause_id: receipt_id,
        actor_id: Some(staff_id.uuid()),
    };
    holds::store::record_movements(&mut *tx, &[movement]).await?;
    let record = NewRecord { claim, fingerprint, subject_id: receipt_id, answer: Value::Null };
    idempotency::record(&mut *tx, &[record]).await?;
    audit::record(tx, &entry(receipt, on_hand)).await?;
    Ok(Received { receipt_id, replayed: false })
}

/// What the audit log says of it; `on_hand` is how much there is now.
fn entry(receipt: &ReceiveStock, on_hand: i64) -> audit::Entry {
    let ReceiveStock { receipt_id, variant_id, quantity, staff_id, .. } = *receipt;
    audit::Entry {
        actor_id: staff_id,
        action: ReceiveStock::OPERATION.to_owned(),
        subject: format!("variant:{variant_id}"),
        before: Some(json!({ "on_hand": on_hand - quantity })),
        after: Some(json!({
            "on_hand": on_hand,
            "received": quantity,
            "receipt_id": receipt_id,
        })),
        request_id: receipt.request_id.clone(),
    }
}
