//! The state of one host, as the controller wants it: what an agent receives, keeps on disk and programs.
//!
//! It names things by address and interface name. What only the host itself can know (interface numbers, Ethernet
//! addresses of next hops, its incarnation) is added by `contents`.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnetwork::IpNetwork;

use crate::kinds::{Affinity, Cidr, ConnectionIds, PacketPolicy, PortRange};

/// Everything one host needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostState {
    /// The cluster that it belongs to; an agent refuses another's.
    pub cluster: String,
    /// Grows with each change, in the whole cluster.
    pub revision: u64,
    /// The host itself.
    pub node: Host,
    /// Its ports.
    pub ports: Vec<PortState>,
    /// Endpoints on other hosts, of the VPCs that have a port here.
    pub endpoints: Vec<RemoteEndpoint>,
    /// Hosts that may send into a VPC that has a port here.
    pub vteps: Vec<VtepState>,
    /// Labels of this host: where paths pass through or end.
    pub slots: Vec<SlotState>,
    /// Paths that begin here.
    pub paths: Vec<PathState>,
    /// Pairs of paths that begin here.
    pub pairs: Vec<PairState>,
    /// Listeners, at their entries and at their exits.
    pub services: Vec<ServiceState>,
    /// Lists that shields of listeners here name.
    pub prefix_lists: Vec<PrefixListState>,
    /// Addresses that this host announces, or would if it were to hold them.
    pub announcements: Vec<Announcement>,
}

impl HostState {
    /// One with nothing in it.
    #[must_use]
    pub const fn blank(cluster: String, revision: u64, node: Host) -> Self {
        Self {
            cluster,
            revision,
            node,
            ports: Vec::new(),
            endpoints: Vec::new(),
            vteps: Vec::new(),
            slots: Vec::new(),
            paths: Vec::new(),
            pairs: Vec::new(),
            services: Vec::new(),
            prefix_lists: Vec::new(),
            announcements: Vec::new(),
        }
    }
}

/// What a host is told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The controller's number for it, from 1.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its address on the underlay, as its own interfaces have it.
    pub local: Ipv4Addr,
    /// Its address as others see it.
    pub public: Ipv4Addr,
    /// Its address in the system VPC: 100.64.0.0/10 + id.
    pub overlay: Ipv4Addr,
    /// UDP port of the backbone.
    pub udp_port: u16,
    /// Ports of `local` that the exit may use; `None` where the host is never an exit.
    pub nat_ports: Option<RangeInclusive<u16>>,
}

/// A port of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortState {
    /// Its name, for people.
    pub name: String,
    /// Its VPC.
    pub vni: u32,
    /// Its address inside the VPC.
    pub address: Ipv4Addr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The device on the host's side.
    pub interface: String,
    /// Octets in the largest IP packet it may send; `None`: what the underlay leaves.
    pub mtu: Option<u16>,
    /// What it serves: packets to it come to the port, and the port answers from there.
    pub serves: Vec<Served>,
}

/// A service's address, as packets carry it, and ports of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Served {
    /// The address.
    pub address: Ipv4Addr,
    /// TCP (6) or UDP (17).
    pub protocol: u8,
    /// The ports.
    pub ports: PortRange,
}

/// An endpoint of a VPC on another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteEndpoint {
    /// The VPC.
    pub vni: u32,
    /// The address inside it.
    pub address: Ipv4Addr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The host's public address.
    pub host: Ipv4Addr,
}

/// A host that may send into a VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VtepState {
    /// The VPC.
    pub vni: u32,
    /// The host's public address.
    pub address: Ipv4Addr,
}

/// One epoch's key of a leg.
#[derive(Clone, PartialEq, Eq)]
pub struct LegKey {
    /// The epoch, 0 to 3; two neighbouring ones at most are valid.
    pub epoch: u8,
    /// The key.
    pub key: [u8; 16],
}

impl std::fmt::Debug for LegKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LegKey {{ epoch: {}, key: (secret) }}", self.epoch)
    }
}

/// A directed leg, as its sender needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegState {
    /// The valid keys, newest last: the last one is used to send.
    pub keys: Vec<LegKey>,
    /// The receiver's label for the path.
    pub label: u32,
    /// The receiver's public address.
    pub address: Ipv4Addr,
    /// The receiver's UDP port.
    pub port: u16,
    /// The leg's UDP source port.
    pub source_port: u16,
}

