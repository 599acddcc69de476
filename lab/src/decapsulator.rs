//! What a server needs that is reached by encapsulation: takes packets out of IPIP (RFC 2003), IP6IP6 (RFC 2473) and GUE
//! (draft-ietf-intarea-gue, variants 0 and 1) and hands them to its own host, as the kernel's `ipip`, `ip6tnl` and `fou`
//! devices do where there are any. A packet of IPv6 comes in one of IPv6.
//!
//! Strict where those are lenient: a packet that is not whole and right to the last octet is counted as wrong, and goes
//! nowhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_ipv6_v6only, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, bind, ipproto, recv, sendto, socket};

use crate::error::{Error, Result};
use crate::netns::Namespace;
use crate::sys;

/// IPv4 inside another header, and IPv6.
const IPIP: u8 = 4;
const IPV6: u8 = 41;
/// How long a socket waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// The most octets of a packet behind its header.
const LARGEST: usize = 65_535;

/// What was unwrapped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unwrapped {
    /// Packets out of IPIP, and out of IP6IP6.
    pub ipip: u64,
    /// Packets out of GUE, by variant.
    pub gue: [u64; 2],
    /// UDP source ports of GUE's packets, without repetition, as they came.
    pub gue_sources: Vec<u16>,
    /// What is wrong with packets that were not handed on.
    pub wrong: Vec<String>,
}

