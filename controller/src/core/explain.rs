//! Why a pair's path is what it is, now and then: what [`explain`] says, with names.

use std::collections::BTreeMap;

use kuafu_model::compile::{Choice, PairName, pairs};
use kuafu_model::kinds::Name;
use kuafu_topology::steering::{Explanation, Fate, Known, PairInput, Words, explain};
use kuafu_topology::{Change, Config, Cost, Input, LegId, Millis, NodeId, PairId, TrafficClass, Why};

use super::past::{Seen, Switch, UnixMs, read};
use super::view::is_for;
use super::{Command, Core, Now, commit};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathQuestion {
    /// Where packets enter.
    pub entry: String,
    /// Where they leave.
    pub exit: String,
    /// What they are; `None`: the first class in which the pair is used, else game.
    pub class: Option<TrafficClass>,
}

/// As of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now.
    Now,
    /// So many ms ago.
    Ago(u64),
    /// Then.
    At(UnixMs),
}

/// Why a pair's path is what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct PathAnswer {
    /// The pair that is explained: the one asked for, or the one whose path it takes backwards.
    pub ends: [String; 2],
    /// What it carries.
    pub class: TrafficClass,
    /// When this was known.
    pub at: UnixMs,
    /// The same on the clock of the ticks.
    pub now: Millis,
    /// What else is to be known of it.
    pub notes: Vec<String>,
    /// The explanation, by numbers.
    pub explanation: Explanation,
    /// Their names.
    pub names: Names,
    /// The pair's switches until then, the oldest first.
    pub switches: Vec<Switch>,
    /// Since when there is a history; `None`: none is kept.
    pub history_since: Option<UnixMs>,
}

impl PathAnswer {
    /// Whether the path is in use: else it is what would be chosen.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.explanation.held.pair.id != NOBODYS
    }
}

/// The number of a pair for which nothing was decided; those of others begin at 1.
const NOBODYS: PairId = PairId(0);

/// Why a path cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The name of no node.
    #[error("there is no node/{0}")]
    UnknownNode(String),
    /// The name of no node at that time.
    #[error("there was no node/{0} at that time")]
    UnknownThen(String),
    /// No path begins or ends there.
    #[error("node/{0} is declared with `agent: false`: no path begins or ends there")]
    Foreign(String),
    /// Both ends are one.
    #[error("both ends are node/{0}: a path leads from one node to another")]
    OneNode(String),
    /// The time has not come.
    #[error("that time is in the future")]
    Future,
    /// Nothing is known of the time.
    #[error("nothing is known of that time: {0}")]
    Forgotten(String),
}

/// Names of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    names: BTreeMap<NodeId, String>,
    now: Millis,
}

impl Names {
    fn of(input: &Input) -> Self {
        let nodes = input.nodes.iter();
        Self {
            names: nodes.map(|node| (node.id, node.name.clone())).collect(),
            now: input.now,
        }
    }

    fn id(&self, name: &str) -> Option<NodeId> {
        let mut names = self.names.iter();
        names.find(|(_, known)| *known == name).map(|(id, _)| *id)
    }
}

impl Words for Names {
    fn node(&self, id: NodeId) -> String {
        let name = self.names.get(&id).filter(|name| !name.is_empty());
        name.cloned().unwrap_or_else(|| format!("node {id}"))
    }

    fn until(&self, end: Millis) -> String {
        format!("for another {} s", end.since(self.now).div_ceil(1000))
    }
}

/// What was in use before a tick.
pub(super) struct Before {
    pub(super) choices: Vec<Choice>,
    /// What the path in use cost, where one was chosen since the start.
    pub(super) costs: BTreeMap<PairId, Cost>,
}

impl Core {
    /// What the calendar says.
    pub fn tell_time(&mut self, now: Now, unix_ms: UnixMs) {
        self.began_unix_ms = unix_ms.saturating_sub(now);
    }

    /// How many octets the history of legs and decisions may take; 0: none is kept.
    pub fn keep_history(&mut self, bytes: usize) {
        self.past.set_limit(bytes);
    }

