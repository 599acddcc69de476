//! From messages to model's types: each value is checked once, here.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use kuafu_model::kinds::{Cidr, ConfigNumber, ConnectionIds, IdOctets, PacketPolicy, PortRange};
use kuafu_model::state::{
    Announcement, Ask, Bfd, Check, Daemon, Encapsulation, Host, HostState, LegKey, LegState, PairState,
    PathState, PortState, PrefixListState, RemoteEndpoint, Router, Served, ServiceState, Shield, SlotAction,
    SlotState, Speaker, Target, TargetState, VtepState, Way,
};

use super::StateError;
use crate::v1;

type Result<T> = std::result::Result<T, StateError>;

/// A message that is read into one of model's types.
pub(crate) trait Read: Sized {
    type Message;

    /// Errors name the field without the path to the message.
    fn read(message: Self::Message) -> Result<Self>;
}

pub(super) fn host_state(message: v1::HostState) -> Result<HostState> {
    Ok(HostState {
        cluster: message.cluster,
        revision: message.revision,
        node: Host::read(required("node", message.node)?).map_err(|error| error.within("node"))?,
        ports: all("ports", message.ports)?,
        endpoints: all("endpoints", message.endpoints)?,
        vteps: all("vteps", message.vteps)?,
        slots: all("slots", message.slots)?,
        paths: all("paths", message.paths)?,
        pairs: all("pairs", message.pairs)?,
        services: all("services", message.services)?,
        prefix_lists: all("prefix_lists", message.prefix_lists)?,
        announcements: all("announcements", message.announcements)?,
    })
}

/// A list of messages; an error names the entry.
pub(crate) fn all<T: Read>(field: &str, messages: Vec<T::Message>) -> Result<Vec<T>> {
    let entries = messages.into_iter().enumerate();
    entries
        .map(|(index, message)| T::read(message).map_err(|error| error.within(&format!("{field}[{index}]"))))
        .collect()
}

impl StateError {
    pub(crate) fn within(self, outer: &str) -> Self {
        match self {
            Self::Field {
                field,
                value,
                expected,
            } => Self::Field {
                field: format!("{outer}.{field}"),
                value,
                expected,
            },
            other => other,
        }
    }
}

fn wrong(field: &str, value: impl ToString, expected: &'static str) -> StateError {
    StateError::Field {
        field: field.to_owned(),
        value: value.to_string(),
        expected,
    }
}

fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| wrong(field, "", "given, as it must be"))
}

/// One of a kind's words, where there is one.
fn word<T: FromStr>(field: &str, word: Option<String>) -> Result<Option<T>> {
    let read = |word: String| {
        word.parse()
            .map_err(|_| wrong(field, word, "a word that this version knows"))
    };
    word.map(read).transpose()
}

fn text(field: &str, value: String) -> Result<String> {
    if value.is_empty() {
        return Err(wrong(field, value, "a text that is not empty"));
    }
    Ok(value)
}

/// An address of either family.
pub(crate) fn ip(field: &str, value: &str) -> Result<IpAddr> {
    let address = value.parse().map_err(|_| wrong(field, value, "an IP address"))?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(wrong(field, value, "an IPv4 address as such"))
        }
        address => Ok(address),
    }
}

pub(crate) fn address(field: &str, value: &str) -> Result<Ipv4Addr> {
    value.parse().map_err(|_| wrong(field, value, "an IPv4 address"))
}

fn mac(field: &str, value: &str) -> Result<[u8; 6]> {
    let expected = "an Ethernet address, such as 02:00:00:00:00:01";
    let bytes: Option<Vec<u8>> = value
        .split(':')
        .map(|byte| {
            (byte.len() == 2)
                .then(|| u8::from_str_radix(byte, 16).ok())
                .flatten()
        })
        .collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| wrong(field, value, expected))
}

/// A port, or a number of 16 bits that is not 0.
fn port(field: &str, value: u32) -> Result<u16> {
    match u16::try_from(value) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(wrong(field, value, "1 to 65,535")),
    }
}

/// The ports of a listener, of which the last is not said where there is but one.
fn ports(first: u32, last: Option<u32>) -> Result<PortRange> {
    let first = port("port", first)?;
    let last = last
        .map(|value| port("last_port", value))
        .transpose()?
        .unwrap_or(first);
    PortRange::of(first..=last).ok_or_else(|| wrong("last_port", last, "port, or more"))
}

fn vni(value: u32) -> Result<u32> {
    if (1..1 << 24).contains(&value) {
        Ok(value)
    } else {
        Err(wrong("vni", value, "1 to 16,777,215"))
    }
}

