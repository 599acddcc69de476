//! Small named worlds: the state of one host, and what surrounds it.
//!
//! `host` has two tenants' ports, the system VPC's port, relays, exits, paths, pairs and listeners at an entry and at
//! an exit. The others are `host` with one thing changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kuafu_model::contents::{self, ArpFacts, BalancedService, Balancer, Capacities, Contents, HostFacts};
use kuafu_model::health::Servers;
use kuafu_model::kinds::PortRange;
use kuafu_model::runner::Host;
use kuafu_model::state::{
    self, Announcement, Encapsulation, HostState, LegKey, LegState, PairState, PortState, RemoteEndpoint,
    Served, ServiceState, SlotAction, SlotState, Target, TargetState, VtepState, Way,
};
use kuafu_pipeline::header::ipv4::{TCP, UDP};
use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Be32, ConnectionIds, Fragmenter, IpKey, JIFFY, Limit, Mac, MacPair,
    Neighbour, NextHop, NodeConfig, PathState, Rate, Shield, Wrap, guard, listed_key, policy,
};
use kuafu_pipeline::{Reason, Route};

use super::text::key;

/// The underlay.
pub const UNDERLAY: u32 = 2;
/// Ports: two of VNI 7, one of VNI 8 with an address of VNI 7, and the prober's.
pub const PORTS: [(u32, &str); 4] = [(11, "p1"), (12, "p2"), (13, "p3"), (14, "kuafu0")];
/// Where the edge hands packets over to the prober's port.
pub const HAND_OVER: u32 = 114;
/// The underlay's own Ethernet address: m01.
pub const OWN_MAC: u8 = 0x01;
/// Hosts on the underlay's link whose Ethernet addresses are known, with the last octet of that.
pub const ON_LINK: [(Ipv4Addr, u8); 4] = [
    (ip(192, 0, 2, 2), 0x02),
    (ip(192, 0, 2, 3), 0x03),
    (ip(192, 0, 2, 80), 0x50),
    (GATEWAY, 0xfe),
];
/// Where everything else is.
pub const GATEWAY: Ipv4Addr = ip(192, 0, 2, 254);
/// The number of the neighbour behind which a balancer's servers are.
const BEHIND_GATEWAY: u32 = 1;
/// A server of IPv6, of the same host as 192.0.2.80.
const SERVER_V6: Ipv6Addr = in_doc(0x180);
/// A network without a route.
pub const UNREACHABLE: (Ipv4Addr, u8) = (ip(198, 18, 0, 0), 15);
/// Jiffies of the model's clock.
pub const NOW: u64 = 100_000;
/// The nanoseconds of the model's clock.
pub const NOW_NS: u64 = 400_000_000_000;

/// Names of all worlds.
pub const NAMES: [&str; 15] = [
    "host",
    "twice",
    "bare",
    "no-exit",
    "narrow",
    "crowded",
    "stale",
    "elsewhere",
    "unsampled",
    "unprobed",
    "hurried",
    "balancer",
    "strict",
    "shielded",
    "shielded-v6",
];

/// A host and what surrounds it.
pub struct World {
    /// Its state; `None`: no agent has written anything.
    pub state: Option<HostState>,
    /// Connections that find room, each direction for itself, and as many flows whose targets are remembered.
    pub connections: usize,
    /// Samples that find room.
    pub samples: usize,
    /// Paths that are stale: no echo since the first jiffy, by a prober that speaks.
    pub stale: Vec<u32>,
    /// Services on their own, in place of a state.
    pub balancer: Option<Balancer>,
    /// Until when the prober fragments packets, and how many a jiffy.
    pub fragmenter: (u64, u64),
    /// Whether services have shields, and these have rates.
    pub shields: Option<bool>,
}

