//! A VPC of two hosts: TCP, request and reply, small packets; against the kernel's vxlan device and bridge.

mod kernel;
mod measure;
mod ours;
mod world;

use anyhow::{Result, bail};

use self::world::{PREFIX, World};
use crate::Common;
use crate::report::{Limit, Report, Row};
use crate::rounds::Rounds;

const PEER: &str = "vxlan + bridge";

/// Measures both in turns.
pub(crate) fn run(common: &Common) -> Result<Report> {
    if let Some(why) = kuafu_lab::unavailable() {
        bail!("{why}");
    }
    // What a killed run left.
    kuafu_lab::sweep(PREFIX)?;
    let kernel = World::new("k")?;
    kernel::connect(&kernel)?;
    let ours = World::new("o")?;
    let programs = ours::connect(&ours)?;
    let rounds = common.rounds(7);
    let compare = |measure: fn(&World) -> Result<f64>| {
        Rounds::interleaved(rounds, || measure(&kernel), || measure(&ours))
    };
    let row = |what, unit, rounds, limit| Row::new(what, unit, PEER, rounds, Some(limit));
    let tcp = compare(measure::tcp)?;
    let small = compare(measure::small_packets)?;
    let replies = compare(measure::request_reply)?;
    Ok(Report {
        benchmark: "vpc",
        conditions: vec![
            "two hosts and two machines over veth, underlay MTU 1500, ports 1450; super-packets cross whole"
                .to_owned(),
            "ours: anti-spoofing on; edge (generic XDP) and decapsulation on the underlay, tcx on the port"
                .to_owned(),
            format!("packets that ours dropped: {}", ours::drops(&programs)?),
        ],
        rows: vec![
            row("TCP", "Gb/s", tcp, Limit::RatioAtLeast(1.1)),
            row("small packets", "k/s", small, Limit::RatioAtLeast(2.0)),
            row("request-reply p50", "µs", replies, Limit::RatioAtMost(0.7)),
        ],
    })
}
