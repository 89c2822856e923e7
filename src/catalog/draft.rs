//! A product before it exists, in types that only hold what the catalogue takes.

use super::Sale;
use crate::kernel::{Detail, Money};

/// A product to be added, with all it is sold as.
#[derive(Debug, Clone)]
pub struct NewProduct {
    pub slug: Slug,
    pub title: Title,
    pub description: Description,
    pub variants: Vec<NewVariant>,
}

impl NewProduct {
    /// As many as a size run in every colour needs; a page shows them all.
    pub const VARIANTS_MAX: usize = 100;
}

/// One thing to buy of a product.
#[derive(Debug, Clone)]
pub struct NewVariant {
    pub sku: Sku,
    pub title: Title,
    /// At most one a currency; without any the variant is shown and cannot be bought yet.
    pub prices: Vec<Money>,
    pub sale: Sale,
}

impl NewVariant {
    /// More than any shop sells in.
    pub const PRICES_MAX: usize = 50;
}

/// A product's name in the address of its page: `desk-lamp-2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slug(String);

/// The stock keeper's name of a variant: `LAMP-2.BLK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sku(String);

/// One line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(String);

/// Some paragraphs of text, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description(String);

/// Why a text is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error(
        "a slug has 1 to {} lower-case letters and digits, with single hyphens between them",
        Slug::LENGTH_MAX
    )]
    Slug,
    #[error(
        "a SKU has 1 to {} letters, digits, dots, hyphens and underscores, and begins with a letter or digit",
        Sku::LENGTH_MAX
    )]
    Sku,
    #[error(
        "a title has 1 to {} characters, not only spaces, without line breaks or other control characters",
        Title::LENGTH_MAX
    )]
    Title,
    #[error(
        "a description has at most {} characters, without control characters except line breaks and tabs",
        Description::LENGTH_MAX
    )]
    Description,
}

impl TextError {
    const fn code(self) -> &'static str {
        match self {
            Self::Slug => "invalid-slug",
            Self::Sku => "invalid-sku",
            Self::Title | Self::Description => "invalid-text",
        }
    }

    pub fn at(self, pointer: impl Into<String>) -> Detail {
        Detail {
            pointer: pointer.into(),
            code: self.code(),
            message: self.to_string(),
            available: None,
        }
    }
}

impl Slug {
    pub const LENGTH_MAX: usize = 100;

    pub fn parse(text: &str) -> Result<Self, TextError> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        if text.len() > Self::LENGTH_MAX || !text.split('-').all(is_word) {
            return Err(TextError::Slug);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Sku {
    pub const LENGTH_MAX: usize = 64;

    pub fn parse(text: &str) -> Result<Self, TextError> {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if text.len() > Self::LENGTH_MAX || !begins_well || !text.bytes().all(is_inner) {
            return Err(TextError::Sku);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What two SKUs have in common that name the same variant.
    pub fn folded(&self) -> String {
        self.0.to_ascii_uppercase()
    }
}

impl Title {
    pub const LENGTH_MAX: usize = 200;

    pub fn parse(text: &str) -> Result<Self, TextError> {
        let length_fits = text.chars().count() <= Self::LENGTH_MAX;
        if text.trim().is_empty() || !length_fits || text.chars().any(char::is_control) {
            return Err(TextError::Title);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Description {
    pub const LENGTH_MAX: usize = 20_000;

    pub fn parse(text: &str) -> Result<Self, TextError> {
        let is_refused = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        if text.chars().count() > Self::LENGTH_MAX || text.chars().any(is_refused) {
            return Err(TextError::Description);
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slug_is_lower_case_words_with_hyphens_between() {
        for slug in ["a", "desk-lamp-2", "0", &"a".repeat(100)] {
            assert_eq!(Slug::parse(slug).unwrap().as_str(), slug);
        }
        for text in ["", "-", "a-", "-a", "a--b", "A", "a b", "a_b", "ä", "a\0", &"a".repeat(101)]
        {
            assert_eq!(Slug::parse(text), Err(TextError::Slug), "{text:?}");
        }
    }

    #[test]
    fn a_sku_is_what_fits_a_label() {
        for sku in ["A", "LAMP-2.BLK", "0_a", &"A".repeat(64)] {
            assert_eq!(Sku::parse(sku).unwrap().as_str(), sku);
        }
        for text in ["", ".A", "-A", "_A", "A B", "A/B", "Ä", "A\0", &"A".repeat(65)] {
            assert_eq!(Sku::parse(text), Err(TextError::Sku), "{text:?}");
        }
        assert_eq!(Sku::parse("lamp-2.b").unwrap().folded(), "LAMP-2.B");
    }

    #[test]
    fn a_title_is_one_line_and_a_description_several() {
        assert!(Title::parse(&"ä".repeat(200)).is_ok());
        for text in ["", "  ", "a\nb", "a\0", "a\u{7f}", &"ä".repeat(201)] {
            assert_eq!(Title::parse(text), Err(TextError::Title), "{text:?}");
        }
        assert!(Description::parse("").is_ok());
        assert!(Description::parse("one\r\n\ttwo").is_ok());
        assert!(Description::parse(&"ä".repeat(20_000)).is_ok());
        for text in ["a\0", "\u{1b}[0m", &"ä".repeat(20_001)] {
            assert_eq!(Description::parse(text), Err(TextError::Description), "{text:.9?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,110}|[\\x00-\\x7f]{0,110}") {
            if let Ok(slug) = Slug::parse(&text) {
                prop_assert!(!slug.as_str().is_empty());
                prop_assert!(!slug.as_str().contains(|c: char| c != '-' && !c.is_ascii_alphanumeric()));
            }
            if let Ok(sku) = Sku::parse(&text) {
                prop_assert!(sku.as_str().is_ascii());
            }
            if let Ok(title) = Title::parse(&text) {
                prop_assert!(!title.as_str().contains(char::is_control));
            }
            if let Ok(description) = Description::parse(&text) {
                prop_assert!(!description.as_str().contains('\0'));
            }
        }
    }
}
