//! Listeners, their rings and their targets.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use kuafu_pipeline::header::ipv4::{TCP, UDP};
use kuafu_pipeline::map::{
    self, Be16, IpKey, KEEPS, Mac, MemberKey, NextHop, QuicServerKey, Service, ServiceKey, TAKES, Tunnel,
    Wrap, policy,
};
use kuafu_pipeline::stage::check;

use super::allocate::{Numbers, Ranges};
use super::error::{entry, fits, in_range};
use super::vpc::{v4, vni};
use super::{Contents, Error, HostFacts, limit, ring, shield};
use crate::health::{self, Subject};
use crate::kinds::{Affinity, ConnectionIds, Echo, Fragments, Options, Oversize};
use crate::state::{Encapsulation, HostState, ServiceState, Shield, Target, TargetState};

/// For how many seconds flows that may have begun before a change of their ring belong to the ring before it, on a host
/// that has not seen them. A UDP flow tells nothing of that: a short time, or a target that joins gets none.
const RING_BEFORE: u64 = 600;
/// See [`RING_BEFORE`].
const RING_BEFORE_UDP: u64 = 30;

/// Fills in what listeners need.
pub(super) fn fill(
    contents: &mut Contents,
    neighbours: &mut Numbers<'_, IpAddr>,
    state: &HostState,
    host: &HostFacts,
    previous: &Contents,
) -> Result<(), Error> {
    let capacities = &host.capacities;
    let limits = limit::fill(contents, state, host, previous)?;
    let shields = shield::fill(contents, state, host, previous)?;
    let down = health::down(state, &host.servers.down);
    let mut listeners = Vec::with_capacity(state.services.len());
    for (index, service) in state.services.iter().enumerate() {
        is_of_one_family(index, service)?;
        let hop = |(target, (is_used, weight)): (&TargetState, (bool, u64))| {
            let from = (index, service.at_exit, state.node.local);
            let hop = hop(contents, neighbours, from, &target.target)?;
            let share = if is_used { Share::of(weight) } else { Share::Down };
            Ok((hop, share))
        };
        let used = health::in_use(service, &down, &host.servers.ended);
        let percent = |target: &TargetState| percent(service, target, host);
        let weights = health::weights(service, &down, &used, percent);
        let targets = service.targets.iter().zip(used.into_iter().zip(weights));
        listeners.push(Listener {
            keys: keys(index, service)?,
            value: Service {
                vni: service.vni,
                limit: limits.get(&service.vni).copied().unwrap_or_default(),
                shield: shield_of(service, &shields),
                largest: service.mtu.map_or(0, u32::from),
                policy: policy_of(service),
                ..Service::default()
            },
            targets: at_exit(service, targets.map(hop).collect::<Result<_, _>>()?),
            size: None,
        });
    }
    place(contents, listeners, previous, host)?;
    contents.quic_targets = quic_targets(contents, state);
    fits(
        "quic_targets",
        contents.quic_targets.len(),
        capacities.quic_targets,
    )?;
    whole_addresses(contents, state, host);
    fits("services", contents.services.len(), capacities.services)
}

/// Bits of a listener's policy.
fn policy_of(service: &ServiceState) -> u32 {
    let affinity = match service.affinity {
        Affinity::Flow => 0,
        Affinity::Client => policy::BY_CLIENT,
        Affinity::Port => policy::BY_PORT,
    };
    let is_silent = service.packets.oversize == Oversize::Drop && !service.at_exit;
    let silent = if is_silent { policy::SILENT } else { 0 };
    let quic = service.connection_ids.map(|declared| {
        policy::quic(match declared {
            ConnectionIds::Tagged => map::ConnectionIds::tagged(),
            ConnectionIds::QuicLb { config, octets } => {
                map::ConnectionIds::quic_lb(config.get().into(), octets.get().into())
            }
        })
    });
    affinity | silent | quic.unwrap_or_default()
}

