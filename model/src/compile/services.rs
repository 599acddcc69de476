//! Listeners: of accelerators at their entries and at their exits, and of services themselves.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Server;
use super::allocations::{CoupleKey, NodeId};
use super::demand::{exits, exits_from, is_exit};
use super::hosts::World;
use crate::kinds::{
    self, Accelerator, Admission, Bandwidth, CheckKind, Group, HostIp, IdleTimeout, Kind, Listener, Mode,
    Moment, Mtu, Name, NewFlows, ObjectRef, Payload, PoolAddress, PortNumber, Prefer, Protocol, ServerId,
    Service, ShieldMode, Statuses, UrlPath, Word,
};
use crate::state::{
    Ask, Check, Encapsulation, HostState, PrefixListState, ServiceState, Shield, Target, TargetState,
};

/// Where on a host listeners are apart by their ports alone: whether at the exit, the object's number, address, protocol.
pub(super) type Door = (bool, u32, IpAddr, u8);
/// What makes a listener one of its own on a host: also the first of its ports.
pub(super) type Key = (Door, u16);

/// See [`Door`].
pub(super) const fn door(service: &ServiceState) -> Door {
    (service.at_exit, service.vni, service.local, service.protocol)
}

/// The same at an exit.
pub(super) const fn at_exit(door: Door) -> Door {
    (true, door.1, door.2, door.3)
}

/// The key of a listener.
pub(super) const fn key(service: &ServiceState) -> Key {
    (door(service), service.ports.first().get())
}

/// Adds each accelerator's listeners to its entries and its exits, each service's own to the nodes of its pool, and the
/// lists that their shields name.
pub(super) fn add(world: &World<'_>, states: &mut BTreeMap<NodeId, HostState>) {
    for (name, service) in world.intent.services() {
        add_own(world, states, (name, service));
    }
    for (name, accelerator) in world.intent.accelerators() {
        let Some(vni) = world.allocations.vni(&ObjectRef::new(Kind::Accelerator, name)) else {
            continue;
        };
        let one = One {
            world,
            vni,
            accelerator,
        };
        for entrance in world.intent.entrances(accelerator) {
            for listener in &accelerator.spec.listeners {
                one.at_entry(states, entrance, *listener);
                one.at_exits(states, entrance, *listener);
            }
        }
    }
    states.values_mut().for_each(|state| add_lists(world, state));
}

/// Adds the listeners of a service that has a pool.
fn add_own(world: &World<'_>, states: &mut BTreeMap<NodeId, HostState>, (name, service): (&Name, &Service)) {
    let vni = world.allocations.vni(&ObjectRef::new(Kind::Service, name));
    let pool = service.spec.pool.as_ref();
    let pool = pool.and_then(|pool| world.intent.address_pools().get(pool));
    let (Some(vni), Some(pool)) = (vni, pool) else {
        return;
    };
    let (check, mtu) = (check(name, service), mtu(world, service));
    for (entry, addresses) in pool.spec.by_entry() {
        for node in entry.nodes.iter() {
            let targets = servers(world, node, service, (0, check.as_ref()));
            let targets = shared(targets.map(|(server, share)| Weighed {
                weight: share.into(),
                ..server
            }));
            let listeners = service.spec.listeners.iter();
            for (listener, address) in listeners.flat_map(|one| addresses.iter().map(move |at| (one, at))) {
                let first = addresses.first().map(|first| first.local);
                let listener = ServiceState {
                    own: true,
                    asked_at: first.filter(|first| *first != address.local).map(HostIp::get),
                    targets: targets.clone(),
                    shield: service.spec.shield.as_ref().and_then(shield),
                    mtu,
                    affinity: service.spec.affinity,
                    connection_ids: service.spec.quic.filter(|_| listener.protocol == Protocol::Udp),
                    packets: pool.spec.packets,
                    ..of((vni, name), address, (*listener, IdleTimeout::default()))
                };
                listen(world, states, node, listener);
            }
        }
    }
}

