//! What each host gets now: make-before-break.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::fleet::{Fleet, Running, legs};
use super::hosts;
use super::services::{self, Key};
use crate::health;
use crate::kinds::Name;
use crate::state::{
    Encapsulation, Host, HostState, LegState, PairState, PathState, PortState, PrefixListState, Served,
    ServiceState, Shield, SlotAction, SlotState, Target, TargetState, VtepState,
};

/// The state that each host can be given now, on the way from what hosts may be running to where they should be.
///
/// To be called when the target changes and when a host has acknowledged something; the hosts of
/// [`Fleet::outdated`] are then sent theirs. When all of them have acknowledged, `next` is the target.
///
/// A host *has* something where it has acknowledged it and has been sent nothing without it since. A host *may send*
/// what any state sends that it may be running. Of the target a host gets everything, except that
///
/// 1. a relay's slot waits until the next node has its slot, and a path until its first relay or exit has its slot
///    (so exits come first, then relays from the far end on, then entries);
/// 2. a pair keeps its paths until the new primary is complete by rule 1, and an old path as its backup until the new
///    backup is;
/// 3. a leg is sent on under the keys that the host uses until the receiver's slot has the newest;
/// 4. at an entry, a listener leads only to pairs that have a path and whose exit has the listener, and to ports that
///    serve its address, and stays as it was while there is none.
///
/// And beside the target a host keeps
///
/// 5. a slot for as long as another host may send to it (so entries let go first, then relays, then exits), and what its
///    ports serve, and who may send there, likewise;
/// 6. paths that its pairs keep, pairs and lists that its listeners keep, and at an exit a listener for as long as an entry
///    may send to it.
///
/// What a host runs already is never taken from it by rules 1 to 4, and a host of which nothing is known gets its
/// target whole. Hosts that do not answer hold up only what depends on them. What a VPC's own ports need does not wait.
#[must_use]
pub fn next(fleet: &Fleet, target: &BTreeMap<Name, HostState>) -> BTreeMap<Name, HostState> {
    let surroundings = Surroundings::new(fleet, target);
    let step = |(name, wanted): (&Name, &HostState)| {
        let known = fleet.get(name).filter(|running| running.newest().is_some());
        let state = known.map_or_else(
            || wanted.clone(),
            |running| surroundings.step(name, wanted, running),
        );
        (name.clone(), state)
    };
    target.iter().map(step).collect()
}

/// States that are sent at once, each after all of the stage before are acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// By host; one that does not change is left out.
    pub states: BTreeMap<Name, HostState>,
}

/// The stages from `old` to `new` where every host answers: the steps of [`next`], one after the other. A host that
/// is not in `old` begins with an empty state.
#[must_use]
pub fn stages(old: &BTreeMap<Name, HostState>, new: &BTreeMap<Name, HostState>) -> Vec<Stage> {
    let mut fleet = Fleet::settled(old);
    for (name, state) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        fleet.begin(name, state);
    }
    let mut stages = Vec::new();
    loop {
        let now = next(&fleet, new);
        let states: BTreeMap<Name, HostState> = fleet
            .outdated(&now)
            .map(|(name, state)| (name.clone(), state.clone()))
            .collect();
        if states.is_empty() {
            return stages;
        }
        for (name, state) in &states {
            fleet.restore(name, state.clone());
        }
        stages.push(Stage { states });
    }
}

