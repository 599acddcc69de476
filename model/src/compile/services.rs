//! Listeners: at their entries, and at their exits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::allocations::{CoupleKey, NodeId};
use super::demand::exits;
use super::hosts::World;
use crate::kinds::{Accelerator, Bandwidth, Kind, Listener, Name, ObjectRef, PoolAddress, Protocol};
use crate::state::{HostState, ServiceState, Target, TargetState};

/// What makes a listener one of its own on a host.
pub(super) type Key = (bool, u32, Ipv4Addr, u8, u16);

/// The key of a listener.
pub(super) fn key(service: &ServiceState) -> Key {
    (
        service.at_exit,
        service.vni,
        service.local,
        service.protocol,
        service.port,
    )
}

/// Adds each accelerator's listeners to its entries and its exits.
pub(super) fn add(world: &World<'_>, states: &mut BTreeMap<NodeId, HostState>) {
    for (name, accelerator) in world.intent.accelerators() {
        let Some(vni) = world.allocations.vni(&ObjectRef::new(Kind::Accelerator, name)) else {
            continue;
        };
        let one = One {
            world,
            vni,
            accelerator,
            exits: exits(world.intent, accelerator),
        };
        for address in world.intent.accelerated_addresses(accelerator) {
            for listener in &accelerator.spec.listeners {
                one.at_entry(states, address, *listener);
                // An entry that is an exit itself sends nothing to the others.
                if !one.exits.contains(&address.node) {
                    one.at_exits(states, address, *listener);
                }
            }
        }
    }
}

/// One accelerator.
struct One<'a> {
    world: &'a World<'a>,
    vni: u32,
    accelerator: &'a Accelerator,
    exits: BTreeSet<&'a Name>,
}

impl One<'_> {
    fn at_entry(&self, states: &mut BTreeMap<NodeId, HostState>, address: &PoolAddress, listener: Listener) {
        let id = self.world.allocations.node(&address.node);
        let Some((id, state)) = id.and_then(|id| states.get_mut(&id).map(|state| (id, state))) else {
            return;
        };
        let own = state.node.local == address.local.get();
        state.services.push(ServiceState {
            whole_address: !own,
            targets: self.entry_targets(id, &address.node),
            ..self.service(address, listener)
        });
    }

    /// Two entries behind different NATs may have the same local address: at an exit that is one listener.
    fn at_exits(&self, states: &mut BTreeMap<NodeId, HostState>, address: &PoolAddress, listener: Listener) {
        for exit in &self.exits {
            let id = self.world.allocations.node(exit);
            let Some(state) = id.and_then(|id| states.get_mut(&id)) else {
                continue;
            };
            let service = ServiceState {
                at_exit: true,
                targets: self.servers(),
                ..self.service(address, listener)
            };
            if state.services.iter().all(|other| key(other) != key(&service)) {
                state.services.push(service);
            }
        }
    }

    /// A listener without targets.
    fn service(&self, address: &PoolAddress, listener: Listener) -> ServiceState {
        let idle = self.accelerator.spec.idle_timeout;
        let (protocol, idle_timeout_s) = match listener.protocol {
            Protocol::Tcp => (6, idle.tcp_s.get()),
            Protocol::Udp => (17, idle.udp_s.get()),
        };
        ServiceState {
            vni: self.vni,
            name: self.accelerator.metadata.name.to_string(),
            at_exit: false,
            local: address.local.get(),
            public: address.public.get(),
            whole_address: false,
            protocol,
            port: listener.port.get(),
            idle_timeout_s,
            bandwidth_mbps: self.accelerator.spec.bandwidth_mbps.map(Bandwidth::get),
            targets: Vec::new(),
        }
    }

    /// The exits over pairs with a path, each with the same share; the servers themselves where there is none, or
    /// where the entry is an exit.
    fn entry_targets(&self, id: NodeId, entry: &Name) -> Vec<TargetState> {
        if self.exits.contains(entry) {
            return self.servers();
        }
        let share = self.share();
        let pairs = self.exits.iter().filter_map(|exit| self.living_pair(id, exit));
        let pairs: Vec<TargetState> = pairs
            .filter(|_| share > 0)
            .map(|pair| TargetState {
                weight: share,
                target: Target::Pair(pair),
            })
            .collect();
        if pairs.is_empty() { self.servers() } else { pairs }
    }

    /// The number at an entry of its pair to an exit, if that has a path.
    fn living_pair(&self, entry: NodeId, exit: &Name) -> Option<u32> {
        let exit = self.world.allocations.node(exit)?;
        let key = CoupleKey::new(entry, exit, self.accelerator.spec.class);
        let paths = self.world.demand.couples.get(&key)?;
        paths.primary.as_ref()?;
        let couple = self.world.allocations.couples.get(&key)?;
        let at = usize::from(key.ends[0] != entry);
        Some(couple.ends[at].pair)
    }

    /// The group's share, in percent.
    fn share(&self) -> u32 {
        let dials = self.accelerator.spec.groups.iter();
        dials.map(|group| u32::from(group.dial.get())).sum()
    }

    /// The servers of the accelerator's services.
    fn servers(&self) -> Vec<TargetState> {
        let services = self.world.intent.services();
        let groups = self.accelerator.spec.groups.iter();
        let groups = groups.filter(|group| group.dial.get() > 0);
        let targets = groups.filter_map(|group| Some((group, services.get(&group.service)?)));
        let servers = targets.flat_map(|(group, service)| {
            service.spec.targets.iter().map(|target| TargetState {
                weight: u32::from(group.dial.get()),
                target: Target::Server {
                    address: target.address.get(),
                    port: target.port.map(|port| port.get()),
                },
            })
        });
        servers.collect()
    }
}
