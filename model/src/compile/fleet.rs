//! What hosts may be running.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::allocations::{NodeId, Number};
use super::hosts;
use crate::health;
use crate::kinds::Name;
use crate::state::{HostState, LegState, SlotAction, Target};

/// The states that hosts may be running. The controller keeps what is acknowledged in its store: without it a
/// restarted controller would not know which paths hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    hosts: BTreeMap<Name, Running>,
}

/// The states that one host may be running.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    acknowledged: Option<HostState>,
    /// Sent since, oldest first, and not yet acknowledged: the host runs one of them, or what it acknowledged.
    sent: Vec<HostState>,
    /// What it may go back to by itself: whatever it may have been running when it was first sent something on trial.
    kept: Vec<HostState>,
    /// The trial for which it keeps that; 0: not known.
    trial: u64,
    /// Sent, and not on trial: when the host has it in force, it goes back to nothing.
    settles: Option<u64>,
}

impl Running {
    /// What it acknowledged last.
    #[must_use]
    pub const fn acknowledged(&self) -> Option<&HostState> {
        self.acknowledged.as_ref()
    }

    /// What it was sent last, else what it acknowledged.
    #[must_use]
    pub fn newest(&self) -> Option<&HostState> {
        self.sent.last().or(self.acknowledged.as_ref())
    }

    /// Whether it runs what it was sent last.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.sent.is_empty()
    }

    /// What it may go back to by itself; nothing, unless it was sent something on trial.
    #[must_use]
    pub fn kept(&self) -> &[HostState] {
        &self.kept
    }

    /// Whether it may still go back, and was not sent yet what ends that.
    #[must_use]
    pub const fn is_on_trial(&self) -> bool {
        !self.kept.is_empty() && self.settles.is_none()
    }

    /// All of them, and those that it may go back to.
    pub fn states(&self) -> impl Iterator<Item = &HostState> {
        self.acknowledged.iter().chain(&self.sent).chain(&self.kept)
    }

    /// Whether it has acknowledged something, and this holds of every state that it may be running. What it may go
    /// back to does not count: a trial would never take effect.
    pub(super) fn surely(&self, holds: impl FnMut(&HostState) -> bool) -> bool {
        self.acknowledged.is_some() && self.acknowledged.iter().chain(&self.sent).all(holds)
    }

    /// What it may be running now, it may go back to.
    fn keep(&mut self) {
        for state in self.acknowledged.iter().chain(&self.sent) {
            if !self.kept.iter().any(|kept| kept.revision == state.revision) {
                self.kept.push(state.clone());
            }
        }
    }
}

impl Fleet {
    /// Hosts that run these states and were sent nothing else.
    #[must_use]
    pub fn settled(states: &BTreeMap<Name, HostState>) -> Self {
        let mut fleet = Self::default();
        for (name, state) in states {
            fleet.restore(name, state.clone());
        }
        fleet
    }

    /// What a host may be running; `None`: nothing is known of it.
    #[must_use]
    pub fn get(&self, host: &Name) -> Option<&Running> {
        self.hosts.get(host)
    }

    pub(super) fn get_by(&self, host: &str) -> Option<&Running> {
        self.hosts.get(host)
    }

    /// The hosts of which something is known.
    pub fn hosts(&self) -> impl Iterator<Item = (&Name, &Running)> {
        self.hosts.iter()
    }

    /// Where the paths begin that may pass a node between their ends, now or when hosts have what they should, each as
    /// often as there are such.
    #[must_use]
    pub fn passing(&self, node: &Name, target: &BTreeMap<Name, HostState>) -> Vec<Name> {
        let passes = |nodes: &[String]| match nodes {
            [_, relays @ .., _] => relays.iter().any(|relay| relay == node.as_str()),
            _ => false,
        };
        let running = self
            .hosts()
            .flat_map(|(host, running)| running.states().map(move |state| (host, state)));
        let paths = running
            .chain(target)
            .flat_map(|(host, state)| state.paths.iter().map(move |path| (host, path)));
        let over: BTreeSet<_> = paths
            .filter(|(_, path)| passes(&path.nodes))
            .map(|(host, path)| (host, path.id))
            .collect();
        over.into_iter().map(|(host, _)| host.clone()).collect()
    }

