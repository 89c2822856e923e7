use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::identity::{KeyRing, keys::Renewal};

/// The kind and version of the token, for whoever finds one lying about.
const PREFIX: &str = "hfr1_";
const LENGTH: usize = 32;

/// A refresh token: 32 bytes that nobody can guess, written as `hfr1_` and base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; LENGTH]);

impl RefreshToken {
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads what [`write`](Self::write) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        // Refuses what is longer or shorter, and the second spelling that base64 has of a last character.
        let length =
            BASE64_URL_SAFE_NO_PAD.decode_slice(text.strip_prefix(PREFIX)?, &mut bytes).ok()?;
        (length == LENGTH).then_some(Self(bytes))
    }

    /// The token as text, to be handed out.
    pub fn write(&self) -> String {
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }

    /// What is stored of the token.
    pub fn hash(&self) -> [u8; LENGTH] {
        Sha256::digest(self.0).into()
    }

    /// The tokens that may follow this one: what the key that signs makes of it, then the other keys.
    ///
    /// Nobody without a key can tell, and whoever shows the token again can be given the same
    /// successor, though it is stored nowhere.
    pub(super) fn successors(&self, keys: &KeyRing) -> impl Iterator<Item = Self> {
        keys.renewing.iter().map(|key| self.successor(key))
    }

    fn successor(&self, key: &Renewal) -> Self {
        let mut mac = key.clone();
        mac.update(&self.0);
        Self(mac.finalize().into_bytes().into())
    }
}

/// The key that makes successors, as it derives from the secret bytes of a key of access tokens.
pub(in crate::identity) fn renewal(seed: &[u8; 32]) -> Renewal {
    let mut derivation = Renewal::new_from_slice(seed).expect("HMAC takes keys of any length");
    derivation.update(b"holdfast: successors of refresh tokens, 1");
    Renewal::new_from_slice(&derivation.finalize().into_bytes())
        .expect("HMAC takes keys of any length")
}

/// Written without the secret.
impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(bytes: &[u8]) -> KeyRing {
        let seeds: Vec<_> = bytes.iter().map(|&byte| (format!("k{byte}"), [byte; 32])).collect();
        KeyRing::from_seeds(&seeds).unwrap()
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_never_twice_the_same() {
        let (one, other) = (RefreshToken::random(), RefreshToken::random());

        assert_eq!(RefreshToken::parse(&one.write()), Some(one.clone()));
        assert_ne!(one, other);
        assert_ne!(one.hash(), other.hash());
        assert_ne!(one.hash(), one.0);
    }

    #[test]
    fn a_token_of_another_shape_is_none() {
        let token = RefreshToken::random().write();

        for text in [
            String::new(),
            PREFIX.to_owned(),
            token[PREFIX.len()..].to_owned(),
            token.replace("hfr1_", "hfr2_"),
            token[..token.len() - 1].to_owned(),
            format!("{token}A"),
            format!("{token}="),
            format!(" {token}"),
            format!("{PREFIX}{}", "A".repeat(100_000)),
        ] {
            assert_eq!(RefreshToken::parse(&text), None, "{text:.50}");
        }
    }

    #[test]
    fn whoever_has_the_keys_finds_the_same_successor_again() {
        let token = RefreshToken::random();
        let before = token.successors(&keys(&[1])).next().unwrap();

        // The key that signed then is one of several now, before or behind the one that signs.
        for ring in [[1, 2], [2, 1]] {
            assert!(token.successors(&keys(&ring)).any(|successor| successor == before));
        }
        assert!(!token.successors(&keys(&[2, 3])).any(|successor| successor == before));
        assert_ne!(before, token);
        assert_ne!(before.0, token.hash());
    }

    #[test]
    fn no_token_is_written_to_a_log() {
        assert_eq!(format!("{:?}", RefreshToken::random()), "RefreshToken(..)");
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_only_if_it_is_written_so(text in "(hfr1_)?[\\w=-]{0,60}") {
            if let Some(token) = RefreshToken::parse(&text) {
                prop_assert_eq!(token.write(), text);
            }
        }

        #[test]
        fn any_bytes_survive_being_written(bytes: [u8; 32]) {
            let token = RefreshToken(bytes);
            prop_assert_eq!(RefreshToken::parse(&token.write()), Some(token));
        }
    }
}
