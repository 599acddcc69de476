//! Gives away numbers, labels and keys, and takes them back.

use std::collections::{BTreeMap, BTreeSet};

use super::allocations::{Couple, End, EpochKey, Leg, NodeId, Number, PathKey, Twins, Way};
use super::demand::Demand;
use super::{Allocations, CompileError, Input};
use crate::contents::Capacities;
use crate::kinds::{Kind, ObjectRef, Vni};

/// UDP source ports of legs begin here.
const FIRST_SOURCE_PORT: u16 = 49152;
/// How many source ports there are.
const SOURCE_PORTS: u16 = 16384;

/// Brings allocations to what the intent needs. What is there already stays as it is.
pub(super) fn allocate(
    input: &Input<'_>,
    allocations: &mut Allocations,
    random: &mut dyn FnMut() -> [u8; 16],
) -> Result<Demand, CompileError> {
    nodes(input, allocations)?;
    networks(input, allocations)?;
    legs(allocations, random);
    let demand = Demand::of(input, allocations);
    let mut free = Free::of(allocations);
    couples(&demand, allocations, &mut free)?;
    paths(&demand, allocations, &mut free)?;
    Ok(demand)
}

/// A node has its number for as long as it is declared and runs an agent.
fn nodes(input: &Input<'_>, allocations: &mut Allocations) -> Result<(), CompileError> {
    let declared = input.intent.nodes();
    allocations
        .nodes
        .retain(|name, _| declared.get(name).is_some_and(|node| node.spec.agent));
    for (name, _) in declared.iter().filter(|(_, node)| node.spec.agent) {
        if allocations.nodes.contains_key(name) {
            continue;
        }
        let next = allocations.last_node.checked_add(1);
        let next = next.ok_or_else(|| CompileError::NoNodeNumber { node: name.clone() })?;
        allocations.nodes.insert(name.clone(), next);
        allocations.last_node = next;
    }
    forget_nodes(allocations);
    Ok(())
}

/// Whatever was a number of a node that has left is nobody's now.
fn forget_nodes(allocations: &mut Allocations) {
    let present: BTreeSet<NodeId> = allocations.nodes.values().copied().collect();
    let here = |node: &NodeId| present.contains(node);
    allocations.legs.retain(|(from, to), _| here(from) && here(to));
    allocations
        .resting
        .retain(|number, _| number.node().is_none_or(|node| here(&node)));
}

/// A VNI means one VPC, accelerator or service that listens itself. Those that VPCs ask for come first; the others take
/// the lowest that is free.
fn networks(input: &Input<'_>, allocations: &mut Allocations) -> Result<(), CompileError> {
    let intent = input.intent;
    let vpcs = intent
        .vpcs()
        .iter()
        .map(|(name, vpc)| (ObjectRef::new(Kind::Vpc, name), vpc.spec.vni));
    let accelerators = intent.accelerators().keys();
    let accelerators = accelerators.map(|name| (ObjectRef::new(Kind::Accelerator, name), None));
    let services = intent
        .services()
        .iter()
        .filter(|(_, service)| service.spec.pool.is_some());
    let services = services.map(|(name, _)| (ObjectRef::new(Kind::Service, name), None));
    let wanted: BTreeMap<ObjectRef, Option<Vni>> = vpcs.chain(accelerators).chain(services).collect();

    let before = std::mem::take(&mut allocations.networks);
    let stays = |object: &ObjectRef, vni: Vni| match wanted.get(object) {
        Some(asked) => asked.is_none_or(|asked| asked == vni),
        None => false,
    };
    let everywhere: BTreeSet<NodeId> = allocations.nodes.values().copied().collect();
    for (object, vni) in before {
        if stays(&object, vni) {
            allocations.networks.insert(object, vni);
        } else if !everywhere.is_empty() {
            allocations
                .resting
                .insert(Number::Vni(vni.get()), everywhere.clone());
        }
    }
    let mut holders: BTreeMap<Vni, ObjectRef> = BTreeMap::new();
    holders.extend(
        allocations
            .networks
            .iter()
            .map(|(object, vni)| (*vni, object.clone())),
    );
    asked_for(&wanted, allocations, &mut holders)?;
    let mut vnis = Numbers::new(Vni::MIN.get(), Vni::MAX.get());
    vnis.taken.extend(holders.keys().map(|vni| vni.get()));
    vnis.taken
        .extend(allocations.resting.keys().filter_map(|number| match number {
            Number::Vni(vni) => Some(*vni),
            _ => None,
        }));
    for object in wanted.into_keys() {
        if allocations.networks.contains_key(&object) {
            continue;
        }
        let vni = vnis
            .take()
            .and_then(Vni::new)
            .ok_or_else(|| CompileError::NoVni {
                object: object.clone(),
            })?;
        allocations.networks.insert(object, vni);
    }
    Ok(())
}