fn index(field: &str, value: u32) -> Result<u32> {
    if value == 0 {
        return Err(wrong(field, value, "1 or more"));
    }
    Ok(value)
}

fn label(value: u32) -> Result<u32> {
    port("label", value).map(Into::into)
}

fn mtu(value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| wrong("mtu", value, "0 to 65,535"))
}

impl Read for Host {
    type Message = v1::Host;

    fn read(message: v1::Host) -> Result<Self> {
        let nat_ports = message.nat_ports.map(|range| {
            let (first, last) = (
                port("nat_ports.first", range.first)?,
                port("nat_ports.last", range.last)?,
            );
            if first > last {
                return Err(wrong("nat_ports", format!("{first}-{last}"), "a range upwards"));
            }
            Ok(first..=last)
        });
        Ok(Self {
            id: port("id", message.id)?,
            name: text("name", message.name)?,
            local: address("local", &message.local)?,
            public: address("public", &message.public)?,
            overlay: address("overlay", &message.overlay)?,
            udp_port: port("udp_port", message.udp_port)?,
            nat_ports: nat_ports.transpose()?,
        })
    }
}

impl Read for PortState {
    type Message = v1::PortState;

    fn read(message: v1::PortState) -> Result<Self> {
        Ok(Self {
            name: text("name", message.name)?,
            vni: vni(message.vni)?,
            address: address("address", &message.address)?,
            mac: mac("mac", &message.mac)?,
            interface: text("interface", message.interface)?,
            mtu: message.mtu.map(mtu).transpose()?,
            serves: all("serves", message.serves)?,
        })
    }
}

impl Read for Served {
    type Message = v1::Served;

    fn read(message: v1::Served) -> Result<Self> {
        Ok(Self {
            address: address("address", &message.address)?,
            protocol: protocol(message.protocol)?,
            ports: ports(message.port, message.last_port)?,
        })
    }
}

impl Read for RemoteEndpoint {
    type Message = v1::RemoteEndpoint;

    fn read(message: v1::RemoteEndpoint) -> Result<Self> {
        Ok(Self {
            vni: vni(message.vni)?,
            address: address("address", &message.address)?,
            mac: mac("mac", &message.mac)?,
            host: address("host", &message.host)?,
        })
    }
}

impl Read for VtepState {
    type Message = v1::VtepState;

    fn read(message: v1::VtepState) -> Result<Self> {
        Ok(Self {
            vni: vni(message.vni)?,
            address: address("address", &message.address)?,
        })
    }
}

impl Read for LegKey {
    type Message = v1::LegKey;

    fn read(message: v1::LegKey) -> Result<Self> {
        let epoch = u8::try_from(message.epoch).ok().filter(|epoch| *epoch < 4);
        let length = message.key.len();
        Ok(Self {
            epoch: epoch.ok_or_else(|| wrong("epoch", message.epoch, "0 to 3"))?,
            key: message
                .key
                .try_into()
                .map_err(|_| wrong("key", format!("{length} bytes"), "a key of 16 bytes"))?,
        })
    }
}

fn keys(messages: Vec<v1::LegKey>) -> Result<Vec<LegKey>> {
    if messages.is_empty() {
        return Err(wrong("keys", "[]", "one key or more"));
    }
    all("keys", messages)
}

impl Read for LegState {
    type Message = v1::LegState;

    fn read(message: v1::LegState) -> Result<Self> {
        Ok(Self {
            keys: keys(message.keys)?,
            label: label(message.label)?,
            address: address("address", &message.address)?,
            port: port("port", message.port)?,
            source_port: port("source_port", message.source_port)?,
        })
    }
}

impl Read for SlotState {
    type Message = v1::SlotState;

    fn read(message: v1::SlotState) -> Result<Self> {
        let action = match (message.relay, message.exit) {
            (Some(leg), None) => {
                SlotAction::Relay(LegState::read(leg).map_err(|error| error.within("relay"))?)
            }
            (None, Some(exit)) => SlotAction::Exit {
                twin: exit.twin,
                window: exit.window,
                answers: exit.answers,
            },
            (None, None) => return Err(wrong("relay", "", "given, where exit is not")),
            (Some(_), Some(_)) => return Err(wrong("exit", "", "left out, where relay is given")),
        };
        Ok(Self {
            label: label(message.label)?,
            source: address("source", &message.source)?,
            keys: keys(message.keys)?,
            action,
        })
    }
}

impl Read for PathState {
    type Message = v1::PathState;

    fn read(message: v1::PathState) -> Result<Self> {
        let leg = required("leg", message.leg)?;
        Ok(Self {
            index: index("index", message.index)?,
            id: message.id,
            nodes: message.nodes,
            leg: LegState::read(leg).map_err(|error| error.within("leg"))?,
            near: message.near,
        })
    }
}

