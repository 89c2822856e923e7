//! The number of an order that people read to each other.

use std::fmt;

use rand::RngExt;

/// Ten random characters of Crockford's base 32 (no I, L, O, U), written `HF-7K3M9-QPX2T`.
///
/// Random, so that it tells nobody how many orders the shop takes. 50 bits: among a hundred million orders a
/// new number meets an old one once in ten million times; the unique index refuses it, and the
/// shopper's repeat draws another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OrderNumber(String);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl OrderNumber {
    pub fn generate() -> Self {
        let mut bits: u64 = rand::rng().random();
        let mut number = String::with_capacity(14);
        number.push_str("HF-");
        for place in 0..10 {
            if place == 5 {
                number.push('-');
            }
            number.push(char::from(ALPHABET[(bits & 31) as usize]));
            bits >>= 5;
        }
        Self(number)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrderNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
