//! Where QUIC's connection ids say the server.

use super::map_types;

map_types! {
    /// A server, as connection ids of a service name it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct QuicServerKey {
        /// The server's id.
        pub id: u64,
        /// The service's number.
        pub vni: u32,
        /// Zero.
        pub spare: u32,
    }
}

impl QuicServerKey {
    /// Of an id of a service's.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, id: u64) -> Self {
        Self { id, vni, spare: 0 }
    }
}

/// How connection ids are laid out: a word of which `policy` of a [`Service`](super::Service) keeps a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionIds(u32);

/// The first two bits say where the server's id is: 1: in the 16 bits behind them; 2: in octets 1 to 3; 3: in 1 to 4.
const TAGGED: u32 = 1;
/// QUIC-LB in plaintext (draft-ietf-quic-load-balancers-21, §5.2): three bits of configuration in the first octet, then
/// the server's id.
const QUIC_LB: u32 = 2;

impl ConnectionIds {
    /// Two bits of the kind, three of the configuration's number, four of the length.
    const BITS: u32 = 0x1ff;

    /// Two bits that say where the server's id is: 1: in the 16 bits behind them; 2: in octets 1 to 3; 3: in 1 to 4.
    #[must_use]
    pub const fn tagged() -> Self {
        Self(TAGGED)
    }

    /// QUIC-LB in plaintext (draft-ietf-quic-load-balancers-21, §5.2): three bits of configuration in the first octet,
    /// of which 7 is none, then the server's id, of 1 to 8 octets.
    #[must_use]
    pub const fn quic_lb(rotation: u32, octets: u32) -> Self {
        Self(QUIC_LB | (rotation & 7) << 2 | (octets & 15) << 5)
    }

    /// As it stands in a policy, from a bit on.
    #[inline(always)]
    #[must_use]
    pub const fn of_policy(policy: u32, shift: u32) -> Self {
        Self(policy >> shift & Self::BITS)
    }

    /// In the place where [`of_policy`](Self::of_policy) finds it.
    #[must_use]
    pub const fn in_policy(self, shift: u32) -> u32 {
        self.0 << shift
    }

    /// The server that a connection id names, of which `octets` are there: the first eight in `first`, the ninth in
    /// `ninth`.
    #[inline(always)]
    #[must_use]
    pub const fn server(&self, first: [u8; 8], ninth: u8, octets: u32) -> Option<u64> {
        let all = u64::from_be_bytes(first);
        let behind_first = all << 8 | ninth as u64;
        let (length, id) = match self.0 & 3 {
            TAGGED => match all >> 62 {
                1 => (3, (all >> 46) & 0xffff),
                2 => (4, behind_first >> 40),
                3 => (5, behind_first >> 32),
                _ => return None,
            },
            QUIC_LB if all >> 61 == self.rotation() && self.octets() >= 1 && self.octets() <= 8 => {
                (1 + self.octets(), behind_first >> (64 - 8 * self.octets()))
            }
            _ => return None,
        };
        if octets < length { None } else { Some(id) }
    }
    #[inline(always)]
    const fn rotation(self) -> u64 {
        (self.0 >> 2 & 7) as u64
    }

    #[inline(always)]
    const fn octets(self) -> u32 {
        self.0 >> 5 & 15
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGGED_IDS: ConnectionIds = ConnectionIds::tagged();

    #[test]
    fn a_tag_says_where_the_id_is() {
        let server = |first| TAGGED_IDS.server(first, 0, 9);
        assert_eq!(server([0x00, 1, 2, 3, 4, 5, 6, 7]), None);
        // 01 and the bits 0000_0100_0000_0001.
        assert_eq!(server([0b0100_0001, 0, 0b0100_0000, 9, 9, 9, 9, 9]), Some(0x0401));
        assert_eq!(server([0b1000_0000, 1, 2, 3, 4, 5, 6, 7]), Some(0x01_0203));
        assert_eq!(server([0b1100_0000, 1, 2, 3, 4, 5, 6, 7]), Some(0x0102_0304));
        assert_eq!(
            TAGGED_IDS.server([0b1100_0000, 1, 2, 3, 4, 5, 6, 7], 0, 4),
            None,
            "cut off"
        );
    }

    #[test]
    fn quic_lb_has_the_configuration_in_three_bits() {
        let ids = |octets| ConnectionIds::of_policy(ConnectionIds::quic_lb(2, octets).in_policy(18), 18);
        let first = [0b0100_0000, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(ids(1).server(first, 8, 9), Some(1));
        assert_eq!(ids(3).server(first, 8, 9), Some(0x01_0203));
        assert_eq!(ids(8).server(first, 8, 9), Some(0x0102_0304_0506_0708));
        assert_eq!(ids(8).server(first, 8, 8), None);
        assert_eq!(ids(3).server([0b0110_0000, 1, 2, 3, 4, 5, 6, 7], 8, 9), None);
    }
}
