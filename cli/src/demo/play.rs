//! Players who play directly and accelerated at once.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use kuafu_lab::stream::{Answers, Echo, Stream, StreamConfig, Trace};
use kuafu_lab::wan::SiteId;
use kuafu_lab::world::{Sites, World};
use kuafu_proto::v1::{RouteInfo, RoutesAnswer};

use super::cluster::Cluster;
use super::intent::{GAME_PORT, GAMES, Game};
use super::report::{Chart, ms};

/// Datagrams a second of a player.
pub(super) const GAME_RATE: u32 = 64;
/// Octets of a datagram's payload: a game's update.
pub(super) const PAYLOAD: usize = 64;
/// How long an echo is waited for after the last datagram.
pub(super) const STRAGGLERS: Duration = Duration::from_millis(1_200);
/// A path that is kept so long is the one that the first measurements of all legs have led to: longer than its dwell.
pub(super) const CALM: Duration = Duration::from_secs(12);
/// The streams of play, two a game; others number theirs from here on.
pub(super) const OTHER_STREAMS: u32 = 1_000;
/// What the live line looks back on.
const RECENTLY: Duration = Duration::from_secs(2);

/// The columns of [`Played::row`].
pub(super) const HEADINGS: [&str; 9] = [
    "GAME", "DIRECT", "KUAFU", "GAIN", "P90", "LOST", "WIRE", "PATH", "WHY",
];

/// The game servers, each at its site. They know nothing of Kuafu.
pub(super) struct Servers(Vec<(&'static str, Echo)>);

impl Servers {
    /// Starts one at each site that a game names.
    pub(super) fn start(world: &World) -> Result<Self> {
        let mut servers: Vec<(&'static str, Echo)> = Vec::new();
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, GAME_PORT));
        for game in &GAMES {
            if servers.iter().all(|(site, _)| *site != game.server) {
                servers.push((game.server, Echo::start(world.netns(game.server)?, any)?));
            }
        }
        Ok(Self(servers))
    }

    /// The one of a game.
    pub(super) fn of(&self, game: &Game) -> Result<&Echo> {
        let found = self.0.iter().find(|(site, _)| *site == game.server);
        found.map(|(_, echo)| echo).context("no such server")
    }
}

/// Starts a player's datagrams to an address, each of which the server sends back.
pub(super) fn stream(world: &World, game: &Game, id: u32, to: SocketAddrV4, rate: u32) -> Result<Stream> {
    answered(world, game, id, to, rate, Answers::Each)
}

/// The same over the accelerator, while the server sends as many by its own clock.
pub(super) fn duplex(world: &World, game: &Game, id: u32, rate: u32) -> Result<Stream> {
    answered(world, game, id, game.accelerated(world)?, rate, Answers::ByClock)
}

fn answered(
    world: &World,
    game: &Game,
    id: u32,
    to: SocketAddrV4,
    rate: u32,
    answers: Answers,
) -> Result<Stream> {
    let config = StreamConfig {
        to: to.into(),
        id,
        rate,
        bytes: PAYLOAD,
        answers,
    };
    Ok(Stream::start(world.netns(game.player)?, config)?)
}

/// The pair of a game as the controller sees it.
pub(super) fn route(world: &World, cluster: &Cluster, game: &Game) -> Result<RouteInfo> {
    let answer: RoutesAnswer = cluster.json(world, &["routes", "--node", game.entry])?;
    let found = answer
        .routes
        .into_iter()
        .find(|route| route.entry == game.entry && route.exit == game.exit);
    found.with_context(|| format!("no pair {} → {}", game.entry, game.exit))
}

/// Waits until every accelerator answers and every pair has the path that it will keep.
pub(super) fn settle(world: &World, cluster: &Cluster, limit: Duration) -> Result<()> {
    for (number, game) in (2 * OTHER_STREAMS..).zip(&GAMES) {
        let try_out = stream(world, game, number, game.accelerated(world)?, 4)?;
        let what = format!("an accelerated packet of {} is answered", game.name);
        cluster.until(&what, limit, || {
            (!try_out.trace().replies().is_empty()).then_some(())
        })?;
    }
    let mut last = (Vec::new(), Instant::now());
    cluster.until("four games take relays, and keep them", limit, || {
        let paths = paths(world, cluster).unwrap_or_default();
        if last.0 != paths {
            last = (paths, Instant::now());
        }
        let relayed = last.0.iter().filter(|path| path.len() > 2).count();
        (relayed == GAMES.len() - 1 && last.1.elapsed() >= CALM).then_some(())
    })
}

/// The paths of all games.
pub(super) fn paths(world: &World, cluster: &Cluster) -> Result<Vec<Vec<String>>> {
    GAMES
        .iter()
        .map(|game| Ok(route(world, cluster, game)?.path))
        .collect()
}

/// A game that was played both ways at once.
pub(super) struct Played {
    /// The game.
    pub(super) game: Game,
    pub(super) direct: Trace,
    pub(super) accelerated: Trace,
    /// The pair when the game was over.
    pub(super) route: RouteInfo,
    /// The medians of the wire itself for the same seconds: direct, and along the path in use.
    pub(super) wire: [Option<Duration>; 2],
}

/// Lets all games be played for a while.
pub(super) fn play(
    world: &World,
    cluster: &Cluster,
    seconds: u64,
    shown: &ProgressBar,
) -> Result<Vec<Played>> {
    let mut streams = Vec::new();
    let (start, from) = (Instant::now(), world.wan().elapsed());
    for (number, game) in (1_u32..).zip(&GAMES) {
        let direct = stream(world, game, number * 2, game.direct(world)?, GAME_RATE)?;
        let accelerated = stream(world, game, number * 2 + 1, game.accelerated(world)?, GAME_RATE)?;
        streams.push((*game, direct, accelerated));
    }
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(1));
        shown.set_message(live(&streams));
    }
    let to = world.wan().elapsed();
    let mut played = Vec::new();
    for (game, direct, accelerated) in streams {
        let (direct, accelerated) = (direct.finish(STRAGGLERS), accelerated.finish(STRAGGLERS));
        played.push(finish(world, cluster, game, [direct, accelerated], from..to)?);
    }
    Ok(played)
}

