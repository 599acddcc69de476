//! `kuafu replay`.

mod answer;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result as Any, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use kuafu_topology::replay::{Policy, Recording, Report, run as replayed};
use kuafu_topology::steering::Recorded;

use crate::failure::Result;
use crate::out::Output;
use answer::{Answer, Kind};

/// Say what another policy would have done with what was recorded or measured
///
/// Each tick (a second) is decided by the ticks before it, by the controller's own code. What the controller
/// recorded is decided again first: each decision must be the recorded one, else the exit status is 1. Of such a
/// recording each tick's legs are their medians of 30 s, and a policy's estimator cannot be replayed. Of
/// measurements, all pairs are of class game; a lost one counts as clip_ms, and the estimate of its leg sees no
/// round trip in that tick, and a loss.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu replay /var/lib/kuafu/controller/steering.jsonl
  kuafu replay steering.jsonl --policy eager.yaml
  kuafu replay measured.csv --policy eager.yaml -o json

Measurements are CSV, a line for each leg in each tick; an empty rtt_ms was lost:
  tick,src,dst,rtt_ms
  0,osaka,taipei,42.1

A policy is YAML; a key that is left out is as in force, which is this:
  estimator: {kind: ewma, alpha: 0.1}    # or {kind: mean, window: 9}, of ticks
  guard: p90                             # or none
  jitter_weight: 2                       # of class game; given, it holds for every class
  gate_ms: 5
  gate_share: 0.05
  hysteresis_ms: 5
  hysteresis_share: 0.1
  confirmations: 3
  dwell_ticks: 10
  flap_damping: true
  relay_ms: 1                            # or as recorded
  max_relays: 3
  clip_ms: 1000
  warmup_ticks: 0")]
pub(crate) struct Args {
    /// What a controller recorded, or measurements
    recording: PathBuf,
    /// The policy to replay; by default the one in force
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: Args) -> Result {
    let answer = answer(&args)?;
    args.output.print(&answer, Answer::to_string)
}

fn answer(args: &Args) -> Any<Answer> {
    let recording = Recording::parse(&read(&args.recording)?).with_context(|| shown(&args.recording))?;
    let kind = match &recording {
        Recording::Controller(ticks) => decide_again(ticks).with_context(|| shown(&args.recording))?,
        Recording::Measurements(_) => Kind::Measurements,
    };
    let Some(file) = &args.policy else {
        let in_force = play(&recording, &Policy::default(), "in force")?;
        return Ok(Answer::new(kind, in_force, None));
    };
    let policy = Policy::parse(&read(file)?).with_context(|| shown(file))?;
    let beside = policy.in_force_beside();
    let (report, in_force) = std::thread::scope(|scope| {
        let in_force = scope.spawn(|| replayed(&recording, &beside, || ()));
        (play(&recording, &policy, &shown(file)), in_force.join())
    });
    let in_force = in_force.map_err(|_| anyhow!("the replay of the policy in force ended early"))??;
    let report = report.with_context(|| shown(file))?;
    Ok(Answer::new(kind, report, Some((shown(file), in_force))))
}

/// Each recorded decision, by the policy in force.
fn decide_again(ticks: &[Recorded]) -> Any<Kind> {
    kuafu_topology::replay(kuafu_topology::Config::default(), ticks)
        .map_err(|divergence| anyhow!("line {}: another decision: {divergence}", divergence.tick + 1))?;
    Ok(Kind::Controller {
        ticks: ticks.len(),
        decisions: ticks.iter().map(|tick| tick.input.pairs.len()).sum(),
        changes: ticks.iter().map(|tick| tick.changes.len()).sum(),
    })
}

fn play(recording: &Recording, policy: &Policy, what: &str) -> Any<Report> {
    let ticks = match recording {
        Recording::Controller(ticks) => ticks.len(),
        Recording::Measurements(measured) => measured.ticks(),
    };
    let bar = ProgressBar::new(ticks as u64).with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg}: tick {pos} of {len} {wide_bar} {eta}") {
        bar.set_style(style);
    }
    let report = replayed(recording, policy, || bar.inc(1));
    bar.finish_and_clear();
    Ok(report?)
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

fn read(file: &Path) -> Any<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
