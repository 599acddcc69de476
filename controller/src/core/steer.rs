//! Path choice: what [`Steering`] is told, and what becomes of what it decides.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_model::compile::{Choice, PairName, duplications, forbidden_relays, pairs};
use kuafu_model::kinds::{self, Name, Node};
use kuafu_topology::steering::{Duplication, LegInput, NodeInput, PairInput};
use kuafu_topology::{
    Change, Config, Cost, CostMatrix, Event, Input, LegId, LegStats, Millis, NodeId, PairId, Path, Recorded,
    Steering, TrafficClass,
};

use super::explain::Before;
use super::measure::{Alarm, LegReport, Reported};
use super::view::is_for;
use super::{Command, Core, Now};

/// A report counts for this long; agents report each second.
const FRESH_MS: u64 = 3_000;
/// What a leg's last turn came to counts for this long: it has its turn each five minutes.
const KNOWN_MS: u64 = 600_000;
/// A pair is steered when its direct leg is measured, or this long after the start: agents connect one by one, and
/// the first path that is measured is not the best one.
const WARM_MS: u64 = 15_000;
/// A connected host that has not answered to a state for this long is no relay. To take a state takes an agent
/// milliseconds, and the largest a few seconds.
const ANSWER_MS: u64 = 15_000;
/// What a loss alarm says at least, in a million (see `topology::alarm`).
const ALARM_PPM: u32 = 30_000;

/// The steering and what it will be told next.
#[derive(Debug)]
pub(super) struct Steer {
    pub(super) steering: Steering,
    /// Numbers of pairs, as long as this process runs.
    pub(super) numbers: BTreeMap<PairName, PairId>,
    last_number: u32,
    events: Vec<Event>,
    /// What the last choice was told.
    pub(super) told: Input,
}

impl Default for Steer {
    fn default() -> Self {
        Self {
            steering: Steering::new(Config::default()),
            numbers: BTreeMap::new(),
            last_number: 0,
            events: Vec::new(),
            told: Input::default(),
        }
    }
}

/// What was decided for a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Steered {
    /// The relays of the best path, used or not.
    pub(super) best: Vec<Name>,
    /// What direct, the best path, the one in use and the backup cost, where they are usable.
    pub(super) costs: [Option<Cost>; 4],
    /// Why the path is what it is.
    pub(super) why: String,
}

/// What legs and relays cost some pairs.
#[derive(Clone, Debug)]
pub struct LegCosts {
    /// The pairs, all of one class.
    pub pairs: Vec<PairName>,
    /// The nodes, in the order of the costs.
    pub nodes: Vec<Name>,
    /// The costs.
    pub costs: CostMatrix,
}

impl Core {
    /// How many ms after a tick at `now` the next one is due.
    #[must_use]
    pub fn next_tick_ms(&self, now: Now) -> Now {
        self.steer.steering.next_tick_ms(Millis(now))
    }

    /// A tick: paths are chosen anew. What the choice was told and decided is recorded.
    pub fn handle_tick(&mut self, now: Now) -> Vec<Command> {
        self.note_waiting(now);
        let input = self.input(now);
        if input.legs.is_empty() && input.pairs.is_empty() && input.events.is_empty() {
            self.steer.told = input;
            return Vec::new();
        }
        let costs = self.costs_in_use();
        let recorded = Recorded::tick(&mut self.steer.steering, input);
        self.steer.events.clear();
        let line = serde_json::to_string(&recorded).map(Command::Record);
        let mut commands: Vec<Command> = line.into_iter().collect();
        let is_settled = recorded.changes.is_empty();
        let before = Before {
            choices: if is_settled {
                Vec::new()
            } else {
                self.choices.clone()
            },
            costs,
        };
        commands.extend(self.choose(&recorded.changes));
        self.steer.told = recorded.input;
        commands.extend(self.note_tick(now, &before, &recorded.changes));
        commands
    }

