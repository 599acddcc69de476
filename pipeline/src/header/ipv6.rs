//! IPv6 (RFC 8200), as far as a parser must know it to step aside.

use super::{be16, view};

view! {
    /// An IPv6 header.
    Ipv6, 40
}

impl Ipv6<'_> {
    /// The version: 6.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Octets after this header.
    #[inline(always)]
    #[must_use]
    pub fn payload_length(&self) -> u16 {
        be16::<4, 40>(self.0)
    }

    /// What the payload, or the first extension header, is.
    #[inline(always)]
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }
}
