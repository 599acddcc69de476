//! The host's own connections to its controller.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use super::sockets::{self, ESTABLISHED, Socket};
use crate::error::Result;

/// A connection: its end here, and the controller's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) local: SocketAddrV4,
    pub(super) remote: Ipv4Addr,
}

/// The established connections to a controller's port elsewhere.
///
/// # Errors
/// `Io` where the kernel's tables cannot be read.
pub(super) fn connections(port: u16) -> Result<Vec<Connection>> {
    let sockets = sockets::all("tcp")?;
    let connections = sockets.iter().filter_map(|socket| connection(socket, port));
    Ok(connections.collect())
}

fn connection(socket: &Socket, port: u16) -> Option<Connection> {
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (socket.local.ip(), socket.remote.ip()) else {
        return None;
    };
    let is_control = socket.state == ESTABLISHED && socket.remote.port() == port && !remote.is_loopback();
    is_control.then_some(Connection {
        local: SocketAddrV4::new(local, socket.local.port()),
        remote,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_the_controller_is_told_from_others() {
        let found = |remote: &str, state| {
            let socket = Socket {
                local: "192.0.2.1:49153".parse().unwrap(),
                remote: remote.parse().unwrap(),
                state,
            };
            connection(&socket, 7440)
        };
        let expected = Connection {
            local: "192.0.2.1:49153".parse().unwrap(),
            remote: Ipv4Addr::new(192, 0, 2, 9),
        };
        assert_eq!(found("192.0.2.9:7440", ESTABLISHED), Some(expected));
        assert_eq!(found("192.0.2.9:7440", sockets::LISTENS), None, "not connected");
        assert_eq!(found("192.0.2.9:443", ESTABLISHED), None, "elsewhere");
        assert_eq!(found("127.0.0.1:7440", ESTABLISHED), None, "on this host");
    }
}
