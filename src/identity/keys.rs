use std::{collections::HashMap, fmt};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, jwk::Jwk};

/// A key's name and its 32 secret bytes. In a list of them the first signs and the others are still
/// accepted: a new key is put first, the old one leaves when the last token it signed has expired.
pub type Seed = (String, [u8; 32]);

/// What wraps the seed of an Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The Ed25519 keys of access tokens, by name.
pub struct KeyRing {
    pub(super) signing_kid: String,
    pub(super) signing: EncodingKey,
    pub(super) verifying: HashMap<String, DecodingKey>,
}

/// Why keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("there is no key to sign with")]
    NoKey,
    #[error("the key name {0:?} is not 1 to 32 ASCII letters, digits or hyphens")]
    InvalidName(String),
    #[error("two keys are named {0:?}")]
    NameTaken(String),
    #[error("the key {0:?} is not usable")]
    Unusable(String),
}

impl KeyRing {
    pub fn from_seeds(seeds: &[Seed]) -> Result<Self, KeyError> {
        check_names(seeds)?;
        let (signing_kid, seed) = seeds.first().ok_or(KeyError::NoKey)?;
        let verifying = seeds
            .iter()
            .map(|(kid, seed)| {
                let key = verifying_key(seed).map_err(|_| KeyError::Unusable(kid.clone()))?;
                Ok((kid.clone(), key))
            })
            .collect::<Result<_, KeyError>>()?;
        Ok(Self { signing_kid: signing_kid.clone(), signing: signing_key(seed), verifying })
    }
}

fn signing_key(seed: &[u8; 32]) -> EncodingKey {
    EncodingKey::from_ed_der(&[&PKCS8_PREFIX[..], seed].concat())
}

fn verifying_key(seed: &[u8; 32]) -> jsonwebtoken::errors::Result<DecodingKey> {
    DecodingKey::from_jwk(&Jwk::from_encoding_key(&signing_key(seed), Algorithm::EdDSA)?)
}

/// Refuses names that could not be told apart, or not be written into a token.
pub(super) fn check_names(seeds: &[Seed]) -> Result<(), KeyError> {
    for (i, (kid, _)) in seeds.iter().enumerate() {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !(1..=32).contains(&kid.len()) || !kid.bytes().all(is_letter) {
            return Err(KeyError::InvalidName(kid.clone()));
        }
        if seeds[..i].iter().any(|(other, _)| other == kid) {
            return Err(KeyError::NameTaken(kid.clone()));
        }
    }
    Ok(())
}

/// Written with the names only.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kids: Vec<_> = self.verifying.keys().collect();
        f.debug_struct("KeyRing").field("signing", &self.signing_kid).field("all", &kids).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(names: &[&str]) -> Option<KeyError> {
        let seeds: Vec<_> = names.iter().map(|name| ((*name).to_owned(), [1; 32])).collect();
        KeyRing::from_seeds(&seeds).err()
    }

    #[test]
    fn the_names_of_keys_are_checked() {
        assert_eq!(refusal(&["2026-01", "2025-12"]), None);
        assert_eq!(refusal(&[]), Some(KeyError::NoKey));
        assert_eq!(refusal(&["a", "b", "a"]), Some(KeyError::NameTaken("a".into())));
        for name in ["", "a.b", "a b", "ä", &"k".repeat(33)] {
            assert_eq!(refusal(&[name]), Some(KeyError::InvalidName(name.into())));
        }
    }

    #[test]
    fn no_secret_is_written_to_a_log() {
        let ring = KeyRing::from_seeds(&[("k1".to_owned(), [0xAB; 32])]).unwrap();

        assert_eq!(format!("{ring:?}"), r#"KeyRing { signing: "k1", all: ["k1"] }"#);
    }
}
