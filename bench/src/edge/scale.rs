//! What many services and many targets cost: to bring them into force as an agent does, and a packet of one of them.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::programs::{ProgramFd, ProgramInfo};
use kuafu_dataplane::bpf::{Bpf, Maps, Pins, Sizes};
use kuafu_dataplane::host::{Host, Options, with_port};
use kuafu_lab::Namespace;
use kuafu_model::HostState;
use kuafu_model::contents::{Contents, contents};
use kuafu_model::state::{Encapsulation, ServiceState, Target, TargetState};
use kuafu_pipeline::header::Ipv4;
use kuafu_pipeline::header::ipv4::IPIP;

use super::wrapper::{Start, Wrapper};
use super::{REPEAT, XDP_TX, host, packet};
use crate::Common;
use crate::memory::{map_mib, peak_mib};
use crate::report::{Limit, Report, Row};
use crate::rounds::Rounds;

/// Where pins lie while this runs.
const PINS: &str = "/sys/fs/bpf/kuafu-bench";
/// Services: the first one's number and port; the others' follow.
const FIRST_VNI: u32 = 1000;
const FIRST_PORT: u16 = 20_000;
/// Targets' addresses, all behind one gateway, begin here.
const FIRST_TARGET: u32 = u32::from_be_bytes([10, 0, 0, 1]);
/// What an agent's process may have resident, in MiB.
const MOST_MEMORY_MIB: f64 = 300.0;
/// What a packet of many services may cost of what one of a single service costs.
const MOST_PACKET_RATIO: f64 = 1.1;
/// What the change of a target may take of the first apply.
const MOST_CHANGE_RATIO: f64 = 0.5;

/// So many services with so many targets each, no target in two of them.
#[derive(Clone, Copy)]
struct Shape {
    services: u16,
    targets: u32,
}

const ONE: Shape = Shape {
    services: 1,
    targets: 1,
};
/// The widest last: what it leaves in the process would count for the others too.
const MANY: [Shape; 2] = [
    Shape {
        services: 10_000,
        targets: 1,
    },
    Shape {
        services: 64,
        targets: 1000,
    },
];

/// What one round measured of a shape.
struct Round {
    contents_ms: f64,
    write_ms: f64,
    apply_ms: f64,
    change_ms: f64,
    tick_ms: f64,
    /// The process's peak while it applies.
    peak_mib: f64,
    maps_mib: f64,
    packet_ns: f64,
}

/// What is measured on.
struct Bench {
    host: Host,
    edge: ProgramFd,
    /// Maps that no program uses, to write to.
    aside: Bpf,
    interface: u32,
}

/// Measures one service, and many, in turns.
pub(crate) fn run(common: &Common) -> Result<Report> {
    let (namespace, interface) = host::namespace()?;
    namespace.ip([format!("route add 10.0.0.0/8 via {}", host::SERVER)])?;
    let data = tempfile::tempdir()?;
    let pins = Pinned(Pins::new(Path::new(PINS), "host"));
    // What a run that was killed has left.
    let _ = pins.0.remove_all();
    let report = measured(&namespace, common, interface, (data.path(), &pins.0));
    drop(pins);
    report
}

/// Pins that go with the value.
struct Pinned(Pins);

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.0.remove_all();
    }
}

fn measured(
    namespace: &Namespace,
    common: &Common,
    interface: u32,
    (data, pins): (&Path, &Pins),
) -> Result<Report> {
    namespace.run(|| {
        let options = Options {
            node: "host".to_owned(),
            pins: pins.clone(),
            data: data.to_owned(),
            xdp: None,
            sizes: Sizes::default(),
        };
        let mut host = Host::open(options)?;
        host.apply(&state(&[]))?;
        let edge = ProgramInfo::from_pin(pins.program("kuafu_edge"))?.fd()?;
        let mut bench = Bench {
            host,
            edge,
            aside: Bpf::load(&Sizes::default())?,
            interface,
        };
        let (mut ones, mut manys) = (Vec::new(), [const { Vec::new() }; MANY.len()]);
        for _ in 0..common.rounds(5) {
            ones.push(bench.round(ONE)?);
            for (shape, rounds) in MANY.into_iter().zip(&mut manys) {
                rounds.push(bench.round(shape)?);
            }
        }
        Ok(report(&ones, &manys))
    })?
}