/// The targets that connection ids of QUIC name: those that keep flows. The edge asks no further.
fn quic_targets(contents: &Contents, state: &HostState) -> HashMap<QuicServerKey, u32> {
    let of_quic = |(service, _): &(&ServiceState, _)| service.connection_ids.is_some();
    let mut named = health::targets(state).filter(of_quic).peekable();
    if named.peek().is_none() {
        return HashMap::new();
    }
    let numbers = numbers(contents);
    let target = |(service, target): (&ServiceState, &TargetState)| {
        let (vni, id) = (service.vni, target.server_id?);
        let target = *numbers.get(&ring::identity(&bare(&target.target)))?;
        let is_member = contents.members.contains_key(&MemberKey { vni, target });
        is_member.then_some((QuicServerKey::new(vni, id), target))
    };
    named.filter_map(target).collect()
}

/// Bits of a whole address's policy.
fn policy_of_address(service: &ServiceState) -> u32 {
    let packets = &service.packets;
    let fragments = match packets.fragments {
        Fragments::Forward => 0,
        Fragments::Drop => policy::DROP_FRAGMENTS,
        Fragments::Pass => policy::PASS_FRAGMENTS,
    };
    let options = match packets.ipv4_options {
        Options::Drop => 0,
        Options::Pass => policy::PASS_OPTIONS,
    };
    let usual = if service.own { Echo::Reply } else { Echo::Drop };
    let echo = match packets.echo.unwrap_or(usual) {
        Echo::Reply => policy::ANSWER_ECHO,
        Echo::Drop => 0,
        Echo::Pass => policy::PASS_ECHO,
    };
    fragments | options | echo
}

/// The bit of a whole address's policy that says that there is a listener for all its ports.
pub(super) const fn all_ports(protocol: u8) -> u32 {
    if protocol == TCP {
        policy::ALL_TCP
    } else {
        policy::ALL_UDP
    }
}

/// The number of a listener's shield: flows begin at entries alone.
fn shield_of(service: &ServiceState, shields: &BTreeMap<u32, u32>) -> u32 {
    let number = shields.get(&service.vni).filter(|_| !service.at_exit);
    number.copied().unwrap_or_default()
}

/// How much of its weight a target has, in percent.
fn percent(service: &ServiceState, target: &TargetState, host: &HostFacts) -> u64 {
    const WHOLE: u32 = 100;
    if host.servers.starting.is_empty() {
        return WHOLE.into();
    }
    let subject = health::subject(service, target);
    let percent = subject.and_then(|subject| host.servers.starting.get(&subject));
    percent.copied().unwrap_or(WHOLE).into()
}

/// The targets of a listener; at an exit none of whose targets takes new flows those that keep theirs take them: the
/// entries are told to send none, but not at the same moment.
fn at_exit(service: &ServiceState, targets: Vec<(NextHop, Share)>) -> Vec<(NextHop, Share)> {
    if !service.at_exit || targets.iter().any(|(_, share)| matches!(share, Share::Takes(_))) {
        return targets;
    }
    let take = |(hop, share)| match share {
        Share::Keeps => (hop, Share::Takes(1)),
        share => (hop, share),
    };
    targets.into_iter().map(take).collect()
}

/// What a target gets of a listener's flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// New ones, in proportion to the others' weights, which are not 0; and it keeps those that it has.
    Takes(u64),
    /// None that are new: it keeps those that it has.
    Keeps,
    /// None: those that it had go to others. It has its number, by which it is asked whether it serves again.
    Down,
}

impl Share {
    /// By weight.
    #[must_use]
    pub const fn of(weight: u64) -> Self {
        if weight == 0 {
            Self::Keeps
        } else {
            Self::Takes(weight)
        }
    }
}

/// A listener, before its ring has a place.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    /// Its names: one for each port, or one for all that have none.
    pub keys: Vec<ServiceKey>,
    /// Its value, apart from the rings.
    pub value: Service,
    /// Where it leads, with shares.
    pub targets: Vec<(NextHop, Share)>,
    /// The size of its ring, a prime; `None`: by the number of targets.
    pub size: Option<u32>,
}

