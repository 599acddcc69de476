//! From model's types to messages.

use kuafu_model::kinds::{Affinity, Cidr, ConnectionIds, PacketPolicy, PortRange};
use kuafu_model::state::{
    Announcement, Ask, Check, Daemon, Encapsulation, Host, HostState, LegKey, LegState, PairState, PathState,
    PortState, PrefixListState, RemoteEndpoint, Served, ServiceState, Shield, SlotAction, SlotState, Target,
    TargetState, VtepState, Way,
};

use super::SCHEMA;
use crate::v1;
use crate::v1::announcement::{Arp, Bfd, Bgp, Frr, Hook, Peer};
use crate::v1::check::{Grpc, Http, Plain, Quic, Udp};
use crate::v1::connection_ids::QuicLb;

/// An Ethernet address as people write it.
pub(crate) fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn all<'a, T: 'a, M: From<&'a T>>(entries: &'a [T]) -> Vec<M> {
    entries.iter().map(M::from).collect()
}

impl From<&HostState> for v1::HostState {
    fn from(state: &HostState) -> Self {
        Self {
            schema: SCHEMA,
            cluster: state.cluster.clone(),
            revision: state.revision,
            node: Some((&state.node).into()),
            ports: all(&state.ports),
            endpoints: all(&state.endpoints),
            vteps: all(&state.vteps),
            slots: all(&state.slots),
            paths: all(&state.paths),
            pairs: all(&state.pairs),
            services: all(&state.services),
            prefix_lists: all(&state.prefix_lists),
            announcements: all(&state.announcements),
        }
    }
}

impl From<&Host> for v1::Host {
    fn from(host: &Host) -> Self {
        Self {
            id: host.id.into(),
            name: host.name.clone(),
            local: host.local.to_string(),
            public: host.public.to_string(),
            overlay: host.overlay.to_string(),
            udp_port: host.udp_port.into(),
            nat_ports: host.nat_ports.as_ref().map(|ports| v1::PortRange {
                first: (*ports.start()).into(),
                last: (*ports.end()).into(),
            }),
        }
    }
}

impl From<&PortState> for v1::PortState {
    fn from(port: &PortState) -> Self {
        Self {
            name: port.name.clone(),
            vni: port.vni,
            address: port.address.to_string(),
            mac: mac(port.mac),
            interface: port.interface.clone(),
            mtu: port.mtu.map(Into::into),
            serves: port.serves.iter().map(Into::into).collect(),
        }
    }
}

/// The last of several ports.
fn last_port(ports: PortRange) -> Option<u32> {
    ports.only().is_none().then(|| ports.last().get().into())
}

impl From<&Served> for v1::Served {
    fn from(served: &Served) -> Self {
        Self {
            address: served.address.to_string(),
            protocol: served.protocol.into(),
            port: served.ports.first().get().into(),
            last_port: last_port(served.ports),
        }
    }
}

impl From<&RemoteEndpoint> for v1::RemoteEndpoint {
    fn from(endpoint: &RemoteEndpoint) -> Self {
        Self {
            vni: endpoint.vni,
            address: endpoint.address.to_string(),
            mac: mac(endpoint.mac),
            host: endpoint.host.to_string(),
        }
    }
}

impl From<&VtepState> for v1::VtepState {
    fn from(vtep: &VtepState) -> Self {
        Self {
            vni: vtep.vni,
            address: vtep.address.to_string(),
        }
    }
}

impl From<&LegKey> for v1::LegKey {
    fn from(key: &LegKey) -> Self {
        Self {
            epoch: key.epoch.into(),
            key: key.key.to_vec(),
        }
    }
}

impl From<&LegState> for v1::LegState {
    fn from(leg: &LegState) -> Self {
        Self {
            keys: all(&leg.keys),
            label: leg.label,
            address: leg.address.to_string(),
            port: leg.port.into(),
            source_port: leg.source_port.into(),
        }
    }
}

