//! Rings: which target each slot leads to, by weights, so that a target that comes or goes moves few of the others'.

use std::cmp::Reverse;

use kuafu_pipeline::map::{HopKind, NextHop, Tunnel, Wrap};
use kuafu_pipeline::siphash::{self, Key};

/// Sizes of rings: primes.
const LADDER: [u32; 6] = [1, 251, 4093, 65_537, 131_071, 655_373];
/// Slots that each target has at least, where there are several.
const SLOTS_PER_TARGET: usize = 100;
/// How many steps a walk of the mean weight goes in a round, about: in a row, which is faster than one by one.
const STRIDE: u64 = 8;
/// What the largest ring serves.
pub const MOST_TARGETS: usize = 6553;

/// What a target is, apart from its number: rings of several hosts agree where they lead to the same targets.
pub type Identity = [u64; 4];

/// A target's part in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// What it is.
    pub identity: Identity,
    /// Its share, relative to the others'; not 0, and of all members together below 2^60.
    pub weight: u64,
    /// What its slots hold.
    pub number: u32,
}

/// The identity of a next hop. A neighbour's number is a host's own, and no part of it, nor is the host where a port of a
/// VPC is now: that host itself has another address for it.
#[must_use]
pub fn identity(hop: &NextHop) -> Identity {
    let (kind, index) = match hop.kind() {
        HopKind::Nowhere => (0, hop.index),
        HopKind::Port => (1, hop.index),
        HopKind::Vtep => (2, hop.index),
        HopKind::Server => (3, hop.index),
        HopKind::Path => (4, hop.index),
        HopKind::Direct(wrap) => (5 + wrap as u64, 0),
    };
    let (kind, port) = (kind << 32 | u64::from(index), u64::from(hop.port.get()));
    if let HopKind::Direct(Wrap::Vxlan) = hop.kind() {
        let Tunnel { vni, mac, .. } = hop.tunnel();
        let mac = u64::from(mac.high()) << 16 | u64::from(mac.low());
        return [kind, port, mac, vni.into()];
    }
    match hop.address.as_v4() {
        Some(address) => [kind, u64::from(address) << 16 | port, 0, 0],
        None => {
            let [high, low] = hop.address.halves();
            [kind, port, high, low]
        }
    }
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

/// Whether a ring may have so many slots: a prime, or 1.
#[must_use]
pub fn is_size(slots: u32) -> bool {
    slots != 0
        && (2..)
            .take_while(|factor| factor * factor <= u64::from(slots))
            .all(|factor| u64::from(slots) % factor != 0)
}

/// The ring of these members with `size` slots, which is a prime or 1: for each slot, its member's number.
///
/// As in Maglev (Eisenbud et al., NSDI 2016, §3.4), each member walks the slots in an order of its own, by an offset
/// and a step from its identity. It walks at a speed in proportion to its weight; a slot is the first's that reaches
/// it, and who has its share stops. In Maglev they take turns at taking, and who meets many taken slots walks faster:
/// so each that leaves changes the others' pace. Here it does not, and most slots of those who stay keep their first.
/// Members and slots both prefer the earlier meeting: this is their one stable matching (Gale and Shapley, 1962).
///
/// The same members give the same ring, in whichever order they come. Shares are less than a slot from exact, but that
/// each member has a slot.
#[must_use]
pub fn fill(members: &[Member], size: u32) -> Vec<u32> {
    let mut members = members.to_vec();
    members.sort_unstable_by_key(|member| member.identity);
    let mut walks: Vec<Walk> = members
        .iter()
        .zip(shares(&members, size))
        .map(|(member, share)| Walk::new(member, share, size))
        .filter(|walk| walk.missing > 0)
        .collect();
    let mut slots = Slots::free(size);
    while !walks.is_empty() {
        let price = price(&walks);
        let mut one_stops = false;
        while !one_stops {
            for walk in &mut walks {
                walk.go_on(price, &mut slots);
                one_stops |= walk.missing == 0;
            }
        }
        walks.retain(|walk| walk.missing > 0);
    }
    slots.numbers
}

/// How many slots each member gets: its part by weight, rounded down, and one more where most is cut off. Where there
/// are enough slots each gets one at least, of those who have most.
fn shares(members: &[Member], size: u32) -> Vec<u32> {
    let all: u128 = members.iter().map(|member| u128::from(member.weight)).sum();
    let part = |member: &Member| u128::from(member.weight) * u128::from(size);
    let whole = |member: &Member| u32::try_from(part(member) / all).unwrap_or(size);
    let mut shares: Vec<u32> = members.iter().map(whole).collect();
    let left = size - shares.iter().sum::<u32>();
    let mut most_cut_off: Vec<usize> = (0..members.len()).collect();
    most_cut_off.sort_by_key(|at| Reverse(part(&members[*at]) % all));
    for at in most_cut_off.into_iter().take(left as usize) {
        shares[at] += 1;
    }
    if members.len() <= size as usize {
        while let Some(without) = shares.iter().position(|share| *share == 0) {
            if let Some(most) = shares.iter_mut().max() {
                *most -= 1;
            }
            shares[without] = 1;
        }
    }
    shares
}

/// What a step costs, where each walk earns its weight, times [`STRIDE`], in each round: the mean weight, up to a power
/// of two, which rarely changes when a member leaves, and with it who is first.
fn price(walks: &[Walk]) -> u64 {
    let all: u64 = walks.iter().map(|walk| walk.weight).sum();
    (all / walks.len() as u64).next_power_of_two()
}

/// The slots, while they are filled.
struct Slots {
    size: u32,
    numbers: Vec<u32>,
    taken: Vec<bool>,
}

impl Slots {
    fn free(size: u32) -> Self {
        Self {
            size,
            numbers: vec![0; size as usize],
            taken: vec![false; size as usize],
        }
    }

    /// The slot that is a step further; at most 2^31 slots.
    fn after(&self, at: u32, step: u32) -> u32 {
        let (next, size) = (at + step, self.size);
        if next < size { next } else { next - size }
    }

    /// Whether the slot was free; then it is this number's.
    fn take(&mut self, at: u32, number: u32) -> bool {
        let at = at as usize;
        if self.taken[at] {
            return false;
        }
        self.taken[at] = true;
        self.numbers[at] = number;
        true
    }
}

/// A member's walk over the slots.
struct Walk {
    at: u32,
    step: u32,
    number: u32,
    missing: u32,
    weight: u64,
    credit: u64,
}

impl Walk {
    fn new(member: &Member, share: u32, size: u32) -> Self {
        let [first, second, third, fourth] = member.identity;
        let draw =
            |which: u64| siphash::hash(SEED, &[which, first, second, third, fourth, 0, 0, siphash::LAST]);
        let below = |draw: u64, limit: u32| u32::try_from(draw % u64::from(limit)).unwrap_or(0);
        Self {
            at: below(draw(0), size.max(1)),
            step: 1 + below(draw(1), size.saturating_sub(1).max(1)),
            number: member.number,
            missing: share,
            weight: member.weight,
            credit: 0,
        }
    }

    /// The steps that it earned by now. The size is prime, so it comes to every slot.
    fn go_on(&mut self, price: u64, slots: &mut Slots) {
        self.credit += self.weight * STRIDE;
        let (mut at, mut missing) = (self.at, self.missing);
        for _ in 0..self.credit / price {
            if missing == 0 {
                break;
            }
            missing -= u32::from(slots.take(at, self.number));
            at = slots.after(at, self.step);
        }
        (self.at, self.missing) = (at, missing);
        self.credit %= price;
    }
}

/// Not a secret: it only has to be the same everywhere.
const SEED: Key = Key {
    k0: 0x6b75_6166_7520_7269,
    k1: 0x6e67_206f_6620_686f,
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn members(weights: &[u64]) -> Vec<Member> {
        (1..)
            .zip(weights)
            .map(|(number, weight)| Member {
                identity: [u64::from(number), 7, 0, 0],
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
        let ladder = [0, 1, 251, 4093, 4093, 65_537, 65_537, 131_071, 655_373];
        assert_eq!(sizes, ladder.map(Some));
        assert_eq!(size(MOST_TARGETS + 1), None);
    }

    #[test]
    fn shares_follow_the_weights() {
        let ring = fill(&members(&[1, 1, 2]), 4093);
        for (number, fair) in [(1, 1023), (2, 1023), (3, 2046)] {
            assert!(share(&ring, number).abs_diff(fair) <= 1, "{number}");
        }
        assert_eq!(fill(&members(&[5]), 1), [1]);
        assert!(fill(&[], 0).is_empty());
    }

    /// No slot and no member that is not its own would both rather have each other.
    #[test]
    fn the_matching_is_stable() {
        let members = members(&[1; 7]);
        let ring = fill(&members, 251);
        let arrivals = members.iter().map(|member| {
            let walk = Walk::new(member, 0, 251);
            let slots = Slots::free(251);
            let order = std::iter::successors(Some(walk.at), |at| Some(slots.after(*at, walk.step)));
            let mut arrivals = vec![0u64; 251];
            for (step, slot) in (0..251).zip(order) {
                arrivals[slot as usize] = step;
            }
            (member.number, arrivals)
        });
        let arrivals: BTreeMap<u32, Vec<u64>> = arrivals.collect();
        let rank = |number: u32, slot: usize| (arrivals[&number][slot] / STRIDE, number);
        for (number, mine) in &arrivals {
            let last = (0..251)
                .filter(|slot| ring[*slot] == *number)
                .map(|slot| mine[slot])
                .max();
            for slot in (0..251).filter(|slot| ring[*slot] != *number) {
                let prefers_its_owner = rank(ring[slot], slot) < rank(*number, slot);
                assert!(prefers_its_owner || Some(mine[slot]) > last, "{number} at {slot}");
            }
        }
    }
}