/// Numbers the targets of listeners, fills their rings, gives these a place, and enters all that.
///
/// # Errors
/// [`Error`]: there is no room, or a listener that was there before.
pub(super) fn place(
    contents: &mut Contents,
    listeners: Vec<Listener>,
    previous: &Contents,
    host: &HostFacts,
) -> Result<(), Error> {
    let capacities = &host.capacities;
    let known = previous
        .targets
        .iter()
        .map(|(number, hop)| (*number, ring::identity(hop)))
        .collect();
    let mut targets = Numbers::new("targets", &known, capacities.targets);
    let mut rings = Rings::new(capacities.rings, &previous.rings);
    let mut placed = Vec::with_capacity(listeners.len());
    for (index, listener) in listeners.into_iter().enumerate() {
        let (members, size) = members(contents, (index, &listener), &mut targets)?;
        let mut value = listener.value;
        (value.first, value.size) = rings.of(contents, members, size)?;
        placed.push((listener.keys, value));
    }
    let mut changed = vnis_whose_members_change(contents, previous);
    changed.extend(shield::vnis_whose_lists_change(contents, previous));
    for (index, (keys, value)) in placed.into_iter().enumerate() {
        let changes = changed.contains(&value.vni);
        for key in keys {
            let mut value = value;
            follow_on(contents, (&key, &mut value), changes, previous, host);
            if contents.services.insert(key, value).is_some() {
                return Err(Error::Repeated {
                    field: entry("services", index, "ports"),
                    value: format!(
                        "{}, protocol {}, port {}",
                        IpAddr::from(key.address),
                        key.protocol,
                        key.port.get()
                    ),
                });
            }
        }
    }
    fits("members", contents.members.len(), capacities.members)
}

/// Services whose targets, or what they take, are not what they were.
fn vnis_whose_members_change(contents: &Contents, previous: &Contents) -> BTreeSet<u32> {
    let (now, before) = (&contents.members, &previous.members);
    let new = now.iter().filter(|(key, takes)| before.get(key) != Some(takes));
    let gone = before.iter().filter(|(key, _)| !now.contains_key(key));
    new.chain(gone).map(|(key, _)| key.vni).collect()
}

/// What a listener keeps of what it was: the ring before, for as long as that counts, and its generation, unless its
/// ring, its members or its lists change.
fn follow_on(
    contents: &mut Contents,
    (key, value): (&ServiceKey, &mut Service),
    its_rest_changes: bool,
    previous: &Contents,
    host: &HostFacts,
) {
    let Some(before) = previous
        .services
        .get(key)
        .filter(|before| before.vni == value.vni)
    else {
        value.generation = low(host.now);
        return;
    };
    let its_ring_changes = (before.first, before.size) != (value.first, value.size);
    value.generation = if its_ring_changes || its_rest_changes {
        next_generation(before.generation, host.now)
    } else {
        before.generation
    };
    let until = |seconds: u64| host.now + seconds * host.hz;
    if its_ring_changes {
        value.previous_first = before.first;
        value.previous_size = before.size;
        value.previous_until = until(RING_BEFORE);
        value.previous_until_udp = until(RING_BEFORE_UDP);
    } else if host.now < before.previous_until {
        value.previous_first = before.previous_first;
        value.previous_size = before.previous_size;
        value.previous_until = before.previous_until;
        value.previous_until_udp = before.previous_until_udp;
    }
    match previous.rings.get(&value.previous_first) {
        Some(slots) if value.previous_size != 0 => {
            contents.rings.insert(value.previous_first, slots.clone());
        }
        _ => {
            value.previous_first = 0;
            value.previous_size = 0;
            value.previous_until = 0;
            value.previous_until_udp = 0;
        }
    }
}

/// A generation that no flow knows yet, not even one that outlived a service of that name: the time, unless changes come
/// faster.
fn next_generation(before: u32, now: u64) -> u32 {
    let is_ahead = low(now).wrapping_sub(before).cast_signed() > 0;
    if is_ahead {
        low(now)
    } else {
        before.wrapping_add(1)
    }
}

