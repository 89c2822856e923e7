use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::RngExt;
use sha2::{Digest, Sha256};

use crate::identity::IdentityError;

const LENGTH: usize = 32;

/// What a mail brings to prove that it was read: 32 random bytes, of which only the digest is stored.
pub struct MailToken([u8; LENGTH]);

impl MailToken {
    pub(super) fn generate() -> Self {
        Self(rand::rng().random())
    }

    /// Reads a token as it stands in a mail's link: 43 characters of base64url.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let mut bytes = [0; LENGTH];
        // Refuses what is longer or shorter, and the second spelling that base64 has of a last character.
        match BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(LENGTH) => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(IdentityError::InvalidMailToken),
        }
    }

    /// The token as it stands in a mail's link.
    pub fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// So many random bits need neither salt nor a slow hash.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

/// Written without the token.
impl fmt::Debug for MailToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = MailToken::generate();

        let read = MailToken::parse(&token.text()).unwrap();

        assert_eq!(read.digest(), token.digest());
        assert_ne!(MailToken::generate().digest(), token.digest());
        assert!(!format!("{token:?}").contains(&token.text()));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let token = MailToken::generate().text();
        for text in [
            String::new(),
            token[1..].to_owned(),
            format!("{token}A"),
            format!("{token}="),
            format!(" {token}"),
            "A".repeat(100_000),
        ] {
            let refused = MailToken::parse(&text);
            assert!(matches!(refused, Err(IdentityError::InvalidMailToken)), "{text:.50}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_one_spelling_or_none(text in "[\\w-]{40,46}|\\PC{0,60}") {
            if let Ok(token) = MailToken::parse(&text) {
                prop_assert_eq!(token.text(), text);
            }
        }
    }
}
