//! Accelerated flows, from the connections of the exit.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use kuafu_model::HostState;
use kuafu_model::state::ServiceState;
use kuafu_pipeline::map::{Be16, Connection, ConnectionKey, IpKey, NO_PATH};
use kuafu_proto::v1;

use super::{View, milliseconds};
use crate::error::Result;

/// The flows that this host is the exit of, those with the latest packets first; `limit` 0: all.
///
/// # Errors
/// `Io`.
pub fn flows(view: &View<'_>, limit: u32) -> Result<v1::Flows> {
    let mut to_servers = Vec::new();
    view.maps.connections.for_each(|key, value| {
        // What arrives from the backbone has a VNI; what a server sends has none.
        if key.vni != 0 {
            to_servers.push((key, value));
        }
    })?;
    to_servers.sort_by_key(|(_, value)| std::cmp::Reverse(value.last_packet.get()));
    let limit = match limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let truncated = to_servers.len() > limit;
    let (jiffies, names) = (view.clock.jiffies()?, Names::of(view.state));
    let mut flows = Vec::new();
    for (key, value) in to_servers.iter().take(limit) {
        let back = view.maps.connections.get(&answers(key, value))?;
        let mut flow = flow(view.node(), &names, (key, value), back.as_ref());
        let last = back.map_or(0, |back| back.last_packet.get());
        let last = last.max(value.last_packet.get());
        flow.idle_ms = milliseconds(view.clock.duration(jiffies.saturating_sub(last)));
        flows.push(flow);
    }
    Ok(v1::Flows { flows, truncated })
}

/// The key under which a server's answers arrive.
fn answers(key: &ConnectionKey, value: &Connection) -> ConnectionKey {
    ConnectionKey::new(
        0,
        [value.destination, value.source],
        [value.destination_port, value.source_port],
        key.protocol,
    )
}

fn flow(
    exit: &str,
    names: &Names<'_>,
    (key, value): (&ConnectionKey, &Connection),
    back: Option<&Connection>,
) -> v1::Flow {
    let entry = match value.pair() {
        NO_PATH => exit.to_owned(),
        pair => names
            .peers
            .get(&pair)
            .map_or_else(|| format!("pair {pair}"), |peer| (*peer).to_owned()),
    };
    v1::Flow {
        exit: exit.to_owned(),
        entry,
        accelerator: names.accelerator(key.vni),
        protocol: key.protocol,
        client: end(key.source, key.source_port),
        service: names.service(key),
        endpoint: end(value.destination, value.destination_port),
        source: end(value.source, value.source_port),
        packets_to_server: value.packets.get(),
        bytes_to_server: value.octets.get(),
        packets_to_client: back.map_or(0, |back| back.packets.get()),
        bytes_to_client: back.map_or(0, |back| back.octets.get()),
        idle_ms: 0,
    }
}

fn end(address: IpKey, port: Be16) -> String {
    SocketAddr::new(IpAddr::from(address), port.get()).to_string()
}

fn listed(service: &ServiceState) -> String {
    if service.own {
        format!("service/{}", service.name)
    } else {
        service.name.clone()
    }
}

/// What numbers are called.
#[derive(Default)]
struct Names<'s> {
    peers: HashMap<u32, &'s str>,
    /// Accelerators by their name, services by kind and name.
    accelerators: HashMap<u32, String>,
    publics: HashMap<IpAddr, IpAddr>,
}

impl<'s> Names<'s> {
    fn of(state: Option<&'s HostState>) -> Self {
        let Some(state) = state else {
            return Self::default();
        };
        let (pairs, services) = (&state.pairs, &state.services);
        Self {
            peers: pairs
                .iter()
                .map(|pair| (pair.index, pair.peer.as_str()))
                .collect(),
            accelerators: services
                .iter()
                .map(|service| (service.vni, listed(service)))
                .collect(),
            publics: services
                .iter()
                .map(|service| (service.local, service.public))
                .collect(),
        }
    }

    fn accelerator(&self, vni: u32) -> String {
        let name = self.accelerators.get(&vni);
        name.cloned().unwrap_or_else(|| format!("accelerator {vni}"))
    }

    /// The accelerated address and port, as people know them.
    fn service(&self, key: &ConnectionKey) -> String {
        let local = IpAddr::from(key.destination);
        let public = self.publics.get(&local).copied().unwrap_or(local);
        SocketAddr::new(public, key.destination_port.get()).to_string()
    }
}
