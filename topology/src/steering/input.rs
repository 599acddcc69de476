//! What steering is told, and recordings of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Change, Duplication, Steering};
use crate::cost::{Cost, TrafficClass, Weights};
use crate::estimate::LegStats;
use crate::id::{LegId, Millis, NodeId, PairId};
use crate::routes::MAX_RELAYS;

/// What is better: by an absolute and by a relative margin, whichever is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Margin {
    /// µs.
    pub us: u32,
    /// So much in a million of the cost that is to be beaten.
    pub ppm: u32,
}

impl Margin {
    /// The µs by which this cost must be beaten.
    pub fn of(self, cost: Cost) -> u32 {
        let relative = u64::from(cost.us()) * u64::from(self.ppm) / 1_000_000;
        self.us.max(u32::try_from(relative).unwrap_or(u32::MAX))
    }
}

/// How steering decides. The defaults are the specification's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many relays a path has at most, up to three.
    pub max_relays: usize,
    /// What a relay must gain over direct.
    pub gate: Margin,
    /// What another path must gain over the one in use.
    pub hysteresis: Margin,
    /// On how many ticks in a row.
    pub confirmations: u32,
    /// ms between ticks that confirm.
    pub tick_ms: u64,
    /// ms a pair stays on a path at least.
    pub dwell_ms: u64,
    /// ms for which a node is new.
    pub new_node_ms: u64,
    /// ms after which it is forgotten that a path was down which no pair has installed.
    pub down_memory_ms: u64,
    /// ms for which a path that died is kept where the other one of its pair takes its packets.
    pub confirm_death_ms: u64,
    /// ms after which a pair is left without a path where none is usable and nothing comes back from the exit.
    pub give_up_ms: u64,
    /// Lost in a million above which packets of a pair that asks for it are sent over both paths.
    pub duplicate_loss_ppm: u32,
    /// µs that the round trips of these may be apart.
    pub duplicate_within_us: u32,
    /// ms for which a path that lost packets is avoided, where no alarm of a leg explains it.
    pub alarm_memory_ms: u64,
    /// Penalty of a move.
    pub damping_move: u32,
    /// Penalty above which a pair is held.
    pub damping_hold: u32,
    /// Penalty below which it is free again.
    pub damping_reuse: u32,
    /// ms in which the penalty halves.
    pub damping_half_life_ms: u64,
    /// Weights of game traffic.
    pub game: Weights,
    /// Weights of voice.
    pub voice: Weights,
    /// Weights of bulk traffic.
    pub bulk: Weights,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_relays: MAX_RELAYS,
            gate: Margin {
                us: 5_000,
                ppm: 50_000,
            },
            hysteresis: Margin {
                us: 5_000,
                ppm: 100_000,
            },
            confirmations: 3,
            tick_ms: 1_000,
            dwell_ms: 10_000,
            new_node_ms: 30_000,
            down_memory_ms: 10_000,
            confirm_death_ms: 500,
            give_up_ms: 10_000,
            duplicate_loss_ppm: 5_000,
            duplicate_within_us: 20_000,
            alarm_memory_ms: 600_000,
            damping_move: 1_000,
            damping_hold: 4_000,
            damping_reuse: 1_500,
            damping_half_life_ms: 60_000,
            game: TrafficClass::Game.weights(),
            voice: TrafficClass::Voice.weights(),
            bulk: TrafficClass::Bulk.weights(),
        }
    }
}

impl Config {
    /// How many ms a tick lasts that confirms a path through a node that is new, or any other.
    pub(super) fn tick_of(&self, is_new: bool) -> u64 {
        self.tick_ms / if is_new { 2 } else { 1 }
    }

    /// The weights of a class.
    pub fn weights(&self, class: TrafficClass) -> Weights {
        match class {
            TrafficClass::Game => self.game,
            TrafficClass::Voice => self.voice,
            TrafficClass::Bulk => self.bulk,
        }
    }
}

/// The nodes of a path, entry first, exit last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Path(Vec<NodeId>);

impl Path {
    /// A path straight or over relays.
    pub fn new(entry: NodeId, relays: &[NodeId], exit: NodeId) -> Self {
        let relays = relays.iter().copied();
        Self(
            std::iter::once(entry)
                .chain(relays)
                .chain(std::iter::once(exit))
                .collect(),
        )
    }

    /// All its nodes.
    pub fn nodes(&self) -> &[NodeId] {
        &self.0
    }

    /// The nodes between entry and exit.
    pub fn relays(&self) -> &[NodeId] {
        self.0.get(1..self.0.len().saturating_sub(1)).unwrap_or_default()
    }

    /// Whether there is no relay.
    pub fn is_direct(&self) -> bool {
        self.relays().is_empty()
    }