    /// Octets of the history of legs and decisions, and since when there is one.
    #[must_use]
    pub fn past(&self) -> (usize, Option<UnixMs>) {
        (self.past.bytes(), self.past.since())
    }

    fn unix(&self, now: Now) -> UnixMs {
        self.began_unix_ms + now
    }

    /// The names of the last tick's nodes.
    pub(super) fn spoken(&self) -> Names {
        Names::of(&self.steer.told)
    }

    /// What the paths in use cost.
    pub(super) fn costs_in_use(&self) -> BTreeMap<PairId, Cost> {
        let decisions = self.steer.steering.decisions();
        decisions
            .filter_map(|decision| Some((decision.pair.id, decision.primary.as_ref()?.cost)))
            .collect()
    }

    /// Keeps what a tick was told, if it is time or it decided something, and what it decided.
    pub(super) fn note_tick(&mut self, now: Now, before: &Before, changes: &[Change]) -> Vec<Command> {
        let told = &self.steer.told;
        let qualities = &mut self.past.qualities;
        qualities.extend(told.legs.iter().map(|leg| (leg.leg, leg.stats)));
        let mut writes = Vec::new();
        if !changes.is_empty() || self.past.is_due(now) {
            let at = self.unix(now);
            let seen = self.seen();
            writes.extend(self.past.write((now, at), seen));
        }
        for change in changes {
            if let Some(switch) = self.switch(now, before, change) {
                writes.extend(self.past.note(switch));
            }
        }
        commit(writes)
    }

    /// All that is known, as of the last tick.
    fn seen(&self) -> Seen {
        let told = &self.steer.told;
        let names: BTreeMap<NodeId, &str> = told
            .nodes
            .iter()
            .map(|node| (node.id, node.name.as_str()))
            .collect();
        let fate = |leg: &LegId| {
            let (from, to) = (names.get(&leg.from)?, names.get(&leg.to)?);
            let is_dead = self.measured.is_dead(from, to);
            Some(if is_dead { Fate::Dead } else { Fate::Silent })
        };
        let qualities = self.past.qualities.iter();
        let lost = qualities.filter_map(|(leg, stats)| Some((*leg, (*stats, fate(leg)?))));
        let measured = told.legs.iter().map(|leg| {
            let is_unknown = told.unknown.contains(&leg.leg);
            let fate = if is_unknown { Fate::Unknown } else { Fate::Measured };
            (leg.leg, (leg.stats, fate))
        });
        Seen {
            nodes: told.nodes.clone(),
            forbidden: told.forbidden.clone(),
            standing: self.steer.steering.standing(),
            legs: lost.chain(measured).collect(),
            held: self
                .steer
                .steering
                .held()
                .map(|held| (held.pair.id, held))
                .collect(),
        }
    }

    /// What a change means for the pair's hosts; `None`: nothing.
    fn switch(&self, now: Now, before: &Before, change: &Change) -> Option<Switch> {
        let numbers = &self.steer.numbers;
        let (pair, id) = numbers.iter().find(|(_, number)| **number == change.pair)?;
        let of = |choices: &[Choice]| choices.iter().find(|choice| is_for(choice, pair)).cloned();
        let (old, new) = (of(&before.choices), of(&self.choices)?);
        if old.as_ref() == Some(&new) {
            return None;
        }
        let was_twice = old.as_ref().is_some_and(|old| old.duplicate);
        let nodes = |relays: &Option<Vec<Name>>| -> Vec<String> {
            let Some(relays) = relays else {
                return Vec::new();
            };
            let nodes = [&pair.entry].into_iter().chain(relays).chain([&pair.exit]);
            nodes.map(ToString::to_string).collect()
        };
        let from = old.map(|old| nodes(&old.primary)).unwrap_or_default();
        let to = nodes(&new.primary);
        let old_cost = before.costs.get(id).copied();
        let decision = self.steer.steering.decision(*id);
        let new_cost = decision.and_then(|decision| Some(decision.primary.as_ref()?.cost));
        let ms = |cost: Option<Cost>| cost.filter(|cost| cost.is_usable()).map(Cost::ms);
        Some(Switch {
            at: self.unix(now),
            entry: pair.entry.to_string(),
            exit: pair.exit.to_string(),
            class: pair.class.word().to_owned(),
            cause: match (from == to, was_twice, new.duplicate) {
                (false, _, _) => self.cause(change, &from, (old_cost, new_cost)),
                (true, false, true) => "packets are sent over both paths".to_owned(),
                (true, true, false) => "packets are sent over one path again".to_owned(),
                (true, _, _) => "another backup".to_owned(),
            },
            from_cost_ms: ms(old_cost),
            to_cost_ms: ms(new_cost),
            from,
            to,
            backup: nodes(&new.backup),
        })
    }

