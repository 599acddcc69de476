//! Ethernet II.

use super::{be16, be32, put16, put32, view};
use crate::map::{Mac, MacPair};

/// Ethertype of ARP.
pub const ARP: u16 = 0x0806;
/// Ethertype of IPv4.
pub const IPV4: u16 = 0x0800;
/// Ethertype of IPv6.
pub const IPV6: u16 = 0x86dd;
/// Ethertype of bridged Ethernet, as Geneve uses it.
pub const BRIDGED: u16 = 0x6558;

view! {
    /// An Ethernet header.
    Ethernet, 14
}

impl Ethernet<'_> {
    /// What the payload is.
    #[inline(always)]
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        be16::<12, 14>(self.0)
    }

    /// Says what the payload is.
    #[inline(always)]
    pub fn set_ethertype(&mut self, value: u16) {
        put16::<12, 14>(self.0, value);
    }

    /// Whether the frame goes to several stations, or all.
    #[inline(always)]
    #[must_use]
    pub fn is_to_group(&self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Where the frame goes.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> Mac {
        Mac::new(be32::<0, 14>(self.0), be16::<4, 14>(self.0))
    }

    /// Where the frame comes from.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> Mac {
        Mac::new(be32::<6, 14>(self.0), be16::<10, 14>(self.0))
    }

    /// Whether the destination is a group address.
    #[inline(always)]
    #[must_use]
    pub fn is_group(&self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Both addresses.
    #[inline(always)]
    #[must_use]
    pub fn addresses(&self) -> MacPair {
        MacPair::new(self.destination(), self.source())
    }

    /// Writes both addresses.
    #[inline(always)]
    pub fn set_addresses(&mut self, pair: MacPair) {
        let [first, second, third] = pair.words();
        put32::<0, 14>(self.0, first);
        put32::<4, 14>(self.0, second);
        put32::<8, 14>(self.0, third);
    }

    /// Writes the destination.
    #[inline(always)]
    pub fn set_destination(&mut self, mac: Mac) {
        put32::<0, 14>(self.0, mac.high());
        put16::<4, 14>(self.0, mac.low());
    }

    /// Sends the frame back where it came from.
    #[inline(always)]
    pub fn turn_round(&mut self) {
        let pair = MacPair::new(self.source(), self.destination());
        self.set_addresses(pair);
    }
}
