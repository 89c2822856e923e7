use std::collections::HashMap;

use sqlx::PgPool;

use super::{
    CatalogError, Sale, Slug,
    store::{self, ProductRow, VariantRow},
};
use crate::kernel::{Currency, Money, ProductId, VariantId};

/// A product as anybody may see it.
#[derive(Debug, Clone)]
pub struct Product {
    pub id: ProductId,
    pub slug: String,
    pub title: String,
    pub description: String,
    /// In the order in which they were given.
    pub variants: Vec<Variant>,
}

/// What can be bought of a product.
#[derive(Debug, Clone)]
pub struct Variant {
    pub id: VariantId,
    pub sku: String,
    pub title: String,
    pub prices: Vec<Money>,
    pub sale: Sale,
}

/// Returns the product whose page has this address.
pub async fn find_product(db: &PgPool, slug: &Slug) -> Result<Product, CatalogError> {
    let row = store::find_by_slug(db, slug).await?.ok_or(CatalogError::NotFound)?;
    let variants = store::variants(db, &[row.id]).await?;
    product(row, variants)
}

/// Returns up to `limit` products that were added before `before`, the newest first.
pub async fn list_products(
    db: &PgPool,
    before: Option<ProductId>,
    limit: i64,
) -> Result<Vec<Product>, CatalogError> {
    let rows = store::list(db, before, limit).await?;
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let mut variants = HashMap::<ProductId, Vec<VariantRow>>::new();
    for row in store::variants(db, &ids).await? {
        variants.entry(row.product_id).or_default().push(row);
    }
    rows.into_iter()
        .map(|row| {
            let variants = variants.remove(&row.id).unwrap_or_default();
            product(row, variants)
        })
        .collect()
}

/// Puts a product together; `rows` has one row per price, those of a variant beside each other.
fn product(row: ProductRow, rows: Vec<VariantRow>) -> Result<Product, CatalogError> {
    let mut variants = Vec::<Variant>::new();
    for variant in rows {
        let price = price(&variant).map_err(|what| CatalogError::Unreadable(row.id, what))?;
        match variants.last_mut() {
            Some(last) if last.id == variant.id => last.prices.extend(price),
            Some(_) | None => variants.push(Variant {
                id: variant.id,
                sale: variant.sale(),
                sku: variant.sku,
                title: variant.title,
                prices: price.into_iter().collect(),
            }),
        }
    }
    Ok(Product {
        id: row.id,
        slug: row.slug,
        title: row.title,
        description: row.description,
        variants,
    })
}

fn price(row: &VariantRow) -> Result<Option<Money>, &'static str> {
    let (Some(currency), Some(minor)) = (&row.currency, row.amount_minor) else {
        return Ok(None);
    };
    let currency: Currency = currency.parse().map_err(|_| "currency")?;
    Money::new(minor, currency).map(Some).map_err(|_| "amount")
}
