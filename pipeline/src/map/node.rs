//! What a host knows of itself, and what it counts.

use super::{Be16, Be32, IpKey, map_types};

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
        /// The interface by which the edge hands packets over to the port program of the system VPC; 0: there is none.
        pub hand_over: u32,
        /// Zero.
        pub spare: u32,
        /// Its address of IPv6, from which packets go to servers of IPv6; 0: it has none.
        pub local6: IpKey,
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
