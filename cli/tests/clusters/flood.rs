//! Services behind shields, under floods: real clients get through, and what should not does not.
//!
//! The flood goes through the program that is attached to the host, over its maps, but not over the wire, which would be
//! what breaks first.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Stage, skipped, soon};
use super::intent;
use super::requests::{HTTP, Request, failed, request, under_load};
use super::services::{Server, UDP};
use etherparse::PacketBuilder;
use kuafu_dataplane::bpf::{LAYOUT, LinkKind, Program, TestRun};
use kuafu_lab::stream::{Answers, Stream, StreamConfig};
use kuafu_lab::world::World;
use kuafu_proto::v1::ClusterShield;

const WORLD: &str = "
seed: 31
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 3}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 5}
  - {name: another, role: client, region: ap-northeast-3, access_ms: 5}
  - {name: third, role: client, region: ap-northeast-3, access_ms: 5}
  - {name: one, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
/// Each at an address of its own: one always up, one that goes up by itself, one that wants admitted clients.
const SHIELDS: [&str; 3] = [
    "{mode: on, new_per_s: 2000}",
    "{mode: automatic, alarm_new_per_s: 2000, hold_s: 3, new_per_s: 2000}",
    "{mode: on, admission: required}",
];
const XDP_TX: u32 = 3;
const WHILE: Duration = Duration::from_secs(3);
/// Requests of a client that nobody floods.
const REQUESTS: usize = 100;

#[test]
fn clients_get_through_while_services_are_flooded() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, |world| manifests(world, "")).unwrap();
    let addresses: Vec<Ipv4Addr> = spares(&stage.world).collect();
    let pages = tempfile::tempdir().unwrap();
    let server = Server::start(&stage.world, "one", &addresses, pages.path());
    let [always, automatic, closed] = addresses[..] else {
        panic!("three addresses: {addresses:?}")
    };
    // By the service that nobody floods yet: its shield asks nobody.
    let ask = || request(automatic);
    let player = stage.world.netns("player").unwrap();
    soon("a service answers", || player.run(ask).unwrap().ok());
    a_client_shows_that_it_can_be_reached(&stage, always);
    it_goes_up_and_down_by_itself(&stage, automatic);
    only_the_admitted_get_in(&stage, closed, &server);
    lists_are_followed(&stage, always);
}

/// Under a flood of SYNs, of segments and of datagrams, a client that was never here connects, at once nearly.
fn a_client_shows_that_it_can_be_reached(stage: &Stage, address: Ipv4Addr) {
    let clients = ["player", "another", "third"];
    for (client, kind) in clients.into_iter().zip([Kind::Syn, Kind::Ack, Kind::Udp]) {
        let flooded = flood(stage, address, kind, || {
            let (first, requests) = requests(&stage.world, client, address);
            println!(
                "{client}, under {kind:?}: first request {first:?}, then {}",
                spread(&requests)
            );
            assert!(failed(&requests).count() == 0, "{requests:?}");
            // Its SYN is sent again after a second at the latest.
            assert!(first < Duration::from_secs(2), "{first:?}");
        });
        println!("{kind:?}: {flooded}");
        assert!(flooded.packets > 10_000, "{flooded}");
    }
}

/// A flood is met within two seconds, and forgotten when it is over.
fn it_goes_up_and_down_by_itself(stage: &Stage, address: Ipv4Addr) {
    let (first, before) = requests(&stage.world, "player", address);
    println!("before: {first:?}, then {}", spread(&before));
    assert!(!is_up(stage), "nobody floods");
    let mut during = Vec::new();
    flood(stage, address, Kind::Syn, || {
        let begun = Instant::now();
        soon("it is up", || is_up(stage).then_some(()));
        println!("up {:?} after the flood began", begun.elapsed());
        during = under_load(&stage.world, "player", &[address], |_| thread::sleep(WHILE))
            .pop()
            .unwrap();
        assert!(is_up(stage), "the flood goes on");
    });
    println!("during: {}", spread(&during));
    assert_eq!(failed(&during).count(), 0, "{during:?}");
    let over = Instant::now();
    soon("it is down", || (!is_up(stage)).then_some(()));
    println!("down {:?} after the flood ended", over.elapsed());
    let (_, after) = requests(&stage.world, "player", address);
    println!("after: {}", spread(&after));
    assert_eq!(failed(&after).count(), 0, "{after:?}");
}

