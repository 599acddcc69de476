//! What a host knows of itself, and what it counts.

use super::{Be16, Be32, Shared, map_types};

/// Octets that are kept of the last dropped packet.
pub const FRAME_START: usize = 64;

map_types! {
    /// The host itself. One entry.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct NodeConfig {
        /// Its address on the underlay; 0 until an agent has written the entry.
        pub local: Be32,
        /// Its address in the system VPC, from which probes are sent.
        pub overlay: Be32,
        /// The underlay's interface.
        pub underlay: u32,
        /// UDP port of the backbone.
        pub backbone_port: Be16,
        /// First port of the exit's range.
        pub first_port: u16,
        /// Last port of the exit's range; 0 where the host is no exit.
        pub last_port: u16,
        /// The underlay's MTU.
        pub mtu: u16,
        /// How often, modulo 16, this host has lost its maps.
        pub incarnation: u32,
    }

    /// A budget for each jiffy.
    #[derive(Debug)]
    pub struct Bucket {
        jiffy: Shared,
        used: Shared,
    }

    /// How often something happened on one CPU.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Counter {
        /// Packets.
        pub packets: u64,
        /// Octets of their frames, as they were when counted.
        pub octets: u64,
    }

    /// What was dropped for one reason on one CPU.
    #[derive(Clone, Copy, Debug)]
    pub struct Drop {
        /// Packets.
        pub packets: u64,
        /// Octets of their frames.
        pub octets: u64,
        /// When the last one was seen, in jiffies.
        pub last_seen: u64,
        /// The interface on which it arrived.
        pub interface: u32,
        /// Octets in its frame.
        pub length: u32,
        /// How its frame begins. Taken at most once a jiffy, so that a flood costs no more than its counting.
        pub start: [u8; FRAME_START],
    }
}

impl Bucket {
    /// Answers by ICMP per jiffy and CPU: 1,000 a second at 250 Hz.
    pub const ANSWERS: u64 = 4;

    /// A bucket that is full.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            jiffy: Shared::new(0),
            used: Shared::new(0),
        }
    }

    /// Takes one of so many a jiffy, where there is one left.
    #[inline(always)]
    pub fn take(&self, now: u64, per_jiffy: u64) -> bool {
        let used = if self.jiffy.get() == now {
            self.used.get()
        } else {
            0
        };
        self.jiffy.set(now);
        self.used.set(used + 1);
        used < per_jiffy
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}
