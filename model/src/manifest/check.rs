//! Do objects agree with each other? One function for each kind; its doc comment is its specification.

mod services;

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use super::error::{Conflict, nearest_object};
use super::intent::Intent;
use super::locations::Locations;
use crate::contents::ring::MOST_TARGETS;
use crate::kinds::{
    Accelerator, AddressPool, HostAddress, HostIp, HostPrefix, InterfaceName, Kind, Mac, Mode, Name, Node,
    ObjectRef, PoolEntry, Port, Reach, Target, Vni, Vpc,
};

/// An object and one of its fields, such as `spec.addresses[0].node`.
pub(super) type FieldOf = (ObjectRef, Cow<'static, str>);

/// Objects that do not agree.
pub(super) struct Violation {
    /// What is wrong.
    pub(super) subject: FieldOf,
    /// What else may have changed to make it so.
    pub(super) because: Vec<FieldOf>,
    pub(super) conflict: Conflict,
}

impl Violation {
    pub(super) fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        std::iter::once(&self.subject)
            .chain(&self.because)
            .map(|(object, _)| object)
    }
}

/// Everything in an intent that does not agree. Of two claims to one thing, the second is wrong: what was declared
/// before comes first, then `declared` (objects and the place of their manifest) in its order.
pub(super) fn violations(intent: &Intent, declared: &HashMap<ObjectRef, usize>) -> Vec<Violation> {
    let (targets, locations) = (intent.all_targets(), Locations::new(intent));
    let mut check = Check {
        intent,
        targets: &targets,
        locations: &locations,
        declared,
        near: HashMap::new(),
        violations: Vec::new(),
    };
    let node_addresses = check.nodes();
    check.vpcs();
    check.ports();
    check.pools(&node_addresses);
    check.accelerators();
    check.services();
    check.listeners();
    check.shields();
    check.violations
}

struct Check<'a> {
    intent: &'a Intent,
    /// The targets of services.
    targets: &'a HashMap<&'a Name, Cow<'a, [Target]>>,
    locations: &'a Locations<'a>,
    declared: &'a HashMap<ObjectRef, usize>,
    /// What was probably meant by references to nothing: many objects may have the same wrong one.
    near: HashMap<ObjectRef, Option<ObjectRef>>,
    violations: Vec<Violation>,
}

const ONE_HOLDER: &str = "a public address has one holder";

/// Who has what of one sort that only one may have.
struct Claims<K> {
    rule: &'static str,
    holders: HashMap<K, FieldOf>,
}

impl<K: Eq + Hash> Claims<K> {
    fn new(rule: &'static str) -> Self {
        Self {
            rule,
            holders: HashMap::new(),
        }
    }
}

impl<'a> Check<'a> {
    /// A node's public address is its own, and no node behind a NAT has another's public address as its local one.
    /// (Two behind different NATs may well have the same local one.)
    fn nodes(&mut self) -> Claims<HostAddress> {
        let mut claims = Claims::new("each node needs its own");
        let nodes = self.in_order(Kind::Node, self.intent.nodes());
        for node in &nodes {
            let address = node.spec.address;
            let name = if address.public == address.local {
                "spec.address.local"
            } else {
                "spec.address.public"
            };
            self.claim(
                &mut claims,
                address.public,
                address.public,
                field(&id(Kind::Node, node), name),
            );
        }
        for node in nodes {
            let (local, me) = (node.spec.address.local, id(Kind::Node, node));
            if let Some(holder) = claims.holders.get(&local).filter(|(holder, _)| *holder != me) {
                self.taken(
                    local.to_string(),
                    claims.rule,
                    holder.clone(),
                    field(&me, "spec.address.local"),
                );
            }
        }
        claims
    }

    /// A VNI means one VPC.
    fn vpcs(&mut self) {
        let mut claims: Claims<Vni> = Claims::new("a VNI means one VPC");
        for vpc in self.in_order(Kind::Vpc, self.intent.vpcs()) {
            if let Some(vni) = vpc.spec.vni {
                self.claim(
                    &mut claims,
                    vni,
                    format_args!("VNI {vni}"),
                    field(&id(Kind::Vpc, vpc), "spec.vni"),
                );
            }
        }
    }

