//! All pairs at once.
//!
//! For each pair the two cheapest relays are found, then what they leave open is settled:
//! - Targets are taken in tiles of [`LANES`] that lie close to each other, whose legs are copied side by side, so that
//!   one relay is tried for all of them by a few vector instructions: those that the CPU has, chosen when the program
//!   runs.
//! - A path is one number, `cost·2¹⁶ + relay`: its minimum is the cheapest path and, of equal ones, that with the
//!   lowest relay. It fits the 53 bits of an `f64` exactly, whose minimum is one instruction on every x86-64, where
//!   that of integers is not.
//! - Relays are tried both by rising first leg and by rising least second leg of the tile, a few of one or the other
//!   at a time: of that whose legs rise faster. Once the next first leg plus the next second leg exceeds the
//!   second-best path of all targets of the tile, no relay that is left can matter.
//! - The second-best is the backup if its penalty is the least that any relay has beside the primary; else all
//!   relays of that pair are examined ([`backup`](super::backup)).

use std::num::NonZeroUsize;

use pulp::{Arch, NullaryFnOnce};

use super::{CostMatrix, Route};
use crate::cost::Cost;

/// Primary and backup of every pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    n: usize,
    /// By target: its row of `pairs`.
    rows: Vec<usize>,
    /// `n·row + from`.
    pairs: Vec<[Packed; 2]>,
}

impl Routes {
    /// The cheapest path.
    pub fn primary(&self, from: usize, to: usize) -> Option<Route> {
        self.pair(from, to)[0].route()
    }

    /// The path beside it.
    pub fn backup(&self, from: usize, to: usize) -> Option<Route> {
        self.pair(from, to)[1].route()
    }

    fn pair(&self, from: usize, to: usize) -> &[Packed; 2] {
        &self.pairs[self.n * self.rows[to] + from]
    }
}

