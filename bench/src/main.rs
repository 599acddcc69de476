//! What is measured, against what, in one run: each benchmark measures its peer and ours in turns and prints both.
//!
//! Ends with status 1 when a limit is missed, 2 when nothing could be measured.
#![forbid(unsafe_code)]

mod edge;
mod memory;
mod report;
mod ring;
mod rounds;
mod routes;
mod vpc;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// Benchmarks of Kuafu, each against a peer in the same run
#[derive(Parser)]
#[command(
    name = "kuafu-bench",
    bin_name = "cargo xtask bench",
    after_help = "Example: cargo xtask bench vpc --rounds 5 --json"
)]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// A VPC between two hosts against the kernel's vxlan device and bridge (root)
    Vpc(Common),
    /// Program time of a relay's hop, of an entry's and of an exit's packet, against a plain XDP forwarder's (root)
    Edge(Common),
    /// Many services, and many targets, against one: applying them, memory, a packet's time (root)
    Scale(Common),
    /// A service's ring against Maglev's table and a table of rendezvous: flows moved, shares, building
    Ring(Common),
    /// Exact routes with at most three relays, and backups, of a whole network, against a plain dynamic programme
    Routes {
        #[command(flatten)]
        network: routes::Network,
        #[command(flatten)]
        common: Common,
    },
}

/// What every benchmark takes.
#[derive(clap::Args)]
struct Common {
    /// How often each contestant is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// Print JSON, with the values of each round
    #[arg(long)]
    json: bool,
}

impl Common {
    /// The rounds asked for, at least one.
    fn rounds(&self, default: usize) -> usize {
        self.rounds.unwrap_or(default).max(1)
    }
}

fn main() -> ExitCode {
    let (report, json) = match Cli::parse().benchmark {
        Benchmark::Vpc(common) => (vpc::run(&common), common.json),
        Benchmark::Edge(common) => (edge::run(&common), common.json),
        Benchmark::Scale(common) => (edge::scale::run(&common), common.json),
        Benchmark::Ring(common) => (ring::run(&common), common.json),
        Benchmark::Routes { network, common } => (routes::run(&network, &common), common.json),
    };
    match report.and_then(|report| print(&report, json)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kuafu-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn print(report: &Report, json: bool) -> anyhow::Result<bool> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{}", report.table());
    }
    Ok(report.met())
}