/// The lower half.
const fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// IPv6 is for servers of IPv6 that answer themselves, and without what there is of IPv4 alone.
fn is_of_one_family(index: usize, service: &ServiceState) -> Result<(), Error> {
    let refused = |name: &str, value: &dyn ToString, allowed: &str| {
        Err(Error::Value {
            field: entry("services", index, name),
            value: value.to_string(),
            allowed: allowed.into(),
        })
    };
    let is_v6 = service.local.is_ipv6();
    for target in &service.targets {
        let is_wrapped = match target.target {
            Target::Direct { encapsulation, .. } => !matches!(encapsulation, Encapsulation::Vxlan { .. }),
            Target::Pair(_) | Target::Server { .. } => false,
        };
        let server = target.target.server();
        let has_v6 = server.is_some_and(|server| server.is_ipv6());
        if is_v6 != has_v6 || has_v6 && !is_wrapped {
            let what = server.map_or_else(|| "a pair".to_owned(), |server| server.to_string());
            let allowed = if is_v6 {
                "servers of IPv6 that answer themselves, by IP in IP or GUE, since the listener is of IPv6"
            } else {
                "no servers of IPv6, since the listener is of IPv4"
            };
            return refused("targets", &what, allowed);
        }
    }
    let mut lists = service.shield.iter().flat_map(Shield::lists);
    if let Some(list) = lists.next().filter(|_| is_v6) {
        return refused("shield", &list, "no lists yet at a listener of IPv6");
    }
    Ok(())
}

/// What a listener is called in the table of services: by each of its ports, or by none, where it has all. For all the
/// [whole address](whole_addresses) says that there is one.
fn keys(index: usize, service: &ServiceState) -> Result<Vec<ServiceKey>, Error> {
    vni(&entry("services", index, "vni"), service.vni)?;
    if service.ports.is_all() && (service.at_exit || !service.whole_address) {
        return Err(Error::Value {
            field: entry("services", index, "ports"),
            value: service.ports.to_string(),
            allowed: "some ports, where the host has others, and at exits".into(),
        });
    }
    if service.protocol != TCP && service.protocol != UDP {
        return Err(Error::Value {
            field: entry("services", index, "protocol"),
            value: service.protocol.to_string(),
            allowed: "6 (TCP) or 17 (UDP)".into(),
        });
    }
    let ports = if service.ports.is_all() {
        0..=0
    } else {
        service.ports.numbers()
    };
    let key = |port| ServiceKey {
        vni: if service.at_exit { service.vni } else { 0 },
        address: IpKey::from(service.local),
        port: Be16::new(port),
        protocol: service.protocol,
        spare: 0,
    };
    Ok(ports.map(key).collect())
}

/// Who was down when these contents were brought into force: a target that has its number, and no part in its service,
/// where others have. What an agent knows of its host's servers after a restart. One that has an end may have ended: it is
/// not taken for down.
#[must_use]
pub fn recovered(state: &HostState, contents: &Contents) -> BTreeSet<Subject> {
    let numbers = numbers(contents);
    let is_served: BTreeSet<u32> = contents.members.keys().map(|member| member.vni).collect();
    let was_down = |service: &ServiceState, target: &TargetState| {
        let number = numbers.get(&ring::identity(&bare(&target.target)));
        let is_member = |number: &u32| {
            let (vni, target) = (service.vni, *number);
            contents.members.contains_key(&MemberKey { vni, target })
        };
        number.is_some_and(|number| is_served.contains(&service.vni) && !is_member(number))
    };
    let down = health::targets(state)
        .filter(|(service, target)| target.ends_s.is_none() && was_down(service, target));
    down.filter_map(|(service, target)| health::subject(service, target))
        .collect()
}

/// Where a target is, but for a neighbour.
fn bare(target: &Target) -> NextHop {
    match target {
        Target::Pair(pair) => NextHop::path(*pair),
        Target::Server { address, port } => NextHop::server(v4(*address), port.unwrap_or(0)),
        Target::Direct {
            address,
            encapsulation,
        } => direct(*address, *encapsulation, 0),
    }
}

/// The socket mark of what is asked of those who answer clients themselves: by it the port program knows where it goes.
#[must_use]
pub fn marks<'s>(
    subjects: impl IntoIterator<Item = &'s Subject>,
    contents: &Contents,
) -> HashMap<&'s Subject, u32> {
    let numbers = numbers(contents);
    let mark = |subject: &'s Subject| {
        let hop = direct(subject.server, subject.encapsulation?, 0);
        let number = numbers.get(&ring::identity(&hop))?;
        Some((subject, check::MARK | number))
    };
    subjects.into_iter().filter_map(mark).collect()
}

