//! Look-ups, clocks and counters in the kernel.

use core::ffi::c_void;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Relaxed},
};

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_boot_ns};
use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Atomics, Bucket, CachedFlows, Connection, ConnectionKey, Endpoint,
    EndpointKey, FirstFragment, FragmentKey, Fragmenter, HITTERS, Hitter, HitterV6, IpKey, Limit, LimitState,
    MemberKey, Neighbour, NextHop, NodeConfig, OwnWindow, Pair, PairState, PassedOn, Path, PathState, Port,
    Question, QuicServerKey, SOURCE_BUCKETS, Sample, Seen, Service, ServiceKey, Shared, Shield, ShieldState,
    Slot, SlotState, Tally, TargetSigns, Tracked, Vtep, VtepKey, Window, asked, said,
};
use kuafu_pipeline::{Event, Frame, Insertion, Outcome, Reason, Route, Tables};

use crate::frame::opaque;
use crate::maps::{self, Scratch};
use crate::{chain, routes};

/// `E2BIG`: no room in a hash map.
const FULL: i32 = -7;

/// The host that the program runs on.
pub struct KernelTables {
    context: *mut c_void,
    interface: u32,
    /// Whether the program takes packets in several pieces.
    frags: bool,
}

/// A look-up: the value stays readable while the program runs (RCU), and what packets change in it is atomic.
macro_rules! look_up {
    ($map:ident, $key:expr) => {
        // SAFETY: the pointer is to a value of the map, valid until the program ends; see above.
        maps::$map.get_ptr($key).map(|value| unsafe { &*value })
    };
}

impl KernelTables {
    /// For a packet of this context.
    #[inline(always)]
    pub fn new(context: *mut c_void, interface: u32) -> Self {
        Self {
            context,
            interface,
            frags: false,
        }
    }

    /// For what a port sends: routes are those of packets that come by the underlay.
    #[inline(always)]
    pub fn of_port(context: *mut c_void) -> Self {
        let underlay = look_up!(NODE, 0).map_or(0, |node| node.underlay);
        Self::new(context, underlay)
    }

    /// The same, in a program that takes packets in several pieces.
    #[inline(always)]
    pub fn in_pieces(self, frags: bool) -> Self {
        Self { frags, ..self }
    }
}

/// Where this CPU writes down what is too large for its stack; good until the next call.
#[inline(always)]
fn scratch<'a>() -> Option<&'a mut Scratch> {
    // SAFETY: this CPU's own value; programs of one CPU do not interrupt each other on a packet's path.
    maps::SCRATCH
        .get_ptr_mut(0)
        .map(|scratch| unsafe { &mut *scratch })
}

/// What this CPU's edge and shield pass on to each other.
#[inline(always)]
pub fn passed_on<'a>() -> Option<&'a mut PassedOn> {
    // SAFETY: as above.
    maps::PASSED_ON
        .get_ptr_mut(0)
        .map(|passed_on| unsafe { &mut *passed_on })
}

/// What this CPU's edge asks its shield of a packet of IPv6.
#[inline(always)]
pub fn passed_on_v6<'a>() -> Option<&'a mut Question<IpKey>> {
    // SAFETY: as above.
    maps::PASSED_ON_V6
        .get_ptr_mut(0)
        .map(|question| unsafe { &mut *question })
}

/// A key, off the stack; good until the next call.
#[inline(always)]
fn noted<'a>(key: &ConnectionKey) -> Option<&'a ConnectionKey> {
    let scratch = scratch()?;
    scratch.key = *key;
    Some(&scratch.key)
}

/// What the kernel says to an insertion into a hash map.
#[inline(always)]
fn inserted(result: Result<(), i32>) -> Result<(), Insertion> {
    match result {
        Ok(()) => Ok(()),
        Err(FULL) => Err(Insertion::Full),
        Err(_) => Err(Insertion::Exists),
    }
}

