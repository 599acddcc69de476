//! All pairs at once.
//!
//! The cheapest path with at most k relays is a first leg and the cheapest rest with at most k − 1, or one with fewer
//! relays where that costs no more. So three products of matrices ([`min_plus`]) give all costs and first relays. The
//! first product also keeps the second-cheapest relay of each pair, which is the backup in most cases; else all relays
//! of the pair are examined.

use std::num::NonZeroUsize;
use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};

use super::min_plus::{self, Found, LANES, Panels, Rows, UNUSABLE};
use super::{CostMatrix, MAX_RELAYS, Relays, Route};
use crate::cost::Cost;

/// Primary and backup of every pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    pub(super) costs: CostMatrix,
    /// By the number of relays that a path has at most, from 1.
    pub(super) levels: Vec<Level>,
    /// `width·to + from`: the backup's relay, [`DIRECT`] or [`NONE`].
    pub(super) backups: Vec<u16>,
}

/// The cheapest paths with at most so many relays, `width·to + from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// µs.
    pub(super) costs: Vec<u32>,
    /// The first relay; [`SAME`] where the path has fewer relays, and is that of the level below.
    pub(super) hops: Vec<u16>,
}

/// A first relay: none, the path is that of the level below.
pub(super) const SAME: u16 = u16::MAX;
/// A backup without relay.
pub(super) const DIRECT: u16 = u16::MAX;
/// No backup.
pub(super) const NONE: u16 = u16::MAX - 1;
/// Targets whose rows stay in a core's second cache together.
const TILE: usize = 64;

/// Primary and backup of every pair, with at most so many relays on a primary (1 to 3), on so many threads; see the
/// module above for the specification.
pub fn best(costs: CostMatrix, max_relays: usize, threads: NonZeroUsize) -> Routes {
    let width = min_plus::width(costs.len());
    let cells = width * costs.len();
    let level = || Level {
        costs: vec![UNUSABLE; cells],
        hops: vec![SAME; cells],
    };
    let mut levels: Vec<Level> = (0..max_relays.clamp(1, MAX_RELAYS)).map(|_| level()).collect();
    let mut backups = vec![NONE; cells];
    let panels = Panels::new(&costs);
    let mut tiles = tiles(costs.len(), &mut levels, &mut backups);
    let share = tiles.len().div_ceil(threads.get()).max(1);
    let search = |tiles: &mut [Tile<'_>]| tiles.iter_mut().for_each(|tile| tile.search(&costs, &panels));
    if threads.get() == 1 {
        search(&mut tiles);
    } else {
        std::thread::scope(|scope| {
            for tiles in tiles.chunks_mut(share) {
                scope.spawn(|| search(tiles));
            }
        });
    }
    Routes {
        costs,
        levels,
        backups,
    }
}

impl Routes {
    /// What they were computed from.
    pub fn costs(&self) -> &CostMatrix {
        &self.costs
    }

    /// How many relays a primary has at most.
    pub fn max_relays(&self) -> usize {
        self.levels.len()
    }

    /// The cheapest path with at most so many relays, up to what was asked for.
    pub fn within(&self, from: usize, to: usize, max_relays: usize) -> Option<Route> {
        if from == to {
            return None;
        }
        let levels = max_relays.min(self.levels.len());
        let target = self.target(to, levels);
        Cost::from_us(target.cost(from)).is_usable().then(|| Route {
            relays: target.relays(from),
            cost: Cost::from_us(target.cost(from)),
        })
    }

    /// The cheapest path.
    pub fn primary(&self, from: usize, to: usize) -> Option<Route> {
        self.within(from, to, MAX_RELAYS)
    }

    /// The path beside it.
    pub fn backup(&self, from: usize, to: usize) -> Option<Route> {
        let relays: Relays = match self.backups[min_plus::width(self.costs.len()) * to + from] {
            NONE => return None,
            DIRECT => Relays::new(),
            relay => std::iter::once(relay.into()).collect(),
        };
        Some(Route {
            cost: self.costs.path(from, &relays, to),
            relays,
        })
    }

    pub(super) fn target(&self, to: usize, levels: usize) -> Target<'_> {
        let width = min_plus::width(self.costs.len());
        let row = width * to..width * (to + 1);
        Target {
            direct: self.costs.column(to),
            levels: self.levels[..levels]
                .iter()
                .map(|level| (&level.costs[row.clone()], &level.hops[row.clone()]))
                .collect(),
        }
    }
}

