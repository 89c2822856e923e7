//! The catalogue: what the shop presents, and what it asks for it.
//!
//! Owns `products`, `variants` and `prices`. A SKU names one variant in the whole shop, whatever its
//! case; a slug names one product. How much of a variant is left is the inventory's to say, and
//! never part of a product: products are cached, availability is not.

pub mod api;
mod create;
mod draft;
mod error;
mod read;
mod sale;
pub mod store;

pub use create::create_product;
pub use draft::{Description, NewProduct, NewVariant, Sku, Slug, TextError, Title};
pub use error::CatalogError;
pub use read::{Product, Variant, find_product, list_products};
pub use sale::{Phase, PurchaseLimit, Sale, SetSale, set_sale};
pub use store::Offer;
