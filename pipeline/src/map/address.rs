//! Numbers and addresses in the order of the wire.

use core::net::IpAddr;

use super::map_types;

/// What precedes the IPv4 address in an IPv4-mapped one.
const V4_MAPPED: u64 = 0xffff;

map_types! {
    /// A 16-bit number in network order.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Be16 { raw: u16, }

    /// A 32-bit number, or an IPv4 address, in network order.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Be32 { raw: u32, }

    /// An IP address as part of a key: 16 octets in network order, IPv4 as IPv4-mapped (RFC 4291 §2.5.5.2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct IpKey { halves: [u64; 2], }

    /// An Ethernet address.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Mac { first: Be16, second: Be16, third: Be16, }

    /// Destination and source address of an Ethernet header, as three words in network order.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MacPair { raw: [Be32; 3], }
}

impl Be16 {
    /// From host order.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u16) -> Self {
        Self { raw: value.to_be() }
    }

    /// In host order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be(self.raw)
    }
}

impl Be32 {
    /// From host order.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self { raw: value.to_be() }
    }

    /// In host order.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u32 {
        u32::from_be(self.raw)
    }
}

impl IpKey {
    /// An IPv4 address, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: u32) -> Self {
        Self {
            halves: [0, (V4_MAPPED << 32 | address as u64).to_be()],
        }
    }

    /// An IPv6 address.
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let all = u128::from_be_bytes(octets);
        Self {
            halves: [((all >> 64) as u64).to_be(), (all as u64).to_be()],
        }
    }

    /// An address in two words in the order of their octets, as [`le64`](crate::header::le64) reads them.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self {
            halves: [words[0].to_le(), words[1].to_le()],
        }
    }

    /// From its halves, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn from_halves(halves: [u64; 2]) -> Self {
        Self {
            halves: [halves[0].to_be(), halves[1].to_be()],
        }
    }

    /// The same words.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        [u64::from_le(self.halves[0]), u64::from_le(self.halves[1])]
    }

    /// The address in host order, where it is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn as_v4(self) -> Option<u32> {
        let [high, low] = self.halves;
        if high == 0 && u64::from_be(low) >> 32 == V4_MAPPED {
            Some(self.low())
        } else {
            None
        }
    }

    /// Its halves, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn halves(self) -> [u64; 2] {
        [u64::from_be(self.halves[0]), u64::from_be(self.halves[1])]
    }

    /// Its octets.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [high, low] = self.halves();
        ((high as u128) << 64 | low as u128).to_be_bytes()
    }

    /// The last 32 bits in host order: the whole address, where it is known to be IPv4.
    #[inline(always)]
    #[must_use]
    pub const fn low(self) -> u32 {
        u64::from_be(self.halves[1]) as u32
    }
}

impl From<IpAddr> for IpKey {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(u32::from(v4)),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<IpKey> for IpAddr {
    fn from(key: IpKey) -> Self {
        match key.as_v4() {
            Some(v4) => Self::V4(v4.into()),
            None => Self::V6(key.octets().into()),
        }
    }
}

impl Mac {
    /// From its first four and last two octets, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn new(high: u32, low: u16) -> Self {
        Self {
            first: Be16::new((high >> 16) as u16),
            second: Be16::new(high as u16),
            third: Be16::new(low),
        }
    }

    /// From its octets.
    #[must_use]
    pub const fn from_octets(octets: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = octets;
        Self::new(u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]))
    }

    /// Its octets.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        let ([a, b, c, d], [e, f]) = (self.high().to_be_bytes(), self.low().to_be_bytes());
        [a, b, c, d, e, f]
    }

    /// The first four octets.
    #[inline(always)]
    #[must_use]
    pub const fn high(self) -> u32 {
        (self.first.get() as u32) << 16 | self.second.get() as u32
    }

    /// The last two octets.
    #[inline(always)]
    #[must_use]
    pub const fn low(self) -> u16 {
        self.third.get()
    }
}

impl MacPair {
    /// From both addresses.
    #[inline(always)]
    #[must_use]
    pub const fn new(destination: Mac, source: Mac) -> Self {
        let middle = (destination.low() as u32) << 16 | source.high() >> 16;
        let last = source.high() << 16 | source.low() as u32;
        Self {
            raw: [Be32::new(destination.high()), Be32::new(middle), Be32::new(last)],
        }
    }

    /// From the three words of a header, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 3]) -> Self {
        Self {
            raw: [Be32::new(words[0]), Be32::new(words[1]), Be32::new(words[2])],
        }
    }

    /// The same destination, from another source.
    #[inline(always)]
    #[must_use]
    pub const fn from(self, source: Mac) -> Self {
        let [high, middle, _] = self.words();
        Self::new(Mac::new(high, (middle >> 16) as u16), source)
    }

    /// To another destination, from the same source.
    #[inline(always)]
    #[must_use]
    pub const fn to(self, destination: Mac) -> Self {
        let [_, middle, last] = self.words();
        Self::new(destination, Mac::new(middle << 16 | last >> 16, last as u16))
    }

    /// The three words of a header, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn words(self) -> [u32; 3] {
        [self.raw[0].get(), self.raw[1].get(), self.raw[2].get()]
    }

    /// Whether both addresses are zero, as in an entry that was never written.
    #[inline(always)]
    #[must_use]
    pub const fn is_unknown(self) -> bool {
        self.raw[0].raw | self.raw[1].raw | self.raw[2].raw == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_octets() {
        let (a, b) = (
            Mac::from_octets([1, 2, 3, 4, 5, 6]),
            Mac::from_octets([7, 8, 9, 10, 11, 12]),
        );
        assert_eq!(a.octets(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(
            MacPair::new(a, b).words(),
            [0x0102_0304, 0x0506_0708, 0x090a_0b0c]
        );
        assert_eq!(MacPair::new(a, b).to(b), MacPair::new(b, b));
        assert_eq!(MacPair::new(a, b).from(a), MacPair::new(a, a));
        assert_eq!(IpKey::v4(0x0a00_0001).as_v4(), Some(0x0a00_0001));
        assert_eq!(IpKey::v6([1; 16]).as_v4(), None);
    }
}
