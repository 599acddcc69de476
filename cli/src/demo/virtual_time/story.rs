//! The demonstration's story without a kernel that could play it: games, direct against accelerated, and a relay that
//! dies, by the model and in virtual time.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kuafu_controller::core::RouteView;
use kuafu_lab::stream::{Answers, StreamConfig, Trace, gaps};
use kuafu_lab::virtual_time::StreamId;
use kuafu_lab::wan::Change;
use kuafu_lab::world::{DEMO, Role, WorldSpec};
use kuafu_pipeline::Reason;
use kuafu_proto::v1::RouteInfo;

use super::super::failover::{self, AROUND, FAILURE_RATE, Failover};
use super::super::intent::{self, GAME_PORT, GAMES, Game};
use super::super::play::{self, CALM, GAME_RATE, HEADINGS, OTHER_STREAMS, PAYLOAD, Played, STRAGGLERS};
use super::super::report::Chart;
use super::super::{CHOICE_LIMIT, Step};
use super::Cluster;
use crate::out::columns;

/// What was shown.
pub(in super::super) struct Told {
    /// For people.
    pub(in super::super) summary: String,
    pub(in super::super) charts: Vec<Chart>,
    /// What the controller recorded of its choices, a line each.
    pub(in super::super) recording: Vec<String>,
}

/// Plays it all.
///
/// # Errors
/// What went wrong in the model.
pub(in super::super) fn tell(seconds: u64, step: &Step) -> Result<Told> {
    let spec = WorldSpec::parse(DEMO)?;
    let mut cluster = Cluster::start(&spec, None, |world| intent::manifests(world))?;
    for game in &GAMES {
        if GAMES
            .iter()
            .find(|other| other.server == game.server)
            .is_some_and(|first| first.name == game.name)
        {
            cluster.world.guest(game.server)?.echo(GAME_PORT);
        }
    }
    step.next("model: every leg is measured, the best paths are chosen");
    settle(&mut cluster)?;
    step.next(&format!(
        "model: {seconds} s of play, direct and accelerated at once"
    ));
    let games = play(&mut cluster, Duration::from_secs(seconds))?;
    step.next("model: a relay dies under 1,000 packets a second");
    let failover = kill_relay(&mut cluster, &GAMES[2])?;
    let mut charts: Vec<_> = games.iter().map(Played::chart).collect();
    charts.push(failover.chart());
    Ok(Told {
        summary: summary(&games, &failover, &drops(&mut cluster)),
        charts,
        recording: cluster.recording,
    })
}

fn summary(games: &[Played], failover: &Failover, drops: &str) -> String {
    let table = columns(HEADINGS, games.iter().map(Played::row));
    format!(
        "\nMODEL, in virtual time: no packet left this process. Controller, agents and probers decide by their own \
         code; the programs run in userland over the model's tables, players and servers are smoltcp stacks.\n\nWhat \
         the players gain: round trips in ms of their packets ({GAME_RATE} a second each way at the same \
         time)\n\n{table}\nA relay dies\n  {}.\n\nWhat was dropped\n{drops}\nNot in the model: two \
         tenants with the same addresses.\n",
        failover.told()
    )
}

/// Every drop by its name.
fn drops(cluster: &mut Cluster) -> String {
    let sites: Vec<_> = cluster
        .world
        .with_role(Role::Node)
        .map(|site| (site.name().to_owned(), site.id()))
        .collect();
    let mut rows = Vec::new();
    for (name, site) in sites {
        let Some(pop) = cluster.world.pop(site) else {
            continue;
        };
        for reason in Reason::ALL {
            let packets = pop.host().drops(*reason).packets;
            if packets > 0 {
                rows.push([reason.word().to_owned(), name.clone(), packets.to_string()]);
            }
        }
    }
    columns(["REASON", "HOST", "PACKETS"], rows)
}

/// Until four games take relays, and keep them.
fn settle(cluster: &mut Cluster) -> Result<()> {
    let (mut last, mut since) = (Vec::new(), Duration::ZERO);
    while cluster.world.now() < CHOICE_LIMIT {
        cluster.run(Duration::from_secs(1))?;
        let paths: Vec<_> = cluster.routes().into_iter().map(|route| route.path).collect();
        if paths != last {
            (last, since) = (paths, cluster.world.now());
        }
        let relayed = last.iter().filter(|path| path.len() > 2).count();
        if relayed == GAMES.len() - 1 && cluster.world.now() - since >= CALM {
            break;
        }
    }
    Ok(())
}

