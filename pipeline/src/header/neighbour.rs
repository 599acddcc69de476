//! Neighbour discovery for IPv6 over Ethernet (RFC 4861).

use super::{be16, be32, le64, put_le64, put16, put32, view};
use crate::checksum;
use crate::map::{IpKey, Mac};

/// Types of ICMPv6.
const SOLICITATION: u16 = 135;
const ADVERTISEMENT: u16 = 136;
/// Types of options: the link-layer address of who sends, and of the target. Their length is 8 octets.
const SOURCE_ADDRESS: u16 = 1;
const TARGET_ADDRESS: u16 = 2;
/// Flags of an advertisement: it was solicited; what it says counts more than what is known.
const SOLICITED: u32 = 1 << 30;
const OVERRIDE: u32 = 1 << 29;

view! {
    /// A neighbour solicitation or advertisement, up to its options.
    Neighbour, 24
}

view! {
    /// An option with an Ethernet address.
    LinkAddress, 8
}

impl Neighbour<'_> {
    /// Whether this asks for the link-layer address of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub fn is_solicitation(&self) -> bool {
        be16::<0, 24>(self.0) == SOLICITATION << 8
    }

    /// The IPv6 address that is asked for.
    #[inline(always)]
    #[must_use]
    pub fn target(&self) -> IpKey {
        IpKey::from_words([le64::<8, 24>(self.0), le64::<16, 24>(self.0)])
    }

    /// What the checksum covers of it, as a running sum for [`checksum::fold_words`].
    #[inline(always)]
    #[must_use]
    pub fn covered(&self) -> u64 {
        checksum::words([
            le64::<0, 24>(self.0),
            le64::<8, 24>(self.0),
            le64::<16, 24>(self.0),
        ])
    }

    /// Whether it is an advertisement that nobody asked for.
    #[inline(always)]
    #[must_use]
    pub fn is_claim(&self) -> bool {
        be16::<0, 24>(self.0) == ADVERTISEMENT << 8 && be32::<4, 24>(self.0) & SOLICITED == 0
    }

    /// Writes an advertisement that nobody asked for, whose option follows. `rest` is what else the checksum covers, as a
    /// running sum.
    #[inline(always)]
    pub fn claim(&mut self, target: IpKey, rest: u64) {
        let [first, second] = target.words();
        put_le64::<8, 24>(self.0, first);
        put_le64::<16, 24>(self.0, second);
        self.advertise(OVERRIDE, rest);
    }

    /// Turns the solicitation into the advertisement of its target; `has_address`: the target's option follows. `rest` as
    /// with [`claim`](Self::claim).
    #[inline(always)]
    pub fn answer(&mut self, has_address: bool, rest: u64) {
        self.advertise(
            if has_address {
                SOLICITED | OVERRIDE
            } else {
                SOLICITED
            },
            rest,
        );
    }

    #[inline(always)]
    fn advertise(&mut self, flags: u32, rest: u64) {
        put32::<0, 24>(self.0, (ADVERTISEMENT as u32) << 24);
        put32::<4, 24>(self.0, flags);
        let checksum = !checksum::fold_words(self.covered() + rest);
        put16::<2, 24>(self.0, checksum.swap_bytes());
    }
}

impl LinkAddress<'_> {
    /// Whether it is the sender's.
    #[inline(always)]
    #[must_use]
    pub fn is_of_source(&self) -> bool {
        be16::<0, 8>(self.0) == SOURCE_ADDRESS << 8 | 1
    }

    /// The target's Ethernet address, if it is that.
    #[inline(always)]
    #[must_use]
    pub fn of_target(&self) -> Option<Mac> {
        let is_it = be16::<0, 8>(self.0) == TARGET_ADDRESS << 8 | 1;
        is_it.then(|| Mac::new(be32::<2, 8>(self.0), be16::<6, 8>(self.0)))
    }

    /// Writes the target's.
    #[inline(always)]
    pub fn write(&mut self, mac: Mac) {
        put16::<0, 8>(self.0, TARGET_ADDRESS << 8 | 1);
        put32::<2, 8>(self.0, mac.high());
        put16::<6, 8>(self.0, mac.low());
    }

    /// What a checksum covers of it, as a running sum for [`checksum::fold_words`].
    #[inline(always)]
    #[must_use]
    pub fn covered(&self) -> u64 {
        checksum::words([le64::<0, 8>(self.0)])
    }
}
