//! What the edge costs: a relay's hop, a client's packet that enters, one that leaves to its server, those that a balancer
//! sends on, and one that is none of Kuafu's. Program time, without a device.

mod balancer;
mod host;
mod packet;
pub(crate) mod scale;
mod wrapper;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kuafu_dataplane::bpf::{Bpf, Sizes};
use kuafu_pipeline::Reason;

use self::wrapper::{Start, Wrapper};
use crate::Common;
use crate::memory::map_mib;
use crate::report::{Limit, Report, Row};
use crate::rounds::{Rounds, median};

/// What the relay's wrapper around nothing costs where the limits hold.
const CALIBRATION_NS: f64 = 37.5;
/// What a relay's hop should cost some day.
const STRETCH_NS: f64 = 72.0;
/// Whole turns of all numbers, so that who runs in between takes none from the window.
const REPEAT: u32 = 1024 * packet::TURNS;
/// Of packets of which each leaves something: half of what there is room for.
const REPEAT_NEW: u32 = REPEAT / 2;
/// Flows in turn.
const FLOWS: u32 = 262_144;
/// At 100 Hz, too, longer than copies of flows count.
const SILENCE: Duration = Duration::from_secs(3);
/// As many as `restore_flows` makes.
const ALL: u64 = 1 << 32;
/// For which memory is told.
const REMEMBERED: u32 = 1_000_000;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

/// One thing that the edge does.
struct Scene {
    what: &'static str,
    /// Where one is set.
    limit_ns: Option<f64>,
    /// On which of the hosts.
    host: usize,
    wrapper: Wrapper,
    /// What becomes of the packet: one that is dropped costs little, so the program must have done its work.
    verdict: u32,
    is_done: fn(&mut [u8]) -> bool,
    /// Where it is dropped, as what.
    dropped: Option<Reason>,
    known: Known,
}

/// What is known of a scene's flows before its packets come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Whatever was left by those before.
    Any,
    /// All of them, and each was heard a moment ago.
    Heard,
    /// All of them, and each packet is the first of its flow for more than a second.
    Silent,
    /// None of them. Of each only one packet comes, and what they left is cleared away before the next ones.
    Nothing,
}

/// Of [`Scene::host`].
const ON_BACKBONE: usize = 0;
const BALANCER: usize = 1;

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
    let hosts = [Bpf::load(&Sizes::default())?, Bpf::load(&Sizes::default())?];
    host::fill(&hosts[ON_BACKBONE], interface)?;
    balancer::fill(&hosts[BALANCER], interface)?;
    let mut scenes = of_the_backbone(interface)?;
    scenes.extend(of_the_balancer(interface)?);
    scenes.extend(of_shields(interface)?);
    for scene in &mut scenes {
        check(scene, &hosts[scene.host])?;
    }
    let mut rounds: Vec<Vec<Round>> = scenes.iter().map(|_| Vec::new()).collect();
    for _ in 0..common.rounds(11) {
        for (scene, rounds) in scenes.iter_mut().zip(&mut rounds) {
            rounds.push(round(scene, &hosts[scene.host])?);
        }
    }
    let mut report = report(&scenes, &rounds)?;
    let new = scenes.iter_mut().find(|scene| scene.known == Known::Nothing);
    let new = new.context("no scene enters flows")?;
    report.conditions.push(remembered(new, &hosts[BALANCER])?);
    Ok(report)
}

fn of_the_backbone(interface: u32) -> Result<Vec<Scene>> {
    let numbers: Result<Vec<[u64; 2]>> = (0..packet::TURNS)
        .map(|turn| packet::numbers(&packet::ending(turn)?))
        .collect();
    let exit = Start {
        numbers: numbers?,
        ..Start::with(packet::ending(0)?)
    };
    let scene = |what, limit_ns, (restore, start): (_, Start), is_done| {
        let wrapper = Wrapper::new(restore, &start, interface)?;
        anyhow::Ok(Scene::new(ON_BACKBONE, (what, Some(limit_ns)), wrapper, is_done))
    };
    Ok(vec![
        scene(
            "relay hop",
            80.0,
            ("restore", Start::with(packet::relayed()?)),
            packet::is_relayed,
        )?,
        scene(
            "entry, known service",
            110.0,
            ("restore_entry", Start::with(packet::plain(host::LISTENER)?)),
            packet::has_entered,
        )?,
        scene(
            "exit, NAT and window",
            160.0,
            ("restore_exit", exit),
            packet::has_left,
        )?,
    ])
}