const fn ip(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

/// The world of that name.
pub fn named(name: &str) -> World {
    let mut world = World {
        state: Some(host()),
        connections: 64,
        samples: 1000,
        stale: Vec::new(),
        balancer: None,
        fragmenter: (u64::MAX, u64::MAX),
        shields: None,
    };
    let state = world.state.as_mut().expect("just made");
    match name {
        "host" => {}
        "bare" => world.state = None,
        "no-exit" => state.node.nat_ports = None,
        "narrow" => state.node.nat_ports = Some(10_000..=10_000),
        "crowded" => world.connections = 2,
        "twice" => state.pairs.iter_mut().for_each(|pair| pair.duplicate = true),
        "stale" => world.stale = vec![1],
        "elsewhere" => state.announcements.iter_mut().for_each(|one| one.here = false),
        "unsampled" => world.samples = 0,
        "unprobed" => world.fragmenter = (0, 0),
        "hurried" => world.fragmenter.1 = 0,
        "balancer" => world.balancer = Some(balancer(policy::ANSWER_ECHO, 0)),
        "strict" => {
            let common = policy::DROP_FRAGMENTS | policy::PASS_OPTIONS | policy::PASS_ECHO;
            world.balancer = Some(balancer(common, policy::SILENT));
        }
        "shielded" => world.shields = Some(true),
        "shielded-v6" => {
            world.balancer = Some(balancer(policy::ANSWER_ECHO, 0));
            world.shields = Some(true);
        }
        other => panic!("no world is called {other}"),
    }
    world
}

/// What the host knows of itself.
pub fn facts() -> HostFacts {
    HostFacts {
        underlay: UNDERLAY,
        underlay_mtu: 1500,
        incarnation: 3,
        hz: 250,
        interfaces: PORTS
            .iter()
            .map(|(number, name)| ((*name).into(), *number))
            .collect(),
        hand_over: HAND_OVER,
        local6: Some(in_doc(0x201)),
        capacities: Capacities::default(),
        now: 0,
        servers: Servers::default(),
        cookie_key: [1, 2],
        arp: ArpFacts {
            mac: octets(OWN_MAC).octets(),
            ..ArpFacts::default()
        },
    }
}

impl World {
    /// The maps' contents; `None` where no agent has written any.
    pub fn contents(&self) -> Option<Contents> {
        if let Some(balancer) = &self.balancer {
            let mut contents = contents::balancer(balancer, &facts(), None).expect("services that fit");
            contents.neighbours.insert(BEHIND_GATEWAY, GATEWAY.into());
            if let Some(has_rates) = self.shields {
                shield(&mut contents, has_rates, (&SHIELDS_V6, true));
            }
            return Some(contents);
        }
        let state = self.state.as_ref()?;
        let mut contents =
            contents::contents(state, &facts(), None).expect("a state that the host can satisfy");
        let limits = contents.limits.values_mut().filter(|limit| limit.cost != 0);
        limits.for_each(|limit| *limit = slow(limit.vni));
        if let Some(has_rates) = self.shields {
            shield(&mut contents, has_rates, (&SHIELDS, false));
        }
        Some(contents)
    }

    /// Clients that were admitted: the accelerator admits one.
    pub fn admitted(&self) -> Option<AdmittedKey> {
        self.shields?;
        Some(AdmittedKey {
            vni: ACCELERATOR,
            client: u32::from(ip(203, 0, 113, 7)),
        })
    }

    /// The same of IPv6: the balancer's port 7040 admits one.
    pub fn admitted_v6(&self) -> Option<AdmittedKeyV6> {
        self.shields?;
        let service = self.balancer.as_ref()?.services.iter();
        let mut service = service.filter(|service| service.address == ipv6(0x1) && service.port == 7040);
        let service = self.contents()?.services[&service.next()?.key()];
        let client = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, 7);
        Some(AdmittedKeyV6::new(service.vni, IpKey::v6(client.octets())))
    }

    /// The neighbours' entries, by number: what an agent finds out.
    pub fn neighbours(&self) -> BTreeMap<u32, Neighbour> {
        let contents = self.contents().unwrap_or_default();
        let known = |host: &Ipv4Addr| ON_LINK.iter().find(|(known, _)| known == host);
        let entry = |(number, host): (&u32, &IpAddr)| match host {
            IpAddr::V4(host) => Some((*number, self.link(known(host)?.1))),
            IpAddr::V6(host) => (*host == SERVER_V6).then(|| (*number, self.link(0x50))),
        };
        contents.neighbours.iter().filter_map(entry).collect()
    }

    /// A neighbour; a balancer's is where the packet came from.
    fn link(&self, mac: u8) -> Neighbour {
        if self.balancer.is_none() {
            return link(mac);
        }
        Neighbour {
            macs: MacPair::new(octets(mac), Mac::default()),
            interface: 0,
        }
    }

    /// The host in userland.
    pub fn model(&self) -> Host {
        let mut host = Host::new(&Capacities::default());
        host.set_clock(NOW, NOW_NS);
        host.set_room(self.connections, self.samples);
        host.set_tracked_room(self.connections);
        if let Some(contents) = self.contents() {
            host.program(&contents);
        }
        for (address, mac) in ON_LINK {
            host.set_neighbour(address, self.link(mac));
        }
        host.set_neighbour(SERVER_V6, self.link(0x50));
        for (network, to) in routes() {
            host.set_route(network.parse().expect("a network"), to);
        }
        for path in &self.stale {
            host.set_path_state(*path, stale());
        }
        host.set_fragmenter(self.fragmenter());
        if let Some(key) = self.admitted() {
            host.set_admitted(key, u64::MAX);
        }
        if let Some(key) = self.admitted_v6() {
            host.set_admitted_v6(key, u64::MAX);
        }
        host
    }

    /// Who fragments what is too large.
    pub fn fragmenter(&self) -> Fragmenter {
        let fragmenter = Fragmenter::default();
        fragmenter.until.set(self.fragmenter.0);
        fragmenter.per_jiffy.set(self.fragmenter.1);
        fragmenter.interface.set(u64::from(PORTS[3].0));
        fragmenter
    }
}

