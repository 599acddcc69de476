//! The programs in the kernel, over the worlds of the packet cases: the real object, real maps, and a network
//! namespace with the interfaces, routes and neighbours that the worlds tell of.

use std::cell::Cell;
use std::collections::BTreeMap;

use kuafu_dataplane::bpf::{Bpf, Maps, Program, Sizes, TestRun};
use kuafu_lab::Namespace;
use kuafu_model::contents::Contents;
use kuafu_pipeline::map::{
    Bucket, LimitState, OwnWindow, PairState, PathState, Sample, Seen, ShieldCounts, ShieldState, SlotState,
    TargetSigns, Window,
};
use kuafu_pipeline::{Event, Reason};

use crate::common::case::{Done, Input, Program as Which};
use crate::common::encode::encode;
use crate::common::state::{self, SHIELDS, State};
use crate::common::world::{GATEWAY, ON_LINK, PORTS, UNDERLAY, UNREACHABLE, World, stale};

/// Entries of each array that packets of the cases can change.
pub const TOUCHED: u32 = 64;
/// Samples by which any ring is full.
const SAMPLES: u32 = 20_000;

/// A namespace with the interfaces of the worlds. Interfaces have the numbers that the worlds give them.
pub fn namespace(name: &str) -> Namespace {
    let prefix = format!("kfc{}", std::process::id());
    let namespace = Namespace::create(&prefix, name).expect("a namespace");
    let mut lines = Vec::new();
    for (number, name) in std::iter::once((UNDERLAY, "under")).chain(PORTS) {
        let mac = if number == UNDERLAY { 1 } else { number };
        lines.push(format!(
            "link add {name} index {number} mtu 9000 address 02:00:00:00:01:{mac:02x} type veth peer name {name}-peer \
             index {}",
            number + 100
        ));
        lines.push(format!("link set {name} up"));
        lines.push(format!("link set {name}-peer up"));
    }
    lines.push("link set under address 02:00:00:00:00:01".into());
    lines.push("addr add 192.0.2.1/24 dev under".into());
    for (address, mac) in ON_LINK {
        lines.push(format!(
            "neigh replace {address} lladdr 02:00:00:00:00:{mac:02x} nud permanent dev under"
        ));
    }
    lines.push(format!("route add default via {GATEWAY} dev under"));
    lines.push(format!(
        "route add unreachable {}/{}",
        UNREACHABLE.0, UNREACHABLE.1
    ));
    namespace.ip(lines).expect("interfaces, neighbours and routes");
    namespace
        .sysctl("net/ipv4/conf/under/forwarding", "1")
        .expect("forwarding");
    namespace
}

/// Runs all further programs of this thread on one CPU, so that lanes and per-CPU values are those of the model.
pub fn stay_on_one_cpu() {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(0).expect("a CPU");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).expect("a CPU of one's own");
}

/// Programs and maps for one world. To be used by a thread inside [`namespace`].
pub struct Kernel {
    bpf: Bpf,
    frags: bool,
    /// What was counted when marks were forgotten last: see [`Kernel::forget_marks`].
    counted: Cell<u64>,
}

/// Drops of packets before they leave a mark.
const UNMARKED: [Reason; 8] = [
    Reason::BadChecksum,
    Reason::BadLength,
    Reason::BadTcp,
    Reason::Fragment,
    Reason::IpOptions,
    Reason::Martian,
    Reason::Truncated,
    Reason::Ttl,
];

/// All counters, in packets and octets.
pub type Counters = BTreeMap<String, (u64, u64)>;

impl Kernel {
    /// Loads the object and writes the world's maps; `frags`: the edge runs as the program for packets in pieces.
    pub fn new(world: &World, frags: bool) -> Self {
        Self::with(world, world.contents().as_ref(), frags)
    }

    /// The same with other contents than the world's.
    pub fn with(world: &World, contents: Option<&Contents>, frags: bool) -> Self {
        let room = u32::try_from(world.connections).expect("a small table");
        let sizes = Sizes {
            connections: room,
            tracked: room,
            ..Sizes::default()
        };
        Self::of_size(&sizes, contents, (world, frags))
    }