    /// The host runs exactly this: it said so when it connected, or the store did.
    pub fn restore(&mut self, host: &Name, mut state: HostState) {
        hosts::sort(&mut state);
        let running = Running {
            acknowledged: Some(state),
            ..Running::default()
        };
        self.hosts.insert(host.clone(), running);
    }

    /// The host may go back to this by itself: the store said so.
    pub fn restore_kept(&mut self, host: &Name, mut state: HostState) {
        hosts::sort(&mut state);
        self.hosts.entry(host.clone()).or_default().kept.push(state);
    }

    /// The host is new and has nothing yet; `target` is what it should have in the end.
    pub fn begin(&mut self, host: &Name, target: &HostState) {
        self.restore(host, blank(target));
    }

    /// The host connected and says that it runs this revision: what was sent but did not arrive is forgotten. Where
    /// the revision is not known here, so is everything. Was it known?
    pub fn reconnect(&mut self, host: &Name, revision: u64) -> bool {
        let running = self.hosts.remove(host).unwrap_or_default();
        let kept = running.kept.clone();
        let mut all = running
            .kept
            .into_iter()
            .chain(running.acknowledged)
            .chain(running.sent);
        let Some(runs) = all.rfind(|state| state.revision == revision) else {
            return false;
        };
        let running = Running {
            acknowledged: Some(runs),
            sent: Vec::new(),
            kept,
            settles: None,
            trial: running.trial,
        };
        self.hosts.insert(host.clone(), running);
        true
    }

    /// The host was sent this: what it has kept, it needs no more once it has this in force.
    pub fn send(&mut self, host: &Name, mut state: HostState) {
        hosts::sort(&mut state);
        let running = self.hosts.entry(host.clone()).or_default();
        if running.is_on_trial() {
            running.settles = Some(state.revision);
        }
        running.sent.push(state);
    }

    /// The host was sent this on trial: it goes back by itself to what it ran before that trial, unless it is sent
    /// something that is not on trial.
    pub fn send_on_trial(&mut self, host: &Name, mut state: HostState, trial: u64) {
        hosts::sort(&mut state);
        let running = self.hosts.entry(host.clone()).or_default();
        if running.trial != trial {
            running.keep();
            running.trial = trial;
        }
        running.settles = None;
        running.sent.push(state);
    }

    /// The host acknowledged a revision: one that it was sent, or one that it went back to. Returns what it runs
    /// since, unless it ran that already.
    pub fn acknowledge(&mut self, host: &Name, revision: u64) -> Option<&HostState> {
        let running = self.hosts.get_mut(host)?;
        let at = |states: &[HostState]| states.iter().rposition(|state| state.revision == revision);
        if let Some(at) = at(&running.sent) {
            running.acknowledged = running.sent.drain(..=at).next_back();
            if running.settles.is_some_and(|settles| settles <= revision) {
                running.kept.clear();
                running.settles = None;
            }
        } else {
            let back = at(&running.kept)?;
            running.acknowledged = running.kept.get(back).cloned();
            running.sent.clear();
            running.settles = None;
        }
        running.acknowledged.as_ref()
    }

    /// The host refused a revision, and stays with what it had.
    pub fn refuse(&mut self, host: &Name, revision: u64) {
        if let Some(running) = self.hosts.get_mut(host) {
            running.sent.retain(|state| state.revision != revision);
            if running.settles == Some(revision) {
                running.settles = None;
            }
        }
    }

    /// Whatever the host runs, it is not what was believed. What it may go back to stays.
    pub fn lose(&mut self, host: &Name) {
        if let Some(running) = self.hosts.get_mut(host) {
            running.acknowledged = None;
            running.sent.clear();
            running.settles = None;
        }
    }

    /// The host has left the cluster.
    pub fn forget(&mut self, host: &Name) {
        self.hosts.remove(host);
    }

