//! What the API's batches are compared with: one transaction an order, straight over SQL, as it is
//! written when nobody thinks of batches.
//!
//! It writes exactly the rows that the API writes, and is spared HTTP, JSON, tokens, signatures and
//! wake-ups.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast::{
    checkout::{Receipt, ReceiptLine},
    kernel::OrderId,
    orders::OrderNumber,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, PgPool, Postgres, pool::PoolConnection, types::Json};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    Outcome,
    database::{CURRENCY, PRICE_MINOR},
    load::{Measured, WARM_UP},
    news::News,
    shop::{EMAIL, address},
    statistics::{Latencies, microseconds, per_second},
};

/// How many orders are placed at once, each over a connection of its own.
pub(crate) const CONNECTIONS: u32 = 64;

#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) orders: usize,
    pub(crate) measured: Measured,
}

/// What each connection does, again and again.
#[derive(Debug, Clone)]
enum Deed {
    /// Places an order of one unit.
    Order { owner: Uuid, variant: Uuid },
    /// Receives a webhook.
    Receive { news: Arc<News> },
}

/// Places orders of one unit as fast as it can, until the window ends.
pub(crate) async fn run(pool: &PgPool, variant: Uuid, window: Duration) -> Outcome<Placed> {
    repeat(pool, window, || Deed::Order { owner: Uuid::now_v7(), variant }).await
}

/// Receives webhooks as fast as it can, until the window ends; `orders` is how many it received.
pub(crate) async fn receive(pool: &PgPool, news: News, window: Duration) -> Outcome<Placed> {
    let news = Arc::new(news);
    repeat(pool, window, || Deed::Receive { news: news.clone() }).await
}

async fn repeat(pool: &PgPool, window: Duration, deed: impl Fn() -> Deed) -> Outcome<Placed> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(pool.acquire().await?);
    }
    let open = Instant::now() + WARM_UP;
    let window = open..open + window;
    let mut clients = JoinSet::new();
    for (client, connection) in connections.into_iter().enumerate() {
        clients.spawn(act(connection, client, deed(), window.clone()));
    }
    let (mut orders, mut timed) = (0, Vec::new());
    while let Some(client) = clients.join_next().await {
        let part = client??;
        orders += part.orders;
        timed.extend(part.timed);
    }
    let per_second = per_second(timed.len(), window.end - window.start);
    Ok(Placed { orders, measured: Measured { per_second, latencies: Latencies::new(timed) } })
}

/// What one connection placed.
#[derive(Default)]
struct Part {
    orders: usize,
    /// The latencies, in microseconds, of what was placed in the window.
    timed: Vec<u32>,
}

/// Does one deed after the other, until the window ends.
async fn act(
    mut connection: PoolConnection<Postgres>,
    client: usize,
    deed: Deed,
    window: Range<Instant>,
) -> sqlx::Result<Part> {
    let mut part = Part::default();
    loop {
        let start = Instant::now();
        if start >= window.end {
            return Ok(part);
        }
        match &deed {
            Deed::Order { owner, variant } => place(&mut connection, *owner, *variant).await?,
            Deed::Receive { news } => {
                let event = part.orders * CONNECTIONS as usize + client;
                keep(&mut connection, news, event).await?;
            }
        }
        part.orders += 1;
        let now = Instant::now();
        if window.contains(&now) {
            part.timed.push(microseconds(now - start));
        }
    }
}

/// Keeps one webhook and promises to act on it, in one transaction.
async fn keep(connection: &mut PgConnection, news: &News, event: usize) -> sqlx::Result<()> {
    let body = news.body(event).unwrap_or_default();
    let id = Uuid::now_v7();
    let mut tx = connection.begin().await?;
    insert_event_of_provider(&mut tx, id, &news.event_id(event), body.as_bytes()).await?;
    insert_settling(&mut tx, id).await?;
    tx.commit().await
}

