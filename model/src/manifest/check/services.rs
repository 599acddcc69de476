//! What services and accelerators have in common where packets enter: pools, listeners, shields.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kuafu_pipeline::map::MOST_LISTED;

use super::{Check, FieldOf, field, id, join};
use crate::contents::{MOST_LISTS, lists_fit};
use crate::kinds::{
    Accelerator, HostIp, Kind, Listener, MOST_ENTRIES, MOST_TARGETS, Mode, Name, Node, ObjectRef,
    PoolAddress, PoolEntry, PortNumber, PortRange, Prefer, Protocol, Service, Shield, ShieldMode, Target,
};
use crate::manifest::error::Conflict;

/// Ports of addresses and protocols that listeners have, by the first.
type Taken = BTreeMap<((HostIp, Protocol), PortNumber), (PortRange, FieldOf)>;

/// Targets that the listeners of one object may lead to, at all addresses together, where its pool has prefixes: what a
/// host's state says at each of them.
const MOST_WAYS: usize = 100_000;

/// An object at whose addresses packets enter.
struct Door<'a> {
    me: ObjectRef,
    pool: &'a Name,
    addresses: Vec<&'a PoolAddress>,
    /// The services behind it.
    services: Vec<&'a Service>,
    listeners: &'a [Listener],
    shield: Option<&'a Shield>,
}

impl<'a> Check<'a> {
    /// The pool of a service that listens itself exists, and its servers can answer for themselves where they shall.
    pub(super) fn services(&mut self) {
        let mut leading: HashMap<&Name, Vec<&Accelerator>> = HashMap::new();
        for accelerator in self.intent.accelerators().values() {
            for group in &accelerator.spec.groups {
                leading.entry(&group.service).or_default().push(accelerator);
            }
        }
        for service in self.in_order(Kind::Service, self.intent.services()) {
            let me = id(Kind::Service, service);
            let accelerators = leading.get(&service.metadata.name);
            let accelerators = accelerators.map_or(&[][..], Vec::as_slice);
            self.asks_where_it_is_answered(&me, service, accelerators);
            self.prefers_what_can_be_near(&me, service, accelerators);
            self.prefers_alike(&me, service);
            self.selects_not_too_many(&me, service);
            self.is_of_one_family(&me, service);
            let Some(name) = &service.spec.pool else { continue };
            let pools = self.intent.address_pools();
            let pool = self.find(pools, Kind::AddressPool, name, field(&me, "spec.pool"));
            for entry in pool.iter().flat_map(|pool| &pool.spec.entries) {
                if service.spec.mode != Mode::Nat {
                    self.answers_directly(&me, (service.spec.mode, name), entry);
                }
                if matches!(service.spec.mode, Mode::Ipip | Mode::Gue) {
                    self.is_no_target(&me, service, entry);
                }
            }
            if let Some(vpc) = &service.spec.vpc {
                let entries = pool.map_or(&[][..], |pool| &pool.spec.entries);
                self.serves_in_vpc((&me, service), vpc, (name, entries));
            }
        }
    }

    /// IPv6 goes to servers that answer themselves, of plain hosts, each of the family of the pool's addresses; and has
    /// not all that IPv4 has.
    fn is_of_one_family(&mut self, me: &ObjectRef, service: &Service) {
        let (spec, mode) = (&service.spec, service.spec.mode);
        let has_v6 = matches!(mode, Mode::Ipip | Mode::Gue);
        let pools = self.intent.address_pools();
        let pool = spec.pool.as_ref().and_then(|name| pools.get(name));
        let pool_id = pool.map(|pool| id(Kind::AddressPool, pool));
        for (index, target) in self.targets_of(service).iter().enumerate() {
            let address = target.address;
            let is_other = pool.is_some_and(|pool| pool.spec.is_v6() != address.is_v6());
            let conflict = if address.is_v6() && !has_v6 {
                let instead = "the server's IPv4 address";
                Conflict::ModeWithoutV6 {
                    address,
                    mode,
                    instead,
                }
            } else if let Some(pool) = pool_id.clone().filter(|_| is_other && has_v6) {
                let family = address.family();
                Conflict::OtherFamily {
                    address,
                    family,
                    pool,
                }
            } else {
                continue;
            };
            let because = pool_id.iter().map(|pool| field(pool, "spec.addresses"));
            let because: Vec<FieldOf> = because.collect();
            self.add(self.place_of(me, service, (index, target)), because, conflict);
        }
        let (Some(pool), Some(pool_id)) = (pool.filter(|pool| pool.spec.is_v6()), pool_id) else {
            return;
        };
        let because = field(&pool_id, "spec.addresses");
        if let Some(address) = pool.spec.addresses.first().filter(|_| !has_v6) {
            let (address, instead) = (address.public, "a pool of IPv4");
            let conflict = Conflict::ModeWithoutV6 {
                address,
                mode,
                instead,
            };
            self.add(field(me, "spec.mode"), [because.clone()], conflict);
        }
        let shield = spec.shield.as_ref();
        let has_list = |of: fn(&Shield) -> &Vec<Name>| shield.is_some_and(|shield| !of(shield).is_empty());
        let later = [
            ("spec.select", spec.select.is_some()),
            ("spec.shield.block", has_list(|shield| &shield.block)),
            ("spec.shield.allow", has_list(|shield| &shield.allow)),
        ];
        for (name, _) in later.into_iter().filter(|(_, is_given)| *is_given) {
            let pool = pool_id.clone();
            self.add(field(me, name), [because.clone()], Conflict::NotYetV6 { pool });
        }
    }

