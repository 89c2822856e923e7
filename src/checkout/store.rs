//! Reads that no single slice can answer: what customers have bought, over holds, orders and restocks.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    catalog::PurchaseLimit,
    kernel::{CustomerKey, OrderId, VariantId},
};

/// What one customer may have of one variant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limited {
    pub(super) customer: CustomerKey,
    pub(super) variant_id: VariantId,
    pub(super) limit: PurchaseLimit,
}

/// How many units each customer holds or has bought of the variant, in the order of `limited`, as far
/// as they count now. The variants' stock rows are locked.
pub(super) async fn purchased(
    tx: &mut PgConnection,
    limited: &[Limited],
) -> sqlx::Result<Vec<i64>> {
    let customers: Vec<&[u8]> = limited.iter().map(|limited| limited.customer.as_bytes()).collect();
    let variants: Vec<Uuid> = limited.iter().map(|limited| limited.variant_id.uuid()).collect();
    let windows: Vec<Option<i64>> =
        limited.iter().map(|limited| limited.limit.window_seconds).collect();
    sqlx::query_scalar!(
        r#"
        SELECT purchased.units AS "units!"
        FROM unnest($1::bytea[], $2::uuid[], $3::bigint[]) WITH ORDINALITY
            AS limited (customer_key, variant_id, window_seconds, place)
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(purchases.units), 0)::bigint AS units
            FROM purchases
            WHERE purchases.variant_id = limited.variant_id
                AND purchases.customer_key = limited.customer_key
                AND (
                    limited.window_seconds IS NULL
                    OR purchases.placed_at > now() - limited.window_seconds * interval '1 second'
                )
        ) AS purchased
        ORDER BY limited.place
        "#,
        &customers as &[&[u8]],
        &variants,
        &windows as &[Option<i64>],
    )
    .fetch_all(tx)
    .await
}

/// What a customer may still have of a variant of which a late order lost its hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Late {
    pub(super) order_id: OrderId,
    pub(super) customer: CustomerKey,
    pub(super) variant_id: VariantId,
    pub(super) left: i64,
}

/// What the limits leave to the customers of the orders, for every limited variant that the orders no
/// longer hold. The variants' stock rows are locked.
///
/// Purchases count that were made within the limit's window before the order was placed, or after it:
/// the order is judged as of the moment when it was placed.
pub(super) async fn left_to_late(
    tx: &mut PgConnection,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<Late>> {
    let order_ids: Vec<Uuid> = order_ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT
            lost.order_id,
            lost.variant_id,
            lost.customer_key AS "customer_key!",
            (variants.purchase_limit - purchased.units)::bigint AS "left!"
        FROM holds AS lost
        JOIN orders AS late ON late.id = lost.order_id
        JOIN variants ON variants.id = lost.variant_id
        CROSS JOIN LATERAL (
            SELECT coalesce(sum(purchases.units), 0) AS units
            FROM purchases
            WHERE purchases.variant_id = lost.variant_id
                AND purchases.customer_key = lost.customer_key
                AND (
                    variants.purchase_window_seconds IS NULL
                    OR abs(extract(epoch FROM purchases.placed_at - late.placed_at))
                        < variants.purchase_window_seconds
                )
        ) AS purchased
        WHERE lost.order_id = ANY($1)
            AND lost.state IN ('released', 'taken')
            AND lost.customer_key IS NOT NULL
            AND variants.purchase_limit IS NOT NULL
        "#,
        &order_ids,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let customer = CustomerKey::try_from(row.customer_key);
            let customer = customer.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            Ok(Late {
                order_id: row.order_id,
                customer,
                variant_id: row.variant_id,
                left: row.left,
            })
        })
        .collect()
}
