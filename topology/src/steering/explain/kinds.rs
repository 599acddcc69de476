//! What an explanation is made of, and its words.

use super::super::why::{Words, ms};
use super::super::{Held, Path, Why};
use crate::cost::{Cost, Terms};
use crate::estimate::LegStats;
use crate::id::{LegId, Millis, NodeId};

/// Why a pair's path is what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What was decided: where nobody uses the pair, what would have been.
    pub held: Held,
    /// The path in use.
    pub chosen: Option<PathCost>,
    /// The next, by cost.
    pub next: Vec<Rejected>,
    /// What would be better, and cannot be.
    pub barred: Vec<Rejected>,
    /// The path beside it.
    pub backup: Option<BackupReason>,
    /// Legs from the entry and to the exit, and their reverse, of which nothing was ever known.
    pub unknown: Vec<LegId>,
}

/// A path, and what makes its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct PathCost {
    /// The path.
    pub path: Path,
    /// What it costs; unusable where it cannot be used.
    pub cost: Cost,
    /// Of each leg.
    pub legs: Vec<LegCost>,
    /// Each relay's transit.
    pub relays: Vec<(NodeId, Cost)>,
    /// What an alarm of the path itself adds.
    pub own_loss: Cost,
}

/// A leg, there and back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LegCost {
    /// The leg.
    pub leg: LegId,
    /// What it costs.
    pub cost: Cost,
    /// There.
    pub forward: Option<WayCost>,
    /// Back.
    pub reverse: Option<WayCost>,
}

/// One way over a leg.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WayCost {
    /// Its quality, the loss of an alarm included.
    pub stats: LegStats,
    /// What each term of it costs, before it is halved.
    pub terms: Terms,
    /// Whether a loss alarm is up.
    pub alarm: bool,
    /// What it is.
    pub fate: Fate,
}

/// Whether a leg's quality is of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is.
    Measured,
    /// It is what the last turn of probing the leg came to; how it is now is not known.
    Unknown,
    /// It is the last before nothing came back any more.
    Dead,
    /// It is the last that was said.
    Silent,
}

/// A path that is not in use.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The path.
    pub path: PathCost,
    /// Why; at least one.
    pub reasons: Vec<Reason>,
}

/// Why a path is not in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its probes do not return.
    Down {
        /// Since when.
        since: Millis,
    },
    /// It lost what it carried.
    Lossy {
        /// In a million.
        loss_ppm: u32,
    },
    /// It passes a relay of a path between the same ends that lost what it carried.
    SharesRelay {
        /// The relay.
        node: NodeId,
    },
    /// A relay is being emptied.
    Drains {
        /// The relay.
        node: NodeId,
    },
    /// A relay does not answer to what it was sent.
    Late {
        /// The relay.
        node: NodeId,
    },
    /// A rule says that the node must not relay for the pair.
    Forbidden {
        /// The node.
        node: NodeId,
    },
    /// Nothing comes back on a leg.
    Dead {
        /// The leg.
        leg: LegId,
    },
    /// Nobody says any more how a leg is.
    Silent {
        /// The leg.
        leg: LegId,
    },
    /// A leg was never measured.
    Unknown {
        /// The leg.
        leg: LegId,
    },
    /// A leg loses packets.
    Alarm {
        /// The leg.
        leg: LegId,
        /// In a million.
        loss_ppm: u32,
    },
    /// It costs so much more than the path in use; as much, and it has more relays or higher numbers.
    Dearer {
        /// µs.
        us: u32,
    },
    /// It costs less than another that could be taken instead, but that one is cheaper still.
    NotFirst {
        /// The other.
        path: Path,
    },
    /// It is better, and what the pair waits for.
    Waits {
        /// [`Why::GateNotReached`], [`Why::Hysteresis`], [`Why::Confirming`], [`Why::Dwell`] or [`Why::Damped`].
        why: Why,
    },
    /// It is better since the last decision.
    Better {
        /// µs.
        us: u32,
    },
}

impl Reason {
    /// Whether it bars the path, whatever that costs.
    pub const fn is_bar(&self) -> bool {
        !matches!(
            self,
            Self::Alarm { .. }
                | Self::Dearer { .. }
                | Self::NotFirst { .. }
                | Self::Waits { .. }
                | Self::Better { .. }
        )
    }

