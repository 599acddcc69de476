//! The state of one pair, and its step.

use std::collections::BTreeMap;

use super::view::View;
use super::{Cause, Change, Choice, Config, Decision, PairInput, Path, Why, duplication};
use crate::cost::Cost;
use crate::id::Millis;

/// One pair between ticks.
#[derive(Clone, Debug)]
pub(super) struct PairState {
    decision: Decision,
    better: Streak,
    better_backup: Streak,
    damping: Damping,
    /// When it had to leave paths at once, until it returns to one of them.
    driven_from: BTreeMap<Path, Millis>,
    /// Since when nothing has come back from the exit, and no path is usable.
    stranded: Option<Millis>,
}

impl PairState {
    pub(super) fn new(pair: &PairInput) -> Self {
        let decision = Decision {
            pair: *pair,
            direct: Cost::UNUSABLE,
            best: None,
            primary: None,
            backup: None,
            duplicate: false,
            since: Millis::default(),
            why: Why::NoPath,
        };
        Self {
            decision,
            better: Streak::default(),
            better_backup: Streak::default(),
            damping: Damping::default(),
            driven_from: BTreeMap::new(),
            stranded: None,
        }
    }

    pub(super) fn decision(&self) -> &Decision {
        &self.decision
    }

    pub(super) fn is_of(&self, pair: &PairInput) -> bool {
        self.decision.pair == *pair
    }

    pub(super) fn uses(&self, path: &Path) -> bool {
        let of = |choice: &Option<Choice>| choice.as_ref().is_some_and(|choice| choice.path == *path);
        of(&self.decision.primary) || of(&self.decision.backup)
    }

    /// A tick; the change, if there is one.
    pub(super) fn decide(&mut self, config: &Config, view: &View<'_>) -> Option<Change> {
        let before = (path_of(&self.decision.primary), path_of(&self.decision.backup));
        let offer = Offer::new(config, view);
        let (primary, why) = self.next_primary(config, view, &offer);
        if primary != before.0 {
            self.decision.since = view.now;
            self.better = Streak::default();
        }
        let returns = |path: &Path| self.driven_from.contains_key(path);
        if matches!(why, Why::Bypass { .. }) {
            let left = before.0.clone();
            self.driven_from.extend(left.map(|left| (left, view.now)));
        } else if primary.as_ref().is_some_and(returns) {
            self.driven_from.clear();
        }
        let backup = primary
            .as_ref()
            .and_then(|primary| self.next_backup(config, view, primary, before.1.clone()));
        let was_twice = self.decision.duplicate;
        let both = primary.as_ref().zip(backup.as_ref());
        let duplicate = both.is_some_and(|both| duplication::is_wanted(config, view, both, was_twice));
        let priced = |path: Path| Choice {
            cost: view.cost(&path),
            path,
        };
        self.decision.direct = view.direct_cost();
        self.decision.best = offer.best();
        self.decision.primary = primary.clone().map(priced);
        self.decision.backup = backup.clone().map(priced);
        self.decision.duplicate = duplicate;
        self.decision.why = why.clone();
        let pair = self.decision.pair.id;
        let before = (&before.0, &before.1, was_twice);
        ((&primary, &backup, duplicate) != before).then_some(Change {
            pair,
            primary,
            backup,
            duplicate,
            why,
        })
    }

    /// The path to use, and why.
    fn next_primary(&mut self, config: &Config, view: &View<'_>, offer: &Offer) -> (Option<Path>, Why) {
        let Some(current) = path_of(&self.decision.primary) else {
            let first = offer.candidate.as_ref();
            return first.map_or((None, Why::NoPath), |first| {
                (Some(first.path.clone()), offer.settled(config, first))
            });
        };
        let Some(candidate) = &offer.candidate else {
            let since = self.stranded.unwrap_or(view.now);
            self.stranded = view.is_cut_off().then_some(since);
            let is_lost = self
                .stranded
                .is_some_and(|since| view.now.since(since) >= config.give_up_ms);
            return if is_lost {
                (None, Why::NoPath)
            } else {
                (Some(current), Why::FailStatic)
            };
        };
        self.stranded = None;
        if let Some(cause) = bypass(view, &current, candidate) {
            return if is_covered(config, view, &current, path_of(&self.decision.backup).as_ref()) {
                (Some(current), Why::OverBackup)
            } else {
                (Some(candidate.path.clone()), Why::Bypass { cause })
            };
        }
        if candidate.path == current {
            self.better = Streak::default();
            return (Some(current), offer.settled(config, candidate));
        }
        match self.held(config, view, offer, &current, candidate) {
            Some(why) => (Some(current), why),
            None => {
                self.damping.moved(config, view.now);
                (Some(candidate.path.clone()), offer.settled(config, candidate))
            }
        }
    }

