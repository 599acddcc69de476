//! Which ports programs of this host listen on.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use super::sockets::{self, LISTENS, Socket, UNCONNECTED};
use crate::error::Result;

/// A port of the range on which a socket of this host takes packets for `local`.
///
/// # Errors
/// `Io` where the kernel's tables cannot be read.
pub(super) fn in_range(range: &RangeInclusive<u16>, local: Ipv4Addr) -> Result<Option<u16>> {
    for (protocol, state) in [("tcp", LISTENS), ("udp", UNCONNECTED)] {
        let sockets = sockets::all(protocol)?;
        let mut ports = sockets.iter().filter_map(|socket| port(socket, state, local));
        if let Some(port) = ports.find(|port| range.contains(port)) {
            return Ok(Some(port));
        }
    }
    Ok(None)
}

/// The port of a socket in this state, at `local` or at any address.
fn port(socket: &Socket, state: u8, local: Ipv4Addr) -> Option<u16> {
    let at = socket.local.ip();
    let is_here = at.is_unspecified() || at == local;
    (socket.state == state && is_here).then_some(socket.local.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_told_from_others() {
        let local = Ipv4Addr::new(127, 0, 0, 1);
        let port = |at: &str, state| {
            let socket = Socket {
                local: at.parse().unwrap(),
                remote: "0.0.0.0:0".parse().unwrap(),
                state,
            };
            port(&socket, LISTENS, local)
        };
        for here in ["127.0.0.1:10000", "0.0.0.0:10000", "[::]:10000"] {
            assert_eq!(port(here, LISTENS), Some(10_000));
        }
        assert_eq!(port("127.0.0.1:10000", sockets::ESTABLISHED), None, "connected");
        assert_eq!(port("10.0.0.5:10000", LISTENS), None, "elsewhere");
    }
}
