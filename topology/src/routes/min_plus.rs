//! The product of two matrices of costs where sums are minima and products are sums, by vector instructions: those
//! that the CPU has, chosen when the program runs.
//!
//! Costs are plain `u32` here. None exceeds [`Cost::UNUSABLE`] = 2²⁹, so a sum of two does not overflow; one that
//! reaches 2²⁹ is unusable, whatever it is.

use pulp::{Arch, NullaryFnOnce};

use super::CostMatrix;
use crate::cost::Cost;

/// Sources side by side: what fits the vector registers of x86-64 with AVX2 twice over.
pub(super) const LANES: usize = 16;
pub(super) const UNUSABLE: u32 = Cost::UNUSABLE.us();

/// First legs with the transit at their end, as the product reads them: of [`LANES`] sources, relay after relay.
pub(super) struct Panels {
    relays: usize,
    /// `relays·(source / LANES) + relay`, `source % LANES`.
    cells: Vec<[u32; LANES]>,
}

impl Panels {
    pub(super) fn new(costs: &CostMatrix) -> Self {
        let n = costs.len();
        let mut cells = vec![[UNUSABLE; LANES]; n.div_ceil(LANES) * n];
        for (relay, &transit) in costs.transits().iter().enumerate() {
            let legs = costs.column(relay).chunks(LANES);
            for (panel, legs) in cells.chunks_mut(n).zip(legs) {
                for (cell, leg) in panel[relay].iter_mut().zip(legs) {
                    *cell = (leg + transit).min(UNUSABLE);
                }
            }
        }
        Self { relays: n, cells }
    }

    fn sources(&self) -> impl Iterator<Item = &[[u32; LANES]]> {
        self.cells.chunks(self.relays.max(1))
    }
}

/// Costs from all sources to some targets: `width(n)·target + source`. What lies beyond the last source is unusable.
pub(super) type Rows = [u32];

/// How long a row of so many sources is.
pub(super) const fn width(n: usize) -> usize {
    n.div_ceil(LANES) * LANES
}

/// What a first leg, a relay's transit and a rest cost at least together, over all relays.
#[inline(always)]
pub(super) fn least(legs: &[u32], transits: &[u32], rests: &[u32]) -> u32 {
    let relays = legs.iter().zip(transits).zip(rests);
    relays.fold(UNUSABLE, |least, ((leg, transit), rest)| {
        least.min(leg + transit + rest)
    })
}

/// Relays whose first legs stay in a core's nearest cache, while target after target passes; and among which the
/// relay of a path is looked for.
pub(super) const BLOCK: usize = 128;

/// Lowers `paths` to what a first leg and then one of `rests` costs, for all sources and the targets of both. Where
/// that is lower, `blocks` becomes the block of relays that has the lowest relay of the cheapest.
pub(super) fn extend(panels: &Panels, rests: &Rows, paths: &mut Rows, blocks: &mut Rows) {
    Arch::new().dispatch(Extend {
        panels,
        rests,
        found: [paths, blocks],
    });
}

/// The same, where `second` is lowered to what the second-cheapest relay costs.
pub(super) fn extend_twice(
    panels: &Panels,
    rests: &Rows,
    paths: &mut Rows,
    blocks: &mut Rows,
    second: &mut Rows,
) {
    Arch::new().dispatch(ExtendTwice {
        panels,
        rests,
        found: [paths, blocks, second],
    });
}

struct Extend<'a> {
    panels: &'a Panels,
    rests: &'a Rows,
    found: [&'a mut Rows; 2],
}

impl NullaryFnOnce for Extend<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        by_blocks::<Lower, 4, 2>(self.panels, self.rests, self.found);
    }
}

struct ExtendTwice<'a> {
    panels: &'a Panels,
    rests: &'a Rows,
    found: [&'a mut Rows; 3],
}

impl NullaryFnOnce for ExtendTwice<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        by_blocks::<LowerTwice, 2, 3>(self.panels, self.rests, self.found);
    }
}

