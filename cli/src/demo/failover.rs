//! A relay dies under a player's packets.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kuafu_lab::stream::{Gap, Stream, Trace, gaps};
use kuafu_lab::world::World;
use kuafu_proto::v1::RouteInfo;

use super::cluster::Cluster;
use super::intent::Game;
use super::play::{STRAGGLERS, Servers, duplex, points, route};
use super::report::{Chart, ms};

/// Datagrams a second while the relay dies.
pub(super) const FAILURE_RATE: u32 = 1_000;
/// What the relay's death is watched for, before and after.
pub(super) const AROUND: Duration = Duration::from_secs(3);

/// For the path to have a relay.
const RELAYED: Duration = Duration::from_secs(120);

/// A stream both ways over a path whose relay is about to die.
pub(super) struct Watch {
    game: Game,
    id: u32,
    stream: Stream,
    /// When it began, on the wire's clock.
    began: Duration,
}

/// A relay that died under a stream.
pub(super) struct Failover {
    pub(super) game: Game,
    pub(super) relay: String,
    pub(super) trace: Trace,
    /// When, since the trace's start.
    pub(super) died: Duration,
    /// Missing numbers ÷ rate: towards the server, and back.
    pub(super) gaps: [Duration; 2],
    /// The wire's round trip from the sender, entry and exit, to the relay before it died.
    pub(super) trips: [Option<Duration>; 2],
    /// The path that was chosen then, where there was a controller to choose.
    pub(super) after: Option<Vec<String>>,
}

/// Lets the wire drop everything from and to the relay of a game's path, from one instant on; then heals it.
pub(super) fn kill_relay(
    world: &World,
    cluster: &Cluster,
    servers: &Servers,
    game: &Game,
    id: u32,
) -> Result<Failover> {
    let watch = Watch::begin(world, game, id)?;
    // Under the stream, which may itself have shown that another path is better.
    let relay = cluster.until(&format!("{} has a relay", game.name), RELAYED, || {
        relay_of(&route(world, cluster, game).ok()?).ok()
    })?;
    let site = world.site(&relay)?.id();
    world.wan().kill(site)?;
    let mut failed = watch.end(world, servers, relay)?;
    failed.after = Some(route(world, cluster, game)?.path);
    world.wan().heal(site)?;
    Ok(failed)
}

impl Watch {
    /// Starts stream number `id`, and watches it for a while.
    pub(super) fn begin(world: &World, game: &Game, id: u32) -> Result<Self> {
        let watch = Self {
            game: *game,
            id,
            began: world.wan().elapsed(),
            stream: duplex(world, game, id, FAILURE_RATE)?,
        };
        std::thread::sleep(AROUND);
        Ok(watch)
    }

    /// Goes on for as long: `relay` has just died.
    pub(super) fn end(self, world: &World, servers: &Servers, relay: String) -> Result<Failover> {
        let (died, game) = (self.stream.start_time().elapsed(), self.game);
        let alive = self.began..self.began + died;
        std::thread::sleep(AROUND);
        let trace = self.stream.finish(STRAGGLERS);
        let arrived = servers.of(&game)?.arrived(self.id);
        let gaps = [gaps(0..trace.sent_count(), arrived), trace.gaps_back()].map(|gaps| total(&gaps));
        let log = world.wan().report()?.log;
        let [there, back] = [game.entry, game.exit].map(|from| world.path(&[from, &relay]));
        let trips = [there?, back?].map(|way| log.round_trip(&way, alive.clone()));
        Ok(Failover {
            game,
            relay,
            trace,
            died,
            gaps,
            trips,
            after: None,
        })
    }
}

/// The relay of a path with one.
pub(super) fn relay_of(route: &RouteInfo) -> Result<String> {
    let relay = route.path.get(1).filter(|_| route.path.len() > 2);
    relay.cloned().context("the path has no relay")
}

/// Their time.
pub(super) fn total(gaps: &[Gap]) -> Duration {
    gaps.iter().map(|gap| gap.length(FAILURE_RATE)).sum()
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
        let [there, back] = [0, 1].map(|way| {
            let trip = self.trips[way].map_or("not known".to_owned(), |trip| format!("{} ms", ms(trip)));
            format!(
                "{} ms (round trip to the relay: {trip})",
                self.gaps[way].as_millis()
            )
        });
        let then = match &self.after {
            Some(path) => format!("; then: {}", path.join(" → ")),
            None => String::new(),
        };
        format!(
            "{} died under {FAILURE_RATE} packets a second each way: the server missed {there} of them, \
             the player {back}{then}",
            self.relay,
        )
    }
}
