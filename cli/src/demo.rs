//! `kuafu demo`: from nothing to what a player gains, on the real kernel of this machine.
//!
//! A world of namespaces behind an emulated WAN, Kuafu's own processes in it, games that know nothing of it; then a
//! relay dies, two tenants share addresses, and everything goes away again.

mod cluster;
mod intent;
mod report;
mod stream;
mod tenants;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use indicatif::ProgressBar;
use kuafu_lab::wan::SiteId;
use kuafu_lab::world::{DEMO, World, WorldSpec};
use kuafu_proto::v1::{RouteInfo, RoutesAnswer};

use crate::failure;
use crate::out::{self, columns};
use cluster::{Cluster, Folders};
use intent::{GAME_PORT, GAMES, Game};
use report::{Chart, ms};
use stream::{Echo, Log, Stream, missing, quantile};
use tenants::Tenants;

/// Datagrams a second of a player.
const GAME_RATE: u32 = 64;
/// Datagrams a second while the relay dies.
const FAILURE_RATE: u32 = 1_000;
/// What the relay's death is watched for, before and after.
const AROUND_FAILURE: Duration = Duration::from_secs(3);
/// For paths to be measured and chosen: estimates look 30 s back.
const CHOICE_LIMIT: Duration = Duration::from_secs(75);

/// Show it all on this machine, and write report.html
///
/// Builds ten points of presence behind a WAN with measured latencies, lets players play directly and accelerated
/// at once, kills a relay, and lets two tenants share addresses. About three minutes; nothing stays behind.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu demo
  kuafu demo --seconds 60 --report /tmp/report.html")]
pub(crate) struct Args {
    /// How long the players play
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Where the report is written
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    report: PathBuf,
}

/// Runs the demonstration.
///
/// # Errors
/// What could not be built, started or reached, with the last words of the processes; something stayed behind.
pub(crate) fn run(args: Args) -> failure::Result {
    let folders = Folders::make()?;
    let prefix = format!("kuafu-demo-{}", std::process::id());
    let (interrupted, world_of) = (folders.clone(), prefix.clone());
    kuafu_lab::clean_on_interrupt(move || {
        let _ = kuafu_lab::sweep(&world_of);
        interrupted.remove();
    })?;
    let shown = show(&args, &folders, &prefix);
    folders.remove();
    let left = kuafu_lab::leftovers(&prefix)?;
    out::print(&shown?)?;
    if !left.is_empty() || folders.exist() {
        return Err(anyhow!("something stayed behind: {left:?}").into());
    }
    out::complain("Nothing stays behind: no namespace, pin, link, process or nftables table.");
    Ok(())
}

/// Builds, plays and takes down; gives the summary.
fn show(args: &Args, folders: &Folders, prefix: &str) -> Result<String> {
    let step = Step::begin("building 10 points of presence, players, servers and the WAN between them");
    let spec = WorldSpec::parse(DEMO)?;
    let world = World::build(prefix, &spec, &kuafu_lab::world::Latencies::aws()?)?;
    step.next("starting the controller; every node joins with its token");
    let cluster = Cluster::start(&world, folders, &intent::manifests(&world)?)?;
    let summary = act(args, &world, &cluster, step);
    let stopped = cluster.stop(&world);
    let summary = summary?;
    stopped.map(|()| summary)
}

fn act(args: &Args, world: &World, cluster: &Cluster, step: Step) -> Result<String> {
    let servers = Servers::start(world)?;
    step.next("waiting for paths: every leg is measured, the best are chosen");
    settle(world, cluster)?;
    step.next(&format!(
        "playing for {} s, direct and accelerated at once",
        args.seconds
    ));
    let games = play(world, cluster, args.seconds)?;
    step.next("killing a relay under 1,000 packets a second");
    let failure = fail(world, cluster, &servers)?;
    step.next("two tenants with the same addresses on three hosts");
    let tenants = rent(world, cluster)?;
    step.next("collecting what was dropped");
    let drops = cluster.ask(world, &["drops"])?;
    step.end();
    let summary = summary(world, &games, &failure, &tenants, &drops)?;
    let mut charts: Vec<Chart> = games.iter().map(Played::chart).collect();
    charts.push(failure.chart());
    let file = &args.report;
    std::fs::write(file, report::page(&summary, &charts)?).with_context(|| format!("{}", file.display()))?;
    out::complain(&format!("Wrote {}.", file.display()));
    Ok(summary)
}

/// What the demonstration is doing, for people.
struct Step(ProgressBar);

impl Step {
    fn begin(what: &str) -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(120));
        let step = Self(bar);
        step.next(what);
        step
    }

    fn next(&self, what: &str) {
        let seconds = self.0.elapsed().as_secs();
        self.0.println(format!("{seconds:>4} s  {what}"));
        if self.0.is_hidden() {
            out::complain(&format!("{seconds:>4} s  {what}"));
        }
        self.0.set_message(what.to_owned());
    }

    fn end(self) {
        self.0.finish_and_clear();
    }
}

