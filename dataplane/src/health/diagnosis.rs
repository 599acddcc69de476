//! Why a server does not answer behind an outer header, where it answers otherwise: what its set-up lacks.
//!
//! Three further questions tell it: to its own address without the header, to that behind it, and whether its kernel
//! refuses the header itself.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use kuafu_model::health::Subject;
use kuafu_model::state::Encapsulation;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, ipproto, recv, send,
    socket_with,
};

use super::ask::{Way, ask};

/// How long a refusal is waited for.
const REFUSAL: Duration = Duration::from_millis(500);
/// As long as an IP header, and none: whoever takes it out drops it.
const NOTHING: [u8; 40] = [0; 40];

/// What keeps a server from answering that answers its clients itself; nothing where that cannot be told, since it
/// answers nothing at all.
pub async fn of(subject: &Subject, way: &Way) -> Option<String> {
    let encapsulation = subject.encapsulation?;
    let header = match encapsulation {
        Encapsulation::Ipip if subject.server.is_ipv6() => "IP6IP6".to_owned(),
        Encapsulation::Ipip => "IPIP".to_owned(),
        Encapsulation::Gue { port, .. } => format!("GUE at port {port}"),
        // A port's own address is its VPC's: nothing can be asked there.
        Encapsulation::Vxlan { .. } => return None,
    };
    let (server, service) = (subject.server, way.to.ip());
    let own = SocketAddr::new(server, way.to.port());
    let lives = async |mark| {
        let way = Way {
            to: own,
            mark,
            ..*way
        };
        match ask(&subject.check, &way).await {
            Ok(()) => true,
            // It has heard, and only its program has not.
            Err(failure) => failure.is_refusal(),
        }
    };
    if !lives(None).await {
        return None;
    }
    if lives(way.mark).await {
        return Some(format!(
            "it takes packets out of {header}, but {service} is not its address: add that to lo"
        ));
    }
    let from = way.from;
    let asked = tokio::task::spawn_blocking(move || refuses(encapsulation, (from, server)));
    Some(if asked.await.is_ok_and(|refuses| refuses) {
        format!("it answers at {server}, but no device there takes packets out of {header}")
    } else if server.is_ipv6() {
        // There is no filter of sources in its kernel.
        format!("it answers at {server}, but not what comes in {header}: see what its packet filter drops")
    } else {
        format!(
            "it answers at {server}, but not what comes in {header}: rp_filter of the device that takes them out, \
             and of all, must be 0 or 2"
        )
    })
}

/// Whether a server's kernel says that it knows nothing of the header. Blocks.
fn refuses(encapsulation: Encapsulation, ends: (IpAddr, IpAddr)) -> bool {
    match encapsulation {
        Encapsulation::Ipip => refuses_ipip(ends).unwrap_or(false),
        Encapsulation::Gue { port, .. } => refuses_gue(ends, port).unwrap_or(false),
        Encapsulation::Vxlan { .. } => false,
    }
}

/// An ICMP error about the protocol.
fn refuses_ipip((from, server): (IpAddr, IpAddr)) -> rustix::io::Result<bool> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    let (family, protocol) = match server {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::IPIP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::IPV6),
    };
    let socket = socket_with(family, kind, flags, Some(protocol))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(REFUSAL))?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    connect(&socket, &SocketAddr::new(server, 0))?;
    send(&socket, &NOTHING, SendFlags::empty())?;
    let heard = recv(&socket, &mut [0; 1], RecvFlags::empty());
    // Without the module, of IPv6 too, and without a device.
    Ok(matches!(
        heard,
        Err(Errno::NOPROTOOPT | Errno::PROTO | Errno::CONNREFUSED)
    ))
}

/// An ICMP error about the port.
fn refuses_gue((from, server): (IpAddr, IpAddr), port: u16) -> std::io::Result<bool> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_read_timeout(Some(REFUSAL))?;
    socket.connect((server, port))?;
    socket.send(&NOTHING)?;
    let heard = socket.recv(&mut [0]);
    Ok(heard.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
}
