//! `kuafu dev pin-edge`.

mod config;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use kuafu_dataplane::balancer::{Instance, facts};
use kuafu_model::contents::{Capacities, balancer};

use self::config::{Config, Edge};
use crate::doctor::{self, Purpose};
use crate::failure::Result;
use crate::out;

/// Rings that each service may have at a time: that of now, that before, and one that is being written.
const RINGS: u64 = 3;

/// Pin the edge as a balancer that needs no agent
///
/// Loads the XDP program for packets in one piece, configures it by a file, pins it at PATH and its maps below
/// PATH-maps, prints PATH, and is done: whoever opens the pin can run packets through it by `BPF_PROG_TEST_RUN`, or
/// attach it. What it forwards leaves as `XDP_TX`. A second call with the same PATH and another file configures the same
/// instance anew, whose flows keep their targets. `rm -r PATH PATH-maps` removes an instance.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example of a file, with every key that is not left at its default:
  {\"gateway_mac\": \"02:00:00:00:00:01\", \"max_frame\": 1514, \"ring_size\": 65537,
   \"encapsulation\": {\"kind\": \"ipip\", \"outer_sources\": [\"192.0.2.1\"]},
   \"services\": [{\"name\": \"web\", \"address\": \"198.51.100.1\", \"protocol\": \"tcp\", \"port\": 443,
                 \"targets\": [{\"address\": \"192.0.2.80\", \"weight\": 1}]}]}

Examples:
  kuafu dev pin-edge --config edge.json --pin /sys/fs/bpf/edge
  kuafu dev pin-edge --config edge.json --ring web | sort | uniq -c"
)]
pub(crate) struct Args {
    /// What to balance, as JSON
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where to pin the program, on a BPF file system
    #[arg(long, value_name = "PATH", required_unless_present = "ring")]
    pin: Option<PathBuf>,
    /// Print the target of each slot of this service's ring instead, one a line
    #[arg(long, value_name = "SERVICE")]
    ring: Option<String>,
}

/// Pins, or prints a ring, or both.
pub(crate) fn run(args: &Args) -> Result {
    let place = || format!("{}", args.config.display());
    let text = std::fs::read_to_string(&args.config).with_context(place)?;
    let edge = Config::read(&text)
        .and_then(|config| config.edge())
        .with_context(place)?;
    edge.warnings
        .iter()
        .for_each(|warning| out::complain(&format!("kuafu: {}: {warning}", place())));
    if let Some(pin) = &args.pin {
        doctor::require(Purpose::Agent)?;
        pin_at(pin, &edge)?;
    }
    match (&args.ring, &args.pin) {
        (Some(service), _) => out::print(&ring(&edge, service)?),
        (None, Some(pin)) => out::print(&format!("{}\n", pin.display())),
        (None, None) => Ok(()),
    }
}

/// Pins an instance, or configures the one that is pinned there.
fn pin_at(path: &Path, edge: &Edge) -> anyhow::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str());
    if name.is_none_or(|name| name.contains('.')) {
        return Err(anyhow!(
            "--pin {}: the last part must be a name without a dot, as the BPF file system has them",
            path.display()
        ));
    }
    let mut instance = Instance::open(path, slots(edge))?;
    Ok(instance.configure(&edge.balancer, edge.gateway)?)
}

/// Room for the rings.
fn slots(edge: &Edge) -> u32 {
    let services = &edge.balancer.services;
    let all = services
        .iter()
        .map(|service| u64::from(service.ring))
        .sum::<u64>()
        * RINGS;
    let usual = Capacities::default().rings;
    u32::try_from(all).unwrap_or(u32::MAX).max(usual)
}

/// The targets of a service's ring, one a line.
fn ring(edge: &Edge, service: &str) -> anyhow::Result<String> {
    let index = edge
        .names
        .iter()
        .position(|name| name == service)
        .ok_or_else(|| {
            anyhow!(
                "--ring {service}: there is no such service, only {}",
                edge.names.join(", ")
            )
        })?;
    let capacities = Capacities {
        rings: slots(edge),
        ..Capacities::default()
    };
    let contents = balancer(&edge.balancer, &facts(capacities, 1, 0), None)?;
    let service = contents.services[&edge.balancer.services[index].key()];
    let slots = contents.rings.get(&service.first).into_iter().flatten();
    let target = |number: &u32| format!("{}\n", IpAddr::from(contents.targets[number].address));
    Ok(slots.map(target).collect())
}
