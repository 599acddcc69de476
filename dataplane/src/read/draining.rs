//! Servers that get no new flows, and how many they still have.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use kuafu_model::HostState;
use kuafu_model::contents::direct_servers;
use kuafu_model::state::Target;
use kuafu_pipeline::header::tcp;
use kuafu_pipeline::map::{Be16, MemberKey, Phase};
use kuafu_proto::v1;

use super::View;
use crate::error::Result;

/// By which a client ends a connection.
const CLOSES: u64 = (tcp::FIN | tcp::RST) as u64;

/// After its first packet; what takes longer will begin anew, with another server.
const OPENS_WITHIN: Duration = Duration::from_secs(5);

/// By address and port.
type Counts = BTreeMap<(Ipv4Addr, u16), u64>;

/// The servers of this host that have no weight, and their flows.
pub(super) fn draining(view: &View<'_>) -> Result<Vec<v1::Draining>> {
    let mut counts = view.state.map(without_weight).unwrap_or_default();
    // Where nothing is drained, no table is read.
    if !counts.is_empty() {
        count_connections(view, &mut counts)?;
        count_tracked(view, &mut counts)?;
    }
    let server = |((address, port), flows): ((Ipv4Addr, u16), u64)| v1::Draining {
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
            let (Target::Server { address, .. } | Target::Direct { address, .. }) = target.target else {
                continue;
            };
            let port = target.target.port().unwrap_or(service.port);
            counts.insert((address, port), 0);
        }
    }
    counts
}

/// Rewritten ones.
fn count_connections(view: &View<'_>, counts: &mut Counts) -> Result<()> {
    view.maps.connections.for_each(|key, there| {
        if key.vni != 0 && there.flags.get() & CLOSES == 0 {
            let server = Ipv4Addr::from(there.destination.low());
            count(counts, server, there.destination_port);
        }
    })
}

/// Those of servers that answer clients themselves.
fn count_tracked(view: &View<'_>, counts: &mut Counts) -> Result<()> {
    let (clock, now) = (view.clock, view.clock.jiffies()?);
    // One that keeps its flows no longer may still stand in entries of those that are silent.
    let keeps = |vni, target| view.contents.members.contains_key(&MemberKey { vni, target });
    let servers = view.state.map(|state| direct_servers(state, view.contents));
    let servers = servers.unwrap_or_default();
    view.maps.tracked.for_each(|key, flow| {
        let (number, _) = flow.choice();
        let server = servers.get(&number).filter(|_| keeps(key.vni, number));
        let is_young = || clock.duration(now.saturating_sub(flow.last_packet())) < OPENS_WITHIN;
        let is_one = match flow.phase() {
            Phase::Open => true,
            Phase::HalfOpen => is_young(),
            Phase::Closed => false,
        };
        if let Some(server) = server.filter(|_| is_one) {
            count(counts, *server, key.destination_port);
        }
    })
}

fn count(counts: &mut Counts, address: Ipv4Addr, port: Be16) {
    if let Some(flows) = counts.get_mut(&(address, port.get())) {
        *flows += 1;
    }
}
