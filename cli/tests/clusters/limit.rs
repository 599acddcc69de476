//! Three accelerators at one entry: one with a limit, one without, and one whose entry is its exit.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::common::{Stage, skipped, soon};
use super::intent;
use kuafu_lab::stream::{Answers, Echo, Stream, StreamConfig};
use kuafu_lab::world::World;
use kuafu_proto::v1::ClusterDrops;

const WORLD: &str = "
seed: 13
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 3}
  - {name: bahrain, role: node, region: me-south-1}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: server, role: server, region: me-south-1, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
const PORT: u16 = 7_777;
/// Accelerators, by the number of their address: name, region of the exits, and what follows in the spec.
const ACCELERATORS: [(&str, &str, &str); 3] = [
    ("limited", "me-south-1", "bandwidth_mbps: 1"),
    ("free", "me-south-1", ""),
    ("near", "ap-northeast-3", ""),
];
/// Octets of a packet's payload and of its IP packet, and packets a second: four times the limit.
const PAYLOAD: usize = 1_000;
const OCTETS: u64 = 1_028;
const RATE: u32 = 500;
/// Octets a second, and at once.
const LIMIT: u64 = 125_000;
const BURST: u64 = 15_000;
const LENGTH: Duration = Duration::from_secs(4);
/// For what is under way.
const STRAGGLERS: Duration = Duration::from_secs(1);

#[test]
fn a_limit_holds_for_its_accelerator_alone() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let server = Echo::start(stage.world.netns("server").unwrap(), any).unwrap();
    for (id, number) in [(1, 0), (2, 1), (3, 2)] {
        soon("the accelerator answers", || {
            let stream = stream(&stage, id, number, 20);
            std::thread::sleep(Duration::from_millis(500));
            (!stream.finish(Duration::ZERO).replies().is_empty()).then_some(())
        });
    }
    let before = over_limit(&stage);
    let began = Instant::now();
    let [limited, free] = [(11, 0), (12, 1)].map(|(id, number)| stream(&stage, id, number, RATE));
    std::thread::sleep(LENGTH);
    let free = free.finish(Duration::ZERO);
    let took = began.elapsed();
    let limited = limited.finish(STRAGGLERS);
    assert_eq!(
        free.gaps(0..free.sent_count() - u64::from(RATE)),
        [],
        "of the free one"
    );

    let (sent, arrived) = (limited.sent_count(), server.arrived(11).len() as u64);
    let back = limited.replies().len() as u64;
    println!("{sent} sent in {took:?}, {arrived} arrived, {back} came back");
    // The hosts' clock is coarse: 10 ms at most.
    let most = BURST + LIMIT * (u64::try_from(took.as_millis()).unwrap() + 10) / 1000;
    assert!(arrived * OCTETS <= most, "{} of {most} octets", arrived * OCTETS);
    assert!(
        arrived * OCTETS >= most / 2,
        "{} of {most} octets",
        arrived * OCTETS
    );
    assert!(back * OCTETS <= most && back > 0);
    let dropped = soon("all drops are told", || {
        let after = over_limit(&stage);
        let dropped = [after[0] - before[0], after[1] - before[1]];
        (dropped == [sent - arrived, arrived - back]).then_some(dropped)
    });
    println!("over_limit: {dropped:?} at entry and exit");
    let shown = stage
        .cluster
        .ask(&stage.world, &["get", "accelerator/limited"])
        .unwrap();
    assert!(shown.contains("bandwidth_mbps: 1,"), "{shown}");
}

fn manifests(world: &World) -> anyhow::Result<String> {
    let mut text = intent::nodes(world)?;
    let server = world.site("server")?.address().public;
    let spare = world.site("osaka")?.spare();
    for ((name, region, more), address) in ACCELERATORS.iter().zip(spare) {
        text += &format!(
            "
---
kind: AddressPool
metadata: {{name: {name}}}
spec:
  addresses: [{{node: osaka, public: {}, local: {}}}]
---
kind: Service
metadata: {{name: {name}}}
spec: {{targets: [{{address: {server}, port: {PORT}}}]}}
---
kind: Accelerator
metadata: {{name: {name}}}
spec:
  pool: {name}
  listeners: [{{protocol: udp, port: {PORT}}}]
  groups: [{{service: {name}, region: {region}}}]
  {more}
",
            address.public, address.local
        );
    }
    Ok(text)
}

/// A stream to the accelerator of that number.
fn stream(stage: &Stage, id: u32, number: usize, rate: u32) -> Stream {
    let public = stage.world.site("osaka").unwrap().spare()[number].public;
    let config = StreamConfig {
        to: SocketAddrV4::new(public, PORT).into(),
        id,
        rate,
        bytes: PAYLOAD,
        answers: Answers::Each,
    };
    Stream::start(stage.world.netns("player").unwrap(), config).unwrap()
}

/// How many packets the entry and the exit dropped as beyond a limit.
fn over_limit(stage: &Stage) -> [u64; 2] {
    let drops: ClusterDrops = stage.cluster.json(&stage.world, &["drops"]).unwrap();
    ["osaka", "bahrain"].map(|node| {
        let of = drops.drops.iter().filter(|drop| drop.node == node);
        of.filter(|drop| drop.reason == "over_limit")
            .map(|drop| drop.count)
            .sum()
    })
}