/// What leads to a target, by source.
pub(super) struct Target<'a> {
    direct: &'a [u32],
    levels: arrayvec::ArrayVec<(&'a [u32], &'a [u16]), MAX_RELAYS>,
}

impl Target<'_> {
    pub(super) fn cost(&self, from: usize) -> u32 {
        self.levels
            .last()
            .map_or(self.direct[from], |(costs, _)| costs[from])
    }

    pub(super) fn relays(&self, from: usize) -> Relays {
        let mut relays = Relays::new();
        let mut at = from;
        for (_, hops) in self.levels.iter().rev() {
            if hops[at] != SAME {
                at = hops[at].into();
                relays.push(at);
            }
        }
        relays
    }
}

/// The rows of some targets.
struct Tile<'a> {
    targets: Range<usize>,
    /// Costs and first relays, by level.
    levels: Vec<(&'a mut [u32], &'a mut [u16])>,
    backups: &'a mut [u16],
}

fn tiles<'a>(n: usize, levels: &'a mut [Level], backups: &'a mut [u16]) -> Vec<Tile<'a>> {
    let size = (TILE * min_plus::width(n)).max(1);
    let first = (0..n).step_by(TILE);
    let mut tiles: Vec<Tile<'a>> = first
        .zip(backups.chunks_mut(size))
        .map(|(first, backups)| Tile {
            targets: first..(first + TILE).min(n),
            levels: Vec::with_capacity(levels.len()),
            backups,
        })
        .collect();
    for level in levels {
        let rows = level.costs.chunks_mut(size).zip(level.hops.chunks_mut(size));
        for (tile, rows) in tiles.iter_mut().zip(rows) {
            tile.levels.push(rows);
        }
    }
    tiles
}

impl Tile<'_> {
    fn search(&mut self, costs: &CostMatrix, panels: &Panels) {
        let width = min_plus::width(costs.len());
        let mut direct = vec![UNUSABLE; self.backups.len()];
        for (row, to) in direct.chunks_mut(width).zip(self.targets.clone()) {
            row[..costs.len()].copy_from_slice(costs.column(to));
        }
        let mut singles = Singles::new(self.backups.len());
        min_plus::extend_twice(panels, &direct, singles.found());
        let (paths, hops) = &mut self.levels[0];
        for (index, &direct) in direct.iter().enumerate() {
            let gains = singles.paths[index] < direct;
            paths[index] = direct.min(singles.paths[index]);
            hops[index] = if gains {
                index16(singles.relays[index] as usize)
            } else {
                SAME
            };
        }
        let mut relays = vec![0; self.backups.len()];
        for level in 1..self.levels.len() {
            self.forget_loops(level - 1);
            let (shorter, longer) = self.levels.split_at_mut(level);
            let (shorter, (paths, hops)) = (&*shorter[level - 1].0, &mut longer[0]);
            paths.copy_from_slice(shorter);
            relays.fill(SAME.into());
            let relays = &mut relays;
            min_plus::extend(panels, shorter, Found { paths, relays });
            for (hop, &relay) in hops.iter_mut().zip(&*relays) {
                *hop = index16(relay as usize);
            }
        }
        self.forget_loops(self.levels.len() - 1);
        self.back_up(costs, &direct, &singles);
    }

    /// A node's way to itself is nobody's rest.
    fn forget_loops(&mut self, level: usize) {
        let (paths, hops) = &mut self.levels[level];
        let width = paths.len() / self.targets.len();
        for (row, to) in self.targets.clone().enumerate() {
            (paths[width * row + to], hops[width * row + to]) = (UNUSABLE, SAME);
        }
    }

    fn back_up(&mut self, costs: &CostMatrix, direct: &Rows, singles: &Singles) {
        let width = self.backups.len() / self.targets.len();
        for (index, to) in self.targets.clone().enumerate() {
            let row = width * index..width * index + costs.len();
            let levels = self.levels.iter();
            let target = Target {
                direct: &direct[row.clone()],
                levels: levels
                    .map(|(paths, hops)| (&paths[row.clone()], &hops[row.clone()]))
                    .collect(),
            };
            let backups = &mut self.backups[row.clone()];
            Arch::new().dispatch(BackUp {
                costs,
                to,
                target,
                singles: singles.of(row),
                backups,
            });
        }
    }
}