impl Read for PairState {
    type Message = v1::PairState;

    fn read(message: v1::PairState) -> Result<Self> {
        Ok(Self {
            index: message.index,
            peer: text("peer", message.peer)?,
            class: message.class,
            premium: message.premium,
            duplicate: message.duplicate,
            primary: message.primary,
            backup: message.backup,
        })
    }
}

impl Read for ConnectionIds {
    type Message = v1::ConnectionIds;

    fn read(message: v1::ConnectionIds) -> Result<Self> {
        let Some(message) = message.quic_lb else {
            return Ok(Self::Tagged);
        };
        let octet = |value| u8::try_from(value).ok();
        let config = octet(message.config).and_then(ConfigNumber::new);
        let octets = octet(message.octets).and_then(IdOctets::new);
        Ok(Self::QuicLb {
            config: config.ok_or_else(|| wrong("quic_lb.config", message.config, "0 to 6"))?,
            octets: octets.ok_or_else(|| wrong("quic_lb.octets", message.octets, "1 to 8"))?,
        })
    }
}

impl Read for ServiceState {
    type Message = v1::ServiceState;

    fn read(message: v1::ServiceState) -> Result<Self> {
        Ok(Self {
            vni: vni(message.vni)?,
            name: message.name,
            own: message.own,
            at_exit: message.at_exit,
            local: ip("local", &message.local)?,
            public: ip("public", &message.public)?,
            whole_address: message.whole_address,
            protocol: protocol(message.protocol)?,
            ports: ports(message.port, message.last_port)?,
            idle_timeout_s: message.idle_timeout_s,
            bandwidth_mbps: message.bandwidth_mbps,
            mtu: message.mtu.map(mtu).transpose()?,
            asked_at: message
                .asked_at
                .map(|address| ip("asked_at", &address))
                .transpose()?,
            affinity: word("affinity", message.affinity)?.unwrap_or_default(),
            connection_ids: message
                .connection_ids
                .map(|ids| ConnectionIds::read(ids).map_err(|error| error.within("connection_ids")))
                .transpose()?,
            packets: message
                .packets
                .map(|packets| PacketPolicy::read(packets).map_err(|error| error.within("packets")))
                .transpose()?
                .unwrap_or_default(),
            targets: all("targets", message.targets)?,
            shield: message
                .shield
                .map(|shield| Shield::read(shield).map_err(|error| error.within("shield")))
                .transpose()?,
        })
    }
}

impl Read for Shield {
    type Message = v1::Shield;

    fn read(message: v1::Shield) -> Result<Self> {
        let rate = |name, value| match value {
            1..=100_000_000 => Ok(value),
            _ => Err(wrong(name, value, "1 to 100,000,000")),
        };
        let some = |name, value: Option<u32>| value.map(|value| rate(name, value)).transpose();
        Ok(Self {
            enforces: message.enforces,
            alarm_new_per_s: some("alarm_new_per_s", message.alarm_new_per_s)?,
            hold_s: match message.hold_s {
                seconds @ 1..=3600 => seconds,
                other => return Err(wrong("hold_s", other, "1 to 3600")),
            },
            syn_cookies: message.syn_cookies,
            drop_amplifiers: message.drop_amplifiers,
            admitted_only: message.admitted_only,
            source_new_per_s: rate("source_new_per_s", message.source_new_per_s)?,
            prefix_new_per_s: rate("prefix_new_per_s", message.prefix_new_per_s)?,
            new_per_s: some("new_per_s", message.new_per_s)?,
            block: message.block,
            allow: message.allow,
        })
    }
}

impl Read for PacketPolicy {
    type Message = v1::PacketPolicy;

    fn read(message: v1::PacketPolicy) -> Result<Self> {
        let usual = Self::default();
        Ok(Self {
            fragments: word("fragments", message.fragments)?.unwrap_or(usual.fragments),
            ipv4_options: word("ipv4_options", message.ipv4_options)?.unwrap_or(usual.ipv4_options),
            echo: word("echo", message.echo)?,
            oversize: word("oversize", message.oversize)?.unwrap_or(usual.oversize),
        })
    }
}

impl Read for PrefixListState {
    type Message = v1::PrefixListState;

    fn read(message: v1::PrefixListState) -> Result<Self> {
        let prefix = |(index, text): (usize, &String)| -> Result<Cidr> {
            let expected = "an IPv4 prefix without bits outside it, such as 10.0.0.0/16";
            text.parse()
                .map_err(|_| wrong(&format!("prefixes[{index}]"), text, expected))
        };
        let prefixes = message.prefixes.iter().enumerate();
        Ok(Self {
            name: text("name", message.name)?,
            prefixes: prefixes.map(prefix).collect::<Result<_>>()?,
        })
    }
}

