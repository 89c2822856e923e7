//! Strong entity tags (RFC 9110): the client's copy is current or it is not.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// Names the exact bytes of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    pub fn of(body: &[u8]) -> Self {
        let digest = Sha256::digest(body);
        // Half the digest: 128 bits are beyond any accidental clash.
        Self(format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&digest[..16])))
    }

    /// Whether the client that sent this `If-None-Match` has these bytes already.
    pub fn is_in(&self, if_none_match: &str) -> bool {
        if_none_match.split(',').map(str::trim).any(|tag| {
            // A proxy that compresses may weaken our tag; for a read that makes no difference.
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.0
        })
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_what_the_client_has() {
        let tag = ETag::of(b"a product");
        let other = ETag::of(b"another product");

        for (header, found) in [
            (tag.to_string(), true),
            (format!("W/{tag}"), true),
            (format!("{other}, {tag}"), true),
            ("*".to_owned(), true),
            (other.to_string(), false),
            (String::new(), false),
        ] {
            assert_eq!(tag.is_in(&header), found, "{header}");
        }
    }
}