impl Atomics for KernelTables {
    #[inline(always)]
    fn add(&self, number: &Shared, more: u64) -> u64 {
        // Relaxed would compile to the instruction that does not fetch, and the result would be `more`.
        // SAFETY: the number lives in a map's value, aligned to 8; all that change it on several CPUs do it here.
        unsafe { AtomicU64::from_ptr(number.as_ptr()) }.fetch_add(more, AcqRel)
    }

    #[inline(always)]
    fn exchange(&self, number: &Shared, from: u64, to: u64) -> bool {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(number.as_ptr()) }
            .compare_exchange(from, to, AcqRel, Relaxed)
            .is_ok()
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn node(&self) -> Option<&NodeConfig> {
        look_up!(NODE, 0).filter(|node| node.local.get() != 0)
    }

    #[inline(always)]
    fn port(&self, interface: u32) -> Option<&Port> {
        look_up!(PORTS, interface)
    }

    #[inline(always)]
    fn endpoint(&self, key: &EndpointKey) -> Option<&Endpoint> {
        look_up!(ENDPOINTS, key)
    }

    #[inline(always)]
    fn may_send(&self, key: &VtepKey) -> bool {
        maps::SENDERS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn vtep(&self, index: u32) -> Option<&Vtep> {
        look_up!(VTEPS, index)
    }

    #[inline(always)]
    fn neighbour(&self, index: u32) -> Option<&Neighbour> {
        look_up!(NEIGHBOURS, index)
    }

    #[inline(always)]
    fn slot(&self, label: u32) -> Option<&Slot> {
        look_up!(SLOTS, label)
    }

    #[inline(always)]
    fn slot_state(&self, label: u32) -> Option<&SlotState> {
        look_up!(SLOT_STATES, label)
    }

    #[inline(always)]
    fn path(&self, index: u32) -> Option<&Path> {
        look_up!(PATHS, index)
    }

    #[inline(always)]
    fn path_state(&self, index: u32) -> Option<&PathState> {
        look_up!(PATH_STATES, index)
    }

    #[inline(always)]
    fn pair(&self, index: u32) -> Option<&Pair> {
        look_up!(PAIRS, index)
    }

    #[inline(always)]
    fn pair_state(&self, index: u32) -> Option<&PairState> {
        look_up!(PAIR_STATES, index)
    }

    #[inline(always)]
    fn window(&self, index: u32) -> Option<&Window> {
        look_up!(WINDOWS, index)
    }

    #[inline(always)]
    fn own_window(&self, index: u32) -> Option<&OwnWindow> {
        look_up!(OWN_WINDOWS, index)
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        look_up!(SERVICES, key)
    }

    #[inline(always)]
    fn ring(&self, index: u32) -> Option<u32> {
        look_up!(RINGS, index).copied()
    }

    #[inline(always)]
    fn target(&self, index: u32) -> Option<&NextHop> {
        look_up!(TARGETS, index)
    }

    #[inline(always)]
    fn target_signs(&self, index: u32) -> Option<&TargetSigns> {
        look_up!(TARGET_SIGNS, index)
    }

    #[inline(always)]
    fn member(&self, key: &MemberKey) -> Option<u32> {
        look_up!(MEMBERS, key).copied()
    }

    #[inline(always)]
    fn tracked(&self, key: &ConnectionKey) -> Option<&Tracked> {
        look_up!(TRACKED, noted(key)?)
    }

    #[inline(always)]
    fn track(&self, key: &ConnectionKey, value: Tracked) -> Result<(), Insertion> {
        let key = noted(key).ok_or(Insertion::Full)?;
        inserted(maps::TRACKED.insert(key, &value, BPF_NOEXIST as u64))
    }

    #[inline(always)]
    fn cached_flows(&self, hash: u32) -> Option<&CachedFlows> {
        look_up!(FLOW_CACHE, hash % maps::CACHE_LINES as u32)
    }

    #[inline(always)]
    fn seen(&self, hash: u32) -> Option<&Seen> {
        look_up!(SEEN, hash % maps::SEEN_PLACES as u32)
    }

    #[inline(always)]
    fn quic_target(&self, key: &QuicServerKey) -> Option<u32> {
        look_up!(QUIC_TARGETS, key).copied()
    }

    #[inline(always)]
    fn limit(&self, number: u32) -> Option<&Limit> {
        look_up!(LIMITS, number)
    }

    #[inline(always)]
    fn limit_state(&self, number: u32) -> Option<&LimitState> {
        look_up!(LIMIT_STATES, number)
    }

    #[inline(always)]
    fn shield(&self, number: u32) -> Option<&Shield> {
        look_up!(SHIELDS, number)
    }

    #[inline(always)]
    fn shield_state(&self, number: u32) -> Option<&ShieldState> {
        look_up!(SHIELD_STATES, number)
    }

    /// The shield is a program of its own, since the edge's stack has no room for it. It ends what it stops, and calls
    /// the edge once more for what passes, which comes here again and finds what it has said.
    #[inline(always)]
    fn shielded<F: Frame>(&self, _: &mut F, _: u32, question: &Question) -> Result<bool, Outcome> {
        let Some(passed_on) = passed_on() else {
            return Ok(true);
        };
        let said = passed_on.said;
        passed_on.said = said::NOTHING;
        if said != said::NOTHING && passed_on.question == *question {
            return Ok(said == said::PASSES);
        }
        passed_on.question = *question;
        chain::call(self.context, self.frags, chain::SHIELD);
        // There is no such program.
        Ok(true)
    }

    /// What is asked lies in a map of its own, so that IPv4's does not become longer.
    #[inline(always)]
    fn shielded_v6<F: Frame>(&self, _: &mut F, _: u32, question: &Question<IpKey>) -> Result<bool, Outcome> {
        let (Some(passed_on), Some(asked)) = (passed_on(), passed_on_v6()) else {
            return Ok(true);
        };
        let said = passed_on.said;
        passed_on.said = said::NOTHING;
        if said != said::NOTHING && passed_on.question.what == asked::V6 && *asked == *question {
            return Ok(said == said::PASSES);
        }
        passed_on.question.what = asked::V6;
        *asked = *question;
        chain::call(self.context, self.frags, chain::SHIELD);
        // There is no such program.
        Ok(true)
    }

    #[inline(always)]
    fn tally(&self, number: u32, what: Tally) {
        if let Some(counts) = maps::SHIELD_COUNTS.get_ptr_mut(number) {
            // SAFETY: this CPU's own value; programs of one CPU do not interrupt each other on a packet's path.
            unsafe { (*counts).packets[what as usize] += 1 };
        }
    }

    #[inline(always)]
    fn source_bucket(&self, hash: u32) -> Option<&Bucket> {
        look_up!(SOURCE_BUCKET, hash % SOURCE_BUCKETS)
    }

    #[inline(always)]
    fn hitter(&self, hash: u32, is_prefix: bool) -> Option<&Hitter> {
        look_up!(HITTER, hash % HITTERS + HITTERS * is_prefix as u32)
    }

    #[inline(always)]
    fn hitter_v6(&self, hash: u32, is_prefix: bool) -> Option<&HitterV6> {
        look_up!(HITTER_V6, hash % HITTERS + HITTERS * is_prefix as u32)
    }

    #[inline(always)]
    fn verified(&self, source: u32) -> Option<u64> {
        look_up!(VERIFIED, source).copied()
    }

    #[inline(always)]
    fn verify(&self, source: u32, until: u64) {
        // Who finds no room is asked again.
        let _ = maps::VERIFIED.insert(source, until, 0);
    }

    #[inline(always)]
    fn verified_v6(&self, network: u64) -> Option<u64> {
        look_up!(VERIFIED_V6, network).copied()
    }

    #[inline(always)]
    fn verify_v6(&self, network: u64, until: u64) {
        // As of IPv4.
        let _ = maps::VERIFIED_V6.insert(network, until, 0);
    }

    #[inline(always)]
    fn admitted(&self, key: &AdmittedKey) -> Option<u64> {
        look_up!(ADMITTED, key).copied()
    }

    #[inline(always)]
    fn admitted_v6(&self, key: &AdmittedKeyV6) -> Option<u64> {
        look_up!(ADMITTED_V6, key).copied()
    }

    #[inline(always)]
    fn list_marks(&self, place: u32) -> Option<u64> {
        look_up!(LIST_MARKS, place).copied()
    }

    #[inline(always)]
    fn list_area(&self, network: u32) -> Option<u32> {
        look_up!(LIST_AREAS, network).copied()
    }

    #[inline(always)]
    fn listed(&self, key: u64) -> Option<u32> {
        look_up!(LISTED, key).copied()
    }

    #[inline(always)]
    fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        look_up!(CONNECTIONS, noted(key)?)
    }