/// What is found of some sources and targets.
type Cells<const T: usize> = [[u32; LANES]; T];

/// One block of relays: their first legs from [`LANES`] sources, their rests to `T` targets, and what was found so far.
/// A trait, since a closure would not be compiled for the CPU of its caller.
trait Step<const T: usize, const F: usize> {
    fn step(block: u32, legs: &[[u32; LANES]], rests: [&[u32]; T], cells: &mut [Cells<T>; F]);
}

/// Takes a step for each block of relays, from all sources to all targets.
#[inline(always)]
fn by_blocks<S: Step<T, F>, const T: usize, const F: usize>(
    panels: &Panels,
    rests: &Rows,
    mut found: [&mut Rows; F],
) {
    let width = width(panels.relays);
    for (source, panel) in panels.sources().enumerate() {
        for (block, legs) in (0..).zip(panel.chunks(BLOCK)) {
            for target in (0..rests.len() / width.max(1)).step_by(T) {
                // Beyond the last target the last one again.
                let rows: [usize; T] =
                    std::array::from_fn(|row| width * (target + row).min(rests.len() / width - 1));
                let rests = rows.map(|row| &rests[row + BLOCK * block as usize..][..legs.len()]);
                let mut cells = [[[0; LANES]; T]; F];
                for (cells, found) in cells.iter_mut().zip(&found) {
                    for (cells, row) in cells.iter_mut().zip(rows) {
                        cells.copy_from_slice(&found[row + LANES * source..][..LANES]);
                    }
                }
                S::step(block, legs, rests, &mut cells);
                for (cells, found) in cells.iter().zip(&mut found) {
                    for (cells, row) in cells.iter().zip(rows) {
                        found[row + LANES * source..][..LANES].copy_from_slice(cells);
                    }
                }
            }
        }
    }
}

struct Lower;

impl<const T: usize> Step<T, 2> for Lower {
    #[inline(always)]
    fn step(block: u32, legs: &[[u32; LANES]], rests: [&[u32]; T], [paths, blocks]: &mut [Cells<T>; 2]) {
        let rests = rests.map(|rest| &rest[..legs.len()]);
        let mut least = *paths;
        for (relay, legs) in legs.iter().enumerate() {
            for target in 0..T {
                let rest = rests[target][relay];
                for lane in 0..LANES {
                    let path = legs[lane] + rest;
                    least[target][lane] = least[target][lane].min(path);
                }
            }
        }
        note(block, &least, paths, blocks);
        *paths = least;
    }
}

struct LowerTwice;

impl<const T: usize> Step<T, 3> for LowerTwice {
    #[inline(always)]
    fn step(
        block: u32,
        legs: &[[u32; LANES]],
        rests: [&[u32]; T],
        [paths, blocks, second]: &mut [Cells<T>; 3],
    ) {
        let rests = rests.map(|rest| &rest[..legs.len()]);
        let mut least = *paths;
        let mut next = *second;
        for (relay, legs) in legs.iter().enumerate() {
            for target in 0..T {
                let rest = rests[target][relay];
                let (mut worse, mut path) = ([0; LANES], [0; LANES]);
                for lane in 0..LANES {
                    path[lane] = legs[lane] + rest;
                }
                for lane in 0..LANES {
                    worse[lane] = path[lane].max(least[target][lane]);
                }
                for lane in 0..LANES {
                    next[target][lane] = next[target][lane].min(worse[lane]);
                }
                for lane in 0..LANES {
                    least[target][lane] = least[target][lane].min(path[lane]);
                }
            }
        }
        note(block, &least, paths, blocks);
        *paths = least;
        *second = next;
    }
}

#[inline(always)]
fn note<const T: usize>(block: u32, least: &Cells<T>, paths: &Cells<T>, blocks: &mut Cells<T>) {
    for target in 0..T {
        for lane in 0..LANES {
            let is_new = least[target][lane] < paths[target][lane];
            blocks[target][lane] = if is_new { block } else { blocks[target][lane] };
        }
    }
}
