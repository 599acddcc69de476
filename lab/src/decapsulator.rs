//! What a server needs that is reached by encapsulation: takes IPv4 packets out of IPIP (RFC 2003) and of GUE
//! (draft-ietf-intarea-gue, variants 0 and 1) and hands them to its own host, as the kernel's `ipip` and `fou` devices
//! do where there are any.
//!
//! Strict where those are lenient: a packet that is not whole and right to the last octet is counted as wrong, and goes
//! nowhere.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

use crate::error::{Error, Result};
use crate::netns::Namespace;

/// IPv4 inside another header.
const IPIP: u8 = 4;
/// How long a socket waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// The most octets of an IPv4 packet.
const LARGEST: usize = 65_535;

/// What was unwrapped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unwrapped {
    /// Packets out of IPIP.
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
    pub fn start(namespace: &Namespace, services: &[Ipv4Addr], port: u16) -> Result<Self> {
        let sockets = namespace.run(|| -> io::Result<_> {
            let raw =
                || Ok::<_, io::Error>(socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?);
            let ipip = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::IPIP))?;
            set_socket_timeout(&ipip, Timeout::Recv, Some(LOOK))?;
            let gue = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            gue.set_read_timeout(Some(LOOK))?;
            Ok(([raw()?, raw()?], ipip, gue))
        })?;
        let ([first, second], ipip, gue) = sockets.map_err(Error::io("open a decapsulator's sockets"))?;
        let (unwrapped, ended) = <(Arc<Mutex<Unwrapped>>, Arc<AtomicBool>)>::default();
        let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.into()).spawn(work);
            thread.map_err(Error::io("start a decapsulator"))
        };
        let into = |into: OwnedFd| Inside {
            services: services.to_vec(),
            into,
            unwrapped: Arc::clone(&unwrapped),
            ended: Arc::clone(&ended),
        };
        let (of_ipip, of_gue) = (into(first), into(second));
        let threads = vec![
            start("ipip", Box::new(move || of_ipip.unwrap_ipip(&ipip)))?,
            start("gue", Box::new(move || of_gue.unwrap_gue(&gue)))?,
        ];
        Ok(Self {
            unwrapped,
            ended,
            threads,
        })
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

/// Where packets go that were taken out.
struct Inside {
    services: Vec<Ipv4Addr>,
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
            let inner = outer(&packet[..length]).and_then(|inner| self.hand_on(inner));
            self.note(inner, |unwrapped| unwrapped.ipip += 1);
        }
    }

    fn unwrap_gue(&self, socket: &UdpSocket) {
        let mut packet = vec![0; LARGEST];
        while !self.ended.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut packet) else {
                continue;
            };
            let taken = gue(&packet[..length]);
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
        let header = header(inner)?;
        if header.total != inner.len() {
            return Err(format!("inner length {} of {}", header.total, inner.len()));
        }
        if !self.services.contains(&header.destination) {
            return Err(format!("inner destination {}", header.destination));
        }
        let to = SocketAddr::from((header.destination, 0));
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
fn gue(datagram: &[u8]) -> std::result::Result<(usize, &[u8]), String> {
    match datagram {
        // Variant 0, no control message, no optional fields, no flags.
        [0, IPIP, 0, 0, inner @ ..] => Ok((0, inner)),
        // Variant 1: the version of IPv4 begins with its bits.
        [first, ..] if first >> 4 == 4 => Ok((1, datagram)),
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
            gue(&[&[0, 4, 0, 0][..], &WHOLE].concat()).unwrap(),
            (0, &WHOLE[..])
        );
        assert_eq!(gue(&WHOLE).unwrap(), (1, &WHOLE[..]));
        for wrong in [&[0x20, 4, 0, 0][..], &[0, 41, 0, 0], &[1, 4, 0, 0], &[0, 4], &[]] {
            assert!(gue(wrong).is_err(), "{wrong:02x?}");
        }
    }
}