/// A limit that lets 600 octets pass at once and then an octet in eight jiffies, so that no clock matters.
fn slow(vni: u32) -> Limit {
    let octet = 8 * JIFFY;
    Limit {
        cost: octet << 16,
        depth: 600 * octet,
        ..Limit::none(vni)
    }
}

/// What most shields do.
const USUAL: u32 = guard::ALWAYS | guard::COOKIES | guard::NO_AMPLIFIERS;

/// Ports of IPv4 with shields: 7020 and 7004, whose server is rewritten to, have one that is on, 7021 one that observes,
/// 7022 one that goes up by itself, for good, and the accelerator's 7000 one that wants admitted clients.
const SHIELDS: [(u16, u32); 5] = [
    (7020, USUAL | guard::ENFORCES),
    (7021, USUAL),
    (7022, guard::ENFORCES | guard::COOKIES),
    (7000, guard::ENFORCES | guard::ALWAYS | guard::ADMISSION),
    (7004, USUAL | guard::ENFORCES),
];

/// The same of a balancer's IPv6: 7040 is the one that wants admitted clients.
const SHIELDS_V6: [(u16, u32); 4] = [
    (7020, USUAL | guard::ENFORCES),
    (7021, USUAL),
    (7022, guard::ENFORCES | guard::COOKIES),
    (7040, guard::ENFORCES | guard::ALWAYS | guard::ADMISSION),
];

/// Gives services of a family shields.
///
/// 198.51.101.0/24 is blocked and 198.51.101.9 in it allowed; 203.1.0.0/16 is blocked and 203.1.5.0/24 in it allowed. A
/// source may begin three flows, a prefix five, and all together seven, or fourteen of verified sources.
fn shield(contents: &mut Contents, has_rates: bool, (shields, is_v6): (&[(u16, u32)], bool)) {
    let rate = |at_once| if has_rates { few(at_once) } else { Rate::default() };
    for (number, (port, flags)) in (1..).zip(shields.iter().copied()) {
        for (key, service) in &mut contents.services {
            if key.port.get() != port || key.vni != 0 || key.address.as_v4().is_none() != is_v6 {
                continue;
            }
            service.shield = number;
            let shield = Shield {
                vni: service.vni,
                flags,
                blocked: BLOCKS,
                allowed: ALLOWS,
                key: [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908],
                source: rate(3),
                prefix: rate(5),
                budget: rate(14),
                alarm: few(2),
                hold: 1 << 40,
                verified_for: 1 << 40,
            };
            contents.shields.insert(number, shield);
        }
    }
    let [attacker, customer] = [ip(198, 51, 101, 0), ip(203, 1, 5, 0)].map(u32::from);
    contents.listed.extend([
        (listed_key(attacker, 24), BLOCKS),
        (listed_key(attacker | 9, 32), BLOCKS | ALLOWS),
        (listed_key(customer, 24), BLOCKS | ALLOWS),
    ]);
    contents.list_areas.insert(customer >> 16, BLOCKS);
    for network in [attacker >> 8, customer >> 8] {
        *contents.list_marks.entry(network >> 6).or_default() |= 1 << (network & 63);
    }
}

/// So many at once, and as many again in 8,000 jiffies, so that no clock matters.
const fn few(at_once: u64) -> Rate {
    let cost = 8_000 * JIFFY / at_once;
    Rate {
        cost,
        depth: at_once * cost,
    }
}

