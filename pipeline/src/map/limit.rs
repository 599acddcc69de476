//! Buckets, and how much of an accelerator is let onto the backbone.

use super::{Atomics, Shared, map_types};

/// Binary digits behind the point of a bucket's times, which are jiffies.
const FRACTION: u32 = 28;
/// A jiffy, as buckets count time.
pub const JIFFY: u64 = 1 << FRACTION;
/// No bucket misses as much. Times go round; what seems to miss more has long been full.
const AHEAD: u64 = JIFFY << 14;
/// Binary digits of the octets whose cost a limit says.
const OCTETS: u32 = 16;

map_types! {
    /// A bucket: when it will be full again, which is all there is to know of it (GCRA, ITU-T I.371 annex A.2).
    #[derive(Debug)]
    pub struct Bucket {
        /// In [`JIFFY`]ths; goes round.
        full_at: Shared,
        /// Zero.
        spare: u64,
    }

    /// How much of an accelerator's packets this host lets onto the backbone, each way.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Limit {
        /// The accelerator. A connection may outlive it, and meet the limit of another under its number.
        pub vni: u32,
        /// Zero.
        pub spare: u32,
        /// How long 65,536 octets take, in [`JIFFY`]ths; 0: there is no limit.
        pub cost: u64,
        /// How long what may pass at once takes.
        pub depth: u64,
    }

    /// What packets change in a limit.
    #[derive(Debug, Default)]
    pub struct LimitState {
        /// Of what clients send.
        pub clients: Bucket,
        /// Of what answers them.
        pub answers: Bucket,
    }
}

impl Bucket {
    /// A bucket that is full.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            full_at: Shared::new(0),
            spare: 0,
        }
    }

    /// Takes what is refilled in `cost`, unless more than `depth` would be missing.
    ///
    /// CPUs that take at once may find the same; what they take too much is missing afterwards, so that the rate holds.
    #[inline(always)]
    pub fn take<A: Atomics>(&self, atomics: &A, now: u64, cost: u64, depth: u64) -> bool {
        let (now, full_at) = (now << FRACTION, self.full_at.get());
        let ahead = full_at.wrapping_sub(now);
        let is_full = ahead > AHEAD;
        let missing = if is_full { 0 } else { ahead };
        if missing + cost > depth {
            return false;
        }
        // Where another CPU was quicker it is not full any more.
        if !is_full || !atomics.exchange(&self.full_at, full_at, now.wrapping_add(cost)) {
            atomics.add(&self.full_at, cost);
        }
        true
    }

    /// How much is missing from it.
    #[inline(always)]
    #[must_use]
    pub fn missing(&self, now: u64) -> u64 {
        let ahead = self.full_at.get().wrapping_sub(now << FRACTION);
        if ahead > AHEAD { 0 } else { ahead }
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}

impl Limit {
    /// No limit.
    #[must_use]
    pub const fn none(vni: u32) -> Self {
        Self {
            vni,
            spare: 0,
            cost: 0,
            depth: 0,
        }
    }

    /// So many octets a second, where a second has `hz` jiffies, and so many at once. Holds for 10^5 to 10^11 octets a
    /// second and what those take in less than 8,000 jiffies.
    #[must_use]
    pub const fn new(vni: u32, octets_a_second: u64, burst: u64, hz: u64) -> Self {
        let cost = (hz << (FRACTION + OCTETS)).div_ceil(octets_a_second);
        Self {
            vni,
            spare: 0,
            cost,
            depth: (burst * cost) >> OCTETS,
        }
    }

    /// How long a packet takes.
    #[inline(always)]
    #[must_use]
    pub const fn cost_of(&self, octets: u32) -> u64 {
        (octets as u64 * self.cost) >> OCTETS
    }
}