/// A label of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// The label: 1 to 65,535.
    pub label: u32,
    /// The previous node's public address.
    pub source: Ipv4Addr,
    /// The keys of the leg that arrives here.
    pub keys: Vec<LegKey>,
    /// What becomes of the packets.
    pub action: SlotAction,
}

/// What a label leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotAction {
    /// The next leg.
    Relay(LegState),
    /// The end of a path.
    Exit {
        /// The path back over the same nodes: an index into this host's paths.
        twin: u32,
        /// The pair (of the entry's) whose replay window this is: an index into this host's windows.
        window: u32,
        /// The pair (of this host's) that answers take.
        answers: u32,
    },
}

/// A path that begins here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathState {
    /// Its number on this host, from 1; the prober's socket mark.
    pub index: u32,
    /// Its number in the cluster.
    pub id: u64,
    /// The nodes that it passes, this one first.
    pub nodes: Vec<String>,
    /// The first leg.
    pub leg: LegState,
    /// Whether it is a leg between two nodes of a region.
    pub near: bool,
}

/// The two paths of a pair that begins here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairState {
    /// Its number on this host.
    pub index: u32,
    /// The node at the other end.
    pub peer: String,
    /// The traffic class.
    pub class: String,
    /// Whether both paths are probed as closely as can be while it carries packets.
    pub premium: bool,
    /// Whether each packet is sent over both paths.
    pub duplicate: bool,
    /// The path in use.
    pub primary: Option<u32>,
    /// The path to use when that is stale.
    pub backup: Option<u32>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    /// The number of the accelerator, or of the service.
    pub vni: u32,
    /// Its name.
    pub name: String,
    /// Whether a service listens itself; otherwise an accelerator does.
    pub own: bool,
    /// Whether this host is an exit of the listener; otherwise it is an entry.
    pub at_exit: bool,
    /// The accelerated address as packets carry it.
    pub local: IpAddr,
    /// The accelerated address as people know it.
    pub public: IpAddr,
    /// Where servers that answer clients themselves are asked whether they serve: of a prefix at its first address; `None`:
    /// at this one.
    pub asked_at: Option<IpAddr>,
    /// Whether the whole address is Kuafu's, so that what no listener takes is dropped.
    pub whole_address: bool,
    /// TCP (6) or UDP (17).
    pub protocol: u8,
    /// The ports.
    pub ports: PortRange,
    /// Idle seconds after which a connection ends.
    pub idle_timeout_s: u32,
    /// What of the accelerator this host lets onto the backbone, each way; `None`: all.
    pub bandwidth_mbps: Option<u32>,
    /// Octets in the largest IP packet that its targets take; `None`: what the underlay leaves.
    pub mtu: Option<u16>,
    /// Which of its flows lead to one target.
    pub affinity: Affinity,
    /// Of QUIC: how its connection ids are laid out.
    pub connection_ids: Option<ConnectionIds>,
    /// What becomes of unusual packets to its address.
    pub packets: PacketPolicy,
    /// Where it leads, with weights.
    pub targets: Vec<TargetState>,
    /// At an entry: what may begin here; `None`: all.
    pub shield: Option<Shield>,
}

impl ServiceState {
    /// One at an entry that has no name, leads nowhere, and ends what is idle for a minute.
    #[must_use]
    pub fn blank(vni: u32, local: IpAddr, (protocol, ports): (u8, PortRange)) -> Self {
        Self {
            vni,
            name: String::new(),
            own: false,
            at_exit: false,
            local,
            public: local,
            asked_at: None,
            whole_address: false,
            protocol,
            ports,
            idle_timeout_s: 60,
            bandwidth_mbps: None,
            mtu: None,
            affinity: Affinity::default(),
            connection_ids: None,
            packets: PacketPolicy::default(),
            targets: Vec::new(),
            shield: None,
        }
    }

    /// The port by which a target is named: its own, else the first that leads there.
    #[must_use]
    pub const fn port_of(&self, target: &Target) -> u16 {
        match target.port() {
            Some(port) => port,
            None => self.ports.first().get(),
        }
    }
}

