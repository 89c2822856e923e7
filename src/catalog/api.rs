//! The catalogue's endpoints.

mod sales;

use std::collections::HashSet;

use poem::http::Uri;
use poem_openapi::{
    ApiResponse, Object, OpenApi, Tags,
    param::{Header, Path, Query},
    payload::Json,
    types::ToJSON,
};
use uuid::Uuid;

use self::sales::SaleBody;
pub use self::sales::SalesApi;
use super::{
    CatalogError, Description, NewProduct, NewVariant, Product, Sku, Slug, Title, Variant,
    create_product, find_product, list_products,
};
use crate::{
    audit::Actor,
    context::Context,
    identity::Staff,
    kernel::{Detail, ProductId},
    web::{
        ETag, MoneyBody, Problem,
        page::{self, Limit},
        request_id,
    },
};

/// Names the list in cursors, with the version of its position.
const LIST: &str = "products.1";

/// How old a product may be shown: a price that has changed is noticed at the checkout, which
/// compares the total that the shopper was shown.
const CACHE_CONTROL: &str = "public, max-age=60";

#[derive(Debug, Tags)]
enum Tag {
    /// What the shop presents.
    Catalogue,
}

/// The products of the shop.
#[derive(Debug)]
pub struct CatalogApi {
    cx: Context,
}

impl CatalogApi {
    pub fn new(cx: Context) -> Self {
        Self { cx }
    }
}

#[OpenApi(prefix_path = "/v1/products", tag = "Tag::Catalogue")]
impl CatalogApi {
    /// List products
    ///
    /// The newest first. What is left of a variant is not told here: ask for its stock.
    #[oai(path = "/", method = "get", operation_id = "listProducts")]
    async fn list_products(
        &self,
        uri: &Uri,
        /// 1 to 100; 20 if left out.
        limit: Query<Option<u32>>,
        /// From `next_cursor` of the page before.
        cursor: Query<Option<String>>,
    ) -> Result<ListProductsResponse, Problem> {
        let limit = Limit::new(limit.0)?;
        let before = cursor.0.map(|cursor| page::position::<Uuid>(LIST, &cursor)).transpose()?;
        let before = before.map(ProductId::from);
        let mut products = list_products(&self.cx.db, before, limit.rows()).await?;
        let has_more = products.len() > limit.get();
        products.truncate(limit.get());
        let last = products.last().filter(|_| has_more);
        let next_cursor = last.map(|product| page::cursor(LIST, &product.id.uuid()));
        let link = next_cursor.as_ref().map(|cursor| page::next_link(uri, cursor));
        let items = products.into_iter().map(ProductBody::from).collect();
        let body = ProductPageBody { items, next_cursor };
        Ok(ListProductsResponse::Page(Json(body), CACHE_CONTROL.to_owned(), link))
    }

    /// Get a product
    ///
    /// Send the `ETag` of your copy as `If-None-Match` to hear whether it is still current.
    #[oai(path = "/:slug", method = "get", operation_id = "getProduct")]
    async fn get_product(
        &self,
        slug: Path<String>,
        #[oai(name = "If-None-Match")] if_none_match: Header<Option<String>>,
    ) -> Result<GetProductResponse, Problem> {
        let slug = Slug::parse(&slug.0).map_err(|_| CatalogError::NotFound)?;
        let body = ProductBody::from(find_product(&self.cx.db, &slug).await?);
        let tag = ETag::of(body.to_json_string().as_bytes());
        let is_current = if_none_match.0.is_some_and(|tags| tag.is_in(&tags));
        let (tag, cache_control) = (tag.to_string(), CACHE_CONTROL.to_owned());
        if is_current {
            return Ok(GetProductResponse::NotModified(tag, cache_control));
        }
        Ok(GetProductResponse::Found(Json(body), tag, cache_control))
    }

    /// Add a product
    ///
    /// With all its variants, or not at all. Their stock is empty until some is received.
    #[oai(path = "/", method = "post", operation_id = "createProduct")]
    async fn create_product(
        &self,
        staff: Staff,
        body: Json<NewProductBody>,
    ) -> Result<CreateProductResponse, Problem> {
        let new = body.0.parse().map_err(CatalogError::Invalid)?;
        let actor = Actor { id: staff.user_id(), request_id: request_id::current() };
        let product = create_product(&self.cx.db, new, actor).await?;
        let location = format!("/v1/products/{}", product.slug);
        Ok(CreateProductResponse::Created(Json(product.into()), location))
    }
}