    /// Why the pair stays where it is although there is a better path; `None`: it moves.
    fn held(
        &mut self,
        config: &Config,
        view: &View<'_>,
        offer: &Offer,
        current: &Path,
        candidate: &Choice,
    ) -> Option<Why> {
        let current_cost = view.cost(current);
        let gain_us = current_cost.us().saturating_sub(candidate.cost.us());
        let needed_us = config.hysteresis.of(current_cost);
        let exhausted = candidate.path.is_direct() && {
            let relay_gain = candidate.cost.us().saturating_sub(current_cost.us());
            relay_gain < config.gate.of(candidate.cost) / 2
        };
        if gain_us < needed_us && !exhausted {
            self.better = Streak::default();
            let in_use = Choice {
                path: current.clone(),
                cost: current_cost,
            };
            let best = offer.best().is_some_and(|best| best.path == *current);
            return Some(if best {
                offer.settled(config, &in_use)
            } else {
                Why::Hysteresis { gain_us, needed_us }
            });
        }
        let ticks = self
            .better
            .seen(config.tick_of(view.is_new(&candidate.path)), view.now);
        if ticks < config.confirmations {
            return Some(Why::Confirming {
                ticks,
                of: config.confirmations,
            });
        }
        let left = self.driven_from.get(&candidate.path).copied();
        let until = left.unwrap_or(self.decision.since).after(config.dwell_ms);
        if view.now < until && !view.is_new(&candidate.path) {
            return Some(Why::Dwell { until });
        }
        self.damping
            .held_until(config, view.now)
            .map(|until| Why::Damped { until })
    }

    fn next_backup(
        &mut self,
        config: &Config,
        view: &View<'_>,
        primary: &Path,
        current: Option<Path>,
    ) -> Option<Path> {
        let target = view.backup(primary, |_| true).map(|choice| choice.path);
        let current = current.filter(|current| current != primary);
        let (Some(current), Some(target)) = (current.clone(), target.clone()) else {
            let down = |path: &Path| view.broken(path) == Some(Cause::PathDown);
            return target.or_else(|| current.filter(down));
        };
        if is_covered(config, view, &current, Some(primary)) {
            return Some(current);
        }
        if current == target || view.broken(&current).is_some() {
            self.better_backup = Streak::default();
            return Some(target);
        }
        let score = view.score(primary, &current);
        let gain_us = score.us().saturating_sub(view.score(primary, &target).us());
        if gain_us < config.hysteresis.of(score) {
            self.better_backup = Streak::default();
            return Some(current);
        }
        let confirmed = self.better_backup.seen(config.tick_of(false), view.now) >= config.confirmations;
        if confirmed {
            self.better_backup = Streak::default();
        }
        Some(if confirmed { target } else { current })
    }
}

fn path_of(choice: &Option<Choice>) -> Option<Path> {
    choice.as_ref().map(|choice| choice.path.clone())
}

/// Whether a path died just now and another takes its packets: it may come back, and nothing is lost by waiting.
fn is_covered(config: &Config, view: &View<'_>, path: &Path, other: Option<&Path>) -> bool {
    let died = view.died(path);
    let is_recent = died.is_some_and(|died| view.now.since(died) < config.confirm_death_ms);
    is_recent && other.is_some_and(|other| view.broken(other).is_none())
}

/// Why the path in use is left at once, if it is.
fn bypass(view: &View<'_>, current: &Path, candidate: &Choice) -> Option<Cause> {
    if candidate.path == *current {
        return None;
    }
    view.broken(current).or_else(|| {
        let cause = view.alarmed(current)?;
        let better = candidate.cost < view.cost(current) && view.alarmed(&candidate.path).is_none();
        better.then_some(cause)
    })
}

