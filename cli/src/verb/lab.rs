//! `kuafu lab`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::Subcommand;
use indicatif::ProgressBar;
use kuafu_lab::world::{DEMO, Latencies, PAIR, Site, World, WorldSpec};

use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::out::{self, columns};
use crate::verb::wait_for;

/// Build a world on this machine: hosts as namespaces, a WAN from measured latencies
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu lab up demo
  kuafu lab run pair here ping -c 3 198.18.2.2")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Keep a world until Ctrl-C
    #[command(after_help = "Example:
  kuafu lab up demo            # in another terminal: ip netns exec kuafu-lab-osaka ping 198.18.2.2")]
    Up {
        #[command(flatten)]
        world: Chosen,
    },
    /// Run one program in a world, and end with its exit status
    #[command(after_help = "Example:
  kuafu lab run pair here ping -c 3 198.18.2.2")]
    Run {
        #[command(flatten)]
        world: Chosen,
        /// The site where it runs
        site: String,
        /// The program and its arguments
        #[arg(
            required = true,
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "PROGRAM"
        )]
        program: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Chosen {
    /// A world file, or one that comes along: demo (ten points of presence), pair (two sites, one behind a NAT)
    world: String,
    /// Namespaces are called PREFIX-SITE
    #[arg(long, default_value = "kuafu-lab")]
    prefix: String,
}

pub(crate) fn run(args: Args) -> Result {
    match args.what {
        What::Up { world } => wait_for(up(world)),
        What::Run { world, site, program } => wait_for(run_in(world, site, program)),
    }
}

async fn up(chosen: Chosen) -> Result {
    let mut interrupt = Interrupt::catch()?;
    let world = build(&chosen)?;
    out::print(&sites(&world)?)?;
    out::complain("\nIt stands until Ctrl-C.");
    interrupt.wait().await;
    Ok(())
}

async fn run_in(chosen: Chosen, site: String, program: Vec<String>) -> Result {
    const PAUSE: Duration = Duration::from_millis(50);
    let mut interrupt = Interrupt::catch()?;
    let world = build(&chosen)?;
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]);
    let mut process = world.site(&site)?.spawn(command)?;
    loop {
        if let Some(status) = process.wait(Duration::ZERO)? {
            return match status.code() {
                Some(0) => Ok(()),
                _ => Err(anyhow::anyhow!("{}: {status}", program[0]).into()),
            };
        }
        tokio::select! {
            () = interrupt.wait() => return Err(Failure::Told),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn build(chosen: &Chosen) -> anyhow::Result<World> {
    let text = match chosen.world.as_str() {
        "demo" if !Path::new("demo").exists() => DEMO.to_owned(),
        "pair" if !Path::new("pair").exists() => PAIR.to_owned(),
        file => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?,
    };
    let spec = WorldSpec::parse(&text).with_context(|| chosen.world.clone())?;
    let spinner = ProgressBar::new_spinner().with_message(format!("building {} sites", spec.sites.len()));
    spinner.enable_steady_tick(Duration::from_millis(120));
    let world = World::build(&chosen.prefix, &spec, &Latencies::aws()?);
    spinner.finish_and_clear();
    Ok(world?)
}

fn sites(world: &World) -> anyhow::Result<String> {
    let rows = world
        .sites()
        .iter()
        .map(row)
        .collect::<kuafu_lab::Result<Vec<_>>>()?;
    Ok(columns(
        ["SITE", "ROLE", "REGION", "PUBLIC", "LOCAL", "SPARE", "NAMESPACE"],
        rows,
    ))
}

fn row(site: &Site) -> kuafu_lab::Result<[String; 7]> {
    let spare: Vec<String> = site
        .spare()
        .iter()
        .map(|address| address.public.to_string())
        .collect();
    Ok([
        site.name().to_owned(),
        format!("{:?}", site.role()).to_lowercase(),
        site.region().to_owned(),
        site.address().public.to_string(),
        site.address().local.to_string(),
        if spare.is_empty() {
            "-".to_owned()
        } else {
            spare.join(" ")
        },
        site.namespace()?.name().to_owned(),
    ])
}
