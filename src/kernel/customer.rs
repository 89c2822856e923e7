//! Who a purchase limit counts for.

use std::fmt;

/// One customer: SHA-256 of the verified e-mail address that an account was opened with, in lower case.
///
/// It stays when the address is changed, and is the same for whoever comes back under that address after
/// the account was erased.
/// Addresses can be guessed, so it tells no less than the address does to whoever sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomerKey([u8; 32]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a customer's key has 32 bytes")]
pub struct InvalidCustomerKey;

impl CustomerKey {
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for CustomerKey {
    type Error = InvalidCustomerKey;

    fn try_from(bytes: Vec<u8>) -> Result<Self, InvalidCustomerKey> {
        bytes.try_into().map(Self).map_err(|_| InvalidCustomerKey)
    }
}

/// Written without the key, which has no place in a log.
impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerKey(…)")
    }
}
