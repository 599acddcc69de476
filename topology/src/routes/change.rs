//! All pairs again, after one leg has changed.
//!
//! Level by level, from direct up, the pairs whose path or cost is another are followed: a path that begins with a leg
//! and goes on by such a pair, or that begins with the leg itself. It is compared with the one that was chosen; only
//! where the chosen one became worse are all relays of its pair tried again.

use std::collections::BTreeMap;

use pulp::{Arch, NullaryFnOnce};

use super::all_pairs::{DIRECT, Level, NONE, SAME, index16, packed, position};
use super::min_plus::{self, LANES, UNUSABLE};
use super::{CostMatrix, Routes};
use crate::cost::Cost;

/// Pairs (to, from) that are not what they were; `true` where the path passes other nodes, not only at another cost.
type Changed = BTreeMap<(usize, usize), bool>;

impl Routes {
    /// Sets the cost of a leg, and makes everything what [`best`](super::best) would answer with it. Returns for how
    /// many pairs the primary has another cost or other relays.
    pub fn set_leg(&mut self, from: usize, to: usize, cost: Cost) -> usize {
        if from == to || self.costs.leg(from, to) == cost {
            return 0;
        }
        self.costs.set(from, to, cost);
        let mut changed = Changed::from([((to, from), false)]);
        for level in 0..self.levels.len() {
            let (shorter, longer) = self.levels.split_at_mut(level);
            let mut step = Step {
                costs: &self.costs,
                width: min_plus::width(self.costs.len()),
                shorter: shorter.last(),
                level: &mut longer[0],
                changed: Changed::new(),
            };
            step.follow(&changed);
            step.begin_with(from, to);
            changed = step.changed;
        }
        self.back_up(from, to, &changed);
        changed.len()
    }

    /// Another backup where the primary passes other relays, or where the leg is part of the backup or might be.
    fn back_up(&mut self, from: usize, to: usize, changed: &Changed) {
        for (&(end, start), _) in changed.iter().filter(|(_, is_other)| **is_other) {
            self.choose_backup(start, end);
        }
        self.choose_backup(from, to);
        for other in 0..self.costs.len() {
            self.reconsider(from, to, other);
            self.reconsider(other, from, to);
        }
    }

    /// Chooses the backup anew if a relay is the backup of the pair or is now as good as that.
    fn reconsider(&mut self, from: usize, relay: usize, to: usize) {
        if from == to || from == relay || relay == to {
            return;
        }
        let index = min_plus::width(self.costs.len()) * to + from;
        let chosen = self.backups[index];
        let path = self.costs.path(from, &[relay], to);
        let is_chosen = chosen == index16(relay);
        let relays = self.target(to, self.levels.len()).relays(from);
        let score = |relay: usize, path: Cost| path + self.costs.penalty(&relays, relay);
        let best = match chosen {
            NONE => Cost::UNUSABLE,
            DIRECT => self.costs.leg(from, to),
            chosen => score(chosen.into(), self.costs.path(from, &[chosen.into()], to)),
        };
        if is_chosen || path.is_usable() && score(relay, path) <= best {
            self.choose_backup(from, to);
        }
    }

    fn choose_backup(&mut self, from: usize, to: usize) {
        let primary = self.primary(from, to);
        let found =
            primary.and_then(|primary| super::backup(&self.costs, from, to, &primary.relays, |_| true));
        self.backups[min_plus::width(self.costs.len()) * to + from] = packed(found);
    }
}

/// One level, brought up to date.
struct Step<'a> {
    costs: &'a CostMatrix,
    width: usize,
    /// The level below; none below the first: there is direct.
    shorter: Option<&'a Level>,
    level: &'a mut Level,
    changed: Changed,
}

impl<'a> Step<'a> {
    /// Follows what changed on the level below.
    fn follow(&mut self, below: &Changed) {
        for (&(to, relay), &is_other) in below {
            self.fall_back(relay, to, is_other);
            let transit = self.costs.transits()[relay];
            let via = Via {
                legs: self.costs.column(relay),
                rest: transit + self.rests(to)[relay],
                paths: &self.level.costs[self.width * to..],
                hops: &self.level.hops[self.width * to..],
                relay: index16(relay),
            };
            for from in Arch::new().dispatch(via) {
                self.go_by(from, relay, to, is_other);
            }
        }
    }

