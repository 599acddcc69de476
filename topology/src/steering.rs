//! Which paths each pair uses, tick by tick.
//!
//! Specification of a tick, for each pair:
//! 1. **Candidate.** The cheapest usable path ([`routes`]), without paths that are down; over relays only if it beats
//!    direct by max(5 ms, 5 %) (the *gate*), else direct.
//! 2. **First choice.** A pair without a path takes the candidate at once.
//! 3. **Bypass.** If the path in use is down, has an unusable leg or a node that drains, the pair moves to the
//!    candidate at once; likewise if a loss alarm is up on one of its legs and the candidate is cheaper and has
//!    none. While an alarm is up, its leg counts with at least the loss that raised it. A path with an alarm of its
//!    own is treated alike, and nothing over its relays is a candidate for its ends. Only a path that died less than
//!    half a second ago, and whose packets the backup takes, is kept, to the next tick after that: hosts switch to the
//!    backup by themselves, and most silences of such a length are none of the path's.
//! 4. **Hysteresis.** Else it moves if the candidate is better by max(5 ms, 10 %) on 3 ticks in a row; a tick is a second,
//!    and half of one for a path through a node that is new (step 5). A relay whose gain over direct has shrunk below
//!    half the gate on 3 ticks in a row gives way to direct.
//! 5. **Dwell.** Not within 10 s of the last move, unless the candidate goes through a node that is new (seen for
//!    less than 30 s). A path that step 3 drove the pair from is taken again 10 s after that, whatever it did meanwhile.
//! 6. **Damping.** Each such move adds 1000 to the pair's penalty, which halves every 60 s; above 4000 the pair
//!    stays until it is below 1500 (after RFC 2439). Moves by steps 2 and 3 neither count nor wait.
//! 7. **Fail static.** If no path is usable, the one in use stays. Only where the entry says besides, for 10 s, that
//!    nothing comes back from the exit, the pair is left without one: the entry then forwards by itself.
//!
//! The backup is chosen beside the path in use ([`routes::backup`]); it moves at once where it is no longer possible,
//! after half a second where it died and the path in use lives, else by the same hysteresis on its score. One that is
//! down stays where there is no other: it is probed as long as it is installed. A path that no pair has installed any
//! more is not, so its being down is forgotten after 10 s; its legs are judged on their own.
//!
//! Packets of a pair that asks for it are sent over both paths while the path in use loses more than 0.5 % one way and
//! the round trips are within 20 ms of each other; that ends at 0.25 %, and at 30 ms. A copy never changes which path
//! is which. Where there is no other backup, such a pair keeps one with an alarm of its own.
//!
//! A path's own alarm is about what it carried, which nobody can measure once it carries nothing: a relay may pass
//! probes on and lose data. It stands for 10 minutes after it was last said; but the alarm of a leg of the path
//! explains it, and stands in its place.

mod duplication;
mod explain;
mod input;
mod known;
mod pair;
mod view;
mod why;

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{LegId, Millis, NodeId, PairId};
#[cfg(doc)]
use crate::routes;
use crate::routes::CostMatrix;

pub use duplication::Duplication;
pub use explain::{
    BackupReason, BackupWhy, Explanation, Fate, LegCost, PathCost, Reason, Rejected, WayCost, explain,
};
pub use input::{
    Config, Divergence, Event, Input, LegInput, Margin, NodeInput, PairInput, Path, Recorded, replay,
};
pub use known::{Held, Known, LostLeg, Standing};
pub use why::{Cause, Change, Choice, Decision, Why, Words};

use pair::PairState;
use view::{Costs, Terms, Views, terms_of};

/// The state of all pairs between ticks.
#[derive(Clone, Debug)]
pub struct Steering {
    config: Config,
    ticks: u64,
    pairs: BTreeMap<PairId, PairState>,
    /// Since when.
    down: BTreeMap<Path, Millis>,
    /// The loss in a million that raised it.
    alarms: BTreeMap<LegId, u32>,
    /// When an alarm of the path itself was last said, and its loss in a million.
    lossy: BTreeMap<Path, (Millis, u32)>,
    first_seen: BTreeMap<NodeId, Millis>,
}