/// The servers of a service as a node sends to them, each with its share. `at` is the place of the service among those
/// of its listener.
fn servers<'a>(
    world: &'a World<'_>,
    node: &Name,
    service: &'a Service,
    (at, check): (usize, Option<&'a Arc<Check>>),
) -> impl Iterator<Item = (Weighed, u16)> + use<'a> {
    let own = world.intent.nodes().get(node);
    let own = own.filter(|_| service.spec.prefer != Prefer::None);
    let group = own.map_or(0, |_| u32::try_from(at + 1).unwrap_or(u32::MAX));
    let scaling = service.spec.scaling.as_ref();
    let counted: Option<Arc<str>> = scaling.map(|_| service.metadata.name.as_str().into());
    let node = node.clone();
    world.targets(service).iter().filter_map(move |target| {
        let server = Weighed {
            check: check.cloned(),
            server_id: target.server_id.map(ServerId::get),
            ends_s: target.drain_until.map(Moment::unix_s),
            group,
            rank: own.map_or(0, |own| world.locations.rank(service, &own.spec, target)),
            counted: counted.clone(),
            ..Weighed::unchecked(0, reached(world, &node, (service, target))?)
        };
        Some((server, target.share()))
    })
}

/// The largest packet that each of a service's ports takes, where these or their VPC say so.
fn mtu(world: &World<'_>, service: &Service) -> Option<u16> {
    let name = service.spec.vpc.as_ref()?;
    let vpc = world.intent.vpcs().get(name)?;
    let targets = world.targets(service).iter();
    let ports = targets.filter_map(|target| world.locations.port(name, target.address));
    ports.filter_map(|port| port.spec.mtu_in(vpc)).map(Mtu::get).min()
}

/// One accelerator.
struct One<'a> {
    world: &'a World<'a>,
    vni: u32,
    accelerator: &'a Accelerator,
}

