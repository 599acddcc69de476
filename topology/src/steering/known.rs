//! What steering knew and had decided at a moment.

use serde::{Deserialize, Serialize};

use super::{Input, PairInput, Path, Steering, Why};
use crate::estimate::LegStats;
use crate::id::{LegId, Millis, PairId};

/// Everything that an explanation is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// What the last tick was told; its events are in `standing`.
    pub input: Input,
    /// Legs that had a quality, and have none.
    pub lost: Vec<LostLeg>,
    /// What had happened and was not over.
    pub standing: Standing,
    /// What was decided, by pair.
    pub held: Vec<Held>,
}

/// A leg whose quality was known once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostLeg {
    /// The leg.
    pub leg: LegId,
    /// Its last quality.
    pub stats: LegStats,
    /// Whether nothing comes back on it; else nobody says how it is.
    pub is_dead: bool,
}

/// What had happened and was not over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Paths that are down, and since when.
    pub down: Vec<(Path, Millis)>,
    /// Legs with an alarm, and the loss in a million that raised it.
    pub alarms: Vec<(LegId, u32)>,
    /// Paths with an alarm of their own, when it was last said, and its loss in a million.
    pub lossy: Vec<(Path, Millis, u32)>,
}

/// What was decided for a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The pair.
    pub pair: PairInput,
    /// The path in use.
    pub primary: Option<Path>,
    /// The path beside it.
    pub backup: Option<Path>,
    /// Whether packets are sent over both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// When the path in use was taken.
    pub since: Millis,
    /// Why it is in use.
    pub why: Why,
}

impl Known {
    /// What was decided for a pair.
    pub fn of(&self, pair: PairId) -> Option<&Held> {
        self.held.iter().find(|held| held.pair.id == pair)
    }
}

impl Steering {
    /// What happened and is not over.
    pub fn standing(&self) -> Standing {
        let lossy = self.lossy.iter();
        Standing {
            down: self
                .down
                .iter()
                .map(|(path, since)| (path.clone(), *since))
                .collect(),
            alarms: self.alarms.iter().map(|(leg, loss)| (*leg, *loss)).collect(),
            lossy: lossy
                .map(|(path, (said, loss))| (path.clone(), *said, *loss))
                .collect(),
        }
    }

    /// What was decided, by pair.
    pub fn held(&self) -> impl Iterator<Item = Held> + '_ {
        self.decisions().map(|decision| Held {
            pair: decision.pair,
            primary: decision.primary.as_ref().map(|choice| choice.path.clone()),
            backup: decision.backup.as_ref().map(|choice| choice.path.clone()),
            duplicate: decision.duplicate,
            since: decision.since,
            why: decision.why.clone(),
        })
    }
}
