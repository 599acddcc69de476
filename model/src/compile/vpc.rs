//! VPCs: ports, endpoints elsewhere, and the hosts that may send.

use super::allocations::NodeId;
use super::hosts::World;
use crate::kinds::{HostAddress, Kind, Mode, Name, ObjectRef, Port, PortRange, Service};
use crate::state::{HostState, PortState, RemoteEndpoint, Served, VtepState};
use std::collections::{BTreeMap, BTreeSet};

/// Adds each VPC to the hosts that have ports of it.
pub(super) fn add(world: &World<'_>, states: &mut BTreeMap<NodeId, HostState>) {
    let mut by_vpc: BTreeMap<&Name, Vec<&Port>> = BTreeMap::new();
    for port in world.intent.ports().values() {
        by_vpc.entry(&port.spec.vpc).or_default().push(port);
    }
    let mut served = served(world);
    for (vpc, ports) in by_vpc {
        let Some(vni) = world.allocations.vni(&ObjectRef::new(Kind::Vpc, vpc)) else {
            continue;
        };
        let one = One {
            world,
            vni,
            hosts: ports.iter().map(|port| &port.spec.node).collect(),
            served: served.remove(vpc).unwrap_or_default(),
            ports,
        };
        for host in &one.hosts {
            let id = world.allocations.node(host);
            if let Some(state) = id.and_then(|id| states.get_mut(&id)) {
                one.add_to_host(state, host);
            }
        }
    }
}

/// What services have of a VPC.
#[derive(Default)]
struct OfServices<'a> {
    /// What clients, and checks, reach at a port, by the port's own address.
    by_port: BTreeMap<HostAddress, BTreeSet<Served>>,
    /// The nodes that send there.
    senders: BTreeSet<&'a Name>,
}

/// What services have of VPCs.
fn served<'a>(world: &World<'a>) -> BTreeMap<&'a Name, OfServices<'a>> {
    let mut all: BTreeMap<&Name, OfServices<'_>> = BTreeMap::new();
    let services = world.intent.services().values();
    for service in services.filter(|service| service.spec.mode == Mode::Vxlan) {
        let (Some(vpc), Some(pool)) = (&service.spec.vpc, &service.spec.pool) else {
            continue;
        };
        let pool = world.intent.address_pools().get(pool).into_iter();
        let served = all.entry(vpc).or_default();
        served.senders.extend(
            pool.clone()
                .flat_map(|pool| &pool.spec.entries)
                .flat_map(|entry| entry.nodes.iter()),
        );
        for address in pool.flat_map(|pool| &pool.spec.addresses) {
            for target in world.targets(service) {
                let (Some(port), Some(of)) = (target.address.v4(), address.local.v4()) else {
                    continue;
                };
                let of_port = served.by_port.entry(port).or_default();
                of_port.extend(ends(service).map(|(protocol, ports)| Served {
                    address: of.get(),
                    protocol,
                    ports,
                }));
            }
        }
    }
    all
}

/// The ports of a service's listeners, and that of its check.
fn ends(service: &Service) -> impl Iterator<Item = (u8, PortRange)> {
    let listeners = service.spec.listeners.iter();
    let listeners = listeners.map(|listener| (listener.protocol.number(), listener.ports));
    let health = service.spec.health.as_ref();
    let check = health.and_then(|health| Some((health.protocol().number(), health.port?.into())));
    listeners.chain(check)
}

/// One VPC.
struct One<'a> {
    world: &'a World<'a>,
    vni: u32,
    ports: Vec<&'a Port>,
    /// The hosts of its ports.
    hosts: BTreeSet<&'a Name>,
    served: OfServices<'a>,
}

impl One<'_> {
    /// Adds ports, and the hosts that may send to them, to a host that has some of the ports. It sends to itself where a
    /// service does.
    fn add_to_host(&self, state: &mut HostState, host: &Name) {
        for port in &self.ports {
            if port.spec.node == *host {
                state.ports.extend(self.port(port));
            } else {
                state.endpoints.extend(self.endpoint(port, host));
            }
        }
        let others = self.hosts.iter().filter(|other| **other != host);
        let senders: BTreeSet<&Name> = others.chain(&self.served.senders).copied().collect();
        let vtep = |address| VtepState {
            vni: self.vni,
            address,
        };
        let addresses = senders
            .into_iter()
            .filter_map(|sender| self.world.address_of(sender, host));
        state.vteps.extend(addresses.map(vtep));
    }

    fn port(&self, port: &Port) -> Option<PortState> {
        let vpc = self.world.intent.vpcs().get(&port.spec.vpc)?;
        let serves = self.served.by_port.get(&port.spec.address);
        Some(PortState {
            name: port.metadata.name.to_string(),
            vni: self.vni,
            address: port.spec.address.get(),
            mac: port.spec.mac().octets(),
            interface: port.spec.interface.as_ref()?.as_str().to_owned(),
            mtu: port.spec.mtu_in(vpc).map(|mtu| mtu.get()),
            serves: serves.into_iter().flatten().copied().collect(),
        })
    }

    fn endpoint(&self, port: &Port, from: &Name) -> Option<RemoteEndpoint> {
        Some(RemoteEndpoint {
            vni: self.vni,
            address: port.spec.address.get(),
            mac: port.spec.mac().octets(),
            host: self.world.address_of(&port.spec.node, from)?,
        })
    }
}