    /// A port's VPC and node exist. In a VPC, addresses and MACs are unique, and on a node interfaces. The address
    /// is one that the VPC has for ports, the MTU at most the VPC's. Where an agent runs there is an interface; on a
    /// foreign node there is none, but a MAC, and the VPC has a known VNI.
    fn ports(&mut self) {
        let mut addresses: Claims<(&Name, HostAddress)> = Claims::new("addresses are unique inside a VPC");
        let mut macs: Claims<(&Name, Mac)> = Claims::new("MACs are unique inside a VPC");
        let mut interfaces: Claims<(&Name, &InterfaceName)> = Claims::new("an interface is one port's");
        for port in self.in_order(Kind::Port, self.intent.ports()) {
            let (spec, me) = (&port.spec, id(Kind::Port, port));
            let at = |name| field(&me, name);
            let vpc = self.find(self.intent.vpcs(), Kind::Vpc, &spec.vpc, at("spec.vpc"));
            let node = self.find(self.intent.nodes(), Kind::Node, &spec.node, at("spec.node"));
            let alone = self.claim(
                &mut addresses,
                (&spec.vpc, spec.address),
                spec.address,
                at("spec.address"),
            );
            // Two derived MACs are equal only where the addresses are: one error says it.
            if alone || spec.mac.is_some() {
                let name = if spec.mac.is_some() {
                    "spec.mac"
                } else {
                    "spec.address"
                };
                self.claim(
                    &mut macs,
                    (&spec.vpc, spec.mac()),
                    format_args!("MAC {}", spec.mac()),
                    at(name),
                );
            }
            if let Some(interface) = &spec.interface {
                self.claim(
                    &mut interfaces,
                    (&spec.node, interface),
                    interface,
                    at("spec.interface"),
                );
            }
            if let Some(vpc) = vpc {
                self.port_in_vpc(&me, port, vpc);
            }
            if let (Some(node), Some(vpc)) = (node, vpc) {
                self.port_on_node(&me, port, node, vpc);
            }
        }
    }

    fn port_in_vpc(&mut self, me: &ObjectRef, port: &Port, vpc: &Vpc) {
        let (address, vpc_id) = (port.spec.address, id(Kind::Vpc, vpc));
        if !vpc.spec.has_port_address(address) {
            let (first, last) = vpc.spec.port_addresses();
            let cidr = vpc.spec.cidr;
            let conflict = Conflict::NotInVpc {
                address,
                vpc: vpc_id.clone(),
                cidr,
                first,
                last,
            };
            self.add(field(me, "spec.address"), [field(&vpc_id, "spec.cidr")], conflict);
        }
        if let (Some(mtu), Some(limit)) = (port.spec.mtu, vpc.spec.mtu)
            && mtu > limit
        {
            let because = field(&vpc_id, "spec.mtu");
            self.add(
                field(me, "spec.mtu"),
                [because],
                Conflict::AboveVpcMtu {
                    mtu,
                    vpc: vpc_id,
                    limit,
                },
            );
        }
    }

    fn port_on_node(&mut self, me: &ObjectRef, port: &Port, node: &Node, vpc: &Vpc) {
        let (spec, node_id, vpc_id) = (&port.spec, id(Kind::Node, node), id(Kind::Vpc, vpc));
        let agent = field(&node_id, "spec.agent");
        if node.spec.agent {
            if spec.interface.is_none() {
                self.add(
                    field(me, "spec.interface"),
                    [agent],
                    Conflict::NoInterface { node: node_id },
                );
            }
            return;
        }
        if spec.interface.is_some() {
            let conflict = Conflict::ForeignInterface {
                node: node_id.clone(),
            };
            self.add(field(me, "spec.interface"), [agent.clone()], conflict);
        }
        if spec.mac.is_none() {
            let conflict = Conflict::ForeignWithoutMac {
                node: node_id.clone(),
            };
            self.add(field(me, "spec.mac"), [agent.clone()], conflict);
        }
        if vpc.spec.vni.is_none() {
            let because = [field(&vpc_id, "spec.vni"), agent];
            self.add(
                field(me, "spec.vpc"),
                because,
                Conflict::ForeignWithoutVni {
                    node: node_id,
                    vpc: vpc_id,
                },
            );
        }
    }