/// Primary and backup of every pair, exactly as [`primary`](super::primary) and [`backup`](super::backup) choose
/// them, on so many threads.
pub fn best(costs: &CostMatrix, threads: NonZeroUsize) -> Routes {
    let n = costs.len();
    let mut pairs = vec![[Packed::NONE; 2]; n * n];
    let search = Search::new(costs);
    let tiles = n.div_ceil(LANES).div_ceil(threads.get()).max(1);
    let chunks = pairs.chunks_mut((tiles * LANES * n).max(1));
    let work = chunks.zip(search.targets.chunks(tiles * LANES));
    if threads.get() == 1 {
        work.for_each(|(pairs, targets)| search.rows(targets, pairs));
    } else {
        std::thread::scope(|scope| {
            for (pairs, targets) in work {
                let search = &search;
                scope.spawn(move || search.rows(targets, pairs));
            }
        });
    }
    let mut rows = vec![0; n];
    for (row, &target) in search.targets.iter().enumerate() {
        rows[target] = row;
    }
    Routes { n, rows, pairs }
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
/// Sources whose legs stay in a core's cache together, while tile after tile passes.
const BLOCK: usize = 128;
/// Relays between two looks at whether later ones can matter.
const STRIDE: usize = 8;
/// 2¹⁶: a path's cost stands above its relay.
const SHIFT: f64 = 65536.0;

/// Targets side by side.
struct Tile {
    /// By relay.
    legs: Vec<[f64; LANES]>,
    /// The least legs of relays, `cost·2¹⁶ + relay`, rising.
    rising: Vec<f64>,
    /// By relay: its place in `rising`.
    places: Vec<u16>,
}

/// The first legs from a node, transit included.
struct Firsts {
    /// The usable ones, `cost·2¹⁶ + relay`, rising.
    rising: Vec<f64>,
    /// By relay, in µs: read in no order, so it takes little space.
    by_relay: Vec<u32>,
}

struct Search<'a> {
    costs: &'a CostMatrix,
    /// All nodes, neighbours side by side.
    targets: Vec<usize>,
    /// By source.
    firsts: Vec<Firsts>,
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
            targets: neighbours(costs),
            firsts: (0..n).map(|from| Firsts::new(costs, from)).collect(),
            least_penalty,
        }
    }

    /// The pairs of all sources with some targets.
    fn rows(&self, targets: &[usize], pairs: &mut [[Packed; 2]]) {
        let n = self.costs.len();
        let tiles: Vec<Tile> = targets
            .chunks(LANES)
            .map(|targets| Tile::new(self.costs, targets))
            .collect();
        for (block, firsts) in self.firsts.chunks(BLOCK).enumerate() {
            for (index, tile) in tiles.iter().enumerate() {
                let sources = (block * BLOCK..).zip(firsts);
                let found = Arch::new().dispatch(FromBlock {
                    sources: sources.clone(),
                    tile,
                });
                for ((from, _), two) in sources.zip(found) {
                    for (lane, &to) in targets[index * LANES..].iter().take(LANES).enumerate() {
                        if from != to {
                            pairs[(index * LANES + lane) * n + from] =
                                self.settle(from, to, two.first[lane], two.second[lane]);
                        }
                    }
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

/// All nodes in tiles of those that are cheapest to reach from each other.
fn neighbours(costs: &CostMatrix) -> Vec<usize> {
    let mut left: Vec<usize> = (0..costs.len()).collect();
    let mut targets = Vec::with_capacity(left.len());
    while let Some(&first) = left.first() {
        let key = |&node: &usize| (node != first, costs.leg(first, node), node);
        if left.len() > LANES {
            left.select_nth_unstable_by_key(LANES - 1, key);
        }
        targets.extend(left.drain(..LANES.min(left.len())));
    }
    targets
}

impl Firsts {
    fn new(costs: &CostMatrix, from: usize) -> Self {
        let legs = costs.row(from).iter().zip(costs.relays());
        let first_legs = legs.map(|(&leg, relay)| Cost::from_us(leg) + relay.transit);
        let by_relay: Vec<u32> = first_legs.map(Cost::us).collect();
        let usable = (0..)
            .zip(&by_relay)
            .filter(|(_, us)| Cost::from_us(**us).is_usable());
        let mut rising: Vec<f64> = usable.map(|(relay, &us)| number(us, relay)).collect();
        rising.sort_unstable_by(f64::total_cmp);
        Self { rising, by_relay }
    }
}

impl Tile {
    fn new(costs: &CostMatrix, targets: &[usize]) -> Self {
        let mut legs = vec![[scaled(Cost::UNUSABLE); LANES]; costs.len()];
        for (lane, &target) in targets.iter().enumerate() {
            for (row, &leg) in legs.iter_mut().zip(costs.column(target)) {
                row[lane] = scaled(Cost::from_us(leg));
            }
        }
        let least = |row: &[f64; LANES]| row.iter().copied().fold(f64::INFINITY, f64::min);
        let least = legs.iter().map(least).zip(0..);
        let mut rising: Vec<f64> = least.map(|(leg, relay)| leg + small(relay)).collect();
        rising.sort_unstable_by(f64::total_cmp);
        let mut places = vec![0; rising.len()];
        for (&leg, place) in rising.iter().zip(0..) {
            places[relay_of(leg)] = place;
        }
        Self { legs, rising, places }
    }
}

/// By target.
struct TwoCheapest {
    /// The cheapest relay.
    first: [f64; LANES],
    /// The second-cheapest of direct and relays: direct's bare cost where no second relay costs less.
    second: [f64; LANES],
}

/// What is compiled for each kind of CPU: a tile's paths from a block of sources.
struct FromBlock<'a, S> {
    sources: S,
    tile: &'a Tile,
}

impl<'a, S: Iterator<Item = (usize, &'a Firsts)>> NullaryFnOnce for FromBlock<'a, S> {
    type Output = Vec<TwoCheapest>;

    #[inline(always)]
    fn call(self) -> Self::Output {
        let mut found = Vec::with_capacity(BLOCK);
        for (from, firsts) in self.sources {
            found.push(two_cheapest(firsts, self.tile, &self.tile.legs[from]));
        }
        found
    }
}

#[inline(always)]
fn two_cheapest(firsts: &Firsts, tile: &Tile, direct: &[f64; LANES]) -> TwoCheapest {
    let mut first = [scaled(Cost::UNUSABLE); LANES];
    let mut second = *direct;
    let first_leg = |place: usize| firsts.rising.get(place).copied().unwrap_or(f64::INFINITY);
    let second_leg = |place: usize| tile.rising.get(place).copied().unwrap_or(f64::INFINITY);
    // How many of each order were tried.
    let (mut by_first, mut by_second) = (0, 0);
    loop {
        let (leg, other) = (first_leg(by_first), second_leg(by_second));
        // Both carry a relay's number; a path carries one.
        if leg + other - SHIFT > farthest(&first, &second) {
            return TwoCheapest { first, second };
        }
        let rise = first_leg(by_first + STRIDE) - leg;
        if rise >= second_leg(by_second + STRIDE) - other {
            for &leg in firsts.rising[by_first..].iter().take(STRIDE) {
                let relay = relay_of(leg);
                let is_new = usize::from(tile.places[relay]) >= by_second;
                step(is_new, leg, &tile.legs[relay], &mut first, &mut second);
            }
            by_first += STRIDE;
        } else {
            for &other in tile.rising[by_second..].iter().take(STRIDE) {
                let relay = relay_of(other);
                let path = number(firsts.by_relay[relay], relay);
                step(path >= leg, path, &tile.legs[relay], &mut first, &mut second);
            }
            by_second += STRIDE;
        }
    }
}

/// The costliest of paths.
#[inline(always)]
fn farthest(first: &[f64; LANES], second: &[f64; LANES]) -> f64 {
    let mut lanes = [0.0; LANES];
    for lane in 0..LANES {
        lanes[lane] = if first[lane] > second[lane] {
            first[lane]
        } else {
            second[lane]
        };
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            let other = lanes[lane + width];
            lanes[lane] = if other > lanes[lane] { other } else { lanes[lane] };
        }
        width /= 2;
    }
    lanes[0]
}

/// One relay, for all targets, unless it was tried. Comparisons, not `min` and `max`, whose care for NaN costs three
/// instructions each.
#[inline(always)]
fn step(is_new: bool, leg: f64, legs: &[f64; LANES], first: &mut [f64; LANES], second: &mut [f64; LANES]) {
    let leg = if_or_infinite(is_new, leg);
    for lane in 0..LANES {
        let path = leg + legs[lane];
        let worse = if path > first[lane] { path } else { first[lane] };
        first[lane] = if path < first[lane] { path } else { first[lane] };
        second[lane] = if worse < second[lane] { worse } else { second[lane] };
    }
}

/// A leg, or an infinite one: chosen without a branch, since none could foresee it.
#[inline(always)]
fn if_or_infinite(is_new: bool, leg: f64) -> f64 {
    let mask = u64::from(is_new).wrapping_neg();
    f64::from_bits(leg.to_bits() & mask | f64::INFINITY.to_bits() & !mask)
}

/// A path or a leg as a number.
#[inline(always)]
fn number(us: u32, relay: usize) -> f64 {
    f64::from(us) * SHIFT + small(relay)
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

/// The low 16 bits of a finite path: added to 2⁵², a smaller whole number stands in the low bits of the sum.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the relay is the low 16 bits")]
fn relay_of(path: f64) -> usize {
    const UNIT: f64 = 4_503_599_627_370_496.0;
    usize::from((path + UNIT).to_bits() as u16)
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