    fn cause(&self, change: &Change, from: &[String], costs: (Option<Cost>, Option<Cost>)) -> String {
        let names = self.spoken();
        match (&change.why, costs) {
            (Why::Bypass { cause }, _) => cause.told(&names) + &self.dead_legs(from),
            (why, (None, _)) => format!("first choice since the controller's start: {}", why.told(&names)),
            (why, (Some(old), Some(new))) if new < old && old.is_usable() => {
                let gain = old.ms() - new.ms();
                format!("better by {gain:.1} ms, and stayed so: {}", why.told(&names))
            }
            (why, _) => why.told(&names),
        }
    }

    /// The legs of a path on which nothing comes back, in words.
    fn dead_legs(&self, nodes: &[String]) -> String {
        let legs = nodes.windows(2).map(|leg| (&leg[0], &leg[1]));
        let is_dead =
            |from: &String, to: &String| self.measured.is_dead(from, to) || self.measured.is_dead(to, from);
        let dead: Vec<String> = legs
            .filter(|(from, to)| is_dead(from, to))
            .map(|(from, to)| format!("{from} > {to}"))
            .collect();
        if dead.is_empty() {
            String::new()
        } else {
            format!(": nothing comes back on {}", dead.join(", "))
        }
    }

    /// What answers for a time: the time, and the entries of the store whose keys begin so; `None`: what is known
    /// now.
    ///
    /// # Errors
    /// A time of which nothing is known.
    pub fn history_of(&self, now: Now, when: When) -> Result<Option<(UnixMs, String)>, PathError> {
        let today = self.unix(now);
        let at = match when {
            When::Now => return Ok(None),
            When::Ago(ms) => today.saturating_sub(ms),
            When::At(at) => at,
        };
        if at > today {
            return Err(PathError::Future);
        }
        match (self.past.prefix(at), self.past.since()) {
            (Some(prefix), _) => Ok(Some((at, prefix))),
            (None, Some(since)) => {
                let seconds = today.saturating_sub(since) / 1000;
                let why = format!("the history begins {seconds} s ago (kuafu controller --history-mb)");
                Err(PathError::Forgotten(why))
            }
            (None, None) => {
                let why = "no history is kept yet (kuafu controller --history-mb)";
                Err(PathError::Forgotten(why.to_owned()))
            }
        }
    }

    /// Explains a pair by what is known now, or by what a chapter of the history says of a time.
    ///
    /// # Errors
    /// A question that has no answer.
    pub fn explain_path(
        &self,
        now: Now,
        question: &PathQuestion,
        then: Option<(UnixMs, &[Vec<u8>])>,
    ) -> Result<PathAnswer, PathError> {
        let (known, at, until) = match then {
            None => (
                self.seen().known(self.steer.told.now),
                self.unix(now),
                UnixMs::MAX,
            ),
            Some((asked, values)) => {
                let values = values.iter().map(Vec::as_slice);
                let (seen, at, ticks) = read(values, asked)
                    .ok_or_else(|| PathError::Forgotten("its entry cannot be read".to_owned()))?;
                (seen.known(ticks), at, asked)
            }
        };
        let names = Names::of(&known.input);
        let ends = self.ends(question, &names, then.is_some())?;
        let (pair, mut notes) = find(&known, ends, question.class);
        if then.is_none() {
            notes = self.live_notes(&names, pair, notes);
        }
        let explanation = explain(&Config::default(), &known, pair)
            .ok_or_else(|| PathError::UnknownNode(question.exit.clone()))?;
        let ends = [pair.entry, pair.exit].map(|end| names.node(end));
        let is_of = |switch: &&Switch| {
            [&switch.entry, &switch.exit] == [&ends[0], &ends[1]] && switch.class == pair.class.word()
        };
        let switches = self.past.switches().filter(is_of);
        Ok(PathAnswer {
            switches: switches.filter(|switch| switch.at <= until).cloned().collect(),
            class: pair.class,
            at,
            now: known.input.now,
            notes,
            explanation,
            names,
            ends,
            history_since: self.past.since(),
        })
    }

