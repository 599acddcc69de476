//! What a relay carries is lost: on the link to it, or inside it while it passes probes on.

use std::time::{Duration, Instant};

use kuafu_lab::wan::SiteId;
use kuafu_proto::v1::RouteInfo;

use super::LIMIT;
use super::common::{Stage, soon};
use super::intent::{GAMES, Game};
use super::play::{self, Servers};

/// The game whose path has no equal, so that it returns as soon as it may.
const LOSSY: &Game = &GAMES[0];
/// Packets a second: few, as of a game.
const RATE: u32 = 100;
const LOSS: f64 = 0.05;
/// What is looked at on a busy machine; the figure printed is the one that counts.
const LEFT_AT_MOST: Duration = Duration::from_secs(20);

/// A path that was left.
struct Left {
    before: RouteInfo,
    after: RouteInfo,
    took: Duration,
}

/// The link from the relay to the exit loses packets of all sorts; then it is whole again, and the game returns.
/// Returns how long it took to leave it, and after 15 s of loss to return.
pub(super) fn a_leg_loses(stage: &Stage, servers: &Servers, id: u32) -> [Duration; 2] {
    let wan = stage.world.wan();
    let lose = |[relay, exit]: [SiteId; 2], share| {
        for (from, to) in [(relay, exit), (exit, relay)] {
            wan.set_loss(from, to, share).unwrap();
        }
    };
    let left = left(stage, servers, id, |leg| lose(leg, LOSS));
    println!(
        "a leg that loses 5 % under {RATE} packets a second was left within {:?}: {}",
        left.took, left.after.why
    );
    std::thread::sleep(Duration::from_secs(15));
    lose(last_leg(stage, &left.before), 0.0);
    let healed = Instant::now();
    soon("the path before", || {
        (route(stage, LOSSY).path == left.before.path).then_some(())
    });
    let back = healed.elapsed();
    println!("healed after 15 s, it was back on its path within {back:?}");
    [left.took, back]
}

/// The relay's link onward loses data, and no probe.
pub(super) fn a_relay_loses_data(stage: &Stage, servers: &Servers, id: u32) {
    let lose =
        |[relay, exit]: [SiteId; 2], share| _ = stage.world.wan().set_data_loss(relay, exit, share).unwrap();
    let Left { before, after, took } = left(stage, servers, id, |leg| lose(leg, 0.2));
    println!(
        "a relay that loses 20 % of its data was left within {took:?}: {}",
        after.why
    );
    assert!(
        !after.path.contains(&before.path[before.path.len() - 2]),
        "{before:?} {after:?}"
    );
    std::thread::sleep(Duration::from_secs(20));
    assert_ne!(route(stage, LOSSY).path, before.path, "its probes say nothing");
    lose(last_leg(stage, &before), 0.0);
}

/// The last relay of a path, and its exit.
fn last_leg(stage: &Stage, route: &RouteInfo) -> [SiteId; 2] {
    match route.path.as_slice() {
        [.., relay, exit] => [relay, exit].map(|site| stage.world.site(site).unwrap().id()),
        path => panic!("no path: {path:?}"),
    }
}

/// Under a stream that was there before, the last leg of the game's path loses; until the game has another path.
fn left(stage: &Stage, servers: &Servers, id: u32, lose: impl FnOnce([SiteId; 2])) -> Left {
    let stream = play::duplex(&stage.world, LOSSY, id, RATE).unwrap();
    let deadline = Instant::now() + LIMIT;
    while servers.of(LOSSY).unwrap().arrived(id).is_empty() {
        assert!(Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(5));
    let before = stage.until_relayed(LOSSY);
    let began = Instant::now();
    lose(last_leg(stage, &before));
    let after = soon("another path", || {
        let route = route(stage, LOSSY);
        (route.path != before.path).then_some(route)
    });
    let took = began.elapsed();
    assert!(took < LEFT_AT_MOST, "{took:?}");
    drop(stream);
    Left { before, after, took }
}

fn route(stage: &Stage, game: &Game) -> RouteInfo {
    play::route(&stage.world, &stage.cluster, game).unwrap()
}
