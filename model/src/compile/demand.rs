//! What is needed: nodes, pairs, and the paths between them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::allocations::{CoupleKey, NodeId, PathKey};
use super::{Allocations, Choice, Input};
use crate::kinds::{Accelerator, Class, Duplication, Group, Liveness, Name, Target};
use crate::manifest::Intent;

/// A pair by its ends: traffic of a class goes from the entry to the exit, and its answers back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairName {
    /// Where clients' packets enter.
    pub entry: Name,
    /// Where they leave.
    pub exit: Name,
    /// The class of traffic.
    pub class: Class,
}

/// The pairs that listeners need, so that paths can be chosen for them: each entry to each exit that is another
/// node. Answers take the reverse of the same paths, so two nodes appear in one direction only: of both, the first
/// by (entry, exit).
#[must_use]
pub fn pairs(intent: &Intent) -> Vec<PairName> {
    let wanted = wanted(intent, |_| true);
    let first = |pair: &PairName| pair.entry < pair.exit || !wanted.contains(&pair.reversed());
    wanted.iter().filter(|pair| first(pair)).cloned().collect()
}

/// The pairs of the accelerators that `takes` takes, in the directions in which clients' packets go.
fn wanted(intent: &Intent, takes: impl Fn(&Accelerator) -> bool) -> BTreeSet<PairName> {
    let mut wanted = BTreeSet::new();
    for accelerator in intent.accelerators().values().filter(|one| takes(one)) {
        for entry in entries(intent, accelerator) {
            let exits = exits_from(intent, accelerator, entry);
            wanted.extend(exits.into_iter().map(|exit| PairName {
                entry: entry.clone(),
                exit: exit.clone(),
                class: accelerator.spec.class,
            }));
        }
    }
    wanted
}

/// Entries that forward to all of an accelerator's servers themselves, over the Internet, since no path to any of its
/// exits lives: the accelerator, the entry and the exits.
#[must_use]
pub fn fallbacks<'a>(
    intent: &'a Intent,
    choices: &[Choice],
) -> Vec<(&'a Name, &'a Name, BTreeSet<&'a Name>)> {
    let (mut fallbacks, targets) = (Vec::new(), intent.all_targets());
    for (name, accelerator) in intent.accelerators() {
        let lives = |entry: &Name, exit: &Name| {
            let pair = PairName {
                entry: entry.clone(),
                exit: exit.clone(),
                class: accelerator.spec.class,
            };
            // What nobody has chosen for goes direct.
            chosen(choices, &pair).is_none_or(|choice| choice.primary.is_some())
        };
        for entry in entries(intent, accelerator) {
            let weighty = accelerator
                .spec
                .groups
                .iter()
                .filter(|group| weight(&targets, group) > 0);
            let (here, afar): (Vec<_>, Vec<_>) = weighty.partition(|group| is_exit(intent, group, entry));
            let exits: BTreeSet<&Name> = afar.iter().flat_map(|group| exits(intent, group)).collect();
            let serves = !here.is_empty();
            if !exits.is_empty() && !serves && !exits.iter().any(|exit| lives(entry, exit)) {
                fallbacks.push((name, entry, exits));
            }
        }
    }
    fallbacks
}

/// The nodes that must not relay, by pair and by its reverse; pairs that may use all are left out. Accelerators of a
/// class share pairs: a pair keeps to the rules of all that use it.
#[must_use]
pub fn forbidden_relays(intent: &Intent) -> BTreeMap<PairName, BTreeSet<&Name>> {
    let mut forbidden: BTreeMap<PairName, BTreeSet<&Name>> = BTreeMap::new();
    let accelerators = intent.accelerators().values();
    for accelerator in accelerators.filter(|accelerator| !accelerator.spec.relays.is_none()) {
        let rules = &accelerator.spec.relays;
        let nodes = intent.nodes().iter().filter(|(_, node)| !rules.allow(&node.spec));
        let nodes: Vec<&Name> = nodes.map(|(name, _)| name).collect();
        for entry in entries(intent, accelerator) {
            for exit in exits_from(intent, accelerator, entry) {
                let pair = PairName {
                    entry: entry.clone(),
                    exit: exit.clone(),
                    class: accelerator.spec.class,
                };
                for pair in [pair.reversed(), pair] {
                    forbidden.entry(pair).or_default().extend(&nodes);
                }
            }
        }
    }
    forbidden.retain(|_, nodes| !nodes.is_empty());
    forbidden
}

/// When packets of a pair are sent over both its paths, by pair and by its reverse. Accelerators of a class share
/// pairs: the one that wants it most often decides.
#[must_use]
pub fn duplications(intent: &Intent) -> BTreeMap<PairName, Duplication> {
    let mut all = BTreeMap::new();
    for duplication in Duplication::ALL {
        let wanted = wanted(intent, |one| one.spec.duplicates() == *duplication);
        all.extend(wanted.into_iter().flat_map(|pair| {
            let both = [pair.reversed(), pair];
            both.map(|pair| (pair, *duplication))
        }));
    }
    all
}

impl PairName {
    fn reversed(&self) -> Self {
        Self {
            entry: self.exit.clone(),
            exit: self.entry.clone(),
            class: self.class,
        }
    }
}

/// The nodes where an accelerator's packets enter.
pub(super) fn entries<'a>(intent: &'a Intent, accelerator: &'a Accelerator) -> BTreeSet<&'a Name> {
    intent.entrances(accelerator).map(|(node, _)| node).collect()
}

/// The nodes where packets for a group leave: those of its region that run an agent.
pub(super) fn exits<'a>(intent: &'a Intent, group: &Group) -> BTreeSet<&'a Name> {
    let nodes = intent.nodes().keys();
    nodes.filter(|node| is_exit(intent, group, node)).collect()
}

