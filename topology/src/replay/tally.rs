//! What was realised, tick by tick.

use std::collections::BTreeMap;

use crate::cost::Cost;
use crate::id::{NodeId, PairId};
use crate::routes::{CostMatrix, Relay, Rests};
use crate::steering::{PairInput, Path, Steering};

/// What the legs of a tick were.
pub(super) struct Weather {
    /// A lost leg costs what lost legs count as; one that there is not is unusable. Who must not relay is no relay.
    costs: CostMatrix,
    /// All transits, of those too who must not relay.
    transits: Vec<Cost>,
}

impl Weather {
    /// Without any leg. Nodes have their transit, and whether they relay.
    pub(super) fn new(nodes: impl Iterator<Item = (NodeId, Cost, bool)>) -> Self {
        let mut nodes: Vec<_> = nodes.collect();
        nodes.sort_unstable_by_key(|node| node.0);
        let relay = |&(id, transit, relays): &(NodeId, Cost, bool)| Relay {
            id,
            site: 0,
            provider: 0,
            transit: if relays { transit } else { Cost::UNUSABLE },
        };
        Self {
            costs: CostMatrix::of_sorted(nodes.iter().map(relay).collect()),
            transits: nodes.iter().map(|node| node.1).collect(),
        }
    }

    pub(super) fn set(&mut self, from: NodeId, to: NodeId, round_trip_us: u32) {
        if let Some((from, to)) = self.ends(from, to) {
            self.costs.set(from, to, Cost::from_us(round_trip_us));
        }
    }

    fn ends(&self, from: NodeId, to: NodeId) -> Option<(usize, usize)> {
        self.costs.index_of(from).zip(self.costs.index_of(to))
    }

    /// A leg; `None` where there is none.
    fn leg(&self, from: NodeId, to: NodeId) -> Option<u32> {
        let (from, to) = self.ends(from, to)?;
        let cost = self.costs.leg(from, to);
        cost.is_usable().then(|| cost.us())
    }

    /// What the path in force came to.
    fn realised(&self, path: &Path, lost_us: u32) -> u32 {
        let legs: u32 = path
            .legs()
            .map(|leg| self.leg(leg.from, leg.to).unwrap_or(lost_us))
            .sum();
        let transit = |&relay: &NodeId| {
            let index = self.costs.index_of(relay);
            index.map_or(0, |index| self.transits[index].us())
        };
        legs + path.relays().iter().map(transit).sum::<u32>()
    }

    /// The best paths to every node, over at most so many relays.
    fn best(&self, max_relays: usize) -> Vec<Rests<'_>> {
        let targets = 0..self.costs.len();
        targets
            .map(|to| Rests::new(&self.costs, to, max_relays))
            .collect()
    }
}

/// The sums of a pair, over ticks that count.
#[derive(Clone, Debug)]
pub(super) struct PairTally {
    pub(super) pair: PairInput,
    pub(super) ticks: u64,
    pub(super) used_us: u64,
    pub(super) direct_us: u64,
    pub(super) oracle_us: u64,
    pub(super) switches: u64,
    /// The path in force, in the last tick.
    pub(super) path: Path,
}

/// All sums.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) pairs: BTreeMap<PairId, PairTally>,
    /// Of every pair and tick that counts.
    pub(super) realised: Vec<u32>,
    pub(super) ticks: u64,
}

impl Tally {
    /// Takes in a tick: what `decided` put in force, under what the legs were.
    pub(super) fn tick(&mut self, listed: &[PairInput], decided: &Steering, weather: &Weather, rules: Rules) {
        let best = rules.counts.then(|| weather.best(rules.max_relays));
        self.ticks += u64::from(rules.counts);
        for pair in listed {
            let Some(direct_us) = weather.leg(pair.entry, pair.exit) else {
                continue;
            };
            let primary = decided
                .decision(pair.id)
                .and_then(|decision| decision.primary.as_ref());
            let tally = self.pairs.entry(pair.id).or_insert_with(|| PairTally {
                pair: *pair,
                ticks: 0,
                used_us: 0,
                direct_us: 0,
                oracle_us: 0,
                switches: 0,
                path: primary.map_or_else(
                    || Path::new(pair.entry, &[], pair.exit),
                    |choice| choice.path.clone(),
                ),
            });
            let moved = primary.is_some_and(|choice| choice.path != tally.path);
            if moved && let Some(choice) = primary {
                tally.path = choice.path.clone();
            }
            let Some(best) = &best else { continue };
            let used_us = weather.realised(&tally.path, rules.lost_us);
            let ends = weather.ends(pair.entry, pair.exit);
            let best_us = ends.map_or(Cost::ZERO, |(from, to)| best[to].least(from));
            tally.ticks += 1;
            tally.used_us += u64::from(used_us);
            tally.direct_us += u64::from(direct_us);
            tally.oracle_us += u64::from(best_us.us());
            tally.switches += u64::from(moved);
            self.realised.push(used_us);
        }
    }
}

/// How a tick is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Whether it counts at all.
    pub(super) counts: bool,
    /// What a lost leg counts as.
    pub(super) lost_us: u32,
    /// How many relays the oracle may use.
    pub(super) max_relays: usize,
}