    /// The nodes of a pool's addresses exist and run agents. A public address has one holder; it may be the own
    /// address of the one node that carries it, but no other's, and in no prefix. On a node, local addresses are unique,
    /// and all pools that it announces by BGP name the same routers. What is answered for by ARP is no node's own address.
    fn pools(&mut self, node_addresses: &Claims<HostAddress>) {
        let mut publics: Claims<HostIp> = Claims::new(ONE_HOLDER);
        let mut locals: Claims<(&Name, HostIp)> =
            Claims::new("packets for two addresses would look the same on the node");
        let mut speakers: BTreeMap<&Name, &AddressPool> = BTreeMap::new();
        for pool in self.in_order(Kind::AddressPool, self.intent.address_pools()) {
            let me = id(Kind::AddressPool, pool);
            for (index, (entry, addresses)) in pool.spec.by_entry().enumerate() {
                let at = |name| field(&me, format!("spec.addresses[{index}].{name}"));
                self.carriers(pool, entry, index, &mut speakers);
                self.has_no_node(node_addresses, entry, at("public"));
                let local = field_of_local(entry);
                let of = |address: HostIp, prefix: HostPrefix| match prefix.only() {
                    Some(_) => address.to_string(),
                    None => format!("{address} of {prefix}"),
                };
                // An entry of which anything stands twice is one error, not two.
                let is_free = addresses.iter().all(|address| {
                    let what = of(address.public, entry.public);
                    self.claim(&mut publics, address.public, what, at("public"))
                });
                for node in entry.nodes.iter().filter(|_| is_free) {
                    addresses.iter().all(|address| {
                        let what = format!("{} on node/{node}", of(address.local, entry.local));
                        self.claim(&mut locals, (node, address.local), what, at(local))
                    });
                }
            }
        }
    }

    /// A public address that is a node's own is carried by that node alone, and is in no prefix.
    fn has_no_node(&mut self, node_addresses: &Claims<HostAddress>, entry: &PoolEntry, at: FieldOf) {
        let holder = |address: HostIp| {
            let holder = node_addresses.holders.get(&address.v4()?)?;
            Some((address, holder.clone()))
        };
        let found = entry.public.addresses().find_map(holder);
        let Some((address, holder)) =
            found.filter(|(_, holder)| entry.is_prefix() || !entry.nodes.is_alone(&holder.0.name))
        else {
            return;
        };
        if entry.is_prefix() {
            let (prefix, node) = (entry.public, holder.0.clone());
            let conflict = Conflict::InPrefix {
                prefix,
                address,
                node,
            };
            self.add(at, [holder], conflict);
        } else {
            self.taken(address.to_string(), ONE_HOLDER, holder, at);
        }
    }

    /// The nodes of one entry.
    fn carriers(
        &mut self,
        pool: &'a AddressPool,
        entry: &'a PoolEntry,
        index: usize,
        speakers: &mut BTreeMap<&'a Name, &'a AddressPool>,
    ) {
        let (me, path) = (id(Kind::AddressPool, pool), format!("spec.addresses[{index}]"));
        for (place, name) in entry.nodes.iter().enumerate() {
            let at = field(&me, format!("{path}.{}", entry.nodes.field(place)));
            let Some(node) = self.find(self.intent.nodes(), Kind::Node, name, at.clone()) else {
                continue;
            };
            let node_id = id(Kind::Node, node);
            if !node.spec.agent {
                let conflict = Conflict::ForeignCarrier {
                    node: node_id.clone(),
                };
                self.add(at, [field(&node_id, "spec.agent")], conflict);
            }
            let own = HostIp::from(node.spec.address.local);
            // Of what is its own in public is told elsewhere.
            let is_told = entry.public == entry.local && node.spec.address.public == node.spec.address.local;
            let conflict = if entry.is_prefix() && !is_told {
                let prefix = entry.local;
                Some(Conflict::InPrefix {
                    prefix,
                    address: own,
                    node: node_id.clone(),
                })
            } else if pool.spec.reach == Reach::Arp && !entry.is_prefix() {
                Some(Conflict::AnsweredAlready {
                    address: own,
                    node: node_id.clone(),
                })
            } else {
                None
            };
            if let Some(conflict) = conflict.filter(|_| entry.local.contains(own)) {
                let local = field(&me, format!("{path}.{}", field_of_local(entry)));
                self.add(local, [field(&node_id, "spec.address.local")], conflict);
            }
            self.speaker(&me, pool, name, speakers);
        }
    }

