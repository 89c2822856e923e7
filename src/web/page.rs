//! Pages of a list: a limit, a cursor that says where the last page ended, and a link to the next.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use poem::http::Uri;
use serde::{Serialize, de::DeserializeOwned};

use crate::kernel::{Class, Detail, Fault};

/// Positions are a few ids and times; whatever is longer is not ours.
const CURSOR_LENGTH_MAX: usize = 512;

/// How many items a page holds at most: 1 to [`Limit::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(u16);

impl Limit {
    /// A page of this size is read in one statement without being felt by others.
    pub const MAX: u16 = 100;
    const DEFAULT: Self = Self(20);

    /// The limit that was asked for, or 20. Another one is refused, not bent: a client that asks
    /// for 1,000 and is given 100 would take them for all.
    pub fn new(asked: Option<u32>) -> Result<Self, PageError> {
        let Some(asked) = asked else { return Ok(Self::DEFAULT) };
        match u16::try_from(asked) {
            Ok(limit) if (1..=Self::MAX).contains(&limit) => Ok(Self(limit)),
            Ok(_) | Err(_) => Err(PageError::Limit),
        }
    }

    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// How many rows to ask the database for: one more than a page, to know whether another follows.
    pub const fn rows(self) -> i64 {
        self.0 as i64 + 1
    }
}

/// Why a page cannot be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("the limit is not from 1 to {}", Limit::MAX)]
    Limit,
    #[error("the cursor is not one of this list")]
    Cursor,
}

impl Fault for PageError {
    fn class(&self) -> Class {
        Class::Invalid
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Limit => "invalid-limit",
            Self::Cursor => "invalid-cursor",
        }
    }

    fn details(&self) -> Vec<Detail> {
        let pointer = match self {
            Self::Limit => "limit",
            Self::Cursor => "cursor",
        };
        vec![Detail {
            pointer: pointer.to_owned(),
            code: self.code(),
            message: self.to_string(),
            available: None,
        }]
    }
}

/// Makes an opaque cursor of the position at which a page ended.
///
/// `list` names the list and the version of its position (`products.1`), so that a cursor of
/// another list or of yesterday's shape is refused instead of misread.
pub fn cursor<T: Serialize>(list: &str, position: &T) -> String {
    let json = serde_json::to_vec(&(list, position)).expect("a position is plain data");
    BASE64_URL_SAFE_NO_PAD.encode(json)
}

/// Reads the position back from a cursor. Clients may forge it: it may say where a page starts,
/// never what its reader may see.
pub fn position<T: DeserializeOwned>(list: &str, cursor: &str) -> Result<T, PageError> {
    if cursor.len() > CURSOR_LENGTH_MAX {
        return Err(PageError::Cursor);
    }
    let json = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| PageError::Cursor)?;
    let (name, position): (String, T) =
        serde_json::from_slice(&json).map_err(|_| PageError::Cursor)?;
    if name == list { Ok(position) } else { Err(PageError::Cursor) }
}

/// The `Link` header that leads from the page at `uri` to the next one, filters kept.
pub fn next_link(uri: &Uri, cursor: &str) -> String {
    let kept = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|parameter| !parameter.is_empty() && !parameter.starts_with("cursor="));
    let cursor = format!("cursor={cursor}");
    let query: Vec<_> = kept.chain([&*cursor]).collect();
    format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_cursor_leads_back_to_its_position() {
        let id = Uuid::now_v7();

        let cursor = cursor("orders.1", &(7_i64, id));

        assert_eq!(position("orders.1", &cursor), Ok((7_i64, id)));
        assert_eq!(position::<(i64, Uuid)>("orders.2", &cursor), Err(PageError::Cursor));
        assert_eq!(position::<Uuid>("orders.1", &cursor), Err(PageError::Cursor));
    }

    #[test]
    fn any_other_text_is_no_cursor() {
        for text in ["", "%%%", "e30", "WyJvcmRlcnMuMSJd", &"A".repeat(100_000)] {
            assert_eq!(position::<Uuid>("orders.1", text), Err(PageError::Cursor));
        }
    }

    #[test]
    fn a_limit_is_kept_or_refused() {
        assert_eq!(Limit::new(None).map(Limit::get), Ok(20));
        assert_eq!(Limit::new(Some(100)).map(Limit::rows), Ok(101));
        for asked in [0, 101, 65_537, u32::MAX] {
            assert_eq!(Limit::new(Some(asked)), Err(PageError::Limit));
        }
    }

    #[test]
    fn the_next_page_keeps_the_filters() {
        let uri = Uri::from_static("/v1/products?cursor=old&category=mugs&limit=5");

        assert_eq!(
            next_link(&uri, "new"),
            "</v1/products?category=mugs&limit=5&cursor=new>; rel=\"next\""
        );
    }

    proptest! {
        #[test]
        fn whatever_a_client_makes_of_a_cursor_is_a_position_of_this_list_or_refused(
            id: u128,
            from in 0_usize..80,
            text in "[A-Za-z0-9_-]{0,8}",
        ) {
            let id = Uuid::from_u128(id);
            let good = cursor("orders.1", &id);
            let mut forged = good.clone();
            let from = from.min(forged.len());
            let to = (from + text.len()).min(forged.len());
            forged.replace_range(from..to, &text);

            match position::<Uuid>("orders.1", &forged) {
                Ok(read) => prop_assert_eq!(position("orders.1", &cursor("orders.1", &read)), Ok(read)),
                Err(error) => prop_assert_eq!(error, PageError::Cursor),
            }
            prop_assert_eq!(position("orders.1", &good), Ok(id));
        }

        #[test]
        fn any_text_is_no_cursor_of_this_list(text in "\\PC{0,600}") {
            prop_assert_eq!(position::<Uuid>("orders.1", &text), Err(PageError::Cursor));
        }
    }
}
