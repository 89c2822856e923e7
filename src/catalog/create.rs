use std::collections::HashSet;

use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use super::{CatalogError, NewProduct, Product, Variant, store};
use crate::{
    audit, inventory,
    kernel::{ProductId, VariantId},
};

/// Adds a product with its variants, their prices and their empty stock, all or nothing, and notes in the
/// audit log who did it.
pub async fn create_product(
    db: &PgPool,
    new: NewProduct,
    actor: audit::Actor,
) -> Result<Product, CatalogError> {
    let product = Product::from(new);
    let mut tx = db.begin().await?;
    match write(&mut tx, &product, actor).await {
        Ok(()) => tx.commit().await?,
        Err(error) => {
            // Not left to the drop, which would keep the names taken for a moment after the answer.
            let _ = tx.rollback().await;
            return Err(error);
        }
    }
    Ok(product)
}

async fn write(
    tx: &mut PgConnection,
    product: &Product,
    actor: audit::Actor,
) -> Result<(), CatalogError> {
    let variant_ids: Vec<_> = product.variants.iter().map(|variant| variant.id).collect();
    if !store::insert_product(&mut *tx, product).await? {
        return Err(CatalogError::SlugTaken);
    }
    let inserted: HashSet<_> =
        store::insert_variants(&mut *tx, product).await?.into_iter().collect();
    let taken: Vec<_> = (0..).zip(&variant_ids).filter(|(_, id)| !inserted.contains(id)).collect();
    if !taken.is_empty() {
        return Err(CatalogError::SkuTaken(taken.into_iter().map(|(place, _)| place).collect()));
    }
    store::insert_prices(&mut *tx, &product.variants).await?;
    inventory::store::open(&mut *tx, &variant_ids).await?;
    audit::record(tx, &entry(product, actor)).await?;
    Ok(())
}

fn entry(product: &Product, actor: audit::Actor) -> audit::Entry {
    audit::Entry {
        actor_id: actor.id,
        action: "createProduct".to_owned(),
        subject: format!("product:{}", product.id),
        before: None,
        after: Some(json!({
            "slug": product.slug,
            "title": product.title,
            "variants": product.variants.iter().map(shown).collect::<Vec<_>>(),
        })),
        request_id: actor.request_id,
    }
}

fn shown(variant: &Variant) -> Value {
    let prices = variant.prices.iter();
    let prices: Vec<_> = prices
        .map(|price| json!({ "amount": price.minor(), "currency": price.currency().code() }))
        .collect();
    let sale = variant.sale.to_json();
    json!({ "id": variant.id.uuid(), "sku": variant.sku, "prices": prices, "sale": sale })
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
                sale: variant.sale,
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