fn of_the_balancer(interface: u32) -> Result<Vec<Scene>> {
    let scene = |what, limit_ns, (restore, start): (_, Start), is_done| {
        let wrapper = Wrapper::new(restore, &start, interface)?;
        anyhow::Ok(Scene::new(BALANCER, (what, Some(limit_ns)), wrapper, is_done))
    };
    let one = |packet| ("restore_entry", Start::with(packet));
    let many = |packet, clients| {
        let start = Start::with(packet);
        ("restore_flows", Start { clients, ..start })
    };
    let by_ipip = || packet::segment(balancer::BY_IPIP);
    let of_ipv6 = Start::with(packet::segment_v6(balancer::BY_IPIP)?);
    Ok(vec![
        scene(
            "known TCP flow by IPIP",
            113.0,
            one(by_ipip()?),
            packet::is_in_ipip,
        )?,
        scene(
            "known TCP flow by GUE",
            125.0,
            one(packet::segment(balancer::BY_GUE)?),
            packet::is_in_gue,
        )?,
        Scene::new(
            BALANCER,
            ("known TCP flow by VXLAN", None),
            Wrapper::new(
                "restore_entry",
                &Start::with(packet::segment(balancer::BY_VXLAN)?),
                interface,
            )?,
            packet::is_in_vxlan,
        ),
        scene(
            "known TCP flow by IP6IP6",
            118.0,
            ("restore_v6", of_ipv6),
            packet::is_in_ip6ip6,
        )?,
        Scene {
            known: Known::Heard,
            ..scene(
                "one of 262,144 known flows",
                232.0,
                many(by_ipip()?, FLOWS.into()),
                packet::is_in_ipip,
            )?
        },
        Scene {
            known: Known::Silent,
            ..Scene::new(
                BALANCER,
                ("one of 262,144 known flows that were silent", None),
                Wrapper::new("restore_flows", &many(by_ipip()?, FLOWS.into()).1, interface)?,
                packet::is_in_ipip,
            )
        },
        scene(
            "new flow, its SYN",
            500.0,
            many(packet::first(balancer::BY_IPIP)?, ALL),
            packet::is_in_ipip,
        )?,
        Scene {
            known: Known::Nothing,
            ..scene(
                "new flow, entered by its second packet",
                500.0,
                many(by_ipip()?, ALL),
                packet::is_in_ipip,
            )?
        },
        Scene {
            verdict: XDP_PASS,
            ..scene("no service", 40.0, one(packet::passing()?), packet::is_untouched)?
        },
    ])
}

/// What shields do, each to packets of very many sources.
fn of_shields(interface: u32) -> Result<Vec<Scene>> {
    let with = |(what, limit_ns), (restore, packet), clients, is_done| {
        let start = Start::with(packet);
        let wrapper = Wrapper::new(restore, &Start { clients, ..start }, interface)?;
        anyhow::Ok(Scene::new(BALANCER, (what, limit_ns), wrapper, is_done))
    };
    let scene =
        |what, packet, clients, is_done| with((what, None), ("restore_flows", packet), clients, is_done);
    let (is_whole, wrapped) = (packet::is_whole as fn(&mut [u8]) -> bool, packet::is_in_ipip);
    let asking = packet::first(balancer::ASKING)?;
    Ok(vec![
        with(
            ("SYN, answered by a cookie", Some(147.0)),
            ("restore_cut", asking),
            ALL,
            packet::is_asked,
        )?,
        scene(
            "source on a list of 100,000",
            packet::first(balancer::BLOCKING)?,
            ALL,
            is_whole,
        )?
        .dropping(Reason::Blocked),
        scene(
            "client that is not admitted",
            packet::first(balancer::CLOSED)?,
            ALL,
            is_whole,
        )?
        .dropping(Reason::NotAdmitted),
        scene(
            "source beyond its rate",
            packet::first(balancer::SLOW)?,
            ALL,
            is_whole,
        )?
        .dropping(Reason::SourceLimited),
        scene(
            "admitted client's SYN",
            packet::first(balancer::ADMITTING)?,
            ALL,
            wrapped,
        )?,
        scene(
            "known TCP flow behind a shield that is up",
            packet::segment(balancer::ADMITTING)?,
            1,
            wrapped,
        )?,
    ])
}

