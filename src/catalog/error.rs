use crate::kernel::{Class, Detail, Fault, ProductId, VariantId, database};

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("there is no such product")]
    NotFound,
    #[error("there is no variant {0}")]
    NoSuchVariant(VariantId),
    #[error("the product cannot be accepted")]
    Invalid(Vec<Detail>),
    #[error("another product has this slug")]
    SlugTaken,
    /// Each entry is the place of a variant in the request, from 0.
    #[error("other variants have some of these SKUs")]
    SkuTaken(Vec<usize>),
    /// A row holds what no version of this program writes.
    #[error("product {0} cannot be read: {1}")]
    Unreadable(ProductId, &'static str),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

impl Fault for CatalogError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound | Self::NoSuchVariant(_) => Class::NotFound,
            Self::Invalid(_) => Class::Invalid,
            Self::SlugTaken | Self::SkuTaken(_) => Class::Conflict,
            Self::Unreadable(..) => Class::Broken,
            Self::Database(error) => database::class(error),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "product-not-found",
            Self::NoSuchVariant(_) => "variant-not-found",
            Self::Invalid(_) => "invalid-request",
            Self::SlugTaken => "slug-taken",
            Self::SkuTaken(_) => "sku-taken",
            Self::Unreadable(..) => "internal-error",
            Self::Database(error) => database::code(error),
        }
    }

    fn details(&self) -> Vec<Detail> {
        let taken = |pointer, message: &str| Detail {
            pointer,
            code: self.code(),
            message: message.to_owned(),
            available: None,
        };
        match self {
            Self::Invalid(details) => details.clone(),
            Self::SlugTaken => vec![taken("/slug".to_owned(), "another product has it")],
            Self::SkuTaken(places) => places
                .iter()
                .map(|place| taken(format!("/variants/{place}/sku"), "another variant has it"))
                .collect(),
            Self::NotFound | Self::NoSuchVariant(_) | Self::Unreadable(..) | Self::Database(_) => {
                Vec::new()
            }
        }
    }
}
