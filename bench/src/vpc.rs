//! A VPC of two hosts: TCP, request and reply, small packets; against the kernel's vxlan device and bridge.

mod kernel;
mod measure;
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
    kernel::connect(&ours)?;
    let rounds = common.rounds(7);
    let compare = |measure: fn(&World) -> Result<f64>| {
        Rounds::interleaved(rounds, || measure(&kernel), || measure(&ours))
    };
    Ok(Report {
        benchmark: "vpc",
        conditions: vec![],
        rows: vec![
            Row::new(
                "TCP",
                "Gb/s",
                PEER,
                compare(measure::tcp)?,
                Some(Limit::RatioAtLeast(1.1)),
            ),
            Row::new(
                "small packets",
                "k/s",
                PEER,
                compare(measure::small_packets)?,
                Some(Limit::RatioAtLeast(2.0)),
            ),
            Row::new(
                "request-reply p50",
                "µs",
                PEER,
                compare(measure::request_reply)?,
                Some(Limit::RatioAtMost(0.7)),
            ),
        ],
    })
}