/// What may begin at a service. Rates are new flows a second, from 1 to 100,000,000.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shield {
    /// Whether what it decides is done; else it is only counted.
    pub enforces: bool,
    /// Beyond how many it goes up; `None`: it is up whatever comes.
    pub alarm_new_per_s: Option<u32>,
    /// With an alarm: for how many seconds it stays up after the last flow too many, 1 to 3600.
    pub hold_s: u32,
    /// Whether sources of TCP must return a cookie.
    pub syn_cookies: bool,
    /// Whether nothing comes from UDP ports that amplify.
    pub drop_amplifiers: bool,
    /// Whether only admitted clients begin a flow.
    pub admitted_only: bool,
    /// Of a source.
    pub source_new_per_s: u32,
    /// Of a /24, of IPv6 a /48.
    pub prefix_new_per_s: u32,
    /// Of all together; `None`: as many as there are.
    pub new_per_s: Option<u32>,
    /// Lists whose sources are refused.
    pub block: Vec<String>,
    /// Lists whose sources may do all; they count before the others.
    pub allow: Vec<String>,
}

impl Shield {
    /// The lists that it names.
    pub fn lists(&self) -> impl Iterator<Item = &str> {
        self.block.iter().chain(&self.allow).map(String::as_str)
    }
}

/// A list of prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixListState {
    /// Its name.
    pub name: String,
    /// Its prefixes.
    pub prefixes: Arc<[Cidr]>,
}

/// One target of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// Its share of new flows, relative to the others'; 0: none, and it keeps those that it has.
    pub weight: u32,
    /// Where it is.
    pub target: Target,
    /// How this host finds out whether it serves; `None`: it counts as if it did.
    pub check: Option<Arc<Check>>,
    /// What it is called in connection ids; `None`: nothing.
    pub server_id: Option<u64>,
    /// When it loses the flows that it has, in seconds since 1970; `None`: never.
    pub ends_s: Option<u64>,
    /// Targets among which the nearest get the new flows; 0: those that are as near as any.
    pub group: u32,
    /// How far it is, within its group; 0: nearest.
    pub rank: u32,
    /// The service whose flows with it the controller is to be told; `None`: nobody wants to know.
    pub counted: Option<Arc<str>>,
}

impl TargetState {
    /// A target that always counts as one that serves.
    #[must_use]
    pub const fn unchecked(weight: u32, target: Target) -> Self {
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

/// A health check: what a server is asked, and how often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// The service whose servers are asked, for people, and to count them.
    pub service: String,
    /// What is asked.
    pub ask: Ask,
    /// The port; `None`: where the listener's packets go.
    pub port: Option<u16>,
    /// From one check's beginning to the next one's.
    pub interval_ms: u32,
    /// When a check that has not ended has failed.
    pub timeout_ms: u32,
    /// After how many successes in a row a server that was down serves.
    pub rise: u32,
    /// After how many failures in a row a server is down.
    pub fall: u32,
    /// Where fewer of the service's servers serve, in percent, all are used.
    pub least_percent: u32,
    /// How long a server that joins, or serves again, takes to get its whole share.
    pub slow_start_s: u32,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// A TCP connection.
    Tcp,
    /// HTTP/1.1's `GET`.
    Http {
        /// Whether over TLS, of whatever certificate.
        tls: bool,
        /// The path.
        path: String,
        /// The host's name in the request and in TLS; empty: the address.
        host: String,
        /// The first and the last status of a server that serves.
        status: (u16, u16),
    },
    /// A datagram.
    Udp {
        /// What is sent.
        send: Vec<u8>,
        /// How an answer begins; empty: anything is one.
        expect: Vec<u8>,
    },
    /// Valve's `A2S_INFO`.
    A2s,
    /// Quake III Arena's `getstatus`.
    Quake3,
    /// Minecraft Java Edition's status.
    Minecraft,
    /// QUIC's handshake (RFC 9001), of whatever certificate.
    Quic {
        /// The application's protocol (ALPN).
        alpn: String,
        /// The host's name in TLS; empty: the address.
        host: String,
    },
    /// gRPC's own health check, without TLS.
    Grpc {
        /// The name that the server is asked about; empty: the server as a whole.
        service: String,
    },
}

/// Where a listener leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// At an entry: the exit at the far end of this pair.
    Pair(u32),
    /// At an exit: a plain server; port `None` keeps the packet's.
    Server {
        /// Its address.
        address: Ipv4Addr,
        /// Its port.
        port: Option<u16>,
    },
    /// A server that answers its clients itself.
    Direct {
        /// Its address: on the underlay, or in the VPC. Of the family of the service's own.
        address: IpAddr,
        /// What is put around packets for it.
        encapsulation: Encapsulation,
    },
}

