use std::{collections::HashMap, fmt};

use hmac::Hmac;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use sha2::Sha256;

use super::sessions::renewal;

/// A key's name and its 32 secret bytes. In a list of them the first signs and the others are accepted:
/// a new key is put last, then first, and the old one leaves when the last token it signed has expired.
pub type Seed = (String, [u8; 32]);

/// A key that makes the successors of refresh tokens.
pub(super) type Renewal = Hmac<Sha256>;

/// What wraps the seed of an Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The Ed25519 keys of access tokens, by name.
pub struct KeyRing {
    pub(super) signing_kid: String,
    pub(super) signing: EncodingKey,
    pub(super) verifying: HashMap<String, DecodingKey>,
    /// One for each key, in their order.
    pub(super) renewing: Vec<Renewal>,
    published: JwkSet,
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
        let published = seeds
            .iter()
            .map(|(kid, seed)| public_key(kid, seed).map_err(|_| KeyError::Unusable(kid.clone())))
            .collect::<Result<Vec<_>, KeyError>>()?;
        let verifying = seeds
            .iter()
            .zip(&published)
            .map(|((kid, _), key)| {
                let key =
                    DecodingKey::from_jwk(key).map_err(|_| KeyError::Unusable(kid.clone()))?;
                Ok((kid.clone(), key))
            })
            .collect::<Result<_, KeyError>>()?;
        Ok(Self {
            signing_kid: signing_kid.clone(),
            signing: signing_key(seed),
            verifying,
            renewing: seeds.iter().map(|(_, seed)| renewal(seed)).collect(),
            published: JwkSet { keys: published },
        })
    }

    /// The public keys by which anybody can check an access token, as a JWK set (RFC 7517, RFC 8037).
    pub fn published(&self) -> &JwkSet {
        &self.published
    }
}

fn signing_key(seed: &[u8; 32]) -> EncodingKey {
    EncodingKey::from_ed_der(&[&PKCS8_PREFIX[..], seed].concat())
}

fn public_key(kid: &str, seed: &[u8; 32]) -> jsonwebtoken::errors::Result<Jwk> {
    let mut key = Jwk::from_encoding_key(&signing_key(seed), Algorithm::EdDSA)?;
    key.common.key_id = Some(kid.to_owned());
    key.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(key)
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
        f.debug_struct("KeyRing")
            .field("signing", &self.signing_kid)
            .field("all", &kids)
            .finish_non_exhaustive()
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
    fn the_public_half_of_every_key_is_published_and_nothing_else() {
        let seeds = [("now".to_owned(), [1; 32]), ("next".to_owned(), [2; 32])];
        let ring = KeyRing::from_seeds(&seeds).unwrap();

        let published = serde_json::to_value(ring.published()).unwrap();

        assert_eq!(
            published,
            serde_json::json!({ "keys": [
                {
                    "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "now",
                    "x": "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w",
                },
                {
                    "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "next",
                    "x": "gTl3Dqh9F19Wo1Rmw0x-zMuNipG07jeiXfYPW4_Js5Q",
                },
            ] })
        );
    }

    #[test]
    fn no_secret_is_written_to_a_log() {
        let ring = KeyRing::from_seeds(&[("k1".to_owned(), [0xAB; 32])]).unwrap();

        assert_eq!(format!("{ring:?}"), r#"KeyRing { signing: "k1", all: ["k1"], .. }"#);
    }
}