fn port_of_vpc(message: v1::VpcTarget) -> Result<Target> {
    Ok(Target::Direct {
        address: address("vpc.address", &message.address)?.into(),
        encapsulation: Encapsulation::Vxlan {
            vni: vni(message.vni).map_err(|error| error.within("vpc"))?,
            mac: mac("vpc.mac", &message.mac)?,
            host: address("vpc.host", &message.host)?,
        },
    })
}

fn gue(message: v1::Gue) -> Result<Encapsulation> {
    let variant = match message.variant {
        0 => 0,
        1 => 1,
        other => return Err(wrong("direct.gue.variant", other, "0 or 1")),
    };
    Ok(Encapsulation::Gue {
        port: port("direct.gue.port", message.port)?,
        variant,
    })
}

pub(crate) fn protocol(value: u32) -> Result<u8> {
    match value {
        6 => Ok(6),
        17 => Ok(17),
        _ => Err(wrong("protocol", value, "6 (TCP) or 17 (UDP)")),
    }
}

impl Read for TargetState {
    type Message = v1::TargetState;

    fn read(message: v1::TargetState) -> Result<Self> {
        let kinds = (message.pair, message.server, message.direct, message.vpc);
        let target = match kinds {
            (Some(pair), None, None, None) => Target::Pair(pair),
            (None, Some(server), None, None) => Target::Server {
                address: address("server.address", &server.address)?,
                port: server.port.map(|value| port("server.port", value)).transpose()?,
            },
            (None, None, Some(direct), None) => Target::Direct {
                address: ip("direct.address", &direct.address)?,
                encapsulation: direct.gue.map_or(Ok(Encapsulation::Ipip), gue)?,
            },
            (None, None, None, Some(port)) => port_of_vpc(port)?,
            (None, None, None, None) => {
                return Err(wrong("pair", "", "given, where server, direct and vpc are not"));
            }
            (Some(_), ..) => {
                return Err(wrong(
                    "pair",
                    "",
                    "left out, where server, direct or vpc is given",
                ));
            }
            (None, Some(_), ..) => {
                return Err(wrong("server", "", "left out, where direct or vpc is given"));
            }
            (None, None, Some(_), Some(_)) => {
                return Err(wrong("direct", "", "left out, where vpc is given"));
            }
        };
        Ok(Self {
            weight: message.weight,
            target,
            check: message
                .check
                .map(|check| Check::read(check).map_err(|error| error.within("check")))
                .transpose()?
                .map(Arc::new),
            server_id: message.server_id,
            ends_s: message.ends_s,
            group: message.group,
            rank: message.rank,
            counted: message.counted.map(Into::into),
        })
    }
}

impl Read for Check {
    type Message = v1::Check;

    fn read(message: v1::Check) -> Result<Self> {
        let one = |name, value| match value {
            0 => Err(wrong(name, value, "1 or more")),
            value => Ok(value),
        };
        Ok(Self {
            port: message.port.map(|value| port("port", value)).transpose()?,
            interval_ms: one("interval_ms", message.interval_ms)?,
            timeout_ms: one("timeout_ms", message.timeout_ms)?,
            rise: one("rise", message.rise)?,
            fall: one("fall", message.fall)?,
            least_percent: match message.least_percent {
                percent @ 0..=100 => percent,
                other => return Err(wrong("least_percent", other, "0 to 100")),
            },
            slow_start_s: message.slow_start_s,
            service: message.service.clone(),
            ask: ask(message)?,
        })
    }
}

/// What a check asks.
fn ask(message: v1::Check) -> Result<Ask> {
    let plain = [
        (message.tcp, Ask::Tcp),
        (message.a2s, Ask::A2s),
        (message.quake3, Ask::Quake3),
        (message.minecraft, Ask::Minecraft),
    ];
    let plain = plain.into_iter().filter(|(given, _)| given.is_some());
    let http = message.http.map(|http| -> Result<Ask> {
        Ok(Ask::Http {
            tls: http.tls,
            path: http.path,
            host: http.host,
            status: (
                status("http.first_status", http.first_status)?,
                status("http.last_status", http.last_status)?,
            ),
        })
    });
    let udp = message.udp.map(|udp| Ask::Udp {
        send: udp.send,
        expect: udp.expect,
    });
    let quic = message.quic.map(|quic| Ask::Quic {
        alpn: quic.alpn,
        host: quic.host,
    });
    let grpc = message.grpc.map(|grpc| Ask::Grpc {
        service: grpc.service,
    });
    let mut asks = plain
        .map(|(_, ask)| ask)
        .chain(http.transpose()?)
        .chain(udp)
        .chain(quic)
        .chain(grpc);
    match (asks.next(), asks.next()) {
        (Some(ask), None) => Ok(ask),
        (None, _) => Err(wrong("tcp", "", "given, or another one that is known here")),
        (Some(_), Some(_)) => Err(wrong("tcp", "", "the only one")),
    }
}

