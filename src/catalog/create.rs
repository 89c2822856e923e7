use std::collections::HashSet;

use sqlx::PgPool;

use super::{CatalogError, NewProduct, Product, Variant, store};
use crate::{
    inventory,
    kernel::{ProductId, VariantId},
};

/// Adds a product with its variants, their prices and their empty stock, all or nothing.
pub async fn create_product(db: &PgPool, new: NewProduct) -> Result<Product, CatalogError> {
    let product = Product::from(new);
    let variant_ids: Vec<_> = product.variants.iter().map(|variant| variant.id).collect();

    let mut tx = db.begin().await?;
    if !store::insert_product(&mut *tx, &product).await? {
        return Err(CatalogError::SlugTaken);
    }
    let inserted: HashSet<_> =
        store::insert_variants(&mut *tx, &product).await?.into_iter().collect();
    let taken: Vec<_> = (0..).zip(&variant_ids).filter(|(_, id)| !inserted.contains(id)).collect();
    if !taken.is_empty() {
        return Err(CatalogError::SkuTaken(taken.into_iter().map(|(place, _)| place).collect()));
    }
    store::insert_prices(&mut *tx, &product.variants).await?;
    inventory::store::open(&mut *tx, &variant_ids).await?;
    tx.commit().await?;

    Ok(product)
}

impl From<NewProduct> for Product {
    /// Gives the product and its variants their ids.
    fn from(new: NewProduct) -> Self {
        let variants = new.variants.into_iter().map(|variant| {
            let mut prices = variant.prices;
            // As they are read later, so that the answer is the product's page already.
            prices.sort_by_key(|price| price.currency().code());
            Variant {
                id: VariantId::generate(),
                sku: variant.sku.as_str().to_owned(),
                title: variant.title.as_str().to_owned(),
                prices,
            }
        });
        Self {
            id: ProductId::generate(),
            slug: new.slug.as_str().to_owned(),
            title: new.title.as_str().to_owned(),
            description: new.description.as_str().to_owned(),
            variants: variants.collect(),
        }
    }
}
