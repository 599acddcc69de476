//! VXLAN (RFC 7348).

use super::{be32, put32, view};

/// The UDP port that IANA gave to VXLAN.
pub const PORT: u16 = 4789;
/// "The VNI is valid", alone in the first word of a header without extensions.
const VALID: u32 = 0x0800_0000;

view! {
    /// A VXLAN header.
    Vxlan, 8
}

impl Vxlan<'_> {
    /// The VNI, where the header is one of RFC 7348: the I flag set. Reserved bits are ignored on receipt (§5).
    #[inline(always)]
    #[must_use]
    pub fn vni(&self) -> Option<u32> {
        let valid = be32::<0, 8>(self.0) & VALID != 0;
        valid.then_some(be32::<4, 8>(self.0) >> 8)
    }

    /// Writes the whole header.
    #[inline(always)]
    pub fn write(&mut self, vni: u32) {
        put32::<0, 8>(self.0, VALID);
        put32::<4, 8>(self.0, vni << 8);
    }
}
