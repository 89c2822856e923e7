//! The SQL of orders. Writing functions take a slice of orders and are one statement each.

use std::time::Duration;

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Event, NewOrder, Note, Status};
use crate::kernel::{Money, OrderId, OwnerId, VariantId};

/// The moments of a slice of orders that the database decided.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    pub placed_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
}

/// Writes the orders with their lines, in the order in which the shopper gave them, opens their
/// timelines, and returns when they were placed and when they expire, the same for all.
///
/// The deadline is `hold` from now by the database's clock, rounded up to a whole second, so that
/// orders share deadlines.
pub async fn insert(
    tx: &mut PgConnection,
    orders: &[NewOrder<'_>],
    hold: Duration,
) -> sqlx::Result<Option<Placed>> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.id.uuid()).collect();
    let numbers: Vec<&str> = orders.iter().map(|order| order.number.as_str()).collect();
    let owners: Vec<Uuid> = orders.iter().map(|order| order.owner_id.uuid()).collect();
    let emails: Vec<&str> = orders.iter().map(|order| order.email).collect();
    let addresses: Vec<&Value> = orders.iter().map(|order| order.shipping_address).collect();
    let addresses: Vec<_> = addresses.into_iter().map(sqlx::types::Json).collect();
    let currencies: Vec<&str> =
        orders.iter().map(|order| order.totals.total.currency().code()).collect();
    let subtotals: Vec<i64> = orders.iter().map(|order| order.totals.subtotal.minor()).collect();
    let discounts: Vec<i64> = orders.iter().map(|order| order.totals.discount.minor()).collect();
    let shippings: Vec<i64> = orders.iter().map(|order| order.totals.shipping.minor()).collect();
    let taxes: Vec<i64> = orders.iter().map(|order| order.totals.tax.minor()).collect();
    let totals: Vec<i64> = orders.iter().map(|order| order.totals.total.minor()).collect();
    let hold_ms = i64::try_from(hold.as_millis()).unwrap_or(i64::MAX);
    let lines = Lines::of(orders);
    sqlx::query_as!(
        Placed,
        r#"
        WITH written AS (
            INSERT INTO orders (
                id, number, owner_id, email, shipping_address, currency, subtotal_minor,
                discount_minor, shipping_minor, tax_minor, total_minor, expires_at
            )
            SELECT
                new.*,
                to_timestamp(ceil(extract(epoch FROM now() + $12::bigint * interval '1 millisecond')))
            FROM unnest(
                $1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::jsonb[], $6::text[],
                $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[]
            ) AS new
            RETURNING id, placed_at, expires_at
        ), opened AS (
            INSERT INTO order_events (order_id, sequence, kind, status)
            SELECT id, 1, 'placed', 'awaiting_payment'
            FROM written
        ), lined AS (
            INSERT INTO order_lines
                (order_id, position, variant_id, sku, title, quantity, unit_price_minor)
            SELECT *
            FROM unnest(
                $13::uuid[], $14::integer[], $15::uuid[], $16::text[], $17::text[], $18::bigint[],
                $19::bigint[]
            )
        )
        SELECT placed_at, expires_at FROM written LIMIT 1
        "#,
        &ids,
        &numbers as &[&str],
        &owners,
        &emails as &[&str],
        &addresses as &[sqlx::types::Json<&Value>],
        &currencies as &[&str],
        &subtotals,
        &discounts,
        &shippings,
        &taxes,
        &totals,
        hold_ms,
        &lines.order_ids,
        &lines.positions,
        &lines.variants,
        &lines.skus as &[&str],
        &lines.titles as &[&str],
        &lines.quantities,
        &lines.prices,
    )
    .fetch_optional(tx)
    .await
}

/// The lines of new orders, one array a column, as `unnest` takes them.
struct Lines<'a> {
    order_ids: Vec<Uuid>,
    positions: Vec<i32>,
    variants: Vec<Uuid>,
    skus: Vec<&'a str>,
    titles: Vec<&'a str>,
    quantities: Vec<i64>,
    prices: Vec<i64>,
}