/// Nothing of others reaches the server; the admitted client loses nothing, and is one no longer when its time is over.
fn only_the_admitted_get_in(stage: &Stage, address: Ipv4Addr, server: &Server) {
    let arrived = |id| -> usize { server.echoes.iter().map(|echo| echo.arrived(id).len()).sum() };
    let player = stage.world.site("player").unwrap().address().public.to_string();
    let admit = |object: &str, more: &[&str]| {
        let verb = [&["admit", player.as_str(), object][..], more].concat();
        stage.cluster.ask(&stage.world, &verb)
    };
    let refused = admit("service/web-0", &["--ttl", "5"]).unwrap_err().to_string();
    assert!(refused.contains("admission"), "{refused}");
    let sent = |client, id| datagrams(&stage.world, client, address, id);
    let [lost, _] = sent("player", 1);
    assert_eq!(arrived(1), 0, "nobody is admitted, and {lost} were sent");
    admit("service/web-2", &["--ttl", "5"]).unwrap();
    let (mut of_player, mut of_another) = ([0, 0], [0, 0]);
    let flooded = flood(stage, address, Kind::Udp, || {
        of_player = sent("player", 2);
        of_another = sent("another", 3);
    });
    println!("admission: {flooded}; admitted {of_player:?} sent and answered, others {of_another:?}");
    assert_eq!(flooded.passed, 0, "{flooded}");
    assert_eq!(of_player[0], of_player[1], "an admitted client loses nothing");
    assert_eq!(arrived(3), 0, "the other is not admitted");
    // A socket of its own each: a flow that goes on is none that begins.
    let mut id = 3;
    soon("its time is over", || {
        id += 1;
        sent("player", id);
        (arrived(id) == 0).then_some(())
    });
}

/// A list keeps its sources out while a shield names it. One with a mistake changes nothing.
fn lists_are_followed(stage: &Stage, address: Ipv4Addr) {
    let another = stage.world.site("another").unwrap().address().public;
    let ask = || {
        stage
            .world
            .netns("another")
            .unwrap()
            .run(|| request(address))
            .unwrap()
    };
    let apply = |prefix: &str| {
        let list = format!(
            "
---
kind: PrefixList
metadata: {{name: bots}}
spec: {{prefixes: [{prefix}, 203.0.113.0/24]}}
"
        );
        let text = manifests(&stage.world, "block: [bots], ").unwrap() + &list;
        stage.cluster.apply(&stage.world, "world.yaml", &text)
    };
    ask().unwrap();
    apply(&format!("{another}/32")).unwrap();
    soon("it is blocked", || ask().is_err().then_some(()));
    let dropped = stage.dropped();
    assert!(dropped.contains("blocked"), "{dropped}");
    let wrong = apply("198.51.100.7/24").unwrap_err().to_string();
    assert!(
        wrong.contains("world.yaml:") && wrong.contains("198.51.100.7/24"),
        "{wrong}"
    );
    ask().unwrap_err();
    apply("198.51.100.0/24").unwrap();
    soon("it is not blocked any more", || ask().ok());
}

fn spares(world: &World) -> impl Iterator<Item = Ipv4Addr> {
    world.site("osaka").unwrap().spare().iter().map(|at| at.public)
}

/// `more` belongs to each shield.
fn manifests(world: &World, more: &str) -> anyhow::Result<String> {
    let mut text = intent::nodes(world)?;
    let target = world.site("one")?.address().public;
    for (number, (shield, address)) in SHIELDS.iter().zip(spares(world)).enumerate() {
        text += &format!(
            "
---
kind: AddressPool
metadata: {{name: pool-{number}}}
spec: {{addresses: [{{node: osaka, public: {address}}}]}}
---
kind: Service
metadata: {{name: web-{number}}}
spec:
  pool: pool-{number}
  listeners: [{{protocol: tcp, port: {HTTP}}}, {{protocol: udp, port: {UDP}}}]
  targets: [{{address: {target}}}]
  mode: gue
  shield: {}
",
            shield.replacen('{', &format!("{{{more}"), 1)
        );
    }
    Ok(text)
}

/// Requests of a client: how long the first one takes, and the others.
fn requests(world: &World, client: &str, address: Ipv4Addr) -> (Duration, Vec<Request>) {
    let asked = world.netns(client).unwrap().run(|| {
        let one = || {
            let began = Instant::now();
            let who = request(address).map_err(|error| error.to_string());
            let took = began.elapsed();
            Request { began, took, who }
        };
        let first = one();
        assert!(first.who.is_ok(), "{first:?}");
        (first.took, (0..REQUESTS).map(|_| one()).collect())
    });
    asked.unwrap()
}