/// Gives VPCs the VNIs that they ask for.
fn asked_for(
    wanted: &BTreeMap<ObjectRef, Option<Vni>>,
    allocations: &mut Allocations,
    holders: &mut BTreeMap<Vni, ObjectRef>,
) -> Result<(), CompileError> {
    for (object, vni) in wanted
        .iter()
        .filter_map(|(object, vni)| vni.map(|vni| (object, vni)))
    {
        match holders.get(&vni) {
            Some(holder) if holder == object => {}
            Some(holder) => {
                return Err(CompileError::VniTaken {
                    vpc: object.clone(),
                    vni,
                    holder: holder.clone(),
                });
            }
            None => {
                holders.insert(vni, object.clone());
                allocations.networks.insert(object.clone(), vni);
            }
        }
    }
    Ok(())
}

/// A leg for each ordered pair of nodes. Its source port follows from the receiver, so that a sender's differ.
fn legs(allocations: &mut Allocations, random: &mut dyn FnMut() -> [u8; 16]) {
    let nodes: Vec<NodeId> = allocations.nodes.values().copied().collect();
    let renewal = allocations.renewals;
    for from in &nodes {
        for to in nodes.iter().filter(|to| *to != from) {
            let leg = || Leg {
                source_port: FIRST_SOURCE_PORT + (to - 1) % SOURCE_PORTS,
                keys: vec![EpochKey::new(0, random())],
                renewal,
            };
            allocations.legs.entry((*from, *to)).or_insert_with(leg);
        }
    }
}

/// Pairs and windows at both ends.
fn couples(demand: &Demand, allocations: &mut Allocations, free: &mut Free) -> Result<(), CompileError> {
    let before = std::mem::take(&mut allocations.couples);
    for (key, couple) in before {
        if demand.couples.contains_key(&key) {
            allocations.couples.insert(key, couple);
            continue;
        }
        for (node, end) in key.ends.into_iter().zip(couple.ends) {
            allocations.rest(Number::Pair(node, end.pair), &[node]);
            allocations.rest(Number::Window(node, end.window), &[node]);
        }
    }
    for key in demand.couples.keys() {
        if allocations.couples.contains_key(key) {
            continue;
        }
        let mut end = |node| {
            Ok(End {
                pair: free.take(node, Sort::Pair)?,
                window: free.take(node, Sort::Window)?,
            })
        };
        let ends = [end(key.ends[0])?, end(key.ends[1])?];
        allocations.couples.insert(*key, Couple { ends });
    }
    Ok(())
}

/// Labels and numbers of all paths: a leg between every two nodes, and what couples take.
fn paths(demand: &Demand, allocations: &mut Allocations, free: &mut Free) -> Result<(), CompileError> {
    let mut nodes: Vec<NodeId> = allocations.nodes.values().copied().collect();
    nodes.sort_unstable();
    let mut wanted: BTreeSet<PathKey> = BTreeSet::new();
    for (at, first) in nodes.iter().enumerate() {
        wanted.extend(nodes[at + 1..].iter().map(|second| PathKey::leg(*first, *second)));
    }
    wanted.extend(demand.paths());

    let before = std::mem::take(&mut allocations.twins);
    for (key, twins) in before {
        if wanted.contains(&key) {
            allocations.twins.insert(key, twins);
            continue;
        }
        let reversed: Vec<NodeId> = key.nodes.iter().rev().copied().collect();
        rest_way(allocations, &key.nodes, &twins.there);
        rest_way(allocations, &reversed, &twins.back);
    }
    for key in wanted {
        if allocations.twins.contains_key(&key) {
            continue;
        }
        let reversed: Vec<NodeId> = key.nodes.iter().rev().copied().collect();
        let there = way(allocations, free, &key.nodes)?;
        let back = way(allocations, free, &reversed)?;
        allocations.twins.insert(key, Twins { there, back });
    }
    Ok(())
}

/// The numbers of one direction.
fn way(allocations: &mut Allocations, free: &mut Free, nodes: &[NodeId]) -> Result<Way, CompileError> {
    let mut labels = Vec::with_capacity(nodes.len() - 1);
    for node in &nodes[1..] {
        labels.push(free.take(*node, Sort::Label)?);
    }
    let index = free.take(nodes[0], Sort::Path)?;
    allocations.last_path += 1;
    Ok(Way {
        id: allocations.last_path,
        index,
        labels,
    })
}

/// Takes back the numbers of one direction: a label waits for its node and for the one before it on the path.
fn rest_way(allocations: &mut Allocations, nodes: &[NodeId], way: &Way) {
    allocations.rest(Number::Path(nodes[0], way.index), &[nodes[0]]);
    for (hop, label) in nodes.windows(2).zip(&way.labels) {
        allocations.rest(Number::Label(hop[1], *label), hop);
    }
}

