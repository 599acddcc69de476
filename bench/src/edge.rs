//! What a relay hop costs: tag verified, look-up, new outer headers, tag renewed. Program time, without a device.

mod packet;
mod wrapper;

use std::ops::Sub;

use anyhow::{Context, Result, ensure};
use kuafu_dataplane::bpf::{Bpf, Sizes};

use self::wrapper::Wrapper;
use crate::Common;
use crate::report::{Limit, Report, Row};
use crate::rounds::{Rounds, median};

const LIMIT_NS: f64 = 80.0;
/// What the wrapper around nothing costs where the limit holds.
const CALIBRATION_NS: f64 = 37.5;
const REPEAT: u32 = 1_000_000;
const XDP_TX: u32 = 3;

/// One round's means, in ns.
struct Round {
    calibration: f64,
    forwarder: f64,
    relay: f64,
}

/// Measures wrapper, plain forwarder and relay in turns.
pub(crate) fn run(common: &Common) -> Result<Report> {
    let bpf = Bpf::load(&Sizes::default())?;
    packet::fill(&bpf)?;
    let mut wrapper = Wrapper::new(&packet::packet()?)?;
    check(&mut wrapper, &bpf)?;
    let mut rounds = Vec::new();
    for _ in 0..common.rounds(11) {
        rounds.push(round(&mut wrapper, &bpf)?);
    }
    report(&rounds)
}

/// A packet that is dropped costs little: the relay must have done its work.
fn check(wrapper: &mut Wrapper, bpf: &Bpf) -> Result<()> {
    wrapper.wrap(&bpf.programs.edge)?;
    let mut run = wrapper.run(2)?;
    ensure!(
        run.verdict == XDP_TX && packet::is_relayed(&mut run.packet),
        "the packet is not relayed: verdict {}, {:02x?}",
        run.verdict,
        run.packet
    );
    Ok(())
}

fn round(wrapper: &mut Wrapper, bpf: &Bpf) -> Result<Round> {
    wrapper.wrap_own("passes")?;
    let calibration = wrapper.run(REPEAT)?.nanoseconds;
    wrapper.wrap_own("forwards")?;
    let forwarder = wrapper.run(REPEAT)?.nanoseconds;
    wrapper.wrap(&bpf.programs.edge)?;
    let relay = wrapper.run(REPEAT)?.nanoseconds;
    Ok(Round {
        calibration,
        forwarder,
        relay,
    })
}

fn report(rounds: &[Round]) -> Result<Report> {
    let calibrations: Vec<f64> = rounds.iter().map(|round| round.calibration).collect();
    let calibration = median(&calibrations).context("no round was run")?;
    // The limits are those of a machine where the wrapper costs 37.5 ns.
    let limit = (LIMIT_NS * calibration / CALIBRATION_NS).round();
    let gross = compared(rounds, |round, part| part(round));
    let net = compared(rounds, |round, part| part(round).sub(round.calibration));
    Ok(Report {
        benchmark: "edge",
        conditions: vec![
            format!(
                "calibration: the wrapper around nothing costs {calibration:.1} ns; \
                 limit {LIMIT_NS} ns × {calibration:.1} ÷ {CALIBRATION_NS}"
            ),
            format!(
                "{} octets a packet, restored before each of {REPEAT} runs a round; net is without the wrapper",
                packet::OCTETS
            ),
        ],
        rows: vec![
            Row::new(
                "relay hop, net",
                "ns",
                "plain forwarder",
                net,
                Some(Limit::OursAtMost(limit)),
            ),
            Row::new("relay hop, gross", "ns", "plain forwarder", gross, None),
        ],
    })
}

/// The forwarder's and the relay's values, each by `value` of a round and its part.
fn compared(rounds: &[Round], value: impl Fn(&Round, fn(&Round) -> f64) -> f64) -> Rounds {
    Rounds {
        peer: rounds
            .iter()
            .map(|round| value(round, |round| round.forwarder))
            .collect(),
        ours: rounds
            .iter()
            .map(|round| value(round, |round| round.relay))
            .collect(),
    }
}