impl One<'_> {
    fn at_entry(
        &self,
        states: &mut BTreeMap<NodeId, HostState>,
        (node, addresses): (&Name, &[PoolAddress]),
        listener: Listener,
    ) {
        let Some(id) = self.world.allocations.node(node) else {
            return;
        };
        let targets = self.entry_targets(id, node, listener);
        for address in addresses {
            let service = ServiceState {
                targets: targets.clone(),
                shield: self.accelerator.spec.shield.as_ref().and_then(shield),
                ..self.service(address, listener)
            };
            listen(self.world, states, node, service);
        }
    }

    /// Two entries behind different NATs may have the same local address, and entries of one address do: at an exit that
    /// is one listener.
    fn at_exits(
        &self,
        states: &mut BTreeMap<NodeId, HostState>,
        (node, addresses): (&Name, &[PoolAddress]),
        listener: Listener,
    ) {
        for exit in exits_from(self.world.intent, self.accelerator, node) {
            let id = self.world.allocations.node(exit);
            let Some(state) = id.and_then(|id| states.get_mut(&id)) else {
                continue;
            };
            let targets = shared(self.servers(exit, |group| is_exit(self.world.intent, group, exit)));
            let known: HashSet<Key> = state.services.iter().map(key).collect();
            let services = addresses.iter().map(|address| ServiceState {
                at_exit: true,
                targets: targets.clone(),
                ..self.service(address, listener)
            });
            state
                .services
                .extend(services.filter(|service| !known.contains(&key(service))));
        }
    }

    /// A listener without targets.
    fn service(&self, address: &PoolAddress, listener: Listener) -> ServiceState {
        let spec = &self.accelerator.spec;
        let pool = self.world.intent.address_pools().get(&spec.pool);
        ServiceState {
            bandwidth_mbps: spec.bandwidth_mbps.map(Bandwidth::get),
            packets: pool.map(|pool| pool.spec.packets).unwrap_or_default(),
            ..of(
                (self.vni, &self.accelerator.metadata.name),
                address,
                (listener, spec.idle_timeout),
            )
        }
    }

    /// Of groups that the entry is an exit of, the servers; of each other group its exits over pairs with a path, which
    /// share its weight evenly, each by its part of the servers that serve as it sees them, near or far; all servers where
    /// that leaves nothing with weight. What is left without weight keeps the flows that it has.
    fn entry_targets(&self, id: NodeId, entry: &Name, listener: Listener) -> Vec<TargetState> {
        let is_here = |group: &Group| is_exit(self.world.intent, group, entry);
        let afar = self
            .accelerator
            .spec
            .groups
            .iter()
            .filter(|group| !is_here(group));
        let afar: Vec<Vec<(u32, Serving)>> = afar
            .map(|group| {
                let exits = exits(self.world.intent, group).into_iter();
                let pair = |exit| Some((self.living_pair(id, exit)?, self.serving(group, exit, listener)));
                exits.filter_map(pair).collect()
            })
            .collect();
        let shares = afar.iter().map(|pairs| pairs.len() as u128);
        let whole = shares.filter(|shares| *shares > 0).fold(1, lcm);
        let here: Vec<Weighed> = self.servers(entry, is_here).collect();
        let serves = |pairs: &Vec<(u32, Serving)>| pairs.iter().any(|(_, serving)| serving.up > 0);
        let all_count = !afar.iter().any(serves) && here.iter().all(|server| server.weight == 0);
        let mut weights: BTreeMap<u32, (u128, u64)> = BTreeMap::new();
        for pairs in &afar {
            for (pair, serving) in pairs {
                let weight = if all_count { serving.all } else { serving.up };
                // Behind one that is dead no flow is to stay.
                if all_count || serving.lasts.is_some() {
                    let (all, lasts) = weights.entry(*pair).or_default();
                    *all += weight * whole / pairs.len() as u128;
                    *lasts = (*lasts).max(serving.lasts.unwrap_or(WITHOUT_END));
                }
            }
        }
        let pairs = weights.into_iter().map(|(pair, (weight, lasts))| Weighed {
            ends_s: (lasts != WITHOUT_END).then_some(lasts),
            ..Weighed::unchecked(weight, Target::Pair(pair))
        });
        let here = here.into_iter().map(|server| Weighed {
            weight: server.weight * whole,
            ..server
        });
        let targets: Vec<Weighed> = here.chain(pairs).collect();
        if targets.iter().any(|target| target.weight > 0) {
            return shared(targets.into_iter());
        }
        let servers = self.servers(entry, |_| true);
        shared(
            servers.chain(
                targets
                    .into_iter()
                    .filter(|target| matches!(target.target, Target::Pair(_))),
            ),
        )
    }

    /// The weight of a group's servers, as an exit sees them.
    fn serving(&self, group: &Group, exit: &Name, listener: Listener) -> Serving {
        let service = self.world.intent.services().get(&group.service);
        let targets = service
            .into_iter()
            .flat_map(|service| self.world.targets(service));
        let dial = u128::from(group.dial.get());
        let mut serving = Serving::default();
        for target in targets {
            let weight = dial * u128::from(target.share());
            let server = Server {
                service: group.service.clone(),
                address: target.address,
                port: target.port.unwrap_or(listener.ports.first()),
            };
            serving.all += weight;
            if !self.world.down.contains(&(exit.clone(), server)) {
                serving.up += weight;
                let lasts = target.drain_until.map_or(WITHOUT_END, Moment::unix_s);
                serving.lasts = serving.lasts.max(Some(lasts));
            }
        }
        serving
    }

    /// The number at an entry of its pair to an exit, if that has a path.
    fn living_pair(&self, entry: NodeId, exit: &Name) -> Option<u32> {
        let exit = self.world.allocations.node(exit)?;
        let key = CoupleKey::new(entry, exit, self.accelerator.spec.class);
        let paths = self.world.demand.couples.get(&key)?;
        paths.primary.as_ref()?;
        let couple = self.world.allocations.couples.get(&key)?;
        let at = usize::from(key.ends[0] != entry);
        Some(couple.ends[at].pair)
    }

    /// The servers behind some of the groups as a node sends to them, with their weights.
    fn servers(&self, node: &Name, takes: impl Fn(&Group) -> bool) -> impl Iterator<Item = Weighed> {
        let services = self.world.intent.services();
        let groups = self.accelerator.spec.groups.iter().enumerate();
        let groups = groups.filter(move |(_, group)| takes(group));
        let behind = groups.filter_map(|(at, group)| Some((at, group, services.get(&group.service)?)));
        behind.flat_map(move |(at, group, service)| {
            let (dial, check) = (u128::from(group.dial.get()), check(&group.service, service));
            let servers = servers(self.world, node, service, (at, check.as_ref()));
            let weighed = servers.map(|(server, share)| Weighed {
                weight: dial * u128::from(share),
                ..server
            });
            weighed.collect::<Vec<_>>()
        })
    }
}

