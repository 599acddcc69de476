//! A relay dies under a player's packets.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kuafu_lab::stream::{Gap, Trace, gaps};
use kuafu_lab::world::World;
use kuafu_proto::v1::RouteInfo;

use super::cluster::Cluster;
use super::intent::Game;
use super::play::{OTHER_STREAMS, STRAGGLERS, Servers, points, route, stream};
use super::report::Chart;

/// Datagrams a second while the relay dies.
pub(super) const FAILURE_RATE: u32 = 1_000;
/// What the relay's death is watched for, before and after.
const AROUND: Duration = Duration::from_secs(3);

/// A relay that died under a stream.
pub(super) struct Failover {
    game: Game,
    relay: String,
    trace: Trace,
    died: Duration,
    /// Missing numbers towards the server, and back.
    pub(super) missing: [u64; 2],
    after: RouteInfo,
}

/// Lets the wire drop everything from and to the relay of a game's path, from one instant on; then heals it.
pub(super) fn kill_relay(
    world: &World,
    cluster: &Cluster,
    servers: &Servers,
    game: &Game,
) -> Result<Failover> {
    let before = route(world, cluster, game)?;
    let relay = relay_of(&before)?;
    let site = world.site(&relay)?.id();
    let stream = stream(world, game, OTHER_STREAMS, game.accelerated(world)?, FAILURE_RATE)?;
    std::thread::sleep(AROUND);
    world.wan().kill(site)?;
    let died = stream.trace().start().elapsed();
    std::thread::sleep(AROUND);
    let trace = stream.finish(STRAGGLERS);
    let after = route(world, cluster, game)?;
    world.wan().heal(site)?;
    let arrived = servers.of(game)?.arrived(OTHER_STREAMS);
    let forward = gaps(0..trace.sent_count(), arrived);
    let missing = [forward, trace.gaps_back()].map(|gaps| total(&gaps));
    Ok(Failover {
        game: *game,
        relay,
        trace,
        died,
        missing,
        after,
    })
}

/// The relay of a path with one.
pub(super) fn relay_of(route: &RouteInfo) -> Result<String> {
    let relay = route.path.get(1).filter(|_| route.path.len() > 2);
    relay.cloned().context("the path has no relay")
}

fn total(gaps: &[Gap]) -> u64 {
    gaps.iter().map(|gap| gap.missing).sum()
}

impl Failover {
    /// Its chart.
    pub(super) fn chart(&self) -> Chart {
        Chart {
            title: format!("{}: {} dies", self.game.name, self.relay),
            caption: self.told(),
            direct: Vec::new(),
            accelerated: points(&self.trace),
            failure: Some(self.died.as_secs_f64()),
        }
    }

    /// What happened, in a sentence.
    pub(super) fn told(&self) -> String {
        let [forward, back] = self
            .missing
            .map(|missing| missing * 1_000 / u64::from(FAILURE_RATE));
        format!(
            "{} died under {FAILURE_RATE} packets a second; what was lost is {forward} ms towards the server and \
             {back} ms back; then: {}",
            self.relay,
            self.after.path.join(" → "),
        )
    }
}