async fn insert_event_of_provider(
    tx: &mut PgConnection,
    id: Uuid,
    event_id: &str,
    body: &[u8],
) -> sqlx::Result<()> {
    let digest = Sha256::digest(body);
    sqlx::query!(
        r#"
        INSERT INTO provider_events (id, provider, event_id, body_sha256, kind, raw)
        VALUES ($1, 'stripe', $2, $3, 'payment_intent.succeeded', $4)
        ON CONFLICT DO NOTHING
        "#,
        id,
        event_id,
        digest.as_slice(),
        body,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_settling(tx: &mut PgConnection, event: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO job_ledger (id, kind, lane, payload, dedupe_key, run_at, pushes, next_push_at)
        VALUES (
            $1, 'checkout.settle-event', 'settling', $2, $3, now(), 1, now() + interval '5 seconds'
        )
        "#,
        Uuid::now_v7(),
        json!({ "v": 1, "event_id": event }),
        format!("settle-event:{event}"),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// An order of one unit.
struct NewOrder {
    id: Uuid,
    number: OrderNumber,
    owner: Uuid,
    key: String,
    variant: Uuid,
}

/// Places one order in one transaction, unless its key was used before.
async fn place(connection: &mut PgConnection, owner: Uuid, variant: Uuid) -> sqlx::Result<()> {
    let order = NewOrder {
        id: OrderId::generate().uuid(),
        number: OrderNumber::generate(),
        owner,
        key: Uuid::new_v4().simple().to_string(),
        variant,
    };
    let mut tx = connection.begin().await?;
    if is_key_used(&mut tx, &order).await? {
        return Ok(());
    }
    let offer = find_offer(&mut tx, variant).await?;
    let placed_at = insert_order(&mut tx, &order, offer.price_minor).await?;
    insert_line(&mut tx, &order, &offer).await?;
    insert_event(&mut tx, &order).await?;
    insert_movement(&mut tx, &order).await?;
    insert_key(&mut tx, &order, receipt(&order, offer, placed_at)).await?;
    insert_job(&mut tx, &order).await?;
    // Everybody waits for this row, so it is locked last. Only the hold comes after it: its foreign key
    // would lock the row for sharing, and an update of a row that others share is slow.
    if !reserve(&mut tx, variant).await? {
        return Err(sqlx::Error::RowNotFound);
    }
    insert_hold(&mut tx, &order).await?;
    tx.commit().await
}

async fn is_key_used(tx: &mut PgConnection, order: &NewOrder) -> sqlx::Result<bool> {
    let answer = sqlx::query_scalar!(
        r#"
        SELECT answer
        FROM idempotency_keys
        WHERE owner_id = $1 AND operation = 'placeOrder' AND key = $2
        "#,
        order.owner,
        order.key,
    )
    .fetch_optional(tx)
    .await?;
    Ok(answer.is_some())
}

struct Offer {
    sku: String,
    title: String,
    price_minor: i64,
}

async fn find_offer(tx: &mut PgConnection, variant: Uuid) -> sqlx::Result<Offer> {
    sqlx::query_as!(
        Offer,
        r#"
        SELECT
            variants.sku,
            products.title || ' · ' || variants.title AS "title!",
            prices.amount_minor AS price_minor
        FROM variants
        JOIN products ON products.id = variants.product_id
        JOIN prices ON prices.variant_id = variants.id AND prices.currency = $2
        WHERE variants.id = $1
        "#,
        variant,
        CURRENCY,
    )
    .fetch_one(tx)
    .await
}

/// Sets one unit aside; `false` when none is left.
async fn reserve(tx: &mut PgConnection, variant: Uuid) -> sqlx::Result<bool> {
    let reserved = sqlx::query!(
        r#"
        UPDATE stock
        SET reserved = reserved + 1
        WHERE variant_id = $1 AND on_hand - reserved >= 1
        "#,
        variant,
    )
    .execute(tx)
    .await?;
    Ok(reserved.rows_affected() == 1)
}

async fn insert_order(
    tx: &mut PgConnection,
    order: &NewOrder,
    price_minor: i64,
) -> sqlx::Result<OffsetDateTime> {
    sqlx::query_scalar!(
        r#"
        INSERT INTO orders (
            id, number, owner_id, email, shipping_address, currency, subtotal_minor, total_minor,
            expires_at
        )
        VALUES (
            $1, $2, $3, $4, $5, $6, $7, $7,
            to_timestamp(ceil(extract(epoch FROM now() + interval '15 minutes')))
        )
        RETURNING placed_at
        "#,
        order.id,
        order.number.as_str(),
        order.owner,
        EMAIL,
        address(),
        CURRENCY,
        price_minor,
    )
    .fetch_one(tx)
    .await
}

async fn insert_line(tx: &mut PgConnection, order: &NewOrder, offer: &Offer) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO order_lines
            (order_id, position, variant_id, sku, title, quantity, unit_price_minor)
        VALUES ($1, 1, $2, $3, $4, 1, $5)
        "#,
        order.id,
        order.variant,
        offer.sku,
        offer.title,
        offer.price_minor,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_event(tx: &mut PgConnection, order: &NewOrder) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO order_events (order_id, sequence, kind, status)
        VALUES ($1, 1, 'placed', 'awaiting_payment')
        "#,
        order.id,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_hold(tx: &mut PgConnection, order: &NewOrder) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO holds (order_id, variant_id, quantity, expires_at)
        VALUES ($1, $2, 1, to_timestamp(ceil(extract(epoch FROM now() + interval '15 minutes'))))
        "#,
        order.id,
        order.variant,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_movement(tx: &mut PgConnection, order: &NewOrder) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO stock_ledger
            (id, variant_id, from_account, to_account, quantity, cause, cause_id)
        VALUES ($1, $2, 'available', 'held', 1, 'order_placed', $3)
        "#,
        Uuid::now_v7(),
        order.variant,
        order.id,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_key(tx: &mut PgConnection, order: &NewOrder, receipt: Receipt) -> sqlx::Result<()> {
    // Any 32 bytes weigh as much as a SHA-256.
    let fingerprint = [order.id.into_bytes(), order.owner.into_bytes()].concat();
    sqlx::query!(
        r#"
        INSERT INTO idempotency_keys (owner_id, operation, key, fingerprint, subject_id, answer)
        VALUES ($1, 'placeOrder', $2, $3, $4, $5)
        "#,
        order.owner,
        order.key,
        fingerprint,
        order.id,
        Json(receipt) as Json<Receipt>,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_job(tx: &mut PgConnection, order: &NewOrder) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO job_ledger (id, kind, lane, payload, dedupe_key, run_at, pushes, next_push_at)
        VALUES (
            $1, 'notifications.send-order-received', 'mail', $2, $3, now(), 1,
            now() + interval '5 seconds'
        )
        "#,
        Uuid::now_v7(),
        json!({ "v": 1, "order_id": order.id }),
        format!("order-received:{}", order.id),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The answer that a repeat of the request would get.
fn receipt(order: &NewOrder, offer: Offer, placed_at: OffsetDateTime) -> Receipt {
    Receipt {
        order_id: order.id,
        number: order.number.to_string(),
        currency: CURRENCY.to_owned(),
        subtotal_minor: PRICE_MINOR,
        discount_minor: 0,
        shipping_minor: 0,
        tax_minor: 0,
        total_minor: PRICE_MINOR,
        lines: vec![ReceiptLine {
            variant_id: order.variant,
            sku: offer.sku,
            title: offer.title,
            quantity: 1,
            unit_price_minor: offer.price_minor,
        }],
        placed_at,
    }
}