/// The bits of two lists.
const BLOCKS: u32 = 1;
const ALLOWS: u32 = 1 << 1;
/// The accelerator of the entry's listeners.
const ACCELERATOR: u32 = 100;

/// A path that no probe has come home on since the first jiffy.
pub fn stale() -> PathState {
    let state = PathState::new();
    state.last_echo.set(1);
    state.stale_after.set(10);
    state.silent_after.set(u64::MAX);
    state
}

fn link(mac: u8) -> Neighbour {
    Neighbour {
        macs: MacPair::new(octets(mac), octets(OWN_MAC)),
        interface: UNDERLAY,
    }
}

fn octets(last: u8) -> Mac {
    Mac::from_octets([2, 0, 0, 0, 0, last])
}

/// The host's own routes, as `bpf_fib_lookup` answers.
fn routes() -> Vec<(String, Result<Route, Reason>)> {
    let out = |mac| {
        Ok(Route {
            interface: UNDERLAY,
            macs: link(mac).macs,
        })
    };
    let mut routes = vec![
        ("0.0.0.0/0".into(), out(0xfe)),
        ("192.0.2.0/24".into(), Err(Reason::NoNeighbour)),
        (
            format!("{}/{}", UNREACHABLE.0, UNREACHABLE.1),
            Err(Reason::NoRoute),
        ),
    ];
    for own in ["192.0.2.1/32", "192.0.2.255/32", "127.0.0.0/8"] {
        routes.push((own.into(), Err(Reason::NoRoute)));
    }
    routes.extend(ON_LINK.map(|(address, mac)| (format!("{address}/32"), out(mac))));
    routes
}

fn host() -> HostState {
    let [one, two, three, prober] = PORTS;
    HostState {
        cluster: "cases".into(),
        revision: 1,
        node: state::Host {
            id: 1,
            name: "host".into(),
            local: ip(192, 0, 2, 1),
            public: ip(192, 0, 2, 1),
            overlay: ip(100, 64, 0, 1),
            udp_port: 6081,
            nat_ports: Some(10_000..=29_999),
        },
        ports: vec![
            port(one.1, 7, ip(10, 0, 0, 1), 0x21),
            PortState {
                serves: [(6, 7024), (17, 7024), (6, 7025), (17, 7025)]
                    .map(|(protocol, port)| Served {
                        address: ip(198, 51, 100, 1),
                        protocol,
                        ports: PortRange::literal(port, port),
                    })
                    .into(),
                ..port(two.1, 7, ip(10, 0, 0, 2), 0x22)
            },
            port(three.1, 8, ip(10, 0, 0, 1), 0x31),
            port(prober.1, 1, ip(100, 64, 0, 1), 0x41),
        ],
        endpoints: vec![
            remote(3, 0x23, ip(192, 0, 2, 2)),
            remote(4, 0x24, ip(192, 0, 2, 9)),
        ],
        // Port 7025's packets come from this host itself.
        vteps: [2, 1]
            .map(|last| VtepState {
                vni: 7,
                address: ip(192, 0, 2, last),
            })
            .into(),
        slots: slots(),
        paths: (1..)
            .zip([
                (ip(192, 0, 2, 2), 20, 4),
                (ip(192, 0, 2, 3), 21, 6),
                (ip(192, 0, 2, 9), 22, 7),
            ])
            .map(|(index, to)| state::PathState {
                index,
                id: u64::from(index),
                nodes: Vec::new(),
                leg: leg(to),
                near: false,
            })
            .collect(),
        pairs: [(4, Some(1), Some(2)), (5, None, None), (6, Some(3), None)]
            .map(|(index, primary, backup)| PairState {
                index,
                peer: "peer".into(),
                class: "game".into(),
                premium: false,
                duplicate: false,
                primary,
                backup,
            })
            .into(),
        services: services(),
        prefix_lists: Vec::new(),
        announcements: vec![held(ip(198, 51, 100, 1).into()), held(in_doc(0x1).into())],
    }
}

/// An address that the host answers for.
fn held(address: IpAddr) -> Announcement {
    Announcement {
        local: address,
        public: address,
        length: Announcement::width(address),
        here: true,
        term: 0,
        way: Way::Arp,
    }
}

fn port(interface: &str, vni: u32, address: Ipv4Addr, mac: u8) -> PortState {
    PortState {
        name: interface.into(),
        vni,
        address,
        mac: octets(mac).octets(),
        interface: interface.into(),
        mtu: None,
        serves: Vec::new(),
    }
}