    /// It in words.
    pub fn told(&self, words: &dyn Words) -> String {
        let percent = |ppm: u32| f64::from(ppm) / 1e4;
        match self {
            Self::Down { .. } => "it is down: its probes do not return".to_owned(),
            Self::Lossy { loss_ppm } => format!("it lost {:.1} % of what it carried", percent(*loss_ppm)),
            Self::SharesRelay { node } => format!(
                "its relay {} is one of a path that lost what it carried",
                words.node(*node)
            ),
            Self::Drains { node } => format!("{} drains", words.node(*node)),
            Self::Late { node } => format!("{} does not answer to what it was sent", words.node(*node)),
            Self::Forbidden { node } => {
                format!("a rule about relays forbids {}", words.node(*node))
            }
            Self::Dead { leg } => format!("leg {} is dead: nothing comes back", words.leg(*leg)),
            Self::Silent { leg } => format!("leg {} is not reported any more", words.leg(*leg)),
            Self::Unknown { leg } => format!("leg {} was never measured", words.leg(*leg)),
            Self::Alarm { leg, loss_ppm } => {
                format!("leg {} loses {:.1} %: alarm", words.leg(*leg), percent(*loss_ppm))
            }
            Self::Dearer { us: 0 } => "costs as much; fewer relays, then lower numbers, go first".to_owned(),
            Self::Dearer { us } => format!("costs {:.1} ms more", ms(*us)),
            Self::NotFirst { path } => {
                let nodes: Vec<String> = path.nodes().iter().map(|&node| words.node(node)).collect();
                format!("costs less, but {} comes first", nodes.join(" > "))
            }
            Self::Waits { why } => match why {
                Why::GateNotReached { gain_us, needed_us } => format!(
                    "gate: gains {:.1} ms over direct, {:.1} ms are needed",
                    ms(*gain_us),
                    ms(*needed_us)
                ),
                Why::Hysteresis { gain_us, needed_us } => format!(
                    "hysteresis: gains {:.1} ms, to move takes {:.1} ms",
                    ms(*gain_us),
                    ms(*needed_us)
                ),
                why => why.told(words),
            },
            Self::Better { us } => format!("is {:.1} ms better since the last decision", ms(*us)),
        }
    }
}

/// Why a path is the backup.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupReason {
    /// The path.
    pub path: PathCost,
    /// What it is ranked by: its cost, and more for what it shares with the chosen path.
    pub score: Cost,
    /// The next best, or the better one, with its score.
    pub other: Option<(Path, Cost)>,
    /// Why it is the backup.
    pub why: BackupWhy,
}

/// Why a path is the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupWhy {
    /// Its score is the least.
    Best,
    /// The other is better, but not by what a move takes, or not for long enough.
    Hysteresis {
        /// µs that the other gains.
        gain_us: u32,
        /// µs that it would have to.
        needed_us: u32,
    },
    /// It died just now, and may come back.
    Died,
    /// It is down, and there is no other.
    Last,
}

impl BackupReason {
    /// It in words.
    pub fn told(&self, words: &dyn Words) -> String {
        let other = self.other.as_ref().map(|(path, score)| {
            let nodes: Vec<String> = path.nodes().iter().map(|&node| words.node(node)).collect();
            (nodes.join(" > "), score.ms())
        });
        match (self.why, other) {
            (BackupWhy::Best, None) => {
                "the only other path with one relay at most that shares no relay".to_owned()
            }
            (BackupWhy::Best, Some((path, score))) => format!(
                "least score of all with one relay at most that share no relay; next is {path} with {score:.1} ms"
            ),
            (BackupWhy::Hysteresis { gain_us, needed_us }, other) => format!(
                "{} gains {:.1} ms, to move takes {:.1} ms on 3 ticks",
                other.map_or_else(|| "another".to_owned(), |(path, _)| path),
                ms(gain_us),
                ms(needed_us)
            ),
            (BackupWhy::Died, _) => "it died just now, and may come back".to_owned(),
            (BackupWhy::Last, _) => "it is down, and there is no other".to_owned(),
        }
    }
}
