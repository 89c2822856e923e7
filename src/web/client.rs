//! Where a request comes from: the address that the limits count by.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use poem::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// How many proxies of ours a request passes before it is here; each writes into `X-Forwarded-For`
/// whom it was asked by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrustedProxies(pub u8);

/// The address of whoever sent a request to the first of our proxies, or to us where there is none.
///
/// Each trusted proxy has added one entry at the right of `X-Forwarded-For`; what stands left of those
/// is whatever the client wrote, and never read. Where an entry is missing or is no address, the request
/// did not come by way of all the proxies, and counts as coming from the peer.
pub(super) fn address(peer: SocketAddr, headers: &HeaderMap, proxies: TrustedProxies) -> IpAddr {
    let peer = peer.ip().to_canonical();
    let Some(place) = usize::from(proxies.0).checked_sub(1) else { return peer };
    // Several headers are one list, in their order (RFC 9110, 5.3).
    let entry = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','))
        .nth(place);
    entry.and_then(read).unwrap_or(peer)
}

/// Reads `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:4711`.
fn read(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare
        .parse::<IpAddr>()
        .ok()
        .filter(|address| bare.len() == entry.len() || address.is_ipv6())
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(address.to_canonical())
}

/// What one subscriber has: an IPv4 address, or an IPv6 network of 64 bits, within which a client takes
/// a new address whenever it likes (RFC 8981).
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "198.51.100.1:4711";

    fn of(proxies: u8, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        address(PEER.parse().unwrap(), &headers, TrustedProxies(proxies)).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        for (proxies, lines, address) in [
            // Without a proxy of ours the header is anybody's.
            (0, &[][..], "198.51.100.1"),
            (0, &["192.0.2.1"], "198.51.100.1"),
            (1, &["192.0.2.1"], "192.0.2.1"),
            // What the client wrote stands at the left.
            (1, &["10.0.0.1, 127.0.0.1, 192.0.2.1"], "192.0.2.1"),
            (2, &["10.0.0.1, 192.0.2.1, 203.0.113.9"], "192.0.2.1"),
            // Several headers are one list.
            (1, &["10.0.0.1", "192.0.2.1"], "192.0.2.1"),
            (2, &["10.0.0.1,192.0.2.1", "203.0.113.9"], "192.0.2.1"),
            (3, &["192.0.2.1", "203.0.113.8,203.0.113.9"], "192.0.2.1"),
            // Who comes by fewer proxies than there are is the peer.
            (1, &[], "198.51.100.1"),
            (2, &["192.0.2.1"], "198.51.100.1"),
            (8, &["192.0.2.1, 192.0.2.2"], "198.51.100.1"),
        ] {
            assert_eq!(of(proxies, lines), address, "{proxies} {lines:?}");
        }
    }

    #[test]
    fn an_address_may_have_a_port_and_brackets_and_nothing_else() {
        for (entry, address) in [
            (" 192.0.2.1\t", Some("192.0.2.1")),
            ("192.0.2.1:4711", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4711", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("[::ffff:192.0.2.1]:1", Some("192.0.2.1")),
            ("", None),
            ("unknown", None),
            ("_hidden", None),
            ("[192.0.2.1]", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:70000", None),
            ("192.0.2.256", None),
            ("0xC0000201", None),
            ("3221225985", None),
            ("fe80::1%eth0", None),
            ("\"192.0.2.1\"", None),
            ("192.0.2.1 192.0.2.2", None),
            ("\u{661}92.0.2.1", None),
        ] {
            let expected = address.unwrap_or("198.51.100.1");
            assert_eq!(of(1, &[entry]), expected, "{entry:?}");
        }
    }

    #[test]
    fn the_peer_is_itself_however_its_socket_writes_it() {
        let peer = "[::ffff:192.0.2.7]:80".parse().unwrap();

        let address = address(peer, &HeaderMap::new(), TrustedProxies(1));

        assert_eq!(address.to_string(), "192.0.2.7");
    }

    #[test]
    fn a_subscriber_has_one_network() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("::1", "::"),
        ] {
            assert_eq!(network(address.parse().unwrap()).to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_the_proxys_word_counts(
            forged in proptest::collection::vec("[ -~]{0,40}", 0..6),
            first in "[0-9a-f:., \\[\\]]{0,60}",
            client in any::<[u8; 4]>(),
        ) {
            let client = IpAddr::from(client);
            let mut lines: Vec<_> = forged.iter().map(String::as_str).collect();
            // A proxy appends to the last line, or writes one of its own.
            let appended = format!("{first}, {client}");
            lines.push(&appended);

            prop_assert_eq!(of(1, &lines), client.to_string());
            prop_assert_eq!(of(0, &lines), "198.51.100.1");
        }

        #[test]
        fn any_header_has_an_address(bytes in proptest::collection::vec(any::<u8>(), 0..100), proxies in any::<u8>()) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                headers.append(FORWARDED_FOR, value);
            }
            let _ = address(PEER.parse().unwrap(), &headers, TrustedProxies(proxies));
        }
    }
}