    #[inline(always)]
    fn open(&self, key: &ConnectionKey, value: Connection) -> Result<(), Insertion> {
        let scratch = scratch().ok_or(Insertion::Full)?;
        scratch.key = *key;
        scratch.connection = value;
        let (key, value): (&ConnectionKey, &Connection) = (&scratch.key, &scratch.connection);
        inserted(maps::CONNECTIONS.insert(key, value, BPF_NOEXIST as u64))
    }

    #[inline(always)]
    fn close(&self, key: &ConnectionKey) {
        if let Some(key) = noted(key) {
            // Nothing is lost where there was none.
            let _ = maps::CONNECTIONS.remove(key);
        }
    }

    #[inline(always)]
    fn route(&self, from: u32, to: u32) -> Result<Route, Reason> {
        let query = [self.interface, from, to];
        let kept = maps::ROUTES.get_ptr_mut(routes::index(from, to));
        // SAFETY: this CPU's own value; programs of one CPU do not interrupt each other on a packet's path.
        let Some(kept) = kept.map(|kept| unsafe { &mut *kept }) else {
            return Err(Reason::NoRoute);
        };
        if let Some(route) = kept.answer(query, self.jiffies()) {
            return Ok(route);
        }
        let route = routes::ask(self.context, query)?;
        kept.keep(query, self.jiffies(), &route);
        Ok(route)
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FirstFragment> {
        look_up!(FRAGMENTS, key).copied()
    }

    #[inline(always)]
    fn remember(&self, key: &FragmentKey, value: FirstFragment) {
        // What finds no room is as one that was never seen.
        let _ = maps::FRAGMENTS.insert(key, value, 0);
    }

    #[inline(always)]
    fn fragmenter(&self) -> Option<&Fragmenter> {
        look_up!(FRAGMENTER, 0)
    }

    #[inline(always)]
    fn icmp_bucket(&self) -> Option<&Bucket> {
        look_up!(ICMP_BUCKETS, 0)
    }

    #[inline(always)]
    fn sample(&self, sample: &Sample) -> bool {
        maps::SAMPLES.output(sample, 0).is_ok()
    }

    #[inline(always)]
    fn count(&self, event: Event, octets: u32) {
        if let Some(counter) = maps::EVENTS.get_ptr_mut(event as u32) {
            // SAFETY: this CPU's own value; programs of one CPU do not interrupt each other on a packet's path.
            unsafe {
                (*counter).packets += 1;
                (*counter).octets += u64::from(octets);
            }
        }
    }

    #[inline(always)]
    fn settled(&self, number: u32) -> u32 {
        opaque(number as u64) as u32
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        // SAFETY: takes nothing and returns a number.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: takes nothing and returns a number.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn cpu(&self) -> u32 {
        // SAFETY: takes nothing and returns a number.
        unsafe { bpf_get_smp_processor_id() as u32 }
    }
}
