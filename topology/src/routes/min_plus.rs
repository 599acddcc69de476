//! The product of two matrices of costs where sums are minima and products are sums, by vector instructions: those
//! that the CPU has, chosen when the program runs.
//!
//! Costs are plain `u32` here. None exceeds [`Cost::UNUSABLE`] = 2²⁹, so a sum of two does not overflow; one that
//! reaches 2²⁹ is unusable, whatever it is.

use pulp::{Arch, NullaryFnOnce};

use super::{CostMatrix, MAX_RELAYS};
use crate::cost::Cost;

/// Sources side by side: what fits the vector registers of x86-64 with AVX2 twice over.
pub(super) const LANES: usize = 16;
pub(super) const UNUSABLE: u32 = Cost::UNUSABLE.us();

/// First legs with the transit at their end, as the product reads them: of [`LANES`] sources, relay after relay.
///
/// A cell is `cost·2^bits + relay mod 2^bits`, a rest `cost·2^bits`: so the least of their sums over a block of `2^bits`
/// relays also says which of the cheapest relays is the lowest.
pub(super) struct Panels {
    relays: usize,
    bits: u32,
    /// `relays·(source / LANES) + relay`, `source % LANES`.
    cells: Vec<[u32; LANES]>,
}

/// A block of 128 relays: their first legs stay in a core's nearest cache, while target after target passes. Costs have
/// room where no leg and transit reach 4.1 s.
const WIDE: u32 = 7;
/// The next one, up to 33 s; beyond that each relay is a block of its own.
const NARROW: u32 = 4;

/// What is unusable beside so many bits: the sum of two has room.
const fn unusable(bits: u32) -> u32 {
    let most = (u32::MAX >> 1) >> bits;
    if most < UNUSABLE { most } else { UNUSABLE }
}

impl Panels {
    pub(super) fn new(costs: &CostMatrix) -> Self {
        let n = costs.len();
        let dearest = |costs: &[u32]| costs.iter().copied().filter(|&cost| cost < UNUSABLE).max();
        let legs = (0..n).filter_map(|to| dearest(costs.column(to))).max();
        let longest =
            (legs.unwrap_or(0) + dearest(costs.transits()).unwrap_or(0)) as usize * (MAX_RELAYS + 1);
        let has_room = |bits: &u32| longest < unusable(*bits) as usize;
        let bits = [WIDE, NARROW].into_iter().find(has_room).unwrap_or(0);
        let index = (0..).map(|relay: u32| relay & !(u32::MAX << bits));
        let mut cells = vec![[UNUSABLE; LANES]; n.div_ceil(LANES) * n];
        for ((relay, &transit), index) in costs.transits().iter().enumerate().zip(index) {
            let legs = costs.column(relay).chunks(LANES);
            for (panel, legs) in cells.chunks_mut(n).zip(legs) {
                for (cell, leg) in panel[relay].iter_mut().zip(legs) {
                    *cell = leg + transit;
                }
                panel[relay] = panel[relay].map(|cost| pack(cost, bits) + index);
            }
        }
        Self {
            relays: n,
            bits,
            cells,
        }
    }

    fn sources(&self) -> impl Iterator<Item = &[[u32; LANES]]> {
        self.cells.chunks(self.relays.max(1))
    }
}

#[inline(always)]
fn pack(cost: u32, bits: u32) -> u32 {
    cost.min(unusable(bits)) << bits
}

#[inline(always)]
fn unpack(cell: u32, bits: u32) -> u32 {
    let cost = cell >> bits;
    if cost < unusable(bits) { cost } else { UNUSABLE }
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

/// The cheapest so far and the first relay of each, as [`Rows`].
pub(super) struct Found<'a> {
    pub(super) paths: &'a mut [u32],
    pub(super) relays: &'a mut [u32],
}

/// Lowers what is found to what a first leg and then one of `rests` costs, for all sources and the targets of both. Of
/// relays that cost the same it is the lowest.
pub(super) fn extend(panels: &Panels, rests: &Rows, found: Found<'_>) {
    extend_by::<4, 1>(panels, rests, [found]);
}

