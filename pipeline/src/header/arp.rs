//! ARP for IPv4 over Ethernet (RFC 826).

use super::{be16, be32, put16, put32, view};
use crate::map::Mac;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

view! {
    /// An ARP message.
    Arp, 28
}

impl Arp<'_> {
    /// Whether this asks for the link-layer address of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub fn is_request(&self) -> bool {
        be32::<0, 28>(self.0) == 0x0001_0800
            && be16::<4, 28>(self.0) == 0x0604
            && be16::<6, 28>(self.0) == REQUEST
    }

    /// The sender's link-layer address.
    #[inline(always)]
    #[must_use]
    pub fn sender_mac(&self) -> Mac {
        Mac::new(be32::<8, 28>(self.0), be16::<12, 28>(self.0))
    }

    /// The sender's IPv4 address.
    #[inline(always)]
    #[must_use]
    pub fn sender(&self) -> u32 {
        be32::<14, 28>(self.0)
    }

    /// The IPv4 address that is asked for.
    #[inline(always)]
    #[must_use]
    pub fn target(&self) -> u32 {
        be32::<24, 28>(self.0)
    }

    /// Turns the request into the reply that `mac` has the address asked for.
    #[inline(always)]
    pub fn answer(&mut self, mac: Mac) {
        let (asker_mac, asker, target) = (self.sender_mac(), self.sender(), self.target());
        put16::<6, 28>(self.0, REPLY);
        put32::<8, 28>(self.0, mac.high());
        put16::<12, 28>(self.0, mac.low());
        put32::<14, 28>(self.0, target);
        put32::<18, 28>(self.0, asker_mac.high());
        put16::<22, 28>(self.0, asker_mac.low());
        put32::<24, 28>(self.0, asker);
    }
}
