//! What goes with a packet on its slow path through the prober, in place of its Ethernet header: the way that the
//! edge chose for it, so that none is looked up again.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |                             Pair                              |
//! +-----------------------------------------------+-------------+-+
//! |                      VNI                      |      0      |R|
//! +-------------------------------+---------------+-------------+-+
//! |              MTU              |               0               |
//! +-------------------------------+-------------------------------+
//! |           Ethertype           |
//! +-------------------------------+
//! ```
//! R: an answer. MTU: octets of the largest IP packet that the path carries.

use super::{be16, be32, put16, put32, view};

/// Ethertype on the way to the prober: one for local experiments (IEEE 802), which no host's stack listens to. On the
/// way back it is that of IPv4, without which tcx does not encapsulate.
pub const ETHERTYPE: u16 = 0x88b6;

view! {
    /// An errand.
    Errand, 14
}

/// Where a packet shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The pair.
    pub pair: u32,
    /// The accelerator.
    pub vni: u32,
    /// Whether it is an answer.
    pub reply: bool,
}

impl Errand<'_> {
    /// Writes the whole header, for the way to the prober.
    #[inline(always)]
    pub fn write(&mut self, way: &Way, mtu: u16) {
        put32::<0, 14>(self.0, way.pair);
        put32::<4, 14>(self.0, way.vni << 8 | way.reply as u32);
        put32::<8, 14>(self.0, (mtu as u32) << 16);
        self.set_ethertype(ETHERTYPE);
    }

    /// Where the packet shall go.
    #[inline(always)]
    #[must_use]
    pub fn way(&self) -> Way {
        let word = be32::<4, 14>(self.0);
        Way {
            pair: be32::<0, 14>(self.0),
            vni: word >> 8,
            reply: word & 1 != 0,
        }
    }

    /// Octets of the largest IP packet that may come back.
    #[inline(always)]
    #[must_use]
    pub fn mtu(&self) -> u16 {
        be16::<8, 14>(self.0)
    }

    /// Which way the packet is on: to the prober, or back.
    #[inline(always)]
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        be16::<12, 14>(self.0)
    }

    /// Says which way the packet is on.
    #[inline(always)]
    pub fn set_ethertype(&mut self, value: u16) {
        put16::<12, 14>(self.0, value);
    }
}
