//! A pair takes its best path again after an outage, and a new relay's as soon as it has joined.

use std::time::{Duration, Instant};

use kuafu_proto::v1::{ClusterStatus, HostStatus};

use super::common::{Stage, soon};
use super::failover::{self, Watch};
use super::intent::{self, GAMES, Game};
use super::play::{self, Servers};

/// The game whose path has no equal, so that it returns as soon as it may.
const GAME: &Game = &GAMES[0];
/// Its relay. On a busy machine the game may be on another for a while, to which it need not return.
const RELAY: &str = "taipei";
/// For the game to be on it.
const SETTLED: Duration = Duration::from_secs(300);
/// Packets a second: few, as of a game.
const RATE: u32 = 100;
/// The shortest outage after which a return is asked for.
const OUTAGE: Duration = Duration::from_secs(15);

/// The wire drops everything from and to the relay for a while; returns how long after it was whole again the entry
/// sends over the relay.
pub(super) fn a_relay_comes_back(stage: &Stage, id: u32) -> Duration {
    until_best(stage);
    let site = stage.world.site(RELAY).unwrap().id();
    let stream = play::duplex(&stage.world, GAME, id, RATE).unwrap();
    std::thread::sleep(failover::AROUND);
    stage.world.wan().kill(site).unwrap();
    std::thread::sleep(OUTAGE);
    assert!(!sends_over(stage, RELAY), "nothing left {RELAY}");
    stage.world.wan().heal(site).unwrap();
    let healed = Instant::now();
    soon("the relay carries again", || {
        sends_over(stage, RELAY).then_some(())
    });
    let back = healed.elapsed();
    println!("{RELAY} was away for {OUTAGE:?}, and carried again within {back:?}");
    drop(stream);
    back
}

/// The relay leaves the cluster, and joins as a bare host; returns how long after that the entry sends over it.
pub(super) fn a_relay_joins(stage: &mut Stage, id: u32) -> Duration {
    until_best(stage);
    let stream = play::duplex(&stage.world, GAME, id, RATE).unwrap();
    for verb in ["probe", "agent"] {
        stage.kill(RELAY, verb);
    }
    stage.leave(RELAY);
    soon("another path", || (!sends_over(stage, RELAY)).then_some(()));
    // Until the pair may move again.
    std::thread::sleep(play::CALM);
    let nodes = intent::nodes(&stage.world).unwrap();
    stage.cluster.apply(&stage.world, "nodes.yaml", &nodes).unwrap();
    let node = stage
        .cluster
        .join(&stage.world, stage.world.site(RELAY).unwrap())
        .unwrap();
    let joined = Instant::now();
    stage.cluster.nodes.insert(RELAY.to_owned(), node);
    soon("the new relay carries", || sends_over(stage, RELAY).then_some(()));
    let carries = joined.elapsed();
    println!("{RELAY} joined, and carried within {carries:?}");
    drop(stream);
    carries
}

/// With the controller dead, and each time all agents too, the relay dies so many times.
pub(super) fn without_controller_and_agents(
    stage: &mut Stage,
    servers: &Servers,
    game: &Game,
    ids: std::ops::Range<u32>,
) -> Vec<failover::Failover> {
    let relay = failover::relay_of(&stage.until_relayed(game)).unwrap();
    let site = stage.world.site(&relay).unwrap().id();
    stage.kill_controller();
    let nodes = stage.nodes();
    let fail = |id| {
        for node in &nodes {
            stage.kill(node, "agent");
        }
        let watch = Watch::begin(&stage.world, game, id).unwrap();
        stage.world.wan().kill(site).unwrap();
        let failed = watch.end(&stage.world, servers, relay.clone()).unwrap();
        stage.world.wan().heal(site).unwrap();
        println!("{}", failed.told());
        for node in &nodes {
            stage.start(node, "agent");
        }
        for end in [game.entry, game.exit] {
            soon("the agent leads its pairs back", || {
                own(stage, end)?.pairs.iter().all(|pair| !pair.down).then_some(())
            });
        }
        failed
    };
    ids.map(fail).collect()
}

/// The controller starts again; returns how long it takes until every host is connected and runs what it is to run.
pub(super) fn the_controller_returns(stage: &mut Stage) -> Duration {
    let began = Instant::now();
    stage.start_controller(&[]);
    let settled = || {
        let status: ClusterStatus = stage.cluster.json(&stage.world, &["status"]).ok()?;
        let is_settled = |host: &kuafu_proto::v1::HostEntry| host.connected && host.acked == host.revision;
        status.hosts.iter().all(is_settled).then_some(())
    };
    soon("every host runs what it is to run", settled);
    let took = began.elapsed();
    // Paths are chosen anew, by what is measured from now on.
    std::thread::sleep(play::CALM);
    soon("every host still does", settled);
    took
}

fn until_best(stage: &Stage) {
    let is_best = || (sends_over(stage, RELAY) && stage.is_on_primaries(GAME.exit)).then_some(());
    let what = format!("{} takes {RELAY}", GAME.name);
    stage.cluster.until(&what, SETTLED, is_best).unwrap();
}

/// What a host's own agent says of it.
fn own(stage: &Stage, node: &str) -> Option<HostStatus> {
    let status: ClusterStatus = stage.own(node, "status")?;
    status.hosts.into_iter().next()?.status
}

/// Whether the game's entry sends over a relay, by its own agent.
fn sends_over(stage: &Stage, relay: &str) -> bool {
    let Some(status) = own(stage, GAME.entry) else {
        return false;
    };
    let pairs = status
        .pairs
        .iter()
        .filter(|pair| pair.peer == GAME.exit && !pair.down);
    let used: Vec<Option<u32>> = pairs.map(|pair| pair.primary).collect();
    let mut paths = status
        .paths
        .iter()
        .filter(|path| used.contains(&Some(path.index)));
    paths.any(|path| path.nodes.iter().any(|node| node == relay))
}