/// Datagrams of a client: how many were sent, and answered.
fn datagrams(world: &World, client: &str, address: Ipv4Addr, id: u32) -> [usize; 2] {
    let config = StreamConfig {
        to: SocketAddrV4::new(address, UDP).into(),
        id,
        rate: 1_000,
        bytes: 100,
        answers: Answers::Each,
    };
    let stream = Stream::start(world.netns(client).unwrap(), config).unwrap();
    thread::sleep(Duration::from_millis(200));
    let trace = stream.finish(Duration::from_secs(1));
    [
        usize::try_from(trace.sent_count()).unwrap(),
        trace.replies().len(),
    ]
}

fn spread(requests: &[Request]) -> String {
    let mut took: Vec<Duration> = requests.iter().map(|request| request.took).collect();
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    format!("{} requests, p50 {:?}, p99 {:?}", took.len(), at(50), at(99))
}

/// What is flooded with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Syn,
    Ack,
    Udp,
}

/// What became of a flood.
#[derive(Default)]
pub(super) struct Flooded {
    packets: u64,
    /// To a server.
    passed: u64,
    took: Duration,
}

impl std::fmt::Display for Flooded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            packets,
            passed,
            took,
        } = self;
        write!(
            f,
            "{packets} packets of as many sources in {took:?}, {passed} went to a server"
        )
    }
}

/// Floods a service while `work` goes on.
pub(super) fn flood(stage: &Stage, address: Ipv4Addr, kind: Kind, work: impl FnOnce()) -> Flooded {
    let path = stage.layout("osaka", LAYOUT).program("kuafu_edge");
    let program = Program::open(&path, "kuafu_edge", LinkKind::Xdp).unwrap();
    let osaka = stage.world.netns("osaka").unwrap();
    let interface = osaka.index_of("eth0").unwrap();
    let (over, packets) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let attack = || {
                let (mut flooded, begun) = (Flooded::default(), Instant::now());
                let mut frame = frame(address, kind);
                while !over.load(Ordering::Relaxed) {
                    rewrite(&mut frame, flooded.packets);
                    let run = program.test_run(&TestRun::once(&frame, interface)).unwrap();
                    flooded.packets += 1;
                    packets.store(flooded.packets, Ordering::Relaxed);
                    flooded.passed += u64::from(run.verdict == XDP_TX && run.frame.len() > frame.len());
                    // The other CPU's: whoever else wants this one, has it now and then.
                    if flooded.packets % 1_000 == 0 {
                        thread::yield_now();
                    }
                }
                flooded.took = begun.elapsed();
                flooded
            };
            osaka.run(attack).unwrap()
        });
        soon("the flood has begun", || {
            (packets.load(Ordering::Relaxed) > 10_000).then_some(())
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        let flooded = attack.join().unwrap();
        if let Err(panic) = worked {
            std::panic::resume_unwind(panic);
        }
        flooded
    })
}

/// A frame of a flood.
fn frame(address: Ipv4Addr, kind: Kind) -> Vec<u8> {
    let head =
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([0; 4], address.octets(), 64);
    let mut frame = Vec::new();
    let written = match kind {
        Kind::Syn => head.tcp(50_000, HTTP, 9, 1_000).syn().write(&mut frame, &[]),
        Kind::Ack => head.tcp(50_000, HTTP, 9, 1_000).ack(9).write(&mut frame, &[]),
        Kind::Udp => head.udp(50_000, UDP).write(&mut frame, &[0; 12]),
    };
    written.unwrap();
    frame
}

/// Lets a frame come from another source.
fn rewrite(frame: &mut [u8], packet: u64) {
    // An odd factor goes through all of them.
    let turned = packet.wrapping_mul(0x9e37_79b1) & 0x0fff_ffff;
    let source = 0x2000_0000 | u32::try_from(turned).unwrap();
    let mut header = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
    header.source = source.to_be_bytes();
    header.header_checksum = header.calc_header_checksum();
    frame[14..34].copy_from_slice(&header.to_bytes());
}

/// Whether the service's shield that goes up by itself is up, as `status` says it.
fn is_up(stage: &Stage) -> bool {
    let verb = ["status", "service/web-1"];
    let shield: ClusterShield = stage.cluster.json(&stage.world, &verb).unwrap();
    let [host] = &shield.hosts[..] else {
        panic!("one host: {shield:?}")
    };
    host.up
}