fn remote(last: u8, mac: u8, host: Ipv4Addr) -> RemoteEndpoint {
    RemoteEndpoint {
        vni: 7,
        address: ip(10, 0, 0, last),
        mac: octets(mac).octets(),
        host,
    }
}

fn leg((address, label, number): (Ipv4Addr, u32, u8)) -> LegState {
    LegState {
        keys: keys(number),
        label,
        address,
        port: 6081,
        source_port: 50_000 + u16::from(number),
    }
}

fn keys(number: u8) -> Vec<LegKey> {
    vec![LegKey {
        epoch: 1,
        key: key(number),
    }]
}

/// Labels: 5 relays from .2 to .3 and 8 to a host that is not there; 6 is an exit of paths from .2, 10 of paths from
/// .3; 11 is an exit whose way back is not installed.
fn slots() -> Vec<SlotState> {
    let slot = |label, source, number, action| SlotState {
        label,
        source: ip(192, 0, 2, source),
        keys: keys(number),
        action,
    };
    let exit = |twin, window, answers| SlotAction::Exit {
        twin,
        window,
        answers,
    };
    vec![
        slot(5, 2, 1, SlotAction::Relay(leg((ip(192, 0, 2, 3), 9, 2)))),
        slot(8, 2, 1, SlotAction::Relay(leg((ip(192, 0, 2, 9), 9, 2)))),
        slot(6, 2, 3, exit(1, 3, 4)),
        slot(10, 3, 5, exit(2, 5, 6)),
        slot(11, 2, 3, exit(9, 6, 4)),
    ]
}

/// At the entry 198.51.100.1, and for VNI 101 at the exit, by their ports: 7000 works over TCP and UDP; 7001 has no
/// target; the others lead where their targets say.
fn services() -> Vec<ServiceState> {
    let server = |address, port| Some(Target::Server { address, port });
    let near = ip(192, 0, 2, 80);
    let mut services = vec![
        service(100, false, (6, 7000), Some(Target::Pair(4))),
        service(100, false, (17, 7000), Some(Target::Pair(4))),
        service(100, false, (17, 7001), None),
        service(100, false, (17, 7002), Some(Target::Pair(5))),
        service(100, false, (17, 7003), Some(Target::Pair(6))),
        service(101, false, (17, 7004), server(near, Some(9000))),
        service(101, false, (6, 7004), server(near, Some(9000))),
    ];
    for protocol in [6, 17] {
        services.push(service(101, true, (protocol, 7000), server(near, Some(9000))));
    }
    services.extend([
        service(101, true, (17, 7001), None),
        service(101, true, (17, 7004), server(near, Some(9000))),
        service(101, true, (6, 7004), server(near, Some(9000))),
        service(101, true, (17, 7005), server(ip(192, 0, 2, 81), None)),
        service(101, true, (17, 7006), server(ip(198, 18, 0, 1), Some(9000))),
    ]);
    services.extend(limited(near));
    services.extend(direct(near));
    services
}

/// Services that listen themselves, whose servers answer directly: 7020 by IPIP, 7021 and 7022 by GUE of variants 0 and 1;
/// 7023 leads to a server that no way is known to; 7024 by VXLAN to a port on another host, 7025 to one of this host, 7026 to
/// one whose host no way is known to. The first four are there of IPv6, too.
fn direct(near: Ipv4Addr) -> Vec<ServiceState> {
    let gue = |variant| Encapsulation::Gue { port: 6080, variant };
    let vxlan = |mac, host| Encapsulation::Vxlan {
        vni: 7,
        mac: octets(mac).octets(),
        host: ip(192, 0, 2, host),
    };
    let of_family = |near: IpAddr, unknown: IpAddr| {
        [
            (7020, near, Encapsulation::Ipip),
            (7021, near, gue(0)),
            (7022, near, gue(1)),
            (7023, unknown, Encapsulation::Ipip),
        ]
    };
    let of_vpc = [
        (7024, ip(10, 0, 0, 3).into(), vxlan(0x23, 2)),
        (7025, ip(10, 0, 0, 2).into(), vxlan(0x22, 1)),
        (7026, ip(10, 0, 0, 4).into(), vxlan(0x24, 9)),
    ];
    let of_v4 = of_family(near.into(), ip(192, 0, 2, 90).into()).into_iter();
    let of_v6 = of_family(SERVER_V6.into(), in_doc(0x190).into());
    let ways = of_v4.chain(of_vpc).chain(of_v6);
    let each = ways.flat_map(|(port, address, encapsulation)| {
        let (vni, local) = match address {
            IpAddr::V4(_) => (103, ip(198, 51, 100, 1).into()),
            IpAddr::V6(_) => (105, in_doc(0x1).into()),
        };
        let target = Target::Direct {
            address,
            encapsulation,
        };
        [6, 17].map(|protocol| ServiceState {
            own: true,
            local,
            ..service(vni, false, (protocol, port), Some(target))
        })
    });
    each.collect()
}

