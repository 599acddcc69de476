//! Each look-up of a packet's way, as people read it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kuafu_pipeline::map::{
    Connection, ConnectionKey, EndpointKey, FirstFragment, FragmentKey, HopKind, IpKey, KEEPS, Limit,
    NextHop, Service, ServiceKey, Shield, SlotKind, TAKES, Tunnel, VtepKey, Wrap, guard,
};
use kuafu_pipeline::{Event, Route};

/// Something that happened on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A map was asked.
    LookUp {
        /// The map.
        map: &'static str,
        /// What for.
        key: String,
        /// What it held; `None`: nothing.
        found: Option<String>,
    },
    /// Something was counted.
    Count(Event),
    /// Something else was done.
    Do {
        /// What.
        what: &'static str,
        /// To what.
        with: String,
        /// Whether it could be done.
        done: bool,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LookUp { map, key, found } => {
                let found = found.as_deref().unwrap_or("nothing");
                write!(f, "{map} {key}: {found}")
            }
            Self::Count(event) => write!(f, "counted as {}", event.word()),
            Self::Do { what, with, done } => {
                write!(f, "{what} {with}: {}", if *done { "done" } else { "refused" })
            }
        }
    }
}

/// An address of a key.
pub(super) fn address(key: IpKey) -> String {
    IpAddr::from(key).to_string()
}

/// A /64 of IPv6, by its first bits.
pub(super) fn network(network: u64) -> String {
    format!("{}/64", Ipv6Addr::from(u128::from(network) << 64))
}

pub(super) fn endpoint(key: &EndpointKey) -> String {
    format!("{} in VNI {}", address(key.address), key.vni)
}

pub(super) fn sender(key: &VtepKey) -> String {
    format!("{} in VNI {}", Ipv4Addr::from(key.address.get()), key.vni)
}

pub(super) fn service(key: &ServiceKey) -> String {
    let whom = match key.vni {
        0 => String::from("from the Internet"),
        vni => format!("of accelerator {vni}"),
    };
    format!(
        "{}:{}/{} {whom}",
        address(key.address),
        key.port.get(),
        protocol(u32::from(key.protocol))
    )
}

pub(super) fn service_value(service: &Service) -> String {
    format!(
        "number {}, ring of {} from {}",
        service.vni, service.size, service.first
    )
}

pub(super) fn takes(takes: &u32) -> String {
    match *takes {
        TAKES => "takes new flows",
        KEEPS => "keeps what it has",
        _ => "takes nothing",
    }
    .into()
}

pub(super) fn connection(key: &ConnectionKey) -> String {
    format!(
        "{}:{} > {}:{}/{} in VNI {}",
        address(key.source),
        key.source_port.get(),
        address(key.destination),
        key.destination_port.get(),
        protocol(key.protocol),
        key.vni
    )
}

pub(super) fn fragment(key: &FragmentKey) -> String {
    format!(
        "datagram {} {} > {}/{} in VNI {}",
        key.datagram >> 16,
        Ipv4Addr::from(key.source.get()),
        Ipv4Addr::from(key.destination.get()),
        protocol(key.datagram & 0xff),
        key.vni
    )
}

pub(super) fn first_fragment(first: &FirstFragment, now: u64) -> String {
    match first.ports(now) {
        Some([from, to]) => format!("the first fragment's ports are {from} > {to}"),
        None => "the first fragment was seen too long ago".into(),
    }
}

pub(super) fn connection_value(value: &Connection) -> String {
    format!(
        "leaves as {}:{} > {}:{}, answers by pair {}",
        address(value.source),
        value.source_port.get(),
        address(value.destination),
        value.destination_port.get(),
        value.pair()
    )
}

fn protocol(number: u32) -> String {
    match number {
        6 => "tcp".into(),
        17 => "udp".into(),
        other => other.to_string(),
    }
}

pub(super) fn next_hop(hop: &NextHop) -> String {
    match hop.kind() {
        HopKind::Nowhere => "nowhere".into(),
        HopKind::Port => format!("port on interface {}", hop.index),
        HopKind::Vtep => format!("VTEP {}", hop.index),
        HopKind::Server => format!("server {}:{}", address(hop.address), hop.port.get()),
        HopKind::Path => format!("pair {}", hop.index),
        HopKind::Direct(wrap) => {
            let (to, port) = (address(hop.address), hop.port.get());
            match wrap {
                Wrap::Ipip => format!("server {to} by IPIP"),
                Wrap::Gue0 => format!("server {to} by GUE, variant 0, port {port}"),
                Wrap::Gue1 => format!("server {to} by GUE, variant 1, port {port}"),
                Wrap::Vxlan => {
                    let Tunnel { host, vni, mac } = hop.tunnel();
                    let [a, b, c, d, e, f] = mac.octets();
                    format!(
                        "port {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} of VNI {vni} at {} by VXLAN",
                        Ipv4Addr::from(host)
                    )
                }
            }
        }
    }
}

pub(super) fn limit(limit: &Limit) -> String {
    let is = if limit.cost == 0 { "not limited" } else { "limited" };
    format!("accelerator {} is {is}", limit.vni)
}

pub(super) fn shield(shield: &Shield) -> String {
    let does = if shield.has(guard::ENFORCES) {
        "enforces"
    } else {
        "observes"
    };
    format!("{does} for {}", shield.vni)
}

pub(super) fn until(until: u64, now: u64) -> String {
    let is = if now < until { "is" } else { "was" };
    format!("{is} until jiffy {until}")
}

/// A prefix of the lists' table.
pub(super) fn listed(key: u64) -> String {
    let bits = key >> 32;
    let network = u32::try_from(key & u64::from(u32::MAX)).unwrap_or_default();
    format!("{}/{bits}", Ipv4Addr::from(network << (32 - bits)))
}

pub(super) const fn slot_kind(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Free => "free",
        SlotKind::Relay => "relay",
        SlotKind::Exit => "exit",
    }
}

pub(super) fn route(route: &Route) -> String {
    format!("out of interface {}", route.interface)
}
