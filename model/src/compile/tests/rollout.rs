//! Changes are rolled out while hosts are slow, cut off, new or gone: no packet meets a path that is only half there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{States, compiled, counted, intent, name, walk};
use crate::compile::{Allocations, Choice, Fleet, next, pairs, unchanged};
use crate::kinds::Name;
use crate::manifest::Intent;
use crate::state::{HostState, SlotAction, Target};

const NODES: usize = 6;
const ACCELERATORS: usize = 4;

/// A seeded stream of numbers (xorshift64, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}

/// A controller and its hosts, with everything between them that takes time.
struct Cluster {
    dice: Dice,
    nodes: BTreeSet<usize>,
    /// Entry, exit and class of each accelerator.
    accelerators: BTreeMap<usize, (usize, usize, &'static str)>,
    /// The list that their shields name: the only one that there is.
    list: usize,
    choices: Vec<Choice>,
    allocations: Allocations,
    random: Box<dyn FnMut() -> [u8; 16]>,
    target: States,
    fleet: Fleet,
    revision: u64,
    /// What hosts really run.
    runs: States,
    sent: BTreeMap<Name, VecDeque<HostState>>,
    acknowledgements: BTreeMap<Name, VecDeque<u64>>,
    /// The last path that there was when a node of this name left.
    left: BTreeMap<String, u64>,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            nodes: (0..NODES).collect(),
            accelerators: BTreeMap::new(),
            list: 0,
            choices: Vec::new(),
            allocations: Allocations::default(),
            random: Box::new(counted()),
            target: States::new(),
            fleet: Fleet::default(),
            revision: 0,
            runs: States::new(),
            sent: BTreeMap::new(),
            acknowledgements: BTreeMap::new(),
            left: BTreeMap::new(),
        }
    }

    fn intent(&self) -> Intent {
        let list = self.list;
        let mut text = format!(
            "kind: PrefixList\nmetadata: {{name: list-{list}}}\nspec: {{prefixes: [10.0.0.0/8]}}\n---\n"
        );
        for node in &self.nodes {
            let spec = format!("{{region: r{node}, address: {{local: 192.0.2.{}}}}}", node + 1);
            text += &format!("kind: Node\nmetadata: {{name: n{node}}}\nspec: {spec}\n---\n");
        }
        for (number, (entry, exit, class)) in &self.accelerators {
            text += &format!(
                "kind: AddressPool\nmetadata: {{name: p{number}}}\n\
                 spec: {{addresses: [{{node: n{entry}, public: 203.0.113.{}}}]}}\n---\n\
                 kind: Service\nmetadata: {{name: s{number}}}\nspec: {{targets: [{{address: 198.51.100.7}}]}}\n---\n\
                 kind: Accelerator\nmetadata: {{name: a{number}}}\nspec: {{pool: p{number}, class: {class}, \
                 listeners: [{{protocol: udp, port: 7}}], groups: [{{service: s{number}, region: r{exit}}}], \
                 shield: {{block: [list-{list}]}}}}\n---\n",
                number + 1
            );
        }
        intent(&text)
    }

    fn host(&mut self) -> Name {
        let at = self.dice.roll(self.nodes.len());
        name(&format!("n{}", self.nodes.iter().nth(at).unwrap()))
    }

    /// Changes what is declared, or which paths are chosen.
    fn change(&mut self) {
        match self.dice.roll(8) {
            0 => self.toggle_node(),
            1..=3 => self.toggle_accelerator(),
            4 => self.allocations.ask_for_keys(),
            5 => self.list = self.dice.roll(3),
            _ => {}
        }
        let intent = self.intent();
        self.choices = pairs(&intent)
            .into_iter()
            .filter_map(|pair| {
                let mut relays = || (0..self.dice.roll(3)).map(|_| self.host()).collect();
                let (primary, backup): (Vec<Name>, Vec<Name>) = (relays(), relays());
                let (none, backup_too) = (self.dice.roll(20) == 0, self.dice.roll(2) == 0);
                (self.dice.roll(5) > 0).then_some(Choice {
                    entry: pair.entry,
                    exit: pair.exit,
                    class: pair.class,
                    primary: (!none).then_some(primary),
                    backup: backup_too.then_some(backup),
                    duplicate: backup_too && self.dice.roll(2) == 0,
                })
            })
            .collect();
        self.compile(&intent);
    }

    fn compile(&mut self, intent: &Intent) {
        self.allocations.release(&self.fleet);
        self.revision += 1;
        let what = (intent, &*self.choices);
        self.target = compiled(what, self.revision, &mut self.allocations, &mut self.random);
        super::check(&self.target);
        for (name, state) in &self.target {
            if self.fleet.get(name).is_none() {
                self.fleet.begin(name, state);
            }
        }
        self.pump();
    }

    /// Gives new keys to the legs that wait and can have one. Were there such?
    fn renew(&mut self) -> bool {
        let renewed = self
            .allocations
            .renew(&self.fleet, &self.target, &mut self.random);
        if renewed {
            self.compile(&self.intent());
        }
        renewed
    }

    fn toggle_node(&mut self) {
        let node = self.dice.roll(NODES);
        if self.nodes.insert(node) {
            return;
        }
        let mut used = self
            .accelerators
            .values()
            .flat_map(|(entry, exit, _)| [entry, exit]);
        if self.nodes.len() <= 3 || used.any(|used| *used == node) {
            return;
        }
        self.nodes.remove(&node);
        let name = name(&format!("n{node}"));
        self.left.insert(name.to_string(), self.allocations.last_path);
        self.fleet.forget(&name);
        self.runs.remove(&name);
        self.sent.remove(&name);
        self.acknowledgements.remove(&name);
    }

    fn toggle_accelerator(&mut self) {
        let number = self.dice.roll(ACCELERATORS);
        if self.accelerators.remove(&number).is_some() {
            return;
        }
        let nodes: Vec<usize> = self.nodes.iter().copied().collect();
        let (entry, exit) = (
            nodes[self.dice.roll(nodes.len())],
            nodes[self.dice.roll(nodes.len())],
        );
        let class = ["game", "voice"][self.dice.roll(2)];
        self.accelerators.insert(number, (entry, exit, class));
    }

    /// Sends each host what it should get now.
    fn pump(&mut self) {
        let now = next(&self.fleet, &self.target);
        let outdated: Vec<HostState> = self
            .fleet
            .outdated(&now)
            .map(|(_, state)| state.clone())
            .collect();
        for mut state in outdated {
            self.revision += 1;
            state.revision = self.revision;
            let host = name(&state.node.name);
            self.fleet.send(&host, state.clone());
            self.sent.entry(host).or_default().push_back(state);
        }
    }

    /// A host takes the next state that it was sent. Was there one?
    fn deliver(&mut self, host: &Name) -> bool {
        let Some(state) = self.sent.get_mut(host).and_then(VecDeque::pop_front) else {
            return false;
        };
        super::accepted(&state);
        let acknowledgements = self.acknowledgements.entry(host.clone()).or_default();
        acknowledgements.push_back(state.revision);
        self.runs.insert(host.clone(), state);
        self.check();
        true
    }

    /// The controller hears of the oldest state that a host took. Was there one?
    fn acknowledge(&mut self, host: &Name) -> bool {
        let heard = self.acknowledgements.get_mut(host).and_then(VecDeque::pop_front);
        let Some(revision) = heard else {
            return false;
        };
        self.fleet.acknowledge(host, revision);
        self.allocations.release(&self.fleet);
        self.renew();
        self.pump();
        true
    }

    /// A host's connection breaks, and it comes back: what was under way is lost.
    fn reconnect(&mut self, host: &Name) {
        self.sent.remove(host);
        self.acknowledgements.remove(host);
        if let Some(state) = self.runs.get(host) {
            assert!(self.fleet.reconnect(host, state.revision), "{host}");
        } else if let Some(target) = self.target.get(host) {
            self.fleet.begin(host, target);
        }
        self.pump();
    }

    /// Every path that a host runs leads to its end, and every pair of a listener to an exit that has the listener;
    /// those over a node that has left since are excused.
    fn check(&self) {
        for state in self.runs.values() {
            let here = |id: u64, nodes: &[String]| {
                let stayed = |node: &String| self.left.get(node).is_none_or(|last| id > *last);
                nodes.iter().all(stayed)
            };
            for path in state.paths.iter().filter(|path| here(path.id, &path.nodes)) {
                let (nodes, slot) = walk(&self.runs, state, &path.leg).unwrap_or_else(|error| {
                    panic!("{error}; path {} of {:?}", path.id, path.nodes);
                });
                assert_eq!(nodes, path.nodes);
                let Some(pair) = state
                    .pairs
                    .iter()
                    .find(|pair| [pair.primary, pair.backup].contains(&Some(path.index)))
                else {
                    continue;
                };
                let SlotAction::Exit { answers, .. } = slot.action else {
                    panic!("a path ends at an exit");
                };
                let far = &self.runs[&name(&pair.peer)];
                if let Some(back) = far.pairs.iter().find(|pair| pair.index == answers) {
                    assert_eq!((&back.peer, &back.class), (&state.node.name, &pair.class));
                }
            }
            self.check_listeners(state);
        }
    }

    fn check_listeners(&self, state: &HostState) {
        for service in state.services.iter().filter(|service| !service.at_exit) {
            for target in &service.targets {
                let Target::Pair(index) = target.target else {
                    continue;
                };
                let pair = state.pairs.iter().find(|pair| pair.index == index).unwrap();
                assert!(pair.primary.is_some());
                if !self.left.contains_key(&pair.peer) {
                    let mut at_exit = self.runs[&name(&pair.peer)].services.iter();
                    assert!(
                        at_exit.any(|other| other.at_exit && other.vni == service.vni),
                        "{service:?}"
                    );
                }
            }
        }
    }

    /// Everything arrives.
    fn settle(&mut self) {
        let hosts: Vec<Name> = self.nodes.iter().map(|node| name(&format!("n{node}"))).collect();
        loop {
            let mut moved = false;
            for host in &hosts {
                moved |= self.deliver(host) | self.acknowledge(host);
            }
            if !moved && !self.renew() {
                break;
            }
        }
        for (host, target) in &self.target {
            assert!(unchanged(&self.runs[host], target), "{host}");
        }
        self.allocations.release(&self.fleet);
        assert!(!self.allocations.has_resting(), "{:?}", self.allocations.resting);
        assert!(!self.allocations.wants_keys());
    }
}

