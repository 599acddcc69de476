//! The exact contents of every map of one host: its state, completed by what only the host itself knows.
//!
//! [`contents`] is pure, so that the agent, the tests and `kuafu explain` compile the same maps from the same state.
//! Numbers that it hands out (VTEPs, neighbours, targets, ranges of rings) stay what they were in the contents
//! before, and what one update frees is used again by a later one at the earliest: so [`Contents::update_from`] can
//! name an order in which no packet meets half a state.

mod allocate;
mod backbone;
mod balancer;
mod error;
mod limit;
mod lists;
pub mod ring;
mod service;
mod shield;
mod update;
mod vpc;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kuafu_pipeline::map::{
    Be16, Be32, Endpoint, EndpointKey, HopKind, IpKey, Limit, MemberKey, NextHop, NodeConfig, Pair, Path,
    Port, QuicServerKey, Service, ServiceKey, Shield, Slot, Vtep, VtepKey,
};

pub use balancer::{BalancedService, Balancer, balancer};
pub use error::Error;
pub use lists::{List, MOST_LISTS, fit as lists_fit};
pub use service::{Share, checked, direct_servers, marks, recovered};
pub use update::{Batch, NO_PAIR, Update};

use crate::health::Servers;
use crate::state::{Host, HostState};
use error::in_range;

/// Octets that VXLAN adds to an IP packet that it carries over IPv4.
pub const VXLAN_OVERHEAD: u16 = 50;
/// The smallest underlay MTU: every host takes packets of 576 octets (RFC 791), here with the backbone around them.
const SMALLEST_UNDERLAY: u32 = 576 + 60;

/// What only the host itself knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Interface number of the underlay.
    pub underlay: u32,
    /// The address from which packets go to servers of IPv6; `None`: the host has none.
    pub local6: Option<Ipv6Addr>,
    /// MTU of the underlay, octets of an IP packet; what is beyond 65,535 counts as that.
    pub underlay_mtu: u32,
    /// How often the host has lost its maps; counts modulo 16 from there on.
    pub incarnation: u32,
    /// Jiffies a second.
    pub hz: u64,
    /// Number of each interface that a port names; a port whose interface is missing waits for it.
    pub interfaces: BTreeMap<String, u32>,
    /// Interface number of `kuafu0`, by which the edge hands packets over to the port program; 0: there is none.
    pub hand_over: u32,
    /// How many entries the maps hold.
    pub capacities: Capacities,
    /// Jiffies since boot: how long a ring that is replaced still counts.
    pub now: u64,
    /// What health checks say.
    pub servers: Servers,
    /// The secret of this host's SYN cookies. One that changes costs those their effect that are under way.
    pub cookie_key: [u64; 2],
    /// How ARP requests are answered.
    pub arp: ArpFacts,
}

/// What only the host itself knows of the addresses for which it answers ARP requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArpFacts {
    /// The underlay's Ethernet address.
    pub mac: [u8; 6],
    /// Addresses that are not answered for, although the state says so.
    pub let_go: BTreeSet<IpAddr>,
}

/// Entries that each map holds. The default is what the object declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Ports.
    pub ports: u32,
    /// Endpoints of all VPCs, local and remote.
    pub endpoints: u32,
    /// Hosts that may send into a VPC, over all VPCs.
    pub senders: u32,
    /// Other hosts.
    pub vteps: u32,
    /// Neighbours, number 0 included.
    pub neighbours: u32,
    /// Labels.
    pub slots: u32,
    /// Paths, number 0 included.
    pub paths: u32,
    /// Pairs.
    pub pairs: u32,
    /// Replay windows.
    pub windows: u32,
    /// Windows of single paths, number 0 included.
    pub own_windows: u32,
    /// Listeners and whole addresses.
    pub services: u32,
    /// Slots of all rings together.
    pub rings: u32,
    /// Targets, number 0 included.
    pub targets: u32,
    /// Targets of all services, each counted for each of its services.
    pub members: u32,
    /// Servers that QUIC's connection ids name.
    pub quic_targets: u32,
    /// Accelerators with their limits, number 0 included.
    pub limits: u32,
    /// Shields, number 0 included.
    pub shields: u32,
    /// Prefixes of lists: each /24 and each single address that a longer or shorter one comes to.
    pub listed: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            ports: 4096,
            endpoints: 1_048_576,
            senders: 262_144,
            vteps: 4096,
            neighbours: 65_536,
            slots: 65_536,
            paths: 4096,
            pairs: 2048,
            windows: 2048,
            own_windows: 4096,
            services: 65_536,
            rings: 8_650_752,
            targets: 65_536,
            members: 262_144,
            quic_targets: 65_536,
            limits: 65_536,
            shields: 1024,
            listed: 1_048_576,
        }
    }
}