/// The addresses of servers that answer clients themselves, by number.
#[must_use]
pub fn direct_servers(state: &HostState, contents: &Contents) -> HashMap<u32, IpAddr> {
    let numbers = numbers(contents);
    let server = |(_, target): (_, &TargetState)| match target.target {
        Target::Direct { address, .. } => {
            let number = numbers.get(&ring::identity(&bare(&target.target)))?;
            Some((*number, address))
        }
        Target::Pair(_) | Target::Server { .. } => None,
    };
    health::targets(state).filter_map(server).collect()
}

/// The numbers of the targets that each subject of a state's checks stands for: one server may be several targets, and
/// one target several listeners' server.
#[must_use]
pub fn checked(state: &HostState, contents: &Contents) -> BTreeMap<Subject, BTreeSet<u32>> {
    let numbers = numbers(contents);
    let mut checked: BTreeMap<Subject, BTreeSet<u32>> = BTreeMap::new();
    for (service, target) in health::targets(state) {
        if let Some(subject) = health::subject(service, target)
            && let Some(number) = numbers.get(&ring::identity(&bare(&target.target)))
        {
            checked.entry(subject).or_default().insert(*number);
        }
    }
    checked
}

/// The numbers of all targets.
pub(super) fn numbers(contents: &Contents) -> HashMap<ring::Identity, u32> {
    let targets = contents.targets.iter();
    targets
        .map(|(number, hop)| (ring::identity(hop), *number))
        .collect()
}

/// Who has slots in the ring of a listener, and its size.
fn members(
    contents: &mut Contents,
    (index, listener): (usize, &Listener),
    targets: &mut Numbers<'_, ring::Identity>,
) -> Result<(Vec<ring::Member>, u32), Error> {
    let mut members: BTreeMap<ring::Identity, ring::Member> = BTreeMap::new();
    for (hop, share) in &listener.targets {
        let identity = ring::identity(hop);
        let number = targets.of(identity)?;
        contents.targets.insert(number, *hop);
        let key = MemberKey {
            vni: listener.value.vni,
            target: number,
        };
        let weight = match share {
            Share::Takes(weight) => *weight,
            Share::Keeps => {
                contents.members.entry(key).or_insert(KEEPS);
                continue;
            }
            Share::Down => continue,
        };
        contents.members.insert(key, TAKES);
        let member = members.entry(identity).or_insert(ring::Member {
            identity,
            weight: 0,
            number,
        });
        member.weight += weight;
    }
    let members: Vec<ring::Member> = members.into_values().collect();
    let least = ring::size(members.len()).ok_or_else(|| Error::Value {
        field: entry("services", index, "targets"),
        value: format!("{} targets", members.len()),
        allowed: format!("at most {}", ring::MOST_TARGETS),
    })?;
    let size = listener.size.filter(|_| !members.is_empty()).unwrap_or(least);
    Ok((members, size))
}

/// Where a target is.
fn hop(
    contents: &Contents,
    neighbours: &mut Numbers<'_, IpAddr>,
    (index, at_exit, local): (usize, bool, Ipv4Addr),
    target: &Target,
) -> Result<NextHop, Error> {
    let not_at_exit = |value: &str| Error::Value {
        field: entry("services", index, "targets"),
        value: value.into(),
        allowed: "servers, since this host is the listener's exit".into(),
    };
    match target {
        Target::Pair(_) if at_exit => Err(not_at_exit("a pair")),
        Target::Direct { .. } if at_exit => Err(not_at_exit("a server that answers itself")),
        Target::Pair(pair) if contents.pairs.contains_key(pair) => Ok(bare(target)),
        Target::Pair(pair) => Err(Error::Dangling {
            field: entry("services", index, "targets"),
            value: *pair,
            missing: "pairs",
        }),
        Target::Server { address, .. } => {
            in_range(
                entry("services", index, "targets"),
                u32::from(*address),
                1..=u32::MAX,
                "an IPv4 address",
            )?;
            Ok(bare(target))
        }
        Target::Direct {
            address,
            encapsulation,
        } => {
            let neighbour = match encapsulation {
                Encapsulation::Vxlan { host, .. } if *host == local => 0,
                Encapsulation::Vxlan { host, .. } => neighbours.of((*host).into())?,
                Encapsulation::Ipip | Encapsulation::Gue { .. } => neighbours.of(*address)?,
            };
            Ok(direct(*address, *encapsulation, neighbour))
        }
    }
}