/// An accelerator with a limit: 7010 enters here and leaves here, 7011 goes from here to the server itself.
fn limited(server: Ipv4Addr) -> [ServiceState; 3] {
    let server = || {
        Some(Target::Server {
            address: server,
            port: Some(9000),
        })
    };
    let services = [
        service(102, false, (17, 7010), Some(Target::Pair(4))),
        service(102, true, (17, 7010), server()),
        service(102, false, (17, 7011), server()),
    ];
    services.map(|service| ServiceState {
        bandwidth_mbps: Some(1),
        mtu: None,
        affinity: Default::default(),
        connection_ids: None,
        packets: Default::default(),
        ..service
    })
}

fn service(vni: u32, at_exit: bool, (protocol, port): (u8, u16), target: Option<Target>) -> ServiceState {
    ServiceState {
        name: format!("accelerator-{vni}"),
        at_exit,
        whole_address: true,
        targets: target
            .into_iter()
            .map(|target| TargetState::unchecked(1, target))
            .collect(),
        ..ServiceState::blank(
            vni,
            ip(198, 51, 100, 1).into(),
            (protocol, PortRange::literal(port, port)),
        )
    }
}

/// Services of both families, each behind three servers: ports 7020, 7021 and 7022 by an IP header and by GUE of variants
/// 0 and 1; 443 is QUIC; 7030 leads nowhere; of TCP 7040 is chosen by client, and all other ports by port.
fn balancer(common: u32, of_services: u32) -> Balancer {
    let (v4, v6) = (IpKey::v4(0xc633_6401), ipv6(0x1));
    let servers = |wrap: Wrap, is_v6: bool| -> Vec<(NextHop, u32)> {
        let port = if wrap == Wrap::Ipip { 0 } else { 6080 };
        let address = |last: u16| {
            if is_v6 {
                ipv6(0x100 | last)
            } else {
                IpKey::v4(0xc000_0250 | u32::from(last))
            }
        };
        let hop = |last| (NextHop::direct(wrap, address(last), port, BEHIND_GATEWAY), 1);
        (1..=3).map(hop).collect()
    };
    let service = |is_v6: bool, (protocol, port): (u8, u16), policy: u32, targets: Vec<(NextHop, u32)>| {
        BalancedService {
            address: if is_v6 { v6 } else { v4 },
            protocol,
            port,
            policy: policy | of_services,
            largest: 1400,
            targets,
            ring: 251,
        }
    };
    let mut services = Vec::new();
    for is_v6 in [false, true] {
        for protocol in [TCP, UDP] {
            for (port, wrap) in [(7020, Wrap::Ipip), (7021, Wrap::Gue0), (7022, Wrap::Gue1)] {
                services.push(service(is_v6, (protocol, port), 0, servers(wrap, is_v6)));
            }
            services.push(service(is_v6, (protocol, 7030), 0, Vec::new()));
        }
        let ipip = || servers(Wrap::Ipip, is_v6);
        services.push(service(
            is_v6,
            (UDP, 443),
            policy::quic(ConnectionIds::tagged()),
            ipip(),
        ));
        services.push(service(is_v6, (TCP, 7040), policy::BY_CLIENT, ipip()));
        services.push(service(is_v6, (TCP, 0), policy::BY_PORT, ipip()));
    }
    let server = |id: u64, address| (id, NextHop::direct(Wrap::Ipip, address, 0, BEHIND_GATEWAY));
    Balancer {
        node: NodeConfig {
            local: Be32::new(0xc000_0201),
            local6: ipv6(0x201),
            underlay: UNDERLAY,
            mtu: 1500,
            ..NodeConfig::default()
        },
        services,
        policy: common,
        quic_servers: vec![
            server(0x0401, IpKey::v4(0xc000_0251)),
            server(0x0402, ipv6(0x199)),
        ],
    }
}

/// 2001:db8::, and this at its end.
const fn in_doc(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

fn ipv6(last: u16) -> IpKey {
    IpKey::v6(in_doc(last).octets())
}
