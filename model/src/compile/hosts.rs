//! Allocations to the states of hosts: slots, paths and pairs here, VPCs and listeners in files of their own.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use super::allocations::{CoupleKey, NodeId, PathKey, Way};
use super::demand::{Demand, path_of};
use super::{Allocations, Down, Holders, Input, NO_PAIR, announced, services, vpc};
use crate::kinds::{self, Name, Node, Service};
use crate::manifest::{Intent, Locations};
use crate::state::{Host, HostState, LegState, PairState, PathState, SlotAction, SlotState, Target};

/// The system VPC's addresses: this plus a node's number.
const OVERLAY: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

/// What states are made from.
pub(super) struct World<'a> {
    pub(super) intent: &'a Intent,
    pub(super) allocations: &'a Allocations,
    pub(super) demand: &'a Demand,
    pub(super) down: &'a Down,
    pub(super) holders: &'a Holders,
    /// Where targets of services are.
    pub(super) locations: Locations<'a>,
    /// Nodes with an agent, by their numbers.
    nodes: BTreeMap<NodeId, (&'a Name, &'a Node)>,
    /// The targets of services.
    targets: HashMap<&'a Name, Cow<'a, [kinds::Target]>>,
}

/// The states of all hosts with an agent.
pub(super) fn states(
    input: &Input<'_>,
    allocations: &Allocations,
    demand: &Demand,
) -> BTreeMap<Name, HostState> {
    let world = World::new(input, allocations, demand);
    let mut states: BTreeMap<NodeId, HostState> = world
        .nodes
        .iter()
        .map(|(id, (name, node))| (*id, empty(input, *id, name, node)))
        .collect();
    for (key, twins) in &allocations.twins {
        let ends = world.ends(key);
        let reversed: Vec<NodeId> = key.nodes.iter().rev().copied().collect();
        let arrival = |twin: &Way, end: (u32, u32)| SlotAction::Exit {
            twin: twin.index,
            window: end.0,
            answers: end.1,
        };
        world.lay(
            &mut states,
            &key.nodes,
            &twins.there,
            arrival(&twins.back, ends[1]),
        );
        world.lay(
            &mut states,
            &reversed,
            &twins.back,
            arrival(&twins.there, ends[0]),
        );
    }
    world.add_pairs(&mut states);
    vpc::add(&world, &mut states);
    services::add(&world, &mut states);
    announced::add(&world, &mut states);
    let named = states
        .into_iter()
        .filter_map(|(id, state)| Some((world.name(id)?.clone(), finished(state, &world, id))));
    named.collect()
}

/// A host that has nothing yet.
fn empty(input: &Input<'_>, id: NodeId, name: &Name, node: &Node) -> HostState {
    let host = Host {
        id,
        name: name.to_string(),
        local: node.spec.address.local.get(),
        public: node.spec.address.public.get(),
        overlay: Ipv4Addr::from(u32::from(OVERLAY) + u32::from(id)),
        udp_port: node.spec.udp_port.get(),
        nat_ports: None,
    };
    HostState::blank(input.cluster.to_owned(), input.revision, host)
}

/// Sorted, and with NAT where packets leave to servers.
fn finished(mut state: HostState, world: &World<'_>, id: NodeId) -> HostState {
    if sends_to_servers(&state) {
        let range = world.nodes.get(&id).map(|(_, node)| node.spec.nat_ports.get());
        state.node.nat_ports = range.map(|range| range.first().get()..=range.last().get());
    }
    sort(&mut state);
    state
}

/// Whether a listener leads from this host to a server.
pub(super) fn sends_to_servers(state: &HostState) -> bool {
    let mut targets = state.services.iter().flat_map(|service| &service.targets);
    targets.any(|target| matches!(target.target, Target::Server { .. }))
}

/// The order of everything in a state, so that equal states are equal.
pub(super) fn sort(state: &mut HostState) {
    state.ports.sort_by(|a, b| a.name.cmp(&b.name));
    state
        .endpoints
        .sort_by_key(|endpoint| (endpoint.vni, endpoint.address));
    state.vteps.sort_by_key(|vtep| (vtep.vni, vtep.address));
    state.slots.sort_by_key(|slot| slot.label);
    state.paths.sort_by_key(|path| path.index);
    state.pairs.sort_by_key(|pair| pair.index);
    state.services.sort_by_key(services::key);
    state.prefix_lists.sort_by(|a, b| a.name.cmp(&b.name));
    state.announcements.sort_by_key(|announcement| announcement.local);
}

impl<'a> World<'a> {
    fn new(input: &Input<'a>, allocations: &'a Allocations, demand: &'a Demand) -> Self {
        let intent = input.intent;
        let ids = allocations.nodes.iter();
        let nodes =
            ids.filter_map(|(name, id)| Some((*id, (name, intent.nodes().get(name).map(AsRef::as_ref)?))));
        Self {
            intent,
            allocations,
            demand,
            down: input.down,
            holders: input.holders,
            locations: Locations::new(intent),
            nodes: nodes.collect(),
            targets: intent.all_targets(),
        }
    }

