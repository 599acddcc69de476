//! VPCs: ports, endpoints elsewhere, and the hosts that may send.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::allocations::NodeId;
use super::hosts::World;
use crate::kinds::{Kind, Name, ObjectRef, Port};
use crate::state::{HostState, PortState, RemoteEndpoint, VtepState};

/// Adds each VPC to the hosts that have ports of it.
pub(super) fn add(world: &World<'_>, states: &mut BTreeMap<NodeId, HostState>) {
    let mut by_vpc: BTreeMap<&Name, Vec<&Port>> = BTreeMap::new();
    for port in world.intent.ports().values() {
        by_vpc.entry(&port.spec.vpc).or_default().push(port);
    }
    for (vpc, ports) in by_vpc {
        let Some(vni) = world.allocations.vni(&ObjectRef::new(Kind::Vpc, vpc)) else {
            continue;
        };
        let hosts: BTreeSet<&Name> = ports.iter().map(|port| &port.spec.node).collect();
        for host in &hosts {
            let id = world.allocations.node(host);
            if let Some(state) = id.and_then(|id| states.get_mut(&id)) {
                add_to_host(world, state, host, (vni, &ports, &hosts));
            }
        }
    }
}

/// Adds one VPC, its ports and the hosts of its ports to a host that has some of the ports.
fn add_to_host(
    world: &World<'_>,
    state: &mut HostState,
    host: &Name,
    (vni, ports, hosts): (u32, &[&Port], &BTreeSet<&Name>),
) {
    for port in ports {
        if port.spec.node == *host {
            state.ports.extend(port_state(world, vni, port));
        } else {
            state.endpoints.extend(endpoint(world, vni, port));
        }
    }
    let others = hosts.iter().filter(|other| **other != host);
    let vtep = |address| VtepState { vni, address };
    state
        .vteps
        .extend(others.filter_map(|other| public(world, other).map(vtep)));
}

fn port_state(world: &World<'_>, vni: u32, port: &Port) -> Option<PortState> {
    let vpc = world.intent.vpcs().get(&port.spec.vpc)?;
    Some(PortState {
        name: port.metadata.name.to_string(),
        vni,
        address: port.spec.address.get(),
        mac: port.spec.mac().octets(),
        interface: port.spec.interface.as_ref()?.as_str().to_owned(),
        mtu: port.spec.mtu.or(vpc.spec.mtu).map(|mtu| mtu.get()),
    })
}

fn endpoint(world: &World<'_>, vni: u32, port: &Port) -> Option<RemoteEndpoint> {
    Some(RemoteEndpoint {
        vni,
        address: port.spec.address.get(),
        mac: port.spec.mac().octets(),
        host: public(world, &port.spec.node)?,
    })
}

/// A host's public address, foreign or not.
fn public(world: &World<'_>, node: &Name) -> Option<Ipv4Addr> {
    let node = world.intent.nodes().get(node)?;
    Some(node.spec.address.public.get())
}