fn begin(
    cluster: &mut Cluster,
    game: &Game,
    accelerated: bool,
    stream: (u32, u32, Answers),
) -> Result<StreamId> {
    let (id, rate, answers) = stream;
    let (now, world) = (cluster.world.now(), &mut cluster.world);
    let to = if accelerated {
        game.accelerated(world)?
    } else {
        game.direct(world)?
    };
    let config = StreamConfig {
        to: to.into(),
        id,
        rate,
        bytes: PAYLOAD,
        answers,
    };
    Ok(world.guest(game.player)?.play(now, config))
}

/// Sends no more, and returns all that came.
fn end(cluster: &mut Cluster, game: &Game, stream: StreamId) -> Result<Trace> {
    let player = cluster.world.guest(game.player)?;
    player.stop(stream);
    cluster.run(STRAGGLERS)?;
    Ok(cluster.world.guest(game.player)?.trace(stream).clone())
}

/// Lets all games be played for a while.
fn play(cluster: &mut Cluster, time: Duration) -> Result<Vec<Played>> {
    let from = cluster.world.now();
    let mut streams = Vec::new();
    for (number, game) in (1_u32..).zip(GAMES) {
        let direct = begin(cluster, &game, false, (number * 2, GAME_RATE, Answers::Each))?;
        let accelerated = begin(cluster, &game, true, (number * 2 + 1, GAME_RATE, Answers::Each))?;
        streams.push((game, [direct, accelerated]));
    }
    cluster.run(time)?;
    let times = from..cluster.world.now();
    for (game, streams) in &streams {
        streams
            .iter()
            .try_for_each(|stream| cluster.world.guest(game.player).map(|guest| guest.stop(*stream)))?;
    }
    let mut played = Vec::new();
    for (game, [direct, accelerated]) in streams {
        let (direct, accelerated) = (end(cluster, &game, direct)?, end(cluster, &game, accelerated)?);
        let route = route(cluster, &game)?;
        let straight = cluster.world.path(&[game.player, game.server])?;
        let way = play::way(&cluster.world, &game, &route.path)?;
        let wire = [straight, way].map(|path| cluster.world.log().round_trip(&path, times.clone()));
        played.push(Played {
            game,
            direct,
            accelerated,
            route,
            wire,
        });
    }
    Ok(played)
}

/// The wire drops everything from and to the relay of a game's path.
fn kill_relay(cluster: &mut Cluster, game: &Game) -> Result<Failover> {
    let (id, began) = (OTHER_STREAMS, cluster.world.now());
    let stream = begin(cluster, game, true, (id, FAILURE_RATE, Answers::ByClock))?;
    cluster.run(AROUND)?;
    let relay = failover::relay_of(&route(cluster, game)?)?;
    let died = cluster.world.now();
    let site = cluster.world.site(&relay)?.id();
    cluster.world.apply(Change::Kill(site));
    cluster.run(AROUND)?;
    let trace = end(cluster, game, stream)?;
    let arrived = cluster.world.guest(game.server)?.arrived(id);
    let missed = [gaps(0..trace.sent_count(), arrived), trace.gaps_back()];
    let mut trips = [None, None];
    for (trip, from) in trips.iter_mut().zip([game.entry, game.exit]) {
        let way = cluster.world.path(&[from, &relay])?;
        *trip = cluster.world.log().round_trip(&way, began..died);
    }
    Ok(Failover {
        game: *game,
        relay,
        trace,
        died: died - began,
        gaps: missed.map(|gaps| failover::total(&gaps)),
        trips,
        after: Some(route(cluster, game)?.path),
    })
}

/// The pair of a game as the controller sees it.
fn route(cluster: &Cluster, game: &Game) -> Result<RouteInfo> {
    let is_of =
        |route: &RouteView| (route.pair.entry.as_str(), route.pair.exit.as_str()) == (game.entry, game.exit);
    let found = cluster.routes().into_iter().find(is_of);
    let route = found.with_context(|| format!("no pair {} → {}", game.entry, game.exit))?;
    Ok(RouteInfo {
        entry: game.entry.to_owned(),
        exit: game.exit.to_owned(),
        path: route.path,
        why: route.why,
        ..RouteInfo::default()
    })
}
