//! Floods against a service behind a shield, in the kernel: whoever has a target keeps it and loses nothing.
//!
//! `KUAFU_FLOOD_PACKETS` packets of as many sources (1,000,000 unless it is set), a third each of SYN, ACK and UDP, and
//! as many again against a service that wants admitted clients. Needs root; says that it was skipped elsewhere.
#![allow(
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; what tests share is used in parts"
)]

#[path = "../../model/tests/common/mod.rs"]
mod common;
#[path = "cases/kernel.rs"]
mod kernel;

use std::time::{Duration, Instant};

use common::case::{Input, Program};
use common::encode::encode;
use common::world::{self, UNDERLAY, World};
use kernel::{Kernel, namespace, stay_on_one_cpu};
use kuafu_model::contents::Contents;
use kuafu_pipeline::checksum;
use kuafu_pipeline::header::ipv4::{TCP, UDP};
use kuafu_pipeline::map::{AdmittedKey, JIFFY, Rate, Shield, guard};

/// Flows that have begun before the flood.
const ESTABLISHED: u32 = 10_000;
/// A packet of one of them comes after so many of the flood.
const EVERY: u64 = 50;
const XDP_DROP: i32 = 1;
const XDP_TX: i32 = 3;
/// Services of the balancer's world that get a shield: one that is up, and one that wants admitted clients.
const OPEN: u16 = 7020;
const CLOSED: u16 = 7021;
/// New flows a second that the open one gets.
const BUDGET: u64 = 1_000;

#[test]
fn established_flows_outlive_floods() {
    flood(setting(1_000_000));
}

/// Ten times as many.
#[test]
#[ignore = "a minute or two: cargo xtask soak flood"]
fn soak_flood() {
    flood(setting(10_000_000));
}

fn setting(usual: u64) -> u64 {
    std::env::var("KUAFU_FLOOD_PACKETS").map_or(usual, |text| text.parse().expect("a number"))
}

fn flood(packets: u64) {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let done = namespace("flood").run(|| {
        stay_on_one_cpu();
        let world = World {
            connections: 100_000,
            ..world::named("balancer")
        };
        let mut contents = world.contents().expect("a balancer");
        shield(&mut contents);
        let flood = Flood {
            kernel: Kernel::with(&world, Some(&contents), false),
        };
        flood.against_the_open_one(packets);
        flood.against_the_closed_one(packets);
    });
    done.expect("the namespace");
}

/// Gives the two services their shields.
fn shield(contents: &mut Contents) {
    let second = 250 * JIFFY;
    let shields = [
        (
            OPEN,
            Shield {
                vni: OPEN.into(),
                flags: guard::ENFORCES | guard::ALWAYS | guard::COOKIES | guard::NO_AMPLIFIERS,
                key: [1, 2],
                budget: Rate {
                    cost: second / BUDGET,
                    depth: second,
                },
                verified_for: 1 << 30,
                ..Shield::default()
            },
        ),
        (
            CLOSED,
            Shield {
                vni: CLOSED.into(),
                flags: guard::ENFORCES | guard::ALWAYS | guard::ADMISSION,
                ..Shield::default()
            },
        ),
    ];
    for (number, (port, shield)) in (1..).zip(shields) {
        for (key, service) in &mut contents.services {
            if key.port.get() == port {
                service.shield = number;
            }
        }
        contents.shields.insert(number, shield);
    }
}

/// What is flooded with.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Syn,
    Ack,
    Udp,
}

const KINDS: [Kind; 3] = [Kind::Syn, Kind::Ack, Kind::Udp];

struct Flood {
    kernel: Kernel,
}

impl Flood {
    fn against_the_open_one(&self, packets: u64) {
        let flows = self.established(OPEN);
        let mut all = Duration::ZERO;
        for kind in KINDS {
            let passed = self.run(OPEN, kind, packets / 3, &flows, &mut all);
            let tracked = self.kernel.maps().tracked.count().expect("a count");
            println!("{kind:?}: {passed} passed, {tracked} flows are known");
            match kind {
                // Nobody can be reached who floods with the addresses of others.
                Kind::Syn => assert_eq!(passed, 0),
                // The bucket's depth and its rate; the machine may be slow.
                Kind::Ack | Kind::Udp => assert!(passed < packets / 30 + BUDGET * 2, "{passed}"),
            }
        }
        println!("open: {}", cost(packets, all));
        assert_eq!(
            self.kernel.maps().tracked.count().expect("a count"),
            ESTABLISHED,
            "the flood is not remembered"
        );
    }