/// The game servers, each at its site.
struct Servers(Vec<(&'static str, Echo)>);

impl Servers {
    fn start(world: &World) -> Result<Self> {
        let mut servers: Vec<(&'static str, Echo)> = Vec::new();
        for game in &GAMES {
            if servers.iter().all(|(site, _)| *site != game.server) {
                servers.push((game.server, Echo::serve(world.site(game.server)?, GAME_PORT)?));
            }
        }
        Ok(Self(servers))
    }

    fn of(&self, game: &Game) -> Result<&Echo> {
        let found = self.0.iter().find(|(site, _)| *site == game.server);
        found.map(|(_, echo)| echo).context("no such server")
    }
}

/// The pair of a game as the controller sees it.
fn route(world: &World, cluster: &Cluster, game: &Game) -> Result<RouteInfo> {
    let answer: RoutesAnswer = cluster.json(world, &["routes", "--node", game.entry])?;
    let found = answer
        .routes
        .into_iter()
        .find(|route| route.entry == game.entry && route.exit == game.exit);
    found.with_context(|| format!("no pair {} → {}", game.entry, game.exit))
}

/// Waits until every accelerator answers and every pair has the path that it will keep.
fn settle(world: &World, cluster: &Cluster) -> Result<()> {
    for (number, game) in (9_000..).zip(&GAMES) {
        let try_out = Stream::start(number, world.site(game.player)?, game.accelerated(world)?, 4)?;
        let what = format!("an accelerated packet of {} is answered", game.name);
        cluster.until(&what, CHOICE_LIMIT, || try_out.is_answered().then_some(()))?;
    }
    // Where direct is best it is in use from the start; the others must have left it.
    for game in &GAMES[..GAMES.len() - 1] {
        let what = format!("{} takes a relay", game.name);
        cluster.until(&what, CHOICE_LIMIT, || {
            route(world, cluster, game)
                .ok()
                .filter(|route| route.path.len() > 2 && !route.backup.is_empty())
        })?;
    }
    Ok(())
}

/// A game that was played both ways at once.
struct Played {
    game: Game,
    direct: Log,
    accelerated: Log,
    route: RouteInfo,
    start: Instant,
    /// The medians of the wire itself for the same seconds.
    wire: [Option<Duration>; 2],
}

fn play(world: &World, cluster: &Cluster, seconds: u64) -> Result<Vec<Played>> {
    let mut streams = Vec::new();
    let (start, from) = (Instant::now(), world.wan().elapsed());
    for (number, game) in (1_u32..).zip(&GAMES) {
        let player = world.site(game.player)?;
        let direct = Stream::start(number * 2, player, game.direct(world)?, GAME_RATE)?;
        let accelerated = Stream::start(number * 2 + 1, player, game.accelerated(world)?, GAME_RATE)?;
        streams.push((*game, direct, accelerated));
    }
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(1));
        watch(&streams);
    }
    let to = world.wan().elapsed();
    let mut played = Vec::new();
    for (game, direct, accelerated) in streams {
        played.push((
            game,
            direct.end(),
            accelerated.end(),
            route(world, cluster, &game)?,
        ));
    }
    let log = world.wan().report()?.log;
    let finish = |(game, direct, accelerated, route): (Game, Log, Log, RouteInfo)| {
        let straight = log.round_trip(&world.path(&[game.player, game.server])?, from..to);
        let through = log.round_trip(&way(world, &game, &route.path)?, from..to);
        Ok(Played {
            game,
            direct,
            accelerated,
            route,
            start,
            wire: [straight, through],
        })
    };
    played.into_iter().map(finish).collect()
}

/// One line for each game while it is played, where somebody watches.
fn watch(streams: &[(Game, Stream, Stream)]) {
    let recent = |stream: &Stream| {
        stream
            .median_of_last(Duration::from_secs(2))
            .map_or("-".into(), ms)
    };
    for (game, direct, accelerated) in streams {
        tracing::info!(
            game = game.name,
            direct = recent(direct),
            accelerated = recent(accelerated)
        );
    }
}

/// The sites that a player's packet passes.
fn way(world: &World, game: &Game, nodes: &[String]) -> Result<Vec<SiteId>> {
    let mut names = vec![game.player];
    names.extend(nodes.iter().map(String::as_str));
    names.push(game.server);
    Ok(world.path(&names)?)
}

impl Played {
    fn chart(&self) -> Chart {
        let nodes = self.route.path.join(" → ");
        Chart {
            title: self.game.name.to_owned(),
            caption: format!("{nodes}: {}", self.route.why),
            direct: points(&self.direct, self.start),
            accelerated: points(&self.accelerated, self.start),
            failure: None,
        }
    }

    fn row(&self) -> [String; 9] {
        let p = |log: &Log, share| quantile(&mut trips(log), share);
        let shown = |trip: Option<Duration>| trip.map_or("-".to_owned(), ms);
        let (direct, accelerated) = (p(&self.direct, 0.5), p(&self.accelerated, 0.5));
        let gain = direct
            .zip(accelerated)
            .map(|(a, b)| (a.as_secs_f64() - b.as_secs_f64()) * 1_000.0);
        [
            self.game.name.to_owned(),
            shown(direct),
            shown(accelerated),
            gain.map_or("-".to_owned(), |gain| format!("{gain:+.1}")),
            format!(
                "{} → {}",
                shown(p(&self.direct, 0.9)),
                shown(p(&self.accelerated, 0.9))
            ),
            format!("{} → {}", lost(&self.direct), lost(&self.accelerated)),
            format!("{} / {}", shown(self.wire[0]), shown(self.wire[1])),
            self.route.path.join(" → "),
            self.route.why.clone(),
        ]
    }
}

fn trips(log: &Log) -> Vec<Duration> {
    log.samples.iter().map(|sample| sample.round_trip).collect()
}

fn points(log: &Log, start: Instant) -> Vec<(f64, f64)> {
    let point = |sample: &stream::Sample| {
        let at = sample.sent.saturating_duration_since(start);
        (at.as_secs_f64(), sample.round_trip.as_secs_f64() * 1_000.0)
    };
    log.samples.iter().map(point).collect()
}

fn lost(log: &Log) -> String {
    let (sent, came) = (log.sent.len().max(1), log.samples.len());
    #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
    let share = 100.0 * sent.saturating_sub(came) as f64 / sent as f64;
    format!("{share:.1} %")
}

/// A relay that died under a stream.
struct Failed {
    game: Game,
    relay: String,
    log: Log,
    start: Instant,
    died: Instant,
    /// Missing numbers towards the server, and back.
    missing: [usize; 2],
    after: RouteInfo,
}

fn fail(world: &World, cluster: &Cluster, servers: &Servers) -> Result<Failed> {
    let game = GAMES[2];
    let before = route(world, cluster, &game)?;
    let relay = before
        .path
        .get(1)
        .filter(|_| before.path.len() > 2)
        .context("the path has no relay")?
        .clone();
    let start = Instant::now();
    let stream = Stream::start(
        1_000,
        world.site(game.player)?,
        game.accelerated(world)?,
        FAILURE_RATE,
    )?;
    std::thread::sleep(AROUND_FAILURE);
    world.wan().kill(world.site(&relay)?.id())?;
    let died = Instant::now();
    std::thread::sleep(AROUND_FAILURE);
    let id = stream.id();
    let log = stream.end();
    let after = route(world, cluster, &game)?;
    world.wan().heal(world.site(&relay)?.id())?;
    let came = servers.of(&game)?.received(id);
    let forward = missing(log.sent.len(), came.iter().copied());
    let back = missing(came.len(), log.answers.iter().map(|&(number, _)| number));
    Ok(Failed {
        game,
        relay,
        log,
        start,
        died,
        missing: [forward, back],
        after,
    })
}

impl Failed {
    fn chart(&self) -> Chart {
        Chart {
            title: format!("{}: {} dies", self.game.name, self.relay),
            caption: self.told(),
            direct: Vec::new(),
            accelerated: points(&self.log, self.start),
            failure: Some(self.died.saturating_duration_since(self.start).as_secs_f64()),
        }
    }

    fn told(&self) -> String {
        let gap = |missing: usize| missing * 1_000 / FAILURE_RATE as usize;
        let [forward, back] = self.missing;
        format!(
            "{} died under {FAILURE_RATE} packets a second; what was lost is {} ms towards the server and {} ms \
             back; then: {}",
            self.relay,
            gap(forward),
            gap(back),
            self.after.path.join(" → "),
        )
    }
}

fn rent(world: &World, cluster: &Cluster) -> Result<tenants::Seen> {
    let tenants = Tenants::build(world)?;
    cluster.apply(world, "tenants.yaml", &Tenants::manifests()?)?;
    cluster.until("the tenants' machines reach each other", CHOICE_LIMIT, || {
        tenants.are_connected().then_some(())
    })?;
    tenants.try_all()
}

fn summary(
    world: &World,
    games: &[Played],
    failure: &Failed,
    tenants: &tenants::Seen,
    drops: &str,
) -> Result<String> {
    let headings = [
        "GAME", "DIRECT", "KUAFU", "GAIN", "P90", "LOST", "WIRE", "PATH", "WHY",
    ];
    let table = columns(headings, games.iter().map(Played::row));
    let late = world.wan().report()?.lateness;
    Ok(format!(
        "\nWhat the players gain: round trips in ms, measured by their own packets ({GAME_RATE} a second each way at \
         the same time)\n\n{table}\nThe emulated wire itself: {late}.\n\nA relay dies\n  {}.\n\nTwo tenants with \
         10.0.0.1 to .3 each\n  {} connections inside; of a sweep over every address {} marked packets came to the \
         own network, {} to the other.\n\nWhat was dropped\n{drops}",
        failure.told(),
        tenants.connections,
        tenants.own,
        tenants.foreign,
    ))
}
