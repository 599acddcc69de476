//! Maps, programs and links in the kernel, typed, and where they are pinned.
//!
//! aya parses, relocates and loads the embedded object. Everything after that goes through bpf(2) here, since map
//! values hold numbers that packets change and so are neither `Copy` nor aya's `Pod`.

mod clock;
mod layout;
mod map;
mod pins;
mod program;
mod sizes;
mod write;

pub use clock::Clock;
use map::Shape;
pub use map::{Map, Outlet, PerCpu, Reader, Records, Words};
pub(crate) use pins::detach;
pub use pins::{LAYOUT, Pins};
pub use program::{Adopted, Link, LinkKind, Program, Run, TestRun, XdpMode};
pub use sizes::Sizes;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::ProgramError;
use aya::{Ebpf, EbpfLoader};
use kuafu_model::contents::Capacities;
use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Bucket, CachedFlows, CaptureOrder, CaptureRecord, CaptureState, Connection,
    ConnectionKey, Counter, Drop, Endpoint, EndpointKey, FirstFragment, FragmentKey, Fragmenter, Hitter,
    HitterV6, IpKey, Limit, LimitState, MemberKey, Neighbour, NextHop, NodeConfig, OwnWindow, Pair,
    PairState, PassedOn, Path as BackbonePath, PathState, Port, Question, QuicServerKey, Sample, Seen,
    Service, ServiceKey, Shield, ShieldCounts, ShieldState, Slot, SlotState, TargetSigns, Tracked, Vtep,
    VtepKey, Window,
};
use kuafu_pipeline::stage::flow::Flow;

use crate::error::{Error, Result};
use crate::sys;

/// The programs and maps of `ebpf/`, as `cargo xtask ebpf` built them.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/kuafu.o");

/// The numbers of the edge's programs in their chain, as `ebpf::chain` has them.
const CHAIN_EDGE: u32 = 0;
const CHAIN_SHIELD: u32 = 1;

