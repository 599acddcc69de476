//! The balancer judged from outside: `kuafu dev pin-edge` pins it, packets go through the pin.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "it is a test")]

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use kuafu_dataplane::bpf::{LinkKind, Program, TestRun};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use serde_json::{Value, json};

/// `XDP_DROP`, `XDP_PASS`, `XDP_TX`.
const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;
/// Flows of a test, as many as the balancer is promised for.
const FLOWS: u32 = 100_000;
const ALL: usize = FLOWS as usize;
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x33];
const OUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// An instance of its own, that goes with the value.
struct Pinned {
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Pinned {
    fn new(name: &str, config: &Value) -> Self {
        let path = PathBuf::from(format!("/sys/fs/bpf/kuafu-pin-{name}-{}", std::process::id()));
        let folder = tempfile::tempdir().unwrap();
        let pinned = Self { path, folder };
        pinned.configure(config);
        pinned
    }

    fn command(&self, config: &Value) -> Command {
        let file = self.folder.path().join("edge.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = kuafu();
        command.arg("--config").arg(file).arg("--pin").arg(&self.path);
        command
    }

    fn configure(&self, config: &Value) {
        let output = self.command(config).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(text(&output.stdout), format!("{}\n", self.path.display()));
    }

    fn ring(&self, config: &Value, service: &str) -> Vec<String> {
        let output = self.command(config).args(["--ring", service]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect()
    }

    fn program(&self) -> Program {
        Program::open(&self.path, "kuafu_edge", LinkKind::Xdp).unwrap()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_dir_all(format!("{}-maps", self.path.display()));
    }
}

fn kuafu() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kuafu"));
    command.args(["dev", "pin-edge"]);
    command
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// `count` targets of equal weight, without those in `without`.
fn targets(count: u32, without: &[u32]) -> Value {
    let targets = (0..count).filter(|index| !without.contains(index));
    targets
        .map(|index| json!({"address": target(index), "weight": 1}))
        .collect()
}

fn target(index: u32) -> String {
    Ipv4Addr::from(0xc000_0300 + index).to_string()
}

/// A TCP and a UDP service over these targets, by IPIP.
fn config(targets: &Value) -> Value {
    let service = |name: &str, protocol: &str, port: u16| {
        let mut service = json!({"name": name, "address": SERVICE, "protocol": protocol, "port": port});
        service["targets"] = targets.clone();
        service
    };
    json!({
        "gateway_mac": "02:00:00:00:00:33",
        "encapsulation": {"kind": "ipip", "outer_sources": ["192.0.2.1"]},
        "max_frame": 1514,
        "ring_size": 65537,
        "shield": "off",
        "policy": {"fragments": "forward", "echo": "reply", "oversize": "icmp"},
        "services": [service("web", "tcp", 443), service("game", "udp", 7000)],
    })
}

/// A client's address and port, by a number.
fn client(number: u32) -> (Ipv4Addr, u16) {
    (
        Ipv4Addr::from(0xcb00_7100 + number / 1000),
        1024 + (number % 1000) as u16 * 7,
    )
}

fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(ROUTER_MAC, OWN_MAC)
}

fn tcp(number: u32, syn: bool) -> Vec<u8> {
    let (address, port) = client(number);
    let packet = ethernet()
        .ipv4(address.octets(), SERVICE.octets(), 60)
        .tcp(port, 443, 1, 1024);
    let mut frame = Vec::new();
    let packet = if syn { packet.syn() } else { packet.ack(1) };
    packet.write(&mut frame, b"abcd").unwrap();
    frame
}

fn udp_from((address, port): (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = ethernet()
        .ipv4(address.octets(), SERVICE.octets(), 60)
        .udp(port, 7000);
    packet.write(&mut frame, payload).unwrap();
    frame
}

/// Runs a frame, and checks all that must be so of one that is sent on by IPIP. Its target.
fn forwarded(program: &Program, frame: &[u8]) -> Ipv4Addr {
    let run = program.test_run(&TestRun::once(frame, 0)).unwrap();
    assert_eq!(run.verdict, TX, "{frame:02x?}");
    let out = &run.frame;
    assert_eq!(out[..14], [&GATEWAY_MAC[..], &OWN_MAC, &[8, 0]].concat());
    let (outer, _) = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap();
    assert_eq!(outer.source, [192, 0, 2, 1]);
    assert_eq!(
        (outer.protocol.0, usize::from(outer.total_len)),
        (4, out.len() - 14)
    );
    assert_eq!(outer.header_checksum, outer.calc_header_checksum());
    assert!(outer.time_to_live > 0);
    assert_eq!(out[15], frame[15], "TOS");
    assert_eq!(out[34..], frame[14..], "the inner packet, unchanged");
    outer.destination.into()
}

/// How many flows have another target, and how many there are.
fn moved(before: &[Ipv4Addr], after: &[Ipv4Addr]) -> (usize, usize) {
    let moved = before.iter().zip(after).filter(|(before, after)| before != after);
    (moved.count(), after.len())
}

fn skipped() -> bool {
    match kuafu_lab::unavailable() {
        Some(why) => {
            kuafu_lab::skip(why);
            true
        }
        None => false,
    }
}

/// The target of each flow, by a packet in its midst or its first one.
fn all_targets(program: &Program, syn: bool) -> Vec<Ipv4Addr> {
    (0..FLOWS)
        .map(|number| forwarded(program, &tcp(number, syn)))
        .collect()
}

fn on_cpu(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

#[test]
fn flows_keep_their_targets_when_the_ring_changes_and_on_another_cpu() {
    if skipped() {
        return;
    }
    let before = config(&targets(100, &[]));
    let pinned = Pinned::new("flows", &before);
    let other = Pinned::new("other", &before);
    let (program, others) = (pinned.program(), other.program());
    on_cpu(0);
    let first = all_targets(&program, true);
    let again = all_targets(&program, false);
    assert_eq!(
        moved(&first, &again),
        (0, ALL),
        "second packets, which are remembered"
    );
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus > 1 {
        on_cpu(1);
        assert_eq!(
            moved(&first, &all_targets(&program, false)),
            (0, ALL),
            "on another CPU"
        );
    }
    let by_ring = all_targets(&others, true);
    assert_eq!(
        moved(&first, &by_ring),
        (0, ALL),
        "another instance, by the ring alone"
    );

    let gone: Ipv4Addr = target(7).parse().unwrap();
    let after = config(&targets(100, &[7]));
    pinned.configure(&after);
    other.configure(&after);
    let later = all_targets(&program, false);
    let (mut of_gone, mut unmoved) = (0, 0);
    for (before, after) in first.iter().zip(&later) {
        if *before == gone {
            assert_ne!(*after, gone);
            of_gone += 1;
        } else {
            assert_eq!(before, after, "a tracked flow to another target");
            unmoved += 1;
        }
    }
    println!("removed one of 100 targets: {of_gone} flows moved, {unmoved} stayed");
    // The other instance never saw those flows begin: the ring before tells it where they belong.
    let elsewhere: Vec<_> = (0..FLOWS)
        .filter(|number| first[*number as usize] != gone)
        .map(|number| forwarded(&others, &tcp(number, false)) == first[number as usize])
        .collect();
    assert!(
        elsewhere.iter().all(|same| *same),
        "{} of {}",
        elsewhere.iter().filter(|same| **same).count(),
        elsewhere.len()
    );

    // New flows follow the new ring, which is the same at both.
    let new = |program: &Program| -> Vec<Ipv4Addr> {
        (FLOWS..FLOWS + 10_000)
            .map(|number| forwarded(program, &tcp(number, true)))
            .collect()
    };
    assert_eq!(moved(&new(&program), &new(&others)), (0, 10_000));
    let slots = pinned.ring(&after, "web");
    assert_eq!(slots.len(), 65_537);
    let mut counts: HashMap<&String, u32> = HashMap::new();
    slots
        .iter()
        .for_each(|slot| *counts.entry(slot).or_default() += 1);
    assert_eq!((counts.len(), counts.get(&target(7))), (99, None));
    assert!(
        counts.values().all(|count| (661..=663).contains(count)),
        "{counts:?}"
    );

    // And back: what moved to others in the meantime stays there.
    pinned.configure(&before);
    assert_eq!(moved(&later, &all_targets(&program, false)), (0, ALL));
}

#[test]
fn udp_flows_are_remembered_with_their_second_packet_and_drain_with_weight_0() {
    if skipped() {
        return;
    }
    let before = config(&targets(10, &[]));
    let pinned = Pinned::new("udp", &before);
    let program = pinned.program();
    let all = || -> Vec<Ipv4Addr> {
        (0..FLOWS)
            .map(|number| forwarded(&program, &udp_from(client(number), b"x")))
            .collect()
    };
    let first = all();
    assert_eq!(moved(&first, &all()), (0, ALL));
    let mut weights = targets(10, &[]);
    weights[3]["weight"] = json!(0);
    pinned.configure(&config(&weights));
    assert_eq!(
        moved(&first, &all()),
        (0, ALL),
        "a target of weight 0 keeps what it has"
    );
    let drained: Ipv4Addr = target(3).parse().unwrap();
    let new: Vec<_> = (FLOWS..FLOWS + 10_000)
        .map(|number| forwarded(&program, &tcp(number, true)))
        .collect();
    assert!(!new.contains(&drained), "and takes nothing new");
    pinned.configure(&config(&targets(10, &[3])));
    let moved = all();
    assert!(!moved.contains(&drained));
    let others = first.iter().zip(&moved).filter(|(before, _)| **before != drained);
    assert!(others.into_iter().all(|(before, after)| before == after));
}

#[test]
fn a_flood_of_first_packets_moves_no_established_flow() {
    if skipped() {
        return;
    }
    let pinned = Pinned::new("flood", &config(&targets(10, &[])));
    let program = pinned.program();
    let established: Vec<_> = (0..10_000)
        .map(|number| forwarded(&program, &tcp(number, true)))
        .collect();
    let again = |_| -> Vec<Ipv4Addr> {
        (0..10_000)
            .map(|number| forwarded(&program, &tcp(number, false)))
            .collect()
    };
    assert_eq!(moved(&established, &again(0)), (0, 10_000));
    for number in 0..200_000 {
        forwarded(&program, &tcp(100_000 + number, true));
        forwarded(&program, &udp_from(client(100_000 + number), b"x"));
    }
    pinned.configure(&config(&targets(11, &[])));
    assert_eq!(moved(&established, &again(1)), (0, 10_000));
}

#[test]
fn quic_connections_are_told_by_their_ids() {
    if skipped() {
        return;
    }
    let mut config = config(&targets(10, &[]));
    config["services"][1]["quic"] = json!(true);
    config["quic"] = json!({
        "cid_layout": {"kind": "tagged"},
        "server_ids": [{"id": 1025, "target": target(4)}, {"id": "0x010203", "target": "192.0.2.99"}],
    });
    let pinned = Pinned::new("quic", &config);
    let program = pinned.program();
    let short = |id: [u8; 8]| [&[0x40], &id[..], &[0; 12]].concat();
    let known = short([0b0100_0001, 0, 0b0100_0000, 9, 9, 9, 9, 9]);
    let named = short([0b1000_0000, 1, 2, 3, 9, 9, 9, 9]);
    let unknown = short([0b0100_0001, 0xff, 0b0100_0000, 9, 9, 9, 9, 9]);
    let long = [
        &[0xc0, 0, 0, 0, 1, 8],
        &[0b0100_0001, 0, 0b0100_0000, 9, 9, 9, 9, 9][..],
        &[0; 30],
    ]
    .concat();
    let mut by_ring = std::collections::HashSet::new();
    for number in 0..1000 {
        let from = client(number);
        let ring = forwarded(&program, &udp_from(from, &long));
        by_ring.insert(ring);
        assert_eq!(
            forwarded(&program, &udp_from(from, &unknown)),
            ring,
            "as the flow's packets before"
        );
        assert_eq!(
            forwarded(&program, &udp_from(from, &known)).to_string(),
            target(4)
        );
        assert_eq!(
            forwarded(&program, &udp_from(from, &unknown)).to_string(),
            target(4),
            "which it follows"
        );
        assert_eq!(
            forwarded(&program, &udp_from(from, &named)).to_string(),
            "192.0.2.99"
        );
    }
    assert_eq!(by_ring.len(), 10);
    // A server that is none of the service's targets outlives a change of these.
    config["services"][1]["targets"] = targets(10, &[2]);
    pinned.configure(&config);
    for number in 0..1000 {
        assert_eq!(
            forwarded(&program, &udp_from(client(number), &unknown)).to_string(),
            "192.0.2.99"
        );
    }

    config["quic"] = json!({
        "cid_layout": {"kind": "quic-lb-plain", "config_rotation": 2, "server_id_bytes": 3},
        "server_ids": [{"id": 0x0001_0203, "target": target(5)}],
    });
    pinned.configure(&config);
    let known = short([0b0100_0000, 1, 2, 3, 9, 9, 9, 9]);
    for number in 2000..3000 {
        assert_eq!(
            forwarded(&program, &udp_from(client(number), &known)).to_string(),
            target(5)
        );
    }
}

#[test]
fn errors_go_where_their_flow_goes_and_policies_hold() {
    if skipped() {
        return;
    }
    let pinned = Pinned::new("policies", &config(&targets(10, &[])));
    let program = pinned.program();
    let run = |frame: &[u8]| program.test_run(&TestRun::once(frame, 0)).unwrap();
    for number in 0..1000 {
        // What the service's server answered, quoted by a router on the way to the client.
        let (address, port) = client(number);
        let mut quoted = Vec::new();
        let answer = PacketBuilder::ipv4(SERVICE.octets(), address.octets(), 60)
            .tcp(443, port, 1, 1024)
            .ack(1);
        answer.write(&mut quoted, b"").unwrap();
        let mut error = Vec::new();
        let kind = etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
        );
        let router = ethernet()
            .ipv4([203, 0, 113, 254], SERVICE.octets(), 60)
            .icmpv4(kind);
        router.write(&mut error, &quoted).unwrap();
        assert_eq!(
            forwarded(&program, &error),
            forwarded(&program, &tcp(number, false))
        );
    }
    let echo = |payload: &[u8]| {
        let mut frame = Vec::new();
        let packet = ethernet()
            .ipv4([203, 0, 113, 7], SERVICE.octets(), 60)
            .icmpv4_echo_request(7, 1);
        packet.write(&mut frame, payload).unwrap();
        frame
    };
    let answer = run(&echo(b"0123456789"));
    assert_eq!(answer.verdict, TX);
    let parsed = etherparse::PacketHeaders::from_ethernet_slice(&answer.frame).unwrap();
    let Some(etherparse::TransportHeader::Icmpv4(icmp)) = parsed.transport else {
        panic!("{:02x?}", answer.frame)
    };
    assert!(matches!(icmp.icmp_type, etherparse::Icmpv4Type::EchoReply(_)));
    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(b"0123456789"));

    let largest = udp_from(client(1), &vec![1; 1472]);
    assert_eq!(largest.len(), 1514);
    forwarded(&program, &largest);
    let refused = run(&udp_from(client(1), &vec![1; 1473]));
    assert_eq!((refused.verdict, &refused.frame[34..36]), (TX, &[3, 4][..]));
    assert_eq!(refused.frame[40..42], 1500u16.to_be_bytes());

    // What is nobody's is left as it was.
    let mut foreign = tcp(1, true);
    foreign[36..38].copy_from_slice(&80u16.to_be_bytes());
    let passed = run(&foreign);
    assert_eq!((passed.verdict, &passed.frame), (PASS, &foreign));

    let mut silent = config(&json!([]));
    silent["policy"] =
        json!({"fragments": "drop", "ipv4_options": "pass", "echo": "pass", "oversize": "drop"});
    silent["services"][1]["targets"] = targets(3, &[]);
    pinned.configure(&silent);
    let dropped = run(&tcp(500_000, true));
    assert_eq!(
        (dropped.verdict, &dropped.frame),
        (DROP, &tcp(500_000, true)),
        "no targets"
    );
    assert_eq!(run(&echo(b"x")).verdict, PASS);
    assert_eq!(run(&udp_from(client(1), &vec![1; 1473])).verdict, DROP);
    let mut fragment = udp_from(client(1), &[1; 64]);
    fragment[20] |= 0x20;
    let (mut header, _) = etherparse::Ipv4Header::from_slice(&fragment[14..]).unwrap();
    header.header_checksum = header.calc_header_checksum();
    fragment[24..26].copy_from_slice(&header.header_checksum.to_be_bytes());
    assert_eq!(run(&fragment).verdict, DROP);
}

/// Runs an IPv6 frame, and checks all that must be so of one that is sent on, where `gue` is what stands between UDP and
/// the inner packet. Its target.
fn forwarded_v6(program: &Program, frame: &[u8], gue: Option<&[u8]>) -> Ipv6Addr {
    let run = program.test_run(&TestRun::once(frame, 0)).unwrap();
    assert_eq!(run.verdict, TX, "{frame:02x?}");
    let out = &run.frame;
    assert_eq!(out[..14], [&GATEWAY_MAC[..], &OWN_MAC, &[0x86, 0xdd]].concat());
    let (outer, inside) = etherparse::Ipv6Header::from_slice(&out[14..]).unwrap();
    let (inner, _) = etherparse::Ipv6Header::from_slice(&frame[14..]).unwrap();
    assert_eq!(outer.source, OUTER_V6.octets());
    assert_eq!(usize::from(outer.payload_length), inside.len());
    assert_eq!(outer.traffic_class, inner.traffic_class);
    assert!(outer.hop_limit > 0);
    let inside = match gue {
        None => {
            assert_eq!(outer.next_header.0, 41);
            inside
        }
        Some(header) => {
            assert_eq!(outer.next_header.0, 17);
            let (udp, behind) = etherparse::UdpHeader::from_slice(inside).unwrap();
            assert_eq!((udp.destination_port, udp.checksum), (6080, 0));
            assert_eq!(usize::from(udp.length), inside.len());
            behind.strip_prefix(header).unwrap()
        }
    };
    assert_eq!(inside, &frame[14..], "the inner packet, unchanged");
    outer.destination.into()
}

#[test]
fn ipv6_is_served_alike() {
    if skipped() {
        return;
    }
    let flows = 20_000;
    let service = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    let target = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last);
    let frame = |number: u32, syn: bool| {
        let client = Ipv6Addr::new(
            0x2001,
            0xdb8,
            3,
            0,
            0,
            0,
            0,
            u16::try_from(number / 1000).unwrap(),
        )
        .octets();
        let packet = ethernet().ipv6(client, service.octets(), 60);
        let packet = packet.tcp(1024 + (number % 1000) as u16 * 7, 443, 1, 1024);
        let packet = if syn { packet.syn() } else { packet.ack(1) };
        let mut frame = Vec::new();
        packet.write(&mut frame, b"abcd").unwrap();
        frame
    };
    let ways = [
        (json!({"kind": "ipip"}), None),
        (
            json!({"kind": "gue", "port": 6080, "variant": 0}),
            Some(&[0, 41, 0, 0][..]),
        ),
        (json!({"kind": "gue", "port": 6080, "variant": 1}), Some(&[][..])),
    ];
    for (index, (encapsulation, gue)) in ways.into_iter().enumerate() {
        let with = |targets: &[u16]| {
            let mut config = config(&json!([]));
            config["encapsulation"] = encapsulation.clone();
            config["encapsulation"]["outer_sources"] = json!([OUTER_V6]);
            let targets: Vec<Value> = targets
                .iter()
                .map(|last| json!({"address": target(*last)}))
                .collect();
            let web = json!({"name": "web", "address": service, "protocol": "tcp", "port": 443, "targets": targets});
            config["services"] = json!([web]);
            config
        };
        let pinned = Pinned::new(&format!("six-{index}"), &with(&[1, 2, 3, 4]));
        let program = pinned.program();
        let all = |syn: bool| -> Vec<Ipv6Addr> {
            (0..flows)
                .map(|number| forwarded_v6(&program, &frame(number, syn), gue))
                .collect()
        };
        let first = all(true);
        let kept = |now: &[Ipv6Addr]| {
            let both = first.iter().zip(now);
            let mut others = both.filter(|(before, _)| **before != target(2));
            others.all(|(before, now)| before == now)
        };
        assert!(kept(&all(false)));
        pinned.configure(&with(&[1, 3, 4, 5]));
        let later = all(false);
        assert!(kept(&later) && !later.contains(&target(2)));
        let again: std::collections::HashSet<_> = all(true).into_iter().collect();
        assert!(!again.contains(&target(2)), "not even anew");
    }
}

/// Clients' frames of all kinds to a service of each family, as far as `pin-edge` has them answered or sent on.
fn of_all_kinds() -> Vec<Vec<u8>> {
    let service_v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).octets();
    let client_v6 = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 7).octets();
    let mut frames = Vec::new();
    for octets in [0, 1, 17, 700, 1352] {
        let payload: Vec<u8> = (0..=250).cycle().take(octets).collect();
        let v4 = || ethernet().ipv4([203, 0, 113, 7], SERVICE.octets(), 60);
        let v6 = || ethernet().ipv6(client_v6, service_v6, 60);
        let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = Vec::new();
            write(&mut frame);
            frames.push(frame);
        };
        add(&|frame| v4().udp(4000, 7000).write(frame, &payload).unwrap());
        add(&|frame| v6().udp(4000, 7000).write(frame, &payload).unwrap());
        add(&|frame| v4().tcp(4000, 443, 1, 9).syn().write(frame, &payload).unwrap());
        add(&|frame| v6().tcp(4000, 443, 1, 9).ack(7).write(frame, &payload).unwrap());
        add(&|frame| v4().icmpv4_echo_request(7, 1).write(frame, &payload).unwrap());
        add(&|frame| v6().icmpv6_echo_request(7, 1).write(frame, &payload).unwrap());
    }
    let too_long = vec![7; 1473];
    let mut long = [Vec::new(), Vec::new()];
    let v4 = ethernet()
        .ipv4([203, 0, 113, 7], SERVICE.octets(), 60)
        .udp(4000, 7000);
    v4.write(&mut long[0], &too_long).unwrap();
    let v6 = ethernet().ipv6(client_v6, service_v6, 60).udp(4000, 7000);
    v6.write(&mut long[1], &too_long).unwrap();
    frames.extend(long);
    frames
}