/// The weight of a group's servers: of those that serve, and of all.
#[derive(Clone, Copy, Default)]
struct Serving {
    up: u128,
    all: u128,
    /// Until when any serves, be it with the flows alone that it has, in seconds since 1970; [`WITHOUT_END`].
    lasts: Option<u64>,
}

/// Later than any end.
const WITHOUT_END: u64 = u64::MAX;

/// A target and its weight, before that fits a state.
struct Weighed {
    weight: u128,
    target: Target,
    check: Option<Arc<Check>>,
    server_id: Option<u64>,
    ends_s: Option<u64>,
    group: u32,
    rank: u32,
    counted: Option<Arc<str>>,
}

impl Weighed {
    const fn unchecked(weight: u128, target: Target) -> Self {
        Self {
            weight,
            target,
            check: None,
            server_id: None,
            ends_s: None,
            group: 0,
            rank: 0,
            counted: None,
        }
    }
}

/// How a service's servers are checked.
fn check(name: &Name, service: &Service) -> Option<Arc<Check>> {
    let health = service.spec.health.as_ref()?;
    let text = |word: &Option<Word>| word.as_ref().map_or_else(String::new, Word::to_string);
    let octets = |payload: &Option<Payload>| payload.as_ref().map(Payload::octets).unwrap_or_default();
    let ask = match health.kind {
        CheckKind::Tcp => Ask::Tcp,
        CheckKind::Http | CheckKind::Https => Ask::Http {
            tls: health.kind == CheckKind::Https,
            path: health.path.as_ref().map_or("/", UrlPath::as_str).to_owned(),
            host: text(&health.host),
            status: health.status.unwrap_or(Statuses::SUCCESSFUL).bounds(),
        },
        CheckKind::Udp => Ask::Udp {
            send: octets(&health.send),
            expect: octets(&health.expect),
        },
        CheckKind::A2s => Ask::A2s,
        CheckKind::Quake3 => Ask::Quake3,
        CheckKind::Minecraft => Ask::Minecraft,
        CheckKind::Quic => Ask::Quic {
            alpn: text(&health.alpn),
            host: text(&health.host),
        },
        CheckKind::Grpc => Ask::Grpc {
            service: text(&health.service),
        },
    };
    Some(Arc::new(Check {
        service: name.to_string(),
        ask,
        port: health.port.map(PortNumber::get),
        interval_ms: health.interval_ms.get(),
        timeout_ms: health.timeout_ms(),
        rise: health.rise.get().into(),
        fall: health.fall.get().into(),
        least_percent: health.min_healthy_percent.get().into(),
        slow_start_s: health.slow_start_s.get().into(),
    }))
}

/// A listener of an object, without targets.
fn of(
    (vni, name): (u32, &Name),
    address: &PoolAddress,
    (listener, idle): (Listener, IdleTimeout),
) -> ServiceState {
    let idle_timeout_s = match listener.protocol {
        Protocol::Tcp => idle.tcp_s.get(),
        Protocol::Udp => idle.udp_s.get(),
    };
    ServiceState {
        name: name.to_string(),
        public: address.public.get(),
        idle_timeout_s,
        ..ServiceState::blank(
            vni,
            address.local.get(),
            (listener.protocol.number(), listener.ports),
        )
    }
}

/// A shield, unless it is off.
fn shield(declared: &kinds::Shield) -> Option<Shield> {
    if declared.mode == ShieldMode::Off {
        return None;
    }
    let names = |lists: &[Name]| lists.iter().map(Name::to_string).collect();
    Some(Shield {
        enforces: declared.mode != ShieldMode::Observe,
        alarm_new_per_s: declared.alarm_new_per_s().map(NewFlows::get),
        hold_s: declared.hold_s().get().into(),
        syn_cookies: declared.syn_cookies,
        drop_amplifiers: declared.drop_amplifiers,
        admitted_only: declared.admission == Admission::Required,
        source_new_per_s: declared.source_new_per_s.get(),
        prefix_new_per_s: declared.prefix_new_per_s.get(),
        new_per_s: declared.new_per_s.map(NewFlows::get),
        block: names(&declared.block),
        allow: names(&declared.allow),
    })
}