/// The same for the cheapest and the next relay.
pub(super) fn extend_twice(panels: &Panels, rests: &Rows, found: [Found<'_>; 2]) {
    extend_by::<2, 2>(panels, rests, found);
}

fn extend_by<const T: usize, const F: usize>(panels: &Panels, rests: &Rows, found: [Found<'_>; F]) {
    let rests: Vec<u32> = rests.iter().map(|&rest| pack(rest, panels.bits)).collect();
    Arch::new().dispatch(Extend::<T, F> {
        panels,
        rests: &rests,
        found,
    });
}

/// The `F` cheapest, `T` targets at a time.
struct Extend<'a, const T: usize, const F: usize> {
    panels: &'a Panels,
    /// As in [`Panels`].
    rests: &'a Rows,
    found: [Found<'a>; F],
}

impl<const T: usize, const F: usize> NullaryFnOnce for Extend<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        match self.panels.bits {
            WIDE => self.by_blocks::<WIDE>(),
            NARROW => self.by_blocks::<NARROW>(),
            _ => self.by_blocks::<0>(),
        }
    }
}

impl<const T: usize, const F: usize> Extend<'_, T, F> {
    #[inline(always)]
    fn by_blocks<const BITS: u32>(mut self) {
        let width = width(self.panels.relays);
        let targets = self.rests.len() / width.max(1);
        for (source, panel) in self.panels.sources().enumerate() {
            for (block, legs) in (0..).zip(panel.chunks(1 << BITS)) {
                for first in (0..targets).step_by(T) {
                    // Beyond the last target the last one again.
                    let rows: [usize; T] = std::array::from_fn(|row| width * (first + row).min(targets - 1));
                    let rests = rows.map(|row| &self.rests[row + ((block as usize) << BITS)..][..legs.len()]);
                    let least = least_sums::<T, F>(legs, rests);
                    for (target, row) in rows.into_iter().enumerate().take(targets - first) {
                        self.lower::<BITS>(row + LANES * source, block, least.map(|least| least[target]));
                    }
                }
            }
        }
    }

    /// Puts in what a block has, each behind what is as good from the blocks before.
    #[inline(always)]
    fn lower<const BITS: u32>(&mut self, at: usize, block: u32, least: [[u32; LANES]; F]) {
        let rows = at..at + LANES;
        for least in least {
            let (mut keys, mut relays) = ([0; LANES], [0; LANES]);
            for lane in 0..LANES {
                // Between what costs as much and what costs more.
                keys[lane] = 2 * unpack(least[lane], BITS) + 1;
                relays[lane] = block << BITS | least[lane] & !(u32::MAX << BITS);
            }
            for found in &mut self.found {
                let (mut known, mut by) = ([0; LANES], [0; LANES]);
                known.copy_from_slice(&found.paths[rows.clone()]);
                by.copy_from_slice(&found.relays[rows.clone()]);
                let (was, were) = (known, by);
                for lane in 0..LANES {
                    let is_lower = keys[lane] <= 2 * known[lane];
                    known[lane] = known[lane].min(keys[lane] / 2);
                    by[lane] = if is_lower { relays[lane] } else { by[lane] };
                }
                for lane in 0..LANES {
                    relays[lane] = if keys[lane] <= 2 * was[lane] {
                        were[lane]
                    } else {
                        relays[lane]
                    };
                    keys[lane] = keys[lane].max(2 * was[lane]);
                }
                found.paths[rows.clone()].copy_from_slice(&known);
                found.relays[rows.clone()].copy_from_slice(&by);
            }
        }
    }
}

/// The `F` least sums of first legs and rests, from [`LANES`] sources to `T` targets, as cells.
#[inline(always)]
fn least_sums<const T: usize, const F: usize>(
    legs: &[[u32; LANES]],
    rests: [&[u32]; T],
) -> [[[u32; LANES]; T]; F] {
    let rests = rests.map(|rest| &rest[..legs.len()]);
    let mut least = [[[u32::MAX; LANES]; T]; F];
    for (relay, legs) in legs.iter().enumerate() {
        for target in 0..T {
            let rest = rests[target][relay];
            let mut sum = [0; LANES];
            for lane in 0..LANES {
                sum[lane] = legs[lane] + rest;
            }
            for least in &mut least {
                let least = &mut least[target];
                for lane in 0..LANES {
                    let more = sum[lane].max(least[lane]);
                    least[lane] = sum[lane].min(least[lane]);
                    sum[lane] = more;
                }
            }
        }
    }
    least
}
