//! The database of one scenario: made anew, stocked, and in the end compared with what clients heard.

use std::str::FromStr;

use holdfast::ctl::privileges;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::{Outcome, news::Collected};

/// The database that every scenario makes anew on the server it is given.
const NAME: &str = "holdfast_bench";

/// What the processes are to the database, as in production.
const APP_ROLE: &str = "holdfast_bench_app";

/// What a SKU of the benchmark costs, in minor units of [`CURRENCY`].
pub(crate) const PRICE_MINOR: i64 = 1_999;
pub(crate) const CURRENCY: &str = "USD";

/// How many orders one question about them names.
const ORDERS_ASKED: usize = 20_000;

#[derive(Debug, Clone)]
pub(crate) struct Database {
    server: PgConnectOptions,
    app_password: String,
    pub(crate) pool: PgPool,
}

impl Database {
    /// Makes the database anew; what an earlier run left of it is gone.
    pub(crate) async fn create(server_url: &str) -> Outcome<Self> {
        let server = PgConnectOptions::from_str(server_url)?;
        let mut connection = PgConnection::connect_with(&server).await?;
        connection.execute("DROP DATABASE IF EXISTS holdfast_bench WITH (FORCE)").await?;
        connection.execute("CREATE DATABASE holdfast_bench").await?;
        let app_password = make_app_role(&mut connection).await?;
        connection.close().await?;

        let pool = connect(&server, 4).await?;
        holdfast::MIGRATOR.run(&pool).await?;
        privileges::grant(&pool, APP_ROLE).await?;
        Ok(Self { server, app_password, pool })
    }

    /// The address under which the shop's processes find the database.
    pub(crate) fn url(&self) -> String {
        let app = self.server.clone().username(APP_ROLE).password(&self.app_password);
        app.database(NAME).to_url_lossy().into()
    }

    /// A pool of its own, as large as a contestant needs it.
    pub(crate) async fn connect(&self, connections: u32) -> Outcome<PgPool> {
        connect(&self.server, connections).await
    }

    /// Removes the database, whoever is still connected to it.
    pub(crate) async fn remove(self) -> Outcome<()> {
        self.pool.close().await;
        let mut connection = PgConnection::connect_with(&self.server).await?;
        connection.execute("DROP DATABASE IF EXISTS holdfast_bench WITH (FORCE)").await?;
        Ok(())
    }

    /// Lets the phase that begins now pay for its own writes only.
    pub(crate) async fn settle(&self) {
        // Not every user may; then phases are a little less alike.
        let _ = self.pool.execute("CHECKPOINT").await;
    }

    /// Puts so many products of one SKU each on sale, and returns their variants' ids.
    pub(crate) async fn stock_skus(&self, skus: usize, units: i64) -> Outcome<Vec<Uuid>> {
        let mut tx = self.pool.begin().await?;
        let ids = || (0..skus).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
        let (products, variants, entries) = (ids(), ids(), ids());
        insert_products(&mut tx, &products).await?;
        insert_variants(&mut tx, &variants, &products).await?;
        insert_prices(&mut tx, &variants).await?;
        insert_stock(&mut tx, &variants, units).await?;
        insert_receipts(&mut tx, &entries, &variants, units).await?;
        tx.commit().await?;
        self.pool.execute("ANALYZE products, variants, prices, stock").await?;
        Ok(variants)
    }
}

/// Makes the processes' role, with a password that is good until the next run. Its name is a constant,
/// its password of digits and letters.
async fn make_app_role(connection: &mut PgConnection) -> Outcome<String> {
    let password = Uuid::new_v4().simple().to_string();
    let make = format!(
        "
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{APP_ROLE}') THEN
                CREATE ROLE {APP_ROLE} LOGIN;
            END IF;
        END $$;
        ALTER ROLE {APP_ROLE} PASSWORD '{password}'
        "
    );
    sqlx::raw_sql(AssertSqlSafe(make)).execute(connection).await?;
    Ok(password)
}

async fn connect(server: &PgConnectOptions, connections: u32) -> Outcome<PgPool> {
    let options = server.clone().database(NAME);
    Ok(PgPoolOptions::new().max_connections(connections).connect_with(options).await?)
}

impl Database {
    /// Under what the products that are on sale can be looked at.
    pub(crate) async fn slugs(&self) -> Outcome<Vec<String>> {
        let slugs = sqlx::query_scalar!(r#"SELECT slug FROM products ORDER BY id"#);
        Ok(slugs.fetch_all(&self.pool).await?)
    }
}

/// What the server promises about a commit, and who it is.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) version: String,
    /// A commit is answered when it is on disk.
    pub(crate) is_durable: bool,
}

