//! A UDP socket that asks a reflector, and a look at the packets that come to the host before its packet filter judges
//! them.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etherparse::{SlicedPacket, TransportSlice};
use kuafu_proto::stun::{Request, Response, Transaction};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, timeout_at};

/// How long an answer is waited for, each time that a question is asked.
const WAITS: [Duration; 3] = [
    Duration::from_millis(400),
    Duration::from_millis(600),
    Duration::from_millis(1_000),
];
/// The least and the most that is waited each time where the way is known; else four times as long as that.
const WAIT: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// For the socket to be handed what was seen at the device.
const GRACE: Duration = Duration::from_millis(200);
/// After an error that may last.
const PAUSE: Duration = Duration::from_millis(10);
/// Octets of a question whose answer says everything.
const QUESTION: usize = 64;
/// Octets of IPv4 and UDP around it.
const HEADERS: usize = 28;
const LONGEST: usize = 1 << 16;

/// How an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// To the socket.
    Socket,
    /// To the host alone: its own packet filter keeps it from the socket.
    Device,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) response: Response,
    pub(super) by: By,
    /// Since the question was asked last.
    pub(super) after: Duration,
    /// This host's clock, in ms of the Unix epoch.
    pub(super) at_ms: u64,
}

/// The socket.
pub(super) struct Line {
    socket: UdpSocket,
    /// Its number.
    pub(super) port: u16,
    /// Nothing without the permission to look.
    device: Option<UdpSocket>,
}

impl Line {
    /// At a port of its own, 0: any. Its packets are never cut, however long.
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_nonblocking(true)?;
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?;
        Ok(Self {
            port: socket.local_addr()?.port(),
            socket: UdpSocket::from_std(socket)?,
            device: every_packet().ok(),
        })
    }

    /// Asks until there is an answer, at most three times; `trip` is how long another answer took, where there was one.
    pub(super) async fn ask(
        &self,
        to: SocketAddrV4,
        from_other_port: bool,
        trip: Option<Duration>,
    ) -> io::Result<Option<Heard>> {
        let request = Request::new(from_other_port)?;
        for wait in trip.map_or(WAITS, waits) {
            let asked = Instant::now();
            self.send(&request, QUESTION, to).await;
            let mine = |response: &Response, _| response.transaction == request.transaction;
            let Some((response, by)) = self.until(asked + wait, mine).await else {
                continue;
            };
            let heard = Heard {
                response,
                by,
                after: asked.elapsed(),
                at_ms: now_ms(),
            };
            let to_socket = |response: &Response, by| mine(response, by) && by == By::Socket;
            let also = by == By::Device && self.until(Instant::now() + GRACE, to_socket).await.is_some();
            return Ok(Some(if also {
                Heard {
                    by: By::Socket,
                    ..heard
                }
            } else {
                heard
            }));
        }
        Ok(None)
    }

    /// Of packets with so many octets, those that got an answer as long as they are.
    pub(super) async fn answered(
        &self,
        to: SocketAddrV4,
        lengths: &[usize],
        trip: Duration,
    ) -> io::Result<Vec<usize>> {
        let mut open: BTreeMap<Transaction, (Request, usize)> = BTreeMap::new();
        for length in lengths {
            let request = Request::new(false)?;
            open.insert(request.transaction, (request, *length));
        }
        let mut answered = Vec::new();
        for wait in waits(trip) {
            let asked = Instant::now();
            for (request, length) in open.values() {
                self.send(request, length - HEADERS, to).await;
            }
            while !open.is_empty() {
                let known = |response: &Response, _| open.contains_key(&response.transaction);
                let Some((response, _)) = self.until(asked + wait, known).await else {
                    break;
                };
                answered.extend(open.remove(&response.transaction).map(|(_, length)| length));
            }
        }
        Ok(answered)
    }

    /// What cannot be sent is as good as lost on its way.
    async fn send(&self, request: &Request, length: usize, to: SocketAddrV4) {
        let _ = self.socket.send_to(&request.to_bytes(length), to).await;
    }

    /// The next answer that is wanted.
    async fn until(
        &self,
        deadline: Instant,
        wanted: impl Fn(&Response, By) -> bool,
    ) -> Option<(Response, By)> {
        let heard = async {
            loop {
                let (response, by) = tokio::select! {
                    response = self.to_socket() => (response, By::Socket),
                    response = self.to_device() => (response, By::Device),
                };
                if let Some(response) = response.filter(|response| wanted(response, by)) {
                    return (response, by);
                }
            }
        };
        timeout_at(deadline, heard).await.ok()
    }

    async fn to_socket(&self) -> Option<Response> {
        let mut buffer = vec![0; LONGEST];
        match self.socket.recv_from(&mut buffer).await {
            Ok((length, _)) => Response::from_bytes(buffer.get(..length)?),
            Err(_) => {
                sleep(PAUSE).await;
                None
            }
        }
    }

    async fn to_device(&self) -> Option<Response> {
        let Some(device) = &self.device else {
            return std::future::pending().await;
        };
        let mut buffer = vec![0; LONGEST];
        match device.recv(&mut buffer).await {
            Ok(length) => self.carried(buffer.get(..length)?),
            Err(_) => {
                sleep(PAUSE).await;
                None
            }
        }
    }

    /// The answer in a packet to our port.
    fn carried(&self, packet: &[u8]) -> Option<Response> {
        let packet = SlicedPacket::from_ip(packet).ok()?;
        match packet.transport? {
            TransportSlice::Udp(udp) if udp.destination_port() == self.port => {
                Response::from_bytes(udp.payload())
            }
            _ => None,
        }
    }
}

/// Every packet of every device of this network, from its IP header on: a socket of another family (packet(7)), which
/// receives as one of UDP does.
fn every_packet() -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (family, kind) = (AddressFamily::Packet, SockType::Datagram);
    let socket = socket(family, kind, flags, SockProtocol::EthAll)?;
    UdpSocket::from_std(socket.into())
}

/// How long an answer is waited for where another took so long there and back.
fn waits(trip: Duration) -> [Duration; 3] {
    let [least, most] = WAIT;
    [(trip * 4).clamp(least, most); 3]
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