impl From<&SlotState> for v1::SlotState {
    fn from(slot: &SlotState) -> Self {
        let (relay, exit) = match &slot.action {
            SlotAction::Relay(leg) => (Some(leg.into()), None),
            &SlotAction::Exit {
                twin,
                window,
                answers,
            } => (
                None,
                Some(v1::ExitState {
                    twin,
                    window,
                    answers,
                }),
            ),
        };
        Self {
            label: slot.label,
            source: slot.source.to_string(),
            keys: all(&slot.keys),
            relay,
            exit,
        }
    }
}

impl From<&PathState> for v1::PathState {
    fn from(path: &PathState) -> Self {
        Self {
            index: path.index,
            id: path.id,
            nodes: path.nodes.clone(),
            leg: Some((&path.leg).into()),
            near: path.near,
        }
    }
}

impl From<&PairState> for v1::PairState {
    fn from(pair: &PairState) -> Self {
        Self {
            index: pair.index,
            peer: pair.peer.clone(),
            class: pair.class.clone(),
            premium: pair.premium,
            duplicate: pair.duplicate,
            primary: pair.primary,
            backup: pair.backup,
        }
    }
}

impl From<ConnectionIds> for v1::ConnectionIds {
    fn from(ids: ConnectionIds) -> Self {
        Self {
            quic_lb: match ids {
                ConnectionIds::Tagged => None,
                ConnectionIds::QuicLb { config, octets } => Some(QuicLb {
                    config: config.get().into(),
                    octets: octets.get().into(),
                }),
            },
        }
    }
}

impl From<&ServiceState> for v1::ServiceState {
    fn from(service: &ServiceState) -> Self {
        Self {
            vni: service.vni,
            name: service.name.clone(),
            own: service.own,
            at_exit: service.at_exit,
            local: service.local.to_string(),
            public: service.public.to_string(),
            whole_address: service.whole_address,
            protocol: service.protocol.into(),
            port: service.ports.first().get().into(),
            last_port: last_port(service.ports),
            idle_timeout_s: service.idle_timeout_s,
            bandwidth_mbps: service.bandwidth_mbps,
            mtu: service.mtu.map(Into::into),
            asked_at: service.asked_at.map(|address| address.to_string()),
            affinity: (service.affinity != Affinity::default()).then(|| service.affinity.word().to_owned()),
            connection_ids: service.connection_ids.map(Into::into),
            packets: (service.packets != PacketPolicy::default()).then(|| service.packets.into()),
            targets: all(&service.targets),
            shield: service.shield.as_ref().map(Into::into),
        }
    }
}

impl From<PacketPolicy> for v1::PacketPolicy {
    fn from(packets: PacketPolicy) -> Self {
        let word = |word: &str| Some(word.to_owned());
        Self {
            fragments: word(packets.fragments.word()),
            ipv4_options: word(packets.ipv4_options.word()),
            echo: packets.echo.map(|echo| echo.word().to_owned()),
            oversize: word(packets.oversize.word()),
        }
    }
}

impl From<&Shield> for v1::Shield {
    fn from(shield: &Shield) -> Self {
        Self {
            enforces: shield.enforces,
            alarm_new_per_s: shield.alarm_new_per_s,
            hold_s: shield.hold_s,
            syn_cookies: shield.syn_cookies,
            drop_amplifiers: shield.drop_amplifiers,
            admitted_only: shield.admitted_only,
            source_new_per_s: shield.source_new_per_s,
            prefix_new_per_s: shield.prefix_new_per_s,
            new_per_s: shield.new_per_s,
            block: shield.block.clone(),
            allow: shield.allow.clone(),
        }
    }
}

impl From<&PrefixListState> for v1::PrefixListState {
    fn from(list: &PrefixListState) -> Self {
        Self {
            name: list.name.clone(),
            prefixes: list.prefixes.iter().map(Cidr::to_string).collect(),
        }
    }
}

