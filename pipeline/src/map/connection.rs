//! Connections of the exit: the one rewrite and both ways through it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{Be16, IpKey, map_types};

map_types! {
    /// Names one direction of a connection by the packet as it arrives: from the backbone with the accelerator's
    /// VNI, or from the endpoint with VNI 0.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ConnectionKey {
        /// The accelerator, or 0.
        pub vni: u32,
        /// Source address.
        pub source: IpKey,
        /// Destination address.
        pub destination: IpKey,
        /// Source port.
        pub source_port: Be16,
        /// Destination port.
        pub destination_port: Be16,
        /// TCP or UDP.
        pub protocol: u32,
    }

    /// What one direction's packets become. The two directions are two entries that name each other: each holds
    /// the source and destination under which the packet leaves, which is the other's key turned round.
    #[derive(Debug)]
    pub struct Connection {
        /// The accelerator.
        pub vni: u32,
        /// Of answers: the pair that they take; follows the client when it appears at another entry. Otherwise 0.
        pub pair: AtomicU32,
        /// Source address to leave with.
        pub source: IpKey,
        /// Destination address to leave with.
        pub destination: IpKey,
        /// Source port to leave with.
        pub source_port: Be16,
        /// Destination port to leave with.
        pub destination_port: Be16,
        /// TCP flags seen, or-ed.
        pub flags: AtomicU32,
        /// When it began, in jiffies.
        pub began: u64,
        /// When its last packet came, in jiffies.
        pub last_packet: AtomicU64,
        /// Packets.
        pub packets: AtomicU64,
        /// Octets of the IP packets.
        pub octets: AtomicU64,
    }
}

impl Connection {
    /// One direction, before its first packet is counted.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, pair: u32, leaves: &ConnectionKey, now: u64) -> Self {
        Self {
            vni,
            pair: AtomicU32::new(pair),
            source: leaves.source,
            destination: leaves.destination,
            source_port: leaves.source_port,
            destination_port: leaves.destination_port,
            flags: AtomicU32::new(0),
            began: now,
            last_packet: AtomicU64::new(now),
            packets: AtomicU64::new(0),
            octets: AtomicU64::new(0),
        }
    }

    /// Counts a packet.
    #[inline(always)]
    pub fn count(&self, octets: u32, flags: u32, now: u64) {
        self.packets.fetch_add(1, Relaxed);
        self.octets.fetch_add(u64::from(octets), Relaxed);
        self.last_packet.store(now, Relaxed);
        if flags & !self.flags.load(Relaxed) != 0 {
            self.flags.fetch_or(flags, Relaxed);
        }
    }
}

impl ConnectionKey {
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
        }
    }
}