    /// A node has one set of sessions for all pools that it announces by BGP.
    fn speaker(
        &mut self,
        me: &ObjectRef,
        pool: &'a AddressPool,
        node: &'a Name,
        speakers: &mut BTreeMap<&'a Name, &'a AddressPool>,
    ) {
        let Some(bgp) = &pool.spec.bgp else { return };
        let other = *speakers.entry(node).or_insert(pool);
        let agrees = other
            .spec
            .bgp
            .as_ref()
            .is_none_or(|other| bgp.is_one_speaker(other));
        if !agrees {
            let other = id(Kind::AddressPool, other);
            let conflict = Conflict::OtherSpeaker {
                node: ObjectRef::new(Kind::Node, node),
                pool: other.clone(),
            };
            self.add(field(me, "spec.bgp"), [field(&other, "spec.bgp")], conflict);
        }
    }

    /// An accelerator's pool and service exist, its entries carry addresses of the pool, and an agent runs in the
    /// region of its exits.
    fn accelerators(&mut self) {
        for accelerator in self.in_order(Kind::Accelerator, self.intent.accelerators()) {
            let me = id(Kind::Accelerator, accelerator);
            let name = &accelerator.spec.pool;
            let pool = self.find(
                self.intent.address_pools(),
                Kind::AddressPool,
                name,
                field(&me, "spec.pool"),
            );
            if let Some(pool) = pool {
                self.entries(&me, accelerator, pool);
                if pool.spec.is_v6() {
                    let pool = id(Kind::AddressPool, pool);
                    let because = field(&pool, "spec.addresses");
                    self.add(
                        field(&me, "spec.pool"),
                        [because],
                        Conflict::AcceleratesV6 { pool },
                    );
                }
            }
            for (index, group) in accelerator.spec.groups.iter().enumerate() {
                let at = |name| field(&me, format!("spec.groups[{index}].{name}"));
                let service = self.find(
                    self.intent.services(),
                    Kind::Service,
                    &group.service,
                    at("service"),
                );
                if let Some(service) = service.filter(|service| service.spec.mode != Mode::Nat) {
                    let mode = service.spec.mode;
                    let service = id(Kind::Service, service);
                    let because = field(&service, "spec.mode");
                    self.add(
                        at("service"),
                        [because],
                        Conflict::AnswersItself { service, mode },
                    );
                }
                self.exits(&group.region, at("region"));
            }
            let services = accelerator.spec.groups.iter();
            let services = services.filter_map(|group| self.intent.services().get(&group.service));
            let (count, most) = (
                services
                    .clone()
                    .map(|service| self.targets_of(service).len())
                    .sum(),
                MOST_TARGETS,
            );
            if count > most {
                let because = services.flat_map(|service| self.brings_targets(service));
                let because: Vec<FieldOf> = because.collect();
                let at = field(&me, "spec.groups");
                self.add(at, because, Conflict::TooManyTargets { count, most });
            }
            self.strict_rules(&me, accelerator);
        }
    }

    /// Strict rules leave every pair a node that may relay.
    fn strict_rules(&mut self, me: &ObjectRef, accelerator: &Accelerator) {
        let rules = &accelerator.spec.relays;
        let agents = || self.intent.nodes().iter().filter(|(_, node)| node.spec.agent);
        let relays: Vec<&Name> = agents()
            .filter(|(_, node)| rules.allow(&node.spec))
            .map(|(name, _)| name)
            .collect();
        let ends = self.intent.entrances(accelerator).flat_map(|(name, _)| {
            let entry = self.intent.nodes().get(name);
            let own = entry.map(|entry| &entry.spec.region);
            // What leaves in the entry's own region leaves at the entry.
            let regions = accelerator.spec.groups.iter().map(|group| &group.region);
            let exits = agents().filter(move |(_, node)| {
                Some(&node.spec.region) != own && regions.clone().any(|region| *region == node.spec.region)
            });
            exits.map(move |(exit, _)| (name, exit))
        });
        let alone = |(entry, exit): &(&Name, &Name)| {
            entry != exit && !relays.iter().any(|relay| relay != entry && relay != exit)
        };
        if let Some((entry, exit)) = ends.into_iter().find(alone).filter(|_| rules.strict) {
            let node = |name: &Name| ObjectRef::new(Kind::Node, name);
            let (entry, exit) = (node(entry), node(exit));
            self.add(field(me, "spec.relays"), [], Conflict::NoRelay { entry, exit });
        }
    }

