//! All pairs at once.
//!
//! For each pair the two cheapest relays are found, then what they leave open is settled:
//! - Targets are taken in tiles of [`LANES`], whose legs are copied side by side, so that one relay is tried for
//!   all of them by a few vector instructions.
//! - A path is one number, `cost·2¹⁶ + relay`: its minimum is the cheapest path and, of equal ones, that with the
//!   lowest relay. It fits the 53 bits of an `f64` exactly, whose minimum is one instruction on every x86-64, where
//!   that of integers is not.
//! - Each source tries its relays by rising cost of the first leg. Once the first leg plus the cheapest second leg
//!   of the tile exceeds the second-best path of all its targets, no later relay can matter.
//! - The second-best is the backup if its penalty is the least that any relay has beside the primary; else all
//!   relays of that pair are examined ([`backup`](super::backup)).

use std::num::NonZeroUsize;

use super::{CostMatrix, Route};
use crate::cost::Cost;

/// Primary and backup of every pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    n: usize,
    /// `n·to + from`.
    pairs: Vec<[Packed; 2]>,
}

impl Routes {
    /// The cheapest path.
    pub fn primary(&self, from: usize, to: usize) -> Option<Route> {
        self.pairs[self.n * to + from][0].route()
    }

    /// The path beside it.
    pub fn backup(&self, from: usize, to: usize) -> Option<Route> {
        self.pairs[self.n * to + from][1].route()
    }
}

/// Primary and backup of every pair, exactly as [`primary`](super::primary) and [`backup`](super::backup) choose
/// them, on so many threads.
pub fn best(costs: &CostMatrix, threads: NonZeroUsize) -> Routes {
    let n = costs.len();
    let mut pairs = vec![[Packed::NONE; 2]; n * n];
    let search = Search::new(costs);
    let tiles = n.div_ceil(LANES).div_ceil(threads.get()).max(1);
    if threads.get() == 1 {
        search.targets(0, &mut pairs);
    } else {
        std::thread::scope(|scope| {
            for (index, chunk) in pairs.chunks_mut((tiles * LANES * n).max(1)).enumerate() {
                let search = &search;
                scope.spawn(move || search.targets(index * tiles * LANES, chunk));
            }
        });
    }
    Routes { n, pairs }
}

/// A route in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed {
    cost: Cost,
    relay: u16,
}

const DIRECT: u16 = u16::MAX;

impl Packed {
    const NONE: Self = Self {
        cost: Cost::UNUSABLE,
        relay: DIRECT,
    };

    fn route(self) -> Option<Route> {
        let relay = (self.relay != DIRECT).then_some(usize::from(self.relay));
        self.cost.is_usable().then_some(Route {
            relay,
            cost: self.cost,
        })
    }
}

/// Targets side by side: what fits the vector registers of x86-64 twice over.
const LANES: usize = 8;
/// Relays between two looks at whether later ones can matter.
const STRIDE: usize = 8;
/// 2¹⁶: a path's cost stands above its relay.
const SHIFT: f64 = 65536.0;

/// Legs to `LANES` targets, by relay.
type Tile = Vec<[f64; LANES]>;

/// A usable first leg.
#[derive(Clone, Copy)]
struct First {
    /// `(first leg + transit)·2¹⁶ + relay`.
    path: f64,
    relay: usize,
}

struct Search<'a> {
    costs: &'a CostMatrix,
    /// By source, rising.
    firsts: Vec<Vec<First>>,
    /// By relay: the least penalty that another relay has beside it.
    least_penalty: Vec<Cost>,
}

impl<'a> Search<'a> {
    fn new(costs: &'a CostMatrix) -> Self {
        let n = costs.len();
        let penalty = |relay| {
            (0..n)
                .filter(|&other| other != relay)
                .map(|other| costs.penalty(relay, other))
                .min()
        };
        let least_penalty = (0..n).map(|relay| penalty(relay).unwrap_or_default()).collect();
        Self {
            costs,
            firsts: (0..n).map(|from| first_legs(costs, from)).collect(),
            least_penalty,
        }
    }

