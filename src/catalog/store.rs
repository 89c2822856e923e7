use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Product, Slug, Variant};
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
    sqlx::query_as!(
        Offer,
        r#"
        SELECT
            variant.id AS variant_id,
            variant.sku,
            products.title || ' · ' || variant.title AS "title!",
            prices.currency AS "currency?",
            prices.amount_minor AS "amount_minor?"
        FROM unnest($1::uuid[], $2::text[]) AS wanted (variant_id, currency)
        CROSS JOIN LATERAL (
            SELECT variants.id, variants.product_id, variants.sku, variants.title
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
    .await
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
    sqlx::query_scalar!(
        r#"
        INSERT INTO variants (id, product_id, sku, title, position)
        SELECT id, $1, sku, title, position
        FROM unnest($2::uuid[], $3::text[], $4::text[]) WITH ORDINALITY
            AS new (id, sku, title, position)
        ORDER BY upper(sku)
        ON CONFLICT (upper(sku)) DO NOTHING
        RETURNING id
        "#,
        product.id as ProductId,
        &ids,
        &skus as &[&str],
        &titles as &[&str],
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

fn uuids<I: Copy + Into<Uuid>>(ids: &[I]) -> Vec<Uuid> {
    ids.iter().map(|&id| id.into()).collect()
}
