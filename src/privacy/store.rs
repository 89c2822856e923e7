//! The SQL that sees several slices' tables at once.

use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::kernel::{OrderId, UserId};

/// Gives the user the newest `limit` orders that guests placed with the e-mail address; returns how many.
///
/// Another user's order with that address stays theirs alone, as they may have ordered for somebody else;
/// and so does one of a user who has left: it waits to be erased.
pub(super) async fn adopt_guest_orders(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    email: &str,
    limit: i64,
) -> sqlx::Result<u64> {
    let adopted = sqlx::query!(
        r#"
        UPDATE orders
        SET adopted_by = $1
        WHERE id IN (
            SELECT id
            FROM orders
            WHERE email = $2
                AND erased_at IS NULL
                AND adopted_by IS NULL
                AND id IN (
                    SELECT id
                    FROM orders AS placed
                    WHERE email = $2
                        AND erased_at IS NULL
                        AND adopted_by IS NULL
                        AND NOT EXISTS (SELECT FROM users WHERE users.id = placed.owner_id)
                        AND NOT EXISTS (
                            SELECT FROM erased_accounts WHERE user_id = placed.owner_id
                        )
                    ORDER BY id DESC
                    LIMIT $3
                )
            ORDER BY id
            FOR NO KEY UPDATE
        )
        "#,
        user_id.uuid(),
        email,
        limit,
    )
    .execute(tx)
    .await?;
    Ok(adopted.rows_affected())
}

/// An order that a guest placed with somebody's e-mail address.
#[derive(Debug)]
pub struct GuestOrder {
    pub id: OrderId,
    pub number: String,
    pub placed_at: OffsetDateTime,
}

/// The newest `limit` orders that guests placed with the e-mail address and that belong to no account.
pub(super) async fn guest_orders(
    db: impl PgExecutor<'_>,
    email: &str,
    limit: i64,
) -> sqlx::Result<Vec<GuestOrder>> {
    sqlx::query_as!(
        GuestOrder,
        r#"
        SELECT id, number, placed_at
        FROM orders
        WHERE email = $1
            AND erased_at IS NULL
            AND adopted_by IS NULL
            AND NOT EXISTS (SELECT FROM users WHERE users.id = orders.owner_id)
            AND NOT EXISTS (SELECT FROM erased_accounts WHERE user_id = orders.owner_id)
        ORDER BY id DESC
        LIMIT $2
        "#,
        email,
        limit,
    )
    .fetch_all(db)
    .await
}

/// An order that names somebody who is leaving.
pub(super) struct Named {
    pub(super) id: OrderId,
    /// The user placed it or took it over; else a guest placed it with the user's e-mail address.
    pub(super) is_own: bool,
}

/// Locks the user's orders and those that guests placed with the e-mail address, all that name anybody.
pub(super) async fn lock_named(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    email: &str,
) -> sqlx::Result<Vec<Named>> {
    sqlx::query_as!(
        Named,
        r#"
        SELECT id, (owner_id = $1 OR adopted_by IS NOT DISTINCT FROM $1) AS "is_own!"
        FROM orders
        WHERE id IN (
                SELECT id FROM orders WHERE owner_id = $1 AND erased_at IS NULL
                UNION
                SELECT id FROM orders WHERE adopted_by = $1 AND erased_at IS NULL
                UNION
                SELECT id
                FROM orders AS placed
                WHERE email = $2
                    AND erased_at IS NULL
                    AND adopted_by IS NULL
                    AND NOT EXISTS (SELECT FROM users WHERE users.id = placed.owner_id)
                    AND NOT EXISTS (SELECT FROM erased_accounts WHERE user_id = placed.owner_id)
            )
            AND erased_at IS NULL
            AND (owner_id = $1 OR adopted_by = $1 OR (email = $2 AND adopted_by IS NULL))
        ORDER BY id
        FOR NO KEY UPDATE
        "#,
        user_id.uuid(),
        email,
    )
    .fetch_all(tx)
    .await
}

