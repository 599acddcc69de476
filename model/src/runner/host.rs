//! One host in userland: its maps, its clock, and the programs that run over them.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnetwork::Ipv4Network;
use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Bucket, CachedFlows, Connection, ConnectionKey, Counter, Drop, FRAME_START,
    FirstFragment, FragmentKey, Fragmenter, HITTERS, Hitter, HitterV6, Limit, LimitState, Neighbour, NextHop,
    OwnWindow, Pair, PairState, Path, PathState, SOURCE_BUCKETS, Sample, Seen, Shield, ShieldCounts,
    ShieldState, Slot, SlotState, TargetSigns, Tracked, Vtep, Window,
};
use kuafu_pipeline::{Event, Frame, Outcome, Reason, Route, program};

use super::arrays::Array;
use super::tables::{Effects, Run};
use super::{Hook, VecFrame, Verdict, Walk};
use crate::contents::{Batch, Capacities, Contents};

/// What the maps of one host hold, and what a program asks the kernel for.
#[derive(Debug)]
pub struct Host {
    pub(super) contents: Contents,
    pub(super) neighbours: HashMap<u32, Neighbour>,
    pub(super) slot_states: Array<SlotState>,
    pub(super) path_states: Array<PathState>,
    pub(super) pair_states: Array<PairState>,
    pub(super) windows: Array<Window>,
    pub(super) own_windows: Array<OwnWindow>,
    pub(super) target_signs: Array<TargetSigns>,
    pub(super) limit_states: Array<LimitState>,
    pub(super) shield_states: Array<ShieldState>,
    pub(super) shield_counts: HashMap<u32, ShieldCounts>,
    pub(super) source_buckets: Array<Bucket>,
    pub(super) hitters: Array<Hitter>,
    pub(super) hitters_v6: Array<HitterV6>,
    pub(super) verified: HashMap<u32, u64>,
    pub(super) verified_v6: HashMap<u64, u64>,
    pub(super) admitted: HashMap<AdmittedKey, u64>,
    pub(super) admitted_v6: HashMap<AdmittedKeyV6, u64>,
    pub(super) connections: HashMap<ConnectionKey, Connection>,
    pub(super) tracked: HashMap<ConnectionKey, Tracked>,
    pub(super) tracked_room: usize,
    pub(super) flow_cache: Array<Block<CachedFlows>>,
    pub(super) seen: Array<Block<Seen>>,
    pub(super) fragments: HashMap<FragmentKey, FirstFragment>,
    pub(super) fragmenter: Fragmenter,
    pub(super) capacities: Capacities,
    pub(super) empty: Empty,
    pub(super) room: usize,
    pub(super) sample_capacity: usize,
    pub(super) samples: Vec<Sample>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) counters: Vec<Counter>,
    pub(super) drops: Vec<Drop>,
    pub(super) routes: Vec<(Ipv4Network, Result<Route, Reason>)>,
    pub(super) router: Option<Router>,
    pub(super) links: HashMap<IpAddr, Neighbour>,
    pub(super) jiffies: u64,
    pub(super) nanoseconds: u64,
    pub(super) cpu: u32,
    tracing: bool,
}

/// Whom a host asks for routes that were not set.
pub(super) struct Router(pub(super) Box<RouteLookUp>);

/// From a source to a destination, both in host order.
type RouteLookUp = dyn Fn(u32, u32) -> Result<Route, Reason> + Send;

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Router")
    }
}

/// Some of an array's entries, which take memory together.
#[derive(Debug)]
pub(super) struct Block<T>(pub(super) [T; BLOCK as usize]);

impl<T: Default> Default for Block<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

/// What an array's entry is that was never written.
#[derive(Debug, Default)]
pub(super) struct Empty {
    pub(super) vtep: Vtep,
    pub(super) neighbour: Neighbour,
    pub(super) slot: Slot,
    pub(super) path: Path,
    pub(super) pair: Pair,
    pub(super) target: NextHop,
    pub(super) limit: Limit,
    pub(super) shield: Shield,
}

/// Connections that the kernel's table holds, counting each direction.
const CONNECTIONS: usize = 524_288;
/// Flows whose targets the kernel's table holds.
const TRACKED: usize = 1_048_576;
/// Places for the marks of UDP flows.
pub(super) const SEEN: u32 = 131_072;
/// Lines of the flow cache.
pub(super) const CACHE_LINES: u32 = 262_144;
/// See [`Block`].
pub(super) const BLOCK: u32 = 256;
/// Datagrams whose first fragments the kernel's table remembers.
const FRAGMENTS: usize = 16_384;
/// Measurements that the kernel's ring of 1 MiB holds, each with a header of 8 octets; it never fills whole.
const SAMPLES: usize = 1_048_575 / (size_of::<Sample>() + 8);

