//! Ports for processes that a test starts.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Where tests that run beside each other do not all begin.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..COUNT)));

/// A port that nobody listens at and that this test was not given before, below those that outgoing
/// connections are given: a process that is restarted gets its own back.
pub(crate) fn free_port() -> SocketAddr {
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
