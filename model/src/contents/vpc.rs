//! Ports, endpoints, VTEPs, and who may send.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use kuafu_pipeline::map::{Be32, Endpoint, EndpointKey, IpKey, Mac, NextHop, Port, Vtep, VtepKey};

use super::allocate::Numbers;
use super::error::{entry, fits, in_range};
use super::{Contents, Error, HostFacts, VXLAN_OVERHEAD, Waiting, underlay_mtu};
use crate::state::{HostState, PortState};

/// The least MTU of a port: what every IPv4 host takes (RFC 791).
const SMALLEST_PORT: u16 = 576;

/// Fills in what VPCs need.
pub(super) fn fill(
    contents: &mut Contents,
    neighbours: &mut Numbers<'_, IpAddr>,
    state: &HostState,
    host: &HostFacts,
    previous: &Contents,
) -> Result<(), Error> {
    ports(contents, state, host)?;
    remote_endpoints(contents, neighbours, state, host, previous)?;
    for (index, vtep) in state.vteps.iter().enumerate() {
        vni(&entry("vteps", index, "vni"), vtep.vni)?;
        contents.senders.insert(
            VtepKey {
                vni: vtep.vni,
                address: Be32::new(u32::from(vtep.address)),
            },
            1,
        );
    }
    fits("ports", contents.ports.len(), host.capacities.ports)?;
    fits("endpoints", contents.endpoints.len(), host.capacities.endpoints)?;
    fits("senders", contents.senders.len(), host.capacities.senders)
}

/// The host's own ports and their endpoints.
fn ports(contents: &mut Contents, state: &HostState, host: &HostFacts) -> Result<(), Error> {
    let mut names = BTreeSet::new();
    for (index, port) in state.ports.iter().enumerate() {
        vni(&entry("ports", index, "vni"), port.vni)?;
        if !names.insert(&port.interface) {
            return Err(Error::Repeated {
                field: entry("ports", index, "interface"),
                value: port.interface.clone(),
            });
        }
        let mtu = port_mtu(index, port, host)?;
        let Some(interface) = host.interfaces.get(&port.interface) else {
            contents.waiting.push(Waiting {
                port: port.name.clone(),
                interface: port.interface.clone(),
            });
            continue;
        };
        let (address, mac) = (v4(port.address), Mac::from_octets(port.mac));
        contents.ports.insert(
            *interface,
            Port {
                vni: port.vni,
                address,
                mac,
                mtu,
                spare: 0,
            },
        );
        let hop = NextHop::port(*interface);
        let key = EndpointKey::new(port.vni, address);
        endpoint(
            contents,
            entry("ports", index, "address"),
            key,
            Endpoint::new(hop, mac),
        )?;
        for served in &port.serves {
            let key = |at| EndpointKey::served(port.vni, u32::from(served.address), mac, at);
            let exact = served
                .ports
                .numbers()
                .map(|number| key((served.protocol, number)));
            // The address as a whole, which each of its ports says.
            let all = exact.chain([key((0, 0))]);
            contents
                .endpoints
                .extend(all.map(|key| (key, Endpoint::new(hop, mac))));
        }
    }
    Ok(())
}

/// The port's own MTU, or what the underlay leaves.
fn port_mtu(index: usize, port: &PortState, host: &HostFacts) -> Result<u16, Error> {
    let most = underlay_mtu(host).saturating_sub(VXLAN_OVERHEAD);
    let mtu = port.mtu.unwrap_or(most);
    in_range(
        entry("ports", index, "mtu"),
        u32::from(mtu),
        u32::from(SMALLEST_PORT)..=u32::from(most),
        &format!("{SMALLEST_PORT} to {most}, the underlay's MTU less {VXLAN_OVERHEAD}"),
    )?;
    Ok(mtu)
}

/// Endpoints on other hosts, and these hosts.
fn remote_endpoints(
    contents: &mut Contents,
    neighbours: &mut Numbers<'_, IpAddr>,
    state: &HostState,
    host: &HostFacts,
    previous: &Contents,
) -> Result<(), Error> {
    let known = previous
        .vteps
        .iter()
        .map(|(number, vtep)| (*number, Ipv4Addr::from(vtep.address.get())))
        .collect();
    let mut vteps = Numbers::new("vteps", &known, host.capacities.vteps);
    for (index, remote) in state.endpoints.iter().enumerate() {
        vni(&entry("endpoints", index, "vni"), remote.vni)?;
        let (key, mac) = (
            EndpointKey::new(remote.vni, v4(remote.address)),
            Mac::from_octets(remote.mac),
        );
        let value = Endpoint::new(NextHop::vtep(vteps.of(remote.host)?), mac);
        endpoint(contents, entry("endpoints", index, "address"), key, value)?;
    }
    for (number, address) in vteps.given() {
        let vtep = Vtep {
            address: Be32::new(u32::from(address)),
            neighbour: neighbours.of(address.into())?,
        };
        contents.vteps.insert(number, vtep);
    }
    Ok(())
}

/// Enters an endpoint, once.
fn endpoint(contents: &mut Contents, field: String, key: EndpointKey, value: Endpoint) -> Result<(), Error> {
    if contents.endpoints.insert(key, value).is_some() {
        let address = Ipv4Addr::from(key.address.low());
        return Err(Error::Repeated {
            field,
            value: format!("{address} in VNI {}", key.vni),
        });
    }
    Ok(())
}

/// Refuses what 24 bits do not hold.
pub(super) fn vni(field: &str, vni: u32) -> Result<(), Error> {
    in_range(field, vni, 1..=0x00ff_ffff, "1 to 16777215")
}

/// An address as part of a key.
pub(super) fn v4(address: Ipv4Addr) -> IpKey {
    IpKey::v4(u32::from(address))
}
