//! Whose turn it is to be probed, where a host has more legs than it should probe at once.
//!
//! Up to 64 nodes all legs are probed always. Beyond, these are: legs to nodes of the own region, legs that installed
//! paths pass here, and legs that are doubted. The others take turns of 20 s, those first that have waited longest: as
//! many at a time as make up 63 with those that are probed always, and so many at least that each has its turn within
//! five minutes of the last. A turn begins as a new path does, at 20 Hz for two seconds, and goes on each second: about 58 probes.
//! The prober's budget is for all of them together, as it is without turns.
//!
//! A leg that is new has its first turn at once, however many these are.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_model::HostState;
use kuafu_model::state::SlotAction;
use kuafu_topology::Millis;

use super::watch;

/// Legs beyond which they take turns: those of 64 nodes.
const MANY: usize = 63;
const TURN_MS: u64 = 20_000;
/// Turns in five minutes, where each ends a second late.
const TURNS: usize = 14;
/// How many turns of a share begin in a second at most: a twentieth, so that they do not all begin in the same one.
const BEGIN: usize = 20;

/// The turns of a host's legs, by the paths that measure them.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<u32, Leg>);

#[derive(Debug)]
struct Leg {
    /// The path's number in the cluster.
    id: u64,
    /// By which legs that have waited as long are told apart: another on each host, so that hosts do not all probe the
    /// same node at once.
    lot: u64,
    /// Probed always, as the state says.
    always: bool,
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It is new.
    First,
    Began(Millis),
    Ended(Millis),
}

impl Turns {
    /// Another state is in force.
    pub(super) fn follow(&mut self, state: &HostState) {
        let mut before = std::mem::take(&mut self.0);
        let passed = passed(state);
        for path in watch::legs(state).into_values() {
            let kept = before.remove(&path.index).filter(|kept| kept.id == path.id);
            let leg = Leg {
                id: path.id,
                lot: lot(state.node.id, path.id),
                always: path.near || passed.contains(&path.index),
                turn: kept.map_or(Turn::First, |kept| kept.turn),
            };
            self.0.insert(path.index, leg);
        }
    }

    /// A second has passed: turns end and begin. `is_doubted` says which legs must be watched meanwhile. Returns those
    /// whose rest is over.
    pub(super) fn second(&mut self, now: Millis, is_doubted: impl Fn(u32) -> bool) -> Vec<u32> {
        let many = self.0.len() > MANY;
        let mut waiting: Vec<(Millis, u64, u32)> = Vec::new();
        let (mut taking, mut others) = (0, 0);
        for (index, leg) in &mut self.0 {
            let is_free = many && !leg.always && !is_doubted(*index);
            others += usize::from(is_free);
            leg.turn = match leg.turn {
                Turn::Began(since) if is_free && now.since(since) >= TURN_MS => Turn::Ended(now),
                Turn::Began(_) | Turn::Ended(_) if is_free => leg.turn,
                // What is probed always has a turn of its own when it is not any more.
                _ => Turn::Began(now),
            };
            match leg.turn {
                Turn::Ended(since) => waiting.push((since, leg.lot, *index)),
                _ => taking += usize::from(is_free),
            }
        }
        let share = share(others, self.0.len() - others);
        waiting.sort_unstable();
        waiting.truncate(share.saturating_sub(taking).min(share.div_ceil(BEGIN)));
        let began: Vec<u32> = waiting.into_iter().map(|(.., index)| index).collect();
        for index in &began {
            if let Some(leg) = self.0.get_mut(index) {
                leg.turn = Turn::Began(now);
            }
        }
        began
    }

    /// Since when a leg rests; `None`: it is probed, or is no leg.
    pub(super) fn rests_since(&self, index: u32) -> Option<Millis> {
        match self.0.get(&index)?.turn {
            Turn::Ended(since) => Some(since),
            Turn::First | Turn::Began(_) => None,
        }
    }
}

/// How many of so many legs take their turn at once, beside those that are probed always.
fn share(others: usize, always: usize) -> usize {
    others.div_ceil(TURNS).max(MANY.saturating_sub(always))
}

/// The legs that installed paths pass here, by their own paths: those that paths of pairs begin with, and those that
/// this host leads others' paths on over.
fn passed(state: &HostState) -> BTreeSet<u32> {
    let legs = watch::legs(state);
    let is_leg = |index: u32| legs.values().any(|leg| leg.index == index);
    let begun = state.paths.iter().filter(|path| !is_leg(path.index));
    let begun = begun.filter_map(|path| legs.get(path.nodes.get(1)?.as_str()));
    let led = state.slots.iter().filter_map(|slot| match &slot.action {
        SlotAction::Relay(next) => legs.values().find(|leg| leg.leg.address == next.address),
        SlotAction::Exit { .. } => None,
    });
    begun.chain(led).map(|leg| leg.index).collect()
}

/// A number that a node and a path have together (SplitMix64's finalizer, Steele et al. 2014).
fn lot(node: u16, path: u64) -> u64 {
    let mut mixed = path ^ u64::from(node).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
