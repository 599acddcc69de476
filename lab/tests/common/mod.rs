//! What the lab's tests share.
#![allow(
    dead_code,
    reason = "each test file is a crate of its own and uses a part of this"
)]

pub(crate) mod net;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use kuafu_lab::Namespace;

/// Prints why a test is skipped, when it cannot run here.
pub(crate) fn skipped() -> bool {
    kuafu_lab::unavailable()
        .inspect(|why| kuafu_lab::skip(why))
        .is_some()
}

/// A prefix that no other test and no other run uses.
pub(crate) fn prefix(test: &str) -> String {
    format!("kt{}-{test}", std::process::id())
}

/// A UDP socket bound inside a namespace, whose reads end after two seconds.
pub(crate) fn udp(namespace: &Namespace, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Sends `text` from one socket to `to` and returns who it came from at the other.
pub(crate) fn pass(from: &UdpSocket, to: SocketAddr, at: &UdpSocket, text: &str) -> SocketAddr {
    from.send_to(text.as_bytes(), to).unwrap();
    let mut buffer = [0; 2048];
    let (length, peer) = at.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], text.as_bytes());
    peer
}
