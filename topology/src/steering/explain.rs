//! Why a pair's path is the one in use, and why no other is.
//!
//! Specification of an explanation, of what was known at a moment and of one pair. A pair that nobody uses is
//! explained as if it had been asked for at that moment.
//! 1. **Chosen** is the path in use, with the reason that the decision gave. A reason that is a comparison of costs is
//!    made anew from the costs that are shown.
//! 2. **Next** are the five cheapest of all other paths that could be used, the gate not asked, and direct where it
//!    could be used and is not among them.
//! 3. **Barred** are at most five paths that would cost less than the chosen one (any, where none is usable) if
//!    nothing stood against them: no drain, no rule about relays, no alarm, and legs that are dead or silent as they
//!    last were. Direct is among them where it cannot be used.
//! 4. Each of these has its **reasons**: all that bar it ([`Reason::Down`] to [`Reason::Unknown`]); else the alarms of
//!    its legs, and then that it costs more, or, though it costs less, the gate, the hysteresis, the path that comes
//!    first, or what that one waits for.
//! 5. A **cost** is that of [`cost`](crate::cost::cost()): for each leg half of each direction's terms, then the
//!    transit of each relay, then the loss of an alarm of the path itself. Legs that are dead or silent show how they
//!    last were; those never measured show nothing.
//! 6. The **backup** is shown with its score (its cost, and what it shares with the chosen path), and with the score
//!    of the next best, or of the better one that hysteresis keeps it before.

mod kinds;

use std::collections::{BTreeMap, BTreeSet};

use super::known::Known;
use super::pair::{Offer, PairState, settled_anew};
use super::view::{Costs, View, Views};
use super::{Choice, Config, Held, Input, LegInput, PairInput, Path, Why};
use crate::cost::{Cost, Direction, terms};
use crate::estimate::LegStats;
use crate::id::{LegId, Millis, NodeId};

pub use kinds::{BackupReason, BackupWhy, Explanation, Fate, LegCost, PathCost, Reason, Rejected, WayCost};

/// Paths that are listed beside the chosen one, of each sort.
const LISTED: usize = 5;
/// Paths that are looked at for those that are barred.
const LOOKED_AT: usize = 1_000;

/// Explains a pair by what was known; `None` where an end is not listed, or both are one.
pub fn explain(config: &Config, known: &Known, pair: PairInput) -> Option<Explanation> {
    let input = Input {
        pairs: vec![pair],
        events: Vec::new(),
        ..known.input.clone()
    };
    let alarms: BTreeMap<LegId, u32> = known.standing.alarms.iter().copied().collect();
    let down: BTreeMap<Path, Millis> = known.standing.down.iter().cloned().collect();
    let lossy = known.standing.lossy.iter();
    let lossy: BTreeMap<Path, (Millis, u32)> = lossy
        .map(|(path, said, loss_ppm)| (path.clone(), (*said, *loss_ppm)))
        .collect();
    let costs = Costs::new(config, &input, &alarms);
    let seen = BTreeMap::new();
    let views = Views::new(config, &input, &costs, (&alarms, &down, &lossy), &seen);
    let view = views.of(&pair)?;

    let free = freed(&input, known);
    let none = (&BTreeMap::new(), &BTreeMap::new(), &BTreeMap::new());
    let free_costs = Costs::new(config, &free, none.0);
    let free_views = Views::new(config, &free, &free_costs, none, &seen);
    let free = free_views.of(&pair)?;

    let held = known.of(pair.id).filter(|held| held.pair == pair).cloned();
    let held = held.unwrap_or_else(|| decided(config, &view, &pair));
    Some(Explainer::new(config, known, &input, (&view, &free), held).explain())
}

/// The same if nothing stood against any path.
fn freed(input: &Input, known: &Known) -> Input {
    let mut free = Input {
        forbidden: BTreeMap::new(),
        ..input.clone()
    };
    for node in &mut free.nodes {
        (node.relay, node.draining) = (true, false);
    }
    free.legs.extend(known.lost.iter().map(|lost| LegInput {
        leg: lost.leg,
        stats: lost.stats,
    }));
    free
}