impl Scene {
    fn new(
        host: usize,
        (what, limit_ns): (&'static str, Option<f64>),
        wrapper: Wrapper,
        is_done: fn(&mut [u8]) -> bool,
    ) -> Self {
        Self {
            what,
            limit_ns,
            host,
            wrapper,
            verdict: XDP_TX,
            is_done,
            dropped: None,
            known: Known::Any,
        }
    }

    /// A scene whose packet is dropped.
    fn dropping(self, reason: Reason) -> Self {
        Self {
            verdict: XDP_DROP,
            dropped: Some(reason),
            ..self
        }
    }

    fn repeat(&self) -> u32 {
        match self.known {
            Known::Any | Known::Heard => REPEAT,
            Known::Silent => FLOWS,
            Known::Nothing => REPEAT_NEW,
        }
    }

    /// Lets its flows be known as they are to be.
    fn prepare(&mut self, bpf: &Bpf) -> Result<()> {
        match self.known {
            Known::Any => {}
            Known::Heard | Known::Silent => {
                self.wrapper.run(2 * FLOWS)?;
            }
            Known::Nothing => forget(bpf)?,
        }
        if self.known == Known::Silent {
            std::thread::sleep(SILENCE);
        }
        Ok(())
    }
}

/// The first run and, after two turns of all numbers, the last do the same.
fn check(scene: &mut Scene, bpf: &Bpf) -> Result<()> {
    scene.wrapper.wrap(&bpf.programs.edge)?;
    for repeat in [1, 2 * packet::TURNS] {
        let before = drops(scene, bpf)?;
        let mut run = scene.wrapper.run(repeat)?;
        ensure!(
            run.verdict == scene.verdict && (scene.is_done)(&mut run.packet),
            "{}: the packet is not as it should be: verdict {}, {:02x?}",
            scene.what,
            run.verdict,
            run.packet
        );
        let dropped = drops(scene, bpf)? - before;
        let due = if scene.dropped.is_some() {
            u64::from(repeat)
        } else {
            0
        };
        ensure!(dropped == due, "{}: {dropped} were dropped of {due}", scene.what);
    }
    Ok(())
}

/// How many packets were dropped as a scene's are.
fn drops(scene: &Scene, bpf: &Bpf) -> Result<u64> {
    let Some(reason) = scene.dropped else {
        return Ok(0);
    };
    let of_cpus = bpf.maps.drops.get(reason as u32)?;
    Ok(of_cpus.iter().map(|drop| drop.packets).sum())
}

fn round(scene: &mut Scene, bpf: &Bpf) -> Result<Round> {
    let repeat = scene.repeat();
    scene.wrapper.wrap_own("passes")?;
    let calibration = scene.wrapper.run(repeat)?.nanoseconds;
    scene.wrapper.wrap_own("forwards")?;
    let forwarder = scene.wrapper.run(repeat)?.nanoseconds;
    scene.wrapper.wrap(&bpf.programs.edge)?;
    scene.prepare(bpf)?;
    let edge = scene.wrapper.run(repeat)?.nanoseconds;
    if scene.known == Known::Nothing {
        let (known, due) = (bpf.maps.tracked.count()?, scene.repeat());
        ensure!(known == due, "{}: {known} of {due} flows are known", scene.what);
        forget(bpf)?;
    }
    Ok(Round {
        calibration,
        forwarder,
        edge,
    })
}

/// Forgets all flows.
fn forget(bpf: &Bpf) -> Result<()> {
    let mut keys = Vec::new();
    bpf.maps.tracked.for_each(|key, _| keys.push(key))?;
    Ok(keys.iter().try_for_each(|key| bpf.maps.forget(key))?)
}

/// What a million flows take.
fn remembered(scene: &mut Scene, bpf: &Bpf) -> Result<String> {
    forget(bpf)?;
    scene.wrapper.wrap(&bpf.programs.edge)?;
    scene.wrapper.run(REMEMBERED)?;
    let (tracked, cache) = (&bpf.maps.tracked, &bpf.maps.flow_cache);
    let (known, table, cache) = (tracked.count()?, map_mib(tracked)?, map_mib(cache)?);
    Ok(format!(
        "{known} flows are known: their table takes {table:.0} MiB, with room for {}, and the flow cache {cache:.0}",
        tracked.capacity()
    ))
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
        "{} octets a packet, on the backbone {}, of IPv6 {}; restored before each of {REPEAT} runs a round ({REPEAT_NEW} \
         of new flows that are entered, {FLOWS} of silent ones), at the exit with new numbers; known flows in turn were \
         heard twice before, which is not measured, silent ones {} s before; net is without the scene's own \
         wrapper",
        packet::PLAIN,
        packet::CARRIED,
        packet::PLAIN_V6,
        SILENCE.as_secs()
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