/// Leaves the locked orders to the sweep, which erases them once they are settled.
pub(super) async fn leave_over(
    tx: impl PgExecutor<'_>,
    user_id: UserId,
    ids: &[OrderId],
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE orders SET adopted_by = $1 WHERE id = ANY($2)",
        user_id.uuid(),
        &uuids(ids),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A query of ids, in whose middle stands whether an order is not settled: it waits for its payment, money of
/// its is on the way in or out or is disputed, or a person has to look at it.
macro_rules! query_unsettled {
    ($before:literal, $after:literal, $argument:expr) => {
        sqlx::query_scalar!(
            $before
                + r#"
                (
                    orders.status = 'awaiting_payment'
                    OR EXISTS (
                        SELECT FROM payments
                        WHERE payments.order_id = orders.id
                            AND state IN ('creating', 'open', 'processing', 'authorized', 'cancelling')
                    )
                    OR EXISTS (
                        SELECT FROM refunds
                        WHERE refunds.order_id = orders.id AND state IN ('requested', 'pending')
                    )
                    OR EXISTS (
                        SELECT FROM disputes
                        WHERE disputes.order_id = orders.id AND state = 'open'
                    )
                    OR EXISTS (
                        SELECT FROM findings
                        WHERE findings.order_id = orders.id AND closed_at IS NULL
                    )
                )
                "#
                + $after,
            $argument,
        )
    };
}

/// Those of the orders that are not settled.
pub(super) async fn unsettled(
    tx: impl PgExecutor<'_>,
    ids: &[OrderId],
) -> sqlx::Result<Vec<OrderId>> {
    query_unsettled!("SELECT id FROM orders WHERE id = ANY($1) AND ", "", &uuids(ids))
        .fetch_all(tx)
        .await
}

/// Whatever mails about the orders were sent for: the orders, their payments and their refunds.
pub(super) async fn mail_causes(
    db: impl PgExecutor<'_>,
    ids: &[OrderId],
) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        SELECT cause AS "cause!"
        FROM (
            SELECT unnest($1::uuid[]) AS cause
            UNION ALL
            SELECT id FROM payments WHERE order_id = ANY($1)
            UNION ALL
            SELECT id FROM refunds WHERE order_id = ANY($1)
        ) AS causes
        "#,
        &uuids(ids),
    )
    .fetch_all(db)
    .await
}

/// Locks up to `limit` settled orders that still name somebody whose account was erased, but those that
/// somebody else has locked. Whether they are settled is to be asked again under the lock.
pub(super) async fn lock_left_over(
    tx: impl PgExecutor<'_>,
    limit: i64,
) -> sqlx::Result<Vec<OrderId>> {
    query_unsettled!(
        r#"
        SELECT id
        FROM orders
        WHERE id IN (
                SELECT orders.id
                FROM (
                    SELECT placed.id
                    FROM erased_accounts
                    JOIN orders AS placed ON placed.owner_id = erased_accounts.user_id
                    UNION
                    SELECT given.id
                    FROM erased_accounts
                    JOIN orders AS given ON given.adopted_by = erased_accounts.user_id
                ) AS named
                JOIN orders ON orders.id = named.id
                WHERE orders.erased_at IS NULL AND NOT
        "#,
        r#"
                ORDER BY orders.id
                LIMIT $1
            )
            AND erased_at IS NULL
        ORDER BY id
        FOR NO KEY UPDATE SKIP LOCKED
        "#,
        limit
    )
    .fetch_all(tx)
    .await
}

/// Forgets up to `limit` erased accounts of more than a day ago that no order is left to erase of: whatever
/// was let in before the erasure has long committed.
pub(super) async fn purge_erased(db: impl PgExecutor<'_>, limit: i64) -> sqlx::Result<u64> {
    let purged = sqlx::query!(
        r#"
        DELETE FROM erased_accounts
        WHERE user_id IN (
            SELECT user_id
            FROM erased_accounts AS gone
            WHERE erased_at < now() - interval '1 day'
                AND NOT EXISTS (
                    SELECT FROM orders
                    WHERE orders.owner_id = gone.user_id AND orders.erased_at IS NULL
                )
                AND NOT EXISTS (
                    SELECT FROM orders
                    WHERE orders.adopted_by = gone.user_id AND orders.erased_at IS NULL
                )
            ORDER BY erased_at
            LIMIT $1
            FOR UPDATE SKIP LOCKED
        )
        "#,
        limit,
    )
    .execute(db)
    .await?;
    Ok(purged.rows_affected())
}

/// Money that goes back to the shopper of an order.
#[derive(Debug)]
pub struct OrderRefund {
    pub id: Uuid,
    pub order_id: Uuid,
    pub amount_minor: i64,
    pub currency: String,
    pub state: String,
    pub created_at: OffsetDateTime,
}

/// The newest `limit` refunds of the orders.
pub(super) async fn refunds(
    db: impl PgExecutor<'_>,
    ids: &[OrderId],
    limit: i64,
) -> sqlx::Result<Vec<OrderRefund>> {
    sqlx::query_as!(
        OrderRefund,
        r#"
        SELECT
            id AS "id: Uuid", order_id AS "order_id: Uuid", amount_minor, currency, state, created_at
        FROM refunds
        WHERE order_id = ANY($1)
        ORDER BY created_at DESC, id DESC
        LIMIT $2
        "#,
        &uuids(ids),
        limit,
    )
    .fetch_all(db)
    .await
}

fn uuids(ids: &[OrderId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.uuid()).collect()
}