/// What the maps hold, by the pipeline's keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The host itself.
    pub node: NodeConfig,
    /// Ports, by the number of their host-side interface.
    pub ports: BTreeMap<u32, Port>,
    /// Endpoints, local and remote.
    pub endpoints: HashMap<EndpointKey, Endpoint>,
    /// Hosts that may send into a VPC; the value is 1.
    pub senders: HashMap<VtepKey, u32>,
    /// Other hosts, by number.
    pub vteps: BTreeMap<u32, Vtep>,
    /// For each neighbour's number the host that it must lead to: the agent finds gateway, interface and Ethernet
    /// addresses, and writes them.
    pub neighbours: BTreeMap<u32, IpAddr>,
    /// What labels mean.
    pub slots: BTreeMap<u32, Slot>,
    /// Windows that slots name.
    pub windows: BTreeSet<u32>,
    /// Windows of single paths, by number: whose they are, a slot's label and the pair's window there.
    pub own_windows: BTreeMap<u32, (u32, u32)>,
    /// Paths that begin here.
    pub paths: BTreeMap<u32, Path>,
    /// Pairs that begin here.
    pub pairs: BTreeMap<u32, Pair>,
    /// Listeners, and whole addresses.
    pub services: HashMap<ServiceKey, Service>,
    /// Rings: by their first slot the target's number in each slot.
    pub rings: BTreeMap<u32, Vec<u32>>,
    /// Targets, by number.
    pub targets: BTreeMap<u32, NextHop>,
    /// Which targets are whose, and what they take.
    pub members: HashMap<MemberKey, u32>,
    /// Targets, by the server's id in a connection id.
    pub quic_targets: HashMap<QuicServerKey, u32>,
    /// Limits of the accelerators that have a listener here, by number.
    pub limits: BTreeMap<u32, Limit>,
    /// Shields of the services that have one and a listener here, by number.
    pub shields: BTreeMap<u32, Shield>,
    /// The lists that shields name, by name: what the tables below are made of.
    pub lists: BTreeMap<String, List>,
    /// Of the lists that shields name, networks of 65,536 addresses: the bits of the lists that have all of it.
    pub list_areas: BTreeMap<u32, u32>,
    /// Their longer prefixes, as whole /24 or single addresses: the bits of all lists that have all of it.
    pub listed: HashMap<u64, u32>,
    /// A bit for each /24 of which [`listed`](Self::listed) has anything, 64 in a word.
    pub list_marks: BTreeMap<u32, u64>,
    /// Ports that were left out because their interface is not there yet.
    pub waiting: Vec<Waiting>,
}

/// A port that waits for its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The port's name.
    pub port: String,
    /// The interface's name.
    pub interface: String,
}

/// The maps' contents for a host's state.
///
/// Numbers already given in `previous` are kept. A port whose interface `host` does not know is left out, with its
/// endpoint, and listed in [`Contents::waiting`].
///
/// # Errors
/// [`Error`] names the field that the host cannot satisfy, its value, and what is allowed.
pub fn contents(state: &HostState, host: &HostFacts, previous: Option<&Contents>) -> Result<Contents, Error> {
    let empty = Contents::default();
    let previous = previous.unwrap_or(&empty);
    let mut contents = Contents {
        node: node(&state.node, host)?,
        ..Contents::default()
    };
    let mut neighbours =
        allocate::Numbers::new("neighbours", &previous.neighbours, host.capacities.neighbours);
    vpc::fill(&mut contents, &mut neighbours, state, host, previous)?;
    backbone::fill(&mut contents, &mut neighbours, state, host, previous)?;
    service::fill(&mut contents, &mut neighbours, state, host, previous)?;
    contents.neighbours = neighbours.given();
    Ok(contents)
}