impl Host {
    /// A host on which no agent has written anything. Its clock stands at 1 jiffy and 0 ns.
    #[must_use]
    pub fn new(capacities: &Capacities) -> Self {
        let no_drop = Drop {
            packets: 0,
            octets: 0,
            last_seen: 0,
            interface: 0,
            length: 0,
            start: [0; FRAME_START],
        };
        Self {
            contents: Contents::default(),
            neighbours: HashMap::new(),
            slot_states: Array::new(capacities.slots),
            path_states: Array::new(capacities.paths),
            pair_states: Array::new(capacities.pairs),
            windows: Array::new(capacities.windows),
            own_windows: Array::new(capacities.own_windows),
            target_signs: Array::new(capacities.targets),
            limit_states: Array::new(capacities.limits),
            shield_states: Array::new(capacities.shields),
            shield_counts: HashMap::new(),
            source_buckets: Array::new(SOURCE_BUCKETS),
            hitters: Array::new(2 * HITTERS),
            hitters_v6: Array::new(2 * HITTERS),
            verified: HashMap::new(),
            verified_v6: HashMap::new(),
            admitted: HashMap::new(),
            admitted_v6: HashMap::new(),
            connections: HashMap::new(),
            tracked: HashMap::new(),
            tracked_room: TRACKED,
            flow_cache: Array::new(CACHE_LINES / BLOCK),
            seen: Array::new(SEEN / BLOCK),
            fragments: HashMap::new(),
            fragmenter: Fragmenter::default(),
            capacities: capacities.clone(),
            empty: Empty::default(),
            room: CONNECTIONS,
            sample_capacity: SAMPLES,
            samples: Vec::new(),
            buckets: vec![Bucket::new()],
            counters: vec![Counter::default(); Event::ALL.len()],
            drops: vec![no_drop; Reason::ALL.len()],
            routes: Vec::new(),
            router: None,
            links: HashMap::new(),
            jiffies: 1,
            nanoseconds: 0,
            cpu: 0,
            tracing: false,
        }
    }

    /// Writes the maps, as an agent does on the way from the contents before.
    pub fn program(&mut self, contents: &Contents) {
        for batch in contents.update_from(&self.contents).batches() {
            match batch {
                Batch::FreshWindows(numbers) => numbers.iter().for_each(|number| self.windows.clear(*number)),
                Batch::FreshOwnWindows(numbers) => {
                    numbers.iter().for_each(|number| self.own_windows.clear(*number));
                }
                Batch::FreshSlotStates(numbers) => {
                    numbers.iter().for_each(|number| self.slot_states.clear(*number));
                }
                Batch::FreshPathStates(numbers) => {
                    numbers.iter().for_each(|number| self.path_states.clear(*number));
                }
                Batch::FreshShieldStates(numbers) => {
                    for number in numbers.iter() {
                        self.shield_states.clear(*number);
                        self.shield_counts.remove(number);
                    }
                }
                // The contents as a whole take the place of what the other batches write.
                _ => {}
            }
        }
        self.contents = contents.clone();
        self.resolve();
    }

    /// What the maps hold of what an agent writes.
    #[must_use]
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Says by which link a host is reached: what an agent learns from the kernel's neighbours.
    pub fn set_neighbour(&mut self, host: impl Into<IpAddr>, link: Neighbour) {
        self.links.insert(host.into(), link);
        self.resolve();
    }

    fn resolve(&mut self) {
        let entry = |(number, host): (&u32, &IpAddr)| Some((*number, *self.links.get(host)?));
        self.neighbours = self.contents.neighbours.iter().filter_map(entry).collect();
    }

