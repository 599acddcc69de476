//! All paths to one node, in the order in which they are chosen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pulp::{Arch, NullaryFnOnce};

use super::{CostMatrix, MAX_RELAYS, Relays, Route, min_plus};
use crate::cost::Cost;

/// What it costs at least to get to a node, from each other node, by the number of relays that are left.
#[derive(Clone, Debug)]
pub struct Rests<'a> {
    costs: &'a CostMatrix,
    to: usize,
    /// By relays at most, from 0; µs by source.
    least: Vec<Vec<u32>>,
}

impl<'a> Rests<'a> {
    /// Of paths with at most so many relays, up to three.
    pub fn new(costs: &'a CostMatrix, to: usize, max_relays: usize) -> Self {
        let mut least = vec![costs.column(to).to_vec()];
        for relays in 0..max_relays.min(MAX_RELAYS) {
            let mut longer = least[relays].clone();
            Arch::new().dispatch(Extend {
                costs,
                rests: &least[relays],
                paths: &mut longer,
            });
            longer[to] = Cost::UNUSABLE.us();
            least.push(longer);
        }
        Self { costs, to, least }
    }

    /// What the cheapest path from a node costs.
    pub fn least(&self, from: usize) -> Cost {
        let longest = self.least.last();
        longest.map_or(Cost::UNUSABLE, |least| Cost::from_us(least[from]))
    }

    /// Every path from a node, the cheapest first; of equal ones that with fewer relays, then by the ids of its
    /// relays. Each is found when it is asked for.
    pub fn ranked(&self, from: usize) -> Ranked<'_> {
        let mut ranked = Ranked {
            rests: self,
            from,
            open: BinaryHeap::new(),
        };
        if from != self.to {
            ranked.open(Relays::new(), Cost::ZERO);
        }
        ranked
    }
}

struct Extend<'a> {
    costs: &'a CostMatrix,
    rests: &'a [u32],
    paths: &'a mut [u32],
}

impl NullaryFnOnce for Extend<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (from, path) in self.paths.iter_mut().enumerate() {
            let legs = self.costs.row(from);
            *path = (*path).min(min_plus::least(legs, self.costs.transits(), self.rests));
        }
    }
}

/// The paths from one node to another; see [`Rests::ranked`].
///
/// Best first (A*, Hart, Nilsson, Raphael 1968), where what is left to go is known exactly, so that little more is
/// looked at than what is returned.
#[derive(Clone, Debug)]
pub struct Ranked<'a> {
    rests: &'a Rests<'a>,
    from: usize,
    open: BinaryHeap<Reverse<Partial>>,
}

/// The beginning of paths, or a whole one; ordered as paths are chosen. None comes after what it may become.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Partial {
    /// What the cheapest that begins so costs at least.
    cost: Cost,
    /// How many relays it has at least, if it costs that.
    count: usize,
    relays: Relays,
    is_whole: bool,
    /// Up to the last relay, with its transit.
    so_far: Cost,
}

impl Ranked<'_> {
    /// Adds what begins with these relays.
    fn open(&mut self, relays: Relays, so_far: Cost) {
        let last = relays.last().copied().unwrap_or(self.from);
        let least = &self.rests.least[..self.rests.least.len() - relays.len()];
        let Some(rest) = least.last().map(|least| least[last]) else {
            return;
        };
        let more = least.iter().position(|least| least[last] == rest).unwrap_or(0);
        let cost = so_far + Cost::from_us(rest);
        if cost.is_usable() {
            self.open.push(Reverse(Partial {
                cost,
                count: relays.len() + more,
                relays,
                is_whole: false,
                so_far,
            }));
        }
    }

    /// Adds what a beginning can become: a whole path, and each with one relay more.
    fn go_on(&mut self, begun: &Partial) {
        let costs = self.rests.costs;
        let last = begun.relays.last().copied().unwrap_or(self.from);
        let cost = begun.so_far + costs.leg(last, self.rests.to);
        if cost.is_usable() {
            self.open.push(Reverse(Partial {
                cost,
                count: begun.relays.len(),
                is_whole: true,
                ..begun.clone()
            }));
        }
        if begun.relays.len() + 1 == self.rests.least.len() {
            return;
        }
        for (relay, node) in costs.relays().iter().enumerate() {
            let passed = relay == self.from || relay == self.rests.to || begun.relays.contains(&relay);
            let there = begun.so_far + costs.leg(last, relay) + node.transit;
            if !passed && there.is_usable() {
                let relays = begun.relays.iter().copied().chain([relay]).collect();
                self.open(relays, there);
            }
        }
    }
}

impl Iterator for Ranked<'_> {
    type Item = Route;

    fn next(&mut self) -> Option<Route> {
        while let Some(Reverse(least)) = self.open.pop() {
            if least.is_whole {
                return Some(Route {
                    relays: least.relays,
                    cost: least.cost,
                });
            }
            self.go_on(&least);
        }
        None
    }
}