/// How many of these frames tshark, which checks all sums, shows by a filter.
fn dissected(frames: &[Vec<u8>], filter: &str) -> usize {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = PcapWriter::new(file.as_file()).unwrap();
    for frame in frames {
        let octets = u32::try_from(frame.len()).unwrap();
        let packet = PcapPacket::new(Duration::ZERO, octets, frame);
        writer.write_packet(&packet).unwrap();
    }
    let mut tshark = Command::new("tshark");
    for protocol in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    tshark.arg("-r").arg(file.path()).args(["-Y", filter]);
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().count()
}

#[test]
fn what_leaves_is_right_for_tshark_too() {
    if skipped() {
        return;
    }
    let frames = of_all_kinds();
    let service_v6 = "2001:db8:1::1";
    let ways = [
        json!({"kind": "ipip"}),
        json!({"kind": "gue", "port": 6080, "variant": 0}),
        json!({"kind": "gue", "port": 6080, "variant": 1}),
    ];
    for (index, encapsulation) in ways.into_iter().enumerate() {
        let mut all = config(&targets(10, &[]));
        all["encapsulation"] = encapsulation;
        all["encapsulation"]["outer_sources"] = json!(["192.0.2.1", OUTER_V6]);
        let six = json!([{"address": "2001:db8:2::1"}, {"address": "2001:db8:2::2"}]);
        let mut services = all["services"].as_array().unwrap().clone();
        for mut service in all["services"].as_array().unwrap().clone() {
            service["name"] = json!(format!("{}-six", service["name"].as_str().unwrap()));
            service["address"] = json!(service_v6);
            service["targets"] = six.clone();
            services.push(service);
        }
        all["services"] = json!(services);
        let pinned = Pinned::new(&format!("tshark-{index}"), &all);
        let program = pinned.program();
        let run = |frame: &Vec<u8>| program.test_run(&TestRun::once(frame, 0)).unwrap();
        let out: Vec<_> = frames.iter().map(run).collect();
        assert!(out.iter().all(|run| run.verdict == TX));
        let out: Vec<_> = out.into_iter().map(|run| run.frame).collect();
        let sums = ["ip", "udp", "tcp", "icmp", "icmpv6"];
        let bad = sums
            .map(|protocol| format!("{protocol}.checksum.status == \"Bad\""))
            .join(" || ");
        assert_eq!(dissected(&out, &bad), 0);
        assert_eq!(
            dissected(&out, "icmp.type == 0 || icmpv6.type == 129"),
            10,
            "echo"
        );
        assert_eq!(
            dissected(&out, "icmp.type == 3 || icmpv6.type == 2"),
            2,
            "too big"
        );
        let sent_on = match index {
            0 => "(ip.src == 192.0.2.1 && ip.proto == 4) || (ipv6.src == 2001:db8::9 && ipv6.nxt == 41)",
            _ => "(ip.src == 192.0.2.1 || ipv6.src == 2001:db8::9) && udp.dstport == 6080",
        };
        assert_eq!(dissected(&out, sent_on), 20);
        if index == 0 {
            let inner =
                "ip.dst == 198.51.100.1 && ip.ttl == 60 || ipv6.dst == 2001:db8:1::1 && ipv6.hlim == 60";
            assert_eq!(
                dissected(
                    &out,
                    &format!("({inner}) && (udp.dstport == 7000 || tcp.dstport == 443)")
                ),
                22
            );
        }
    }
}