impl<'a> Lines<'a> {
    fn of(orders: &[NewOrder<'a>]) -> Self {
        let lines = || orders.iter().flat_map(|order| order.lines);
        Self {
            order_ids: orders
                .iter()
                .flat_map(|order| std::iter::repeat_n(order.id.uuid(), order.lines.len()))
                .collect(),
            positions: orders
                .iter()
                .flat_map(|order| (1..).zip(order.lines).map(|(position, _)| position))
                .collect(),
            variants: lines().map(|line| line.variant_id.uuid()).collect(),
            skus: lines().map(|line| line.sku.as_str()).collect(),
            titles: lines().map(|line| line.title.as_str()).collect(),
            quantities: lines().map(|line| line.quantity).collect(),
            prices: lines().map(|line| line.unit_price.minor()).collect(),
        }
    }
}

/// A line of an order that waits for its payment.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub owner_id: OwnerId,
    pub order_id: OrderId,
    /// How long the order waits yet.
    pub ends_in_ms: i64,
    /// One of the variants that were asked for, and its units; none where the order has none of them.
    pub line: Option<(VariantId, i64)>,
}

/// The orders of each owner that wait for their payment and are not past their deadline, at most
/// `limit` of each, those that end first; with their lines of these variants.
pub async fn waiting(
    tx: &mut PgConnection,
    owner_ids: &[OwnerId],
    variant_ids: &[VariantId],
    limit: i64,
) -> sqlx::Result<Vec<Waiting>> {
    let owners: Vec<Uuid> = owner_ids.iter().map(|id| id.uuid()).collect();
    let variants: Vec<Uuid> = variant_ids.iter().map(|id| id.uuid()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT
            waiting.owner_id,
            waiting.id,
            ceil(extract(epoch FROM waiting.expires_at - statement_timestamp()) * 1000)::bigint
                AS "ends_in_ms!",
            line.variant_id AS "variant_id?",
            line.quantity AS "quantity?"
        FROM unnest($1::uuid[]) AS owner (id)
        CROSS JOIN LATERAL (
            SELECT orders.id, orders.owner_id, orders.expires_at
            FROM orders
            WHERE orders.owner_id = owner.id
                AND orders.status = 'awaiting_payment'
                AND orders.expires_at > statement_timestamp()
            ORDER BY orders.expires_at
            LIMIT $3
        ) AS waiting
        LEFT JOIN LATERAL (
            SELECT order_lines.variant_id, order_lines.quantity
            FROM order_lines
            WHERE order_lines.order_id = waiting.id AND order_lines.variant_id = ANY($2)
            LIMIT 50
        ) AS line ON true
        "#,
        &owners,
        &variants,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Waiting {
            owner_id: row.owner_id,
            order_id: row.id,
            ends_in_ms: row.ends_in_ms,
            line: row.variant_id.zip(row.quantity),
        })
        .collect())
}

/// An order as it stands under its lock.
#[derive(Debug, Clone, Copy)]
pub struct Locked {
    pub id: OrderId,
    pub status: Status,
}

/// Locks the owner's order, or one that the owner took over from a guest; `None` where they have no such
/// order.
pub async fn lock_owned(
    tx: &mut PgConnection,
    id: OrderId,
    owner_id: OwnerId,
) -> sqlx::Result<Option<Locked>> {
    let row = sqlx::query!(
        r#"
        SELECT id, status
        FROM orders
        WHERE id = $1 AND (owner_id = $2 OR adopted_by = $2)
        FOR NO KEY UPDATE
        "#,
        id as OrderId,
        owner_id.uuid(),
    )
    .fetch_optional(tx)
    .await?;
    row.map(|row| Ok(Locked { id: row.id, status: status(&row.status)? })).transpose()
}

