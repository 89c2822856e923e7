use std::{collections::HashMap, fmt, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{IdentityError, KeyError, Seed, keys};
use crate::kernel::{self, GuestId};

/// Long enough to come back to an order, short enough that a lost token ends by itself.
const LIFETIME: Duration = Duration::from_hours(30 * 24);

/// The kind and version of the token. A later version gets another prefix beside this one.
const PREFIX: &str = "hfg1_";
/// Id, expiry, signature.
const BODY_LENGTH: usize = 16 + 8 + 32;

/// Issues guest tokens and tells whether one is ours: `hfg1_<key name>.<id, expiry, HMAC-SHA-256>`.
///
/// A token is verified by its own bytes alone, in microseconds: a flash sale brings thousands.
pub struct GuestTokens {
    signing_kid: String,
    keys: HashMap<String, Hmac<Sha256>>,
}

/// A guest token, to be handed out.
pub struct GuestToken {
    pub token: String,
    pub guest_id: GuestId,
    pub expires_at: OffsetDateTime,
}

impl GuestTokens {
    pub fn from_seeds(seeds: &[Seed]) -> Result<Self, KeyError> {
        keys::check_names(seeds)?;
        let (signing_kid, _) = seeds.first().ok_or(KeyError::NoKey)?;
        let keys = seeds
            .iter()
            .map(|(kid, seed)| {
                let key =
                    Hmac::new_from_slice(seed).map_err(|_| KeyError::Unusable(kid.clone()))?;
                Ok((kid.clone(), key))
            })
            .collect::<Result<_, KeyError>>()?;
        Ok(Self { signing_kid: signing_kid.clone(), keys })
    }

    /// Makes a guest: a new id with the proof of it, for thirty days.
    pub fn issue(&self) -> GuestToken {
        let expires_at = kernel::time::now() + LIFETIME;
        self.issue_until(GuestId::generate(), expires_at)
    }

    fn issue_until(&self, guest_id: GuestId, expires_at: OffsetDateTime) -> GuestToken {
        let expires_at = expires_at.truncate_to_second();
        let expiry = expires_at.unix_timestamp().to_be_bytes();
        let kid = &self.signing_kid;
        let signature = authenticate(&self.keys[kid], kid, guest_id, expiry).finalize();
        let mut body = Vec::with_capacity(BODY_LENGTH);
        body.extend_from_slice(guest_id.uuid().as_bytes());
        body.extend_from_slice(&expiry);
        body.extend_from_slice(&signature.into_bytes());
        let token = format!("{PREFIX}{kid}.{}", BASE64_URL_SAFE_NO_PAD.encode(body));
        GuestToken { token, guest_id, expires_at }
    }

    /// Whether the token is meant to be a guest's; it may still be a forged one.
    pub fn is_guest_token(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// Tells which guest shows the token.
    pub fn verify(&self, token: &str) -> Result<GuestId, IdentityError> {
        let parts = parse(token).ok_or(IdentityError::Unauthenticated)?;
        let key = self.keys.get(parts.kid).ok_or(IdentityError::Unauthenticated)?;
        // Compares in constant time.
        authenticate(key, parts.kid, parts.guest_id, parts.expiry)
            .verify_slice(&parts.signature)
            .map_err(|_| IdentityError::Unauthenticated)?;
        if i64::from_be_bytes(parts.expiry) <= kernel::time::now().unix_timestamp() {
            return Err(IdentityError::TokenExpired);
        }
        Ok(parts.guest_id)
    }
}

struct Parts<'a> {
    kid: &'a str,
    guest_id: GuestId,
    expiry: [u8; 8],
    signature: [u8; 32],
}

fn parse(token: &str) -> Option<Parts<'_>> {
    let (kid, body) = token.strip_prefix(PREFIX)?.split_once('.')?;
    let mut bytes = [0; BODY_LENGTH];
    // Refuses what is longer or shorter, and the second spelling that base64 has of a last character.
    let length = BASE64_URL_SAFE_NO_PAD.decode_slice(body, &mut bytes).ok()?;
    if length != BODY_LENGTH {
        return None;
    }
    let (id, rest) = bytes.split_first_chunk::<16>()?;
    let (expiry, rest) = rest.split_first_chunk::<8>()?;
    Some(Parts {
        kid,
        guest_id: Uuid::from_bytes(*id).into(),
        expiry: *expiry,
        signature: rest.try_into().ok()?,
    })
}

