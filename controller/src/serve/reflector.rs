//! Two UDP ports that tell a host how it looks from here (RFC 8489, RFC 5780): `kuafu doctor` asks them before a host
//! joins.
//!
//! Anyone may ask. So nothing is remembered of who did, an answer is never longer than its question (whoever forges a
//! source gains nothing by us), and each port gives [`RATE`] answers a second at most.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kuafu_proto::stun::{LONGEST_PACKET, Request, Response};
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Answers a second of each port, and as many at once after a pause.
const RATE: u32 = 250;
/// After an error of a socket, so that one that lasts costs nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// The reflector, until it is dropped.
#[derive(Debug)]
pub(super) struct Reflector {
    ports: [u16; 2],
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Reflector {
    /// Opens a port of the same number as a TCP port that is listened on, and `second` beside it, on the same address.
    ///
    /// # Errors
    /// One is taken, or the address is none of IPv4.
    pub(super) fn start(beside: SocketAddr, second: u16) -> io::Result<Self> {
        let address = match beside.ip().to_canonical() {
            IpAddr::V4(address) => address,
            IpAddr::V6(any) if any.is_unspecified() => Ipv4Addr::UNSPECIFIED,
            IpAddr::V6(_) => return Err(io::Error::other("it answers over IPv4 alone")),
        };
        let sockets = [open(address, beside.port())?, open(address, second)?];
        let ports = [sockets[0].local_addr()?.port(), sockets[1].local_addr()?.port()];
        let sockets = Arc::new(sockets);
        let tasks = [0, 1].map(|own| tokio::spawn(serve(Arc::clone(&sockets), ports, own)));
        Ok(Self { ports, tasks })
    }

    /// The two ports.
    pub(super) const fn ports(&self) -> [u16; 2] {
        self.ports
    }
}

/// A socket whose answers are never cut into fragments, and which says to which of our addresses a packet came.
fn open(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind((address, port))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
    UdpSocket::from_std(socket)
}

/// Answers what comes to one of the two ports.
async fn serve(sockets: Arc<[UdpSocket; 2]>, ports: [u16; 2], own: usize) {
    let mut rate = Rate::new(Instant::now());
    let mut buffer = vec![0; LONGEST_PACKET];
    loop {
        let asked = sockets[own]
            .async_io(Interest::READABLE, || receive(&sockets[own], &mut buffer))
            .await;
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => {
                tracing::debug!(%error, "the reflector received nothing");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(Asked { length, from, to }) = asked else {
            continue;
        };
        let other = SocketAddrV4::new(to, ports[1 - own]);
        let Some(answer) = answer(&buffer[..length], from, other, now_ms()) else {
            continue;
        };
        if rate.allows(Instant::now()) {
            let by = if answer.from_other_port { 1 - own } else { own };
            // An answer that cannot be sent is one that did not arrive.
            let _ = sockets[by].try_io(Interest::WRITABLE, || {
                send(&sockets[by], &answer.octets, from, to)
            });
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A datagram: who sent it, and to which of our addresses.
struct Asked {
    length: usize,
    from: SocketAddrV4,
    to: Ipv4Addr,
}

/// The next datagram; nothing where it is too long, or does not say whence or where to.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Asked>> {
    let mut control = nix::cmsg_space!(in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Ok(None);
    }
    let info = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
        _ => None,
    });
    let (Some(info), Some(from)) = (info, message.address) else {
        return Ok(None);
    };
    Ok(Some(Asked {
        length: message.bytes,
        from: from.into(),
        to: Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()),
    }))
}

/// Sends from the address that was asked: a host may have many, and an answer from another finds no way back through
/// a NAT.
fn send(socket: &UdpSocket, octets: &[u8], to: SocketAddrV4, from: Ipv4Addr) -> io::Result<usize> {
    let info = in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from_ne_bytes(from.octets()),
        },
        ipi_addr: in_addr { s_addr: 0 },
    };
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let (parts, flags) = ([IoSlice::new(octets)], MsgFlags::MSG_DONTWAIT);
    let to = SockaddrIn::from(to);
    Ok(sendmsg(socket.as_raw_fd(), &parts, &control, flags, Some(&to))?)
}