/// A running decapsulator. Dropping it ends it.
#[derive(Debug)]
pub struct Decapsulator {
    unwrapped: Arc<Mutex<Unwrapped>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Decapsulator {
    /// Starts it in `namespace`, for packets to `services`, and for GUE at `port`. The services' addresses must be the
    /// namespace's own.
    ///
    /// # Errors
    /// No raw sockets, or the port is taken.
    pub fn start(namespace: &Namespace, services: &[impl Into<IpAddr> + Copy], port: u16) -> Result<Self> {
        let services: Vec<IpAddr> = services.iter().map(|service| (*service).into()).collect();
        let mut decapsulator = Self {
            unwrapped: Arc::default(),
            ended: Arc::default(),
            threads: Vec::new(),
        };
        for family in [Family::V4, Family::V6] {
            let is_of_it = |service: &&IpAddr| service.is_ipv6() == (family == Family::V6);
            let own: Vec<IpAddr> = services.iter().filter(is_of_it).copied().collect();
            // Of IPv4 always: where nothing is to come, that is seen too.
            if family == Family::V4 || !own.is_empty() {
                let sockets = namespace.run(|| family.sockets(port))?;
                let sockets = sockets.map_err(Error::io("open a decapsulator's sockets"))?;
                decapsulator.start_of(family, &own, sockets)?;
            }
        }
        Ok(decapsulator)
    }

    fn start_of(&mut self, family: Family, services: &[IpAddr], sockets: Sockets) -> Result<()> {
        let into = |into: OwnedFd| Inside {
            family,
            services: services.to_vec(),
            into,
            unwrapped: Arc::clone(&self.unwrapped),
            ended: Arc::clone(&self.ended),
        };
        let Sockets { raw, ipip, gue } = sockets;
        let [of_ipip, of_gue] = raw.map(into);
        let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.into()).spawn(work);
            thread.map_err(Error::io("start a decapsulator"))
        };
        self.threads
            .push(start("ipip", Box::new(move || of_ipip.unwrap_ipip(&ipip)))?);
        self.threads
            .push(start("gue", Box::new(move || of_gue.unwrap_gue(&gue)))?);
        Ok(())
    }

    /// What was unwrapped so far.
    pub fn unwrapped(&self) -> Unwrapped {
        self.unwrapped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// What a family's packets come and go by.
struct Sockets {
    raw: [OwnedFd; 2],
    ipip: OwnedFd,
    gue: UdpSocket,
}

impl Family {
    fn sockets(self, port: u16) -> io::Result<Sockets> {
        let (family, protocol) = match self {
            Self::V4 => (AddressFamily::INET, ipproto::IPIP),
            Self::V6 => (AddressFamily::INET6, ipproto::IPV6),
        };
        let raw = || Ok::<_, io::Error>(socket(family, SocketType::RAW, Some(ipproto::RAW))?);
        let ipip = socket(family, SocketType::RAW, Some(protocol))?;
        set_socket_timeout(&ipip, Timeout::Recv, Some(LOOK))?;
        let gue = match self {
            Self::V4 => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?,
            Self::V6 => {
                let gue = socket(family, SocketType::DGRAM, None)?;
                set_ipv6_v6only(&gue, true)?;
                // What is inside has a checksum of its own (RFC 6935).
                sys::take_without_checksum(&gue)?;
                bind(&gue, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
                UdpSocket::from(gue)
            }
        };
        gue.set_read_timeout(Some(LOOK))?;
        Ok(Sockets {
            raw: [raw()?, raw()?],
            ipip,
            gue,
        })
    }
}

/// Where packets go that were taken out.
struct Inside {
    family: Family,
    services: Vec<IpAddr>,
    into: OwnedFd,
    unwrapped: Arc<Mutex<Unwrapped>>,
    ended: Arc<AtomicBool>,
}

impl Inside {
    fn unwrap_ipip(&self, socket: &OwnedFd) {
        let mut packet = vec![0; LARGEST];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((_, length)) = recv(socket, &mut packet[..], RecvFlags::empty()) else {
                continue;
            };
            // A raw socket of IPv6 gets what is behind the header.
            let packet = &packet[..length];
            let inner = match self.family {
                Family::V4 => outer(packet),
                Family::V6 => Ok(packet),
            };
            let inner = inner.and_then(|inner| self.hand_on(inner));
            self.note(inner, |unwrapped| unwrapped.ipip += 1);
        }
    }

    fn unwrap_gue(&self, socket: &UdpSocket) {
        let mut packet = vec![0; LARGEST];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut packet) else {
                continue;
            };
            let taken = gue(self.family, &packet[..length]);
            let handed = taken.and_then(|(variant, inner)| self.hand_on(inner).map(|()| variant));
            let variant = *handed.as_ref().unwrap_or(&0);
            self.note(handed.map(drop), |unwrapped| {
                unwrapped.gue[variant] += 1;
                let port = from.port();
                if !unwrapped.gue_sources.contains(&port) {
                    unwrapped.gue_sources.push(port);
                }
            });
        }
    }

    fn note(&self, taken: std::result::Result<(), String>, count: impl FnOnce(&mut Unwrapped)) {
        let mut unwrapped = self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner);
        match taken {
            Ok(()) => count(&mut unwrapped),
            Err(wrong) => unwrapped.wrong.push(wrong),
        }
    }

    /// Gives the host a packet as if it had arrived whole.
    fn hand_on(&self, inner: &[u8]) -> std::result::Result<(), String> {
        let (total, destination) = match self.family {
            Family::V4 => header(inner).map(|header| (header.total, header.destination.into()))?,
            Family::V6 => header_v6(inner)?,
        };
        if total != inner.len() {
            return Err(format!("inner length {total} of {}", inner.len()));
        }
        if !self.services.contains(&destination) {
            return Err(format!("inner destination {destination}"));
        }
        let to = SocketAddr::from((destination, 0));
        sendto(&self.into, inner, SendFlags::empty(), &to)
            .map(drop)
            .map_err(|error| format!("not handed on: {error}"))
    }
}

/// What matters of an IPv4 header (RFC 791).
struct Header {
    length: usize,
    total: usize,
    protocol: u8,
    destination: Ipv4Addr,
}

/// An IPv4 header, whole and right.
fn header(packet: &[u8]) -> std::result::Result<Header, String> {
    let short = || format!("{} octets are no IPv4 packet", packet.len());
    let first = packet.first().ok_or_else(short)?;
    let length = usize::from(first & 15) * 4;
    if first >> 4 != 4 || length < 20 || packet.len() < length {
        return Err(short());
    }
    let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let sum: u32 = (0..length).step_by(2).map(|at| u32::from(half(at))).sum();
    if (sum & 0xffff) + (sum >> 16) != 0xffff {
        return Err("the checksum of an IPv4 header is wrong".into());
    }
    if packet[8] == 0 {
        return Err("no time to live".into());
    }
    Ok(Header {
        length,
        total: usize::from(half(2)),
        protocol: packet[9],
        destination: Ipv4Addr::from([packet[16], packet[17], packet[18], packet[19]]),
    })
}

