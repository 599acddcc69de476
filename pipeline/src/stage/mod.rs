//! The stages, one a file. Each says what it needs of the packet, what it looks up, and how it can end.

pub mod answer;
pub mod arp;
pub mod backbone;
pub mod cache;
pub mod check;
pub mod client;
pub mod decapsulate;
pub mod direct;
pub mod echo;
pub mod emit;
pub mod encapsulate;
pub mod enter;
pub mod exit;
pub mod flow;
pub mod fragment;
pub mod icmp_error;
pub mod limit;
pub mod liveness;
pub mod neighbour;
pub mod probe;
pub mod quic;
pub mod relay;
pub mod rewrite;
pub mod ring;
pub mod sanity;
pub mod send;
pub mod served;
pub mod shield;
pub mod sign;
pub mod slow_path;
pub mod source;
pub mod too_big;
pub mod track;
pub mod twice;

use crate::map::Mac;

/// Offset of the IP header behind Ethernet.
pub(crate) const IP: usize = 14;
/// Offset of what follows an IPv4 header without options.
pub(crate) const L4: usize = 34;
/// The same behind an IPv6 header without extensions.
pub(crate) const L4_V6: usize = 54;
/// Offset of Geneve in a packet of the backbone.
pub(crate) const GENEVE: usize = 42;
/// Offset of the inner packet in a packet of the backbone, and octets in front of it.
pub(crate) const INNER: usize = 74;
/// Hops that a packet of the backbone may take.
pub(crate) const TTL: u8 = 64;
/// What the backbone adds to an IP packet.
pub(crate) const BACKBONE: u32 = 60;
/// The Ethernet address by which a packet that arrives once more is this host's own, whichever address the device has.
pub const OWN_MAC: Mac = Mac::new(0x024b_7561, 0x6675);
/// The reserved system VPC.
pub const SYSTEM_VNI: u32 = 1;