impl From<&TargetState> for v1::TargetState {
    fn from(state: &TargetState) -> Self {
        let mut message = Self {
            weight: state.weight,
            check: state.check.as_deref().map(Into::into),
            server_id: state.server_id,
            ends_s: state.ends_s,
            group: state.group,
            rank: state.rank,
            counted: state.counted.as_deref().map(str::to_owned),
            ..Self::default()
        };
        match state.target {
            Target::Pair(pair) => message.pair = Some(pair),
            Target::Server { address, port } => {
                message.server = Some(v1::ServerTarget {
                    address: address.to_string(),
                    port: port.map(Into::into),
                });
            }
            Target::Direct {
                address,
                encapsulation,
            } => {
                let address = address.to_string();
                let gue = match encapsulation {
                    Encapsulation::Ipip => None,
                    Encapsulation::Gue { port, variant } => Some(v1::Gue {
                        port: port.into(),
                        variant: variant.into(),
                    }),
                    Encapsulation::Vxlan { vni, mac: of, host } => {
                        message.vpc = Some(v1::VpcTarget {
                            address,
                            vni,
                            mac: mac(of),
                            host: host.to_string(),
                        });
                        return message;
                    }
                };
                message.direct = Some(v1::DirectTarget { address, gue });
            }
        }
        message
    }
}

impl From<&Check> for v1::Check {
    fn from(check: &Check) -> Self {
        let mut message = Self {
            service: check.service.clone(),
            port: check.port.map(Into::into),
            interval_ms: check.interval_ms,
            timeout_ms: check.timeout_ms,
            rise: check.rise,
            fall: check.fall,
            least_percent: check.least_percent,
            slow_start_s: check.slow_start_s,
            ..Self::default()
        };
        match &check.ask {
            Ask::Tcp => message.tcp = Some(Plain {}),
            Ask::A2s => message.a2s = Some(Plain {}),
            Ask::Quake3 => message.quake3 = Some(Plain {}),
            Ask::Minecraft => message.minecraft = Some(Plain {}),
            Ask::Http {
                tls,
                path,
                host,
                status: (first, last),
            } => {
                message.http = Some(Http {
                    tls: *tls,
                    path: path.clone(),
                    host: host.clone(),
                    first_status: u32::from(*first),
                    last_status: u32::from(*last),
                });
            }
            Ask::Udp { send, expect } => {
                message.udp = Some(Udp {
                    send: send.clone(),
                    expect: expect.clone(),
                });
            }
            Ask::Quic { alpn, host } => {
                message.quic = Some(Quic {
                    alpn: alpn.clone(),
                    host: host.clone(),
                });
            }
            Ask::Grpc { service } => {
                message.grpc = Some(Grpc {
                    service: service.clone(),
                });
            }
        }
        message
    }
}

impl From<&Announcement> for v1::Announcement {
    fn from(announcement: &Announcement) -> Self {
        let is_whole = announcement.length == Announcement::width(announcement.local);
        let mut message = Self {
            local: announcement.local.to_string(),
            public: announcement.public.to_string(),
            here: announcement.here,
            term: announcement.term,
            length: (!is_whole).then(|| announcement.length.into()),
            ..Self::default()
        };
        match &announcement.way {
            Way::Arp => message.arp = Some(Arp {}),
            Way::Hook { command, timeout_s } => {
                message.hook = Some(Hook {
                    command: command.clone(),
                    timeout_s: *timeout_s,
                });
            }
            Way::Bgp {
                speaker,
                communities,
                med,
            } => {
                let peers = speaker.peers.iter().map(|router| Peer {
                    address: router.address.to_string(),
                    r#as: router.number,
                    multihop: router.multihop.map(u32::from),
                    password_file: router.password_file.clone(),
                });
                message.bgp = Some(Bgp {
                    r#as: speaker.number,
                    peers: peers.collect(),
                    port: speaker.port.into(),
                    communities: communities.clone(),
                    med: *med,
                    frr: match speaker.daemon {
                        Daemon::Gobgp => None,
                        Daemon::Frr { bfd } => Some(Frr {
                            bfd: bfd.map(|bfd| Bfd {
                                interval_ms: bfd.interval_ms,
                                multiplier: bfd.multiplier,
                            }),
                        }),
                    },
                });
            }
        }
        message
    }
}