impl Bench {
    fn round(&mut self, shape: Shape) -> Result<Round> {
        let services = shape.services();
        let first = state(&services);
        self.host.apply(&state(&[]))?;
        let (computed, contents_ms) =
            timed(|| contents(&with_port(&first), self.host.facts(), Some(self.host.contents())));
        let (written, write_ms) =
            timed(|| lead(&self.aside.maps, &Contents::default(), computed.as_ref().ok()));
        let computed = computed?;
        written?;
        lead(&self.aside.maps, &computed, Some(&Contents::default()))?;
        drop(computed);
        let mut applied = None;
        let peak_mib = peak_mib(|| applied = Some(timed(|| self.host.apply(&first))))?;
        let (applied, apply_ms) = applied.context("nothing was applied")?;
        applied?;
        let (ticked, tick_ms) = timed(|| self.host.tick());
        let faults = ticked?;
        ensure!(faults.is_empty(), "{shape}: {faults:?}");
        let packet_ns = self.packet_ns(shape)?;
        let changed = state(&shape.with_another_target(services));
        let (applied, change_ms) = timed(|| self.host.apply(&changed));
        applied?;
        Ok(Round {
            contents_ms,
            write_ms,
            apply_ms,
            change_ms,
            tick_ms,
            peak_mib,
            maps_mib: maps_mib(self.host.maps())?,
            packet_ns,
        })
    }

    /// Nanoseconds that the edge takes for a packet of the service in the middle, without the wrapper.
    fn packet_ns(&self, shape: Shape) -> Result<f64> {
        let port = FIRST_PORT + shape.services / 2;
        let mut wrapper = Wrapper::new(
            "restore_entry",
            &Start::with(packet::plain(port)?),
            self.interface,
        )?;
        wrapper.wrap_own("passes")?;
        let calibration = wrapper.run(REPEAT)?.nanoseconds;
        wrapper.wrap(&self.edge)?;
        // The flow is known from its second packet on.
        for repeat in [1, 2] {
            let mut run = wrapper.run(repeat)?;
            ensure!(
                run.verdict == XDP_TX && is_sent(&mut run.packet),
                "{shape}: the packet is not sent on: verdict {}, {:02x?}",
                run.verdict,
                run.packet
            );
        }
        Ok((wrapper.run(REPEAT)?.nanoseconds - calibration).max(1.0))
    }
}

/// Whether a frame goes to one of the targets, whole.
fn is_sent(frame: &mut [u8]) -> bool {
    let is_longer = frame.len() == packet::PLAIN + 20;
    let Some(head) = frame.first_chunk_mut::<34>() else {
        return false;
    };
    let ip = Ipv4::at::<14, 34>(head);
    is_longer && ip.protocol() == IPIP && ip.destination() >= FIRST_TARGET
}

impl Shape {
    fn services(self) -> Vec<ServiceState> {
        let service = |number: u16| {
            let first = u32::from(number) * self.targets;
            ServiceState {
                own: true,
                targets: (first..first + self.targets).map(target).collect(),
                ..host::service(
                    (FIRST_VNI + u32::from(number), FIRST_PORT + number),
                    false,
                    Target::Pair(0),
                )
            }
        };
        (0..self.services).map(service).collect()
    }

    /// The last target of the last service is replaced.
    fn with_another_target(self, mut services: Vec<ServiceState>) -> Vec<ServiceState> {
        let fresh = target(u32::from(self.services) * self.targets);
        let last = services.last_mut().and_then(|service| service.targets.last_mut());
        if let Some(last) = last {
            *last = fresh;
        }
        services
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {}", self.services, self.targets)
    }
}

