//! What was decided, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{PairInput, Path};
use crate::cost::Cost;
use crate::id::{LegId, Millis, NodeId, PairId};

/// A path with its cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The path.
    pub path: Path,
    /// Its cost now; unusable where it stays only because nothing else is there.
    pub cost: Cost,
}

/// A pair's paths are no longer what they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The pair.
    pub pair: PairId,
    /// The path to use.
    pub primary: Option<Path>,
    /// The path beside it.
    pub backup: Option<Path>,
    /// Whether packets are sent over both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// Why the pair is on this path.
    pub why: Why,
}

/// What a pair uses, what it could use, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The pair.
    pub pair: PairInput,
    /// What direct costs.
    pub direct: Cost,
    /// The cheapest path of all, the gate not asked.
    pub best: Option<Choice>,
    /// The path in use.
    pub primary: Option<Choice>,
    /// The path beside it.
    pub backup: Option<Choice>,
    /// Whether packets are sent over both.
    pub duplicate: bool,
    /// When the path in use was taken.
    pub since: Millis,
    /// Why it is in use.
    pub why: Why,
}

/// Why a pair left a path at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It was stale.
    PathDown,
    /// One of its legs has no quality.
    LegUnusable {
        /// The leg.
        leg: LegId,
    },
    /// A relay is being emptied, or must not relay for the pair any more.
    Drain {
        /// The relay.
        node: NodeId,
    },
    /// A leg loses packets.
    Alarm {
        /// The leg.
        leg: LegId,
    },
    /// It loses packets, and its legs do not say where.
    PathAlarm,
}

/// Why a pair uses the path that it uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// There never was a usable path.
    NoPath,
    /// No path is usable: the last one stays.
    FailStatic,
    /// Direct costs least.
    DirectBest {
        /// By how many µs the best relay is worse; `None` where no relay is usable.
        margin_us: Option<u32>,
    },
    /// A relay gains too little over direct.
    GateNotReached {
        /// µs that it gains.
        gain_us: u32,
        /// µs that it would have to.
        needed_us: u32,
    },
    /// A relay costs least.
    RelayBest {
        /// µs that it gains over direct; `None` where direct is unusable.
        gain_us: Option<u32>,
    },
    /// Another path is better, but not by enough.
    Hysteresis {
        /// µs that it gains.
        gain_us: u32,
        /// µs that it would have to.
        needed_us: u32,
    },
    /// Another path is better by enough, but not for long enough.
    Confirming {
        /// Ticks so far.
        ticks: u32,
        /// Ticks needed.
        of: u32,
    },
    /// The last move was too recent.
    Dwell {
        /// When it no longer is.
        until: Millis,
    },
    /// Too many moves lately.
    Damped {
        /// When the pair is free again.
        until: Millis,
    },
    /// It died just now: its packets go over the backup until it is known whether it comes back.
    OverBackup,
    /// The path before could not stay.
    Bypass {
        /// The reason.
        cause: Cause,
    },
}

/// How numbers are put for people.
pub trait Words {
    /// A node.
    fn node(&self, id: NodeId) -> String {
        id.to_string()
    }

    /// How long something lasts that ends then.
    fn until(&self, end: Millis) -> String {
        format!("until {end}")
    }

    /// A leg.
    fn leg(&self, leg: LegId) -> String {
        format!("{}>{}", self.node(leg.from), self.node(leg.to))
    }
}

/// Numbers as they are.
struct Numbers;

impl Words for Numbers {}

pub(super) fn ms(us: u32) -> f64 {
    f64::from(us) / 1000.0
}

impl Cause {
    /// It in words.
    pub fn told(&self, words: &dyn Words) -> String {
        match *self {
            Self::PathDown => "the path before is down".to_owned(),
            Self::LegUnusable { leg } => format!("leg {} is unusable", words.leg(leg)),
            Self::Drain { node } => format!("node {} must not relay any more", words.node(node)),
            Self::Alarm { leg } => format!("leg {} loses packets", words.leg(leg)),
            Self::PathAlarm => "the path before loses packets".to_owned(),
        }
    }
}

impl Why {
    /// It in words, of a pair whose packets are sent over both paths or not.
    pub fn told_of(&self, duplicate: bool, words: &dyn Words) -> String {
        let twice = if duplicate {
            "; packets take the backup too"
        } else {
            ""
        };
        self.told(words) + twice
    }

    /// It in words.
    pub fn told(&self, words: &dyn Words) -> String {
        match self {
            Self::NoPath => "no usable path".to_owned(),
            Self::FailStatic => "no usable path: the last one stays".to_owned(),
            Self::DirectBest { margin_us: None } => "direct is the only path".to_owned(),
            Self::DirectBest { margin_us: Some(us) } => format!("direct is best by {:.1} ms", ms(*us)),
            Self::GateNotReached { gain_us, needed_us } => {
                let (gain, needed) = (ms(*gain_us), ms(*needed_us));
                format!("a relay gains {gain:.1} ms, the gate is {needed:.1} ms")
            }
            Self::RelayBest { gain_us: None } => "best, direct is unusable".to_owned(),
            Self::RelayBest { gain_us: Some(us) } => format!("best, {:.1} ms less than direct", ms(*us)),
            Self::Hysteresis { gain_us, needed_us } => {
                let (gain, needed) = (ms(*gain_us), ms(*needed_us));
                format!("another gains {gain:.1} ms, to move takes {needed:.1} ms")
            }
            Self::Confirming { ticks, of } => format!("another is better, seen on {ticks} of {of} ticks"),
            Self::Dwell { until } => format!("another is better, dwell {}", words.until(*until)),
            Self::Damped { until } => format!("another is better, flap damping {}", words.until(*until)),
            Self::OverBackup => "died just now: packets go over the backup".to_owned(),
            Self::Bypass { cause } => format!("moved at once: {}", cause.told(words)),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(&Numbers))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(&Numbers))
    }
}