    /// Keeps an alarm for the next tick. A path and its twin live and die together; a loss that follows a death is the
    /// death's. A path's own loss has no end here: that it loses nothing while it carries nothing does not say that it
    /// may carry again.
    pub(super) fn note_alarm(&mut self, path_id: u64, before: Option<Alarm>, alarm: Alarm, loss: f64) {
        let Some(path) = self.path(path_id) else {
            return;
        };
        let (is_leg, leg) = (self.measured.is_leg(path_id), path.legs().next());
        let (was_dead, loss_ppm) = (before == Some(Alarm::Dead), ppm(loss).max(ALARM_PPM));
        let both = [path.reversed(), path];
        let events = &mut self.steer.events;
        if was_dead && alarm != Alarm::Dead {
            events.extend(both.clone().map(|path| Event::PathUp { path }));
        }
        match (alarm, leg.filter(|_| is_leg)) {
            (Alarm::Dead, _) => events.extend(both.map(|path| Event::PathDown { path })),
            (Alarm::Loss, Some(leg)) => events.push(Event::Alarm { leg, loss_ppm }),
            (Alarm::Clear, Some(leg)) => events.push(Event::AlarmOver { leg }),
            (Alarm::Loss, None) if !was_dead => {
                events.extend(both.map(|path| Event::PathAlarm { path, loss_ppm }));
            }
            _ => {}
        }
    }

    fn path(&self, id: u64) -> Option<Path> {
        let nodes = self.measured.path(id)?.nodes.iter();
        let ids: Option<Vec<NodeId>> = nodes.map(|node| self.node_id(node)).collect();
        match ids?.as_slice() {
            [entry, relays @ .., exit] => Some(Path::new(*entry, relays, *exit)),
            _ => None,
        }
    }

    /// Notes who is connected and owes an answer to what it was sent.
    fn note_waiting(&mut self, now: Now) {
        for (name, host) in &mut self.hosts {
            let owes = self.fleet.get(name).is_some_and(|running| !running.is_settled());
            host.waits_since = (owes && host.session.is_some()).then(|| host.waits_since.unwrap_or(now));
        }
    }

    /// Whether a host is connected and has not answered in time: a path over it may never be complete, so it is no
    /// relay until it answers. One that is cut off stays what it is.
    fn is_late(&self, now: Now, node: &Name) -> bool {
        let since = self.hosts.get(node).and_then(|host| host.waits_since);
        since.is_some_and(|since| now.saturating_sub(since) >= ANSWER_MS)
    }

    fn input(&mut self, now: Now) -> Input {
        let wanted = pairs(&self.intent);
        self.steer.numbers.retain(|pair, _| wanted.contains(pair));
        let ready = wanted
            .into_iter()
            .filter(|pair| now >= WARM_MS || self.steer.numbers.contains_key(pair) || self.is_measured(pair))
            .collect::<Vec<_>>();
        let (legs, unknown) = self.leg_inputs(now);
        Input {
            now: Millis(now),
            nodes: self
                .intent
                .nodes()
                .iter()
                .filter_map(|(name, node)| self.node_input(now, name, node))
                .collect(),
            legs,
            unknown,
            pairs: ready
                .into_iter()
                .filter_map(|pair| self.pair_input(pair))
                .collect(),
            events: self.steer.events.clone(),
            forbidden: self.forbidden(),
            duplication: self.duplication(),
            dead: self.dead(),
        }
    }

    /// When packets of a pair are sent over both its paths, as the accelerators that use it say.
    fn duplication(&self) -> BTreeMap<PairId, Duplication> {
        let wanted = duplications(&self.intent).into_iter();
        let numbered = wanted.filter_map(|(pair, duplication)| {
            let duplication = match duplication {
                kinds::Duplication::Never => return None,
                kinds::Duplication::OnLoss => Duplication::OnLoss,
                kinds::Duplication::Always => Duplication::Always,
            };
            Some((*self.steer.numbers.get(&pair)?, duplication))
        });
        numbered.collect()
    }

    /// The nodes that must not relay for a pair, by the rules of the accelerators that use it.
    fn forbidden(&self) -> BTreeMap<PairId, BTreeSet<NodeId>> {
        let forbidden = forbidden_relays(&self.intent).into_iter();
        let numbered = forbidden.filter_map(|(pair, nodes)| {
            let ids = nodes.into_iter().filter_map(|node| self.node_id(node.as_str()));
            Some((*self.steer.numbers.get(&pair)?, ids.collect()))
        });
        numbered.collect()
    }