    /// Says where the host's own routes lead for a network; the longest prefix counts.
    pub fn set_route(&mut self, network: Ipv4Network, to: Result<Route, Reason>) {
        self.routes.push((network, to));
        self.routes
            .sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix()));
    }

    /// Sets who is asked for the way from a source to a destination, where no route was set: the kernel, on a live
    /// host.
    pub fn set_router(&mut self, ask: impl Fn(u32, u32) -> Result<Route, Reason> + Send + 'static) {
        self.router = Some(Router(Box::new(ask)));
    }

    /// Sets the clocks.
    pub const fn set_clock(&mut self, jiffies: u64, nanoseconds: u64) {
        self.jiffies = jiffies;
        self.nanoseconds = nanoseconds;
    }

    /// Jiffies and nanoseconds of its clocks.
    #[must_use]
    pub const fn clock(&self) -> (u64, u64) {
        (self.jiffies, self.nanoseconds)
    }

    /// Sets the CPU on which programs run from now on.
    pub fn set_cpu(&mut self, cpu: u32) {
        self.cpu = cpu;
        let cpus = (cpu as usize + 1).max(self.buckets.len());
        self.buckets.resize_with(cpus, Bucket::new);
    }

    /// Sets how many connections, counting each direction, and how many uncollected samples find room.
    pub const fn set_room(&mut self, connections: usize, samples: usize) {
        self.room = connections;
        self.sample_capacity = samples;
    }

    /// Sets of how many flows the targets are remembered.
    pub const fn set_tracked_room(&mut self, flows: usize) {
        self.tracked_room = flows;
    }

    /// Whether runs record each look-up.
    pub const fn set_tracing(&mut self, tracing: bool) {
        self.tracing = tracing;
    }

    /// The edge program: XDP on the underlay.
    pub fn edge(&mut self, frame: &mut VecFrame, interface: u32) -> Walk {
        self.run(frame, Hook::Xdp, interface, |frame, run| {
            program::edge::run(frame, run, interface)
        })
    }

    /// The port program: tcx on a port's host side, for a packet with this mark.
    pub fn port(&mut self, frame: &mut VecFrame, interface: u32, mark: u32) -> Walk {
        self.run(frame, Hook::Tcx, interface, |frame, run| {
            program::port::run(frame, run, interface, mark)
        })
    }

    /// The underlay program: tcx on the underlay.
    pub fn underlay(&mut self, frame: &mut VecFrame, interface: u32) -> Walk {
        self.run(frame, Hook::Tcx, interface, |frame, run| {
            program::underlay::run(frame, run, interface)
        })
    }

    fn run(
        &mut self,
        frame: &mut VecFrame,
        hook: Hook,
        interface: u32,
        program: impl FnOnce(&mut VecFrame, &Run<'_>) -> Outcome,
    ) -> Walk {
        let (outcome, effects, steps) = {
            let run = Run::new(self, self.tracing);
            let outcome = program(frame, &run);
            let (effects, steps) = run.finish();
            (outcome, effects, steps)
        };
        self.take(effects);
        let walk = Walk {
            outcome,
            verdict: Verdict::of(outcome, hook, interface),
            steps,
        };
        if let Some(reason) = walk.reason() {
            self.record(frame, interface, reason);
        }
        walk
    }

    /// Takes over what a run has left.
    fn take(&mut self, effects: Effects) {
        for key in effects.closed {
            self.connections.remove(&key);
        }
        self.connections.extend(effects.opened);
        self.tracked.extend(effects.tracked);
        if let Some((key, first)) = effects.remembered {
            self.set_fragment(key, first);
        }
        self.verified.extend(effects.verified);
        self.verified_v6.extend(effects.verified_v6);
        for (number, what) in effects.tallies {
            self.shield_counts.entry(number).or_default().packets[what as usize] += 1;
        }
        self.samples.extend(effects.samples);
        for (event, octets) in effects.counts {
            let counter = &mut self.counters[event as usize];
            counter.packets += 1;
            counter.octets += u64::from(octets);
        }
    }

    /// Remembers what the first fragment of a datagram said. Where there is no room, the oldest is forgotten.
    pub fn set_fragment(&mut self, key: FragmentKey, first: FirstFragment) {
        if self.fragments.len() >= FRAGMENTS && !self.fragments.contains_key(&key) {
            let oldest = self.fragments.iter().min_by_key(|(_, first)| first.seen);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.fragments.remove(&oldest);
            }
        }
        self.fragments.insert(key, first);
    }

    /// Counts a drop and, at most once a jiffy, keeps how the frame begins.
    fn record(&mut self, frame: &VecFrame, interface: u32, reason: Reason) {
        let drop = &mut self.drops[reason as usize];
        let length = frame.len();
        drop.packets += 1;
        drop.octets += u64::from(length);
        if drop.last_seen == self.jiffies || length == 0 {
            return;
        }
        drop.last_seen = self.jiffies;
        drop.interface = interface;
        drop.length = length;
        for (kept, octet) in drop.start.iter_mut().zip(frame.octets()) {
            *kept = *octet;
        }
    }
}
