//! The maps. Names and layouts are what agent, `bpftool` and the next version of the programs meet at; sizes are
//! defaults that the agent may change when it loads the object.

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerfEventArray, ProgramArray, RingBuf};
use aya_ebpf::macros::btf_map;
use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Bucket, CachedFlows, CaptureOrder, CaptureRecord, CaptureState, Connection,
    ConnectionKey, Counter, Drop, Endpoint, EndpointKey, FirstFragment, FragmentKey, Fragmenter, HITTERS,
    Hitter, HitterV6, IpKey, Limit, LimitState, MOST_LISTED, MemberKey, Neighbour, NextHop, NodeConfig,
    OwnWindow, Pair, PairState, PassedOn, Path, PathState, Port, Question, QuicServerKey, SOURCE_BUCKETS,
    Sample, Seen, Service, ServiceKey, Shield, ShieldCounts, ShieldState, Slot, SlotState, TargetSigns,
    Tracked, Vtep, VtepKey, Window,
};
use kuafu_pipeline::{Event, Reason};

use crate::routes::{KEPT, Kept};

/// Memory for an entry when it is made, not when the map is.
const ON_DEMAND: usize = aya_ebpf::bindings::BPF_F_NO_PREALLOC as usize;

/// Userland may map the values into its memory.
const MAPPED: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// The host itself.
#[btf_map(name = "node")]
pub static NODE: Array<NodeConfig, 1> = Array::new();

/// Ports, by their host-side interface.
#[btf_map(name = "ports")]
pub static PORTS: HashMap<u32, Port, 4096, ON_DEMAND> = HashMap::new();

/// Endpoints of VPCs.
#[btf_map(name = "endpoints")]
pub static ENDPOINTS: HashMap<EndpointKey, Endpoint, 1_048_576, ON_DEMAND> = HashMap::new();

/// Which hosts may send into which VPC.
#[btf_map(name = "senders")]
pub static SENDERS: HashMap<VtepKey, u32, 262_144, ON_DEMAND> = HashMap::new();

/// Other hosts, by number.
#[btf_map(name = "vteps")]
pub static VTEPS: Array<Vtep, 4096> = Array::new();

/// Gateways and next hops, by number.
#[btf_map(name = "neighbours")]
pub static NEIGHBOURS: Array<Neighbour, 65_536> = Array::new();

/// What labels mean.
#[btf_map(name = "slots")]
pub static SLOTS: Array<Slot, 65_536> = Array::new();

/// What packets change in slots.
#[btf_map(name = "slot_states")]
pub static SLOT_STATES: Array<SlotState, 65_536> = Array::new();

/// Paths that begin here, by number.
#[btf_map(name = "paths")]
pub static PATHS: Array<Path, 4096> = Array::new();

/// What packets change in paths. Mapped into the prober and the agent, which change single words of it.
#[btf_map(name = "path_states")]
pub static PATH_STATES: Array<PathState, 4096, MAPPED> = Array::new();

/// Pairs that begin here, by number.
#[btf_map(name = "pairs")]
pub static PAIRS: Array<Pair, 2048> = Array::new();

/// What packets change in pairs.
#[btf_map(name = "pair_states")]
pub static PAIR_STATES: Array<PairState, 2048> = Array::new();

/// Replay windows of pairs that end here, by number.
#[btf_map(name = "windows")]
pub static WINDOWS: Array<Window, 2048> = Array::new();

/// Windows of copies of paths that end here, by number.
#[btf_map(name = "own_windows")]
pub static OWN_WINDOWS: Array<OwnWindow, 4096> = Array::new();

/// Listeners.
#[btf_map(name = "services")]
pub static SERVICES: HashMap<ServiceKey, Service, 65_536, ON_DEMAND> = HashMap::new();

/// The rings of all services: numbers of targets.
#[btf_map(name = "rings")]
pub static RINGS: Array<u32, 8_650_752> = Array::new();