/// Adds the lists that a host's listeners name.
fn add_lists(world: &World<'_>, state: &mut HostState) {
    let shields = state
        .services
        .iter()
        .filter_map(|service| service.shield.as_ref());
    let named: BTreeSet<&str> = shields.flat_map(Shield::lists).collect();
    let lists = named.into_iter().filter_map(|name| {
        let list = world.intent.prefix_lists().get(name)?;
        Some(PrefixListState {
            name: name.to_owned(),
            prefixes: Arc::clone(&list.spec.prefixes),
        })
    });
    state.prefix_lists = lists.collect();
}

/// Lets a node of an address listen there; where the address is not the node's own, all of it is Kuafu's.
fn listen(world: &World<'_>, states: &mut BTreeMap<NodeId, HostState>, node: &Name, service: ServiceState) {
    let id = world.allocations.node(node);
    if let Some(state) = id.and_then(|id| states.get_mut(&id)) {
        state.services.push(ServiceState {
            whole_address: state.node.local != service.local,
            ..service
        });
    }
}

/// How a node reaches a target of a service, unless that is a port of which nothing is known yet.
fn reached(world: &World<'_>, node: &Name, (service, target): (&Service, &kinds::Target)) -> Option<Target> {
    let encapsulation = match service.spec.mode {
        Mode::Nat => {
            let (address, port) = (target.address.v4()?.get(), target.port.map(|port| port.get()));
            return Some(Target::Server { address, port });
        }
        Mode::Ipip => Encapsulation::Ipip,
        Mode::Gue => Encapsulation::Gue {
            port: service.spec.gue.port.get(),
            variant: service.spec.gue.variant.get(),
        },
        Mode::Vxlan => {
            let vpc = service.spec.vpc.as_ref()?;
            let port = world.locations.port(vpc, target.address)?;
            Encapsulation::Vxlan {
                vni: world.allocations.vni(&ObjectRef::new(Kind::Vpc, vpc))?,
                mac: port.spec.mac().octets(),
                host: world.address_of(&port.spec.node, node)?,
            }
        }
    };
    Some(Target::Direct {
        address: target.address.get(),
        encapsulation,
    })
}

/// Targets with weights that fit a state.
fn shared(targets: impl Iterator<Item = Weighed>) -> Vec<TargetState> {
    let targets: Vec<Weighed> = targets.collect();
    let most = targets
        .iter()
        .map(|target| target.weight)
        .max()
        .unwrap_or_default();
    // Ratios of more than 32 bits lose what is below.
    let spare = (u128::BITS - most.leading_zeros()).saturating_sub(u32::BITS);
    let state = |target: Weighed| {
        let weight = u32::try_from(target.weight >> spare).unwrap_or(u32::MAX);
        TargetState {
            weight: if target.weight > 0 { weight.max(1) } else { 0 },
            target: target.target,
            check: target.check,
            server_id: target.server_id,
            ends_s: target.ends_s,
            group: target.group,
            rank: target.rank,
            counted: target.counted,
        }
    };
    targets.into_iter().map(state).collect()
}

/// The greatest common divisor (Euclid).
fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The least common multiple of numbers that are not 0.
fn lcm(a: u128, b: u128) -> u128 {
    a / gcd(a, b) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_many_regions_keep_their_ratios() {
        // Exits of a cluster of 500 hosts, as awkward as can be: each region's number is prime.
        let regions = [29, 31, 37, 41, 43, 47, 53, 59, 61, 67];
        let whole = regions.into_iter().fold(1, lcm);
        let most = 100 * 1000 * 1000;
        let targets = [(1, whole * most / 29), (2, whole * most / 58)];
        let states = shared(
            targets
                .into_iter()
                .map(|(pair, weight)| Weighed::unchecked(weight, Target::Pair(pair))),
        );
        let [one, two] = [0, 1].map(|at| u64::from(states[at].weight));
        assert!(one > 1 << 31 && one.abs_diff(2 * two) <= 1, "{one} and {two}");
    }
}