/// Octets and destination of a packet of IPv6 by its header (RFC 8200).
fn header_v6(packet: &[u8]) -> std::result::Result<(usize, IpAddr), String> {
    let short = || format!("{} octets are no IPv6 packet", packet.len());
    let head: &[u8; 40] = packet.first_chunk().ok_or_else(short)?;
    if head[0] >> 4 != 6 {
        return Err(short());
    }
    if head[7] == 0 {
        return Err("no hops left".into());
    }
    let behind = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let mut destination = [0; 16];
    destination.copy_from_slice(&head[24..]);
    Ok((head.len() + behind, Ipv6Addr::from(destination).into()))
}

/// What is behind the outer header of an IPIP packet.
fn outer(packet: &[u8]) -> std::result::Result<&[u8], String> {
    let header = header(packet)?;
    if header.total != packet.len() || header.protocol != IPIP {
        return Err(format!(
            "outer length {} of {}, protocol {}",
            header.total,
            packet.len(),
            header.protocol
        ));
    }
    Ok(&packet[header.length..])
}

/// Variant and packet of a GUE datagram.
fn gue(family: Family, datagram: &[u8]) -> std::result::Result<(usize, &[u8]), String> {
    let (protocol, version) = match family {
        Family::V4 => (IPIP, 4),
        Family::V6 => (IPV6, 6),
    };
    match datagram {
        // Variant 0, no control message, no optional fields, no flags.
        [0, inside, 0, 0, inner @ ..] if *inside == protocol => Ok((0, inner)),
        // Variant 1: the version of IP begins with its bits.
        [first, ..] if first >> 4 == version => Ok((1, datagram)),
        other => Err(format!("GUE begins with {:02x?}", &other[..other.len().min(4)])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The IPv4 header of a packet of 115 octets, right to its checksum.
    const WHOLE: [u8; 20] = [
        0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7,
    ];

    #[test]
    fn what_is_not_whole_is_refused() {
        let read = header(&WHOLE).unwrap();
        assert_eq!((read.length, read.total, read.protocol), (20, 0x73, 17));
        assert_eq!(read.destination, Ipv4Addr::new(192, 168, 0, 199));
        assert!(header(&WHOLE[..19]).is_err());
        for at in 0..20 {
            let mut other = WHOLE;
            other[at] ^= 1;
            assert!(header(&other).is_err(), "octet {at}");
        }
        assert!(outer(&WHOLE).is_err());
    }

    #[test]
    fn both_variants_are_told_apart() {
        assert_eq!(
            gue(Family::V4, &[&[0, 4, 0, 0][..], &WHOLE].concat()).unwrap(),
            (0, &WHOLE[..])
        );
        assert_eq!(gue(Family::V4, &WHOLE).unwrap(), (1, &WHOLE[..]));
        for wrong in [&[0x20, 4, 0, 0][..], &[0, 41, 0, 0], &[1, 4, 0, 0], &[0, 4], &[]] {
            assert!(gue(Family::V4, wrong).is_err(), "{wrong:02x?}");
        }
        assert_eq!(gue(Family::V6, &[0, 41, 0, 0, 9]).unwrap(), (0, &[9][..]));
        assert_eq!(gue(Family::V6, &[0x60, 9]).unwrap(), (1, &[0x60, 9][..]));
        assert!(gue(Family::V6, &WHOLE).is_err());
    }

    #[test]
    fn a_header_of_ipv6_says_its_length_and_where_it_goes() {
        let mut packet = [0; 48];
        (packet[0], packet[5], packet[7], packet[39]) = (0x60, 8, 64, 1);
        let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
        assert_eq!(header_v6(&packet), Ok((48, loopback)));
        assert!(header_v6(&packet[..39]).is_err());
        packet[7] = 0;
        assert!(header_v6(&packet).is_err(), "no hops");
        assert!(header_v6(&[0x45; 48]).is_err(), "IPv4");
    }
}
