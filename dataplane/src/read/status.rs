//! How the host is.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_pipeline::map::PathState;
use kuafu_proto::v1;

use super::draining::draining;
use super::{View, milliseconds};
use crate::bpf::{LAYOUT, Maps};
use crate::error::Result;

/// Servers of a service that are named where they are down.
const NAMED: usize = 3;

/// How the host is: the state in force, programs, ports, paths, pairs, maps, and what is wrong.
///
/// # Errors
/// `Io`.
pub fn status(view: &View<'_>) -> Result<v1::HostStatus> {
    let (mut ports, mut paths, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(state) = view.state {
        ports = state.ports.iter().map(|port| port_status(view, port)).collect();
        let now = view.clock.jiffies()?;
        for path in &state.paths {
            paths.push(path_status(view, path, now)?);
        }
        for pair in &state.pairs {
            pairs.push(pair_status(view, pair, now)?);
        }
    }
    let servers = (view.servers)();
    Ok(v1::HostStatus {
        node: view.node().to_owned(),
        cluster: view.state.map(|state| state.cluster.clone()).unwrap_or_default(),
        revision: view.state.map_or(0, |state| state.revision),
        layout: LAYOUT,
        incarnation: view.incarnation,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        liveness: view.liveness,
        probing: Some(view.probing),
        programs: view.programs.to_vec(),
        faults: faults(view, &ports, &servers),
        ports,
        paths,
        pairs,
        maps: map_statuses(view)?,
        servers,
        draining: draining(view)?,
        announcements: (view.announcements)(),
    })
}

fn port_status(view: &View<'_>, port: &kuafu_model::state::PortState) -> v1::PortStatus {
    let mut programs = view.programs.iter();
    v1::PortStatus {
        name: port.name.clone(),
        vni: port.vni,
        address: port.address.to_string(),
        interface: port.interface.clone(),
        attached: programs.any(|program| program.interface == port.interface),
    }
}

fn path_status(view: &View<'_>, path: &kuafu_model::state::PathState, now: u64) -> Result<v1::PathStatus> {
    let live = view.maps.path_states.get(&path.index)?.unwrap_or_default();
    let measured = (view.measured)(path.index).unwrap_or_default();
    let last_echo = live.last_echo.get();
    Ok(v1::PathStatus {
        index: path.index,
        id: path.id,
        nodes: path.nodes.clone(),
        state: word(&live, now).to_owned(),
        sent: measured.sent,
        received: measured.received,
        rtt_p50_us: measured.rtt_p50_us,
        rtt_p90_us: measured.rtt_p90_us,
        rtt_ewma_us: measured.rtt_ewma_us,
        last_echo_ms: age_ms(view, last_echo, now),
    })
}

/// `down` until the agent clears it, `stale` without echoes, else `fresh`.
fn word(path: &PathState, now: u64) -> &'static str {
    if path.down.get() != 0 {
        "down"
    } else if path.is_stale(now) {
        "stale"
    } else {
        "fresh"
    }
}

fn pair_status(view: &View<'_>, pair: &kuafu_model::state::PairState, now: u64) -> Result<v1::PairStatus> {
    let live = view.maps.pair_states.get(&pair.index)?.unwrap_or_default();
    let primary = match pair.primary {
        Some(primary) => view.maps.path_states.get(&primary)?,
        None => None,
    };
    Ok(v1::PairStatus {
        index: pair.index,
        peer: pair.peer.clone(),
        class: pair.class.clone(),
        primary: pair.primary,
        backup: pair.backup,
        down: primary.is_some_and(|primary| primary.down.get() != 0),
        last_packet_ms: age_ms(view, live.last_packet.get(), now),
    })
}

/// Milliseconds since a time in jiffies, of which 0 says never.
fn age_ms(view: &View<'_>, then: u64, now: u64) -> Option<u64> {
    (then != 0).then(|| milliseconds(view.clock.duration(now.saturating_sub(then))))
}