/// What a host's step depends on beside itself.
struct Surroundings<'a> {
    fleet: &'a Fleet,
    /// Who has a public address, now or in the target.
    holders: BTreeMap<Ipv4Addr, &'a Name>,
    /// Labels that a host may be sending to.
    sent_to: BTreeSet<(&'a Name, u32)>,
    /// Listeners of exits that an entry may be sending to.
    listened: BTreeSet<(&'a str, Key)>,
    /// What hosts may be sending to ports, with the public addresses of those that do.
    led: BTreeMap<Leading, BTreeSet<Ipv4Addr>>,
}

/// What a listener sends to a port of a VPC: the port's host, VPC and Ethernet address, and what it must serve.
type Leading = (Ipv4Addr, u32, [u8; 6], Served);

impl<'a> Surroundings<'a> {
    fn new(fleet: &'a Fleet, target: &'a BTreeMap<Name, HostState>) -> Self {
        let known = || {
            fleet
                .hosts()
                .flat_map(|(name, running)| running.states().map(move |state| (name, state)))
        };
        let all = target.iter().chain(known());
        let holders: BTreeMap<_, _> = all.map(|(name, state)| (state.node.public, name)).collect();
        let mut led: BTreeMap<Leading, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for (_, state) in known() {
            for leading in leading(state) {
                led.entry(leading).or_default().insert(state.node.public);
            }
        }
        let sent = known().flat_map(|(_, state)| legs(state));
        let sent_to = sent.filter_map(|leg| Some((*holders.get(&leg.address)?, leg.label)));
        Self {
            fleet,
            sent_to: sent_to.collect(),
            listened: known().flat_map(|(_, state)| exits_sent_to(state)).collect(),
            led,
            holders,
        }
    }

    /// Whether the receiver of a leg has its slot, with the newest key.
    fn is_complete(&self, leg: &LegState) -> bool {
        let receiver = self.holders.get(&leg.address);
        let running = receiver.and_then(|receiver| self.fleet.get(receiver));
        let knows = |state: &HostState| {
            slot(state, leg.label).is_some_and(|slot| slot.keys.last() == leg.keys.last())
        };
        running.is_some_and(|running| running.surely(knows))
    }

    /// Rules 1 and 3: the leg as the host may send on it now; `None`: not at all.
    fn leg(&self, wanted: &LegState, runs: Option<&LegState>) -> Option<LegState> {
        if self.is_complete(wanted) {
            return Some(wanted.clone());
        }
        let keys = runs?.keys.clone();
        Some(LegState {
            keys,
            ..wanted.clone()
        })
    }

    /// Whether an exit has a listener of an entry's.
    fn has_listener(&self, exit: &str, listener: &ServiceState) -> bool {
        let ours = services::at_exit(services::door(listener));
        let takes =
            |other: &ServiceState| services::door(other) == ours && other.ports.covers(listener.ports);
        let has = |state: &HostState| state.services.iter().any(takes);
        self.fleet.get_by(exit).is_some_and(|running| running.surely(has))
    }

    /// Whether a port serves what is sent there from a host, and takes it from there. Nobody tells of a foreign host's, and
    /// the sender's own come with the listener.
    fn is_served(&self, (host, vni, mac, served): Leading, from: &Host) -> bool {
        let takes = |state: &HostState| {
            let mut ports = state
                .ports
                .iter()
                .filter(|port| (port.vni, port.mac) == (vni, mac));
            let sender = VtepState {
                vni,
                address: from.public,
            };
            ports.any(|port| serves(port, &served)) && state.vteps.contains(&sender)
        };
        let Some(holder) = self.holders.get(&host).filter(|_| host != from.local) else {
            return true;
        };
        self.fleet
            .get(holder)
            .is_some_and(|running| running.surely(takes))
    }

    /// Rule 5: what the ports of a host serve beside `state`, and to whom, while others may send it there.
    fn keep_serving(&self, state: &mut HostState, runs: &HostState) {
        let own = state.node.public;
        let mut senders = BTreeSet::new();
        for old in runs.ports.iter().filter(|old| !old.serves.is_empty()) {
            let is_same = |port: &&mut PortState| (port.vni, port.mac) == (old.vni, old.mac);
            let Some(port) = state.ports.iter_mut().find(is_same) else {
                continue;
            };
            for served in &old.serves {
                let sending = self.led.get(&(own, old.vni, old.mac, *served));
                let mut others = sending
                    .into_iter()
                    .flatten()
                    .filter(|sender| **sender != own)
                    .peekable();
                if others.peek().is_some() && !serves(port, served) {
                    port.serves.push(*served);
                }
                senders.extend(others.map(|sender| (old.vni, *sender)));
            }
            port.serves.sort_unstable();
        }
        let kept =
            |vtep: &&VtepState| senders.contains(&(vtep.vni, vtep.address)) && !state.vteps.contains(vtep);
        let vteps: Vec<VtepState> = runs.vteps.iter().filter(kept).cloned().collect();
        state.vteps.extend(vteps);
    }

    /// The next state of a host that runs something.
    fn step(&self, name: &Name, wanted: &HostState, running: &'a Running) -> HostState {
        let Some(runs) = running.newest() else {
            return wanted.clone();
        };
        let mut state = HostState {
            slots: self.slots(name, wanted, runs),
            paths: self.paths(wanted, runs),
            pairs: Vec::new(),
            services: Vec::new(),
            ..wanted.clone()
        };
        state.pairs = pairs(wanted, runs, &state.paths);
        state.services = self.services(wanted, runs, &state.pairs);
        keep_what_is_named(&mut state, runs);
        self.keep_serving(&mut state, runs);
        if state.node.nat_ports.is_none() && hosts::sends_to_servers(&state) {
            state.node.nat_ports.clone_from(&runs.node.nat_ports);
        }
        hosts::sort(&mut state);
        state
    }

    /// Rules 1, 3 and 5.
    fn slots(&self, name: &Name, wanted: &HostState, runs: &HostState) -> Vec<SlotState> {
        let ready = |new: &SlotState| {
            let SlotAction::Relay(leg) = &new.action else {
                return Some(new.clone());
            };
            let old = slot(runs, new.label).and_then(|old| match &old.action {
                SlotAction::Relay(leg) => Some(leg),
                SlotAction::Exit { .. } => None,
            });
            let action = SlotAction::Relay(self.leg(leg, old)?);
            Some(SlotState {
                action,
                ..new.clone()
            })
        };
        let gone =
            |old: &&SlotState| slot(wanted, old.label).is_none() && self.sent_to.contains(&(name, old.label));
        let kept = runs.slots.iter().filter(gone).cloned();
        wanted.slots.iter().filter_map(ready).chain(kept).collect()
    }

    /// Rules 1 and 3.
    fn paths(&self, wanted: &HostState, runs: &HostState) -> Vec<PathState> {
        let ready = |new: &PathState| {
            let old = path(runs, new.index).filter(|old| old.id == new.id);
            let leg = self.leg(&new.leg, old.map(|old| &old.leg))?;
            Some(PathState { leg, ..new.clone() })
        };
        wanted.paths.iter().filter_map(ready).collect()
    }

    /// Rules 4 and 6.
    fn services(&self, wanted: &HostState, runs: &HostState, pairs: &[PairState]) -> Vec<ServiceState> {
        let mut now: Vec<ServiceState> = Vec::with_capacity(wanted.services.len());
        let mut waiting = Vec::new();
        for new in &wanted.services {
            let has_its_ports = |old: &&ServiceState| old.ports.covers(new.ports);
            let old = overlapping(runs, new).find(has_its_ports);
            let targets: Vec<TargetState> = new
                .targets
                .iter()
                .filter(|target| self.leads_on((new, &wanted.node), target, (old, pairs)))
                .cloned()
                .collect();
            let takes = |targets: &[TargetState]| targets.iter().any(|target| target.weight > 0);
            if !takes(&targets) && takes(&new.targets) {
                waiting.extend(overlapping(runs, new));
                continue;
            }
            now.push(ServiceState {
                targets,
                ..new.clone()
            });
        }
        let name = runs.node.name.as_str();
        let sent_to = |old: &&ServiceState| {
            overlapping(wanted, old).next().is_none() && self.listened.contains(&(name, services::key(old)))
        };
        let kept = runs.services.iter().filter(sent_to);
        for old in waiting.into_iter().chain(kept) {
            if !now.iter().any(|other| overlap(other, old)) {
                now.push(old.clone());
            }
        }
        now
    }

    /// Whether a listener may lead to a target now.
    fn leads_on(
        &self,
        (new, from): (&ServiceState, &Host),
        target: &TargetState,
        (old, pairs): (Option<&ServiceState>, &[PairState]),
    ) -> bool {
        let index = match target.target {
            Target::Pair(index) => index,
            Target::Direct {
                encapsulation: Encapsulation::Vxlan { vni, mac, host },
                ..
            } => {
                let has = |old: &ServiceState| old.targets.iter().any(|old| old.target == target.target);
                let Some(served) = served(new) else {
                    return true;
                };
                return old.is_some_and(has) || self.is_served((host, vni, mac, served), from);
            }
            Target::Server { .. } | Target::Direct { .. } => return true,
        };
        let Some(pair) = pairs
            .iter()
            .find(|pair| pair.index == index && pair.primary.is_some())
        else {
            return false;
        };
        let leads = |old: &ServiceState| old.targets.iter().any(|old| old.target == target.target);
        old.is_some_and(leads) || self.has_listener(&pair.peer, new)
    }
}

/// What a port must serve that a listener leads to: no VPC has IPv6.
const fn served(service: &ServiceState) -> Option<Served> {
    let IpAddr::V4(address) = service.local else {
        return None;
    };
    Some(Served {
        address,
        protocol: service.protocol,
        ports: service.ports,
    })
}

/// What a host sends to ports of VPCs.
fn leading(state: &HostState) -> impl Iterator<Item = Leading> {
    health::targets(state).filter_map(|(service, target)| match target.target {
        Target::Direct {
            encapsulation: Encapsulation::Vxlan { vni, mac, host },
            ..
        } => Some((host, vni, mac, served(service)?)),
        Target::Pair(_) | Target::Server { .. } | Target::Direct { .. } => None,
    })
}

/// Rule 2: a path of the target that the host gets now is complete.
fn pairs(wanted: &HostState, runs: &HostState, paths: &[PathState]) -> Vec<PairState> {
    let complete = |index: &u32| paths.iter().any(|path| path.index == *index);
    let pair_now = |new: &PairState| {
        let old = pair(runs, new.index);
        match (new.primary, old) {
            (Some(primary), _) if complete(&primary) => PairState {
                backup: new.backup.filter(complete).or_else(|| fallback(new, old)),
                ..new.clone()
            },
            (Some(_), Some(old)) => old.clone(),
            _ => PairState {
                primary: None,
                backup: None,
                ..new.clone()
            },
        }
    };
    wanted.pairs.iter().map(pair_now).collect()
}

/// What backs a pair up whose new backup is not complete: a path that it had.
fn fallback(new: &PairState, old: Option<&PairState>) -> Option<u32> {
    new.backup?;
    let had = [old?.backup, old?.primary];
    had.into_iter()
        .flatten()
        .find(|index| Some(*index) != new.primary)
}

/// Rule 6: what is kept keeps what it names.
fn keep_what_is_named(state: &mut HostState, runs: &HostState) {
    let targets = state.services.iter().flat_map(|service| &service.targets);
    let named: BTreeSet<u32> = targets
        .filter_map(|target| match target.target {
            Target::Pair(index) => Some(index),
            Target::Server { .. } | Target::Direct { .. } => None,
        })
        .collect();
    let kept = |old: &&PairState| named.contains(&old.index) && pair(state, old.index).is_none();
    let kept: Vec<PairState> = runs.pairs.iter().filter(kept).cloned().collect();
    state.pairs.extend(kept);
    let named: BTreeSet<u32> = state
        .pairs
        .iter()
        .flat_map(|pair| pair.primary.into_iter().chain(pair.backup))
        .collect();
    let kept = |old: &&PathState| named.contains(&old.index) && path(state, old.index).is_none();
    let kept: Vec<PathState> = runs.paths.iter().filter(kept).cloned().collect();
    state.paths.extend(kept);
    let shields = state
        .services
        .iter()
        .filter_map(|service| service.shield.as_ref());
    let named: BTreeSet<&str> = shields.flat_map(Shield::lists).collect();
    let has = |list: &PrefixListState| state.prefix_lists.iter().any(|now| now.name == list.name);
    let kept = |old: &&PrefixListState| named.contains(old.name.as_str()) && !has(old);
    let kept: Vec<PrefixListState> = runs.prefix_lists.iter().filter(kept).cloned().collect();
    state.prefix_lists.extend(kept);
}

/// The exits that an entry's listeners lead to, and the listeners there.
fn exits_sent_to(state: &HostState) -> impl Iterator<Item = (&str, Key)> {
    state.services.iter().flat_map(move |service| {
        let peers = service
            .targets
            .iter()
            .filter_map(move |target| match target.target {
                Target::Pair(index) => pair(state, index).map(|pair| pair.peer.as_str()),
                Target::Server { .. } | Target::Direct { .. } => None,
            });
        let (door, first) = services::key(service);
        peers.map(move |peer| (peer, (services::at_exit(door), first)))
    })
}

/// Whether two listeners of an object have a port in common.
fn overlap(one: &ServiceState, other: &ServiceState) -> bool {
    services::door(one) == services::door(other) && one.ports.overlaps(other.ports)
}

/// Those of a host's listeners that have ports of one.
fn overlapping<'s>(state: &'s HostState, one: &ServiceState) -> impl Iterator<Item = &'s ServiceState> {
    state.services.iter().filter(|other| overlap(one, other))
}

/// Whether a port serves that.
fn serves(port: &PortState, served: &Served) -> bool {
    port.serves.iter().any(|other| {
        (other.address, other.protocol) == (served.address, served.protocol)
            && other.ports.covers(served.ports)
    })
}

fn slot(state: &HostState, label: u32) -> Option<&SlotState> {
    let at = state.slots.binary_search_by_key(&label, |slot| slot.label);
    at.ok().and_then(|at| state.slots.get(at))
}

fn path(state: &HostState, index: u32) -> Option<&PathState> {
    state.paths.iter().find(|path| path.index == index)
}

fn pair(state: &HostState, index: u32) -> Option<&PairState> {
    state.pairs.iter().find(|pair| pair.index == index)
}