impl Database {
    pub(crate) async fn server(&self) -> Outcome<Server> {
        let row = sqlx::query!(
            r#"
            SELECT
                current_setting('server_version') AS "version!",
                current_setting('fsync') = 'on'
                    AND current_setting('full_page_writes') = 'on'
                    AND current_setting('synchronous_commit') = 'on' AS "is_durable!"
            "#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Server { version: row.version, is_durable: row.is_durable })
    }
}

async fn insert_products(tx: &mut PgConnection, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO products (id, slug, title)
        SELECT id, 'bench-' || id, 'A product of the benchmark'
        FROM unnest($1::uuid[]) AS product (id)
        "#,
        ids,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_variants(
    tx: &mut PgConnection,
    ids: &[Uuid],
    products: &[Uuid],
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO variants (id, product_id, sku, title, position)
        SELECT id, product_id, 'BENCH-' || id, 'A variant of it', 1
        FROM unnest($1::uuid[], $2::uuid[]) AS variant (id, product_id)
        "#,
        ids,
        products,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_prices(tx: &mut PgConnection, variants: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO prices (variant_id, currency, amount_minor)
        SELECT id, $2, $3
        FROM unnest($1::uuid[]) AS variant (id)
        "#,
        variants,
        CURRENCY,
        PRICE_MINOR,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_stock(tx: &mut PgConnection, variants: &[Uuid], units: i64) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO stock (variant_id, on_hand)
        SELECT id, $2
        FROM unnest($1::uuid[]) AS variant (id)
        "#,
        variants,
        units,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn insert_receipts(
    tx: &mut PgConnection,
    ids: &[Uuid],
    variants: &[Uuid],
    units: i64,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO stock_ledger
            (id, variant_id, from_account, to_account, quantity, cause, cause_id)
        SELECT id, variant_id, 'supplier', 'available', $3, 'receipt', id
        FROM unnest($1::uuid[], $2::uuid[]) AS receipt (id, variant_id)
        "#,
        ids,
        variants,
        units,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The counters of one variant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stock {
    pub(crate) on_hand: i64,
    pub(crate) reserved: i64,
}

/// What one contestant's orders left in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(crate) table: String,
    pub(crate) rows: i64,
    /// In characters, written as text: what a row takes on disk depends on what was there before.
    pub(crate) size: i64,
}

impl Database {
    /// How many of the orders exist.
    pub(crate) async fn count_existing(&self, ids: &[Uuid]) -> Outcome<usize> {
        let mut existing = 0;
        for ids in ids.chunks(ORDERS_ASKED) {
            let found = sqlx::query_scalar!(
                r#"
                SELECT count(*) AS "found!"
                FROM orders
                WHERE id = ANY($1)
                "#,
                ids,
            )
            .fetch_one(&self.pool)
            .await?;
            existing += usize::try_from(found)?;
        }
        Ok(existing)
    }

    /// How many orders have a line of one of the variants.
    pub(crate) async fn count_orders(&self, variants: &[Uuid]) -> Outcome<usize> {
        let orders = sqlx::query_scalar!(
            r#"
            SELECT count(DISTINCT order_id) AS "orders!"
            FROM order_lines
            WHERE variant_id = ANY($1)
            "#,
            variants,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(orders)?)
    }

    /// The counters of the variants, in their order.
    pub(crate) async fn stock(&self, variants: &[Uuid]) -> Outcome<Vec<Stock>> {
        let stock = sqlx::query_as!(
            Stock,
            r#"
            SELECT on_hand, reserved
            FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (variant_id, place)
            JOIN stock USING (variant_id)
            ORDER BY place
            "#,
            variants,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(stock)
    }

    /// The rows that belong to the orders of one variant, table by table.
    pub(crate) async fn footprints(&self, variant: Uuid) -> Outcome<Vec<Footprint>> {
        let footprints = sqlx::query_as!(
            Footprint,
            r#"
            WITH placed AS (
                SELECT DISTINCT order_id FROM order_lines WHERE variant_id = $1
            ), written AS (
                SELECT 'orders' AS name, length(row::text) AS size
                FROM placed JOIN orders AS row ON row.id = order_id
                UNION ALL
                SELECT 'order_lines', length(row::text)
                FROM placed JOIN order_lines AS row USING (order_id)
                UNION ALL
                SELECT 'order_events', length(row::text)
                FROM placed JOIN order_events AS row USING (order_id)
                UNION ALL
                SELECT 'holds', length(row::text)
                FROM placed JOIN holds AS row USING (order_id)
                UNION ALL
                SELECT 'stock_ledger', length(row::text)
                FROM placed JOIN stock_ledger AS row ON row.cause_id = order_id
                UNION ALL
                SELECT 'idempotency_keys', length(row::text)
                FROM placed JOIN idempotency_keys AS row ON row.subject_id = order_id
                UNION ALL
                SELECT 'job_ledger', length(row::text)
                FROM placed JOIN job_ledger AS row ON row.payload ->> 'order_id' = order_id::text
            )
            SELECT name AS "table!", count(*) AS "rows!", sum(size) AS "size!"
            FROM written
            GROUP BY name
            ORDER BY name
            "#,
            variant,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(footprints)
    }
}

/// How many orders of one deadline waited at one moment, though it had passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) deadline_s: i64,
    pub(crate) orders: i64,
}

impl Database {
    /// The database's time in milliseconds since 1970.
    pub(crate) async fn now_ms(&self) -> Outcome<i64> {
        let now_ms = sqlx::query_scalar!(
            r#"
            SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "now_ms!"
            "#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(now_ms)
    }

    /// The orders that still wait though their deadline has passed, and a moment at which this was
    /// so or had been so: whoever is missing was released before it.
    pub(crate) async fn overdue(&self) -> Outcome<(i64, Vec<Overdue>)> {
        let rows = sqlx::query!(
            r#"
            SELECT
                ceil(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS "now_ms!",
                deadline_s AS "deadline_s?",
                orders AS "orders?"
            FROM (VALUES (1)) AS always
            LEFT JOIN (
                SELECT extract(epoch FROM expires_at)::bigint AS deadline_s, count(*) AS orders
                FROM orders
                WHERE status = 'awaiting_payment' AND expires_at <= statement_timestamp()
                GROUP BY expires_at
            ) AS overdue ON true
            "#,
        )
        .fetch_all(&self.pool)
        .await?;
        let now_ms = rows.iter().map(|row| row.now_ms).max().unwrap_or(0);
        let overdue = rows
            .iter()
            .filter_map(|row| Some(Overdue { deadline_s: row.deadline_s?, orders: row.orders? }))
            .collect();
        Ok((now_ms, overdue))
    }

    /// How many orders were placed for each deadline.
    pub(crate) async fn deadlines(&self) -> Outcome<Vec<Overdue>> {
        let deadlines = sqlx::query_as!(
            Overdue,
            r#"
            SELECT extract(epoch FROM expires_at)::bigint AS "deadline_s!", count(*) AS "orders!"
            FROM orders
            GROUP BY expires_at
            "#,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(deadlines)
    }

    /// How many orders wait for their payment.
    pub(crate) async fn count_waiting(&self) -> Outcome<i64> {
        let waiting = sqlx::query_scalar!(
            r#"
            SELECT count(*) AS "waiting!"
            FROM orders
            WHERE status = 'awaiting_payment'
            "#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(waiting)
    }
}

/// How long settled webhooks had waited, in milliseconds: the database's clock at the beginning of both
/// transactions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Database {
    /// Gives every order that has none an attempt to pay that Stripe knows, and returns these.
    pub(crate) async fn open_payments(&self) -> Outcome<Vec<Collected>> {
        let payments = sqlx::query_as!(
            Collected,
            r#"
            INSERT INTO payments
                (id, order_id, provider, livemode, state, amount_minor, currency, provider_ref)
            SELECT
                gen_random_uuid(), id, 'stripe', false, 'open', total_minor, currency,
                'pi_' || replace(id::text, '-', '')
            FROM orders
            WHERE NOT EXISTS (SELECT FROM payments WHERE order_id = orders.id)
            RETURNING id AS "payment_id: Uuid", order_id AS "order_id: Uuid", provider_ref AS "provider_ref!"
            "#,
        )
        .fetch_all(&self.pool)
        .await?;
        self.pool.execute("ANALYZE orders, payments, holds").await?;
        Ok(payments)
    }

    /// How many webhooks wait to be acted on.
    pub(crate) async fn count_new_events(&self) -> Outcome<usize> {
        let new = sqlx::query_scalar!(
            r#"
            SELECT count(*) AS "new!"
            FROM provider_events
            WHERE state = 'new'
            "#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(new)?)
    }

    /// How many webhooks whose ids begin so are in the inbox.
    pub(crate) async fn count_events(&self, prefix: &str) -> Outcome<usize> {
        let events = sqlx::query_scalar!(
            r#"
            SELECT count(*) AS "events!"
            FROM provider_events
            WHERE starts_with(event_id, $1)
            "#,
            prefix,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(events)?)
    }

    /// How many of the orders are paid.
    pub(crate) async fn count_paid(&self, orders: &[Uuid]) -> Outcome<usize> {
        let paid = sqlx::query_scalar!(
            r#"
            SELECT count(*) AS "paid!"
            FROM orders
            WHERE id = ANY($1) AND status = 'paid'
            "#,
            orders,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(paid)?)
    }

    /// How much money is on record, by the number of its parts.
    pub(crate) async fn count_captures(&self) -> Outcome<usize> {
        let captures = sqlx::query_scalar!(
            r#"
            SELECT count(*) AS "captures!"
            FROM captures
            "#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(usize::try_from(captures)?)
    }

    /// How long the webhooks whose ids begin so waited until they were acted on.
    pub(crate) async fn waits(&self, prefix: &str) -> Outcome<Waits> {
        let waits = sqlx::query_as!(
            Waits,
            r#"
            SELECT
                coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY waited), 0) AS "p50_ms!",
                coalesce(percentile_disc(0.99) WITHIN GROUP (ORDER BY waited), 0) AS "p99_ms!"
            FROM (
                SELECT (extract(epoch FROM finished_at - received_at) * 1000)::float8 AS waited
                FROM provider_events
                WHERE starts_with(event_id, $1) AND state = 'done'
            ) AS done
            "#,
            prefix,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(waits)
    }
}