    /// The targets of a service.
    pub(super) fn targets(&self, service: &Service) -> &[kinds::Target] {
        let targets = self.targets.get(&service.metadata.name);
        targets.map_or(&[], AsRef::as_ref)
    }

    pub(super) fn name(&self, id: NodeId) -> Option<&'a Name> {
        self.nodes.get(&id).map(|(name, _)| *name)
    }

    /// At both ends of a path: the window of what arrives there, and the pair that answers take.
    fn ends(&self, key: &PathKey) -> [(u32, u32); 2] {
        let couple = match (key.nodes.first(), key.nodes.last(), key.class) {
            (Some(first), Some(last), Some(class)) => {
                let key = CoupleKey::new(*first, *last, class);
                self.allocations.couples.get(&key)
            }
            _ => None,
        };
        let end = |at: usize| couple.map_or((NO_PAIR, NO_PAIR), |c| (c.ends[at].window, c.ends[at].pair));
        [end(0), end(1)]
    }

    /// Lays one direction of a path: the path at its first node, a slot at each of the others.
    fn lay(
        &self,
        states: &mut BTreeMap<NodeId, HostState>,
        nodes: &[NodeId],
        way: &Way,
        arrival: SlotAction,
    ) -> Option<()> {
        let hops = nodes.windows(2).zip(&way.labels);
        let legs: Option<Vec<LegState>> = hops
            .map(|(hop, label)| self.leg(hop[0], hop[1], *label))
            .collect();
        let mut legs = legs?.into_iter();
        let path = PathState {
            index: way.index,
            id: way.id,
            nodes: nodes
                .iter()
                .filter_map(|id| self.name(*id).map(Name::to_string))
                .collect(),
            leg: legs.next()?,
            near: self.are_near(nodes),
        };
        states.get_mut(nodes.first()?)?.paths.push(path);
        for (hop, label) in nodes.windows(2).zip(&way.labels) {
            let slot = SlotState {
                label: *label,
                source: self.public(hop[0])?,
                keys: self.leg(hop[0], hop[1], *label)?.keys,
                action: legs.next().map_or_else(|| arrival.clone(), SlotAction::Relay),
            };
            states.get_mut(&hop[1])?.slots.push(slot);
        }
        Some(())
    }

    /// Whether these are two nodes of a region.
    fn are_near(&self, nodes: &[NodeId]) -> bool {
        let region = |id: &NodeId| self.nodes.get(id).map(|(_, node)| &node.spec.region);
        matches!(nodes, [from, to] if region(from) == region(to))
    }

    /// A node's address, foreign or not, as another one sends to it: the public one, and to itself its own.
    pub(super) fn address_of(&self, node: &Name, from: &Name) -> Option<Ipv4Addr> {
        let address = self.intent.nodes().get(node)?.spec.address;
        let of_it = if node == from {
            address.local
        } else {
            address.public
        };
        Some(of_it.get())
    }

    fn public(&self, id: NodeId) -> Option<Ipv4Addr> {
        self.nodes
            .get(&id)
            .map(|(_, node)| node.spec.address.public.get())
    }

    /// The leg between two nodes, to a label of the second.
    fn leg(&self, from: NodeId, to: NodeId, label: u32) -> Option<LegState> {
        let (leg, (_, receiver)) = (self.allocations.legs.get(&(from, to))?, self.nodes.get(&to)?);
        Some(LegState {
            keys: leg.keys.iter().map(super::allocations::EpochKey::state).collect(),
            label,
            address: receiver.spec.address.public.get(),
            port: receiver.spec.udp_port.get(),
            source_port: leg.source_port,
        })
    }

    /// The pairs of both directions.
    fn add_pairs(&self, states: &mut BTreeMap<NodeId, HostState>) {
        for (key, paths) in &self.demand.couples {
            let Some(couple) = self.allocations.couples.get(key) else {
                continue;
            };
            for (at, node) in key.ends.into_iter().enumerate() {
                let index = |nodes: &Vec<NodeId>| {
                    let twins = self.allocations.twins.get(&path_of(key, nodes))?;
                    Some(if at == 0 {
                        twins.there.index
                    } else {
                        twins.back.index
                    })
                };
                let (Some(state), Some(peer)) = (states.get_mut(&node), self.name(key.ends[1 - at])) else {
                    continue;
                };
                state.pairs.push(PairState {
                    index: couple.ends[at].pair,
                    peer: peer.to_string(),
                    class: key.class.to_string(),
                    premium: self.demand.premium.contains(key),
                    duplicate: paths.duplicate,
                    primary: paths.primary.as_ref().and_then(index),
                    backup: paths.backup.as_ref().and_then(index),
                });
            }
        }
    }
}
