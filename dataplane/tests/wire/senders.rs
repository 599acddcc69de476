//! Who sends to the host under test: its two neighbours and its own entry, in userland, with numbers, tags and probes
//! as real ones make them.
//!
//! ```text
//! left  .2 --data, probes--> label 6 (exit), 11 (exit) --> server
//!          --data----------> label 5 (relay) --> right, label 9 (exit) --> server
//! right .3 --answers, probes--> label 10 (the entry again) --> client
//! ```

use std::net::Ipv4Addr;

use kuafu_model::contents::{HostFacts, contents};
use kuafu_model::kinds::PortRange;
use kuafu_model::runner::{Host, VecFrame, Verdict};
use kuafu_model::state::{
    self, HostState, LegKey, LegState, ServiceState, SlotAction, SlotState, Target, TargetState,
};
use kuafu_pipeline::map::{LANES, Mac, MacPair, Neighbour, PairState, PathState};

use crate::common::case::Program;
use crate::common::draw::Draw;
use crate::common::encode::encode;
use crate::common::text::{key, tag, under_tag};
use crate::common::world::{self, PORTS, UNDERLAY, World};

/// Epochs that are valid on every leg: the second is sent under.
pub const EPOCHS: [u32; 2] = [1, 2];
/// What the number of a leg's newer key is above that of its older one.
pub const NEWER: u8 = 100;
/// Directions of connections that find room.
const CONNECTIONS: usize = 16_384;
/// Addresses of clients, and ports of each.
const CLIENTS: (usize, usize) = (8, 64);
/// The prober's interface.
const PROBER: u32 = PORTS[3].0;

/// What a recorded packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// A client's data, or an endpoint's answer.
    Data,
    /// Data that the host under test passes on.
    Relayed,
    /// A probe, on its way out or home.
    Probe,
}

/// A packet as it was sent to the host under test.
#[derive(Clone, Debug)]
pub struct Authentic {
    /// The frame.
    pub octets: Vec<u8>,
    /// What it carries.
    pub carries: Carries,
    /// The number of its leg's newer key.
    pub key: u8,
}