/// A host that is away keeps its legs' keys through any number of renewals; the others' are renewed each time.
#[test]
fn keys_are_renewed_around_a_host_that_is_away() {
    let mut cluster = Cluster::new(7);
    cluster.compile(&cluster.intent());
    cluster.settle();
    let away = name("n0");
    let keys = |cluster: &Cluster| -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let id = cluster.allocations.nodes[&away];
        let legs = cluster.allocations.legs.iter();
        let epochs = legs.map(|((from, to), leg)| {
            let epochs: Vec<u8> = leg.keys.iter().map(|key| key.epoch).collect();
            ([from, to].contains(&&id), epochs)
        });
        let (its, others): (Vec<_>, Vec<_>) = epochs.partition(|(its, _)| *its);
        let epochs = |legs: Vec<(bool, Vec<u8>)>| legs.into_iter().map(|(_, epochs)| epochs).collect();
        (epochs(its), epochs(others))
    };
    let hosts: Vec<Name> = (1..NODES).map(|node| name(&format!("n{node}"))).collect();
    for epoch in 1..=6 {
        cluster.allocations.ask_for_keys();
        assert!(cluster.renew());
        while hosts.iter().fold(false, |moved, host| {
            moved | cluster.deliver(host) | cluster.acknowledge(host)
        }) {}
        let (its, others) = keys(&cluster);
        assert!(its.iter().all(|epochs| *epochs == [0, 1]), "{its:?}");
        assert!(
            others
                .iter()
                .all(|epochs| *epochs == [(epoch - 1) & 3, epoch & 3]),
            "{others:?}"
        );
    }
    cluster.settle();
    assert!(!cluster.allocations.wants_keys());
}

#[test]
fn no_path_is_ever_half_there() {
    for seed in 1..=16 {
        let mut cluster = Cluster::new(seed * 0x9e37_79b9);
        cluster.change();
        for step in 0..400 {
            let host = cluster.host();
            match cluster.dice.roll(40) {
                0..=2 => cluster.change(),
                3 => cluster.reconnect(&host),
                4..=22 => drop(cluster.deliver(&host)),
                _ => drop(cluster.acknowledge(&host)),
            }
            if step % 100 == 99 {
                cluster.settle();
            }
        }
    }
}
