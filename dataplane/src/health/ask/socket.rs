//! The sockets of all questions: each is marked before its first packet.

use std::net::{SocketAddr, UdpSocket as Plain};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::{Failure, Way};

/// The largest payload of a datagram.
pub(super) const DATAGRAM: usize = 65_507;

/// A connection to the server.
///
/// It ends with a reset, however it ends. Who closes first keeps `TIME_WAIT` for a minute, and a check a second to
/// hundreds of servers would fill this host's ports with it; nothing is lost, for the answer has been read.
pub(super) async fn tcp(way: &Way) -> Result<TcpStream, Failure> {
    let from = source(way)?;
    let socket = if from.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(Failure::host("open a socket"))?;
    mark(&socket, way)?;
    socket
        .set_zero_linger()
        .and_then(|()| socket.set_nodelay(true))
        .map_err(Failure::host("prepare the socket"))?;
    socket.bind(from).map_err(Failure::host("bind the socket"))?;
    Ok(socket.connect(way.to).await?)
}

/// A socket that hears the server alone, and of its ICMP: a port that nobody listens on refuses.
pub(super) fn udp(way: &Way) -> Result<UdpSocket, Failure> {
    let socket = Plain::bind(source(way)?).map_err(Failure::host("bind a socket"))?;
    mark(&socket, way)?;
    socket.connect(way.to)?;
    socket
        .set_nonblocking(true)
        .and_then(|()| UdpSocket::from_std(socket))
        .map_err(Failure::host("prepare the socket"))
}

/// Where it is asked from.
fn source(way: &Way) -> Result<SocketAddr, Failure> {
    if way.from.is_unspecified() {
        let why = "no route leads from an address of its own to the servers of IPv6";
        return Err(Failure::Host(why.into()));
    }
    Ok(SocketAddr::new(way.from, 0))
}

fn mark(socket: &impl AsFd, way: &Way) -> Result<(), Failure> {
    let Some(mark) = way.mark else {
        return Ok(());
    };
    let marked = setsockopt(socket, sockopt::Mark, &mark);
    marked.map_err(|error| Failure::host("mark the socket")(error.into()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use nix::sys::socket::getsockopt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn both_kinds_bear_the_mark() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Way {
            from: Ipv4Addr::new(127, 0, 0, 3).into(),
            to: server.local_addr().unwrap(),
            mark: Some(0x4b46_0007),
        };
        let stream = match tcp(&way).await {
            Err(Failure::Host(reason)) if reason.contains("not permitted") => {
                return eprintln!("skipped: {reason}");
            }
            stream => stream.unwrap(),
        };
        let socket = udp(&way).unwrap();
        assert_eq!(getsockopt(&stream, sockopt::Mark), Ok(0x4b46_0007));
        assert_eq!(getsockopt(&socket, sockopt::Mark), Ok(0x4b46_0007));
        assert_eq!(stream.local_addr().unwrap().ip(), way.from);
        assert_eq!(socket.local_addr().unwrap().ip(), way.from);
    }
}
