//! Rings: Maglev hashing with weights (Eisenbud et al., "Maglev", NSDI 2016, §3.4).

use kuafu_pipeline::map::NextHop;
use kuafu_pipeline::siphash::{self, Key};

/// Sizes of rings: primes.
const LADDER: [u32; 5] = [1, 251, 4093, 65_537, 655_373];
/// Slots that each target has at least, where there are several.
const SLOTS_PER_TARGET: usize = 100;
/// What the largest ring serves.
pub const MOST_TARGETS: usize = 6553;

/// What a target is, apart from its number: rings of several hosts agree where they lead to the same targets.
pub type Identity = [u64; 2];

/// A target's part in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub identity: Identity,
    /// Its share, relative to the others'; not 0.
    pub weight: u64,
    /// What its slots hold.
    pub number: u32,
}

/// The identity of a next hop.
#[must_use]
pub fn identity(hop: &NextHop) -> Identity {
    let kind = hop.kind() as u64;
    let port = u64::from(hop.port.get());
    [
        kind << 32 | u64::from(hop.index),
        u64::from(hop.address.low()) << 16 | port,
    ]
}

/// The ring's size for so many targets: the least of the ladder with 100 slots for each, 1 slot for a single one.
#[must_use]
pub fn size(targets: usize) -> Option<u32> {
    match targets {
        0 => Some(0),
        1 => Some(1),
        _ => LADDER
            .into_iter()
            .find(|size| *size as usize >= targets * SLOTS_PER_TARGET),
    }
}

/// The slots of the ring of these members, which are in the order of their identities; `None` where they are too many.
///
/// Each member walks the slots in an order of its own (offset and step from its identity) and takes the next free one
/// when it is its turn. Turns are proportional to weights: in each round a member earns its weight, and pays for a
/// turn with the largest weight. So a member that leaves moves few slots beside its own.
#[must_use]
pub fn fill(members: &[Member]) -> Option<Vec<u32>> {
    let size = size(members.len())?;
    let price = members.iter().map(|member| member.weight).max().unwrap_or(1);
    let mut walks: Vec<Walk> = members.iter().map(|member| Walk::new(member, size)).collect();
    let mut slots = vec![None; size as usize];
    let mut free = slots.len();
    while free > 0 {
        for (member, walk) in members.iter().zip(&mut walks) {
            walk.credit += member.weight;
            if walk.credit < price || free == 0 {
                continue;
            }
            walk.credit -= price;
            walk.take(&mut slots, member.number);
            free -= 1;
        }
    }
    Some(slots.into_iter().flatten().collect())
}

/// A member's walk over the slots.
struct Walk {
    at: u32,
    step: u32,
    credit: u64,
}

impl Walk {
    fn new(member: &Member, size: u32) -> Self {
        let [first, second] = member.identity;
        let draw = |which: u64| siphash::hash(SEED, &[which, first, second, 0, 0, 0, 0, siphash::LAST]);
        let below = |draw: u64, limit: u32| u32::try_from(draw % u64::from(limit)).unwrap_or(0);
        Self {
            at: below(draw(0), size),
            step: 1 + below(draw(1), size.saturating_sub(1).max(1)),
            credit: 0,
        }
    }

    /// Takes the next free slot; there is one, and the size is prime, so the walk finds it.
    fn take(&mut self, slots: &mut [Option<u32>], number: u32) {
        let size = slots.len() as u64;
        loop {
            let at = self.at as usize;
            self.at = u32::try_from((u64::from(self.at) + u64::from(self.step)) % size).unwrap_or(0);
            if slots[at].is_none() {
                slots[at] = Some(number);
                return;
            }
        }
    }
}

/// Not a secret: it only has to be the same everywhere.
const SEED: Key = Key {
    k0: 0x6b75_6166_7520_7269,
    k1: 0x6e67_206f_6620_686f,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn members(weights: &[u64]) -> Vec<Member> {
        (1..)
            .zip(weights)
            .map(|(number, weight)| Member {
                identity: [u64::from(number), 7],
                weight: *weight,
                number,
            })
            .collect()
    }

    fn share(ring: &[u32], number: u32) -> usize {
        ring.iter().filter(|slot| **slot == number).count()
    }

    #[test]
    fn sizes_climb_the_ladder() {
        let sizes: Vec<_> = [0, 1, 2, 3, 40, 41, 655, 656, MOST_TARGETS].map(size).to_vec();
        let ladder = [0, 1, 251, 4093, 4093, 65_537, 65_537, 655_373, 655_373];
        assert_eq!(sizes, ladder.map(Some));
        assert_eq!(size(MOST_TARGETS + 1), None);
    }

    #[test]
    fn shares_follow_the_weights() {
        let ring = fill(&members(&[1, 1, 2])).expect("fits");
        assert_eq!(ring.len(), 4093);
        for (number, fair) in [(1, 1023), (2, 1023), (3, 2046)] {
            assert!(share(&ring, number).abs_diff(fair) <= 2, "{number}");
        }
        assert_eq!(fill(&members(&[5])), Some(vec![1]));
        assert_eq!(fill(&[]), Some(vec![]));
    }

    #[test]
    fn who_leaves_moves_few_of_the_others() {
        let all = members(&[1; 10]);
        let (before, after) = (fill(&all).expect("fits"), fill(&all[1..]).expect("fits"));
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| **before != 1 && before != after)
            .count();
        assert!(moved < before.len() / 10, "{moved} of {}", before.len());
    }
}