    fn against_the_closed_one(&self, packets: u64) {
        for flow in 0..ESTABLISHED {
            let key = AdmittedKey {
                vni: CLOSED.into(),
                client: client(flow),
            };
            let admitted = &self.kernel.maps().admitted;
            admitted.set(&key, &u64::MAX).expect("a client");
        }
        let flows = self.established(CLOSED);
        let mut all = Duration::ZERO;
        for kind in KINDS {
            let passed = self.run(CLOSED, kind, packets / 3, &flows, &mut all);
            assert_eq!(passed, 0, "{kind:?} of clients that are not admitted");
        }
        println!("closed: {}", cost(packets, all));
    }

    /// Flows with a target each, TCP and UDP in turn, and where they go.
    fn established(&self, port: u16) -> Vec<(Vec<u8>, [u8; 4])> {
        // Of one that asks for cookies they were there before.
        let shields = &self.kernel.maps().shields;
        let number = 1 + u32::from(port == CLOSED);
        let shield = shields.get(&number).expect("a shield").expect("an entry");
        if port == OPEN {
            let off = Shield { flags: 0, ..shield };
            shields.set(&number, &off).expect("a shield");
        }
        let flows = (0..ESTABLISHED).map(|flow| {
            let (protocol, flags) = if flow % 2 == 0 { (TCP, "A") } else { (UDP, "") };
            let frame = frame(client(flow), 4_000, port, protocol, flags);
            self.pass(&frame);
            let target = self.pass(&frame);
            (frame, target)
        });
        let flows = flows.collect();
        shields.set(&number, &shield).expect("a shield");
        flows
    }

    /// Where a packet goes.
    fn pass(&self, frame: &[u8]) -> [u8; 4] {
        let done = self.kernel.run(&input(frame));
        assert_eq!(done.code, XDP_TX, "a packet of an established flow");
        // The outer destination.
        *done.octets[30..].first_chunk().expect("an address")
    }

    /// Floods, with packets of established flows in between. Returns how many of the flood went to a server.
    fn run(
        &self,
        port: u16,
        kind: Kind,
        packets: u64,
        flows: &[(Vec<u8>, [u8; 4])],
        all: &mut Duration,
    ) -> u64 {
        let (protocol, flags) = match kind {
            Kind::Syn => (TCP, "S"),
            Kind::Ack => (TCP, "A"),
            Kind::Udp => (UDP, ""),
        };
        let mut attack = frame(0, 50_000, port, protocol, flags);
        let (mut passed, mut known) = (0, 0);
        for packet in 0..packets {
            // Each source is another one: an odd factor goes through all of them.
            let turned = packet.wrapping_mul(0x9e37_79b1) & 0x0fff_ffff;
            rewrite(&mut attack, 0x2000_0000 | u32::try_from(turned).expect("28 bits"));
            let start = Instant::now();
            let done = self.kernel.run(&input(&attack));
            *all += start.elapsed();
            passed += u64::from(done.code == XDP_TX && done.octets.len() > attack.len());
            if packet % EVERY == 0 {
                let (frame, target) = &flows[known % flows.len()];
                assert_eq!(self.pass(frame), *target, "flow {known} was moved");
                known += 1;
            }
        }
        passed
    }
}

fn cost(packets: u64, all: Duration) -> String {
    let per_million = all.as_secs_f64() * 1e6 / packets as f64;
    format!("{packets} packets, {per_million:.2} s of CPU per million, the system call included")
}

/// The address of an established client.
const fn client(flow: u32) -> u32 {
    0xcb00_0000 | flow << 4
}

fn input(frame: &[u8]) -> Input {
    Input {
        program: Program::Edge,
        interface: UNDERLAY,
        mark: 0,
        segment: 0,
        octets: frame.to_vec(),
    }
}

fn frame(source: u32, from: u16, to: u16, protocol: u8, flags: &str) -> Vec<u8> {
    let source = std::net::Ipv4Addr::from(source);
    let transport = if protocol == TCP {
        format!("tcp {from} > {to} flags {flags} seq 9")
    } else {
        format!("udp {from} > {to} sum none | data 12")
    };
    encode(&format!(
        "eth mfe > m01 | ipv4 {source} > 198.51.100.1 | {transport}"
    ))
}

/// Lets a frame come from another source.
fn rewrite(frame: &mut [u8], source: u32) {
    frame[24..26].fill(0);
    frame[26..30].copy_from_slice(&source.to_be_bytes());
    let halves = frame[14..34].chunks_exact(2);
    let sum = halves
        .map(|half| u32::from(u16::from_be_bytes([half[0], half[1]])))
        .sum();
    frame[24..26].copy_from_slice(&checksum::finish(sum).to_be_bytes());
}
