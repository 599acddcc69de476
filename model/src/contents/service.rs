//! Listeners, their rings and their targets.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use kuafu_pipeline::header::ipv4::{TCP, UDP};
use kuafu_pipeline::map::{Be16, IpKey, NextHop, Service, ServiceKey, Wrap};

use super::allocate::{Numbers, Ranges};
use super::error::{entry, fits, in_range};
use super::vpc::{v4, vni};
use super::{Contents, Error, HostFacts, limit, ring};
use crate::state::{Encapsulation, HostState, ServiceState, Target};

/// Every port but 0, which stands for the whole address.
const PORTS: RangeInclusive<u32> = 1..=0xffff;

/// Fills in what listeners need.
pub(super) fn fill(
    contents: &mut Contents,
    neighbours: &mut Numbers<'_, Ipv4Addr>,
    state: &HostState,
    host: &HostFacts,
    previous: &Contents,
) -> Result<(), Error> {
    let capacities = &host.capacities;
    let limits = limit::fill(contents, state, host, previous)?;
    let known = previous
        .targets
        .iter()
        .map(|(number, hop)| (*number, ring::identity(hop)))
        .collect();
    let mut targets = Numbers::new("targets", &known, capacities.targets);
    let mut rings = Rings::new(capacities.rings, &previous.rings);
    for (index, service) in state.services.iter().enumerate() {
        let key = key(index, service)?;
        let slots = slots(contents, (index, service), (&mut targets, neighbours))?;
        let first = rings.place(&slots)?;
        let value = Service {
            vni: service.vni,
            first,
            size: length(&slots),
            limit: limits.get(&service.vni).copied().unwrap_or_default(),
        };
        if contents.services.insert(key, value).is_some() {
            return Err(Error::Repeated {
                field: entry("services", index, "port"),
                value: format!(
                    "{}, protocol {}, port {}",
                    service.local, service.protocol, service.port
                ),
            });
        }
        if !slots.is_empty() {
            contents.rings.insert(first, slots);
        }
    }
    whole_addresses(contents, state);
    fits("services", contents.services.len(), capacities.services)
}

fn key(index: usize, service: &ServiceState) -> Result<ServiceKey, Error> {
    vni(&entry("services", index, "vni"), service.vni)?;
    in_range(
        entry("services", index, "port"),
        u32::from(service.port),
        PORTS,
        "1 to 65535",
    )?;
    if service.protocol != TCP && service.protocol != UDP {
        return Err(Error::Value {
            field: entry("services", index, "protocol"),
            value: service.protocol.to_string(),
            allowed: "6 (TCP) or 17 (UDP)".into(),
        });
    }
    Ok(ServiceKey {
        vni: if service.at_exit { service.vni } else { 0 },
        address: v4(service.local),
        port: Be16::new(service.port),
        protocol: service.protocol,
        spare: 0,
    })
}

/// The ring of a listener: a target's number for each slot.
fn slots(
    contents: &mut Contents,
    (index, service): (usize, &ServiceState),
    (targets, neighbours): (&mut Numbers<'_, ring::Identity>, &mut Numbers<'_, Ipv4Addr>),
) -> Result<Vec<u32>, Error> {
    let mut weights: BTreeMap<ring::Identity, (NextHop, u64)> = BTreeMap::new();
    for target in service.targets.iter().filter(|target| target.weight > 0) {
        let hop = hop(contents, neighbours, (index, service.at_exit), &target.target)?;
        let known = weights.entry(ring::identity(&hop)).or_insert((hop, 0));
        known.1 += u64::from(target.weight);
    }
    let mut members = Vec::with_capacity(weights.len());
    for (identity, (hop, weight)) in weights {
        let number = targets.of(identity)?;
        contents.targets.insert(number, hop);
        members.push(ring::Member {
            identity,
            weight,
            number,
        });
    }
    let size = ring::size(members.len()).ok_or_else(|| Error::Value {
        field: entry("services", index, "targets"),
        value: format!("{} targets", members.len()),
        allowed: format!("at most {}", ring::MOST_TARGETS),
    })?;
    Ok(ring::fill(&members, size))
}

/// Where a target is.
fn hop(
    contents: &Contents,
    neighbours: &mut Numbers<'_, Ipv4Addr>,
    (index, at_exit): (usize, bool),
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
        Target::Pair(pair) if contents.pairs.contains_key(pair) => Ok(NextHop::path(*pair)),
        Target::Pair(pair) => Err(Error::Dangling {
            field: entry("services", index, "targets"),
            value: *pair,
            missing: "pairs",
        }),
        Target::Server { address, port } => {
            in_range(
                entry("services", index, "targets"),
                u32::from(*address),
                1..=u32::MAX,
                "an IPv4 address",
            )?;
            Ok(NextHop::server(v4(*address), port.unwrap_or(0)))
        }
        Target::Direct {
            address,
            encapsulation,
        } => {
            let (wrap, port) = match encapsulation {
                Encapsulation::Ipip => (Wrap::Ipip, 0),
                Encapsulation::Gue { variant: 0, port } => (Wrap::Gue0, *port),
                Encapsulation::Gue { port, .. } => (Wrap::Gue1, *port),
            };
            Ok(NextHop::direct(
                wrap,
                v4(*address),
                port,
                neighbours.of(*address)?,
            ))
        }
    }
}

/// Where rings lie.
struct Rings<'p> {
    ranges: Ranges,
    /// Those of now and those of this state: equal ones are one.
    placed: HashMap<Cow<'p, [u32]>, u32>,
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
        }
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

/// Addresses whose other ports are Kuafu's too, at their entries.
fn whole_addresses(contents: &mut Contents, state: &HostState) {
    for service in &state.services {
        if service.whole_address && !service.at_exit {
            let key = ServiceKey {
                address: IpKey::v4(u32::from(service.local)),
                ..ServiceKey::default()
            };
            let value = Service {
                vni: service.vni,
                ..Service::default()
            };
            contents.services.insert(key, value);
        }
    }
}

/// The size of a ring; none is longer than the largest of the ladder.
fn length(slots: &[u32]) -> u32 {
    u32::try_from(slots.len()).unwrap_or(u32::MAX)
}