/// A server that answers clients itself.
fn direct(address: IpAddr, encapsulation: Encapsulation, neighbour: u32) -> NextHop {
    let (wrap, port) = match encapsulation {
        Encapsulation::Ipip => (Wrap::Ipip, 0),
        Encapsulation::Gue { variant: 0, port } => (Wrap::Gue0, port),
        Encapsulation::Gue { port, .. } => (Wrap::Gue1, port),
        Encapsulation::Vxlan { vni, mac, host } => {
            let tunnel = Tunnel {
                host: u32::from(host),
                vni,
                mac: Mac::from_octets(mac),
            };
            return NextHop::tunnelled(tunnel, neighbour);
        }
    };
    NextHop::direct(wrap, IpKey::from(address), port, neighbour)
}

/// Where rings lie.
struct Rings<'p> {
    ranges: Ranges,
    /// Those of now and those of this state: equal ones are one.
    placed: HashMap<Cow<'p, [u32]>, u32>,
    /// Those of this state by their members and size: a prefix has a listener at each of its addresses.
    filled: HashMap<(Vec<ring::Member>, u32), (u32, u32)>,
}

impl<'p> Rings<'p> {
    fn new(capacity: u32, previous: &'p BTreeMap<u32, Vec<u32>>) -> Self {
        let taken = previous.iter().map(|(first, slots)| (*first, length(slots)));
        let placed = previous
            .iter()
            .map(|(first, slots)| (Cow::Borrowed(&**slots), *first));
        Self {
            ranges: Ranges::new(capacity, taken),
            placed: placed.collect(),
            filled: HashMap::new(),
        }
    }

    /// The first slot and the length of the ring of these members.
    fn of(
        &mut self,
        contents: &mut Contents,
        members: Vec<ring::Member>,
        size: u32,
    ) -> Result<(u32, u32), Error> {
        let key = (members, size);
        if let Some(known) = self.filled.get(&key) {
            return Ok(*known);
        }
        let slots = ring::fill(&key.0, size);
        let place = (self.place(&slots)?, length(&slots));
        if !slots.is_empty() {
            contents.rings.insert(place.0, slots);
        }
        self.filled.insert(key, place);
        Ok(place)
    }

    /// The first slot of a ring: where an equal one is, else that of a range that nothing uses.
    fn place(&mut self, slots: &[u32]) -> Result<u32, Error> {
        if slots.is_empty() {
            return Ok(0);
        }
        if let Some(first) = self.placed.get(slots) {
            return Ok(*first);
        }
        let first = self.ranges.take(length(slots))?;
        self.placed.insert(Cow::Owned(slots.to_vec()), first);
        Ok(first)
    }
}

/// Addresses whose other ports are Kuafu's too, at their entries. A service's answers echo requests: of an accelerated
/// one that would tell of the entry alone.
fn whole_addresses(contents: &mut Contents, state: &HostState, host: &HostFacts) {
    let answered = state.announcements.iter().filter(|one| one.is_answered());
    let answered: BTreeSet<IpAddr> = answered
        .map(|one| one.local)
        .filter(|local| !host.arp.let_go.contains(local))
        .collect();
    for service in &state.services {
        if service.whole_address && !service.at_exit {
            let key = ServiceKey {
                address: IpKey::from(service.local),
                ..ServiceKey::default()
            };
            let whole = contents.services.entry(key).or_default();
            whole.vni = service.vni;
            whole.policy |= policy_of_address(service);
            if service.ports.is_all() {
                whole.policy |= all_ports(service.protocol);
            }
            if answered.contains(&service.local) {
                whole.policy |= policy::ANSWER_ARP;
                whole.set_mac(Mac::from_octets(host.arp.mac));
            }
        }
    }
}

/// The size of a ring; none is longer than the largest of the ladder.
fn length(slots: &[u32]) -> u32 {
    u32::try_from(slots.len()).unwrap_or(u32::MAX)
}