/// Signs version, key name, id and expiry, each of a length that the one before it fixes.
fn authenticate(key: &Hmac<Sha256>, kid: &str, guest_id: GuestId, expiry: [u8; 8]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    mac.update(PREFIX.as_bytes());
    mac.update(kid.as_bytes());
    mac.update(b".");
    mac.update(guest_id.uuid().as_bytes());
    mac.update(&expiry);
    mac
}

/// Written with the names only.
impl fmt::Debug for GuestTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestTokens").field("signing", &self.signing_kid).finish_non_exhaustive()
    }
}

/// Written without the token.
impl fmt::Debug for GuestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestToken").field("guest_id", &self.guest_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(seeds: &[(&str, u8)]) -> GuestTokens {
        let seeds: Vec<_> = seeds.iter().map(|&(kid, byte)| (kid.to_owned(), [byte; 32])).collect();
        GuestTokens::from_seeds(&seeds).unwrap()
    }

    fn refused(tokens: &GuestTokens, token: &str) -> bool {
        matches!(tokens.verify(token), Err(IdentityError::Unauthenticated))
    }

    #[test]
    fn an_issued_token_names_its_guest() {
        let tokens = tokens(&[("k1", 1)]);

        let guest = tokens.issue();

        assert!(GuestTokens::is_guest_token(&guest.token));
        assert_eq!(tokens.verify(&guest.token).unwrap(), guest.guest_id);
        assert_ne!(tokens.issue().guest_id, guest.guest_id);
    }

    #[test]
    fn a_token_with_any_single_bit_changed_is_refused() {
        let tokens = tokens(&[("k1", 1), ("k3", 3)]);
        let token = tokens.issue().token;

        for position in 0..token.len() {
            for bit in 0..8 {
                let mut bytes = token.clone().into_bytes();
                bytes[position] ^= 1 << bit;
                // A header with other bytes than ASCII is no text and never reaches us.
                let Ok(changed) = String::from_utf8(bytes) else { continue };
                assert!(refused(&tokens, &changed), "byte {position}, bit {bit}");
            }
        }
    }

    #[test]
    fn keys_change_without_a_guest_being_lost_until_the_old_one_is_retired() {
        let guest = tokens(&[("old", 1)]).issue();

        assert_eq!(tokens(&[("new", 2), ("old", 1)]).verify(&guest.token).unwrap(), guest.guest_id);
        assert!(refused(&tokens(&[("new", 2)]), &guest.token));
        assert!(refused(&tokens(&[("old", 2)]), &guest.token));
    }

    #[test]
    fn a_token_of_another_shape_is_refused() {
        let tokens = tokens(&[("k1", 1)]);
        let token = tokens.issue().token;

        for token in [
            String::new(),
            PREFIX.to_owned(),
            format!("{PREFIX}."),
            format!("{PREFIX}k1."),
            format!("{token}A"),
            format!("{token}="),
            format!(" {token}"),
            token[..token.len() - 1].to_owned(),
            token.replace("hfg1_", "hfg2_"),
            token.replace("k1.", "k1"),
            token.replace("k1.", "."),
            format!("{PREFIX}k1.{}", "A".repeat(100_000)),
        ] {
            assert!(refused(&tokens, &token), "{token:.40}");
        }
    }

    #[test]
    fn an_expired_token_is_told_apart_only_if_it_was_ours() {
        let past = kernel::time::now() - Duration::from_secs(1);
        let guest = tokens(&[("k1", 1)]).issue_until(GuestId::generate(), past);

        assert!(matches!(
            tokens(&[("k1", 1)]).verify(&guest.token),
            Err(IdentityError::TokenExpired)
        ));
        assert!(refused(&tokens(&[("k1", 2)]), &guest.token));
    }

    proptest! {
        #[test]
        fn any_text_is_refused(text in "(hfg1_)?(k1)?\\.?[\\w.=-]{0,100}") {
            prop_assert!(refused(&tokens(&[("k1", 1)]), &text));
        }
    }
}
