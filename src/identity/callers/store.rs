//! The SQL of callers who place orders.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::kernel::{CustomerKey, OwnerId};

/// Lets nobody else place an order for these callers until the transaction ends, and tells who of
/// them has an account, by the key that purchase limits count by. A guest has none.
///
/// What the callers have already is to be read in a later statement: only one that starts after the
/// lock sees what its last holder did. The locks are taken in one order, so that slices that share
/// callers cannot deadlock.
pub async fn lock(
    tx: &mut PgConnection,
    owner_ids: &[OwnerId],
) -> sqlx::Result<HashMap<OwnerId, CustomerKey>> {
    let mut locks: Vec<(i64, Uuid)> =
        owner_ids.iter().map(|id| (lock_of(*id), id.uuid())).collect();
    locks.sort_unstable();
    let (locks, owners): (Vec<i64>, Vec<Uuid>) = locks.into_iter().unzip();
    let rows = sqlx::query!(
        r#"
        WITH locked AS MATERIALIZED (
            SELECT caller.owner_id, pg_advisory_xact_lock(caller.lock)
            FROM unnest($1::bigint[], $2::uuid[]) AS caller (lock, owner_id)
        )
        SELECT
            locked.owner_id AS "owner_id!",
            account.customer_key AS "customer_key!"
        FROM locked
        CROSS JOIN LATERAL (
            SELECT users.customer_key
            FROM users
            WHERE users.id = locked.owner_id
            LIMIT 1
        ) AS account
        "#,
        &locks,
        &owners,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let key = CustomerKey::try_from(row.customer_key);
            let key = key.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            Ok((row.owner_id.into(), key))
        })
        .collect()
}

/// The advisory lock that stands for the caller. Two callers that share one by chance take turns, no more.
fn lock_of(owner_id: OwnerId) -> i64 {
    let mut hash = Sha256::new();
    hash.update("caller");
    hash.update(owner_id.uuid());
    let digest = <[u8; 32]>::from(hash.finalize());
    i64::from_be_bytes(*digest.first_chunk().expect("32 bytes begin with 8"))
}
