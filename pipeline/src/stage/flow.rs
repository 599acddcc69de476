//! A flow: what tells the packets of one conversation from others.

use crate::header::ipv4::{TCP, UDP};
use crate::header::{Ipv4, Ipv6, Udp, be32};
use crate::map::{Be16, ConnectionKey, IpKey, ServiceKey};

/// The five-tuple of a packet, in host order; the addresses of IPv6 as keys have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A = u32> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// TCP or UDP.
    pub protocol: u8,
    /// What of its datagram the packet has.
    pub part: Part,
}

/// What of its datagram a packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All.
    Whole,
    /// The first fragment, with the ports.
    First,
    /// Another fragment; the IP packet of the first one had so many octets.
    Later(u16),
}

/// An address of either family.
pub trait Address: Copy {
    /// As part of a key.
    fn key(self) -> IpKey;
    /// As one word.
    fn word(self) -> u32;
}

impl Address for u32 {
    #[inline(always)]
    fn key(self) -> IpKey {
        IpKey::v4(self)
    }

    #[inline(always)]
    fn word(self) -> u32 {
        self
    }
}

impl Address for IpKey {
    #[inline(always)]
    fn key(self) -> IpKey {
        self
    }

    #[inline(always)]
    fn word(self) -> u32 {
        let [high, low] = self.words();
        let upper = mix(high as u32, (high >> 32) as u32, 0);
        mix(upper, low as u32, (low >> 32) as u32)
    }
}

impl Flow {
    /// Of a connection's key, where its addresses are IPv4.
    #[inline(always)]
    #[must_use]
    pub fn of_connection(key: &ConnectionKey) -> Option<Self> {
        Some(Self {
            source: key.source.as_v4()?,
            destination: key.destination.as_v4()?,
            source_port: key.source_port.get(),
            destination_port: key.destination_port.get(),
            protocol: key.protocol as u8,
            part: Part::Whole,
        })
    }

    /// Of the IPv4 header at octet `IP` (without options) and the ports at `PORTS`, taken for that of a whole datagram.
    #[inline(always)]
    #[must_use]
    pub fn at<const IP: usize, const PORTS: usize, const N: usize>(head: &mut [u8; N]) -> Self {
        let udp = Udp::at::<PORTS, N>(head);
        let (source_port, destination_port) = (udp.source(), udp.destination());
        let ip = Ipv4::at::<IP, N>(head);
        Self {
            source: ip.source(),
            destination: ip.destination(),
            source_port,
            destination_port,
            protocol: ip.protocol(),
            part: Part::Whole,
        }
    }
}

impl Flow<IpKey> {
    /// Of the IPv6 header at octet `IP` and the ports at `PORTS`, right behind it.
    #[inline(always)]
    #[must_use]
    pub fn of_v6<const IP: usize, const PORTS: usize, const N: usize>(head: &mut [u8; N]) -> Self {
        let udp = Udp::at::<PORTS, N>(head);
        let (source_port, destination_port) = (udp.source(), udp.destination());
        let ip = Ipv6::at::<IP, N>(head);
        Self {
            source: ip.source(),
            destination: ip.destination(),
            source_port,
            destination_port,
            protocol: ip.next_header(),
            part: Part::Whole,
        }
    }
}

impl<A: Address> Flow<A> {
    /// The way back.
    #[inline(always)]
    #[must_use]
    pub fn turned_round(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            part: self.part,
        }
    }

    /// As the key of a connection.
    #[inline(always)]
    #[must_use]
    pub fn connection(&self, vni: u32) -> ConnectionKey {
        ConnectionKey::new(
            vni,
            [self.source.key(), self.destination.key()],
            [Be16::new(self.source_port), Be16::new(self.destination_port)],
            self.protocol as u32,
        )
    }

    /// The listener that it is addressed to.
    #[inline(always)]
    #[must_use]
    pub fn service(&self, vni: u32) -> ServiceKey {
        ServiceKey {
            address: self.destination.key(),
            vni,
            port: Be16::new(self.destination_port),
            protocol: self.protocol,
            spare: 0,
        }
    }

    /// The listener for all ports, where there is one.
    #[inline(always)]
    #[must_use]
    pub fn any_port(&self) -> ServiceKey {
        ServiceKey {
            port: Be16::new(0),
            ..self.service(0)
        }
    }

    /// A number that spreads flows evenly.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self) -> u32 {
        let ports = (self.source_port as u32) << 16 | self.destination_port as u32;
        mix(
            self.source.word(),
            self.destination.word(),
            ports ^ (self.protocol as u32).wrapping_mul(0x9e37_79b1),
        )
    }

    /// The same for all flows of a client to an address.
    #[inline(always)]
    #[must_use]
    pub fn hash_of_client(&self) -> u32 {
        mix(self.source.word(), self.destination.word(), 0)
    }

    /// The same for all flows to a port.
    #[inline(always)]
    #[must_use]
    pub fn hash_of_port(&self) -> u32 {
        mix(0, self.destination.word(), self.destination_port as u32)
    }
}

/// A number that spreads the flows of any IPv4 packet: its addresses, and its ports where it has them.
#[inline(always)]
#[must_use]
pub fn hash_of_packet<const AT: usize, const PORTS: usize, const N: usize>(head: &mut [u8; N]) -> u32 {
    let ports = be32::<PORTS, N>(head);
    let ip = Ipv4::at::<AT, N>(head);
    let has_ports =
        ip.version_and_length() == 0x45 && !ip.is_fragment() && matches!(ip.protocol(), TCP | UDP);
    let ports = if has_ports { ports } else { 0 };
    mix(ip.source(), ip.destination(), ports)
}

/// Three words to one: multiplications by odd constants and the finaliser of MurmurHash3 (Appleby).
#[inline(always)]
pub(super) const fn mix(a: u32, b: u32, c: u32) -> u32 {
    let sum = a.wrapping_mul(0x85eb_ca77) ^ b.wrapping_mul(0xc2b2_ae3d).rotate_left(13);
    let mut hash = sum ^ c.wrapping_mul(0x27d4_eb2f).rotate_left(7);
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
