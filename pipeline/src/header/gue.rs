//! Generic UDP Encapsulation (draft-ietf-intarea-gue-09).

use super::{put32, view};

view! {
    /// The header of variant 0 without optional fields. Variant 1 has none: the IP packet follows UDP, and its version
    /// tells the two apart.
    Gue, 4
}

impl Gue<'_> {
    /// Writes the whole header, in front of a packet of this IP protocol.
    #[inline(always)]
    pub fn write(&mut self, protocol: u8) {
        put32::<0, 4>(self.0, (protocol as u32) << 16);
    }
}