    /// The pairs of all sources with targets from `start` on, as many as `pairs` holds.
    fn targets(&self, start: usize, pairs: &mut [[Packed; 2]]) {
        let n = self.costs.len();
        let mut tile: Tile = vec![[0.0; LANES]; n];
        for (index, block) in pairs.chunks_mut((LANES * n).max(1)).enumerate() {
            let first = start + index * LANES;
            let lanes = block.len() / n;
            fill(self.costs, first, lanes, &mut tile);
            let nearest = tile.iter().flatten().copied().fold(f64::INFINITY, f64::min);
            for from in 0..n {
                let two = two_cheapest(&self.firsts[from], &tile, &tile[from], nearest);
                for lane in (0..lanes).filter(|lane| first + lane != from) {
                    block[lane * n + from] =
                        self.settle(from, first + lane, two.first[lane], two.second[lane]);
                }
            }
        }
    }

    /// Primary and backup, given the cheapest relay and the second-cheapest path of direct and relays.
    fn settle(&self, from: usize, to: usize, relay: f64, second: f64) -> [Packed; 2] {
        let direct = Packed {
            cost: self.costs.leg(from, to),
            relay: DIRECT,
        };
        let relay = unpack(relay);
        if direct.cost <= relay.cost {
            return [direct, relay];
        }
        let second = unpack(second);
        let least = self.least_penalty[usize::from(relay.relay)];
        if direct.cost <= second.cost + least {
            return [relay, direct];
        }
        let penalty = self
            .costs
            .penalty(usize::from(relay.relay), usize::from(second.relay));
        if penalty == least && (second.cost + penalty).is_usable() {
            return [relay, second];
        }
        let primary = Some(usize::from(relay.relay));
        [
            relay,
            super::backup(self.costs, from, to, primary, |_| true).map_or(Packed::NONE, pack),
        ]
    }
}

/// The usable first legs from a node, transit included, rising.
fn first_legs(costs: &CostMatrix, from: usize) -> Vec<First> {
    let legs = costs.row(from).iter().zip(costs.relays()).enumerate();
    let usable = legs.filter_map(|(index, (&leg, relay))| {
        let cost = Cost::from_us(leg) + relay.transit;
        cost.is_usable().then_some((cost, index))
    });
    let mut firsts: Vec<(Cost, usize)> = usable.collect();
    firsts.sort_unstable();
    let first = |(cost, relay)| First {
        path: scaled(cost) + small(relay),
        relay,
    };
    firsts.into_iter().map(first).collect()
}

fn fill(costs: &CostMatrix, first: usize, lanes: usize, tile: &mut Tile) {
    for row in tile.iter_mut() {
        *row = [scaled(Cost::UNUSABLE); LANES];
    }
    for lane in 0..lanes {
        for (row, &leg) in tile.iter_mut().zip(costs.column(first + lane)) {
            row[lane] = scaled(Cost::from_us(leg));
        }
    }
}

/// By target.
struct TwoCheapest {
    /// The cheapest relay.
    first: [f64; LANES],
    /// The second-cheapest of direct and relays: direct's bare cost where no second relay costs less.
    second: [f64; LANES],
}

fn two_cheapest(firsts: &[First], tile: &Tile, direct: &[f64; LANES], nearest: f64) -> TwoCheapest {
    let mut first = [scaled(Cost::UNUSABLE); LANES];
    let mut second = *direct;
    for group in firsts.chunks(STRIDE) {
        let farthest = first.iter().chain(&second).copied().fold(0.0, f64::max);
        if group[0].path + nearest > farthest {
            break;
        }
        for leg in group {
            step(leg.path, &tile[leg.relay], &mut first, &mut second);
        }
    }
    TwoCheapest { first, second }
}

/// One relay, for all targets. Comparisons, not `min` and `max`, whose care for NaN costs three instructions each.
#[inline(always)]
fn step(leg: f64, legs: &[f64; LANES], first: &mut [f64; LANES], second: &mut [f64; LANES]) {
    for lane in 0..LANES {
        let path = leg + legs[lane];
        let worse = if path > first[lane] { path } else { first[lane] };
        first[lane] = if path < first[lane] { path } else { first[lane] };
        second[lane] = if worse < second[lane] { worse } else { second[lane] };
    }
}

fn scaled(cost: Cost) -> f64 {
    f64::from(cost.us()) * SHIFT
}

#[allow(clippy::cast_precision_loss, reason = "an index of a node is below 2^16")]
fn small(index: usize) -> f64 {
    index as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a scaled path is a whole number from 0 to below 2^47"
)]
fn whole(path: f64) -> u64 {
    path as u64
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the relay is the low 16 bits, the cost below 2^31"
)]
fn unpack(path: f64) -> Packed {
    let bits = whole(path);
    let cost = Cost::from_us((bits >> 16) as u32);
    if cost.is_usable() {
        Packed {
            cost,
            relay: bits as u16,
        }
    } else {
        Packed::NONE
    }
}