/// The cheapest paths over one relay, by pair, and what is next.
struct Singles<R = Vec<u32>> {
    paths: R,
    relays: R,
    next_paths: R,
    next_relays: R,
}

impl Singles {
    fn new(pairs: usize) -> Self {
        Self {
            paths: vec![UNUSABLE; pairs],
            relays: vec![NONE.into(); pairs],
            next_paths: vec![UNUSABLE; pairs],
            next_relays: vec![NONE.into(); pairs],
        }
    }

    fn found(&mut self) -> [Found<'_>; 2] {
        [
            Found {
                paths: &mut self.paths,
                relays: &mut self.relays,
            },
            Found {
                paths: &mut self.next_paths,
                relays: &mut self.next_relays,
            },
        ]
    }

    fn of(&self, row: Range<usize>) -> Singles<&[u32]> {
        Singles {
            paths: &self.paths[row.clone()],
            relays: &self.relays[row.clone()],
            next_paths: &self.next_paths[row.clone()],
            next_relays: &self.next_relays[row],
        }
    }
}

struct BackUp<'a> {
    costs: &'a CostMatrix,
    to: usize,
    target: Target<'a>,
    singles: Singles<&'a [u32]>,
    backups: &'a mut [u16],
}

impl NullaryFnOnce for BackUp<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for from in 0..self.costs.len() {
            if from != self.to && self.target.cost(from) < UNUSABLE {
                self.backups[from] = self.beside(from);
            }
        }
    }
}

impl BackUp<'_> {
    /// The backup beside the primary from a node.
    #[inline(always)]
    fn beside(&self, from: usize) -> u16 {
        let costs = self.costs;
        let relays = self.target.relays(from);
        let cheapest = index16(self.singles.relays[from] as usize);
        if relays.is_empty() {
            return cheapest;
        }
        let direct = self.target.direct[from];
        let straight = if direct < UNUSABLE { DIRECT } else { NONE };
        if direct <= self.singles.paths[from] {
            return straight;
        }
        if !relays.contains(&cheapest.into()) {
            if costs.penalty(&relays, cheapest.into()) == Cost::ZERO {
                return cheapest;
            }
        } else if direct <= self.singles.next_paths[from] {
            return straight;
        } else {
            let next = index16(self.singles.next_relays[from] as usize);
            if !relays.contains(&next.into()) && costs.penalty(&relays, next.into()) == Cost::ZERO {
                return next;
            }
        }
        packed(super::backup(costs, from, self.to, &relays, |_| true))
    }
}

pub(super) fn packed(backup: Option<Route>) -> u16 {
    backup.map_or(NONE, |route| {
        route.relays.first().map_or(DIRECT, |&relay| index16(relay))
    })
}

/// The lowest relay over which a path costs exactly so much; as many as there are where none does.
#[inline(always)]
pub(super) fn position(legs: &[u32], transits: &[u32], rests: &[u32], path: u32) -> usize {
    let (many, last) = legs.as_chunks::<LANES>();
    let chunks = many.iter().zip(transits.as_chunks().0).zip(rests.as_chunks().0);
    for (chunk, ((legs, transits), rests)) in chunks.enumerate() {
        if is_among(legs, transits, rests, path) {
            let found = (0..LANES).find(|&lane| legs[lane] + transits[lane] + rests[lane] == path);
            if let Some(lane) = found {
                return chunk * LANES + lane;
            }
        }
    }
    let start = legs.len() - last.len();
    let found = (start..legs.len()).find(|&relay| legs[relay] + transits[relay] + rests[relay] == path);
    found.unwrap_or(legs.len())
}

#[inline(always)]
fn is_among(legs: &[u32; LANES], transits: &[u32; LANES], rests: &[u32; LANES], path: u32) -> bool {
    let mut found = 0;
    for lane in 0..LANES {
        found |= u32::from(legs[lane] + transits[lane] + rests[lane] == path);
    }
    found != 0
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "node ids are 16 bits, indices lie below them"
)]
pub(super) fn index16(index: usize) -> u16 {
    index as u16
}
