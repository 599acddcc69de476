//! Addresses that hosts announce, and who of several nodes may hold one.

use std::collections::{BTreeMap, BTreeSet};

use super::Server;
use super::allocations::NodeId;
use super::hosts::World;
use crate::kinds::{
    AddressPoolSpec, BgpDaemon, BgpPeer, Carriers, Community, FilePath, HostIp, HostPrefix, Listener, Med,
    Multihop, Name, PoolAddress, Reach, Service,
};
use crate::manifest::Intent;
use crate::state::{Announcement, Bfd, Daemon, HostState, Router, Speaker, Way};

/// Who holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: Name,
    /// How often the address has moved.
    pub term: u64,
}

/// Who holds which address, by the public one.
pub type Holders = BTreeMap<HostIp, Holder>;

/// An address that one of several nodes holds, and who these are.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// The address as people know it.
    pub public: HostIp,
    /// The nodes, the preferred first.
    pub nodes: &'a Carriers,
    address: &'a PoolAddress,
    pool: &'a Name,
    intent: &'a Intent,
}

/// The addresses of which one node is the holder.
pub fn candidates(intent: &Intent) -> impl Iterator<Item = Candidates<'_>> {
    let pools = intent.address_pools().iter();
    let held = pools.filter(|(_, pool)| pool.spec.reach.has_holder());
    held.flat_map(move |(name, pool)| {
        pool.spec.addresses.iter().map(move |address| Candidates {
            public: address.public,
            nodes: &address.nodes,
            address,
            pool: name,
            intent,
        })
    })
}

impl Candidates<'_> {
    /// Whether a server serves behind the address as a node sees it from which these are down. Of an accelerator that is
    /// taken for true, and so it is where nothing listens.
    #[must_use]
    pub fn serves(&self, down: &BTreeSet<Server>) -> bool {
        if down.is_empty() {
            return true;
        }
        let mut accelerators = self.intent.accelerators().values();
        let is_accelerated = accelerators.any(|accelerator| {
            let mut addresses = self.intent.accelerated_addresses(accelerator);
            addresses.any(|address| address.public == self.address.public)
        });
        let services = self.intent.services().iter();
        let mut services = services
            .filter(|(_, service)| service.spec.pool.as_ref() == Some(self.pool))
            .peekable();
        is_accelerated
            || services.peek().is_none()
            || services.any(|(name, service)| has_one_up(self.intent, (name, service), down))
    }
}

/// Whether a server of a service is up where these are down.
fn has_one_up(intent: &Intent, (name, service): (&Name, &Service), down: &BTreeSet<Server>) -> bool {
    let targets = intent.targets(service);
    let listeners = service.spec.listeners.iter();
    let mut ends = listeners
        .flat_map(|Listener { ports, .. }| targets.iter().map(move |target| (target, ports.first())));
    ends.any(|(target, port)| {
        let server = Server {
            service: name.clone(),
            address: target.address,
            port: target.port.unwrap_or(port),
        };
        !down.contains(&server)
    })
}

/// Adds what hosts announce: an address with a holder to each node that may hold it, one of BGP to each of its nodes, and
/// of BGP a prefix as it is declared. A node that drains withdraws what it announces by BGP.
pub(super) fn add(world: &World<'_>, states: &mut BTreeMap<NodeId, HostState>) {
    let used = used(world.intent);
    for pool in world.intent.address_pools().values() {
        let Some(way) = way(&pool.spec) else { continue };
        for (entry, addresses) in pool.spec.by_entry() {
            // At one address of an entry something listens where it does at all of them.
            if !used.contains(&entry.public.first()) {
                continue;
            }
            if let Way::Bgp { .. } = way {
                announce(world, states, (&entry.nodes, entry.public, entry.local), &way);
            } else {
                for PoolAddress {
                    nodes, public, local, ..
                } in addresses
                {
                    announce(world, states, (nodes, (*public).into(), (*local).into()), &way);
                }
            }
        }
    }
}

/// The addresses at which something listens.
fn used(intent: &Intent) -> BTreeSet<HostIp> {
    let pools = intent
        .services()
        .values()
        .filter_map(|service| intent.address_pools().get(service.spec.pool.as_ref()?));
    let own = pools.flat_map(|pool| &pool.spec.addresses);
    let accelerated = intent
        .accelerators()
        .values()
        .flat_map(|accelerator| intent.accelerated_addresses(accelerator));
    own.chain(accelerated).map(|address| address.public).collect()
}

/// How the addresses of a pool are announced; `None`: somebody routes them.
fn way(pool: &AddressPoolSpec) -> Option<Way> {
    match pool.reach {
        Reach::Routed => None,
        Reach::Arp => Some(Way::Arp),
        Reach::Hook => pool.hook.as_ref().map(|hook| Way::Hook {
            command: hook.command.to_string(),
            timeout_s: hook.timeout_s.get().into(),
        }),
        Reach::Bgp => pool.bgp.as_ref().map(|bgp| Way::Bgp {
            speaker: Speaker {
                daemon: match bgp.daemon {
                    BgpDaemon::Gobgp => Daemon::Gobgp,
                    BgpDaemon::Frr => Daemon::Frr {
                        bfd: bgp.bfd.map(|bfd| Bfd {
                            interval_ms: bfd.interval_ms.get().into(),
                            multiplier: bfd.multiplier.get().into(),
                        }),
                    },
                },
                number: bgp.number.get(),
                peers: bgp.peers.iter().map(peer).collect(),
                port: bgp.port.get(),
            },
            communities: bgp.communities.iter().map(Community::to_string).collect(),
            med: bgp.med.map(Med::get),
        }),
    }
}

fn peer(peer: &BgpPeer) -> Router {
    Router {
        address: peer.address.get(),
        number: peer.number.get(),
        multihop: peer.multihop.map(Multihop::get),
        password_file: peer.password_file.as_ref().map(FilePath::to_string),
    }
}

fn announce(
    world: &World<'_>,
    states: &mut BTreeMap<NodeId, HostState>,
    (nodes, public, local): (&Carriers, HostPrefix, HostPrefix),
    way: &Way,
) {
    let (holder, length) = (world.holders.get(&public.first()), public.length());
    let (local, public) = (local.first().get(), public.first().get());
    let holds = |node: &Name| match holder.filter(|holder| nodes.contains(&holder.node)) {
        Some(holder) => holder.node == *node,
        None => nodes.preferred() == node,
    };
    let drains = |node: &Name| {
        let node = world.intent.nodes().get(node);
        node.is_some_and(|node| node.spec.drain)
    };
    for node in nodes.iter() {
        let id = world.allocations.node(node);
        let Some(state) = id.and_then(|id| states.get_mut(&id)) else {
            continue;
        };
        let (here, term) = match way {
            Way::Bgp { .. } => (!drains(node), 0),
            Way::Arp | Way::Hook { .. } => (holds(node), holder.map_or(0, |holder| holder.term)),
        };
        state.announcements.push(Announcement {
            local,
            public,
            length,
            here,
            term,
            way: way.clone(),
        });
    }
}
