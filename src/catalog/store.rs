use sqlx::PgExecutor;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Product, PurchaseLimit, Sale, Slug, Variant, sale::Changed};
use crate::kernel::{ProductId, VariantId};

/// What a variant is called on an order's line, and what it costs in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub variant_id: VariantId,
    pub sku: String,
    /// The product's title, followed by the variant's.
    pub title: String,
    /// The currency that was asked for, or `None` if the variant has no price in it.
    pub currency: Option<String>,
    pub amount_minor: Option<i64>,
    pub sale: Sale,
    /// When the transaction began, by the clock that judges the sale.
    pub asked_at: OffsetDateTime,
}

/// Reads the offer of each pair of variant and currency; of a variant that does not exist there is none.
///
/// The two slices have one length. Every checkout asks, so it is one statement over primary keys:
/// `LATERAL` with `LIMIT` keeps the planner from reading all variants when it is asked for many.
pub async fn offers(
    db: impl PgExecutor<'_>,
    variant_ids: &[VariantId],
    currencies: &[&str],
) -> sqlx::Result<Vec<Offer>> {
    let rows = sqlx::query!(
        r#"
        SELECT
            variant.id AS variant_id,
            variant.sku,
            products.title || ' · ' || variant.title AS "title!",
            prices.currency AS "currency?",
            prices.amount_minor AS "amount_minor?",
            variant.opens_at,
            variant.closes_at,
            variant.purchase_limit,
            variant.purchase_window_seconds,
            now() AS "asked_at!"
        FROM unnest($1::uuid[], $2::text[]) AS wanted (variant_id, currency)
        CROSS JOIN LATERAL (
            SELECT
                variants.id, variants.product_id, variants.sku, variants.title, variants.opens_at,
                variants.closes_at, variants.purchase_limit, variants.purchase_window_seconds
            FROM variants
            WHERE variants.id = wanted.variant_id
            LIMIT 1
        ) AS variant
        JOIN products ON products.id = variant.product_id
        LEFT JOIN prices
            ON prices.variant_id = wanted.variant_id AND prices.currency = wanted.currency
        "#,
        &uuids(variant_ids),
        currencies as &[&str],
    )
    .fetch_all(db)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Offer {
            variant_id: row.variant_id,
            sku: row.sku,
            title: row.title,
            currency: row.currency,
            amount_minor: row.amount_minor,
            sale: Sale {
                opens_at: row.opens_at,
                closes_at: row.closes_at,
                limit: limit(row.purchase_limit, row.purchase_window_seconds),
            },
            asked_at: row.asked_at,
        })
        .collect())
}

fn limit(units: Option<i64>, window_seconds: Option<i64>) -> Option<PurchaseLimit> {
    Some(PurchaseLimit { units: units?, window_seconds })
}

pub(super) struct ProductRow {
    pub(super) id: ProductId,
    pub(super) slug: String,
    pub(super) title: String,
    pub(super) description: String,
}

/// A variant with one of its prices, if it has any.
pub(super) struct VariantRow {
    pub(super) id: VariantId,
    pub(super) product_id: ProductId,
    pub(super) sku: String,
    pub(super) title: String,
    pub(super) currency: Option<String>,
    pub(super) amount_minor: Option<i64>,
    opens_at: Option<OffsetDateTime>,
    closes_at: Option<OffsetDateTime>,
    purchase_limit: Option<i64>,
    purchase_window_seconds: Option<i64>,
}

impl VariantRow {
    pub(super) fn sale(&self) -> Sale {
        Sale {
            opens_at: self.opens_at,
            closes_at: self.closes_at,
            limit: limit(self.purchase_limit, self.purchase_window_seconds),
        }
    }
}

/// Ids grow with time, so the newest come first.
pub(super) async fn list(
    db: impl PgExecutor<'_>,
    before: Option<ProductId>,
    limit: i64,
) -> sqlx::Result<Vec<ProductRow>> {
    sqlx::query_as!(
        ProductRow,
        r#"
        SELECT id, slug, title, description
        FROM products
        WHERE $1::uuid IS NULL OR id < $1
        ORDER BY id DESC
        LIMIT $2
        "#,
        before.map(ProductId::uuid),
        limit,
    )
    .fetch_all(db)
    .await
}

pub(super) async fn find_by_slug(
    db: impl PgExecutor<'_>,
    slug: &Slug,
) -> sqlx::Result<Option<ProductRow>> {
    sqlx::query_as!(
        ProductRow,
        "SELECT id, slug, title, description FROM products WHERE slug = $1",
        slug.as_str(),
    )
    .fetch_optional(db)
    .await
}

/// The variants of the products with their prices, in the order of their positions and currencies.
///
/// Bounded by the products' number: each has at most [`VARIANTS_MAX`](super::NewProduct::VARIANTS_MAX).
pub(super) async fn variants(
    db: impl PgExecutor<'_>,
    product_ids: &[ProductId],
) -> sqlx::Result<Vec<VariantRow>> {
    sqlx::query_as!(
        VariantRow,
        r#"
        SELECT
            variants.id,
            variants.product_id,
            variants.sku,
            variants.title,
            variants.opens_at,
            variants.closes_at,
            variants.purchase_limit,
            variants.purchase_window_seconds,
            prices.currency AS "currency?",
            prices.amount_minor AS "amount_minor?"
        FROM variants
        LEFT JOIN prices ON prices.variant_id = variants.id
        WHERE variants.product_id = ANY($1)
        ORDER BY variants.product_id, variants.position, prices.currency
        "#,
        &uuids(product_ids),
    )
    .fetch_all(db)
    .await
}

