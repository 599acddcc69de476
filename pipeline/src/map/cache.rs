//! The flow cache: copies of entries of IPv4 flows.

use super::{Atomics, Shared, Tracked, map_types};

map_types! {
    /// A cache line, on which a flow falls by its hash.
    #[derive(Debug, Default)]
    pub struct CachedFlows {
        /// In no order.
        pub flows: [CachedFlow; 2],
    }

    /// A copy of a flow's [`Tracked`].
    ///
    /// One CPU writes at a time; who finds another one at it does without. Who reads waits for nobody, and may see half of
    /// one flow and half of another: the seal tells.
    #[derive(Debug, Default)]
    pub struct CachedFlow {
        /// The flow's [`name`](CachedFlow::name); all zeros: nobody's.
        name: [Shared; 2],
        /// The target's number, in the upper half its generation.
        choice: Shared,
        /// When the last packet was noted, in jiffies, in the upper half the seal. [`WRITTEN`]: somebody writes.
        last_packet: Shared,
    }
}

/// See [`CachedFlow::last_packet`].
const WRITTEN: u64 = u64::MAX;

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

    /// The target of its flow, which has this name, as long as the copy counts.
    #[inline(always)]
    #[must_use]
    pub fn target(&self, name: [u64; 2], generation: u32, now: u64) -> Option<u32> {
        let (choice, last) = (self.choice.get(), self.last_packet.get());
        let is_whole = (last >> 32) as u32 == seal(name, choice, last as u32);
        let is_current = (choice >> 32) as u32 == generation;
        (is_whole && is_current && is_fresh(last, now)).then_some(choice as u32)
    }

    /// Makes it a copy of this flow's entry.
    #[inline(always)]
    pub fn copy<A: Atomics>(&self, atomics: &A, name: [u64; 2], entry: &Tracked) {
        let before = self.last_packet.get();
        if before == WRITTEN || !atomics.exchange(&self.last_packet, before, WRITTEN) {
            return;
        }
        let (target, generation) = entry.choice();
        let choice = u64::from(generation) << 32 | u64::from(target);
        let last = entry.last_packet() as u32;
        self.name[0].set(name[0]);
        self.name[1].set(name[1]);
        self.choice.set(choice);
        let sealed = u64::from(seal(name, choice, last)) << 32 | u64::from(last);
        // Forgotten meanwhile: so it stays.
        let _ = atomics.exchange(&self.last_packet, WRITTEN, sealed);
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

/// 32 bits of sums of products with odd constants (multiply-shift hashing: Dietzfelbinger et al., 1997). Of one flow, two
/// targets of less than 65,536 never have the same at one time.
#[inline(always)]
const fn seal(name: [u64; 2], choice: u64, last_packet: u32) -> u32 {
    let named = name[0]
        .wrapping_mul(0xd6e8_feb8_6659_fd93)
        .wrapping_add(name[1].wrapping_mul(0xa076_1d64_78bd_642f));
    let all = choice ^ last_packet as u64;
    (all.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(named) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::super::SingleThreaded;
    use super::*;

    const NAME: [u64; 2] = CachedFlow::name(3, [0xcb00_7107, 0xc633_6401], [4000, 443], 6);

    fn copy(name: [u64; 2], entry: &Tracked) -> CachedFlow {
        let copy = CachedFlow::default();
        copy.copy(&SingleThreaded, name, entry);
        copy
    }

    #[test]
    fn a_copy_counts_while_its_entry_has_nothing_to_note() {
        let copy = copy(NAME, &Tracked::new(7, 2, false, 1000));
        assert!(copy.is_of(NAME));
        assert_eq!(copy.target(NAME, 2, 1000), Some(7));
        assert_eq!(copy.target(NAME, 2, 1000 + Tracked::GRAIN - 1), Some(7));
        assert_eq!(copy.target(NAME, 2, 1000 + Tracked::GRAIN), None, "late");
        assert_eq!(copy.target(NAME, 3, 1000), None, "of another generation");
        copy.copy(&SingleThreaded, NAME, &Tracked::new(8, 3, false, 1001));
        assert_eq!(copy.target(NAME, 3, 1001), Some(8));
        copy.last_packet.set(WRITTEN);
        copy.copy(&SingleThreaded, NAME, &Tracked::new(9, 3, false, 1001));
        copy.last_packet.set(0);
        assert_eq!(copy.choice.get() as u32, 8, "another CPU was at it");
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
            ((NAME, 7, 1000), (other, 8, 1000)),
            ((NAME, 7, 1000), (other, 8, 1001)),
            ((NAME, 7, 1000), (NAME, 8, 1000)),
            ((NAME, 7, 1000), (NAME, 8, 1200)),
            ((NAME, 7, 1000), (NAME, 65_535, 1000)),
        ];
        for (one, two) in pairs {
            let made = |(name, target, last)| copy(name, &Tracked::new(target, 2, false, last));
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
                for (name, ..) in [one, two] {
                    let said = mixed.is_of(name).then(|| mixed.target(name, 2, 1200)).flatten();
                    let is_right = |said| [one, two].iter().any(|flow| flow.0 == name && flow.1 == said);
                    assert!(
                        said.is_none_or(is_right),
                        "{mixture:04b} of {one:?} and {two:?}: {said:?}"
                    );
                }
            }
        }
    }
}