fn finish(
    world: &World,
    cluster: &Cluster,
    game: Game,
    [direct, accelerated]: [Trace; 2],
    times: Range<Duration>,
) -> Result<Played> {
    let route = route(world, cluster, &game)?;
    let log = world.wan().report()?.log;
    let straight = world.path(&[game.player, game.server])?;
    let wire = [straight, way(world, &game, &route.path)?].map(|path| log.round_trip(&path, times.clone()));
    Ok(Played {
        game,
        direct,
        accelerated,
        route,
        wire,
    })
}

/// The games' medians of the last seconds, direct → accelerated.
fn live(streams: &[(Game, Stream, Stream)]) -> String {
    let recent = |stream: &Stream| {
        let trace = stream.trace();
        let now = stream.start_time().elapsed();
        shown(trace.rtt(0.5, now.saturating_sub(RECENTLY)..now))
    };
    let one = |(game, direct, accelerated): &(Game, Stream, Stream)| {
        format!("{} {} → {}", game.name, recent(direct), recent(accelerated))
    };
    streams.iter().map(one).collect::<Vec<_>>().join("   ")
}

/// The sites that a player's packet passes.
pub(super) fn way(world: &Sites, game: &Game, nodes: &[String]) -> Result<Vec<SiteId>> {
    let mut names = vec![game.player];
    names.extend(nodes.iter().map(String::as_str));
    names.push(game.server);
    Ok(world.path(&names)?)
}

fn shown(trip: Option<Duration>) -> String {
    trip.map_or("-".to_owned(), ms)
}

/// The quantile of a whole trace.
pub(super) fn quantile(trace: &Trace, share: f64) -> Option<Duration> {
    trace.rtt(share, Duration::ZERO..Duration::MAX)
}

impl Played {
    /// Medians at the player: direct, accelerated.
    pub(super) fn medians(&self) -> [Option<Duration>; 2] {
        [quantile(&self.direct, 0.5), quantile(&self.accelerated, 0.5)]
    }

    /// Its chart.
    pub(super) fn chart(&self) -> Chart {
        let nodes = self.route.path.join(" → ");
        Chart {
            title: self.game.name.to_owned(),
            caption: format!("{nodes}: {}", self.route.why),
            direct: points(&self.direct),
            accelerated: points(&self.accelerated),
            failure: None,
        }
    }

    /// Its row.
    pub(super) fn row(&self) -> [String; 9] {
        let [direct, accelerated] = self.medians();
        let gain = direct
            .zip(accelerated)
            .map(|(a, b)| (a.as_secs_f64() - b.as_secs_f64()) * 1_000.0);
        let p90 = [&self.direct, &self.accelerated].map(|trace| shown(quantile(trace, 0.9)));
        [
            self.game.name.to_owned(),
            shown(direct),
            shown(accelerated),
            gain.map_or("-".to_owned(), |gain| format!("{gain:+.1}")),
            p90.join(" → "),
            format!("{} → {}", lost(&self.direct), lost(&self.accelerated)),
            self.wire.map(shown).join(" / "),
            self.route.path.join(" → "),
            self.route.why.clone(),
        ]
    }
}

/// Seconds and round trips in ms, of the first reply to each number.
pub(super) fn points(trace: &Trace) -> Vec<(f64, f64)> {
    let mut last = None;
    let replies = trace.replies().iter();
    replies
        .filter(|reply| last.replace(reply.number) != Some(reply.number))
        .map(|reply| (reply.sent.as_secs_f64(), reply.rtt.as_secs_f64() * 1_000.0))
        .collect()
}

fn lost(trace: &Trace) -> String {
    let (sent, came) = (trace.sent_count(), trace.replies().len() as u64);
    #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
    let share = 100.0 * sent.saturating_sub(came) as f64 / sent.max(1) as f64;
    format!("{share:.1} %")
}