impl Steering {
    /// No pair yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ticks: 0,
            pairs: BTreeMap::new(),
            down: BTreeMap::new(),
            alarms: BTreeMap::new(),
            lossy: BTreeMap::new(),
            first_seen: BTreeMap::new(),
        }
    }

    /// Takes in what is known at `input.now` and decides for every pair; the answer is what changed, by pair. Pairs
    /// and nodes that the input no longer lists are forgotten.
    ///
    /// A tick is due after [`next_tick_ms`](Self::next_tick_ms), and at once when an event arrives: an extra tick never
    /// moves what only waits for its third confirmation, since confirmations are counted three quarters of a tick apart
    /// at least.
    pub fn tick(&mut self, input: &Input) -> Vec<Change> {
        self.ticks += 1;
        self.take_in(input);
        let costs = Costs::new(&self.config, input, &self.alarms);
        let bad = (&self.alarms, &self.down, &self.lossy);
        let views = Views::new(&self.config, input, &costs, bad, &self.first_seen);
        let mut changes = Vec::new();
        for listed in &input.pairs {
            let Some(view) = views.of(listed) else { continue };
            let state = self
                .pairs
                .entry(listed.id)
                .or_insert_with(|| PairState::new(listed));
            changes.extend(state.decide(&self.config, &view));
        }
        changes
    }

    /// How long after a tick at `now` the next one is due: half as long as else where a node is new, and not after a
    /// death is confirmed.
    pub fn next_tick_ms(&self, now: Millis) -> u64 {
        let is_new = |seen: &Millis| now.since(*seen) < self.config.new_node_ms;
        let is_one_new = self.first_seen.values().any(is_new);
        let confirmed = self
            .down
            .values()
            .map(|died| died.after(self.config.confirm_death_ms));
        let pending = confirmed.filter(|confirmed| *confirmed > now).min();
        let tick_ms = self.config.tick_of(is_one_new);
        pending.map_or(tick_ms, |confirmed| confirmed.since(now).min(tick_ms))
    }

    /// What all legs and relays cost the input's pairs now: those that have the same costs side by side.
    pub fn costs(&self, input: &Input) -> Vec<(Vec<PairInput>, CostMatrix)> {
        let costs = Costs::new(&self.config, input, &self.alarms).matrices;
        let of = |terms: &Terms| {
            let pairs = input.pairs.iter().filter(|pair| terms_of(input, pair) == *terms);
            pairs.copied().collect()
        };
        costs
            .into_iter()
            .map(|(terms, costs)| (of(&terms), costs))
            .collect()
    }

    /// How many ticks there were.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// What each pair uses and why, by pair.
    pub fn decisions(&self) -> impl Iterator<Item = &Decision> {
        self.pairs.values().map(PairState::decision)
    }

    /// What one pair uses and why.
    pub fn decision(&self, pair: PairId) -> Option<&Decision> {
        self.pairs.get(&pair).map(PairState::decision)
    }

    fn take_in(&mut self, input: &Input) {
        let nodes: BTreeSet<NodeId> = input.nodes.iter().map(|node| node.id).collect();
        for &node in &nodes {
            self.first_seen.entry(node).or_insert(input.now);
        }
        for event in &input.events {
            match event {
                Event::PathDown { path } => _ = self.down.entry(path.clone()).or_insert(input.now),
                Event::PathUp { path } => _ = self.down.remove(path),
                Event::Alarm { leg, loss_ppm } => _ = self.alarms.insert(*leg, *loss_ppm),
                Event::AlarmOver { leg } => _ = self.alarms.remove(leg),
                Event::PathAlarm { path, loss_ppm } => {
                    self.lossy.insert(path.clone(), (input.now, *loss_ppm));
                }
            }
        }
        self.first_seen.retain(|node, _| nodes.contains(node));
        self.alarms
            .retain(|leg, _| nodes.contains(&leg.from) && nodes.contains(&leg.to));
        self.forget_lossy(input.now);
        let pairs: BTreeMap<PairId, &PairInput> = input.pairs.iter().map(|pair| (pair.id, pair)).collect();
        self.pairs
            .retain(|id, state| pairs.get(id).is_some_and(|pair| state.is_of(pair)));
        let installed = |path: &Path| self.pairs.values().any(|pair| pair.uses(path));
        let memory_ms = self.config.down_memory_ms;
        self.down
            .retain(|path, &mut since| input.now.since(since) < memory_ms || installed(path));
    }

    /// Alarms of paths that are old, or that the alarm of a leg explains.
    fn forget_lossy(&mut self, now: Millis) {
        let (alarms, memory_ms) = (&self.alarms, self.config.alarm_memory_ms);
        let explains = |leg: LegId| alarms.contains_key(&leg) || alarms.contains_key(&leg.reversed());
        self.lossy
            .retain(|path, (said, _)| now.since(*said) < memory_ms && !path.legs().any(explains));
    }
}
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