/// Locks up to `limit` orders whose deadline has passed, the oldest deadline first.
///
/// Orders that somebody else has locked are left out: whoever has them decides their fate.
pub async fn lock_overdue(tx: &mut PgConnection, limit: i64) -> sqlx::Result<Vec<OrderId>> {
    sqlx::query_scalar!(
        r#"
        SELECT id
        FROM orders
        WHERE status = 'awaiting_payment' AND expires_at <= statement_timestamp()
        ORDER BY expires_at
        LIMIT $1
        FOR NO KEY UPDATE SKIP LOCKED
        "#,
        limit,
    )
    .fetch_all(tx)
    .await
}

/// What a payment needs to know of its order, as it stands under its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedForPayment {
    pub id: OrderId,
    pub owner_id: OwnerId,
    pub status: Status,
    pub total: Money,
    pub expires_at: OffsetDateTime,
    /// Whether the deadline was moved already.
    pub extended: bool,
}

/// Locks those of the orders that exist, in the order of their ids.
pub async fn lock(tx: &mut PgConnection, ids: &[OrderId]) -> sqlx::Result<Vec<LockedForPayment>> {
    let rows = sqlx::query!(
        r#"
        SELECT id, owner_id, status, total_minor, currency, expires_at, extended_at
        FROM orders
        WHERE id = ANY($1)
        ORDER BY id
        FOR NO KEY UPDATE
        "#,
        &uuids(ids),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(LockedForPayment {
                id: row.id,
                owner_id: row.owner_id,
                status: status(&row.status)?,
                total: money(row.total_minor, &row.currency)?,
                expires_at: row.expires_at,
                extended: row.extended_at.is_some(),
            })
        })
        .collect()
}

/// A locked order's new deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    pub id: OrderId,
    pub expires_at: OffsetDateTime,
}

/// Moves the deadlines of the locked orders to `extension` from now, rounded up to a whole second
/// as when an order is placed, and returns those that moved.
///
/// A deadline moves once, and never nearer. The deadlines of the orders' holds are to move along.
pub async fn extend_deadlines(
    tx: &mut PgConnection,
    ids: &[OrderId],
    extension: Duration,
) -> sqlx::Result<Vec<Extended>> {
    let extension_ms = i64::try_from(extension.as_millis()).unwrap_or(i64::MAX);
    sqlx::query_as!(
        Extended,
        r#"
        UPDATE orders
        SET expires_at = extension.expires_at, extended_at = now()
        FROM (
            SELECT
                to_timestamp(ceil(extract(epoch FROM now() + $2::bigint * interval '1 millisecond')))
                    AS expires_at
        ) AS extension
        WHERE orders.id = ANY($1)
            AND orders.extended_at IS NULL
            AND orders.expires_at < extension.expires_at
        RETURNING orders.id, orders.expires_at
        "#,
        &uuids(ids),
        extension_ms,
    )
    .fetch_all(tx)
    .await
}

/// Something to be noted on an order's timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub order_id: OrderId,
    pub note: Note,
    pub detail: Value,
}

