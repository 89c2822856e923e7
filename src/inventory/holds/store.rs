//! The SQL of holds, counters and the stock ledger. Every function is one statement for a whole slice.

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Account, Hold, Kept, Movement};
use crate::kernel::{CustomerKey, OrderId, VariantId};

/// The counters of one variant, as they stand under its lock.
#[derive(Debug, Clone, Copy)]
pub struct Stock {
    pub variant_id: VariantId,
    pub on_hand: i64,
    pub reserved: i64,
}

/// Locks the stock rows in the order of their ids and returns them as they stand then.
pub async fn lock_stock(
    tx: &mut PgConnection,
    variant_ids: &[VariantId],
) -> sqlx::Result<Vec<Stock>> {
    sqlx::query_as!(
        Stock,
        r#"
        SELECT variant_id, on_hand, reserved
        FROM stock
        WHERE variant_id = ANY($1)
        ORDER BY variant_id
        FOR NO KEY UPDATE
        "#,
        &uuids(variant_ids),
    )
    .fetch_all(tx)
    .await
}

/// The variants of which the orders still hold units; an unlocked read, to know what to lock.
pub(super) async fn held_variants(
    tx: &mut PgConnection,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<VariantId>> {
    sqlx::query_scalar!(
        r#"
        SELECT DISTINCT variant_id
        FROM holds
        WHERE order_id = ANY($1) AND state = 'held'
        "#,
        &uuids(order_ids),
    )
    .fetch_all(tx)
    .await
}

/// The variants of which the orders keep or kept units; an unlocked read, to know what to lock.
pub async fn variants_of(
    tx: &mut PgConnection,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<VariantId>> {
    sqlx::query_scalar!(
        r#"
        SELECT DISTINCT variant_id
        FROM holds
        WHERE order_id = ANY($1)
        "#,
        &uuids(order_ids),
    )
    .fetch_all(tx)
    .await
}

/// Every hold of the orders and what became of it. The stock rows are locked.
pub async fn of_orders(tx: &mut PgConnection, order_ids: &[OrderId]) -> sqlx::Result<Vec<Kept>> {
    let rows = sqlx::query!(
        r#"
        SELECT order_id, variant_id, quantity, state
        FROM holds
        WHERE order_id = ANY($1)
        ORDER BY order_id, variant_id
        "#,
        &uuids(order_ids),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let state = row.state.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            let hold =
                Hold { order_id: row.order_id, variant_id: row.variant_id, quantity: row.quantity };
            Ok(Kept { hold, state })
        })
        .collect()
}

/// Takes expired holds away from their orders, the oldest first, until each variant's shortage is
/// covered or nothing expired is left; the `spared` orders keep theirs. The stock rows are locked.
///
/// A hold keeps at least one unit, so a shortage of `n` never looks at more than `n` holds.
pub async fn take_over(
    tx: &mut PgConnection,
    shortages: &BTreeMap<VariantId, i64>,
    spared: &[OrderId],
) -> sqlx::Result<Vec<Hold>> {
    let variant_ids: Vec<Uuid> = shortages.keys().map(|id| id.uuid()).collect();
    let quantities: Vec<i64> = shortages.values().copied().collect();
    sqlx::query_as!(
        Hold,
        r#"
        WITH expired AS (
            SELECT
                oldest.order_id,
                oldest.variant_id,
                short.quantity AS shortage,
                sum(oldest.quantity) OVER (
                    PARTITION BY oldest.variant_id ORDER BY oldest.expires_at, oldest.order_id
                ) - oldest.quantity AS covered_before
            FROM unnest($1::uuid[], $2::bigint[]) AS short (variant_id, quantity)
            CROSS JOIN LATERAL (
                SELECT holds.order_id, holds.variant_id, holds.quantity, holds.expires_at
                FROM holds
                WHERE holds.variant_id = short.variant_id
                    AND holds.state = 'held'
                    AND holds.expires_at <= statement_timestamp()
                    AND holds.order_id <> ALL($3)
                ORDER BY holds.expires_at, holds.order_id
                LIMIT short.quantity
            ) AS oldest
        )
        UPDATE holds
        SET state = 'taken'
        FROM expired
        WHERE holds.order_id = expired.order_id
            AND holds.variant_id = expired.variant_id
            AND expired.covered_before < expired.shortage
        RETURNING holds.order_id, holds.variant_id, holds.quantity
        "#,
        &variant_ids,
        &quantities,
        &uuids(spared),
    )
    .fetch_all(tx)
    .await
}

/// For how many milliseconds yet none of the variant's holds expires; `None` where nothing is held.
#[derive(Debug, Clone, Copy)]
pub struct NextExpiry {
    pub variant_id: VariantId,
    pub due_in_ms: Option<i64>,
}

/// When the next hold of each variant expires, by the database's clock.
pub async fn next_expiries(
    tx: &mut PgConnection,
    variant_ids: &[VariantId],
) -> sqlx::Result<Vec<NextExpiry>> {
    sqlx::query_as!(
        NextExpiry,
        r#"
        SELECT
            stock.variant_id,
            (
                SELECT floor(extract(epoch FROM holds.expires_at - clock_timestamp()) * 1000)::bigint
                FROM holds
                WHERE holds.variant_id = stock.variant_id AND holds.state = 'held'
                ORDER BY holds.expires_at
                LIMIT 1
            ) AS due_in_ms
        FROM stock
        WHERE stock.variant_id = ANY($1)
        "#,
        &uuids(variant_ids),
    )
    .fetch_all(tx)
    .await
}

/// Writes one hold per order and variant, all with the same deadline, for the customer who is named.
pub async fn insert(
    tx: &mut PgConnection,
    holds: &[(Hold, Option<CustomerKey>)],
    expires_at: OffsetDateTime,
) -> sqlx::Result<()> {
    let order_ids: Vec<Uuid> = holds.iter().map(|(hold, _)| hold.order_id.uuid()).collect();
    let variant_ids: Vec<Uuid> = holds.iter().map(|(hold, _)| hold.variant_id.uuid()).collect();
    let quantities: Vec<i64> = holds.iter().map(|(hold, _)| hold.quantity).collect();
    let customers: Vec<Option<&[u8]>> =
        holds.iter().map(|(_, customer)| customer.as_ref().map(CustomerKey::as_bytes)).collect();
    sqlx::query!(
        r#"
        INSERT INTO holds (order_id, variant_id, quantity, customer_key, expires_at)
        SELECT hold.order_id, hold.variant_id, hold.quantity, hold.customer_key, $5
        FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bytea[])
            AS hold (order_id, variant_id, quantity, customer_key)
        "#,
        &order_ids,
        &variant_ids,
        &quantities,
        &customers as &[Option<&[u8]>],
        expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives back every unit that the orders still hold. The stock rows are locked.
pub(super) async fn release(
    tx: &mut PgConnection,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<Hold>> {
    sqlx::query_as!(
        Hold,
        r#"
        UPDATE holds
        SET state = 'released'
        WHERE order_id = ANY($1) AND state = 'held'
        RETURNING order_id, variant_id, quantity
        "#,
        &uuids(order_ids),
    )
    .fetch_all(tx)
    .await
}

/// Marks every hold of the orders as sold, whatever became of it before. The stock rows are locked,
/// and enough is available for what is no longer held.
pub async fn sell(tx: &mut PgConnection, order_ids: &[OrderId]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE holds
        SET state = 'sold'
        WHERE order_id = ANY($1)
        "#,
        &uuids(order_ids),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes back what was sold to the order. The stock rows are locked, and the units go back on sale.
pub async fn unsell(tx: &mut PgConnection, order_id: OrderId) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE holds
        SET state = 'released'
        WHERE order_id = $1 AND state = 'sold'
        "#,
        order_id.uuid(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Moves the deadline of every hold of the orders. The stock rows are locked.
pub async fn extend(
    tx: &mut PgConnection,
    order_ids: &[OrderId],
    expires_at: OffsetDateTime,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE holds
        SET expires_at = $2
        WHERE order_id = ANY($1)
        "#,
        &uuids(order_ids),
        expires_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Moves the counters as the movements say. The rows are locked.
pub async fn change_counters(tx: &mut PgConnection, movements: &[Movement]) -> sqlx::Result<()> {
    let mut changes = BTreeMap::<Uuid, (i64, i64)>::new();
    for movement in movements {
        let (on_hand, reserved) = changes.entry(movement.variant_id.uuid()).or_default();
        for (account, units) in
            [(movement.to, movement.quantity), (movement.from, -movement.quantity)]
        {
            match account {
                Account::Held => {
                    *on_hand += units;
                    *reserved += units;
                }
                Account::Available => *on_hand += units,
                Account::Supplier | Account::Sold | Account::WrittenOff => {}
            }
        }
    }
    let variant_ids: Vec<Uuid> = changes.keys().copied().collect();
    let (on_hand, reserved): (Vec<i64>, Vec<i64>) = changes.into_values().unzip();
    sqlx::query!(
        r#"
        UPDATE stock
        SET on_hand = stock.on_hand + change.on_hand, reserved = stock.reserved + change.reserved
        FROM unnest($1::uuid[], $2::bigint[], $3::bigint[])
            AS change (variant_id, on_hand, reserved)
        WHERE stock.variant_id = change.variant_id
        "#,
        &variant_ids,
        &on_hand,
        &reserved,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Appends the movements to the stock ledger.
pub async fn record_movements(tx: &mut PgConnection, movements: &[Movement]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = movements.iter().map(|_| Uuid::now_v7()).collect();
    let variant_ids: Vec<Uuid> = movements.iter().map(|row| row.variant_id.uuid()).collect();
    let from: Vec<&str> = movements.iter().map(|row| row.from.name()).collect();
    let to: Vec<&str> = movements.iter().map(|row| row.to.name()).collect();
    let quantities: Vec<i64> = movements.iter().map(|row| row.quantity).collect();
    let causes: Vec<&str> = movements.iter().map(|row| row.cause.name()).collect();
    let cause_ids: Vec<Uuid> = movements.iter().map(|row| row.cause_id).collect();
    let actor_ids: Vec<Option<Uuid>> = movements.iter().map(|row| row.actor_id).collect();
    sqlx::query!(
        r#"
        INSERT INTO stock_ledger
            (id, variant_id, from_account, to_account, quantity, cause, cause_id, actor_id)
        SELECT *
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::uuid[],
            $8::uuid[]
        )
        "#,
        &ids,
        &variant_ids,
        &from as &[&str],
        &to as &[&str],
        &quantities,
        &causes as &[&str],
        &cause_ids,
        &actor_ids as &[Option<Uuid>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

fn uuids<I: Copy + Into<Uuid>>(ids: &[I]) -> Vec<Uuid> {
    ids.iter().map(|&id| id.into()).collect()
}

/// A variant whose counters are not what its ledger adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    pub variant_id: VariantId,
    pub on_hand: i64,
    pub reserved: i64,
    pub ledger_on_hand: i64,
    pub ledger_reserved: i64,
}

/// Every variant whose counters differ from the sums of its ledger.
pub(in crate::inventory) async fn differences(
    db: impl PgExecutor<'_>,
) -> sqlx::Result<Vec<Difference>> {
    let rows = sqlx::query!(
        r#"
        WITH moved AS (
            SELECT variant_id, to_account AS account, quantity FROM stock_ledger
            UNION ALL
            SELECT variant_id, from_account, -quantity FROM stock_ledger
        ), sums AS (
            SELECT
                variant_id,
                sum(quantity) FILTER (WHERE account IN ('available', 'held')) AS on_hand,
                sum(quantity) FILTER (WHERE account = 'held') AS reserved
            FROM moved
            GROUP BY variant_id
        )
        SELECT
            stock.variant_id,
            stock.on_hand,
            stock.reserved,
            coalesce(sums.on_hand, 0)::bigint AS "ledger_on_hand!",
            coalesce(sums.reserved, 0)::bigint AS "ledger_reserved!"
        FROM stock
        LEFT JOIN sums ON sums.variant_id = stock.variant_id
        WHERE stock.on_hand <> coalesce(sums.on_hand, 0)
            OR stock.reserved <> coalesce(sums.reserved, 0)
        ORDER BY stock.variant_id
        LIMIT 1000
        "#,
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Difference {
            variant_id: row.variant_id,
            on_hand: row.on_hand,
            reserved: row.reserved,
            ledger_on_hand: row.ledger_on_hand,
            ledger_reserved: row.ledger_reserved,
        })
        .collect())
}

/// How the variant's counters differ from the sums of its ledger, if they do.
pub(in crate::inventory) async fn difference(
    db: impl PgExecutor<'_>,
    variant_id: VariantId,
) -> sqlx::Result<Option<Difference>> {
    sqlx::query_as!(
        Difference,
        r#"
        SELECT
            stock.variant_id,
            stock.on_hand,
            stock.reserved,
            sums.on_hand AS "ledger_on_hand!",
            sums.reserved AS "ledger_reserved!"
        FROM stock
        CROSS JOIN LATERAL (
            SELECT
                coalesce(sum(
                    (to_account IN ('available', 'held'))::int * quantity
                    - (from_account IN ('available', 'held'))::int * quantity
                ), 0)::bigint AS on_hand,
                coalesce(sum(
                    (to_account = 'held')::int * quantity - (from_account = 'held')::int * quantity
                ), 0)::bigint AS reserved
            FROM stock_ledger
            WHERE stock_ledger.variant_id = stock.variant_id
        ) AS sums
        WHERE stock.variant_id = $1
            AND (stock.on_hand <> sums.on_hand OR stock.reserved <> sums.reserved)
        "#,
        variant_id as VariantId,
    )
    .fetch_optional(db)
    .await
}

/// Sets the counters of a locked row to what the ledger says.
pub(in crate::inventory) async fn set_counters(
    tx: &mut PgConnection,
    difference: &Difference,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE stock
        SET on_hand = $2, reserved = $3
        WHERE variant_id = $1
        "#,
        difference.variant_id as VariantId,
        difference.ledger_on_hand,
        difference.ledger_reserved,
    )
    .execute(tx)
    .await?;
    Ok(())
}
