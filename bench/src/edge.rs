//! What the edge costs: a relay's hop, a client's packet that enters, one that leaves to its server, one that goes whole
//! to a server. Program time, without a device.

mod host;
mod packet;
mod wrapper;

use anyhow::{Context, Result, ensure};
use kuafu_dataplane::bpf::{Bpf, Sizes};

use self::wrapper::Wrapper;
use crate::Common;
use crate::report::{Limit, Report, Row};
use crate::rounds::{Rounds, median};

/// What the relay's wrapper around nothing costs where the limits hold.
const CALIBRATION_NS: f64 = 37.5;
/// What a relay's hop should cost some day.
const STRETCH_NS: f64 = 72.0;
/// Whole turns of all numbers, so that who runs in between takes none from the window.
const REPEAT: u32 = 1024 * packet::TURNS;
const XDP_TX: u32 = 3;
const SCENES: usize = 5;

/// One thing that the edge does.
struct Scene {
    what: &'static str,
    /// Of what is not whole yet none: a service that keeps connections costs a look-up more.
    limit_ns: Option<f64>,
    wrapper: Wrapper,
    /// A packet that is dropped costs little: the program must have done its work.
    is_done: fn(&mut [u8]) -> bool,
}

/// One round's means of a scene, in ns.
struct Round {
    calibration: f64,
    forwarder: f64,
    edge: f64,
}

/// Measures wrapper, plain forwarder and edge in turns, scene by scene.
pub(crate) fn run(common: &Common) -> Result<Report> {
    let (namespace, interface) = host::namespace()?;
    namespace.run(|| in_namespace(common, interface))?
}

fn in_namespace(common: &Common, interface: u32) -> Result<Report> {
    let bpf = Bpf::load(&Sizes::default())?;
    host::fill(&bpf, interface)?;
    let mut scenes = scenes(interface)?;
    for scene in &mut scenes {
        check(scene, &bpf)?;
    }
    let mut rounds = [const { Vec::new() }; SCENES];
    for _ in 0..common.rounds(11) {
        for (scene, rounds) in scenes.iter_mut().zip(&mut rounds) {
            rounds.push(round(&mut scene.wrapper, &bpf)?);
        }
    }
    report(&scenes, &rounds)
}

fn scenes(interface: u32) -> Result<[Scene; SCENES]> {
    let numbers: Result<Vec<[u64; 2]>> = (0..packet::TURNS)
        .map(|turn| packet::numbers(&packet::ending(turn)?))
        .collect();
    Ok([
        Scene {
            what: "relay hop",
            limit_ns: Some(80.0),
            wrapper: Wrapper::new("restore", &packet::relayed()?, &[], interface)?,
            is_done: packet::is_relayed,
        },
        Scene {
            what: "entry, known service",
            limit_ns: Some(110.0),
            wrapper: Wrapper::new("restore_entry", &packet::plain(host::LISTENER)?, &[], interface)?,
            is_done: packet::has_entered,
        },
        Scene {
            what: "exit, NAT and window",
            limit_ns: Some(160.0),
            wrapper: Wrapper::new("restore_exit", &packet::ending(0)?, &numbers?, interface)?,
            is_done: packet::has_left,
        },
        Scene {
            what: "service by IPIP",
            limit_ns: None,
            wrapper: Wrapper::new("restore_entry", &packet::plain(host::BY_IPIP)?, &[], interface)?,
            is_done: packet::is_in_ipip,
        },
        Scene {
            what: "service by GUE",
            limit_ns: None,
            wrapper: Wrapper::new("restore_entry", &packet::plain(host::BY_GUE)?, &[], interface)?,
            is_done: packet::is_in_gue,
        },
    ])
}

/// The first run and, after two turns of all numbers, the last do the same.
fn check(scene: &mut Scene, bpf: &Bpf) -> Result<()> {
    scene.wrapper.wrap(&bpf.programs.edge)?;
    for repeat in [1, 2 * packet::TURNS] {
        let mut run = scene.wrapper.run(repeat)?;
        ensure!(
            run.verdict == XDP_TX && (scene.is_done)(&mut run.packet),
            "{}: the packet is not sent on: verdict {}, {:02x?}",
            scene.what,
            run.verdict,
            run.packet
        );
    }
    Ok(())
}

fn round(wrapper: &mut Wrapper, bpf: &Bpf) -> Result<Round> {
    wrapper.wrap_own("passes")?;
    let calibration = wrapper.run(REPEAT)?.nanoseconds;
    wrapper.wrap_own("forwards")?;
    let forwarder = wrapper.run(REPEAT)?.nanoseconds;
    wrapper.wrap(&bpf.programs.edge)?;
    let edge = wrapper.run(REPEAT)?.nanoseconds;
    Ok(Round {
        calibration,
        forwarder,
        edge,
    })
}

fn report(scenes: &[Scene], rounds: &[Vec<Round>]) -> Result<Report> {
    let mut conditions = Vec::new();
    let calibrations: Result<Vec<f64>> = rounds.iter().map(|rounds| calibration(rounds)).collect();
    let calibrations = calibrations?;
    // The limits are those of a machine where the relay's wrapper costs 37.5 ns.
    let scale = calibrations.first().context("no scene")? / CALIBRATION_NS;
    conditions.push(format!(
        "calibration: the wrappers around nothing cost {calibrations:.1?} ns; limits are those of {CALIBRATION_NS} ns \
         for the first, times {scale:.2}; the relay's hop should once cost {STRETCH_NS} ns, here {:.0}",
        STRETCH_NS * scale
    ));
    conditions.push(format!(
        "{} octets a packet, on the backbone {}; restored before each of {REPEAT} runs a round, at the exit with new \
         numbers; net is without the scene's own wrapper",
        packet::PLAIN,
        packet::CARRIED
    ));
    let mut rows = Vec::new();
    for (scene, rounds) in scenes.iter().zip(rounds) {
        // The kernel tells whole nanoseconds: what costs less counts as one.
        let net = compared(rounds, |round, value| (value - round.calibration).max(1.0));
        conditions.push(format!(
            "{}: at best {:.0} ns net, the plain forwarder {:.0}",
            scene.what,
            least(&net.ours),
            least(&net.peer)
        ));
        let limit = scene
            .limit_ns
            .map(|limit| Limit::OursAtMost((limit * scale).round()));
        rows.push(row(scene, "net", net, limit));
    }
    for (scene, rounds) in scenes.iter().zip(rounds) {
        rows.push(row(scene, "gross", compared(rounds, |_, value| value), None));
    }
    Ok(Report {
        benchmark: "edge",
        conditions,
        rows,
    })
}

fn row(scene: &Scene, which: &str, rounds: Rounds, limit: Option<Limit>) -> Row {
    Row::new(
        format!("{}, {which}", scene.what),
        "ns",
        "plain forwarder",
        rounds,
        limit,
    )
}

fn calibration(rounds: &[Round]) -> Result<f64> {
    let all: Vec<f64> = rounds.iter().map(|round| round.calibration).collect();
    median(&all).context("no round was run")
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The forwarder's and the edge's values, each by `value` of a round and what was measured in it.
fn compared(rounds: &[Round], value: impl Fn(&Round, f64) -> f64) -> Rounds {
    Rounds {
        peer: rounds.iter().map(|round| value(round, round.forwarder)).collect(),
        ours: rounds.iter().map(|round| value(round, round.edge)).collect(),
    }
}