fn target(number: u32) -> TargetState {
    TargetState::unchecked(
        1,
        Target::Direct {
            address: Ipv4Addr::from(FIRST_TARGET + number).into(),
            encapsulation: Encapsulation::Ipip,
        },
    )
}

fn state(services: &[ServiceState]) -> HostState {
    HostState {
        slots: Vec::new(),
        paths: Vec::new(),
        pairs: Vec::new(),
        services: services.to_vec(),
        ..host::state()
    }
}

/// Writes what leads from one contents to the next; nothing, where there is none.
fn lead(maps: &Maps, before: &Contents, next: Option<&Contents>) -> Result<()> {
    if let Some(next) = next {
        for batch in next.update_from(before).batches() {
            maps.write(&batch)?;
        }
    }
    Ok(())
}

/// What comes of it, and the milliseconds that it took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed().as_secs_f64() * 1e3)
}

/// What the kernel holds for the maps that services fill, in MiB.
fn maps_mib(maps: &Maps) -> Result<f64> {
    let all = [
        map_mib(&maps.services),
        map_mib(&maps.rings),
        map_mib(&maps.targets),
        map_mib(&maps.members),
        map_mib(&maps.neighbours),
        map_mib(&maps.limits),
    ];
    all.into_iter().sum()
}

fn report(ones: &[Round], manys: &[Vec<Round>; MANY.len()]) -> Report {
    let conditions = vec![
        "targets by IPIP, all different, behind one gateway; an agent's maps".to_owned(),
        "apply: as the agent does, on a host that has no service; contents: computed apart; write: into other maps of \
         the same sizes; peak: what this process has resident, with all that it measures with, in the first round"
            .to_owned(),
        format!("ns net of the wrapper, of a flow that is known, {REPEAT} runs a round"),
    ];
    let mut rows = Vec::new();
    for (shape, rounds) in MANY.iter().zip(manys) {
        rows.extend(rows_of(*shape, ones, rounds));
    }
    Report {
        benchmark: "scale",
        conditions,
        rows,
    }
}

/// The rows of a shape, against one service with one target; of a change, against the first apply.
fn rows_of(shape: Shape, ones: &[Round], manys: &[Round]) -> Vec<Row> {
    let row = |what: &str, unit: &'static str, value: fn(&Round) -> f64, limit: Option<Limit>| {
        let rounds = Rounds {
            peer: ones.iter().map(value).collect(),
            ours: manys.iter().map(value).collect(),
        };
        Row::new(format!("{shape}, {what}"), unit, "one service", rounds, limit)
    };
    let memory = (shape.targets == 1).then_some(Limit::OursAtMost(MOST_MEMORY_MIB));
    let changes = Rounds {
        peer: manys.iter().map(|round| round.apply_ms).collect(),
        ours: manys.iter().map(|round| round.change_ms).collect(),
    };
    // Later rounds would count what the widest shape has left in the process.
    let peak = |rounds: &[Round]| rounds.iter().map(|round| round.peak_mib).take(1).collect();
    let peaks = Rounds {
        peer: peak(ones),
        ours: peak(manys),
    };
    vec![
        row("contents", "ms", |round| round.contents_ms, None),
        row("write", "ms", |round| round.write_ms, None),
        row("apply", "ms", |round| round.apply_ms, None),
        Row::new(
            format!("{shape}, another target"),
            "ms",
            "first apply",
            changes,
            Some(Limit::RatioAtMost(MOST_CHANGE_RATIO)),
        ),
        row("each second", "ms", |round| round.tick_ms, None),
        Row::new(
            format!("{shape}, the process's peak"),
            "MiB",
            "one service",
            peaks,
            memory,
        ),
        row("maps", "MiB", |round| round.maps_mib, None),
        row(
            "a packet",
            "ns",
            |round| round.packet_ns,
            Some(Limit::RatioAtMost(MOST_PACKET_RATIO)),
        ),
    ]
}
