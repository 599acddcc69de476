//! Connections of the exit: the one rewrite and both ways through it.

use super::{Atomics, Be16, IpKey, Shared, map_types};
use crate::header::tcp;

map_types! {
    /// Names one direction of a connection by the packet as it arrives: from the backbone with the accelerator's
    /// VNI, or from the endpoint with VNI 0.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ConnectionKey {
        /// Source address.
        pub source: IpKey,
        /// Destination address.
        pub destination: IpKey,
        /// The accelerator, or 0.
        pub vni: u32,
        /// Source port.
        pub source_port: Be16,
        /// Destination port.
        pub destination_port: Be16,
        /// TCP or UDP.
        pub protocol: u32,
        /// Zero.
        spare: u32,
    }

    /// What one direction's packets become. The two directions are two entries that name each other: each holds
    /// the source and destination under which the packet leaves, which is the other's key turned round.
    #[derive(Debug)]
    pub struct Connection {
        /// The accelerator.
        pub vni: u32,
        /// Source port to leave with.
        pub source_port: Be16,
        /// Destination port to leave with.
        pub destination_port: Be16,
        /// The pair that answers take, which follows the client when it appears at another entry; in the upper half
        /// the number of the accelerator's limit here.
        pair: Shared,
        /// Source address to leave with.
        pub source: IpKey,
        /// Destination address to leave with.
        pub destination: IpKey,
        /// TCP flags seen, or-ed, and [`HEARD`]; in the upper half the number of the target whose
        /// [signs](super::TargetSigns) its first packet is, 0: nobody's.
        pub flags: Shared,
        /// When it began, in jiffies.
        pub began: u64,
        /// When its last packet came, in jiffies.
        pub last_packet: Shared,
        /// Packets.
        pub packets: Shared,
        /// Octets of the IP packets.
        pub octets: Shared,
    }
}

/// Beside TCP's flags: something without flags was seen, a packet of another protocol or an ICMP error.
pub const HEARD: u32 = 1 << 8;

impl Connection {
    /// One direction, before its first packet is counted.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, pair: u32, leaves: &ConnectionKey, now: u64) -> Self {
        Self {
            vni,
            pair: Shared::new(pair as u64),
            source: leaves.source,
            destination: leaves.destination,
            source_port: leaves.source_port,
            destination_port: leaves.destination_port,
            flags: Shared::new(0),
            began: now,
            last_packet: Shared::new(now),
            packets: Shared::new(0),
            octets: Shared::new(0),
        }
    }

    /// The same, under a limit of that number.
    #[inline(always)]
    #[must_use]
    pub fn under(self, limit: u32) -> Self {
        self.pair.set(u64::from(limit) << 32 | u64::from(self.pair()));
        self
    }

    /// The same, whose first packet is a sign of this target.
    #[inline(always)]
    #[must_use]
    pub fn with(self, target: u32) -> Self {
        self.flags.set(u64::from(target) << 32);
        self
    }

    /// The number of the target whose sign its first packet is; 0: nobody's.
    #[inline(always)]
    #[must_use]
    pub fn target(&self) -> u32 {
        (self.flags.get() >> 32) as u32
    }

    /// The pair that answers take.
    #[inline(always)]
    #[must_use]
    pub fn pair(&self) -> u32 {
        self.pair.get() as u32
    }

    /// The limit of the accelerator, by its number here.
    #[inline(always)]
    #[must_use]
    pub fn limit(&self) -> u32 {
        (self.pair.get() >> 32) as u32
    }

    /// Lets answers take another pair.
    #[inline(always)]
    pub fn follow(&self, pair: u32) {
        self.pair.set(u64::from(self.limit()) << 32 | u64::from(pair));
    }

    /// Whether this TCP connection is over: closed by both ends, or reset by one. `back` is its other direction.
    #[inline(always)]
    #[must_use]
    pub fn is_over(&self, back: Option<&Self>) -> bool {
        let (there, back) = (self.flags.get(), back.map_or(0, |back| back.flags.get()));
        (there | back) & tcp::RST as u64 != 0 || there & back & tcp::FIN as u64 != 0
    }

    /// Whether the server says so too: an end that is the client's word alone may be somebody else's.
    #[inline(always)]
    #[must_use]
    pub fn is_over_for_server(&self, back: &Self) -> bool {
        let (there, back) = (self.flags.get(), back.flags.get());
        back & tcp::RST as u64 != 0 || there & back & tcp::FIN as u64 != 0
    }

    /// Counts a packet; of a protocol without flags they are [`HEARD`]. Returns whether it is the first of its direction.
    #[inline(always)]
    pub fn count<A: Atomics>(&self, atomics: &A, octets: u32, flags: u32, now: u64) -> bool {
        let flags = u64::from(flags);
        atomics.add(&self.packets, 1);
        atomics.add(&self.octets, u64::from(octets));
        self.last_packet.set(now);
        // Another CPU's packet brings another one: so many tries are enough.
        for _ in 0..4 {
            let seen = self.flags.get();
            if flags & !seen == 0 {
                return false;
            }
            if atomics.exchange(&self.flags, seen, seen | flags) {
                return seen as u32 == 0;
            }
        }
        false
    }

    /// Notes an ICMP error about the other direction. Returns whether nothing came in this one yet.
    #[inline(always)]
    pub fn is_refused<A: Atomics>(&self, atomics: &A) -> bool {
        let seen = self.flags.get();
        seen as u32 == 0 && atomics.exchange(&self.flags, seen, seen | u64::from(HEARD))
    }
}

impl ConnectionKey {
    /// Of a packet with these addresses and ports, each source first.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, addresses: [IpKey; 2], ports: [Be16; 2], protocol: u32) -> Self {
        let ([source, destination], [source_port, destination_port]) = (addresses, ports);
        Self {
            source,
            destination,
            vni,
            source_port,
            destination_port,
            protocol,
            spare: 0,
        }
    }

    /// The other direction of a packet that leaves with this key, as it comes back.
    #[inline(always)]
    #[must_use]
    pub const fn turned_round(&self, vni: u32) -> Self {
        Self {
            vni,
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            spare: 0,
        }
    }
}