/// What a group takes beside an accelerator's others: its dial, times the weights of its service's targets.
fn weight(targets: &HashMap<&Name, Cow<'_, [Target]>>, group: &Group) -> u128 {
    let targets = targets.get(&group.service);
    let targets = targets.into_iter().flat_map(|targets| targets.iter());
    let all: u128 = targets.map(|target| u128::from(target.share())).sum();
    u128::from(group.dial.get()) * all
}

/// Whether packets for a group leave at a node.
pub(super) fn is_exit(intent: &Intent, group: &Group, node: &Name) -> bool {
    let node = intent.nodes().get(node);
    node.is_some_and(|node| node.spec.agent && node.spec.region == group.region)
}

/// The exits to which an accelerator's packets go from an entry: those of each group but the ones that the entry is
/// itself an exit of.
pub(super) fn exits_from<'a>(
    intent: &'a Intent,
    accelerator: &Accelerator,
    entry: &Name,
) -> BTreeSet<&'a Name> {
    let groups = accelerator.spec.groups.iter();
    let afar = groups.filter(|group| !is_exit(intent, group, entry));
    afar.flat_map(|group| exits(intent, group)).collect()
}

/// Paths of two nodes and a class, by the numbers of the nodes that they pass, from the one with the lower number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paths {
    /// The path in use; `None` where none lives.
    pub(super) primary: Option<Vec<NodeId>>,
    pub(super) backup: Option<Vec<NodeId>>,
    /// Whether each packet takes both.
    pub(super) duplicate: bool,
}

/// What must be there.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand {
    pub(super) couples: BTreeMap<CoupleKey, Paths>,
    /// Those of which an accelerator wants premium liveness.
    pub(super) premium: BTreeSet<CoupleKey>,
}

impl Demand {
    /// Reads the choices by the numbers of nodes.
    pub(super) fn of(input: &Input<'_>, allocations: &Allocations) -> Self {
        let mut couples = BTreeMap::new();
        for pair in pairs(input.intent) {
            let ends = (allocations.node(&pair.entry), allocations.node(&pair.exit));
            let (Some(entry), Some(exit)) = ends else {
                continue;
            };
            let (choice, relays) = (
                chosen(input.choices, &pair),
                Relays {
                    allocations,
                    entry,
                    exit,
                },
            );
            let paths = choice.map_or_else(|| relays.direct(), |choice| relays.paths(choice, &pair));
            couples.insert(CoupleKey::new(entry, exit, pair.class), paths);
        }
        let premium = wanted(input.intent, |one| one.spec.liveness == Liveness::Premium);
        let couple = |pair: &PairName| {
            let (entry, exit) = (allocations.node(&pair.entry)?, allocations.node(&pair.exit)?);
            Some(CoupleKey::new(entry, exit, pair.class))
        };
        Self {
            couples,
            premium: premium.iter().filter_map(couple).collect(),
        }
    }

    /// The twin paths that couples name.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathKey> + '_ {
        self.couples.iter().flat_map(|(couple, paths)| {
            let named = paths.primary.iter().chain(&paths.backup);
            named.map(|nodes| path_of(couple, nodes))
        })
    }
}

/// A couple's path over these nodes.
pub(super) fn path_of(couple: &CoupleKey, nodes: &[NodeId]) -> PathKey {
    PathKey {
        nodes: nodes.to_vec(),
        class: Some(couple.class),
    }
}

/// The choice for a pair: of both directions, the first by (entry, exit).
fn chosen<'a>(choices: &'a [Choice], pair: &PairName) -> Option<&'a Choice> {
    let is = |choice: &&Choice| {
        let same = choice.entry == pair.entry && choice.exit == pair.exit;
        let reversed = choice.entry == pair.exit && choice.exit == pair.entry;
        choice.class == pair.class && (same || reversed)
    };
    choices
        .iter()
        .filter(is)
        .min_by_key(|choice| (&choice.entry, &choice.exit))
}

/// Turns names of relays into the nodes that a path passes.
struct Relays<'a> {
    allocations: &'a Allocations,
    entry: NodeId,
    exit: NodeId,
}

impl Relays<'_> {
    fn direct(&self) -> Paths {
        Paths {
            primary: self.nodes(&[], false),
            backup: None,
            duplicate: false,
        }
    }

    /// The paths of a choice, without those that pass a node that is gone, or a node twice.
    fn paths(&self, choice: &Choice, pair: &PairName) -> Paths {
        let reversed = choice.entry != pair.entry;
        let Some(primary) = &choice.primary else {
            return Paths {
                primary: None,
                backup: None,
                duplicate: false,
            };
        };
        let backup = choice
            .backup
            .as_ref()
            .and_then(|relays| self.nodes(relays, reversed));
        let Some(primary) = self.nodes(primary, reversed).or_else(|| backup.clone()) else {
            return self.direct();
        };
        Paths {
            backup: backup.filter(|backup| *backup != primary),
            primary: Some(primary),
            duplicate: choice.duplicate,
        }
    }

    fn nodes(&self, relays: &[Name], reversed: bool) -> Option<Vec<NodeId>> {
        let relays: Option<Vec<NodeId>> = relays.iter().map(|name| self.allocations.node(name)).collect();
        let mut relays = relays?;
        if reversed {
            relays.reverse();
        }
        let mut nodes = vec![self.entry];
        nodes.append(&mut relays);
        nodes.push(self.exit);
        let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
        if distinct.len() != nodes.len() {
            return None;
        }
        if self.entry > self.exit {
            nodes.reverse();
        }
        Some(nodes)
    }
}
