//! Seeded random matrices for tests.

use super::{CostMatrix, Relay};
use crate::cost::Cost;
use crate::id::NodeId;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(bound)) >> 32).unwrap()
    }
}

/// Nodes 1 to n that add 1 ms in transit, with (site, provider) by index.
pub(crate) fn index_nodes(n: usize, place: impl Fn(usize) -> (u32, u32)) -> Vec<Relay> {
    let relay = |index: usize| {
        let (site, provider) = place(index);
        let id = NodeId::new(u16::try_from(index + 1).unwrap()).unwrap();
        Relay {
            id,
            site,
            provider,
            transit: Cost::from_us(1000),
        }
    };
    (0..n).map(relay).collect()
}

/// A matrix of one of many shapes: fewer than so many nodes, few or many sites and providers, holes, nodes that must not
/// relay, and costs from a range so small that most tie to one so wide that penalties hardly count.
pub(crate) fn matrix(seed: u64, nodes: u32) -> CostMatrix {
    let mut random = Seeded::new(seed);
    let n = random.below(nodes) as usize;
    let (sites, providers) = (1 + random.below(12), 1 + random.below(4));
    let ranges = [4, 30, 3_000, 300_000, 1 << 21, 1 << 24, Cost::UNUSABLE.us()];
    let range = ranges[random.below(7) as usize];
    let holes = random.below(4);
    let places: Vec<_> = (0..n)
        .map(|_| (random.below(sites), random.below(providers)))
        .collect();
    let mut nodes = index_nodes(n, |index| places[index]);
    for node in &mut nodes {
        node.transit = if random.below(9) == 0 {
            Cost::UNUSABLE
        } else {
            Cost::from_us(random.below(3))
        };
    }
    let mut costs = CostMatrix::new(nodes).unwrap();
    for from in 0..n {
        for to in 0..n {
            if random.below(10) >= holes {
                // Steps of 10 ms at times, so that 1000 and 20 ms of penalty tie as well.
                let step = if range > 20_000 && seed.is_multiple_of(2) {
                    10_000
                } else {
                    1
                };
                costs.set(from, to, Cost::from_us(random.below(range) / step * step));
            }
        }
    }
    costs
}