impl Read for Announcement {
    type Message = v1::Announcement;

    fn read(message: v1::Announcement) -> Result<Self> {
        let hook = |hook: v1::announcement::Hook| -> Result<Way> {
            Ok(Way::Hook {
                command: text("hook.command", hook.command)?,
                timeout_s: index("hook.timeout_s", hook.timeout_s)?,
            })
        };
        let way = match (message.arp, message.hook, message.bgp) {
            (Some(_), None, None) => Way::Arp,
            (None, Some(message), None) => hook(message)?,
            (None, None, Some(message)) => bgp(message)?,
            (None, None, None) => return Err(wrong("arp", "", "given, where hook and bgp are not")),
            _ => return Err(wrong("arp", "", "the only one beside hook and bgp")),
        };
        let (local, public) = (ip("local", &message.local)?, ip("public", &message.public)?);
        if local.is_ipv4() != public.is_ipv4() {
            return Err(wrong("public", public, "an address of the same family as local"));
        }
        let width = Self::width(local);
        let length = match (message.length, &way) {
            (None, _) => width,
            (Some(length), Way::Bgp { .. }) => {
                let of_prefix = u8::try_from(length)
                    .ok()
                    .filter(|length| (1..width).contains(length));
                of_prefix.ok_or_else(|| wrong("length", length, "1 to 31, or of IPv6 to 127"))?
            }
            (Some(length), _) => return Err(wrong("length", length, "absent, but for bgp")),
        };
        Ok(Self {
            local: network("local", local, length)?,
            public: network("public", public, length)?,
            length,
            here: message.here,
            term: message.term,
            way,
        })
    }
}

/// The address, where it is the first of a prefix of that length.
fn network(field: &str, first: IpAddr, length: u8) -> Result<IpAddr> {
    let bits = match first {
        IpAddr::V4(first) => u128::from(u32::from(first)) << 96,
        IpAddr::V6(first) => first.into(),
    };
    let beyond = u128::MAX.checked_shr(length.into()).unwrap_or(0);
    if bits & beyond == 0 {
        Ok(first)
    } else {
        Err(wrong(field, first, "the first address of the prefix"))
    }
}

fn bgp(message: v1::announcement::Bgp) -> Result<Way> {
    let peer = |peer: &v1::announcement::Peer| -> Result<Router> {
        let hops = |hops: u32| {
            let within = u8::try_from(hops).ok().filter(|hops| *hops > 0);
            within.ok_or_else(|| wrong("bgp.peers.multihop", hops.to_string(), "1 to 255"))
        };
        let file = peer.password_file.clone();
        Ok(Router {
            address: address("bgp.peers.address", &peer.address)?,
            number: index("bgp.peers.as", peer.r#as)?,
            multihop: peer.multihop.map(hops).transpose()?,
            password_file: file
                .map(|file| text("bgp.peers.password_file", file))
                .transpose()?,
        })
    };
    let bfd = |bfd: v1::announcement::Bfd| -> Result<Bfd> {
        Ok(Bfd {
            interval_ms: index("bgp.frr.bfd.interval_ms", bfd.interval_ms)?,
            multiplier: index("bgp.frr.bfd.multiplier", bfd.multiplier)?,
        })
    };
    let frr = |frr: v1::announcement::Frr| -> Result<Daemon> {
        Ok(Daemon::Frr {
            bfd: frr.bfd.map(bfd).transpose()?,
        })
    };
    Ok(Way::Bgp {
        speaker: Speaker {
            daemon: message.frr.map_or(Ok(Daemon::Gobgp), frr)?,
            number: index("bgp.as", message.r#as)?,
            peers: message.peers.iter().map(peer).collect::<Result<_>>()?,
            port: port("bgp.port", message.port)?,
        },
        communities: message.communities,
        med: message.med,
    })
}

fn status(name: &'static str, value: u32) -> Result<u16> {
    let status = u16::try_from(value)
        .ok()
        .filter(|status| (100..=599).contains(status));
    status.ok_or_else(|| wrong(name, value, "100 to 599"))
}