impl Allocations {
    /// Lets a number rest until these nodes have let go of it. Those that have left the cluster have.
    fn rest(&mut self, number: Number, waits: &[NodeId]) {
        let present = |node: &NodeId| self.nodes.values().any(|id| id == node);
        if number.node().is_some_and(|node| !present(&node)) {
            return;
        }
        let waits: BTreeSet<NodeId> = waits.iter().filter(|node| present(node)).copied().collect();
        self.resting.insert(number, waits);
    }
}

/// A sort of a node's numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Label,
    Path,
    Pair,
    Window,
}

impl Sort {
    /// The highest number of a node, by what its maps hold; each sort begins at 1.
    fn last(self) -> u32 {
        let capacities = Capacities::default();
        let entries = match self {
            Self::Label => capacities.slots,
            Self::Path => capacities.paths,
            Self::Pair => capacities.pairs,
            Self::Window => capacities.windows,
        };
        entries - 1
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Label => "labels",
            Self::Path => "paths",
            Self::Pair => "pairs",
            Self::Window => "windows",
        }
    }
}

/// What is free of each node.
struct Free {
    of: BTreeMap<(NodeId, Sort), Numbers>,
    names: BTreeMap<NodeId, String>,
}

impl Free {
    /// What neither is in use nor rests.
    fn of(allocations: &Allocations) -> Self {
        let names = allocations.nodes.iter().map(|(name, id)| (*id, name.to_string()));
        let mut free = Self {
            of: BTreeMap::new(),
            names: names.collect(),
        };
        for (key, couple) in &allocations.couples {
            for (node, end) in key.ends.into_iter().zip(couple.ends) {
                free.taken(node, Sort::Pair, end.pair);
                free.taken(node, Sort::Window, end.window);
            }
        }
        for (key, twins) in &allocations.twins {
            let (first, last) = (key.nodes.first(), key.nodes.last());
            for (node, way) in [(first, &twins.there), (last, &twins.back)] {
                node.into_iter()
                    .for_each(|node| free.taken(*node, Sort::Path, way.index));
            }
            for (node, label) in key.nodes.iter().skip(1).zip(&twins.there.labels) {
                free.taken(*node, Sort::Label, *label);
            }
            for (node, label) in key.nodes.iter().rev().skip(1).zip(&twins.back.labels) {
                free.taken(*node, Sort::Label, *label);
            }
        }
        for number in allocations.resting.keys() {
            match *number {
                Number::Vni(_) => {}
                Number::Label(node, label) => free.taken(node, Sort::Label, label),
                Number::Path(node, index) => free.taken(node, Sort::Path, index),
                Number::Pair(node, index) => free.taken(node, Sort::Pair, index),
                Number::Window(node, index) => free.taken(node, Sort::Window, index),
            }
        }
        free
    }

    fn numbers(&mut self, node: NodeId, sort: Sort) -> &mut Numbers {
        self.of
            .entry((node, sort))
            .or_insert_with(|| Numbers::new(1, sort.last()))
    }

    fn taken(&mut self, node: NodeId, sort: Sort, number: u32) {
        self.numbers(node, sort).taken.insert(number);
    }

    fn take(&mut self, node: NodeId, sort: Sort) -> Result<u32, CompileError> {
        let taken = self.numbers(node, sort).take();
        taken.ok_or_else(|| CompileError::Full {
            node: self.names.get(&node).cloned().unwrap_or_default(),
            sort: sort.words(),
            count: sort.last(),
        })
    }
}

/// Numbers of which the lowest free one is taken next.
struct Numbers {
    taken: BTreeSet<u32>,
    next: u32,
    last: u32,
}

impl Numbers {
    const fn new(first: u32, last: u32) -> Self {
        Self {
            taken: BTreeSet::new(),
            next: first,
            last,
        }
    }

    fn take(&mut self) -> Option<u32> {
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        let number = self.next;
        (number <= self.last).then(|| {
            self.next += 1;
            number
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_no_more_numbers_than_its_maps_hold() {
        let mut allocations = Allocations::default();
        allocations.nodes.insert("osaka".parse().unwrap(), 7);
        let mut free = Free::of(&allocations);
        let mut refused = Vec::new();
        for sort in [Sort::Label, Sort::Path, Sort::Pair, Sort::Window] {
            assert!((1..=sort.last()).all(|number| free.take(7, sort) == Ok(number)));
            refused.push(free.take(7, sort).unwrap_err().to_string());
        }
        let of = |words| {
            format!(
                "node/osaka: its maps hold {words}, and all are in use; take entries, regions or classes off the \
                 listeners that it serves, or nodes out of the cluster"
            )
        };
        let words = ["65535 labels", "4095 paths", "2047 pairs", "2047 windows"];
        assert_eq!(refused, words.map(of));
    }
}
