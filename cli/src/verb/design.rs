//! `kuafu design`.

mod answer;

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result as Any, anyhow, bail};
use clap::Subcommand;
use indicatif::ProgressBar;
use kuafu_topology::Matrix;
use kuafu_topology::pops::{self, Demand, Plan, Progress};

use crate::args::milliseconds;
use crate::failure::Result;
use crate::out::Output;
use answer::Answer;

/// Say what places would bring, before anything is rented
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu design pops --matrix rtt.csv --players players.csv --servers Frankfurt --count 3")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Pops(Pops),
}

/// Choose which places of a measured matrix to rent as relays
///
/// The places with the greatest mean gain over all pairs: a pair's gain is its direct round trip less its best path
/// over the chosen places, or 0. Without --players and --servers each place and each other are a pair; pairs
/// without a direct measurement do not count. A matrix knows medians or means: nothing here is about loss or jitter.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu design pops --matrix rtt.csv --count 20
  kuafu design pops --matrix rtt.csv --players players.csv --servers Frankfurt,Tokyo --count 3 --price rent.csv
  kuafu design pops --matrix rtt.csv --count 20 --max-relays 3 -o json

Files, in CSV (ms of round trip from a line's place to a column's, empty where none was measured):
  rtt.csv:      ,Frankfurt,Tokyo     players.csv:  place,players     rent.csv:  place,usd_per_month
                Frankfurt,,231.5                   Tokyo,1200                   Tokyo,40
                Tokyo,230.9,                       Frankfurt,300                Frankfurt,12.5")]
struct Pops {
    /// Round trips in ms between places
    #[arg(long, value_name = "FILE")]
    matrix: PathBuf,
    /// Where players are, and how many: the pairs are these to the servers
    #[arg(long, value_name = "FILE", requires = "servers")]
    players: Option<PathBuf>,
    /// Where the servers are
    #[arg(long, value_name = "PLACE,…", requires = "players", value_delimiter = ',')]
    servers: Vec<String>,
    /// How many places to choose
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// What a place costs, in US dollars a month
    #[arg(long, value_name = "FILE")]
    price: Option<PathBuf>,
    /// ms that passing through a relay takes
    #[arg(long, value_name = "MS", default_value_t = 1.0, value_parser = milliseconds)]
    relay_ms: f64,
    /// So many relays may be on a path
    #[arg(long, value_name = "1..3", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    max_relays: u8,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: Args) -> Result {
    let What::Pops(args) = args.what;
    let answer = answer(&args)?;
    args.output.print(&answer, Answer::to_string)
}

fn answer(args: &Pops) -> Any<Answer> {
    let matrix = Matrix::parse(&read(&args.matrix)?).with_context(|| args.matrix.display().to_string())?;
    let places = matrix.names().len();
    let count = usize::from(args.count);
    if count > places {
        bail!(
            "--count {count}: {} has only {places} places",
            args.matrix.display()
        );
    }
    let demand = demand(args, &matrix)?;
    let prices = match &args.price {
        Some(file) => list(&matrix, pops::PRICES, file)?,
        None => Vec::new(),
    };
    let plan = Plan {
        count,
        relay_us: kuafu_topology::Cost::from_us_f64(args.relay_ms * 1000.0).us(),
        max_relays: NonZeroU8::new(args.max_relays).unwrap_or(NonZeroU8::MIN),
    };
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(120));
    let design = pops::design(&matrix, &demand, plan, |progress| {
        bar.set_message(match progress {
            Progress::Subsets(sets) => format!("{sets} sets compared"),
            Progress::Places(places) => format!("{places} of {count} places"),
            Progress::Round(round) => format!("exchanging places, round {round}"),
        });
    });
    bar.finish_and_clear();
    if design.pairs == 0 {
        bail!(
            "{}: no pair was measured directly, so nothing can be compared with direct",
            args.matrix.display()
        );
    }
    Ok(Answer::new(
        &matrix,
        &design,
        args.max_relays,
        args.players.is_some(),
        &prices,
    ))
}

fn demand(args: &Pops, matrix: &Matrix) -> Any<Demand> {
    let Some(file) = &args.players else {
        return Ok(Demand::of_all(matrix));
    };
    let sources = list(matrix, pops::PLAYERS, file)?;
    if sources.iter().all(|&(_, players)| players <= 0.0) {
        bail!(
            "{}: nobody plays; give at least one place a number above 0",
            file.display()
        );
    }
    let mut targets = Vec::new();
    for server in &args.servers {
        let place = pops::place_of(matrix, server.trim()).map_err(|named| anyhow!("--servers: {named}"))?;
        if !targets.contains(&place) {
            targets.push(place);
        }
    }
    Ok(Demand { sources, targets })
}

fn list(matrix: &Matrix, header: [&str; 2], file: &Path) -> Any<Vec<(usize, f64)>> {
    pops::list(matrix, header, &read(file)?).with_context(|| file.display().to_string())
}

fn read(file: &Path) -> Any<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