    fn ends(&self, question: &PathQuestion, names: &Names, then: bool) -> Result<[NodeId; 2], PathError> {
        let PathQuestion { entry, exit, .. } = question;
        let id = |name: &String| {
            let declared = name
                .parse()
                .ok()
                .and_then(|name: Name| self.intent.nodes().get(&name));
            match (names.id(name), declared) {
                (_, Some(node)) if !node.spec.agent => Err(PathError::Foreign(name.clone())),
                (Some(id), _) => Ok(id),
                (None, Some(_)) if !then => Err(PathError::Forgotten(
                    "no path was chosen since the controller's start".to_owned(),
                )),
                (None, _) if then => Err(PathError::UnknownThen(name.clone())),
                (None, _) => Err(PathError::UnknownNode(name.clone())),
            }
        };
        let ends = [id(entry)?, id(exit)?];
        if ends[0] == ends[1] {
            return Err(PathError::OneNode(entry.clone()));
        }
        Ok(ends)
    }

    /// A pair that is wanted and was not decided yet is not one that nobody uses.
    fn live_notes(&self, names: &Names, pair: PairInput, notes: Vec<String>) -> Vec<String> {
        let [entry, exit] = [pair.entry, pair.exit].map(|end| names.node(end));
        let wanted = pairs(&self.intent);
        let is_it = |of: &&PairName| {
            (of.entry.as_str(), of.exit.as_str(), of.class.word()) == (&entry, &exit, pair.class.word())
        };
        let Some(wanted) = wanted.iter().find(is_it).filter(|_| pair.id == NOBODYS) else {
            return notes;
        };
        let choice = self.choices.iter().find(|choice| is_for(choice, wanted));
        let in_use = choice.and_then(|choice| choice.primary.as_ref()).map(|relays| {
            let relays: Vec<&str> = relays.iter().map(Name::as_str).collect();
            if relays.is_empty() {
                "direct".to_owned()
            } else {
                format!("via {}", relays.join(", "))
            }
        });
        let in_use = in_use.unwrap_or_else(|| "direct".to_owned());
        vec![format!(
            "nothing was chosen yet since the controller's start, and {in_use} is in use: this is what would be chosen"
        )]
    }
}

/// The pair that is meant: as asked, or the one whose answers go that way; else one that nobody uses.
fn find(known: &Known, [entry, exit]: [NodeId; 2], class: Option<TrafficClass>) -> (PairInput, Vec<String>) {
    let classes = class.map_or_else(|| TrafficClass::ALL.to_vec(), |class| vec![class]);
    let names = Names::of(&known.input);
    for class in &classes {
        for (from, to) in [(entry, exit), (exit, entry)] {
            let is_it = |pair: &&PairInput| (pair.entry, pair.exit, pair.class) == (from, to, *class);
            let Some(pair) = known.input.pairs.iter().find(is_it) else {
                continue;
            };
            let backwards = format!(
                "what goes this way are answers: they take the path from {} to {} backwards",
                names.node(from),
                names.node(to)
            );
            let notes = (from != entry).then_some(backwards);
            return (*pair, notes.into_iter().collect());
        }
    }
    let pair = PairInput {
        id: NOBODYS,
        entry,
        exit,
        class: class.unwrap_or_default(),
    };
    let note = "no accelerator uses this pair: this is what would be chosen";
    (pair, vec![note.to_owned()])
}