    /// Its legs, in order.
    pub fn legs(&self) -> impl Iterator<Item = LegId> + '_ {
        self.0
            .iter()
            .zip(self.0.iter().skip(1))
            .map(|(&from, &to)| LegId { from, to })
    }

    /// The same nodes the other way: its twin.
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self(self.0.iter().rev().copied().collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.0.iter().enumerate() {
            let arrow = if index == 0 { "" } else { ">" };
            write!(f, "{arrow}{node}")?;
        }
        Ok(())
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInput {
    /// Its number.
    pub id: NodeId,
    /// What people call it; nothing is decided by that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its site; an empty name is a site of its own.
    pub site: String,
    /// Its provider; an empty name is a provider of its own.
    pub provider: String,
    /// Whether it may be a relay.
    pub relay: bool,
    /// Whether it is being emptied: it relays nothing.
    pub draining: bool,
    /// What passing through it costs, in µs: 1000 unless measured.
    pub transit_us: u32,
    /// The price of what it emits, in US dollars a GB.
    pub usd_per_gb: f64,
}

impl NodeInput {
    /// A node at a site and a provider of its own, with the default transit and no price.
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            name: String::new(),
            site: String::new(),
            provider: String::new(),
            relay: true,
            draining: false,
            transit_us: 1_000,
            usd_per_gb: 0.0,
        }
    }
}

/// A directed leg's quality. A leg that is not listed, or only in one direction, is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegInput {
    /// The leg.
    pub leg: LegId,
    /// Its quality, of this or the last second.
    pub stats: LegStats,
}

/// A pair that wants paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairInput {
    /// Its number.
    pub id: PairId,
    /// Where packets enter.
    pub entry: NodeId,
    /// Where they leave.
    pub exit: NodeId,
    /// What they are.
    pub class: TrafficClass,
}

/// What happened since the last tick. It holds until its opposite happens; a path's alarm as the steering says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The data plane found a path stale.
    PathDown {
        /// The path.
        path: Path,
    },
    /// Its probes return again.
    PathUp {
        /// The path.
        path: Path,
    },
    /// A loss alarm rose.
    Alarm {
        /// The leg.
        leg: LegId,
        /// Lost in a million of the packets that raised it.
        loss_ppm: u32,
    },
    /// It fell.
    AlarmOver {
        /// The leg.
        leg: LegId,
    },
    /// A path loses packets, as its own ends count them.
    PathAlarm {
        /// The path.
        path: Path,
        /// Lost in a million of the packets that raised it.
        loss_ppm: u32,
    },
}

/// Everything that a tick decides by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The time.
    pub now: Millis,
    /// All nodes; their order does not matter.
    pub nodes: Vec<NodeInput>,
    /// The legs with a quality.
    pub legs: Vec<LegInput>,
    /// All pairs.
    pub pairs: Vec<PairInput>,
    /// What happened since the last tick, in order.
    pub events: Vec<Event>,
    /// The nodes that must not relay for a pair, beside those that relay for none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forbidden: BTreeMap<PairId, BTreeSet<NodeId>>,
    /// When packets of a pair are sent over both its paths; of those that are not listed never.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub duplication: BTreeMap<PairId, Duplication>,
    /// The legs of which it is not known how they are now: their quality is what the last turn of probing them came to.
    /// They count by it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unknown: BTreeSet<LegId>,
    /// The legs on which nothing comes back, as their senders say: not those that nobody reports.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub dead: BTreeSet<LegId>,
}

/// One tick: what came in and what was decided. A log of these, one JSON object a line, is a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Which tick this is since the start, from 0.
    pub tick: u64,
    /// What came in.
    pub input: Input,
    /// What was decided.
    pub changes: Vec<Change>,
}

impl Recorded {
    /// Makes a tick and keeps it.
    pub fn tick(steering: &mut Steering, input: Input) -> Self {
        let tick = steering.ticks();
        let changes = steering.tick(&input);
        Self { tick, input, changes }
    }
}

/// A replay decided otherwise than was recorded.
#[derive(Debug, PartialEq, Error)]
#[error("tick {tick} at {now}: recorded {recorded:?}, replayed {replayed:?}")]
pub struct Divergence {
    /// The tick, from 0.
    pub tick: usize,
    /// Its time.
    pub now: Millis,
    /// What the recording says.
    pub recorded: Vec<Change>,
    /// What was decided now.
    pub replayed: Vec<Change>,
}

/// Decides again what a recording holds, from its first tick after a start, and answers with the final state.
///
/// # Errors
/// The first tick that decides otherwise.
pub fn replay<'a>(
    config: Config,
    recording: impl IntoIterator<Item = &'a Recorded>,
) -> Result<Steering, Divergence> {
    let mut steering = Steering::new(config);
    for (tick, recorded) in recording.into_iter().enumerate() {
        let replayed = steering.tick(&recorded.input);
        if replayed != recorded.changes {
            let recorded_changes = recorded.changes.clone();
            return Err(Divergence {
                tick,
                now: recorded.input.now,
                recorded: recorded_changes,
                replayed,
            });
        }
    }
    Ok(steering)
}
