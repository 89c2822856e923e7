//! E-mail addresses, where people can be reached.

use std::fmt;

use crate::kernel::Detail;

/// An e-mail address, in lower case, of a shape that every mail server takes.
///
/// ASCII only: what is lower case beyond it depends on who is asked, and one address must not be
/// able to have two accounts. Whether it has an owner only a mail can show.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the e-mail address is not one")]
pub struct InvalidEmail;

impl InvalidEmail {
    pub fn at(self, pointer: &str) -> Detail {
        Detail {
            pointer: pointer.to_owned(),
            code: "invalid-email",
            message: self.to_string(),
            available: None,
        }
    }
}

impl EmailAddress {
    /// RFC 5321 gives a path 256 octets, its angle brackets included.
    pub const LENGTH_MAX: usize = 254;

    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        if text.len() > Self::LENGTH_MAX {
            return Err(InvalidEmail);
        }
        let (local, domain) = text.split_once('@').ok_or(InvalidEmail)?;
        if !is_local_part(local) || !is_domain(domain) {
            return Err(InvalidEmail);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Atoms of RFC 5322 with single dots between them; quoted local parts are not taken.
fn is_local_part(local: &str) -> bool {
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    local.len() <= 64 && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom))
}

/// Two or more labels of a public host name; the last is not a number, so that it is no IP address.
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let Some((rest, top)) = domain.rsplit_once('.') else { return false };
    rest.split('.').all(is_label) && is_label(top) && !top.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Written without the address, which has no place in a log.
impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_is_folded_to_lower_case() {
        for (text, address) in [
            ("ada@example.com", "ada@example.com"),
            ("Ada.Lovelace+Shop@Mail.Example.COM", "ada.lovelace+shop@mail.example.com"),
            ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ] {
            assert_eq!(EmailAddress::parse(text).unwrap().as_str(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "ada@example",
            "ada@@example.com",
            "ada@b@example.com",
            "ada@127.0.0.1",
            "ada@[127.0.0.1]",
            "ada@.example.com",
            "ada@example..com",
            "ada@example.com.",
            "ada@-example.com",
            "ada@exam_ple.com",
            ".ada@example.com",
            "ada..l@example.com",
            "\"ada\"@example.com",
            "ada lovelace@example.com",
            " ada@example.com",
            "ada@example.com\r\nBcc: all@example.com",
            "ada\0@example.com",
            "ädа@example.com",
            "Ada <ada@example.com>",
        ] {
            assert_eq!(EmailAddress::parse(text), Err(InvalidEmail), "{text:?}");
        }
        for (local, label) in [(65, 10), (10, 64), (64, 200)] {
            let text = format!("{}@{}.com", "a".repeat(local), "b".repeat(label));
            assert_eq!(EmailAddress::parse(&text), Err(InvalidEmail), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in "\\PC{0,20}@?\\PC{0,300}") {
            let _ = EmailAddress::parse(&text);
        }

        #[test]
        fn an_address_is_safe_wherever_it_is_written(text in "[ -~]{1,12}@[ -~]{1,12}\\.[a-zA-Z]{1,5}") {
            if let Ok(address) = EmailAddress::parse(&text) {
                let address = address.as_str();
                prop_assert!(address.len() <= EmailAddress::LENGTH_MAX);
                prop_assert_eq!(address.matches('@').count(), 1);
                prop_assert!(address.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!address.contains(['<', '>', ',', ';', ':', '"', '\\']));
                prop_assert!(!address.bytes().any(|byte| byte.is_ascii_uppercase()));
                let again = EmailAddress::parse(address).unwrap();
                prop_assert_eq!(again.as_str(), address);
            }
        }

        #[test]
        fn ordinary_addresses_are_taken(text in "[a-z0-9]{1,20}(\\.[a-z0-9+_-]{1,20})?@([a-z0-9]{1,20}\\.){1,3}[a-z]{2,10}") {
            let address = EmailAddress::parse(&text).unwrap();
            prop_assert_eq!(address.as_str(), text);
        }
    }
}
