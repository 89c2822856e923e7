//! Requests that may be repeated: a key the caller chose stands for one effect.
//!
//! Owns `idempotency_keys`. A use case takes these steps in its own transaction, in statements
//! of their own, before it takes any other lock:
//!
//! 1. [`claim`] the keys. A key that is not obtained is being worked on: [`KeyError::InFlight`].
//! 2. [`find`] what was recorded. Only a statement that starts after the claim is certain to see
//!    what the previous holder of the claim committed. Found with the same fingerprint: replay;
//!    with another: [`KeyError::Reused`].
//! 3. Do the work and [`record`] it. A refusal records nothing and leaves its key free.
//!
//! The claim ends with the transaction, whatever its outcome. The primary key is the last guard.
//! A key is remembered for 48 hours, until [`purge`] removes it.

mod store;

use std::{fmt, time::Duration};

use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use store::{claim, find, purge, record};

use crate::kernel::{Class, Fault, OwnerId};

/// The caller's name for one intention: 20 to 100 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// Short keys are counters and dates, which two intentions of one caller could share.
    pub const LENGTH_MIN: usize = 20;
    pub const LENGTH_MAX: usize = 100;

    /// Reads the header's value, bare or as the quoted string of the IETF draft: both forms name
    /// the same key, which is why a key holds neither `"` nor `\`.
    pub fn parse(header: Option<&str>) -> Result<Self, KeyError> {
        let header = header.ok_or(KeyError::Missing)?.trim_ascii();
        let quoted = header.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let key = quoted.unwrap_or(header);
        let length_fits = (Self::LENGTH_MIN..=Self::LENGTH_MAX).contains(&key.len());
        if !length_fits || !key.bytes().all(is_allowed) {
            return Err(KeyError::Invalid);
        }
        Ok(Self(key.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'\\'
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key where it counts: keys of two callers, or of two operations, have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimKey<'a> {
    pub owner_id: OwnerId,
    /// The operation's id in the API: `placeOrder`.
    pub operation: &'static str,
    pub key: &'a Key,
}

impl ClaimKey<'_> {
    /// The advisory lock that stands for the key. Two keys that share one by chance cannot be worked on at once, no more.
    fn lock(&self) -> i64 {
        let mut hash = Sha256::new();
        hash.update(self.owner_id.uuid());
        hash.update(self.operation);
        hash.update([0]);
        hash.update(self.key.as_str());
        let digest = <[u8; 32]>::from(hash.finalize());
        i64::from_be_bytes(*digest.first_chunk().expect("32 bytes begin with 8"))
    }
}

/// SHA-256 of a request, to tell a repeated one from another that reuses its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The request in any form in which equal requests have equal bytes.
    pub fn of(request: &[u8]) -> Self {
        Self(Sha256::digest(request).into())
    }
}

/// What a key stands for.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// `None` where the stored one has the wrong length, which no request matches.
    fingerprint: Option<Fingerprint>,
    /// The order or receipt that the first request made.
    pub subject_id: Uuid,
    /// The part of the answer that cannot change.
    pub answer: Value,
}

impl Recorded {
    /// Refuses the key to a request other than the one it was used for.
    pub fn check(&self, request: Fingerprint) -> Result<(), KeyError> {
        if self.fingerprint != Some(request) {
            return Err(KeyError::Reused);
        }
        Ok(())
    }
}

/// A key's effect, to be recorded.
#[derive(Debug, Clone)]
pub struct NewRecord<'a> {
    pub claim: ClaimKey<'a>,
    pub fingerprint: Fingerprint,
    pub subject_id: Uuid,
    pub answer: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the header Idempotency-Key is required")]
    Missing,
    #[error(
        "Idempotency-Key must have {} to {} visible ASCII characters, quotes and backslashes excepted",
        Key::LENGTH_MIN,
        Key::LENGTH_MAX
    )]
    Invalid,
    #[error("a request with this Idempotency-Key is being worked on")]
    InFlight,
    #[error("this Idempotency-Key was used for another request")]
    Reused,
}

impl Fault for KeyError {
    fn class(&self) -> Class {
        match self {
            Self::Missing | Self::Invalid => Class::Malformed,
            Self::InFlight => Class::Conflict,
            Self::Reused => Class::Invalid,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Missing => "idempotency-key-missing",
            Self::Invalid => "idempotency-key-invalid",
            Self::InFlight => "request-in-flight",
            Self::Reused => "idempotency-key-reused",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        (*self == Self::InFlight).then_some(Duration::from_secs(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "one-key-per-intention";

    #[test]
    fn the_quoted_form_names_the_same_key() {
        let quoted = format!("\"{KEY}\"");

        assert_eq!(Key::parse(Some(&quoted)), Key::parse(Some(KEY)));
        assert_eq!(Key::parse(Some(KEY)).unwrap().as_str(), KEY);
    }

    #[test]
    fn a_key_of_another_shape_is_refused() {
        assert_eq!(Key::parse(None), Err(KeyError::Missing));
        for header in [
            String::new(),
            "\"".to_owned(),
            "k".repeat(19),
            "k".repeat(101),
            format!("\"{}\"", "k".repeat(19)),
            format!("{KEY} and a space"),
            format!("\"{KEY}"),
            format!("{KEY}\\\"{KEY}"),
            format!("{KEY}\0"),
            "ключ-из-двадцати-букв".to_owned(),
        ] {
            assert_eq!(Key::parse(Some(&header)), Err(KeyError::Invalid), "{header:?}");
        }
    }

    #[test]
    fn owner_operation_and_key_each_make_another_lock() {
        let (one, two) =
            (Key::parse(Some(KEY)).unwrap(), Key::parse(Some(&KEY.repeat(2))).unwrap());
        let (me, you) = (OwnerId::from(Uuid::nil()), OwnerId::from(Uuid::max()));
        let lock = |owner_id, operation, key| ClaimKey { owner_id, operation, key }.lock();

        let locks = [
            lock(me, "placeOrder", &one),
            lock(you, "placeOrder", &one),
            lock(me, "receiveStock", &one),
            lock(me, "placeOrder", &two),
        ];

        let distinct = std::collections::HashSet::from(locks);
        assert_eq!(distinct.len(), locks.len());
        assert_eq!(lock(me, "placeOrder", &one), locks[0]);
    }

    proptest! {
        #[test]
        fn any_header_is_a_key_or_an_error(header in ".{0,120}") {
            if let Ok(key) = Key::parse(Some(&header)) {
                prop_assert!((Key::LENGTH_MIN..=Key::LENGTH_MAX).contains(&key.as_str().len()));
                prop_assert_eq!(Key::parse(Some(key.as_str())), Ok(key));
            }
        }

        #[test]
        fn visible_ascii_of_the_right_length_is_a_key(header in "[!#-\\[\\]-~]{20,100}") {
            let key = Key::parse(Some(&header)).unwrap();
            prop_assert_eq!(key.as_str(), header);
        }
    }
}