/// The host itself.
fn node(node: &Host, host: &HostFacts) -> Result<NodeConfig, Error> {
    in_range(
        "node.local",
        u32::from(node.local),
        1..=u32::MAX,
        "an IPv4 address",
    )?;
    in_range(
        "node.overlay",
        u32::from(node.overlay),
        1..=u32::MAX,
        "an IPv4 address",
    )?;
    in_range(
        "node.udp_port",
        u32::from(node.udp_port),
        1..=0xffff,
        "1 to 65535",
    )?;
    if host.underlay_mtu < SMALLEST_UNDERLAY {
        return Err(Error::Underlay {
            mtu: host.underlay_mtu,
            least: SMALLEST_UNDERLAY,
        });
    }
    let (first_port, last_port) = match &node.nat_ports {
        None => (0, 0),
        Some(range) => (*range.start(), *range.end()),
    };
    if node.nat_ports.is_some() && (first_port == 0 || first_port > last_port) {
        return Err(Error::Value {
            field: "node.nat_ports".into(),
            value: format!("{first_port}-{last_port}"),
            allowed: "a range within 1 to 65535, or none".into(),
        });
    }
    Ok(NodeConfig {
        local: Be32::new(u32::from(node.local)),
        overlay: Be32::new(u32::from(node.overlay)),
        underlay: host.underlay,
        backbone_port: Be16::new(node.udp_port),
        first_port,
        last_port,
        mtu: underlay_mtu(host),
        incarnation: host.incarnation & 15,
        hand_over: host.hand_over,
        local6: host
            .local6
            .map(|address| IpKey::v6(address.octets()))
            .unwrap_or_default(),
        ..NodeConfig::default()
    })
}

/// The underlay's MTU, as far as an IPv4 packet reaches.
fn underlay_mtu(host: &HostFacts) -> u16 {
    u16::try_from(host.underlay_mtu).unwrap_or(u16::MAX)
}

impl Contents {
    /// Fills in the [windows of single paths](Self::own_windows) from the slots that name them: what an agent does that
    /// has read the other maps back after a restart.
    pub fn recover_own_windows(&mut self) {
        let of_slots = self.slots.iter().filter(|(_, slot)| slot.copies != 0);
        self.own_windows = of_slots
            .map(|(label, slot)| (slot.copies, (*label, slot.window)))
            .collect();
    }

    /// Fills in [`neighbours`](Self::neighbours) from the VTEPs, paths, relaying slots and targets that name them: what an
    /// agent does that has read the other maps back after a restart.
    pub fn recover_neighbours(&mut self) {
        let v4 = |address: Be32| IpAddr::from(Ipv4Addr::from(address.get()));
        let of_vteps = self.vteps.values().map(|vtep| (vtep.neighbour, v4(vtep.address)));
        let of_paths = self
            .paths
            .values()
            .map(|path| (path.leg.neighbour, v4(path.leg.address)));
        let of_slots = self
            .slots
            .values()
            .map(|slot| (slot.next.neighbour, v4(slot.next.address)));
        let direct = |hop: &&NextHop| matches!(hop.kind(), HopKind::Direct(_));
        let of_targets = self.targets.values().filter(direct);
        let of_targets = of_targets.map(|hop| {
            let on_v4 = hop.behind().map(|address| v4(Be32::new(address)));
            (hop.index, on_v4.unwrap_or_else(|| hop.address.into()))
        });
        self.neighbours = of_vteps
            .chain(of_paths)
            .chain(of_slots)
            .chain(of_targets)
            .filter(|(number, _)| *number != 0)
            .collect();
    }
}
