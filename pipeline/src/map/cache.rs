//! The flow cache: copies of entries of IPv4 flows.

use super::{Shared, Tracked, map_types};

map_types! {
    /// A cache line, on which a flow falls by its hash.
    #[derive(Debug, Default)]
    pub struct CachedFlows {
        /// In no order.
        pub flows: [CachedFlow; 2],
    }

    /// A copy of a flow's [`Tracked`].
    ///
    /// CPUs share it without a lock. Each word is written for itself, and the whole may be half one flow's and half
    /// another's: the seal tells.
    #[derive(Debug, Default)]
    pub struct CachedFlow {
        /// The flow's [`name`](CachedFlow::name); all zeros: nobody's.
        name: [Shared; 2],
        /// The target's number, in the upper half its generation.
        choice: Shared,
        /// When the last packet was noted, in jiffies, in the upper half the seal.
        last_packet: Shared,
    }
}

impl CachedFlow {
    /// A flow to a service with this VNI of 24 bits, with these addresses and ports, each source first.
    #[inline(always)]
    #[must_use]
    pub const fn name(vni: u32, addresses: [u32; 2], ports: [u16; 2], protocol: u8) -> [u64; 2] {
        [
            (addresses[0] as u64) << 32 | addresses[1] as u64,
            (vni as u64) << 40 | (protocol as u64) << 32 | (ports[0] as u64) << 16 | ports[1] as u64,
        ]
    }

    /// Whether it is a flow's of this name.
    #[inline(always)]
    #[must_use]
    pub fn is_of(&self, name: [u64; 2]) -> bool {
        self.name[0].get() == name[0] && self.name[1].get() == name[1]
    }

    /// Whether the entry would have nothing to note of a packet that comes now.
    #[inline(always)]
    #[must_use]
    pub fn is_fresh(&self, now: u64) -> bool {
        is_fresh(self.last_packet.get(), now)
    }

    /// The target of its flow, whose hash is `hash`, as long as the copy counts.
    #[inline(always)]
    #[must_use]
    pub fn target(&self, hash: u32, generation: u32, now: u64) -> Option<u32> {
        let (choice, last) = (self.choice.get(), self.last_packet.get());
        let is_whole = (last >> 32) as u32 == seal(hash, choice, last as u32);
        let is_current = (choice >> 32) as u32 == generation;
        (is_whole && is_current && is_fresh(last, now)).then_some(choice as u32)
    }

    /// Makes it a copy of this flow's entry.
    #[inline(always)]
    pub fn copy(&self, name: [u64; 2], hash: u32, entry: &Tracked) {
        let (target, generation) = entry.choice();
        let choice = u64::from(generation) << 32 | u64::from(target);
        let last = entry.last_packet() as u32;
        self.name[0].set(name[0]);
        self.name[1].set(name[1]);
        self.choice.set(choice);
        self.last_packet
            .set(u64::from(seal(hash, choice, last)) << 32 | u64::from(last));
    }

    /// Makes it nobody's.
    #[inline(always)]
    pub fn forget(&self) {
        self.name[0].set(0);
        self.name[1].set(0);
        self.last_packet.set(0);
    }
}

#[inline(always)]
const fn is_fresh(last_packet: u64, now: u64) -> bool {
    (now as u32).wrapping_sub(last_packet as u32) < Tracked::GRAIN as u32
}

/// 32 bits of the product of all and an odd constant (Knuth's multiplicative hashing). Of one flow, two targets of less
/// than 65,536 never have the same at one time.
#[inline(always)]
const fn seal(hash: u32, choice: u64, last_packet: u32) -> u32 {
    let all = choice ^ (hash as u64) << 32 ^ last_packet as u64;
    (all.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: [u64; 2] = CachedFlow::name(3, [0xcb00_7107, 0xc633_6401], [4000, 443], 6);
    const HASH: u32 = 0x1234_5678;

    fn copy(name: [u64; 2], hash: u32, entry: &Tracked) -> CachedFlow {
        let copy = CachedFlow::default();
        copy.copy(name, hash, entry);
        copy
    }

    #[test]
    fn a_copy_counts_while_its_entry_has_nothing_to_note() {
        let copy = copy(NAME, HASH, &Tracked::new(7, 2, false, 1000));
        assert!(copy.is_of(NAME));
        assert_eq!(copy.target(HASH, 2, 1000), Some(7));
        assert_eq!(copy.target(HASH, 2, 1000 + Tracked::GRAIN - 1), Some(7));
        assert_eq!(copy.target(HASH, 2, 1000 + Tracked::GRAIN), None, "late");
        assert_eq!(copy.target(HASH, 3, 1000), None, "of another generation");
        copy.forget();
        assert!(!copy.is_of(NAME));
        assert!(!CachedFlow::default().is_of(NAME));
    }

    /// Two flows, or one at two times: each mixture of the words of their copies is nobody's, unless it says what one of
    /// them says.
    #[test]
    fn a_mixture_of_two_copies_counts_for_nobody() {
        let other = CachedFlow::name(3, [0xcb00_7107, 0xc633_6401], [4001, 443], 6);
        let pairs = [
            ((NAME, HASH, 7, 1000), (other, 0x9abc_def0, 8, 1000)),
            ((NAME, HASH, 7, 1000), (other, 0x9abc_def0, 8, 1001)),
            ((NAME, HASH, 7, 1000), (NAME, HASH, 8, 1000)),
            ((NAME, HASH, 7, 1000), (NAME, HASH, 8, 1200)),
            ((NAME, HASH, 7, 1000), (NAME, HASH, 65_535, 1000)),
        ];
        for (one, two) in pairs {
            let made = |(name, hash, target, last)| copy(name, hash, &Tracked::new(target, 2, false, last));
            let words = |copy: &CachedFlow| {
                [&copy.name[0], &copy.name[1], &copy.choice, &copy.last_packet].map(Shared::get)
            };
            let (first, second) = (words(&made(one)), words(&made(two)));
            for mixture in 0..16 {
                let mixed = made(one);
                let parts = [&mixed.name[0], &mixed.name[1], &mixed.choice, &mixed.last_packet];
                for (at, part) in parts.into_iter().enumerate() {
                    part.set(if mixture >> at & 1 == 0 {
                        first[at]
                    } else {
                        second[at]
                    });
                }
                for (name, hash, ..) in [one, two] {
                    let said = mixed.is_of(name).then(|| mixed.target(hash, 2, 1200)).flatten();
                    let is_right = |said| [one, two].iter().any(|flow| flow.0 == name && flow.2 == said);
                    assert!(
                        said.is_none_or(is_right),
                        "{mixture:04b} of {one:?} and {two:?}: {said:?}"
                    );
                }
            }
        }
    }
}