/// Each fault once.
fn faults(view: &View<'_>, ports: &[v1::PortStatus], servers: &[v1::ServerStatus]) -> Vec<String> {
    let mut faults = view.faults.to_vec();
    faults.extend(services_with_servers_down(servers));
    let waiting = &view.contents.waiting;
    faults.extend(waiting.iter().map(|waiting| {
        format!(
            "port {} waits for its interface {}",
            waiting.port, waiting.interface
        )
    }));
    let unattached = ports.iter().filter(|port| !port.attached);
    let waits = |port: &&v1::PortStatus| waiting.iter().any(|waiting| waiting.port == port.name);
    faults.extend(
        unattached
            .filter(|port| !waits(port))
            .map(|port| format!("port {}: no program is attached to {}", port.name, port.interface)),
    );
    if view.state.is_some_and(|state| !state.paths.is_empty()) && !view.liveness {
        faults.push(
            "liveness: off: no probes are sent, so that no path is left (`kuafu probe` sends them)"
                .to_owned(),
        );
    }
    faults.sort();
    faults.dedup();
    faults
}

/// Each service of which a server is down, or cannot be asked.
fn services_with_servers_down(servers: &[v1::ServerStatus]) -> Vec<String> {
    let mut services: BTreeMap<&str, Vec<&v1::ServerStatus>> = BTreeMap::new();
    for server in servers {
        services.entry(&server.service).or_default().push(server);
    }
    let fault = |(service, asked): (&str, Vec<&v1::ServerStatus>)| {
        let is_down = |server: &&v1::ServerStatus| server.standing == "down";
        let (down, others): (Vec<_>, Vec<_>) = asked.into_iter().partition(is_down);
        // Asked at several ports, it is one.
        let count = |servers: &[&v1::ServerStatus]| {
            let addresses: BTreeSet<&str> = servers.iter().map(|server| server.address.as_str()).collect();
            addresses.len()
        };
        let all: Vec<_> = down.iter().chain(&others).copied().collect();
        let are_used = down.iter().any(|server| server.used);
        let mut faults = Vec::new();
        if !down.is_empty() {
            faults.push(format!(
                "service {service}: {} of {} servers down: {}{}",
                count(&down),
                count(&all),
                named(&down),
                if are_used {
                    "; they are used all the same, since too few serve"
                } else {
                    ""
                }
            ));
        }
        let unasked: Vec<_> = others
            .into_iter()
            .filter(|server| !server.reason.is_empty())
            .collect();
        if !unasked.is_empty() {
            faults.push(format!("service {service}: {}", named(&unasked)));
        }
        faults
    };
    services.into_iter().flat_map(fault).collect()
}

/// The first of them, and why.
fn named(servers: &[&v1::ServerStatus]) -> String {
    let name = |server: &&v1::ServerStatus| {
        let (address, asked, seconds) = (&server.address, &server.asked, server.since_ms / 1000);
        format!("{address} asked at {asked} ({}, for {seconds} s)", server.reason)
    };
    let names: Vec<String> = servers.iter().take(NAMED).map(name).collect();
    let more = match servers.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.join(", ") + &more
}

/// How full the maps are. Arrays count what is entered, not what was allocated.
fn map_statuses(view: &View<'_>) -> Result<Vec<v1::MapStatus>> {
    let (of, contents, maps) = (view.maps.capacities(), view.contents, view.maps);
    let rings = contents.rings.values().map(Vec::len).sum();
    let filled = [
        ("ports", contents.ports.len(), of.ports),
        ("endpoints", contents.endpoints.len(), of.endpoints),
        ("senders", contents.senders.len(), of.senders),
        ("vteps", contents.vteps.len(), of.vteps),
        ("neighbours", contents.neighbours.len(), of.neighbours),
        ("slots", contents.slots.len(), of.slots),
        ("paths", contents.paths.len(), of.paths),
        ("pairs", contents.pairs.len(), of.pairs),
        ("windows", contents.windows.len(), of.windows),
        ("own_windows", contents.own_windows.len(), of.own_windows),
        ("services", contents.services.len(), of.services),
        ("rings", rings, of.rings),
        ("targets", contents.targets.len(), of.targets),
        ("limits", contents.limits.len(), of.limits),
        ("shields", contents.shields.len(), of.shields),
        ("listed", contents.listed.len(), of.listed),
        ("connections", connections(maps)?, maps.connections.capacity()),
    ];
    let status = |(name, entries, capacity): (&str, usize, u32)| v1::MapStatus {
        name: name.to_owned(),
        entries: u64::try_from(entries).unwrap_or(u64::MAX),
        capacity: capacity.into(),
    };
    Ok(filled.map(status).into())
}

/// Directions of connections.
fn connections(maps: &Maps) -> Result<usize> {
    let mut count = 0;
    maps.connections.for_each(|_, _| count += 1)?;
    Ok(count)
}