    fn node_id(&self, node: &str) -> Option<NodeId> {
        NodeId::new(self.allocations.node(&node.parse().ok()?)?)
    }

    fn node_input(&self, now: Now, name: &Name, node: &Node) -> Option<NodeInput> {
        let text = |name: &Option<Name>| name.as_ref().map(ToString::to_string).unwrap_or_default();
        let id = NodeId::new(self.allocations.node(name)?)?;
        Some(NodeInput {
            name: name.to_string(),
            site: text(&node.spec.site),
            provider: text(&node.spec.provider),
            relay: !self.is_late(now, name),
            draining: node.spec.drain,
            usd_per_gb: node.spec.price.usd_per_gb(),
            ..NodeInput::new(id)
        })
    }

    /// The legs that have a quality, and those of them of which it is not known how they are now. One on which nothing
    /// comes back has none, so that no other pair is led over it. One that waits for its turn to be probed keeps what its
    /// last turn came to, until that is too old. One whose host is silent (its agent or its prober is away) keeps the
    /// last: that nobody measures is no sign that nothing arrives, and the far ends' own reports say so when it does not.
    fn leg_inputs(&self, now: Now) -> (Vec<LegInput>, BTreeSet<LegId>) {
        let usable = |from: &str, reported: &Reported| {
            let counts_ms = if reported.rests() { KNOWN_MS } else { FRESH_MS };
            reported.age(now) <= counts_ms || self.is_silent(from)
        };
        let mut unknown = BTreeSet::new();
        let legs = self
            .measured
            .legs()
            .filter(|(from, to, reported)| usable(from, reported) && !self.measured.is_dead(from, to));
        let legs = legs.filter_map(|(from, to, reported)| {
            let leg = self.leg_id((from, to))?;
            let stats = stats(&reported.report)?;
            unknown.extend(reported.rests().then_some(leg));
            Some(LegInput { leg, stats })
        });
        (legs.collect(), unknown)
    }

    /// The legs on which nothing comes back, as their senders say.
    fn dead(&self) -> BTreeSet<LegId> {
        let dead = self.measured.dead();
        dead.filter_map(|ends| self.leg_id(ends)).collect()
    }

    fn leg_id(&self, (from, to): (&str, &str)) -> Option<LegId> {
        Some(LegId {
            from: self.node_id(from)?,
            to: self.node_id(to)?,
        })
    }

    fn is_silent(&self, node: &str) -> bool {
        let host = self.hosts.get(node);
        host.is_none_or(|host| host.session.is_none() || host.liveness == Some(false))
    }

    /// Whether all legs of direct, and of what the pair uses, are measured both ways: a restarted controller would
    /// else take the pair off its path only because the relay has not reported yet.
    fn is_measured(&self, pair: &PairName) -> bool {
        let both = |from: &Name, to: &Name| {
            let leg = |from: &Name, to: &Name| self.measured.leg(from.as_str(), to.as_str()).is_some();
            leg(from, to) && leg(to, from)
        };
        let path = |relays: &[Name]| {
            let nodes: Vec<&Name> = [&pair.entry]
                .into_iter()
                .chain(relays)
                .chain([&pair.exit])
                .collect();
            nodes.windows(2).all(|leg| both(leg[0], leg[1]))
        };
        let choice = self.choices.iter().find(|choice| is_for(choice, pair));
        let used = choice
            .into_iter()
            .flat_map(|choice| choice.primary.iter().chain(&choice.backup));
        path(&[]) && used.into_iter().all(|relays| path(relays))
    }

    fn pair_input(&mut self, pair: PairName) -> Option<PairInput> {
        let (entry, exit) = (
            self.node_id(pair.entry.as_str())?,
            self.node_id(pair.exit.as_str())?,
        );
        let class = TrafficClass::ALL
            .into_iter()
            .find(|class| class.word() == pair.class.word());
        let Steer {
            numbers, last_number, ..
        } = &mut self.steer;
        let id = *numbers.entry(pair).or_insert_with(|| {
            *last_number += 1;
            PairId(*last_number)
        });
        Some(PairInput {
            id,
            entry,
            exit,
            class: class.unwrap_or_default(),
        })
    }