    /// The hosts whose newest state is another than the one they should get now, revisions aside.
    pub fn outdated<'a>(
        &'a self,
        states: &'a BTreeMap<Name, HostState>,
    ) -> impl Iterator<Item = (&'a Name, &'a HostState)> {
        states.iter().filter(|(name, state)| {
            let newest = self.hosts.get(*name).and_then(Running::newest);
            newest.is_none_or(|newest| !unchanged(newest, state))
        })
    }

    /// May this host be using the number? Yes, where nothing is known of it.
    pub(super) fn may_use(&self, host: &Name, number: Number, names: &BTreeMap<NodeId, &Name>) -> bool {
        let Some(running) = self.hosts.get(host).filter(|running| running.newest().is_some()) else {
            return true;
        };
        let owner = number.node().and_then(|node| names.get(&node)).copied();
        let addresses = owner.map(|owner| self.addresses(owner)).unwrap_or_default();
        let own = owner.is_none_or(|owner| owner == host);
        running.states().any(|state| match number {
            Number::Label(_, label) if !own => {
                legs(state).any(|leg| leg.label == label && addresses.contains(&leg.address))
            }
            _ => own && uses(state, number),
        })
    }

    /// Every public address that a host has in what it may be running.
    fn addresses(&self, host: &Name) -> BTreeSet<Ipv4Addr> {
        let running = self.hosts.get(host).into_iter();
        running
            .flat_map(Running::states)
            .map(|state| state.node.public)
            .collect()
    }
}

/// A host's state with nothing in it.
fn blank(state: &HostState) -> HostState {
    HostState::blank(state.cluster.clone(), 0, state.node.clone())
}

/// The legs on which a host sends.
pub(super) fn legs(state: &HostState) -> impl Iterator<Item = &LegState> {
    let onward = state.slots.iter().filter_map(|slot| match &slot.action {
        SlotAction::Relay(leg) => Some(leg),
        SlotAction::Exit { .. } => None,
    });
    state.paths.iter().map(|path| &path.leg).chain(onward)
}

/// Whether a host's state has one of its own numbers, or a VNI.
fn uses(state: &HostState, number: Number) -> bool {
    let exits = || state.slots.iter().map(|slot| &slot.action);
    match number {
        Number::Vni(vni) => {
            state.ports.iter().any(|port| port.vni == vni)
                || state.vteps.iter().any(|vtep| vtep.vni == vni)
                || state.services.iter().any(|service| service.vni == vni)
                || health::targets(state).any(|(_, target)| target.target.is_in(vni))
        }
        Number::Label(_, label) => state.slots.iter().any(|slot| slot.label == label),
        Number::Path(_, index) => {
            state.paths.iter().any(|path| path.index == index)
                || exits().any(|exit| matches!(exit, SlotAction::Exit { twin, .. } if *twin == index))
        }
        Number::Pair(_, index) => {
            let to = Target::Pair(index);
            let mut targets = state.services.iter().flat_map(|service| &service.targets);
            state.pairs.iter().any(|pair| pair.index == index)
                || targets.any(|target| target.target == to)
                || exits().any(|exit| matches!(exit, SlotAction::Exit { answers, .. } if *answers == index))
        }
        Number::Window(_, index) => {
            exits().any(|exit| matches!(exit, SlotAction::Exit { window, .. } if *window == index))
        }
    }
}

/// Are two states the same, revisions aside?
#[must_use]
pub fn unchanged(a: &HostState, b: &HostState) -> bool {
    let HostState {
        cluster,
        revision: _,
        node,
        ports,
        endpoints,
        vteps,
        slots,
        paths,
        pairs,
        services,
        prefix_lists,
        announcements,
    } = a;
    (cluster, node, ports, endpoints) == (&b.cluster, &b.node, &b.ports, &b.endpoints)
        && (vteps, slots, paths) == (&b.vteps, &b.slots, &b.paths)
        && (pairs, services, prefix_lists) == (&b.pairs, &b.services, &b.prefix_lists)
        && announcements == &b.announcements
}