/// Whether the quality of a leg that has one is of now.
fn fate_of(input: &Input, leg: LegId) -> Fate {
    if input.unknown.contains(&leg) {
        Fate::Unknown
    } else {
        Fate::Measured
    }
}

/// What would be decided for a pair that was not there before.
fn decided(config: &Config, view: &View<'_>, pair: &PairInput) -> Held {
    let mut state = PairState::new(pair);
    state.decide(config, view);
    let decision = state.decision().clone();
    Held {
        pair: *pair,
        primary: decision.primary.map(|choice| choice.path),
        backup: decision.backup.map(|choice| choice.path),
        duplicate: decision.duplicate,
        since: decision.since,
        why: decision.why,
    }
}

struct Explainer<'a> {
    config: &'a Config,
    known: &'a Known,
    input: &'a Input,
    /// By what is.
    view: &'a View<'a>,
    /// As if nothing stood against any path.
    free: &'a View<'a>,
    legs: BTreeMap<LegId, (LegStats, Fate)>,
    alarms: BTreeMap<LegId, u32>,
    forbidden: BTreeSet<NodeId>,
    offer: Offer,
    held: Held,
    chosen: Option<Choice>,
}

impl<'a> Explainer<'a> {
    fn new(
        config: &'a Config,
        known: &'a Known,
        input: &'a Input,
        (view, free): (&'a View<'a>, &'a View<'a>),
        mut held: Held,
    ) -> Self {
        let chosen = held.primary.clone().map(|path| Choice {
            cost: view.cost(&path),
            path,
        });
        let offer = Offer::new(config, view);
        if let Some(chosen) = &chosen {
            held.why = settled_anew(config, &offer, chosen, held.why);
        }
        let lost = known.lost.iter().map(|lost| {
            let fate = if lost.is_dead { Fate::Dead } else { Fate::Silent };
            (lost.leg, (lost.stats, fate))
        });
        let measured = input.legs.iter();
        let measured = measured.map(|leg| (leg.leg, (leg.stats, fate_of(input, leg.leg))));
        Self {
            legs: lost.chain(measured).collect(),
            alarms: known.standing.alarms.iter().copied().collect(),
            forbidden: input.forbidden.get(&held.pair.id).cloned().unwrap_or_default(),
            config,
            known,
            input,
            view,
            free,
            offer,
            held,
            chosen,
        }
    }

    fn explain(self) -> Explanation {
        let next = self.next();
        let barred = self.barred(&next);
        Explanation {
            chosen: self.chosen.as_ref().map(|chosen| self.path_cost(&chosen.path)),
            next: next.iter().map(|path| self.rejected(path)).collect(),
            barred: barred.iter().map(|path| self.rejected(path)).collect(),
            backup: self.backup(),
            unknown: self.unknown(),
            held: self.held,
        }
    }