    fn entries(&mut self, me: &ObjectRef, accelerator: &Accelerator, pool: &AddressPool) {
        let entries = pool.spec.entries.iter();
        let carriers: BTreeSet<&Name> = entries.flat_map(|entry| entry.nodes.iter()).collect();
        for (index, entry) in accelerator.spec.entries.iter().flatten().enumerate() {
            if carriers.contains(entry) {
                continue;
            }
            let at = field(me, format!("spec.entries[{index}]"));
            if self
                .find(self.intent.nodes(), Kind::Node, entry, at.clone())
                .is_some()
            {
                let (node, pool) = (ObjectRef::new(Kind::Node, entry), id(Kind::AddressPool, pool));
                let (because, nodes) = (field(&pool, "spec.addresses"), join(carriers.iter().copied()));
                self.add(at, [because], Conflict::NotInPool { node, pool, nodes });
            }
        }
    }

    fn exits(&mut self, region: &Name, at: FieldOf) {
        let nodes = self.intent.nodes().values();
        let regions: BTreeSet<&Name> = nodes
            .filter(|node| node.spec.agent)
            .map(|node| &node.spec.region)
            .collect();
        if regions.contains(region) {
            return;
        }
        let nodes = self.intent.nodes().values();
        let moved = nodes.map(|node| field(&id(Kind::Node, node), "spec.region"));
        let conflict = Conflict::NoExit {
            region: region.clone(),
            regions: join(regions.into_iter()),
        };
        self.add(at, moved, conflict);
    }

    /// What a field refers to.
    fn find<T>(
        &mut self,
        table: &'a BTreeMap<Name, Arc<T>>,
        kind: Kind,
        name: &Name,
        at: FieldOf,
    ) -> Option<&'a T> {
        if let Some(found) = table.get(name) {
            return Some(found);
        }
        let object = ObjectRef::new(kind, name);
        let near = self
            .near
            .entry(object.clone())
            .or_insert_with(|| nearest_object(&object, table.keys()));
        let conflict = Conflict::NoSuchObject {
            near: near.clone(),
            object,
        };
        self.add(at, [], conflict);
        None
    }

    /// `at` takes `key` for itself, unless another has it: did it?
    fn claim<K: Eq + Hash>(
        &mut self,
        claims: &mut Claims<K>,
        key: K,
        what: impl std::fmt::Display,
        at: FieldOf,
    ) -> bool {
        match claims.holders.entry(key) {
            Entry::Vacant(free) => {
                free.insert(at);
                true
            }
            Entry::Occupied(held) => {
                self.taken(what.to_string(), claims.rule, held.get().clone(), at);
                false
            }
        }
    }

    fn taken(&mut self, what: String, rule: &'static str, holder: FieldOf, at: FieldOf) {
        let conflict = Conflict::Taken {
            what,
            holder: holder.0.clone(),
            rule,
        };
        self.add(at, [holder], conflict);
    }

    fn add(&mut self, subject: FieldOf, because: impl IntoIterator<Item = FieldOf>, conflict: Conflict) {
        self.violations.push(Violation {
            subject,
            because: because.into_iter().collect(),
            conflict,
        });
    }

    /// The objects of a kind: those declared before by name, then the new ones as their manifests stand.
    fn in_order<T>(&self, kind: Kind, table: &'a BTreeMap<Name, Arc<T>>) -> Vec<&'a T> {
        if self.declared.is_empty() {
            return table.values().map(Arc::as_ref).collect();
        }
        let place = |name| self.declared.get(&ObjectRef::new(kind, name));
        let mut objects: Vec<_> = table
            .iter()
            .map(|(name, object)| (place(name), object.as_ref()))
            .collect();
        objects.sort_by_key(|(place, _)| *place);
        objects.into_iter().map(|(_, object)| object).collect()
    }
}

/// The field that says what an address is in packets.
fn field_of_local(entry: &PoolEntry) -> &'static str {
    if entry.local == entry.public {
        "public"
    } else {
        "local"
    }
}

fn field(object: &ObjectRef, name: impl Into<Cow<'static, str>>) -> FieldOf {
    (object.clone(), name.into())
}

fn id<S>(kind: Kind, object: &crate::kinds::Resource<S>) -> ObjectRef {
    ObjectRef::new(kind, &object.metadata.name)
}

fn join<'a>(names: impl Iterator<Item = &'a Name>) -> String {
    names.map(Name::as_str).collect::<Vec<_>>().join(", ")
}