/// Targets, by number.
#[btf_map(name = "targets")]
pub static TARGETS: Array<NextHop, 65_536> = Array::new();

/// What packets have counted of targets. Mapped into the agent, which reads it.
#[btf_map(name = "target_signs")]
pub static TARGET_SIGNS: Array<TargetSigns, 65_536, MAPPED> = Array::new();

/// Which targets are whose, and what they take.
#[btf_map(name = "members")]
pub static MEMBERS: HashMap<MemberKey, u32, 262_144, ON_DEMAND> = HashMap::new();

/// The targets of flows. What is in it stays until its flow is idle: no flood makes one forgotten. Its memory is taken
/// whole, since its packet then enters a flow in three quarters of the time. An entry that is removed may be another flow's
/// the next moment, so packets replace what they have read and nothing else.
#[btf_map(name = "tracked")]
pub static TRACKED: HashMap<ConnectionKey, Tracked, 1_048_576> = HashMap::new();

/// Copies of those of flows that were heard lately. Mappable, since such values begin where cache lines do.
#[btf_map(name = "flow_cache")]
pub static FLOW_CACHE: Array<CachedFlows, CACHE_LINES, MAPPED> = Array::new();

/// Lines in [`FLOW_CACHE`]: a power of two.
pub const CACHE_LINES: usize = 262_144;

/// Where UDP flows leave their marks, eight to a place, by their hash. Mappable for the same reason.
#[btf_map(name = "seen")]
pub static SEEN: Array<Seen, SEEN_PLACES, MAPPED> = Array::new();

/// Places in [`SEEN`]: a power of two.
pub const SEEN_PLACES: usize = 131_072;

/// Targets, by the server's id in connection ids.
#[btf_map(name = "quic_targets")]
pub static QUIC_TARGETS: HashMap<QuicServerKey, u32, 65_536, ON_DEMAND> = HashMap::new();

/// Limits of accelerators, by number.
#[btf_map(name = "limits")]
pub static LIMITS: Array<Limit, 65_536> = Array::new();

/// What packets change in limits.
#[btf_map(name = "limit_states")]
pub static LIMIT_STATES: Array<LimitState, 65_536> = Array::new();

/// Shields, by number.
#[btf_map(name = "shields")]
pub static SHIELDS: Array<Shield, 1024> = Array::new();

/// What packets change in shields.
#[btf_map(name = "shield_states")]
pub static SHIELD_STATES: Array<ShieldState, 1024> = Array::new();

/// What shields count.
#[btf_map(name = "shield_counts")]
pub static SHIELD_COUNTS: PerCpuArray<ShieldCounts, 1024> = PerCpuArray::new();

/// How much sources and prefixes begin.
#[btf_map(name = "source_buckets")]
pub static SOURCE_BUCKET: Array<Bucket, { SOURCE_BUCKETS as usize }> = Array::new();

/// Who sends most: sources, and behind them prefixes.
#[btf_map(name = "hitters")]
pub static HITTER: Array<Hitter, { 2 * HITTERS as usize }> = Array::new();

/// The same of IPv6.
#[btf_map(name = "hitters_v6")]
pub static HITTER_V6: Array<HitterV6, { 2 * HITTERS as usize }> = Array::new();

/// Sources that have returned a cookie. Only who can be reached gets in.
#[btf_map(name = "verified")]
pub static VERIFIED: LruHashMap<u32, u64, 131_072> = LruHashMap::new();

/// The same of IPv6, by the first 64 bits of their addresses.
#[btf_map(name = "verified_v6")]
pub static VERIFIED_V6: LruHashMap<u64, u64, 131_072> = LruHashMap::new();

/// Clients that were admitted.
#[btf_map(name = "admitted")]
pub static ADMITTED: HashMap<AdmittedKey, u64, 262_144, ON_DEMAND> = HashMap::new();

/// The same of IPv6.
#[btf_map(name = "admitted_v6")]
pub static ADMITTED_V6: HashMap<AdmittedKeyV6, u64, 262_144, ON_DEMAND> = HashMap::new();