impl Target {
    /// Whether it is a port of this VPC.
    #[must_use]
    pub const fn is_in(&self, vpc: u32) -> bool {
        let Self::Direct { encapsulation, .. } = self else {
            return false;
        };
        matches!(encapsulation, Encapsulation::Vxlan { vni, .. } if *vni == vpc)
    }

    /// The server's address; `None`: it is an exit.
    #[must_use]
    pub const fn server(&self) -> Option<IpAddr> {
        match self {
            Self::Pair(_) => None,
            Self::Server { address, .. } => Some(IpAddr::V4(*address)),
            Self::Direct { address, .. } => Some(*address),
        }
    }

    /// A port of the target's own, to which packets are rewritten.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Server { port, .. } => *port,
            Self::Pair(_) | Self::Direct { .. } => None,
        }
    }
}

/// An address, or by BGP a prefix, that packets find by what this host does for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The address as packets carry it; of a prefix the first.
    pub local: IpAddr,
    /// The address as people know it; of a prefix the first. It is of the same family.
    pub public: IpAddr,
    /// The prefix's length; all bits of its family's addresses: it is one address.
    pub length: u8,
    /// Whether it is this host that announces it now.
    pub here: bool,
    /// Grows each time when the address moves.
    pub term: u64,
    /// How it is announced.
    pub way: Way,
}

impl Announcement {
    /// Bits of an address: the length of what is one.
    #[must_use]
    pub const fn width(address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// Whether an address is one of those announced, as packets carry them.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        IpNetwork::new(self.local, self.length).is_ok_and(|prefix| prefix.contains(address))
    }

    /// Whether this host answers ARP requests for the address.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.here && self.way == Way::Arp
    }

    /// Whether another host may hold the address: the controller must hear that this one lives.
    #[must_use]
    pub const fn has_holder(&self) -> bool {
        matches!(self.way, Way::Arp | Way::Hook { .. })
    }
}

/// How an address is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By ARP.
    Arp,
    /// By a command, which is told the public address and the node.
    Hook {
        /// The program.
        command: String,
        /// When it has failed unless it has ended.
        timeout_s: u32,
    },
    /// By BGP, while a server behind the address serves.
    Bgp {
        /// With whom.
        speaker: Speaker,
        /// What the announcement carries.
        communities: Vec<String>,
        /// Its metric.
        med: Option<u32>,
    },
}

/// How a host speaks BGP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// What speaks.
    pub daemon: Daemon,
    /// Its autonomous system.
    pub number: u32,
    /// The routers.
    pub peers: Vec<Router>,
    /// The routers' TCP port.
    pub port: u16,
}

/// A router that a host speaks BGP with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its autonomous system.
    pub number: u32,
    /// How many hops it may be away; `None`: it is on the host's link.
    pub multihop: Option<u8>,
    /// The host's file with the session's password.
    pub password_file: Option<String>,
}

/// A program that speaks BGP for a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// GoBGP.
    Gobgp,
    /// FRR.
    Frr {
        /// Beside its sessions.
        bfd: Option<Bfd>,
    },
}

/// Bidirectional Forwarding Detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bfd {
    /// Between two packets.
    pub interval_ms: u32,
    /// So many that do not come mean that nobody is there.
    pub multiplier: u32,
}

/// What is put around an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encapsulation {
    /// IPv4 (RFC 2003).
    Ipip,
    /// Generic UDP Encapsulation.
    Gue {
        /// The outer destination port.
        port: u16,
        /// 0, or 1: without a header of its own.
        variant: u8,
    },
    /// VXLAN (RFC 7348), to a port of a VPC.
    Vxlan {
        /// The VPC.
        vni: u32,
        /// The port's Ethernet address.
        mac: [u8; 6],
        /// Its host's address on the underlay: the public one, or its own where that is the sender.
        host: Ipv4Addr,
    },
}