/// Notes the entries, which move no order, on the timelines of the locked orders.
///
/// What a timeline says already is not said again, so that the same news twice is one entry.
pub async fn record_events(tx: &mut PgConnection, entries: &[Entry]) -> sqlx::Result<()> {
    let order_ids: Vec<Uuid> = entries.iter().map(|entry| entry.order_id.uuid()).collect();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry.note.name()).collect();
    let details: Vec<_> = entries.iter().map(|entry| sqlx::types::Json(&entry.detail)).collect();
    sqlx::query!(
        r#"
        INSERT INTO order_events (order_id, sequence, kind, status, detail)
        SELECT
            orders.id,
            (SELECT max(sequence) FROM order_events WHERE order_id = orders.id)
                + row_number() OVER (PARTITION BY orders.id ORDER BY entry.place)::integer,
            entry.kind,
            orders.status,
            entry.detail
        FROM unnest($1::uuid[], $2::text[], $3::jsonb[])
            WITH ORDINALITY AS entry (order_id, kind, detail, place)
        JOIN orders ON orders.id = entry.order_id
        WHERE NOT EXISTS (
            SELECT
            FROM order_events AS known
            WHERE known.order_id = entry.order_id
                AND known.kind = entry.kind
                AND known.detail = entry.detail
        )
        "#,
        &order_ids,
        &kinds as &[&str],
        &details as &[sqlx::types::Json<&Value>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Moves the locked orders to `status` and notes the event, with one detail each, on their timelines.
pub async fn transition(
    tx: &mut PgConnection,
    ids: &[OrderId],
    event: Event,
    status: Status,
    details: &[Value],
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        WITH moved AS (
            UPDATE orders
            SET status = $4
            FROM unnest($1::uuid[], $2::jsonb[]) AS change (id, detail)
            WHERE orders.id = change.id
            RETURNING orders.id, change.detail
        )
        INSERT INTO order_events (order_id, sequence, kind, status, detail)
        SELECT
            moved.id,
            1 + (SELECT max(sequence) FROM order_events WHERE order_id = moved.id),
            $3,
            $4,
            moved.detail
        FROM moved
        "#,
        &uuids(ids),
        details,
        event.name(),
        status.name(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What may change about an order after it was placed, and how far off its deadline is.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    pub id: OrderId,
    pub status: Status,
    pub expires_at: OffsetDateTime,
    pub expires_in_ms: i64,
}

/// Where the orders stand now.
pub async fn standings(db: impl PgExecutor<'_>, ids: &[OrderId]) -> sqlx::Result<Vec<Standing>> {
    let rows = sqlx::query!(
        r#"
        SELECT
            id,
            status,
            expires_at,
            floor(extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint
                AS "expires_in_ms!"
        FROM orders
        WHERE id = ANY($1)
        "#,
        &uuids(ids),
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Standing {
                id: row.id,
                status: status(&row.status)?,
                expires_at: row.expires_at,
                expires_in_ms: row.expires_in_ms,
            })
        })
        .collect()
}

/// An order's row as it is stored.
#[derive(Debug, Clone)]
pub(super) struct OrderRow {
    pub(super) id: OrderId,
    pub(super) number: String,
    pub(super) status: String,
    pub(super) email: String,
    pub(super) shipping_address: Value,
    pub(super) currency: String,
    pub(super) subtotal_minor: i64,
    pub(super) discount_minor: i64,
    pub(super) shipping_minor: i64,
    pub(super) tax_minor: i64,
    pub(super) total_minor: i64,
    pub(super) placed_at: OffsetDateTime,
    pub(super) expires_at: OffsetDateTime,
    pub(super) expires_in_ms: i64,
    pub(super) is_erased: bool,
}

/// The order, if it is the owner's or was taken over by them; whoever's it is where no owner is named.
pub(super) async fn find(
    db: impl PgExecutor<'_>,
    id: OrderId,
    owner_id: Option<OwnerId>,
) -> sqlx::Result<Option<OrderRow>> {
    sqlx::query_as!(
        OrderRow,
        r#"
        SELECT
            id, number, status, email, shipping_address, currency, subtotal_minor, discount_minor,
            shipping_minor, tax_minor, total_minor, placed_at, expires_at,
            floor(extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint
                AS "expires_in_ms!",
            erased_at IS NOT NULL AS "is_erased!"
        FROM orders
        WHERE id = $1 AND ($2::uuid IS NULL OR owner_id = $2 OR adopted_by = $2)
        "#,
        id as OrderId,
        owner_id.map(OwnerId::uuid),
    )
    .fetch_optional(db)
    .await
}

/// The orders placed before `before` that are the owner's or were taken over by them, the newest first.
///
/// Each kind is read by its own index, no further than the page goes.
pub(super) async fn list_owned(
    db: impl PgExecutor<'_>,
    owner_id: OwnerId,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<OrderRow>> {
    sqlx::query_as!(
        OrderRow,
        r#"
        SELECT
            id, number, status, email, shipping_address, currency, subtotal_minor, discount_minor,
            shipping_minor, tax_minor, total_minor, placed_at, expires_at,
            floor(extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint
                AS "expires_in_ms!",
            erased_at IS NOT NULL AS "is_erased!"
        FROM orders
        WHERE id IN (
            (
                SELECT id
                FROM orders
                WHERE owner_id = $1 AND ($2::uuid IS NULL OR id < $2)
                ORDER BY id DESC
                LIMIT $3
            )
            UNION ALL
            (
                SELECT id
                FROM orders
                WHERE adopted_by = $1 AND ($2::uuid IS NULL OR id < $2)
                ORDER BY id DESC
                LIMIT $3
            )
        )
        ORDER BY id DESC
        LIMIT $3
        "#,
        owner_id.uuid(),
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Where the e-mail address of an order was that its shopper had erased: nobody gets mail there (RFC 6761).
pub const ERASED_EMAIL: &str = "erased@erased.invalid";

/// Takes the shopper out of the locked orders: what is left of the person is the country, for its tax.
pub async fn erase(tx: impl PgExecutor<'_>, ids: &[OrderId]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        UPDATE orders
        SET email = $2,
            shipping_address = CASE
                WHEN shipping_address ? 'country'
                    THEN jsonb_build_object('country', shipping_address -> 'country')
                ELSE '{}'::jsonb
            END,
            erased_at = now()
        WHERE id = ANY($1) AND erased_at IS NULL
        "#,
        &uuids(ids),
        ERASED_EMAIL,
    )
    .execute(tx)
    .await?;
    Ok(())
}

#[derive(Debug, Clone)]
pub(super) struct LineRow {
    pub(super) order_id: OrderId,
    pub(super) variant_id: VariantId,
    pub(super) sku: String,
    pub(super) title: String,
    pub(super) quantity: i64,
    pub(super) unit_price_minor: i64,
}

/// The lines of the orders, in their order. At most 50 an order, as the checkout allows no more.
pub(super) async fn lines(
    db: impl PgExecutor<'_>,
    order_ids: &[OrderId],
) -> sqlx::Result<Vec<LineRow>> {
    sqlx::query_as!(
        LineRow,
        r#"
        SELECT order_id, variant_id, sku, title, quantity, unit_price_minor
        FROM order_lines
        WHERE order_id = ANY($1)
        ORDER BY order_id, position
        "#,
        &uuids(order_ids),
    )
    .fetch_all(db)
    .await
}

/// The order's timeline, the oldest entry first.
pub(super) async fn timeline(
    db: impl PgExecutor<'_>,
    id: OrderId,
) -> sqlx::Result<Vec<super::TimelineEntry>> {
    sqlx::query_as!(
        super::TimelineEntry,
        r#"
        SELECT kind, status, detail, recorded_at
        FROM order_events
        WHERE order_id = $1
        ORDER BY sequence
        LIMIT 1000
        "#,
        id as OrderId,
    )
    .fetch_all(db)
    .await
}

fn status(name: &str) -> sqlx::Result<Status> {
    name.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn money(minor: i64, currency: &str) -> sqlx::Result<Money> {
    currency
        .parse()
        .and_then(|currency| Money::new(minor, currency))
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn uuids(ids: &[OrderId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.uuid()).collect()
}

/// How far off the second is by the database's clock, in milliseconds; negative when it has passed.
pub async fn milliseconds_until(db: impl PgExecutor<'_>, epoch_second: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"
        SELECT ceil(($1::bigint - extract(epoch FROM clock_timestamp())) * 1000)::bigint AS "ms!"
        "#,
        epoch_second,
    )
    .fetch_one(db)
    .await
}
