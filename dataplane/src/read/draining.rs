//! Servers' flows: of those that get no new ones, and of services that scale.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kuafu_model::HostState;
use kuafu_model::contents::{Contents, direct_servers};
use kuafu_model::health;
use kuafu_pipeline::header::tcp;
use kuafu_pipeline::map::{Be16, ConnectionKey, MemberKey, Phase};
use kuafu_proto::v1;

use super::View;
use crate::bpf::{Clock, Maps};
use crate::error::Result;
use crate::listeners::Listeners;

/// By which a client ends a connection.
const CLOSES: u64 = (tcp::FIN | tcp::RST) as u64;

/// After its first packet; what takes longer will begin anew, with another server.
const OPENS_WITHIN: Duration = Duration::from_secs(5);

/// By address and port.
type Counts = BTreeMap<(IpAddr, u16), u64>;

/// The servers of this host that have no weight, and their flows.
pub(super) fn draining(view: &View<'_>) -> Result<Vec<v1::Draining>> {
    let mut counts = view.state.map(without_weight).unwrap_or_default();
    // Where nothing is drained, no table is read.
    if let Some(state) = view.state.filter(|_| !counts.is_empty()) {
        each_flow(
            view.maps,
            view.clock,
            (state, view.contents),
            |_, address, ports| {
                let mut names = ports.into_iter().map(|port| (address, port));
                if let Some(name) = names.find(|name| counts.contains_key(name)) {
                    *counts.entry(name).or_default() += 1;
                }
            },
        )?;
    }
    let server = |((address, port), flows): ((IpAddr, u16), u64)| v1::Draining {
        address: address.to_string(),
        port: port.into(),
        flows,
    };
    Ok(counts.into_iter().map(server).collect())
}

fn without_weight(state: &HostState) -> Counts {
    let mut counts = Counts::new();
    for service in &state.services {
        for target in service.targets.iter().filter(|target| target.weight == 0) {
            let Some(address) = target.target.server() else {
                continue;
            };
            let port = service.port_of(&target.target);
            counts.insert((address, port), 0);
        }
    }
    counts
}

/// Every open flow with a server: of which listener's number, the server's address, and ports by the first of which the
/// server may be [named](kuafu_model::state::ServiceState::port_of): the flow's, else the listener's first.
pub(crate) fn each_flow(
    maps: &Maps,
    clock: &Clock,
    (state, contents): (&HostState, &Contents),
    mut count: impl FnMut(u32, IpAddr, [u16; 2]),
) -> Result<()> {
    let listeners = Listeners::of(state, |_| ());
    let ports = |key: &ConnectionKey, port: Be16| {
        let (own, first) = (
            port.get(),
            listeners.at(key).map(|(ports, ())| ports.first().get()),
        );
        [own, first.unwrap_or(own)]
    };
    // Rewritten ones.
    maps.connections.for_each(|key, there| {
        if key.vni != 0 && there.flags.get() & CLOSES == 0 {
            let server = IpAddr::from(there.destination);
            count(key.vni, server, ports(&key, there.destination_port));
        }
    })?;
    // Those of servers that answer clients themselves.
    let now = clock.jiffies()?;
    // One that keeps its flows no longer may still stand in entries of those that are silent.
    let keeps = |vni, target| contents.members.contains_key(&MemberKey { vni, target });
    let servers = direct_servers(state, contents);
    maps.tracked.for_each(|key, flow| {
        let (number, _) = flow.choice();
        let server = servers.get(&number).filter(|_| keeps(key.vni, number));
        let is_young = || clock.duration(now.saturating_sub(flow.last_packet())) < OPENS_WITHIN;
        let is_one = match flow.phase() {
            Phase::Open => true,
            Phase::HalfOpen => is_young(),
            Phase::Closed => false,
        };
        if let Some(server) = server.filter(|_| is_one) {
            count(key.vni, *server, ports(&key, key.destination_port));
        }
    })
}

/// A server that several services may have behind one accelerator: its flows count for each of them.
#[derive(Default)]
struct Shared {
    services: BTreeSet<Arc<str>>,
    flows: u64,
}

/// The servers of services that scale, each with its open flows; nothing where there is none.
pub(crate) fn scaled(
    maps: &Maps,
    clock: &Clock,
    contents: &Contents,
    state: &HostState,
) -> Result<Vec<v1::ServerFlows>> {
    let mut servers: BTreeMap<(u32, IpAddr, u16), Shared> = BTreeMap::new();
    for (service, target) in health::targets(state) {
        if let (Some(address), Some(counted)) = (target.target.server(), &target.counted) {
            let port = service.port_of(&target.target);
            let shared = servers.entry((service.vni, address, port)).or_default();
            shared.services.insert(Arc::clone(counted));
        }
    }
    // Where nothing is counted, no table is read.
    if !servers.is_empty() {
        each_flow(maps, clock, (state, contents), |vni, address, ports| {
            let mut names = ports.into_iter().map(|port| (vni, address, port));
            if let Some(name) = names.find(|name| servers.contains_key(name)) {
                servers.entry(name).or_default().flows += 1;
            }
        })?;
    }
    // One server may be behind several listeners.
    let mut flows: BTreeMap<(Arc<str>, IpAddr, u16), u64> = BTreeMap::new();
    for ((_, address, port), shared) in servers {
        for service in shared.services {
            *flows.entry((service, address, port)).or_default() += shared.flows;
        }
    }
    let server = |((service, address, port), flows): ((Arc<str>, IpAddr, u16), u64)| v1::ServerFlows {
        server: Some(v1::Server {
            service: service.to_string(),
            address: address.to_string(),
            port: port.into(),
        }),
        flows,
    };
    Ok(flows.into_iter().map(server).collect())
}