    /// The targets are ports of the VPC, inside of which nothing has the service's addresses.
    fn serves_in_vpc(
        &mut self,
        (me, service): (&ObjectRef, &Service),
        name: &Name,
        (pool, entries): (&Name, &[PoolEntry]),
    ) {
        let Some(vpc) = self.find(self.intent.vpcs(), Kind::Vpc, name, field(me, "spec.vpc")) else {
            return;
        };
        let vpc_id = ObjectRef::new(Kind::Vpc, name);
        // Those that are selected have ports, and what a hook has named is a target only as long as it has one.
        for (index, target) in service.spec.targets.iter().enumerate() {
            if self.locations.port(name, target.address).is_none() {
                let at = self.place_of(me, service, (index, target));
                let (address, vpc) = (target.address, vpc_id.clone());
                let of_vpc = |port: &Name| {
                    let port = self.intent.ports().get(port);
                    port.is_none_or(|port| port.spec.vpc == *name)
                };
                let ports = self.declared.iter();
                let moved = ports.filter(|(object, _)| object.kind == Kind::Port && of_vpc(&object.name));
                let first = moved.min_by_key(|(_, place)| **place);
                let because = first.map(|(port, _)| field(port, "spec.address"));
                self.add(at, because, Conflict::NoPortOf { address, vpc });
            }
        }
        let cidr = vpc.spec.cidr;
        for entry in entries {
            let is_inside = |local: HostIp| local.v4().is_some_and(|local| cidr.contains(local));
            if entry.local.addresses().any(is_inside) {
                let because = [
                    field(&ObjectRef::new(Kind::AddressPool, pool), "spec.addresses"),
                    field(&vpc_id, "spec.cidr"),
                ];
                let (public, vpc) = (entry.public, vpc_id.clone());
                self.add(
                    field(me, "spec.vpc"),
                    because,
                    Conflict::InsideVpc { public, vpc, cidr },
                );
            }
        }
    }

    /// A check without a port of its own asks in the protocol and at the port of the listeners that lead to the service:
    /// its own, and these accelerators'.
    fn asks_where_it_is_answered(
        &mut self,
        me: &ObjectRef,
        service: &Service,
        accelerators: &[&Accelerator],
    ) {
        let Some(health) = service
            .spec
            .health
            .as_ref()
            .filter(|health| health.port.is_none())
        else {
            return;
        };
        let has_no_port = |target: &Target| target.port.is_none();
        let is_unclear = self.targets_of(service).iter().any(has_no_port);
        let asks = health.protocol();
        let of_accelerators = accelerators
            .iter()
            .map(|accelerator| (id(Kind::Accelerator, accelerator), &accelerator.spec.listeners));
        let mut all = std::iter::once((me.clone(), &service.spec.listeners)).chain(of_accelerators);
        let found = all.find_map(|(object, listeners)| {
            let is_wrong = |listener: &&Listener| {
                listener.protocol != asks || is_unclear && listener.ports.only().is_none()
            };
            Some((object, *listeners.iter().find(is_wrong)?))
        });
        if let Some((object, listener)) = found {
            let because = field(&object, "spec.listeners");
            let (what, serves) = (listener.to_string(), listener.protocol);
            let (name, conflict) = if serves == asks {
                ("spec.health.port", Conflict::AsksWhere { what, object })
            } else {
                let conflict = Conflict::AsksOtherwise {
                    asks,
                    what,
                    object,
                    serves,
                };
                ("spec.health.type", conflict)
            };
            self.add(field(me, name), [because], conflict);
        }
    }