/// A number that looks random, each time another one (xorshift, Marsaglia 2003).
fn draw(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// Whether the IP headers of a frame, one in the other, are such as a router passes on.
fn has_sane_headers(frame: &[u8]) -> bool {
    let mut packet = &frame[14..];
    let mut ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    loop {
        let (inside, next) = match ethertype {
            0x0800 => {
                let Ok((header, inside)) = etherparse::Ipv4Header::from_slice(packet) else {
                    return false;
                };
                let exact = usize::from(header.total_len) == packet.len();
                let summed = header.header_checksum == header.calc_header_checksum();
                if !exact || !summed || header.time_to_live == 0 {
                    return false;
                }
                (inside, header.protocol.0)
            }
            _ => {
                let Ok((header, inside)) = etherparse::Ipv6Header::from_slice(packet) else {
                    return false;
                };
                if usize::from(header.payload_length) != inside.len() || header.hop_limit == 0 {
                    return false;
                }
                (inside, header.next_header.0)
            }
        };
        (packet, ethertype) = match next {
            4 => (inside, 0x0800),
            41 => (inside, 0x86dd),
            _ => return true,
        };
    }
}

#[test]
fn nothing_malformed_leaves_at_any_length_and_with_any_bits() {
    if skipped() {
        return;
    }
    let mut both = config(&targets(10, &[]));
    both["encapsulation"]["outer_sources"] = json!(["192.0.2.1", OUTER_V6]);
    let six = json!({"name": "six", "address": "2001:db8:1::1", "protocol": "udp", "port": 7000,
                     "targets": [{"address": "2001:db8:2::1"}]});
    both["services"].as_array_mut().unwrap().push(six);
    let pinned = Pinned::new("hostile", &both);
    let program = pinned.program();
    let (mut sent, mut runs) = (0, 0);
    let mut run = |frame: &[u8]| {
        let run = program.test_run(&TestRun::once(frame, 0)).unwrap();
        assert!(
            [DROP, PASS, TX].contains(&run.verdict),
            "{} of {frame:02x?}",
            run.verdict
        );
        if run.verdict == TX {
            assert!(has_sane_headers(&run.frame), "{frame:02x?}\n{:02x?}", run.frame);
            sent += 1;
        } else {
            assert_eq!(run.frame, frame, "{} leaves a packet as it was", run.verdict);
        }
        runs += 1;
    };
    let frames = of_all_kinds();
    for frame in &frames {
        let mut padded = frame.clone();
        padded.resize(frame.len() + 9, 0);
        run(&padded);
        (15..=frame.len()).for_each(|length| run(&frame[..length]));
    }
    let mut state = 1;
    for _ in 0..100_000 {
        let mut frame = frames[draw(&mut state) % 24].clone();
        for _ in 0..=draw(&mut state) % 3 {
            let at = draw(&mut state) % (frame.len().min(90) * 8);
            frame[at / 8] ^= 1 << (at % 8);
        }
        run(&frame);
    }
    println!("{runs} frames, {sent} sent on or answered, each with sane headers");
    assert!(sent > 10_000);
}

#[test]
fn a_ring_of_a_thousand_targets_is_swapped_under_load_without_a_loss() {
    if skipped() {
        return;
    }
    let with = |without: &[u32]| {
        let mut config = config(&targets(1000, without));
        config["ring_size"] = json!(131_071);
        config
    };
    let pinned = Pinned::new("swap", &with(&[]));
    let program = pinned.program();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut packets, start) = (0u32, Instant::now());
            while !done.load(Ordering::Relaxed) {
                // Of each flow a first packet and a later one; flows come again.
                forwarded(&program, &tcp(packets / 2 % 50_000, packets % 2 == 0));
                packets += 1;
            }
            (packets, start.elapsed())
        });
        for round in 0..6 {
            pinned.configure(&with(if round % 2 == 0 { &[3, 500] } else { &[] }));
        }
        done.store(true, Ordering::Relaxed);
        let (packets, took) = load.join().unwrap();
        println!("{packets} packets in {took:?} over six swaps, none lost");
    });
}

