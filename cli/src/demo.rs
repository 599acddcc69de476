//! `kuafu demo`: from nothing to what a player gains, on the real kernel of this machine.
//!
//! A world of namespaces behind an emulated WAN, Kuafu's own processes in it, games that know nothing of it; then a
//! relay dies, two tenants share addresses, and everything goes away again.

mod cluster;
mod failover;
mod intent;
mod play;
mod report;
mod tenants;
mod virtual_time;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use indicatif::ProgressBar;
use kuafu_lab::world::{DEMO, Latencies, World, WorldSpec};

use crate::doctor::{self, Purpose, Report};
use crate::failure::{self, Failure};
use crate::out::{self, columns};
use cluster::{Cluster, Folders};
use failover::Failover;
use play::{GAME_RATE, OTHER_STREAMS, Played, Servers};
use tenants::Tenants;

/// For paths to be measured and chosen: estimates look 30 s back.
const CHOICE_LIMIT: Duration = Duration::from_secs(120);

/// Let ten hosts on this machine accelerate five games, and write report.html
///
/// Builds ten points of presence behind a WAN with measured latencies, lets players play directly and accelerated
/// at once, kills a relay, and lets two tenants share addresses. About three minutes; nothing stays behind. A machine
/// without root or BPF is told what it lacks, and shown the same by the model, in virtual time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu demo
  kuafu demo --seconds 60 --report /tmp/report.html
  kuafu demo --recording steering.jsonl && kuafu replay steering.jsonl")]
pub(crate) struct Args {
    /// How long the players play
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Where the report is written
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    report: PathBuf,
    /// Keep what the controller recorded of its choices, for `kuafu replay`
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
}

/// Runs the demonstration.
///
/// # Errors
/// What could not be built, started or reached, with the last words of the processes; something stayed behind.
pub(crate) fn run(args: Args) -> failure::Result {
    match doctor::require(Purpose::Lab) {
        Err(Failure::Unfit(report)) => model(&args, &report),
        other => other.and_then(|()| real(&args)),
    }
}

/// Says what is missing, and shows the model.
fn model(args: &Args, lacking: &Report) -> failure::Result {
    out::complain(lacking.faults().trim_end());
    out::complain(
        "So what follows is the MODEL, in virtual time: the same story, without this machine's kernel.",
    );
    let step = Step::begin("model: 10 points of presence, players, servers and the WAN between them");
    let told = virtual_time::tell(args.seconds, &step);
    step.end();
    let told = told?;
    if let Some(file) = &args.recording {
        let lines = told.recording.join("\n") + "\n";
        std::fs::write(file, lines).with_context(|| format!("cannot write {}", file.display()))?;
    }
    out::print(&told.summary)?;
    let page = report::page(&told.summary, &told.charts)?;
    match std::fs::write(&args.report, page) {
        Ok(()) => out::print(&format!("\nWrote {}.\n", args.report.display())),
        Err(error) => {
            let file = args.report.display();
            out::complain(&format!(
                "no report: cannot write {file}: {error}; `--report FILE` names another"
            ));
            Ok(())
        }
    }
}

/// The demonstration on this machine's kernel.
fn real(args: &Args) -> failure::Result {
    let folders = Folders::make(std::env::current_exe()?)?;
    let prefix = format!("kuafu-demo-{}", std::process::id());
    let (interrupted, world_of) = (folders.clone(), prefix.clone());
    kuafu_lab::clean_on_interrupt(move || {
        let _ = kuafu_lab::sweep(&world_of);
        interrupted.remove();
    })?;
    let shown = show(args, &folders, &prefix);
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
    let world = World::build(prefix, &WorldSpec::parse(DEMO)?, &Latencies::aws()?)?;
    step.next("starting the controller; every node joins with its token");
    let cluster = Cluster::start(&world, folders, &intent::manifests(&world)?)?;
    let summary = act(args, &world, &cluster, &step);
    step.next("taking everything down");
    let stopped = cluster.stop(&world);
    let kept = keep_recording(args, folders, &world);
    step.end();
    let summary = summary?;
    stopped.and(kept).map(|()| summary)
}

/// Copies what the controller recorded, if somebody wants it.
fn keep_recording(args: &Args, folders: &Folders, world: &World) -> Result<()> {
    let Some(file) = &args.recording else {
        return Ok(());
    };
    let recording = folders.recording(world)?;
    std::fs::copy(&recording, file)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", recording.display(), file.display()))
}

fn act(args: &Args, world: &World, cluster: &Cluster, step: &Step) -> Result<String> {
    let servers = Servers::start(world)?;
    step.next("waiting for paths: every leg is measured, the best are chosen");
    play::settle(world, cluster, CHOICE_LIMIT)?;
    step.next(&format!(
        "playing for {} s, direct and accelerated at once",
        args.seconds
    ));
    let games = play::play(world, cluster, args.seconds, &step.0)?;
    step.next("killing a relay under 1,000 packets a second");
    let failover = failover::kill_relay(world, cluster, &servers, &intent::GAMES[2], OTHER_STREAMS)?;
    step.next("two tenants with the same addresses on three hosts");
    let tenants = Tenants::rent(world, cluster, CHOICE_LIMIT)?.try_all()?;
    step.next("collecting what was dropped");
    let drops = cluster.ask(world, &["drops"])?;
    let summary = summary(world, &games, &failover, &tenants, &drops)?;
    let mut charts: Vec<_> = games.iter().map(Played::chart).collect();
    charts.push(failover.chart());
    let file = &args.report;
    std::fs::write(file, report::page(&summary, &charts)?).with_context(|| format!("{}", file.display()))?;
    Ok(format!("{summary}\nWrote {}.\n", file.display()))
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
        let line = format!("{seconds:>4} s  {what}");
        if self.0.is_hidden() {
            out::complain(&line);
        } else {
            self.0.println(line);
            self.0.set_message(what.to_owned());
        }
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn summary(
    world: &World,
    games: &[Played],
    failover: &Failover,
    tenants: &tenants::Seen,
    drops: &str,
) -> Result<String> {
    let table = columns(play::HEADINGS, games.iter().map(Played::row));
    let late = world.wan().report()?.lateness;
    Ok(format!(
        "\nWhat the players gain: round trips in ms, measured by their own packets ({GAME_RATE} a second each way at \
         the same time)\n\n{table}\nThe emulated wire itself: {late}.\n\nA relay dies\n  {}.\n\nTwo tenants with \
         10.0.0.1 to .3 each\n  {} connections inside; of a sweep over every address {} marked packets came to the \
         own network, {} to the other.\n\nWhat was dropped\n{drops}",
        failover.told(),
        tenants.connections,
        tenants.own,
        tenants.foreign,
    ))
}