macro_rules! maps {
    ($( $(#[$doc:meta])* $field:ident: $type:ty, )+) => {
        /// All maps, by the names that they have in the kernel.
        #[derive(Debug)]
        pub struct Maps { $( $(#[$doc])* pub $field: $type, )+ }

        impl Maps {
            /// Names of all maps.
            pub const NAMES: &'static [&'static str] = &[$( stringify!($field), )+];

            /// Octets of keys and values.
            const SHAPES: &'static [Shape] = &[$( <$type>::shape(stringify!($field)), )+];

            fn each(mut open: impl FnMut(&'static str) -> Result<OwnedFd>) -> Result<Self> {
                Ok(Self { $( $field: <$type>::new(stringify!($field), open(stringify!($field))?)?, )+ })
            }
        }
    };
}

maps! {
    /// The host itself.
    node: Map<u32, NodeConfig>,
    /// Ports, by host-side interface.
    ports: Map<u32, Port>,
    /// Endpoints of VPCs.
    endpoints: Map<EndpointKey, Endpoint>,
    /// Which hosts may send into which VPC.
    senders: Map<VtepKey, u32>,
    /// Other hosts.
    vteps: Map<u32, Vtep>,
    /// Gateways and next hops.
    neighbours: Map<u32, Neighbour>,
    /// What labels mean.
    slots: Map<u32, Slot>,
    /// What packets change in slots.
    slot_states: Map<u32, SlotState>,
    /// Paths that begin here.
    paths: Map<u32, BackbonePath>,
    /// What packets change in paths.
    path_states: Map<u32, PathState>,
    /// Pairs that begin here.
    pairs: Map<u32, Pair>,
    /// What packets change in pairs.
    pair_states: Map<u32, PairState>,
    /// Replay windows.
    windows: Map<u32, Window>,
    /// Windows of single paths.
    own_windows: Map<u32, OwnWindow>,
    /// Listeners.
    services: Map<ServiceKey, Service>,
    /// The rings of all services.
    rings: Map<u32, u32>,
    /// Targets.
    targets: Map<u32, NextHop>,
    /// What packets have counted of targets.
    target_signs: Map<u32, TargetSigns>,
    /// Which targets are whose.
    members: Map<MemberKey, u32>,
    /// The targets of flows.
    tracked: Map<ConnectionKey, Tracked>,
    /// Copies of those of flows that were heard lately.
    flow_cache: Map<u32, CachedFlows>,
    /// Marks of UDP flows.
    seen: Map<u32, Seen>,
    /// Targets, by the server's id in connection ids.
    quic_targets: Map<QuicServerKey, u32>,
    /// Limits of accelerators.
    limits: Map<u32, Limit>,
    /// What packets change in limits.
    limit_states: Map<u32, LimitState>,
    /// Shields of services.
    shields: Map<u32, Shield>,
    /// What packets change in shields.
    shield_states: Map<u32, ShieldState>,
    /// What shields count.
    shield_counts: PerCpu<ShieldCounts>,
    /// How much sources and prefixes begin.
    source_buckets: Map<u32, Bucket>,
    /// Who sends most: sources, and behind them prefixes.
    hitters: Map<u32, Hitter>,
    /// The same of IPv6.
    hitters_v6: Map<u32, HitterV6>,
    /// Until when sources count as verified.
    verified: Map<u32, u64>,
    /// The same of networks of IPv6, by their first 64 bits.
    verified_v6: Map<u64, u64>,
    /// Until when clients are admitted.
    admitted: Map<AdmittedKey, u64>,
    /// The same of clients of IPv6.
    admitted_v6: Map<AdmittedKeyV6, u64>,
    /// Where lists have longer prefixes.
    list_marks: Map<u32, u64>,
    /// Lists that have all of a /16.
    list_areas: Map<u32, u32>,
    /// Lists that have all of a /24, or an address.
    listed: Map<u64, u32>,
    /// Both directions of the exit's connections.
    connections: Map<ConnectionKey, Connection>,
    /// What first fragments of datagrams said.
    fragments: Map<FragmentKey, FirstFragment>,
    /// Who fragments what is too large.
    fragmenter: Map<u32, Fragmenter>,
    /// What probes have measured.
    samples: Records<Sample>,
    /// What limits our ICMP answers.
    icmp_buckets: PerCpu<Bucket>,
    /// What was done, by [`kuafu_pipeline::Event`].
    events: PerCpu<Counter>,
    /// What was dropped, by [`kuafu_pipeline::Reason`].
    drops: PerCpu<Drop>,
    /// The programs of the edge, for packets in one piece.
    chain: Map<u32, u32>,
    /// The same for packets in several pieces.
    chain_frags: Map<u32, u32>,
    /// What they pass on to each other.
    passed_on: PerCpu<PassedOn>,
    /// What the shield is asked of a packet of IPv6.
    passed_on_v6: PerCpu<Question<IpKey>>,
    /// What a capture asks.
    capture: Map<u32, CaptureOrder>,
    /// What packets change while somebody captures.
    capture_state: Map<u32, CaptureState>,
    /// Where a CPU builds what it tells.
    capture_record: PerCpu<CaptureRecord>,
    /// What a capture is told.
    captured: Outlet,
}

impl Maps {
    /// The maps of a host whose agent runs or ran: what the prober and readers use.
    ///
    /// # Errors
    /// `Io` where one is not pinned, or is of another layout.
    pub fn open(pins: &Pins) -> Result<Self> {
        Self::each(|name| {
            let path = pins.map(name);
            sys::open_pin(&path).map_err(Error::io(format!("open {}", path.display())))
        })
    }

    /// Forgets a flow and its target, and the copy of the other flow that shares its line of the cache.
    ///
    /// # Errors
    /// `Io`.
    pub fn forget(&self, flow: &ConnectionKey) -> Result<()> {
        self.tracked.delete(flow)?;
        if let Some(flow) = Flow::of_connection(flow) {
            let line = flow.hash() % self.flow_cache.capacity();
            self.flow_cache.set(&line, &CachedFlows::default())?;
        }
        Ok(())
    }

    /// Lets the programs of the edge call each other. The maps keep them, as long as somebody keeps the maps.
    fn link_up(&self, object: &mut Ebpf, programs: &Programs) -> Result<()> {
        for (chain, edge, shield) in [
            (&self.chain, &programs.edge, "kuafu_shield"),
            (&self.chain_frags, &programs.edge_frags, "kuafu_shield_frags"),
        ] {
            let shield = load(object, shield, LinkKind::Xdp)?;
            for (number, program) in [(CHAIN_EDGE, edge), (CHAIN_SHIELD, &shield)] {
                chain.set(&number, &program.as_fd().as_raw_fd().cast_unsigned())?;
            }
        }
        Ok(())
    }

    /// How many entries each of the state's maps holds.
    #[must_use]
    pub fn capacities(&self) -> Capacities {
        Capacities {
            ports: self.ports.capacity(),
            endpoints: self.endpoints.capacity(),
            senders: self.senders.capacity(),
            vteps: self.vteps.capacity(),
            neighbours: self.neighbours.capacity(),
            slots: self.slots.capacity(),
            paths: self.paths.capacity(),
            pairs: self.pairs.capacity(),
            windows: self.windows.capacity(),
            own_windows: self.own_windows.capacity(),
            services: self.services.capacity(),
            rings: self.rings.capacity(),
            targets: self.targets.capacity(),
            members: self.members.capacity(),
            quic_targets: self.quic_targets.capacity(),
            limits: self.limits.capacity(),
            shields: self.shields.capacity(),
            listed: self.listed.capacity(),
        }
    }
}

/// The four programs.
#[derive(Debug)]
pub struct Programs {
    /// XDP on the underlay, for packets in one piece.
    pub edge: Program,
    /// XDP on the underlay, for packets in several pieces.
    pub edge_frags: Program,
    /// tcx ingress of a port's host side.
    pub port: Program,
    /// tcx ingress of the underlay.
    pub underlay: Program,
}

/// Programs and the maps that they share.
#[derive(Debug)]
pub struct Bpf {
    /// The programs, loaded.
    pub programs: Programs,
    /// The maps.
    pub maps: Maps,
}

impl Bpf {
    /// Loads programs with maps of their own, pinned nowhere: they live as long as the value.
    ///
    /// # Errors
    /// `Object` and `Program` where the kernel refuses; `Io`.
    pub fn load(sizes: &Sizes) -> Result<Self> {
        Self::from_loader(EbpfLoader::new(), sizes)
    }

    /// Loads programs over the maps that are pinned under `pins`; makes and pins those that are not. Where maps of
    /// another layout are pinned, what they hold is carried over and their programs are replaced: no packet is lost.
    ///
    /// # Errors
    /// As [`load`](Self::load); `Foreign` where a pinned map is of another shape.
    pub fn load_pinned(pins: &Pins, sizes: &Sizes) -> Result<Self> {
        pins.refuse_foreign(Maps::SHAPES)?;
        let paths = pins.prepare()?;
        let bpf = Self::from_loader(pinned(&paths), sizes)?;
        bpf.programs.pin(pins)?;
        layout::carry_over(pins, &bpf.programs.all())?;
        Ok(bpf)
    }

    /// Lets the programs of another object take over, over maps of another layout: what a newer version finds.
    ///
    /// # Errors
    /// As [`load_pinned`](Self::load_pinned).
    pub fn hand_over(object: &[u8], pins: &Pins, sizes: &Sizes) -> Result<()> {
        let paths = pins.prepare()?;
        let mut object = sized(pinned(&paths), sizes).load(object)?;
        let programs = Programs::load(&mut object)?;
        programs.pin(pins)?;
        layout::carry_over(pins, &programs.all())
    }

    fn from_loader(loader: EbpfLoader<'_>, sizes: &Sizes) -> Result<Self> {
        let mut loader = sized(loader, sizes);
        let mut object = loader.load(OBJECT)?;
        let maps = Maps::each(|name| map_fd(&object, name))?;
        let programs = Programs::load(&mut object)?;
        maps.link_up(&mut object, &programs)?;
        // They hold the types of the whole kernel.
        drop((loader, object));
        sys::return_free_memory();
        Ok(Self { programs, maps })
    }
}

/// Maps are those that are pinned there, or are made and pinned.
fn pinned<'p>(paths: &'p [(&'static str, PathBuf)]) -> EbpfLoader<'p> {
    let mut loader = EbpfLoader::new();
    for (name, path) in paths {
        loader.map_pin_path(name, path.as_path());
    }
    loader
}

fn sized<'l>(mut loader: EbpfLoader<'l>, sizes: &Sizes) -> EbpfLoader<'l> {
    for (name, size) in sizes.by_name() {
        loader.map_max_entries(name, size);
    }
    loader
}

impl Programs {
    fn load(object: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            edge: load(object, "kuafu_edge", LinkKind::Xdp)?,
            edge_frags: load(object, "kuafu_edge_frags", LinkKind::Xdp)?,
            port: load(object, "kuafu_port", LinkKind::Tcx)?,
            underlay: load(object, "kuafu_underlay", LinkKind::Tcx)?,
        })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> [&Program; 4] {
        [&self.edge, &self.edge_frags, &self.port, &self.underlay]
    }

    fn pin(&self, pins: &Pins) -> Result<()> {
        self.all()
            .into_iter()
            .try_for_each(|program| pins.replace(program, &pins.program(program.name())))
    }
}

fn map_fd(object: &Ebpf, name: &'static str) -> Result<OwnedFd> {
    use aya::maps::Map as Kind;
    let data = match object.map(name) {
        Some(
            Kind::Array(data)
            | Kind::HashMap(data)
            | Kind::LruHashMap(data)
            | Kind::PerCpuArray(data)
            | Kind::PerfEventArray(data)
            | Kind::ProgramArray(data)
            | Kind::RingBuf(data)
            | Kind::Unsupported(data),
        ) => data,
        _ => return Err(missing(name)),
    };
    let fd = AsFd::as_fd(data.fd()).try_clone_to_owned();
    fd.map_err(Error::io(format!("keep the map {name}")))
}

fn load(object: &mut Ebpf, name: &'static str, kind: LinkKind) -> Result<Program> {
    use aya::programs::Program as Kind;
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    let loaded = match program {
        Kind::Xdp(program) => program.load(),
        Kind::SchedClassifier(program) => program.load(),
        _ => return Err(missing(name)),
    };
    loaded.map_err(|error| refused(name, &error))?;
    let fd = program.fd().map_err(|error| refused(name, &error))?;
    let fd = AsFd::as_fd(fd)
        .try_clone_to_owned()
        .map_err(Error::io(format!("keep the program {name}")))?;
    Ok(Program::new(name, kind, fd))
}

fn missing(name: &str) -> Error {
    Error::io("read the BPF object")(std::io::Error::other(format!("it has no {name}")))
}

/// The kernel's word, and the end of what the verifier wrote.
fn refused(program: &'static str, error: &ProgramError) -> Error {
    let reason = match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let last: Vec<_> = log.lines().rev().take(5).collect();
            format!(
                "{io_error}: {}",
                last.into_iter().rev().collect::<Vec<_>>().join("; ")
            )
        }
        other => other.to_string(),
    };
    Error::Program { program, reason }
}

/// Whether a path is on a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC)
}
