//! What goes with a packet on the link between `kuafu0` and `kuafu0p`, in place of its Ethernet addresses: what the edge
//! decided about it, so that nothing is looked up again. Only this host's root can put a frame there otherwise.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |        0x4b55, 0x4b56         |             Pair              |
//! +-----------------------------------------------+-------+-----+-+
//! |                      VNI                      | Lane  |  0  |R|
//! +-----------------------------------------------+-------+-----+-+
//! |            MTU, or lane's sequence number                     |
//! +---------------------------------------------------------------+
//! ```
//! The first octet has the bit of a group address, so that no interface's own address begins so. R: an answer.
//! 0x4b55, to the port program: copy this; with the number that the packet has on both paths of its pair. 0x4b56, to the
//! prober and back (the slow path): cut this; with the MTU, octets of the largest IP packet that the path carries.

use super::{be32, put32, view};

/// Ethertype on the way to the prober: one for local experiments (IEEE 802), which no host's stack listens to. To the
/// port program it is that of IPv4, without which tcx does not encapsulate.
pub const ETHERTYPE: u16 = 0x88b6;
/// How an errand begins.
const COPY: u32 = 0x4b55;
const CUT: u32 = 0x4b56;

view! {
    /// An errand.
    Errand, 12
}

/// Where a packet shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The pair; of its number the 16 bits that a map's pairs have.
    pub pair: u32,
    /// The accelerator.
    pub vni: u32,
    /// Whether it is an answer.
    pub reply: bool,
}

impl Errand<'_> {
    /// For the prober.
    #[inline(always)]
    pub fn cut(&mut self, way: &Way, mtu: u16) {
        self.write(CUT, way, (0, mtu as u32));
    }

    /// For the port program.
    #[inline(always)]
    pub fn copy(&mut self, way: &Way, lane: u32, sequence: u32) {
        self.write(COPY, way, (lane, sequence));
    }

    #[inline(always)]
    fn write(&mut self, what: u32, way: &Way, (lane, last): (u32, u32)) {
        put32::<0, 12>(self.0, what << 16 | way.pair & 0xffff);
        put32::<4, 12>(self.0, way.vni << 8 | (lane & 15) << 4 | way.reply as u32);
        put32::<8, 12>(self.0, last);
    }

    /// Where a packet shall go that is to be cut, and octets of the largest piece; `None`: this is no such errand.
    #[inline(always)]
    #[must_use]
    pub fn to_cut(&self) -> Option<(Way, u16)> {
        Some((self.way(CUT)?, be32::<8, 12>(self.0) as u16))
    }

    /// Where a packet shall go that is to be copied, the lane of its number, and the number; `None`: this is no such
    /// errand.
    #[inline(always)]
    #[must_use]
    pub fn to_copy(&self) -> Option<(Way, u32, u32)> {
        let (lane, sequence) = (be32::<4, 12>(self.0) >> 4 & 15, be32::<8, 12>(self.0));
        Some((self.way(COPY)?, lane, sequence))
    }

    #[inline(always)]
    fn way(&self, what: u32) -> Option<Way> {
        let (first, second) = (be32::<0, 12>(self.0), be32::<4, 12>(self.0));
        (first >> 16 == what).then_some(Way {
            pair: first & 0xffff,
            vni: second >> 8,
            reply: second & 1 != 0,
        })
    }
}
