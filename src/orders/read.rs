//! Reading orders back.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;
use sqlx::PgPool;
use time::OffsetDateTime;

use super::{
    OrderError, OrderLine, Status, TimelineEntry, Totals,
    store::{self, LineRow, OrderRow},
};
use crate::kernel::{Currency, Money, OrderId, OwnerId};

/// An order as its owner may see it.
#[derive(Debug, Clone)]
pub struct Order {
    pub id: OrderId,
    pub number: String,
    pub status: Status,
    pub email: String,
    pub shipping_address: Value,
    pub lines: Vec<OrderLine>,
    pub totals: Totals,
    pub placed_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    /// How far off the deadline is, by the database's clock; zero when it has passed.
    pub expires_in: Duration,
    /// Its shopper was taken out of it: there is nobody to write to.
    pub is_erased: bool,
}

/// Returns the order with its timeline, if it is the owner's or they took it over from a guest.
pub async fn find_order(
    db: &PgPool,
    id: OrderId,
    owner_id: OwnerId,
) -> Result<(Order, Vec<TimelineEntry>), OrderError> {
    let row = store::find(db, id, Some(owner_id)).await?.ok_or(OrderError::NotFound)?;
    let lines = store::lines(db, &[id]).await?;
    let timeline = store::timeline(db, id).await?;
    Ok((order(row, lines)?, timeline))
}

/// Returns the order, whoever owns it; for work that no shopper asked for.
pub async fn find_any_order(db: &PgPool, id: OrderId) -> Result<Order, OrderError> {
    let row = store::find(db, id, None).await?.ok_or(OrderError::NotFound)?;
    let lines = store::lines(db, &[id]).await?;
    order(row, lines)
}

/// Returns up to `limit` of the owner's orders that were placed before `before`, the newest first.
pub async fn list_orders(
    db: &PgPool,
    owner_id: OwnerId,
    before: Option<OrderId>,
    limit: i64,
) -> Result<Vec<Order>, OrderError> {
    let rows = store::list_owned(db, owner_id, before.map(OrderId::uuid), limit).await?;
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let mut lines = HashMap::<OrderId, Vec<LineRow>>::new();
    for line in store::lines(db, &ids).await? {
        lines.entry(line.order_id).or_default().push(line);
    }
    rows.into_iter()
        .map(|row| {
            let lines = lines.remove(&row.id).unwrap_or_default();
            order(row, lines)
        })
        .collect()
}

fn order(row: OrderRow, lines: Vec<LineRow>) -> Result<Order, OrderError> {
    let id = row.id;
    let unreadable = |what| move |_| OrderError::Unreadable(id, what);
    let currency: Currency = row.currency.parse().map_err(unreadable("currency"))?;
    let money = |minor| Money::new(minor, currency).map_err(unreadable("amount"));
    let lines = lines
        .into_iter()
        .map(|line| {
            Ok(OrderLine {
                variant_id: line.variant_id,
                sku: line.sku,
                title: line.title,
                quantity: line.quantity,
                unit_price: money(line.unit_price_minor)?,
            })
        })
        .collect::<Result<_, OrderError>>()?;
    Ok(Order {
        id,
        number: row.number,
        status: row.status.parse().map_err(|_| OrderError::Unreadable(id, "status"))?,
        email: row.email,
        shipping_address: row.shipping_address,
        lines,
        totals: Totals {
            subtotal: money(row.subtotal_minor)?,
            discount: money(row.discount_minor)?,
            shipping: money(row.shipping_minor)?,
            tax: money(row.tax_minor)?,
            total: money(row.total_minor)?,
        },
        placed_at: row.placed_at,
        expires_at: row.expires_at,
        expires_in: Duration::from_millis(u64::try_from(row.expires_in_ms).unwrap_or(0)),
        is_erased: row.is_erased,
    })
}
