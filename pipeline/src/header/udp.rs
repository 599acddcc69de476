//! UDP (RFC 768).

use super::{be16, put16, put32, view};
use crate::checksum::Change;

view! {
    /// A UDP header.
    Udp, 8
}

impl Udp<'_> {
    /// Source port.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> u16 {
        be16::<0, 8>(self.0)
    }

    /// Destination port.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> u16 {
        be16::<2, 8>(self.0)
    }

    /// Octets in the datagram, this header included.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> u16 {
        be16::<4, 8>(self.0)
    }

    /// Replaces both ports, with the checksum kept right; `addresses` is what changed in the header before.
    #[inline(always)]
    pub fn replace_ports(&mut self, source: u16, destination: u16, addresses: Change) {
        let change = addresses
            .half(self.source(), source)
            .half(self.destination(), destination);
        self.correct(change);
        self.set_ports(source, destination);
    }

    /// Corrects the checksum for a change of what it covers. Returns the change of the checksum itself.
    #[inline(always)]
    pub fn correct(&mut self, change: Change) -> Change {
        let before = be16::<6, 8>(self.0);
        let after = change.apply_udp(before);
        put16::<6, 8>(self.0, after);
        Change::none().half(before, after)
    }

    /// Whether the sender computed a checksum.
    #[inline(always)]
    #[must_use]
    pub fn has_checksum(&self) -> bool {
        be16::<6, 8>(self.0) != 0
    }

    /// Writes the ports alone.
    #[inline(always)]
    pub fn set_ports(&mut self, source: u16, destination: u16) {
        put32::<0, 8>(self.0, (source as u32) << 16 | destination as u32);
    }

    /// Writes the whole header, without a checksum.
    #[inline(always)]
    pub fn write(&mut self, source: u16, destination: u16, length: u16) {
        self.set_ports(source, destination);
        put32::<4, 8>(self.0, (length as u32) << 16);
    }
}