    /// The same with maps of other sizes than the usual ones.
    pub fn of_size(sizes: &Sizes, contents: Option<&Contents>, (world, frags): (&World, bool)) -> Self {
        let bpf = Bpf::load(sizes).expect("the object loads");
        let counted = Cell::new(0);
        let kernel = Self { bpf, frags, counted };
        if let Some(contents) = contents {
            kernel.write(contents);
        }
        for (number, neighbour) in world.neighbours() {
            kernel
                .bpf
                .maps
                .neighbours
                .set(&number, &neighbour)
                .expect("a neighbour");
        }
        if world.samples == 0 {
            kernel.fill_samples();
        }
        kernel.begin_anew(world);
        kernel
    }

    /// Its maps.
    pub const fn maps(&self) -> &Maps {
        &self.bpf.maps
    }

    /// Writes the maps in the order of the model's update.
    fn write(&self, contents: &Contents) {
        for batch in contents.update_from(&Contents::default()).batches() {
            self.bpf.maps.write(&batch).expect("maps that can be written");
        }
    }

    /// Lets probes come home until the ring is full.
    fn fill_samples(&self) {
        let lost = |kernel: &Self| kernel.counters()["sample_lost"].0;
        for sequence in 0..SAMPLES {
            let octets = encode(&format!(
                "eth m02 > m01 | ipv4 192.0.2.2 > 192.0.2.1 | udp 50009 > 6081 sum none | geneve 1 label 6 seq {sequence} \
                 key 3 probe | ipv4 100.64.0.2 > 100.64.0.1 | udp 862 > 40000 sum none | stamp 0"
            ));
            self.program(Which::Edge)
                .test_run(&TestRun::once(&octets, UNDERLAY))
                .expect("a run");
            if sequence % 1024 == 0 && lost(self) > 0 {
                return;
            }
        }
        assert_ne!(lost(self), 0, "the ring is not full");
    }

    /// Takes back all that packets have changed but counters.
    pub fn begin_anew(&self, world: &World) {
        let maps = &self.bpf.maps;
        for at in 0..TOUCHED {
            maps.slot_states.set(&at, &SlotState::new()).expect("a slot");
            maps.path_states.set(&at, &PathState::new()).expect("a path");
            maps.pair_states.set(&at, &PairState::new()).expect("a pair");
            maps.windows.set(&at, &Window::new()).expect("a window");
            maps.own_windows.set(&at, &OwnWindow::new()).expect("a window");
            maps.target_signs
                .set(&at, &TargetSigns::default())
                .expect("a target");
        }
        for path in &world.stale {
            maps.path_states.set(path, &stale()).expect("a path");
        }
        let mut keys = Vec::new();
        maps.connections
            .for_each(|key, _| keys.push(key))
            .expect("connections");
        for key in keys {
            maps.connections.delete(&key).expect("a connection");
        }
        self.forget_flows();
        maps.fragmenter
            .set(&0, &world.fragmenter())
            .expect("the fragmenter");
        self.forget_fragments();
        self.allow_answers();
        (0..TOUCHED).for_each(|number| self.refill(number));
        if world.shields.is_some() {
            self.forget_sources(world);
        }
    }

    /// Takes back what packets have changed in shields.
    fn forget_sources(&self, world: &World) {
        let maps = &self.bpf.maps;
        for number in 0..SHIELDS {
            maps.shield_states
                .set(&number, &ShieldState::default())
                .expect("a shield");
            maps.shield_counts
                .set(number, &ShieldCounts::default())
                .expect("counts");
        }
        let mut touched = Vec::new();
        let used = |at, bucket: Bucket| {
            if format!("{bucket:?}") != format!("{:?}", Bucket::new()) {
                touched.push(at);
            }
        };
        maps.source_buckets.for_each(used).expect("buckets");
        for at in touched {
            maps.source_buckets.set(&at, &Bucket::new()).expect("a bucket");
        }
        let mut sources = Vec::new();
        maps.verified
            .for_each(|source, _| sources.push(source))
            .expect("sources");
        for source in sources {
            maps.verified.delete(&source).expect("a source");
        }
        let mut networks = Vec::new();
        maps.verified_v6
            .for_each(|network, _| networks.push(network))
            .expect("networks");
        for network in networks {
            maps.verified_v6.delete(&network).expect("a network");
        }
        if let Some(key) = world.admitted() {
            maps.admitted.set(&key, &u64::MAX).expect("a client");
        }
        if let Some(key) = world.admitted_v6() {
            maps.admitted_v6.set(&key, &u64::MAX).expect("a client");
        }
    }