#[derive(ApiResponse)]
enum ListProductsResponse {
    /// A page of products.
    #[oai(status = 200)]
    Page(
        Json<ProductPageBody>,
        #[oai(header = "Cache-Control")] String,
        /// `rel="next"`, unless this is the last page.
        #[oai(header = "Link")]
        Option<String>,
    ),
}

#[derive(ApiResponse)]
enum GetProductResponse {
    /// The product.
    #[oai(status = 200)]
    Found(
        Json<ProductBody>,
        #[oai(header = "ETag")] String,
        #[oai(header = "Cache-Control")] String,
    ),
    /// The copy that the client has is current.
    #[oai(status = 304)]
    NotModified(#[oai(header = "ETag")] String, #[oai(header = "Cache-Control")] String),
}

#[derive(ApiResponse)]
enum CreateProductResponse {
    /// The product is on sale, as far as it has prices and stock.
    #[oai(status = 201)]
    Created(
        Json<ProductBody>,
        /// Where to read the product.
        #[oai(header = "Location")]
        String,
    ),
}

#[derive(Debug, Object)]
#[oai(rename = "ProductPage")]
struct ProductPageBody {
    items: Vec<ProductBody>,
    /// `null` on the last page.
    next_cursor: Option<String>,
}

#[derive(Debug, Object)]
#[oai(rename = "Product")]
struct ProductBody {
    id: Uuid,
    slug: String,
    title: String,
    description: String,
    variants: Vec<VariantBody>,
}

#[derive(Debug, Object)]
#[oai(rename = "Variant")]
struct VariantBody {
    id: Uuid,
    sku: String,
    title: String,
    /// One for each currency in which the variant is sold.
    prices: Vec<MoneyBody>,
    /// Left out where the variant can be bought at all times and in any number.
    #[oai(skip_serializing_if_is_none)]
    sale: Option<SaleBody>,
}

impl From<Product> for ProductBody {
    fn from(product: Product) -> Self {
        Self {
            id: product.id.uuid(),
            slug: product.slug,
            title: product.title,
            description: product.description,
            variants: product.variants.into_iter().map(VariantBody::from).collect(),
        }
    }
}

impl From<Variant> for VariantBody {
    fn from(variant: Variant) -> Self {
        Self {
            id: variant.id.uuid(),
            sku: variant.sku,
            title: variant.title,
            prices: variant.prices.into_iter().map(MoneyBody::from).collect(),
            sale: SaleBody::of(variant.sale),
        }
    }
}

/// A product to add.
#[derive(Debug, Object)]
#[oai(rename = "NewProduct", deny_unknown_fields)]
struct NewProductBody {
    /// The product's name in addresses: lower-case words with hyphens between them.
    #[oai(validator(min_length = 1, max_length = 100))]
    slug: String,
    #[oai(validator(min_length = 1, max_length = 200))]
    title: String,
    #[oai(default, validator(max_length = 20_000))]
    description: String,
    /// In the order in which they are to be shown.
    #[oai(validator(min_items = 1, max_items = 100))]
    variants: Vec<NewVariantBody>,
}

#[derive(Debug, Object)]
#[oai(rename = "NewVariant", deny_unknown_fields)]
struct NewVariantBody {
    /// Unique in the shop, whatever its case.
    #[oai(validator(min_length = 1, max_length = 64))]
    sku: String,
    #[oai(validator(min_length = 1, max_length = 200))]
    title: String,
    /// At most one for each currency.
    #[oai(validator(max_items = 50))]
    prices: Vec<MoneyBody>,
    /// When it can be bought, and how many of it; at all times and in any number if this is left out.
    sale: Option<SaleBody>,
}

impl NewProductBody {
    /// Reads the product; all that is wrong with it is named at once.
    fn parse(self) -> Result<NewProduct, Vec<Detail>> {
        let mut problems = Vec::new();
        let slug = Slug::parse(&self.slug).map_err(|error| error.at("/slug"));
        let slug = keep(slug, &mut problems);
        let title = Title::parse(&self.title).map_err(|error| error.at("/title"));
        let title = keep(title, &mut problems);
        let description = Description::parse(&self.description);
        let description =
            keep(description.map_err(|error| error.at("/description")), &mut problems);

        let mut skus = HashSet::new();
        let mut variants = Vec::with_capacity(self.variants.len());
        for (place, body) in self.variants.into_iter().enumerate() {
            let pointer = format!("/variants/{place}");
            let Some(variant) = body.parse_at(&pointer, &mut problems) else { continue };
            if !skus.insert(variant.sku.folded()) {
                problems.push(repeated(format!("{pointer}/sku"), "an earlier variant has it"));
            }
            variants.push(variant);
        }
        match (slug, title, description, problems.is_empty()) {
            (Some(slug), Some(title), Some(description), true) => {
                Ok(NewProduct { slug, title, description, variants })
            }
            _ => Err(problems),
        }
    }
}

impl NewVariantBody {
    fn parse_at(self, pointer: &str, problems: &mut Vec<Detail>) -> Option<NewVariant> {
        let sku = Sku::parse(&self.sku).map_err(|error| error.at(format!("{pointer}/sku")));
        let sku = keep(sku, problems);
        let title = Title::parse(&self.title);
        let title = keep(title.map_err(|error| error.at(format!("{pointer}/title"))), problems);

        let mut currencies = HashSet::new();
        let mut prices = Vec::with_capacity(self.prices.len());
        for (place, price) in self.prices.iter().enumerate() {
            let pointer = format!("{pointer}/prices/{place}");
            let Some(price) = keep(price.parse_at(&pointer), problems) else { continue };
            if !currencies.insert(price.currency()) {
                let pointer = format!("{pointer}/currency");
                problems.push(repeated(pointer, "an earlier price has it"));
            }
            prices.push(price);
        }
        let sale = self.sale.map(|sale| sale.parse_at(&format!("{pointer}/sale"))).transpose();
        let sale = keep(sale, problems)?.unwrap_or_default();
        Some(NewVariant { sku: sku?, title: title?, prices, sale })
    }
}

fn keep<T>(result: Result<T, Detail>, problems: &mut Vec<Detail>) -> Option<T> {
    result.map_err(|detail| problems.push(detail)).ok()
}

fn repeated(pointer: String, message: &str) -> Detail {
    Detail { pointer, code: "repeated", message: message.to_owned(), available: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(amount: i64, currency: &str) -> MoneyBody {
        MoneyBody { amount, currency: currency.to_owned() }
    }

    fn variant(sku: &str, prices: Vec<MoneyBody>) -> NewVariantBody {
        NewVariantBody { sku: sku.to_owned(), title: "Black".to_owned(), prices, sale: None }
    }

    fn lamp(variants: Vec<NewVariantBody>) -> NewProductBody {
        NewProductBody {
            slug: "desk-lamp".to_owned(),
            title: "Desk lamp".to_owned(),
            description: String::new(),
            variants,
        }
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let body = NewProductBody {
            slug: "Desk Lamp".to_owned(),
            title: "\0".to_owned(),
            description: "\0".to_owned(),
            variants: vec![
                variant("LAMP-1", vec![price(1, "USD"), price(2, "USD"), price(-1, "INR")]),
                variant("lamp-1", vec![price(1, "EUR")]),
                variant("!", vec![price(1, "XYZ")]),
            ],
        };

        let problems = body.parse().unwrap_err();

        let found: Vec<_> = problems.iter().map(|detail| (&*detail.pointer, detail.code)).collect();
        assert_eq!(
            found,
            [
                ("/slug", "invalid-slug"),
                ("/title", "invalid-text"),
                ("/description", "invalid-text"),
                ("/variants/0/prices/1/currency", "repeated"),
                ("/variants/0/prices/2/amount", "out-of-range"),
                ("/variants/1/sku", "repeated"),
                ("/variants/2/sku", "invalid-sku"),
                ("/variants/2/prices/0/currency", "unknown-currency"),
            ]
        );
    }

    #[test]
    fn a_variant_may_wait_for_its_price() {
        let new = lamp(vec![variant("LAMP-1", vec![])]).parse().unwrap();

        assert!(new.variants[0].prices.is_empty());
    }
}