    fn is_chosen(&self, path: &Path) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| chosen.path == *path)
    }

    fn direct(&self) -> Path {
        Path::new(self.held.pair.entry, &[], self.held.pair.exit)
    }

    fn next(&self) -> Vec<Path> {
        let usable = self
            .view
            .ranked()
            .filter(|choice| !self.view.is_out(&choice.path));
        let others = usable
            .map(|choice| choice.path)
            .filter(|path| !self.is_chosen(path));
        let mut next: Vec<Path> = others.take(LISTED).collect();
        let direct = self.view.direct().map(|choice| choice.path);
        let missing = direct.filter(|path| !self.is_chosen(path) && !next.contains(path));
        next.extend(missing);
        next
    }

    fn barred(&self, next: &[Path]) -> Vec<Path> {
        let cost = self.chosen.as_ref().map_or(Cost::UNUSABLE, |chosen| chosen.cost);
        let cheaper = self.free.ranked().take_while(|choice| choice.cost < cost);
        let kept_from = |path: &Path| self.view.is_out(path) || self.view.cost(path) >= cost;
        let barred = cheaper
            .take(LOOKED_AT)
            .map(|choice| choice.path)
            .filter(|path| !self.is_chosen(path) && !next.contains(path) && kept_from(path));
        let mut barred: Vec<Path> = barred.take(LISTED).collect();
        let direct = self.direct();
        if !self.is_chosen(&direct) && !next.contains(&direct) && !barred.contains(&direct) {
            barred.push(direct);
        }
        barred
    }

    fn rejected(&self, path: &Path) -> Rejected {
        let mut reasons = self.bars(path);
        if reasons.is_empty() {
            reasons = self.comparisons(path);
        }
        Rejected {
            path: self.path_cost(path),
            reasons,
        }
    }

    /// What bars a path, whatever it costs.
    fn bars(&self, path: &Path) -> Vec<Reason> {
        let standing = &self.known.standing;
        let mut down = standing.down.iter().filter(|(other, _)| other == path);
        let mut lossy = standing.lossy.iter().filter(|(other, ..)| other == path);
        let mut bars: Vec<Reason> = down
            .next()
            .map(|&(_, since)| Reason::Down { since })
            .into_iter()
            .collect();
        match lossy.next() {
            Some(&(_, _, loss_ppm)) => bars.push(Reason::Lossy { loss_ppm }),
            None => bars.extend(self.view.shares(path).map(|node| Reason::SharesRelay { node })),
        }
        bars.extend(path.relays().iter().flat_map(|&node| self.bars_of_relay(node)));
        let both = path.legs().flat_map(|leg| [leg, leg.reversed()]);
        bars.extend(both.filter_map(|leg| self.bar_of_leg(leg)));
        bars
    }

    fn bars_of_relay(&self, node: NodeId) -> Vec<Reason> {
        let listed = self.input.nodes.iter().find(|listed| listed.id == node);
        let mut bars = Vec::new();
        if listed.is_some_and(|listed| listed.draining) {
            bars.push(Reason::Drains { node });
        }
        if listed.is_none_or(|listed| !listed.relay) {
            bars.push(Reason::Late { node });
        }
        if self.forbidden.contains(&node) {
            bars.push(Reason::Forbidden { node });
        }
        bars
    }

    fn bar_of_leg(&self, leg: LegId) -> Option<Reason> {
        match self.legs.get(&leg).map(|(_, fate)| fate) {
            Some(Fate::Measured | Fate::Unknown) => None,
            Some(Fate::Dead) => Some(Reason::Dead { leg }),
            Some(Fate::Silent) => Some(Reason::Silent { leg }),
            None => Some(Reason::Unknown { leg }),
        }
    }

    /// Why a path that could be used is not.
    fn comparisons(&self, path: &Path) -> Vec<Reason> {
        let mut reasons = self.alarms_of(path);
        if let Some(chosen) = &self.chosen {
            let cost = self.view.cost(path);
            reasons.push(if cost >= chosen.cost {
                let us = cost.us() - chosen.cost.us();
                Reason::Dearer { us }
            } else {
                self.why_not_yet(path, cost, chosen)
            });
        }
        reasons
    }

    fn alarms_of(&self, path: &Path) -> Vec<Reason> {
        let both = path.legs().flat_map(|leg| [leg, leg.reversed()]);
        let alarms = both.filter_map(|leg| {
            let loss_ppm = *self.alarms.get(&leg)?;
            Some(Reason::Alarm { leg, loss_ppm })
        });
        alarms.collect()
    }

    /// Why a path that costs less than the one in use is not taken.
    fn why_not_yet(&self, path: &Path, cost: Cost, chosen: &Choice) -> Reason {
        let gain = |than: Cost| than.us().saturating_sub(cost.us());
        let direct = self.view.direct().filter(|_| !path.is_direct());
        if let Some(direct) = direct {
            let (gain_us, needed_us) = (gain(direct.cost), self.config.gate.of(direct.cost));
            if gain_us < needed_us {
                let why = Why::GateNotReached { gain_us, needed_us };
                return Reason::Waits { why };
            }
        }
        let (gain_us, needed_us) = (gain(chosen.cost), self.config.hysteresis.of(chosen.cost));
        if gain_us < needed_us && chosen.cost.is_usable() {
            let why = Why::Hysteresis { gain_us, needed_us };
            return Reason::Waits { why };
        }
        match &self.offer.candidate {
            Some(first) if first.path != *path => Reason::NotFirst {
                path: first.path.clone(),
            },
            _ => match &self.held.why {
                why @ (Why::Confirming { .. } | Why::Dwell { .. } | Why::Damped { .. } | Why::OverBackup) => {
                    Reason::Waits { why: why.clone() }
                }
                _ => Reason::Better { us: gain_us },
            },
        }
    }

    fn backup(&self) -> Option<BackupReason> {
        let (primary, path) = (self.held.primary.as_ref()?, self.held.backup.clone()?);
        let score = |path: Path| (self.view.score(primary, &path), path);
        let scored = |choice: Choice| {
            let (score, path) = score(choice.path);
            (path, score)
        };
        let best = self.view.backup(primary, |_| true);
        let own = self.view.score(primary, &path);
        let (why, other) = match best {
            None => (BackupWhy::Last, None),
            Some(_) if self.view.died(&path).is_some() => (BackupWhy::Died, None),
            Some(best) if best.path == path => {
                let next = self.view.backup(primary, |other| *other != path);
                (BackupWhy::Best, next.map(scored))
            }
            Some(best) => {
                let (path, score) = scored(best);
                let why = BackupWhy::Hysteresis {
                    gain_us: own.us().saturating_sub(score.us()),
                    needed_us: self.config.hysteresis.of(own),
                };
                (why, Some((path, score)))
            }
        };
        Some(BackupReason {
            path: self.path_cost(&path),
            score: own,
            other,
            why,
        })
    }

    fn unknown(&self) -> Vec<LegId> {
        let (entry, exit) = (self.held.pair.entry, self.held.pair.exit);
        let nodes = self.input.nodes.iter().map(|node| node.id);
        let legs = nodes.flat_map(|node| {
            let out = LegId {
                from: entry,
                to: node,
            };
            let on = LegId { from: node, to: exit };
            [out, out.reversed(), on, on.reversed()]
        });
        let never = |leg: &LegId| leg.from != leg.to && !self.legs.contains_key(leg);
        legs.filter(never).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn path_cost(&self, path: &Path) -> PathCost {
        let transit = |node: NodeId| {
            let listed = self.input.nodes.iter().find(|listed| listed.id == node);
            listed.map_or(Cost::UNUSABLE, |listed| Cost::from_us(listed.transit_us))
        };
        PathCost {
            cost: self.view.cost(path),
            legs: path.legs().map(|leg| self.leg_cost(leg)).collect(),
            relays: path
                .relays()
                .iter()
                .map(|&relay| (relay, transit(relay)))
                .collect(),
            own_loss: self.view.own_loss(path),
            path: path.clone(),
        }
    }

    fn leg_cost(&self, leg: LegId) -> LegCost {
        LegCost {
            leg,
            cost: self.view.leg(leg),
            forward: self.way_cost(leg),
            reverse: self.way_cost(leg.reversed()),
        }
    }

    fn way_cost(&self, leg: LegId) -> Option<WayCost> {
        let &(mut stats, fate) = self.legs.get(&leg)?;
        let alarm = self.alarms.get(&leg).copied();
        stats.loss_ppm = stats.loss_ppm.max(alarm.unwrap_or(0));
        let sender = self.input.nodes.iter().find(|node| node.id == leg.from);
        let direction = Direction {
            stats: &stats,
            usd_per_gb: sender.map_or(0.0, |node| node.usd_per_gb),
        };
        let terms = terms(direction, self.config.weights(self.held.pair.class));
        Some(WayCost {
            stats,
            terms,
            alarm: alarm.is_some(),
            fate,
        })
    }
}