const fn on_link(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn keys(number: u8) -> Vec<LegKey> {
    let numbers = [number, number + NEWER];
    let epochs = EPOCHS.iter().zip(numbers);
    epochs
        .map(|(epoch, number)| LegKey {
            epoch: *epoch as u8,
            key: key(number),
        })
        .collect()
}

fn leg(address: Ipv4Addr, label: u32, number: u8) -> LegState {
    LegState {
        keys: keys(number),
        label,
        address,
        port: 6081,
        source_port: 50_000 + u16::from(number),
    }
}

fn slot(label: u32, source: Ipv4Addr, number: u8, action: SlotAction) -> SlotState {
    SlotState {
        label,
        source,
        keys: keys(number),
        action,
    }
}

const fn exit(twin: u32, window: u32, answers: u32) -> SlotAction {
    SlotAction::Exit {
        twin,
        window,
        answers,
    }
}

fn path(index: u32, leg: LegState) -> state::PathState {
    state::PathState {
        index,
        id: u64::from(index),
        nodes: Vec::new(),
        leg,
        near: false,
    }
}

fn pair(index: u32, primary: u32) -> state::PairState {
    state::PairState {
        index,
        peer: "peer".into(),
        class: "game".into(),
        premium: false,
        duplicate: false,
        primary: Some(primary),
        backup: None,
    }
}

/// A listener of the accelerated address: at an entry to a pair, at an exit (`None`) to the server.
fn service(vni: u32, protocol: u8, port: u16, to: Option<u32>) -> ServiceState {
    let server = Target::Server {
        address: on_link(80),
        port: Some(9000),
    };
    ServiceState {
        name: format!("accelerator-{vni}"),
        at_exit: to.is_none(),
        whole_address: true,
        targets: vec![TargetState::unchecked(1, to.map_or(server, Target::Pair))],
        ..ServiceState::blank(
            vni,
            Ipv4Addr::new(198, 51, 100, 1).into(),
            (protocol, PortRange::literal(port, port)),
        )
    }
}

fn world(state: HostState) -> World {
    World {
        state: Some(state),
        connections: CONNECTIONS,
        samples: 20_000,
        balancer: None,
        stale: Vec::new(),
        fragmenter: (u64::MAX, u64::MAX),
        shields: None,
    }
}

/// A host on the link, of the worlds' one, that has nothing but its prober's port.
fn bare(last: u8) -> HostState {
    let mut state = world::named("host").state.expect("a state");
    let overlay = Ipv4Addr::new(100, 64, 0, last);
    (state.node.local, state.node.public, state.node.overlay) = (on_link(last), on_link(last), overlay);
    state.ports.retain(|port| port.vni == 1);
    state.ports.iter_mut().for_each(|port| port.address = overlay);
    state.endpoints.clear();
    state.vteps.clear();
    state
}

/// The host under test: relay, exit, and an entry whose answers come back.
pub fn here() -> World {
    let (left, right) = (on_link(2), on_link(3));
    world(HostState {
        slots: vec![
            slot(5, left, 1, SlotAction::Relay(leg(right, 9, 2))),
            slot(8, left, 1, SlotAction::Relay(leg(on_link(9), 9, 2))),
            slot(6, left, 3, exit(1, 3, 4)),
            slot(10, right, 5, exit(2, 5, 6)),
            slot(11, left, 3, exit(9, 6, 4)),
        ],
        paths: vec![path(1, leg(left, 20, 4)), path(2, leg(right, 21, 6))],
        pairs: vec![pair(4, 1), pair(6, 2)],
        services: vec![
            service(100, 17, 7002, Some(6)),
            service(101, 17, 7000, None),
            service(101, 6, 7000, None),
            service(101, 17, 7003, None),
        ],
        ..bare(1)
    })
}

/// The neighbour whose paths end at the host under test, and pass it.
fn left() -> World {
    let here = on_link(1);
    world(HostState {
        slots: vec![slot(20, here, 4, exit(1, 3, 4))],
        paths: vec![
            path(1, leg(here, 6, 3)),
            path(2, leg(here, 5, 1)),
            path(3, leg(here, 11, 3)),
        ],
        pairs: vec![pair(4, 1), pair(5, 2), pair(6, 3)],
        services: vec![
            service(101, 17, 7000, Some(4)),
            service(101, 6, 7000, Some(4)),
            service(101, 17, 7002, Some(5)),
            service(101, 17, 7003, Some(6)),
        ],
        ..bare(2)
    })
}

/// The neighbour that is the exit of what the host under test enters or relays. It has a label 6 of its own.
pub fn right() -> World {
    let here = on_link(1);
    world(HostState {
        slots: vec![
            slot(9, here, 2, exit(1, 4, 4)),
            slot(21, here, 6, exit(1, 3, 4)),
            slot(6, on_link(2), 9, exit(1, 5, 4)),
        ],
        paths: vec![path(1, leg(here, 10, 5))],
        pairs: vec![pair(4, 1)],
        services: vec![service(100, 17, 7002, None), service(101, 17, 7002, None)],
        ..bare(3)
    })
}

/// The three that send.
pub struct Senders {
    left: Host,
    right: Host,
    entry: Host,
}

impl Authentic {
    /// Says that it takes both paths of its pair.
    fn duplicate(&mut self) {
        self.octets[57] |= 2;
        let tag = tag(key(self.key), &under_tag(&self.octets[42..]));
        self.octets[66..74].copy_from_slice(&tag.to_le_bytes());
    }
}

impl Senders {
    /// After so many losses of their maps, and so many packets on each lane and path.
    pub fn new(incarnation: u32, sent: u64) -> Self {
        let mut senders = Self {
            left: host(&left(), incarnation),
            right: host(&right(), incarnation),
            entry: host(&here(), incarnation),
        };
        senders.number_from(sent);
        senders
    }

    /// Goes on from this number on each lane and path.
    pub fn number_from(&mut self, sent: u64) {
        for (host, pairs, paths) in [(&mut self.left, 4..=6, 1..=1), (&mut self.right, 4..=4, 1..=1)] {
            for pair in pairs {
                let state = PairState::new();
                state.lanes.iter().for_each(|lane| lane.set(sent));
                host.set_pair_state(pair, state);
            }
            for path in paths {
                let state = PathState::new();
                state.next_probe.set(sent);
                host.set_path_state(path, state);
            }
        }
    }

    /// A packet of any of them.
    pub fn packet(&mut self, draw: &mut Draw) -> Authentic {
        let lane = draw.below(LANES) as u32;
        match draw.below(10) {
            0 | 1 => self.data(draw, lane, 7000),
            2 => self.tcp(draw, lane),
            3 => self.data(draw, lane, 7003),
            4 | 5 => self.data(draw, lane, 7002),
            6 => self.probe(false),
            7 => self.probe(true),
            8 => self.home(),
            _ => self.answer(draw, lane),
        }
    }

    /// A client's datagram over `left`.
    pub fn data(&mut self, draw: &mut Draw, lane: u32, port: u16) -> Authentic {
        let length = draw.below(80);
        let mut packet = self.over_left(&datagram(&client(draw), port, length), lane, port == 7002);
        if draw.below(4) == 0 {
            packet.duplicate();
        }
        packet
    }

    fn tcp(&mut self, draw: &mut Draw, lane: u32) -> Authentic {
        let ((address, port), flags) = (client(draw), draw.one(&["S", "A", "PA", "FA"]));
        let text = format!(
            "eth mfe > m02 | ipv4 {address} > 198.51.100.1 | tcp {port} > 7000 flags {flags} | data {}",
            draw.below(80)
        );
        self.over_left(&text, lane, false)
    }

    fn over_left(&mut self, text: &str, lane: u32, relayed: bool) -> Authentic {
        self.left.set_cpu(lane);
        let octets = sent(&mut self.left, Program::Edge, 0, encode(text));
        let (carries, number) = match octets[56] >> 4 | octets[55] << 4 {
            5 => (Carries::Relayed, 1),
            _ => (Carries::Data, 3),
        };
        assert_eq!(relayed, carries == Carries::Relayed, "over the pair of the port");
        Authentic {
            octets,
            carries,
            key: number + NEWER,
        }
    }

    /// A probe of a neighbour's.
    fn probe(&mut self, of_right: bool) -> Authentic {
        let (host, last, number) = if of_right {
            (&mut self.right, 3, 5)
        } else {
            (&mut self.left, 2, 3)
        };
        Authentic {
            octets: sent(host, Program::Port, 1, stamp(last, 1)),
            carries: Carries::Probe,
            key: number + NEWER,
        }
    }

    /// A probe of the host under test, sent back by `left`.
    fn home(&mut self) -> Authentic {
        let there = sent(&mut self.entry, Program::Port, 1, stamp(1, 2));
        Authentic {
            octets: sent(&mut self.left, Program::Edge, 0, there),
            carries: Carries::Probe,
            key: 3 + NEWER,
        }
    }

    /// A server's answer to a client's datagram that went over the host under test to `right`.
    fn answer(&mut self, draw: &mut Draw, lane: u32) -> Authentic {
        let datagram = encode(&datagram(&client(draw), 7002, draw.below(80)));
        let entered = sent(&mut self.entry, Program::Edge, 0, datagram);
        let mut octets = sent(&mut self.right, Program::Edge, 0, entered);
        // Sums stay right: what they add up is the same.
        for (one, other, length) in [(26, 30, 4), (34, 36, 2)] {
            (0..length).for_each(|at| octets.swap(one + at, other + at));
        }
        self.right.set_cpu(lane);
        Authentic {
            octets: sent(&mut self.right, Program::Edge, 0, octets),
            carries: Carries::Data,
            key: 5 + NEWER,
        }
    }
}

fn client(draw: &mut Draw) -> (Ipv4Addr, usize) {
    let (addresses, ports) = CLIENTS;
    let address = Ipv4Addr::new(203, 0, 113, draw.below(addresses) as u8 + 1);
    (address, 4000 + draw.below(ports))
}

fn datagram((address, source): &(Ipv4Addr, usize), port: u16, length: usize) -> String {
    format!("eth mfe > m02 | ipv4 {address} > 198.51.100.1 | udp {source} > {port} | data {length}")
}

/// A probe as a prober hands it over.
fn stamp(from: u8, to: u8) -> Vec<u8> {
    encode(&format!(
        "eth m41 > m42 | ipv4 100.64.0.{from} > 100.64.0.{to} | udp 40000 > 862 sum none | stamp 0"
    ))
}

/// A host in userland that knows the host under test.
fn host(world: &World, incarnation: u32) -> Host {
    let mut host = world.model();
    let facts = HostFacts {
        incarnation,
        ..world::facts()
    };
    let state = world.state.as_ref().expect("a state");
    host.program(&contents(state, &facts, None).expect("a state that the host can satisfy"));
    let mac = Mac::from_octets([2, 0, 0, 0, 0, 1]);
    host.set_neighbour(
        on_link(1),
        Neighbour {
            macs: MacPair::new(mac, mac),
            interface: UNDERLAY,
        },
    );
    host
}

/// What a sender's program sends out.
fn sent(host: &mut Host, program: Program, mark: u32, octets: Vec<u8>) -> Vec<u8> {
    let mut frame = VecFrame::new(octets);
    let walk = match program {
        Program::Edge => host.edge(&mut frame, UNDERLAY),
        _ => host.port(&mut frame, PROBER, mark),
    };
    let on_the_wire = matches!(walk.verdict, Verdict::Transmit | Verdict::Redirect(_));
    assert!(on_the_wire && walk.reason().is_none(), "{walk:?}");
    frame.into_octets()
}