    /// Makes decisions choices, and rolls them out. A pair without a usable path keeps what it has.
    fn choose(&mut self, changes: &[Change]) -> Vec<Command> {
        let mut choices = self.choices.clone();
        for change in changes {
            let Some(choice) = self.choice(change) else {
                continue;
            };
            choices.retain(|old| {
                (&old.entry, &old.exit, old.class) != (&choice.entry, &choice.exit, choice.class)
            });
            choices.push(choice);
        }
        if choices == self.choices {
            return Vec::new();
        }
        match self.compile(&self.intent.clone(), &choices) {
            Ok((target, allocations)) => {
                let mut writes = self.install_choices(choices);
                writes.extend(self.install(target, allocations));
                self.roll_out(writes)
            }
            Err(error) => {
                tracing::warn!(%error, "chosen paths cannot be installed; those before stay");
                Vec::new()
            }
        }
    }

    fn choice(&self, change: &Change) -> Option<Choice> {
        let (pair, _) = self
            .steer
            .numbers
            .iter()
            .find(|(_, number)| **number == change.pair)?;
        let relays = |path: &Path| -> Option<Vec<Name>> { self.names(path.relays()) };
        let primary = match &change.primary {
            Some(path) => Some(relays(path)?),
            None => None,
        };
        Some(Choice {
            entry: pair.entry.clone(),
            exit: pair.exit.clone(),
            class: pair.class,
            primary,
            backup: change.backup.as_ref().and_then(relays),
            duplicate: change.duplicate,
        })
    }

    fn names(&self, ids: &[NodeId]) -> Option<Vec<Name>> {
        let name_of = |id: &NodeId| {
            let mut names = self.intent.nodes().keys();
            names.find(|name| self.allocations.node(name) == Some(id.get()))
        };
        ids.iter().map(|id| name_of(id).cloned()).collect()
    }

    /// What all legs and relays cost, by which the last choice was made, and for which pairs.
    #[must_use]
    pub fn leg_costs(&self) -> Vec<LegCosts> {
        let costs = self.steer.steering.costs(&self.steer.told).into_iter();
        let named = costs.map(|(pairs, costs)| {
            let ids: Vec<NodeId> = costs.relays().iter().map(|relay| relay.id).collect();
            let is_of = |number: &PairId| pairs.iter().any(|pair| pair.id == *number);
            let numbers = self.steer.numbers.iter();
            LegCosts {
                pairs: numbers
                    .filter(|(_, number)| is_of(number))
                    .map(|(pair, _)| pair.clone())
                    .collect(),
                nodes: self.names(&ids).unwrap_or_default(),
                costs,
            }
        });
        named.collect()
    }

    /// What was decided for a pair; `None`: nothing yet.
    pub(super) fn steered(&self, pair: &PairName) -> Option<Steered> {
        let number = self.steer.numbers.get(pair)?;
        let decision = self.steer.steering.decision(*number)?;
        let best = decision.best.as_ref();
        let paths = [best, decision.primary.as_ref(), decision.backup.as_ref()];
        let [best_cost, path_cost, backup_cost] = paths.map(|choice| choice.map(|choice| choice.cost));
        let costs = [Some(decision.direct), best_cost, path_cost, backup_cost];
        Some(Steered {
            costs: costs.map(|cost| cost.filter(|cost| cost.is_usable())),
            best: best
                .and_then(|best| self.names(best.path.relays()))
                .unwrap_or_default(),
            why: decision.why.told_of(decision.duplicate, &self.spoken()),
        })
    }
}

/// `None` with nothing received at all.
fn stats(report: &LegReport) -> Option<LegStats> {
    if report.rtt_ewma_us == 0 {
        return None;
    }
    let (ewma, p90) = (report.rtt_ewma_us, report.rtt_p90_us);
    Some(LegStats {
        rtt_us: ewma.max(u32::midpoint(ewma, p90)),
        p50_us: report.rtt_p50_us,
        p90_us: p90,
        jitter_us: p90.saturating_sub(report.rtt_p50_us),
        loss_ppm: ppm(report.loss),
        samples: report.received,
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a fraction of 0 to 1 in a million fits"
)]
fn ppm(fraction: f64) -> u32 {
    (fraction.clamp(0.0, 1.0) * 1e6).round() as u32
}
