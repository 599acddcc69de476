//! An accelerator that admits players: what its back end says reaches the entry, and status says what its shield does.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::common::{Stage, skipped, soon};
use super::intent;
use kuafu_lab::stream::{Answers, Echo, Stream, StreamConfig};
use kuafu_lab::world::World;
use kuafu_proto::v1::{AdmitAnswer, ClusterShield, ShieldStatus};

const WORLD: &str = "
seed: 29
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 2}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: server, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
const PORT: u16 = 7_777;
const GUARDED: &str = "accelerator/guarded";
/// Accelerators, by the number of their address, and their shields.
const ACCELERATORS: [(&str, &str); 2] = [
    ("guarded", "{mode: on, admission: required, source_new_per_s: 20}"),
    ("blocking", "{mode: observe, block: [players]}"),
];
/// Packets a second.
const RATE: u32 = 50;
const LENGTH: Duration = Duration::from_secs(2);

#[test]
fn players_begin_when_they_are_admitted() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let _server = Echo::start(stage.world.netns("server").unwrap(), any).unwrap();
    // It blocks nobody: it observes.
    soon("the other accelerator answers", || {
        (replies(&stage, 1, 1) > 0).then_some(())
    });
    let observing = shield(&stage, "accelerator/blocking");
    assert!(
        observing.up && packets(&observing, "blocked") > 0,
        "{observing:?}"
    );

    assert_eq!(replies(&stage, 2, 0), 0);
    let player = stage.world.site("player").unwrap().address().public.to_string();
    let ask = |words: &[&str]| stage.cluster.ask(&stage.world, words).unwrap();
    let told = ask(&["admit", &player, GUARDED, "--ttl", "600"]);
    assert_eq!(
        told,
        format!("{player} may begin flows at {GUARDED} for 600 s, at osaka.\n")
    );
    assert!(replies(&stage, 3, 0) > 0);
    let again: AdmitAnswer = stage
        .cluster
        .json(&stage.world, &["admit", &player, GUARDED, "--ttl", "60"])
        .unwrap();
    assert_eq!(
        (again.nodes, again.errors),
        (vec!["osaka".to_owned()], Vec::new())
    );

    let guarded = soon("who sends most is told", || {
        let guarded = shield(&stage, GUARDED);
        (!guarded.sources.is_empty()).then_some(guarded)
    });
    println!("{}", ask(&["status", GUARDED]));
    assert_eq!((guarded.mode.as_str(), guarded.up), ("on", true));
    assert!(packets(&guarded, "not_admitted") > 0, "{guarded:?}");
    assert!(
        packets(&guarded, "new") > packets(&guarded, "not_admitted"),
        "{guarded:?}"
    );
    assert_eq!(guarded.sources[0].source, player);
    let open = stage.cluster.ask(
        &stage.world,
        &["admit", &player, "accelerator/blocking", "--ttl", "60"],
    );
    let open = format!("{:#}", open.unwrap_err());
    assert!(open.contains("set spec.shield.admission: required"), "{open}");
}

fn manifests(world: &World) -> anyhow::Result<String> {
    let mut text = intent::nodes(world)?;
    let [player, server] =
        ["player", "server"].map(|site| world.site(site).map(|site| site.address().public));
    let (player, server) = (player?, server?);
    text +=
        &format!("---\nkind: PrefixList\nmetadata: {{name: players}}\nspec: {{prefixes: [{player}/32]}}\n");
    let spare = world.site("osaka")?.spare();
    for ((name, shield), address) in ACCELERATORS.iter().zip(spare) {
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
  groups: [{{service: {name}, region: ap-northeast-3}}]
  shield: {shield}
",
            address.public, address.local
        );
    }
    Ok(text)
}

/// How many answers a stream to the accelerator of that number gets.
fn replies(stage: &Stage, id: u32, number: usize) -> usize {
    let public = stage.world.site("osaka").unwrap().spare()[number].public;
    let config = StreamConfig {
        to: SocketAddrV4::new(public, PORT).into(),
        id,
        rate: RATE,
        bytes: 100,
        answers: Answers::Each,
    };
    let stream = Stream::start(stage.world.netns("player").unwrap(), config).unwrap();
    std::thread::sleep(LENGTH);
    stream.finish(Duration::from_millis(500)).replies().len()
}

/// What a shield does at the entry.
fn shield(stage: &Stage, object: &str) -> ShieldStatus {
    let mut shield: ClusterShield = stage.cluster.json(&stage.world, &["status", object]).unwrap();
    assert_eq!(shield.errors, []);
    shield.hosts.remove(0)
}

fn packets(shield: &ShieldStatus, what: &str) -> u64 {
    let tally = shield.tallies.iter().find(|tally| tally.what == what);
    tally.unwrap().packets
}