/// Why a path is in use by the costs of now, where the reason is one of costs.
pub(super) fn settled_anew(config: &Config, offer: &Offer, current: &Choice, why: Why) -> Why {
    match (&why, &offer.candidate) {
        (
            Why::DirectBest { .. }
            | Why::RelayBest { .. }
            | Why::GateNotReached { .. }
            | Why::Hysteresis { .. },
            Some(candidate),
        ) => {
            let best = offer.best().is_some_and(|best| best.path == current.path);
            if best || candidate.path == current.path {
                return offer.settled(config, current);
            }
            Why::Hysteresis {
                gain_us: current.cost.us().saturating_sub(candidate.cost.us()),
                needed_us: config.hysteresis.of(current.cost),
            }
        }
        _ => why,
    }
}

/// What there is to choose from.
pub(super) struct Offer {
    direct: Option<Choice>,
    relay: Option<Choice>,
    /// The cheapest that passes the gate.
    pub(super) candidate: Option<Choice>,
}

impl Offer {
    pub(super) fn new(config: &Config, view: &View<'_>) -> Self {
        let (direct, relay) = (view.direct(), view.best_relay());
        let candidate = match (&direct, &relay) {
            (Some(direct), Some(relay)) => {
                let gain_us = direct.cost.us().saturating_sub(relay.cost.us());
                let gains = relay.cost < direct.cost && gain_us >= config.gate.of(direct.cost);
                Some(if gains { relay.clone() } else { direct.clone() })
            }
            (direct, relay) => direct.clone().or_else(|| relay.clone()),
        };
        Self {
            direct,
            relay,
            candidate,
        }
    }

    /// The cheapest of all.
    fn best(&self) -> Option<Choice> {
        let both = [&self.direct, &self.relay].into_iter().flatten();
        both.min_by_key(|choice| choice.cost).cloned()
    }

    /// Why a path that is the candidate, or stays the best, is in use.
    fn settled(&self, config: &Config, choice: &Choice) -> Why {
        if !choice.path.is_direct() {
            let gain = |direct: &Choice| direct.cost.us().saturating_sub(choice.cost.us());
            return Why::RelayBest {
                gain_us: self.direct.as_ref().map(gain),
            };
        }
        match &self.relay {
            Some(relay) if relay.cost < choice.cost => Why::GateNotReached {
                gain_us: choice.cost.us() - relay.cost.us(),
                needed_us: config.gate.of(choice.cost),
            },
            relay => Why::DirectBest {
                margin_us: relay.as_ref().map(|relay| relay.cost.us() - choice.cost.us()),
            },
        }
    }
}

/// On how many ticks in a row something was so.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    ticks: u32,
    last: Millis,
}

impl Streak {
    /// Counts a tick, unless it follows the last one by less than three quarters of what one lasts: it was made for
    /// something else.
    fn seen(&mut self, tick_ms: u64, now: Millis) -> u32 {
        if self.ticks == 0 || now.since(self.last) * 4 >= tick_ms * 3 {
            self.ticks += 1;
            self.last = now;
        }
        self.ticks
    }
}

/// Flap damping, after RFC 2439.
#[derive(Clone, Copy, Debug, Default)]
struct Damping {
    penalty: f64,
    at: Millis,
    held: bool,
}

impl Damping {
    fn moved(&mut self, config: &Config, now: Millis) {
        self.decay(config, now);
        self.penalty += f64::from(config.damping_move);
        self.held |= self.penalty > f64::from(config.damping_hold);
    }

    /// When the pair is free again; `None` if it is.
    fn held_until(&mut self, config: &Config, now: Millis) -> Option<Millis> {
        self.decay(config, now);
        self.held &= self.penalty >= f64::from(config.damping_reuse);
        let half_lives = (self.penalty / f64::from(config.damping_reuse)).log2();
        self.held
            .then(|| now.after(whole_ms(half_lives, config.damping_half_life_ms)))
    }

    fn decay(&mut self, config: &Config, now: Millis) {
        #[allow(clippy::cast_precision_loss, reason = "ms of any uptime are far below 2^53")]
        let half_lives = now.since(self.at) as f64 / config.damping_half_life_ms.max(1) as f64;
        self.penalty *= (-half_lives).exp2();
        self.at = now;
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few half-lives of minutes"
)]
fn whole_ms(half_lives: f64, half_life_ms: u64) -> u64 {
    (half_lives * half_life_ms as f64).ceil().max(0.0) as u64
}