/// What is sent back.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    octets: Vec<u8>,
    from_other_port: bool,
}

/// The answer to a datagram, if it is a question and long enough for one: as long as the question, so that a padded one
/// shows both ways how long packets may be.
fn answer(question: &[u8], from: SocketAddrV4, other: SocketAddrV4, now_ms: u64) -> Option<Answer> {
    let request = Request::from_bytes(question)?;
    let response = Response {
        transaction: request.transaction,
        mapped: from,
        other: Some(other),
        clock_ms: Some(now_ms),
    };
    (from.port() != 0).then_some(Answer {
        octets: response.to_bytes(question.len())?,
        from_other_port: request.from_other_port,
    })
}

/// Counts answers: [`RATE`] a second, of which as many may be saved up.
#[derive(Debug)]
struct Rate {
    left: u32,
    since: Instant,
}

impl Rate {
    const fn new(now: Instant) -> Self {
        Self {
            left: RATE,
            since: now,
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7_441);
    const FROM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 7), 6_081);

    #[test]
    fn an_answer_is_as_long_as_its_question() {
        let request = Request::new(true).unwrap();
        assert_eq!(
            answer(&request.to_bytes(0), FROM, OTHER, 5),
            None,
            "28 octets, too few for an answer"
        );
        for length in [32, 44, 56, 1_472] {
            let answer = answer(&request.to_bytes(length), FROM, OTHER, 5).unwrap();
            assert_eq!(answer.octets.len(), length);
            assert!(answer.from_other_port);
            let response = Response::from_bytes(&answer.octets).unwrap();
            assert_eq!(
                (response.transaction, response.mapped),
                (request.transaction, FROM)
            );
            assert_eq!(response.other.is_some(), length >= 44);
        }
        let answer = answer(&request.to_bytes(100), FROM, OTHER, 5).unwrap();
        assert_eq!(
            super::answer(&answer.octets, FROM, OTHER, 5),
            None,
            "two reflectors do not talk"
        );
    }

    #[test]
    fn no_port_answers_more_often_than_it_may() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let allowed = |rate: &mut Rate, at| (0..2 * RATE).filter(|_| rate.allows(start + at)).count();
        assert_eq!(allowed(&mut rate, Duration::from_millis(10)), RATE as usize);
        assert_eq!(allowed(&mut rate, Duration::from_millis(900)), 0);
        assert_eq!(allowed(&mut rate, Duration::from_millis(1_000)), RATE as usize);
    }

    /// Over real sockets: from the port that was asked and from the other, and from the address that was asked.
    #[tokio::test]
    async fn answers_come_from_where_they_were_asked_for() {
        let first = SocketAddr::from(([0, 0, 0, 0], 0));
        let reflector = Reflector::start(first, 0).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 9)] {
            for (asked, from_other_port, answers) in
                [(0, false, 0), (0, true, 1), (1, false, 1), (1, true, 0)]
            {
                let to = SocketAddrV4::new(address, reflector.ports[asked]);
                let question = Request::new(from_other_port).unwrap();
                socket.send_to(&question.to_bytes(60), to).await.unwrap();
                let mut buffer = [0; 100];
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                assert_eq!(from, SocketAddr::from((address, reflector.ports[answers])));
                let response = Response::from_bytes(&buffer[..length]).unwrap();
                assert_eq!(SocketAddr::from(response.mapped), socket.local_addr().unwrap());
                assert_eq!(
                    response.other,
                    Some(SocketAddrV4::new(address, reflector.ports[1 - asked]))
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_octets_get_no_more_than_they_are(question in prop::collection::vec(any::<u8>(), 0..300)) {
            let length = answer(&question, FROM, OTHER, 5).map_or(0, |answer| answer.octets.len());
            prop_assert!(length <= question.len());
        }
    }
}
