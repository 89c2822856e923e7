//! The SQL that sees several slices' tables at once.

use sqlx::PgExecutor;
use uuid::Uuid;

use crate::kernel::{OrderId, UserId};

/// Gives the user the newest `limit` orders that guests placed with the e-mail address; returns how many.
///
/// Another user's order with that address stays theirs alone: they may have ordered for somebody else.
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
                AND NOT EXISTS (SELECT FROM users WHERE users.id = orders.owner_id)
            ORDER BY id DESC
            LIMIT $3
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

/// Those of the orders that are not settled: they wait for their payment, money of theirs is on its way in
/// or out or is disputed, or a person has to look at them.
pub(super) async fn unsettled(
    tx: impl PgExecutor<'_>,
    ids: &[OrderId],
) -> sqlx::Result<Vec<OrderId>> {
    sqlx::query_scalar!(
        r#"
        SELECT id
        FROM orders
        WHERE id = ANY($1)
            AND (
                status = 'awaiting_payment'
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
        "#,
        &uuids(ids),
    )
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

/// Locks up to `limit` orders that still name somebody whose account was erased within the last week.
pub(super) async fn lock_left_over(
    tx: impl PgExecutor<'_>,
    limit: i64,
) -> sqlx::Result<Vec<OrderId>> {
    sqlx::query_scalar!(
        r#"
        SELECT orders.id
        FROM erased_accounts
        JOIN orders ON orders.owner_id = erased_accounts.user_id
        WHERE erased_accounts.erased_at > now() - interval '7 days'
            AND orders.erased_at IS NULL
            AND orders.status <> 'awaiting_payment'
        ORDER BY orders.id
        LIMIT $1
        FOR NO KEY UPDATE OF orders SKIP LOCKED
        "#,
        limit,
    )
    .fetch_all(tx)
    .await
}

fn uuids(ids: &[OrderId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.uuid()).collect()
}