/// Where lists have longer prefixes, a bit for each /24.
#[btf_map(name = "list_marks")]
pub static LIST_MARKS: Array<u64, 262_144> = Array::new();

/// Lists that have all of a /16.
#[btf_map(name = "list_areas")]
pub static LIST_AREAS: Array<u32, 65_536> = Array::new();

/// Lists that have all of a /24, or an address.
#[btf_map(name = "listed")]
pub static LISTED: HashMap<u64, u32, { MOST_LISTED as usize }, ON_DEMAND> = HashMap::new();

/// Both directions of the exit's connections.
#[btf_map(name = "connections")]
pub static CONNECTIONS: HashMap<ConnectionKey, Connection, 524_288, ON_DEMAND> = HashMap::new();

/// What probes have measured, for the agent.
#[btf_map(name = "samples")]
pub static SAMPLES: RingBuf<Sample, 1_048_576> = RingBuf::new();

/// What the first fragments of datagrams said. A flood of them makes old ones forgotten, never new ones refused.
#[btf_map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, FirstFragment, 16_384> = LruHashMap::new();

/// Who fragments what is too large. Mapped into the prober, which changes single words of it.
#[btf_map(name = "fragmenter")]
pub static FRAGMENTER: Array<Fragmenter, 1, MAPPED> = Array::new();

/// What limits our ICMP answers.
#[btf_map(name = "icmp_buckets")]
pub static ICMP_BUCKETS: PerCpuArray<Bucket, 1> = PerCpuArray::new();

/// Where a CPU writes down keys and values on their way into another map, which would not fit on its stack.
#[btf_map(name = "scratch")]
pub static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// See [`SCRATCH`].
#[repr(C)]
pub struct Scratch {
    pub key: ConnectionKey,
    pub connection: Connection,
}

/// What the kernel has just said about routes: nobody else reads it.
#[btf_map(name = "routes")]
pub static ROUTES: PerCpuArray<Kept, KEPT> = PerCpuArray::new();

/// What was done, by [`Event`].
#[btf_map(name = "events")]
pub static EVENTS: PerCpuArray<Counter, { Event::ALL.len() }> = PerCpuArray::new();

/// What was dropped, by [`Reason`].
#[btf_map(name = "drops")]
pub static DROPS: PerCpuArray<Drop, { Reason::ALL.len() }> = PerCpuArray::new();

/// The programs of the edge, by [`chain`](crate::chain)'s numbers: for packets in one piece,
#[btf_map(name = "chain")]
pub static CHAIN: ProgramArray<2> = ProgramArray::new();

/// and in several.
#[btf_map(name = "chain_frags")]
pub static CHAIN_FRAGS: ProgramArray<2> = ProgramArray::new();

/// What they pass on to each other. Pinned with them: the one may be newer than the other.
#[btf_map(name = "passed_on")]
pub static PASSED_ON: PerCpuArray<PassedOn, 1> = PerCpuArray::new();

/// What the shield is asked of a packet of IPv6, where [`PASSED_ON`] says so.
#[btf_map(name = "passed_on_v6")]
pub static PASSED_ON_V6: PerCpuArray<Question<IpKey>, 1> = PerCpuArray::new();

/// What a capture asks, if somebody captures.
#[btf_map(name = "capture")]
pub static CAPTURE: Array<CaptureOrder, 1> = Array::new();

/// What packets change while somebody captures.
#[btf_map(name = "capture_state")]
pub static CAPTURE_STATE: Array<CaptureState, 1> = Array::new();

/// Where a CPU builds what it tells.
#[btf_map(name = "capture_record")]
pub static CAPTURE_RECORD: PerCpuArray<CaptureRecord, 1> = PerCpuArray::new();

/// What a capture is told, by CPU.
#[btf_map(name = "captured")]
pub static CAPTURED: PerfEventArray = PerfEventArray::new();