    /// A service has not too many targets together with those that it selects and its hook names.
    fn selects_not_too_many(&mut self, me: &ObjectRef, service: &Service) {
        let (count, most) = (self.targets_of(service).len(), MOST_TARGETS);
        if count > most {
            let because = self.selected(service);
            let conflict = Conflict::TooManySelected { count, most };
            self.add(field(me, field_of_targets(service)), because, conflict);
        }
    }

    /// All targets of a service.
    pub(super) fn targets_of(&self, service: &Service) -> &'a [Target] {
        let targets = self.targets.get(&service.metadata.name);
        targets.map_or(&[], AsRef::as_ref)
    }

    /// What may bring a service targets.
    pub(super) fn brings_targets(&self, service: &Service) -> Vec<FieldOf> {
        let own = field(&id(Kind::Service, service), field_of_targets(service));
        std::iter::once(own).chain(self.selected(service)).collect()
    }

    /// By what a service selects its nodes, or its ports.
    fn selected(&self, service: &Service) -> Vec<FieldOf> {
        let Some(select) = &service.spec.select else {
            return Vec::new();
        };
        let intent = self.intent;
        let objects: Vec<ObjectRef> = if let Some(vpc) = &service.spec.vpc {
            let ports = intent.ports().values().filter(|port| port.spec.vpc == *vpc);
            let ports = ports.filter(|port| select.takes(&port.metadata.labels));
            ports.map(|port| id(Kind::Port, port)).collect()
        } else {
            let nodes = intent.nodes().values();
            let nodes = nodes.filter(|node| select.takes(&node.metadata.labels));
            nodes.map(|node| id(Kind::Node, node)).collect()
        };
        let labels = objects.iter().map(|object| field(object, "metadata.labels"));
        labels.collect()
    }

    /// Nodes that may hold the same address find the targets of a service equally near, where none of them has seen how
    /// the flows of another began: then all have the same ring.
    fn prefers_alike(&mut self, me: &ObjectRef, service: &Service) {
        let (prefer, mode) = (service.spec.prefer, service.spec.mode);
        let pool = service.spec.pool.as_ref();
        let pool = pool.and_then(|name| self.intent.address_pools().get(name));
        let Some(pool) = pool.filter(|_| prefer != Prefer::None && mode != Mode::Nat) else {
            return;
        };
        let targets = self.targets_of(service);
        for entry in &pool.spec.entries {
            let nodes = entry.nodes.iter();
            let mut nodes = nodes.filter_map(|name| self.intent.nodes().get(name));
            let order = |node: &Node| self.locations.order(service, &node.spec, targets);
            let Some(first) = nodes.next() else { continue };
            let firsts = order(first);
            let Some(other) = nodes.find(|node| order(node) != firsts) else {
                continue;
            };
            let [node, other] = [first, other].map(|node| id(Kind::Node, node));
            let places = [&node, &other].map(|node| field(node, field_of_place(prefer)));
            let pool = field(&id(Kind::AddressPool, pool), "spec.addresses");
            let because: Vec<FieldOf> = std::iter::once(pool)
                .chain(places)
                .chain(self.locates(service, targets))
                .collect();
            let conflict = Conflict::RanksDiffer {
                public: entry.public,
                node,
                other,
                mode,
                prefer,
            };
            self.add(field(me, "spec.prefer"), because, conflict);
            return;
        }
    }

    /// What says where the targets of a service are.
    fn locates(&self, service: &Service, targets: &[Target]) -> Vec<FieldOf> {
        let ports = service.spec.vpc.iter().flat_map(|vpc| {
            let ports = targets.iter();
            ports.filter_map(|target| self.locations.port(vpc, target.address))
        });
        let ports = ports.map(|port| field(&id(Kind::Port, port), "spec.node"));
        let nodes = targets
            .iter()
            .filter_map(|target| self.locations.node(service, target));
        let nodes = nodes.map(|node| field(&id(Kind::Node, node), field_of_place(service.spec.prefer)));
        ports.chain(nodes).chain(self.selected(service)).collect()
    }

    /// Of the nodes that send to the targets of a service that prefers those of their site, one has a site.
    fn prefers_what_can_be_near(&mut self, me: &ObjectRef, service: &Service, accelerators: &[&Accelerator]) {
        if service.spec.prefer != Prefer::Site {
            return;
        }
        let nodes = self.intent.nodes();
        let pool = service.spec.pool.as_ref();
        let pool = pool.and_then(|name| self.intent.address_pools().get(name));
        let entries = pool.into_iter().flat_map(|pool| &pool.spec.entries);
        let carriers = entries.flat_map(|entry| entry.nodes.iter());
        let carriers = carriers.filter_map(|name| nodes.get(name));
        let groups = accelerators
            .iter()
            .flat_map(|accelerator| &accelerator.spec.groups);
        let groups: Vec<_> = groups
            .filter(|group| group.service == service.metadata.name)
            .collect();
        let is_exit = |node: &&Arc<Node>| {
            node.spec.agent && groups.iter().any(|group| group.region == node.spec.region)
        };
        let senders: BTreeMap<&Name, &Arc<Node>> = carriers
            .chain(nodes.values().filter(is_exit))
            .map(|node| (&node.metadata.name, node))
            .collect();
        if senders.is_empty() || senders.values().any(|node| node.spec.site.is_some()) {
            return;
        }
        let of_nodes = senders
            .values()
            .map(|node| field(&id(Kind::Node, node), "spec.site"));
        let of_accelerators = accelerators
            .iter()
            .map(|accelerator| field(&id(Kind::Accelerator, accelerator), "spec.groups"));
        let because: Vec<FieldOf> = of_accelerators.chain(of_nodes).collect();
        let nodes = join(senders.into_keys());
        self.add(field(me, "spec.prefer"), because, Conflict::NoSite { nodes });
    }

    /// The field by which a service has its target of that index.
    fn place_of(&self, me: &ObjectRef, service: &Service, (index, target): (usize, &Target)) -> FieldOf {
        if index < service.spec.targets.len() {
            field(me, format!("spec.targets[{index}].address"))
        } else if self.intent.named_by_hook(service).contains(target) {
            field(me, "spec.scaling")
        } else {
            field(me, "spec.select")
        }
    }

    /// No target is the service's own address, or the address of the node that sends to it.
    fn is_no_target(&mut self, me: &ObjectRef, service: &Service, entry: &PoolEntry) {
        for (index, target) in self.targets_of(service).iter().enumerate() {
            let is_sender = |name: &&Name| {
                let node = self.intent.nodes().get(*name);
                let own = node.map(|node| node.spec.address.local.into());
                entry.local.contains(target.address) || own == Some(target.address)
            };
            if let Some(name) = entry.nodes.iter().find(is_sender) {
                let at = self.place_of(me, service, (index, target));
                let node = ObjectRef::new(Kind::Node, name);
                let because = ["spec.address.local", "metadata.labels"].map(|name| field(&node, name));
                self.add(at, because, Conflict::SendsToItself { node });
            }
        }
    }

    /// Servers can hold the address of a service, and what they send from it reaches clients.
    fn answers_directly(&mut self, me: &ObjectRef, (mode, pool): (Mode, &Name), entry: &PoolEntry) {
        let public = entry.public;
        for name in entry.nodes.iter() {
            let node_id = ObjectRef::new(Kind::Node, name);
            let because = [
                field(&ObjectRef::new(Kind::AddressPool, pool), "spec.addresses"),
                field(&node_id, "spec.address.local"),
            ];
            let node = self.intent.nodes().get(name);
            let is_own = |node: &Arc<Node>| entry.local.only() == Some(node.spec.address.local.into());
            let conflict = if entry.public != entry.local {
                Conflict::AnswersPastNat { mode, public }
            } else if node.is_some_and(is_own) {
                let (public, node) = (public.first(), node_id);
                Conflict::NodesOwnAddress { mode, public, node }
            } else {
                continue;
            };
            self.add(field(me, "spec.mode"), because, conflict);
            return;
        }
    }

    /// A listener is alone on its address, protocol and port, whether an accelerator's or a service's, and where the address
    /// is a node's own it takes no port that the node needs itself. Where a pool has prefixes there is room for what listens
    /// at its addresses.
    pub(super) fn listeners(&mut self) {
        let mut taken = Taken::new();
        for door in self.doors() {
            self.has_room(&door);
            // Of a prefix, one of its addresses is told.
            let mut told = BTreeSet::new();
            for address in &door.addresses {
                self.listens(&mut taken, (&door, &mut told), address);
            }
        }
    }

    /// What listens at the addresses of a pool with prefixes is not too much.
    fn has_room(&mut self, door: &Door<'a>) {
        let pool = self.intent.address_pools().get(door.pool);
        if !pool.is_some_and(|pool| pool.spec.has_prefix()) {
            return;
        }
        let (addresses, listeners) = (door.addresses.len(), door.listeners);
        let entries = 1 + listeners.iter().map(|listener| listener.entries()).sum::<usize>();
        let services = door.services.iter();
        let targets: usize = services.map(|service| self.targets_of(service).len()).sum();
        let ways = targets * listeners.len();
        let pool = ObjectRef::new(Kind::AddressPool, door.pool);
        let (count, most) = (addresses * entries, MOST_ENTRIES);
        let conflict = if count > most {
            Conflict::TooManyEntries {
                addresses,
                pool: pool.clone(),
                count,
                most,
            }
        } else if addresses * ways > MOST_WAYS {
            Conflict::TooManyWays {
                addresses,
                pool: pool.clone(),
                targets: ways,
                count: addresses * ways,
                most: MOST_WAYS,
            }
        } else {
            return;
        };
        let because = door
            .services
            .iter()
            .flat_map(|service| self.brings_targets(service));
        let because: Vec<FieldOf> = std::iter::once(field(&pool, "spec.addresses"))
            .chain(because)
            .collect();
        self.add(field(&door.me, "spec.listeners"), because, conflict);
    }

    /// The lists that a shield names exist, and a host's shields name no more than it can tell apart.
    pub(super) fn shields(&mut self) {
        let mut named: BTreeMap<&Name, (BTreeSet<&Name>, Vec<FieldOf>)> = BTreeMap::new();
        for door in self.doors() {
            let (Some(shield), me) = (door.shield, door.me) else {
                continue;
            };
            for (at, list) in shield.lists() {
                let at = field(&me, format!("spec.shield.{at}"));
                self.find(self.intent.prefix_lists(), Kind::PrefixList, list, at);
            }
            if shield.mode == ShieldMode::Off {
                continue;
            }
            let nodes = door
                .addresses
                .into_iter()
                .flat_map(|address| address.nodes.iter());
            for node in nodes.collect::<BTreeSet<_>>() {
                let (lists, because) = named.entry(node).or_default();
                let before = lists.len();
                lists.extend(shield.lists().map(|(_, list)| list));
                let pool = ObjectRef::new(Kind::AddressPool, door.pool);
                because.extend([field(&me, "spec.shield"), field(&pool, "spec.addresses")]);
                let (count, most) = (lists.len(), MOST_LISTS);
                if count > most && count > before {
                    let (node, because) = (ObjectRef::new(Kind::Node, node), because.clone());
                    let conflict = Conflict::TooManyLists { node, count, most };
                    self.add(field(&me, "spec.shield"), because, conflict);
                } else if count > before && !self.fit(lists) {
                    let lists = lists.iter().map(|list| ObjectRef::new(Kind::PrefixList, list));
                    let lists = lists.map(|list| field(&list, "spec.prefixes"));
                    let because: Vec<FieldOf> = because.iter().cloned().chain(lists).collect();
                    let (node, most) = (ObjectRef::new(Kind::Node, node), MOST_LISTED);
                    self.add(
                        field(&me, "spec.shield"),
                        because,
                        Conflict::ListsTooLong { node, most },
                    );
                }
            }
        }
    }

    /// Whether a host has room for lists.
    fn fit(&self, lists: &BTreeSet<&Name>) -> bool {
        let all = self.intent.prefix_lists();
        lists_fit(
            lists
                .iter()
                .filter_map(|name| all.get(*name))
                .map(|list| &*list.spec.prefixes),
        )
    }

    /// Where packets enter: services with a pool and accelerators, in the order of their manifests.
    fn doors(&self) -> Vec<Door<'a>> {
        let intent = self.intent;
        let services = self.in_order(Kind::Service, intent.services()).into_iter();
        let services = services.filter_map(|service| {
            let (pool, spec) = (service.spec.pool.as_ref()?, &service.spec);
            Some(Door {
                me: id(Kind::Service, service),
                pool,
                services: vec![service],
                // That there is no such pool is said elsewhere.
                addresses: intent
                    .address_pools()
                    .get(pool)
                    .into_iter()
                    .flat_map(|pool| &pool.spec.addresses)
                    .collect(),
                listeners: &spec.listeners,
                shield: spec.shield.as_ref(),
            })
        });
        let accelerators = self.in_order(Kind::Accelerator, intent.accelerators());
        let accelerators = accelerators.into_iter().map(|accelerator| Door {
            me: id(Kind::Accelerator, accelerator),
            pool: &accelerator.spec.pool,
            addresses: intent.accelerated_addresses(accelerator).collect(),
            services: accelerator
                .spec
                .groups
                .iter()
                .filter_map(|group| Some(intent.services().get(&group.service)?.as_ref()))
                .collect(),
            listeners: &accelerator.spec.listeners,
            shield: accelerator.spec.shield.as_ref(),
        });
        let mut doors: Vec<Door<'a>> = services.chain(accelerators).collect();
        doors.sort_by_key(|door| self.declared.get(&door.me).copied());
        doors
    }

    /// The listeners of an object at an address of its pool. `told` has the entries and listeners of which an error is told.
    fn listens(
        &mut self,
        taken: &mut Taken,
        (door, told): (&Door<'_>, &mut BTreeSet<(usize, usize)>),
        address: &PoolAddress,
    ) {
        for (index, listener) in door.listeners.iter().enumerate() {
            let at = field(&door.me, format!("spec.listeners[{index}].{}", listener.field()));
            let its = (address.public, listener.protocol);
            let ports = listener.ports;
            // Those that are taken do not overlap: of them the last one that begins before these end may.
            let before = taken
                .range((its, PortNumber::MIN)..=(its, ports.last()))
                .next_back();
            match before.filter(|(_, (other, _))| other.overlaps(ports)) {
                Some(_) if !told.insert((address.entry, index)) => {}
                Some((_, (_, holder))) => {
                    let (what, holder) = (format!("{listener} on {}", address.public), holder.clone());
                    self.taken(what, "a port of an address is one listener's", holder, at.clone());
                }
                None => {
                    taken.insert((its, ports.first()), (ports, at.clone()));
                }
            }
            for node in address.nodes.iter() {
                self.listener_on_node(door.pool, (address, node), *listener, at.clone());
            }
        }
    }

    fn listener_on_node(
        &mut self,
        pool: &Name,
        (address, node): (&PoolAddress, &Name),
        listener: Listener,
        at: FieldOf,
    ) {
        let Some(node) = self.intent.nodes().get(node) else {
            return;
        };
        if address.local != node.spec.address.local {
            return;
        }
        let (what, node_id) = (listener.to_string(), id(Kind::Node, node));
        let own = listener.protocol == Protocol::Udp;
        let range = node.spec.nat_ports.get();
        let (name, conflict) = if let Some(holder) = node.spec.own_port(listener.ports).filter(|_| own) {
            let node = node_id.clone();
            (
                "spec.udp_port",
                Conflict::HostsOwnPort {
                    what,
                    address: address.public,
                    node,
                    holder,
                },
            )
        } else if range.overlaps(listener.ports) {
            let node = node_id.clone();
            (
                "spec.nat_ports",
                Conflict::InNatPorts {
                    what,
                    address: address.public,
                    node,
                    range,
                },
            )
        } else {
            return;
        };
        let pool = ObjectRef::new(Kind::AddressPool, pool);
        self.add(
            at,
            [field(&node_id, name), field(&pool, "spec.addresses")],
            conflict,
        );
    }
}

/// The field by which a service has most of its targets.
const fn field_of_targets(service: &Service) -> &'static str {
    if service.spec.select.is_some() {
        "spec.select"
    } else {
        "spec.targets"
    }
}

/// The field of a node by which targets are near it.
const fn field_of_place(prefer: Prefer) -> &'static str {
    match prefer {
        Prefer::Site => "spec.site",
        Prefer::Region | Prefer::None => "spec.region",
    }
}