/// Adds the product alone; `false` if another has its slug.
pub(super) async fn insert_product(
    db: impl PgExecutor<'_>,
    product: &Product,
) -> sqlx::Result<bool> {
    let inserted = sqlx::query!(
        r#"
        INSERT INTO products (id, slug, title, description)
        VALUES ($1, $2, $3, $4)
        ON CONFLICT (slug) DO NOTHING
        "#,
        product.id as ProductId,
        product.slug,
        product.title,
        product.description,
    )
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Adds the product's variants, except those whose SKU another has; returns whom it added.
///
/// In the order of their SKUs, so that two products that want the same ones cannot deadlock.
pub(super) async fn insert_variants(
    db: impl PgExecutor<'_>,
    product: &Product,
) -> sqlx::Result<Vec<VariantId>> {
    let ids: Vec<Uuid> = product.variants.iter().map(|variant| variant.id.uuid()).collect();
    let skus: Vec<&str> = product.variants.iter().map(|variant| &*variant.sku).collect();
    let titles: Vec<&str> = product.variants.iter().map(|variant| &*variant.title).collect();
    let sales = || product.variants.iter().map(|variant| variant.sale);
    let limits = || sales().map(|sale| sale.limit);
    let opens: Vec<_> = sales().map(|sale| sale.opens_at).collect();
    let closes: Vec<_> = sales().map(|sale| sale.closes_at).collect();
    let units: Vec<_> = limits().map(|limit| Some(limit?.units)).collect();
    let windows: Vec<_> = limits().map(|limit| limit?.window_seconds).collect();
    sqlx::query_scalar!(
        r#"
        INSERT INTO variants (
            id, product_id, sku, title, opens_at, closes_at, purchase_limit,
            purchase_window_seconds, position
        )
        SELECT id, $1, sku, title, opens_at, closes_at, units, window_seconds, position
        FROM unnest(
            $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
            $7::bigint[], $8::bigint[]
        ) WITH ORDINALITY
            AS new (id, sku, title, opens_at, closes_at, units, window_seconds, position)
        ORDER BY upper(sku)
        ON CONFLICT (upper(sku)) DO NOTHING
        RETURNING id
        "#,
        product.id as ProductId,
        &ids,
        &skus as &[&str],
        &titles as &[&str],
        &opens as &[Option<OffsetDateTime>],
        &closes as &[Option<OffsetDateTime>],
        &units as &[Option<i64>],
        &windows as &[Option<i64>],
    )
    .fetch_all(db)
    .await
}

pub(super) async fn insert_prices(
    db: impl PgExecutor<'_>,
    variants: &[Variant],
) -> sqlx::Result<()> {
    let (mut ids, mut currencies, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
    for variant in variants {
        for price in &variant.prices {
            ids.push(variant.id.uuid());
            currencies.push(price.currency().code());
            amounts.push(price.minor());
        }
    }
    sqlx::query!(
        r#"
        INSERT INTO prices (variant_id, currency, amount_minor)
        SELECT *
        FROM unnest($1::uuid[], $2::text[], $3::bigint[])
        "#,
        &ids,
        &currencies as &[&str],
        &amounts,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Gives the variant's sale these rules and returns them, with those that they replaced; `None`
/// where there is no such variant.
pub(super) async fn set_sale(
    tx: impl PgExecutor<'_>,
    variant_id: VariantId,
    sale: &Sale,
) -> sqlx::Result<Option<Changed>> {
    let row = sqlx::query!(
        r#"
        UPDATE variants
        SET
            opens_at = $2,
            closes_at = $3,
            purchase_limit = $4,
            purchase_window_seconds = $5,
            sale_set_at = now()
        FROM (
            SELECT id, opens_at, closes_at, purchase_limit, purchase_window_seconds
            FROM variants
            WHERE id = $1
            FOR NO KEY UPDATE
        ) AS former
        WHERE variants.id = former.id
        RETURNING
            former.opens_at AS former_opens_at,
            former.closes_at AS former_closes_at,
            former.purchase_limit AS former_limit,
            former.purchase_window_seconds AS former_window_seconds,
            variants.opens_at,
            variants.closes_at,
            variants.purchase_limit,
            variants.purchase_window_seconds
        "#,
        variant_id as VariantId,
        sale.opens_at,
        sale.closes_at,
        sale.limit.map(|limit| limit.units),
        sale.limit.and_then(|limit| limit.window_seconds),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Changed {
        before: Sale {
            opens_at: row.former_opens_at,
            closes_at: row.former_closes_at,
            limit: limit(row.former_limit, row.former_window_seconds),
        },
        after: Sale {
            opens_at: row.opens_at,
            closes_at: row.closes_at,
            limit: limit(row.purchase_limit, row.purchase_window_seconds),
        },
    }))
}

fn uuids<I: Copy + Into<Uuid>>(ids: &[I]) -> Vec<Uuid> {
    ids.iter().map(|&id| id.into()).collect()
}