    /// Follows the leg itself.
    fn begin_with(&mut self, from: usize, relay: usize) {
        for to in (0..self.costs.len()).filter(|&to| to != from) {
            self.go_by(from, relay, to, false);
        }
    }

    fn rests(&self, to: usize) -> &'a [u32] {
        let row = self.width * to..self.width * to + self.costs.len();
        self.shorter
            .map_or(self.costs.column(to), |level| &level.costs[row])
    }

    /// The path with fewer relays has changed.
    fn fall_back(&mut self, from: usize, to: usize, is_other: bool) {
        let (index, path) = (self.width * to + from, self.rests(to)[from]);
        if path <= self.level.costs[index] {
            let was = std::mem::replace(&mut self.level.hops[index], SAME);
            self.level.costs[index] = path;
            self.note(from, to, is_other || was != SAME);
        } else if self.level.hops[index] == SAME {
            self.try_all(from, to, is_other);
        }
    }

    /// The path by this first relay has changed.
    fn go_by(&mut self, from: usize, relay: usize, to: usize, is_other: bool) {
        if from == to {
            return;
        }
        let index = self.width * to + from;
        let path = self.costs.row(from)[relay] + self.costs.transits()[relay] + self.rests(to)[relay];
        let (chosen, hop) = (self.level.costs[index], self.level.hops[index]);
        let relay = index16(relay);
        if hop == relay && path > chosen {
            self.try_all(from, to, is_other);
        } else if hop == relay || path < chosen || (path == chosen && hop != SAME && relay < hop) {
            (self.level.costs[index], self.level.hops[index]) = (path, relay);
            self.note(from, to, is_other || hop != relay);
        }
    }

    fn try_all(&mut self, from: usize, to: usize, is_other: bool) {
        let index = self.width * to + from;
        let (legs, transits, rests) = (self.costs.row(from), self.costs.transits(), self.rests(to));
        let least = Arch::new().dispatch(Least {
            legs,
            transits,
            rests,
        });
        let was = self.level.hops[index];
        let straight = rests[from];
        (self.level.costs[index], self.level.hops[index]) = if least < straight.min(UNUSABLE) {
            let relay = position(legs, transits, rests, least);
            (least, index16(relay))
        } else {
            (straight, SAME)
        };
        self.note(from, to, is_other || self.level.hops[index] != was);
    }

    fn note(&mut self, from: usize, to: usize, is_other: bool) {
        *self.changed.entry((to, from)).or_default() |= is_other;
    }
}

/// From where the path by a relay is now as good as the chosen one, or is the chosen one.
struct Via<'a> {
    legs: &'a [u32],
    /// Behind the leg, µs.
    rest: u32,
    paths: &'a [u32],
    hops: &'a [u16],
    relay: u16,
}

impl NullaryFnOnce for Via<'_> {
    type Output = Vec<usize>;

    #[inline(always)]
    fn call(self) -> Vec<usize> {
        let mut sources = Vec::new();
        let rows = self
            .paths
            .as_chunks::<LANES>()
            .0
            .iter()
            .zip(self.hops.as_chunks::<LANES>().0);
        for (block, (legs, (paths, hops))) in self.legs.chunks(LANES).zip(rows).enumerate() {
            let mut full = [UNUSABLE; LANES];
            full[..legs.len()].copy_from_slice(legs);
            let mut found = false;
            for lane in 0..LANES {
                found |= (full[lane] + self.rest <= paths[lane]) | (hops[lane] == self.relay);
            }
            if found {
                let is_found =
                    |&lane: &usize| full[lane] + self.rest <= paths[lane] || hops[lane] == self.relay;
                let lanes = (0..legs.len()).filter(is_found);
                sources.extend(lanes.map(|lane| block * LANES + lane));
            }
        }
        sources
    }
}

/// The cheapest over any first relay.
struct Least<'a> {
    legs: &'a [u32],
    transits: &'a [u32],
    rests: &'a [u32],
}

impl NullaryFnOnce for Least<'_> {
    type Output = u32;

    #[inline(always)]
    fn call(self) -> u32 {
        min_plus::least(self.legs, self.transits, self.rests)
    }
}