/// What is said where this file's value at a JSON pointer is another.
fn refused(pointer: &str, value: Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.json");
    let mut config = config(&targets(2, &[]));
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap();
    match key.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[key] = value,
    }
    std::fs::write(&file, config.to_string()).unwrap();
    let command = kuafu()
        .arg("--config")
        .arg(&file)
        .args(["--ring", "web"])
        .output();
    let Output { status, stderr, .. } = command.unwrap();
    assert_eq!(status.code(), Some(1), "{config}");
    text(&stderr)
        .replace(&*file.to_string_lossy(), "edge.json")
        .trim_end()
        .to_owned()
}

fn each_refused(cases: &[(&str, Value, &str)]) {
    for (pointer, value, due) in cases {
        let said = refused(pointer, value.clone());
        assert!(
            said.starts_with("kuafu: ") && said.contains(due),
            "{said}\n  instead of {due}"
        );
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_its_place() {
    let port = json!({"kind": "gue", "outer_sources": ["192.0.2.1"]});
    let variant = json!({"kind": "gue", "outer_sources": ["192.0.2.1"], "port": 6080, "variant": 2});
    let sources = "/encapsulation/outer_sources";
    let too_long = json!({"server_ids": [{"id": 1u64 << 32, "target": "192.0.2.9"}]});
    each_refused(&[
        (
            "/gateway_mac",
            json!("02:00"),
            "gateway_mac is 02:00; allowed: six octets",
        ),
        ("/gateway_mac", json!("01:00:00:00:00:01"), "of one host"),
        ("/version", json!(2), "version is 2; this is schema version 1"),
        ("/shield", json!("on"), "shield is on; allowed: off"),
        ("/max_frame", json!(100), "max_frame is 100; allowed: 590 or more"),
        (
            "/policy/ipv4_options",
            json!("forward"),
            "policy.ipv4_options is forward, which is not supported",
        ),
        ("/policy/echo", json!("maybe"), "unknown variant `maybe`"),
        (
            sources,
            json!(["2001:db8::1"]),
            "outer_sources has no IPv4 address",
        ),
        (
            sources,
            json!(["here"]),
            "outer_sources: here is no address or prefix",
        ),
        ("/encapsulation", port, "encapsulation.port is missing or 0"),
        (
            "/encapsulation",
            variant,
            "encapsulation.variant is 2; allowed: 0, 1",
        ),
        (
            "/quic",
            too_long,
            "quic.server_ids[0].id is 4294967296, which does not fit the 32 bits",
        ),
    ]);
}

#[test]
fn services_that_cannot_be_are_refused_with_their_place() {
    let ring = "services[0] (web): ring_size is 65536 for 2 targets; allowed: a prime";
    let prefix = "services[0] (web): address is 198.51.100.0/24; prefixes are not supported";
    let family = "services[0] (web): targets[1]: 2001:db8::1 is of another family";
    let no_source =
        "encapsulation.outer_sources has no IPv6 address; add one, since services[0] (web) is IPv6";
    each_refused(&[
        ("/ring_size", json!(65_536), ring),
        ("/ring_size", json!(1), "ring_size is 1 for 2 targets"),
        ("/services/0/address", json!("198.51.100.0/24"), prefix),
        ("/services/0/address", json!("2001:db8::1"), no_source),
        ("/services/0/targets/1/address", json!("2001:db8::1"), family),
        (
            "/services/0/targets/1/weight",
            json!(2_000_000),
            "targets[1].weight is 2000000; allowed: 0 to 1000000",
        ),
        (
            "/services/0/server_id_option",
            json!(true),
            "server_id_option is not supported",
        ),
        (
            "/services/0/source_routes",
            json!(true),
            "source_routes are not supported",
        ),
        ("/services/0/quic", json!(true), "quic is true, and protocol tcp"),
        (
            "/services/1/name",
            json!("web"),
            "services[1] (web).name is there twice; rename one",
        ),
        (
            "/services/0/name",
            json!("other"),
            "--ring web: there is no such service, only other, game",
        ),
    ]);
    let game = json!({"name": "game", "address": SERVICE, "protocol": "tcp", "port": 443});
    let due = "services[1] (game): another service has its address, protocol and port; remove one of the two";
    assert_eq!(refused("/services/1", game), format!("kuafu: edge.json: {due}"));
}