    /// Fills an accelerator's buckets.
    pub fn refill(&self, number: u32) {
        let fresh = LimitState::default();
        self.bpf.maps.limit_states.set(&number, &fresh).expect("a limit");
    }

    /// Forgets the targets of flows and their marks.
    fn forget_flows(&self) {
        let maps = &self.bpf.maps;
        let mut keys = Vec::new();
        maps.tracked.for_each(|key, _| keys.push(key)).expect("flows");
        for key in keys {
            maps.forget(&key).expect("a flow");
        }
        self.forget_marks();
    }

    /// Forgets which UDP flows were here. There are many places: where nothing came that far they are not looked at.
    pub fn forget_marks(&self) {
        let leaves_marks = |word: &str| UNMARKED.iter().all(|reason| reason.word() != word);
        let counters = self.counters().into_iter();
        let counted = counters
            .filter(|(word, _)| leaves_marks(word))
            .map(|(_, (packets, _))| packets)
            .sum();
        if self.counted.replace(counted) == counted {
            return;
        }
        let seen = &self.bpf.maps.seen;
        let mut marked = Vec::new();
        let look = |place, mark: Seen| {
            if mark.marks.iter().any(|mark| mark.get() != 0) {
                marked.push(place);
            }
        };
        seen.for_each(look).expect("marks");
        for place in marked {
            seen.set(&place, &Seen::default()).expect("a mark");
        }
    }

    /// Forgets what first fragments said.
    pub fn forget_fragments(&self) {
        let fragments = &self.bpf.maps.fragments;
        let mut keys = Vec::new();
        fragments.for_each(|key, _| keys.push(key)).expect("fragments");
        for key in keys {
            fragments.delete(&key).expect("a fragment");
        }
    }

    /// Fills the buckets of ICMP answers.
    pub fn allow_answers(&self) {
        self.bpf
            .maps
            .icmp_buckets
            .set(0, &Bucket::new())
            .expect("a bucket");
    }

    fn program(&self, which: Which) -> &Program {
        let programs = &self.bpf.programs;
        match which {
            Which::Edge if self.frags => &programs.edge_frags,
            Which::Edge => &programs.edge,
            Which::Port => &programs.port,
            Which::Underlay => &programs.underlay,
        }
    }

    /// Runs a frame.
    pub fn run(&self, input: &Input) -> Done {
        let run = TestRun {
            mark: input.mark,
            ..TestRun::once(&input.octets, input.interface)
        };
        let done = self.program(input.program).test_run(&run).expect("a run");
        Done {
            code: done.verdict.cast_signed(),
            octets: done.frame,
        }
    }

    /// All counters.
    pub fn counters(&self) -> Counters {
        let maps = &self.bpf.maps;
        let reasons = Reason::ALL.iter().map(|reason| {
            let of_cpus = maps.drops.get(*reason as u32).expect("a counter");
            let packets = of_cpus.iter().map(|drop| drop.packets).sum();
            (
                reason.word().to_owned(),
                (packets, of_cpus.iter().map(|drop| drop.octets).sum()),
            )
        });
        let events = Event::ALL.iter().map(|event| {
            let of_cpus = maps.events.get(*event as u32).expect("a counter");
            let packets = of_cpus.iter().map(|counter| counter.packets).sum();
            (
                event.word().to_owned(),
                (packets, of_cpus.iter().map(|counter| counter.octets).sum()),
            )
        });
        reasons.chain(events).collect()
    }

