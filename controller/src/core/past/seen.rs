//! What paths were chosen by, as the store keeps it: whole at first, then what has changed.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_topology::cost::{Direction, TrafficClass, cost};
use kuafu_topology::steering::{Fate, Held, Known, LegInput, LostLeg, NodeInput, Standing};
use kuafu_topology::{Input, LegId, LegStats, Millis, NodeId, PairId};
use serde::{Deserialize, Serialize};

use super::UnixMs;

/// A leg is written again when what it costs has changed by so much, in µs,
const NOTABLE_US: u32 = 500;
/// or by this part of it.
const NOTABLE_PART: u32 = 100;

/// What is known at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::core) struct Seen {
    pub(in crate::core) nodes: Vec<NodeInput>,
    pub(in crate::core) forbidden: BTreeMap<PairId, BTreeSet<NodeId>>,
    pub(in crate::core) standing: Standing,
    pub(in crate::core) legs: BTreeMap<LegId, (LegStats, Fate)>,
    pub(in crate::core) held: BTreeMap<PairId, Held>,
}

/// What has changed since the entry before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    /// When.
    pub(super) at: UnixMs,
    /// The same on the clock of the ticks.
    pub(super) now: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<NodeInput>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forbidden: Option<BTreeMap<PairId, BTreeSet<NodeId>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    standing: Option<Standing>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    legs: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    forgotten: Vec<LegId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held: Vec<Held>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<PairId>,
}

/// A leg: its ends; r, p50, p90, jitter, loss and samples; 0 measured, 1 dead, 2 silent, 3 unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row(NodeId, NodeId, [u32; 6], u8);

impl Row {
    fn new(leg: LegId, (stats, fate): (LegStats, Fate)) -> Self {
        let figures = [
            stats.rtt_us,
            stats.p50_us,
            stats.p90_us,
            stats.jitter_us,
            stats.loss_ppm,
            stats.samples,
        ];
        let fate = match fate {
            Fate::Measured => 0,
            Fate::Dead => 1,
            Fate::Silent => 2,
            Fate::Unknown => 3,
        };
        Self(leg.from, leg.to, figures, fate)
    }

    fn leg(&self) -> (LegId, (LegStats, Fate)) {
        let Self(from, to, [rtt_us, p50_us, p90_us, jitter_us, loss_ppm, samples], fate) = *self;
        let stats = LegStats {
            rtt_us,
            p50_us,
            p90_us,
            jitter_us,
            loss_ppm,
            samples,
        };
        let fate = match fate {
            0 => Fate::Measured,
            1 => Fate::Dead,
            3 => Fate::Unknown,
            _ => Fate::Silent,
        };
        (LegId { from, to }, (stats, fate))
    }
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        let nothing = Self {
            at: self.at,
            now: self.now,
            ..Self::default()
        };
        *self == nothing
    }
}

impl Seen {
    /// What is to be written of `now`, where this was written before. Of a leg that has changed a little, and of a
    /// pair whose reason has other figures, nothing: an explanation makes them anew.
    pub(super) fn difference(&self, now: &Self, (at, ticks): (UnixMs, Millis)) -> Entry {
        let changed = |leg: &LegId, of: &(LegStats, Fate)| {
            let before = self.legs.get(leg);
            before.is_none_or(|before| before.1 != of.1 || is_notable(&before.0, &of.0))
        };
        let legs = now.legs.iter().filter(|(leg, of)| changed(leg, of));
        let held = now.held.values().filter(|held| {
            let before = self.held.get(&held.pair.id);
            before.is_none_or(|before| !is_alike(before, held))
        });
        let forgotten = self.legs.keys().filter(|leg| !now.legs.contains_key(leg));
        let gone = self.held.keys().filter(|pair| !now.held.contains_key(pair));
        Entry {
            at,
            now: ticks,
            nodes: (self.nodes != now.nodes).then(|| now.nodes.clone()),
            forbidden: (self.forbidden != now.forbidden).then(|| now.forbidden.clone()),
            standing: (self.standing != now.standing).then(|| now.standing.clone()),
            legs: legs.map(|(leg, of)| Row::new(*leg, *of)).collect(),
            forgotten: forgotten.copied().collect(),
            held: held.cloned().collect(),
            gone: gone.copied().collect(),
        }
    }

    pub(super) fn apply(&mut self, entry: Entry) {
        self.nodes = entry.nodes.unwrap_or_else(|| std::mem::take(&mut self.nodes));
        self.forbidden = entry
            .forbidden
            .unwrap_or_else(|| std::mem::take(&mut self.forbidden));
        self.standing = entry
            .standing
            .unwrap_or_else(|| std::mem::take(&mut self.standing));
        self.legs.extend(entry.legs.iter().map(Row::leg));
        self.legs.retain(|leg, _| !entry.forgotten.contains(leg));
        self.held
            .extend(entry.held.into_iter().map(|held| (held.pair.id, held)));
        self.held.retain(|pair, _| !entry.gone.contains(pair));
    }

    /// The same as an explanation takes it.
    pub(in crate::core) fn known(self, now: Millis) -> Known {
        let (measured, lost): (Vec<_>, Vec<_>) = self
            .legs
            .into_iter()
            .partition(|(_, (_, fate))| matches!(fate, Fate::Measured | Fate::Unknown));
        let unknown = measured.iter().filter(|(_, (_, fate))| *fate == Fate::Unknown);
        let unknown = unknown.map(|(leg, _)| *leg).collect();
        let lost = lost.into_iter().map(|(leg, (stats, fate))| LostLeg {
            leg,
            stats,
            is_dead: fate == Fate::Dead,
        });
        Known {
            lost: lost.collect(),
            input: Input {
                now,
                nodes: self.nodes,
                legs: measured
                    .into_iter()
                    .map(|(leg, (stats, _))| LegInput { leg, stats })
                    .collect(),
                pairs: self.held.values().map(|held| held.pair).collect(),
                events: Vec::new(),
                forbidden: self.forbidden,
                // Whether packets took both paths was decided, and is held.
                duplication: BTreeMap::new(),
                dead: BTreeSet::new(),
                unknown,
            },
            standing: self.standing,
            held: self.held.into_values().collect(),
        }
    }
}

fn is_notable(before: &LegStats, now: &LegStats) -> bool {
    let weights = TrafficClass::Game.weights();
    let of = |stats| {
        let way = Direction {
            stats,
            usd_per_gb: 0.0,
        };
        cost(way, way, weights).us()
    };
    let (before, now) = (of(before), of(now));
    before.abs_diff(now) >= NOTABLE_US.max(before / NOTABLE_PART)
}

/// Whether the same was decided for the same kind of reason.
fn is_alike(a: &Held, b: &Held) -> bool {
    let reason = |held: &Held| std::mem::discriminant(&held.why);
    (&a.pair, &a.primary, &a.backup, a.duplicate, a.since)
        == (&b.pair, &b.primary, &b.backup, b.duplicate, b.since)
        && reason(a) == reason(b)
}
