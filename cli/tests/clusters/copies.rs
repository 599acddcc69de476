//! Both paths of a pair lose packets, and the server misses almost none: each is sent over both.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::common::{Stage, skipped, soon};
use super::intent::{GAME_PORT, Game};
use super::{intent, play};
use kuafu_lab::stream::Echo;
use kuafu_proto::v1::{ClusterDrops, RouteInfo};

/// Two paths, of 52 and 57 ms: straight, and over Ohio.
const WORLD: &str = "
seed: 17
mtu: 1500
sites:
  - {name: calgary, role: node, region: ca-west-1, spare: 3}
  - {name: ohio, role: node, region: us-east-2}
  - {name: virginia, role: node, region: us-east-1}
  - {name: client-calgary, role: client, region: ca-west-1, access_ms: 1}
  - {name: server-virginia, role: server, region: us-east-1, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
const GAME: Game = Game {
    name: "calgary-virginia",
    player: "client-calgary",
    entry: "calgary",
    exit: "virginia",
    server: "server-virginia",
};
/// Of the packets on each path, each way.
const LOSS: f64 = 0.03;
/// Packets a second.
const RATE: u32 = 1_000;
/// So long packets take both paths before they are counted.
const SETTLED: Duration = Duration::from_secs(3);
/// How the table of routes says it.
const TWICE: &str = "packets take the backup too";

#[test]
fn what_one_path_loses_the_other_brings() {
    let Some((stage, server)) = lossy() else { return };
    // Three times what is expected, since chance has its say in so few.
    play_over(&stage, &server, 3, (6_000, 0.997));
}

#[test]
#[ignore = "minutes: cargo xtask soak copies"]
fn soak_copies() {
    let Some((stage, server)) = lossy() else { return };
    play_over(&stage, &server, 3, (60_000, 0.9985));
    lose(&stage, 0.0);
    soon("one path again", || {
        (!route(&stage)?.why.contains(TWICE)).then_some(())
    });
}

/// The world with both paths lossy and all packets sent twice; none where this machine can have none.
fn lossy() -> Option<(Stage, Echo)> {
    if skipped() {
        return None;
    }
    let manifests =
        |world: &kuafu_lab::world::World| Ok(intent::nodes(world)? + &intent::accelerated(world, &GAME)?);
    let stage = Stage::of(WORLD, manifests).unwrap();
    let world = &stage.world;
    let any = SocketAddr::from(([0, 0, 0, 0], GAME_PORT));
    let server = Echo::start(world.netns(GAME.server).unwrap(), any).unwrap();
    let player = play::duplex(world, &GAME, 1, 100).unwrap();
    soon("an accelerated packet arrives, and there is a backup", || {
        (!server.arrived(1).is_empty() && !route(&stage)?.backup.is_empty()).then_some(())
    });
    assert!(!route(&stage).unwrap().why.contains(TWICE));
    lose(&stage, LOSS);
    // While the loss is new, the choice may change its mind for a tick.
    let mut since = Instant::now();
    soon("both paths, and it stays so", || {
        if !route(&stage)?.why.contains(TWICE) {
            since = Instant::now();
        }
        (since.elapsed() >= SETTLED).then_some(())
    });
    drop(player);
    Some((stage, server))
}

/// Both paths lose this share of all packets, each way: the straight one on its leg, the other on its second.
fn lose(stage: &Stage, share: f64) {
    let site = |name: &str| stage.world.site(name).unwrap().id();
    let exit = site(GAME.exit);
    for before in [site(GAME.entry), site("ohio")] {
        for (from, to) in [(before, exit), (exit, before)] {
            stage.world.wan().set_loss(from, to, share).unwrap();
        }
    }
}

fn route(stage: &Stage) -> Option<RouteInfo> {
    play::route(&stage.world, &stage.cluster, &GAME).ok()
}

/// So many packets each way: at least this share arrives, and none twice.
fn play_over(stage: &Stage, server: &Echo, id: u32, (packets, least): (u32, f64)) {
    let stream = play::duplex(&stage.world, &GAME, id, RATE).unwrap();
    while stream.trace().sent_count() < packets.into() {
        std::thread::sleep(Duration::from_secs(1));
    }
    let trace = stream.finish(play::STRAGGLERS);
    let sent = trace.sent_count();
    let back: Vec<u64> = trace.replies().iter().map(|reply| reply.reply).collect();
    let answered = back.iter().max().map_or(0, |last| last + 1);
    for (way, of, arrived) in [("there", sent, server.arrived(id)), ("back", answered, back)] {
        let once: BTreeSet<u64> = arrived.iter().copied().collect();
        let share = once.len() as f64 / of as f64;
        println!("{way}: {} of {of} arrived, {:.3} %", once.len(), share * 100.0);
        assert_eq!(once.len(), arrived.len(), "{way}: some arrived twice");
        assert!(share >= least, "{way}: {share}");
    }
    for end in [GAME.entry, GAME.exit] {
        let ClusterDrops { drops, .. } = stage.own(end, "drops").unwrap();
        let dropped: Vec<_> = drops.iter().map(|drop| (&drop.reason, drop.count)).collect();
        println!("{end} dropped {dropped:?}");
        assert!(dropped.iter().all(|(reason, _)| *reason != "duplicate"));
    }
}