    /// How many answers were not sent.
    pub fn limited(&self) -> u64 {
        let of_cpus = self
            .bpf
            .maps
            .drops
            .get(Reason::IcmpLimited as u32)
            .expect("a counter");
        of_cpus.iter().map(|drop| drop.packets).sum()
    }

    /// What packets have changed.
    pub fn state(&self) -> State {
        let maps = &self.bpf.maps;
        let mut all = Vec::new();
        for at in 0..TOUCHED {
            let slot = maps.slot_states.get(&at).expect("a slot").expect("an entry");
            let path = maps.path_states.get(&at).expect("a path").expect("an entry");
            let pair = maps.pair_states.get(&at).expect("a pair").expect("an entry");
            let window = maps.windows.get(&at).expect("a window").expect("an entry");
            all.push((format!("slot {at}"), state::slot(&slot)));
            all.push((format!("path {at}"), state::path(&path)));
            all.push((format!("pair {at}"), state::pair(&pair)));
            all.push((format!("window {at}"), state::window(&window)));
            let own_window = maps.own_windows.get(&at).expect("a window").expect("an entry");
            all.push((format!("own window {at}"), state::own_window(&own_window)));
            let signs = maps.target_signs.get(&at).expect("a target").expect("an entry");
            all.push((format!("target {at}"), state::signs(&signs)));
        }
        maps.connections
            .for_each(|key, value| all.push((state::connection_key(&key), state::connection(&value))))
            .expect("connections");
        maps.tracked
            .for_each(|key, value| all.push((state::flow_key(&key), state::tracked(&value))))
            .expect("flows");
        for at in 0..SHIELDS {
            let mut sum = ShieldCounts::default();
            for counts in maps.shield_counts.get(at).expect("counts") {
                for (sum, packets) in sum.packets.iter_mut().zip(counts.packets) {
                    *sum += packets;
                }
            }
            all.push((format!("shield {at}"), state::shield(&sum)));
        }
        maps.verified
            .for_each(|source, _| all.push((state::verified_key(source), String::new())))
            .expect("sources");
        maps.verified_v6
            .for_each(|network, _| all.push((state::verified_v6_key(network), String::new())))
            .expect("networks");
        maps.fragments
            .for_each(|key, value| all.push((state::fragment_key(&key), state::first_fragment(&value))))
            .expect("fragments");
        state::changed(all)
    }

    /// Whether the arrays are as new beyond what packets of the cases can change.
    pub fn is_untouched_beyond(&self) -> bool {
        let (maps, mut untouched) = (&self.bpf.maps, true);
        let mut same = |at: u32, value: String, fresh: &str| untouched &= at < TOUCHED || value == fresh;
        let fresh = format!("{:?}", SlotState::new());
        maps.slot_states
            .for_each(|at, value| same(at, format!("{value:?}"), &fresh))
            .expect("slots");
        let fresh = format!("{:?}", PathState::new());
        maps.path_states
            .for_each(|at, value| same(at, format!("{value:?}"), &fresh))
            .expect("paths");
        let fresh = format!("{:?}", PairState::new());
        maps.pair_states
            .for_each(|at, value| same(at, format!("{value:?}"), &fresh))
            .expect("pairs");
        let fresh = format!("{:?}", Window::new());
        maps.windows
            .for_each(|at, value| same(at, format!("{value:?}"), &fresh))
            .expect("windows");
        let fresh = format!("{:?}", OwnWindow::new());
        maps.own_windows
            .for_each(|at, value| same(at, format!("{value:?}"), &fresh))
            .expect("windows of paths");
        let fresh = format!("{:?}", TargetSigns::default());
        maps.target_signs
            .for_each(|at, value| same(at, format!("{value:?}"), &fresh))
            .expect("targets");
        untouched
    }

    /// Measurements that have come home.
    pub fn samples(&self) -> Vec<Sample> {
        self.bpf.maps.samples.reader().expect("a reader").collect()
    }
}