fn pack(route: Route) -> Packed {
    let relay = route
        .relay
        .and_then(|relay| u16::try_from(relay).ok())
        .unwrap_or(DIRECT);
    Packed {
        cost: route.cost,
        relay,
    }
}

#[cfg(test)]
mod tests {
    use super::super::seeded::{Seeded, index_nodes, matrix};
    use super::super::{oracle, primary};
    use super::*;

    fn one() -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn agree(costs: &CostMatrix, routes: &Routes, what: &str) {
        for from in 0..costs.len() {
            for to in 0..costs.len() {
                let found = (routes.primary(from, to), routes.backup(from, to));
                assert_eq!(found, oracle::choose(costs, from, to), "{what}, {from} to {to}");
            }
        }
    }

    #[test]
    fn all_pairs_agree_with_the_definition() {
        for seed in 0..2000 {
            let costs = matrix(seed);
            agree(&costs, &best(&costs, one()), &format!("seed {seed}"));
        }
    }

    #[test]
    fn threads_change_nothing() {
        for seed in 0..100 {
            let costs = matrix(seed);
            let threads = NonZeroUsize::new(1 + usize::try_from(seed % 5).unwrap()).unwrap();
            assert_eq!(best(&costs, threads), best(&costs, one()), "seed {seed}");
        }
    }

    #[test]
    fn places_of_their_own_and_places_shared_by_all() {
        for (seed, sites) in [(1, 150), (2, 1), (3, 7)] {
            let mut random = Seeded::new(seed);
            let place = |index: usize| {
                (
                    u32::try_from(index).unwrap() % sites,
                    u32::try_from(index).unwrap() % 3,
                )
            };
            let mut costs = CostMatrix::new(index_nodes(150, place)).unwrap();
            for from in 0..150 {
                for to in 0..150 {
                    costs.set(from, to, Cost::from_us(5_000 + random.below(300_000)));
                }
            }
            agree(&costs, &best(&costs, one()), &format!("{sites} sites"));
            assert!(primary(&costs, 0, 1, |_| true).is_some());
        }
    }

    #[test]
    fn the_greatest_numbers_stay_exact() {
        let most = Cost::from_us((1 << 29) - 1);
        let path = scaled(most) + small(65_534);
        assert_eq!(
            unpack(path),
            Packed {
                cost: most,
                relay: 65_534
            }
        );
        assert_eq!(unpack(scaled(Cost::UNUSABLE) + small(7)), Packed::NONE);
    }

    /// ms that this thread has run, whatever else the machine does.
    fn on_cpu_ms() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
    }

    /// `cargo test --release -p kuafu-topology -- --ignored --nocapture thousand`
    #[test]
    #[ignore = "a measurement, for release builds"]
    fn a_thousand_nodes_dense() {
        for (name, sites, providers) in [
            ("own sites, one provider", 1000, 1),
            ("100 sites, 3 providers", 100, 3),
        ] {
            let mut random = Seeded::new(1);
            let place = |index: usize| {
                let index = u32::try_from(index).unwrap();
                (index % sites, index % providers)
            };
            let mut costs = CostMatrix::new(index_nodes(1000, place)).unwrap();
            let points: Vec<_> = (0..1000)
                .map(|_| (random.below(200_000), random.below(100_000)))
                .collect();
            for shape in ["uniform", "planar"] {
                for from in 0..1000 {
                    for to in 0..1000 {
                        let (a, b) = (points[from], points[to]);
                        let distance = f64::from(a.0.abs_diff(b.0)).hypot(f64::from(a.1.abs_diff(b.1)));
                        let noise = 1.0 + f64::from(random.below(700)) / 1000.0;
                        let us = if shape == "planar" {
                            distance * noise
                        } else {
                            f64::from(random.below(300_000))
                        };
                        costs.set(from, to, Cost::from_us_f64(5_000.0 + us));
                    }
                }
                let mut runs: Vec<_> = (0..7)
                    .map(|_| {
                        let start = on_cpu_ms();
                        std::hint::black_box(best(&costs, one()));
                        on_cpu_ms() - start
                    })
                    .collect();
                runs.sort_unstable();
                println!("{name}, {shape}: median {} ms on the CPU of {runs:?}", runs[3]);
            }
        }
    }
}
