//! What packets have changed on a host: to be read, and to be set where a run shall begin from a known state.

use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Bucket, Connection, ConnectionKey, Counter, Drop, FirstFragment, FragmentKey,
    Fragmenter, HITTERS, LimitState, OwnWindow, PairState, PathState, SOURCE_BUCKETS, Sample, ShieldCounts,
    ShieldState, SlotState, TargetSigns, Tracked, Window,
};
use kuafu_pipeline::{Event, Reason};

use super::Host;
use super::arrays::Array;
use super::host::{BLOCK, SEEN};

impl Host {
    /// How often something was done.
    #[must_use]
    pub fn counter(&self, event: Event) -> Counter {
        self.counters[event as usize]
    }

    /// What was dropped for a reason.
    #[must_use]
    pub fn drops(&self, reason: Reason) -> &Drop {
        &self.drops[reason as usize]
    }

    /// The connections of the exit, each direction for itself.
    pub fn connections(&self) -> impl Iterator<Item = (&ConnectionKey, &Connection)> {
        self.connections.iter()
    }

    /// Enters one direction of a connection, as it was read from a live table.
    pub fn set_connection(&mut self, key: ConnectionKey, value: Connection) {
        self.connections.insert(key, value);
    }

    /// The targets of flows.
    pub fn tracked(&self) -> impl Iterator<Item = (&ConnectionKey, &Tracked)> {
        self.tracked.iter()
    }

    /// Enters a flow's target, as it was read from a live table.
    pub fn set_tracked(&mut self, key: ConnectionKey, value: Tracked) {
        self.tracked.insert(key, value);
    }

    /// Forgets which UDP flows were here.
    pub fn forget_marks(&mut self) {
        self.seen = Array::new(SEEN / BLOCK);
    }

    /// What first fragments of datagrams said.
    pub fn fragments(&self) -> impl Iterator<Item = (&FragmentKey, &FirstFragment)> {
        self.fragments.iter()
    }

    /// Forgets what first fragments said.
    pub fn forget_fragments(&mut self) {
        self.fragments.clear();
    }

    /// Sets who fragments what is too large.
    pub fn set_fragmenter(&mut self, fragmenter: Fragmenter) {
        self.fragmenter = fragmenter;
    }

    /// Takes out the measurements that have come home, oldest first.
    pub fn take_samples(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.samples)
    }

    /// What packets changed in a path; `None` beyond the table.
    #[must_use]
    pub fn path_state(&self, index: u32) -> Option<&PathState> {
        self.path_states.get(index)
    }

    /// Sets what packets change in a path.
    pub fn set_path_state(&mut self, index: u32, state: PathState) {
        self.path_states.set(index, state);
    }

    /// Sets what packets change in a slot.
    pub fn set_slot_state(&mut self, label: u32, state: SlotState) {
        self.slot_states.set(label, state);
    }

    /// Sets what packets change in a pair.
    pub fn set_pair_state(&mut self, index: u32, state: PairState) {
        self.pair_states.set(index, state);
    }

    /// Sets a replay window.
    pub fn set_window(&mut self, index: u32, window: Window) {
        self.windows.set(index, window);
    }

    /// Sets the window of a single path.
    pub fn set_own_window(&mut self, index: u32, window: OwnWindow) {
        self.own_windows.set(index, window);
    }

    /// Sets what packets change in a limit.
    pub fn set_limit_state(&mut self, number: u32, state: LimitState) {
        self.limit_states.set(number, state);
    }

    /// What packets changed in a shield; `None` beyond the table.
    #[must_use]
    pub fn shield_state(&self, number: u32) -> Option<&ShieldState> {
        self.shield_states.get(number)
    }

    /// Sets what packets change in a shield.
    pub fn set_shield_state(&mut self, number: u32, state: ShieldState) {
        self.shield_states.set(number, state);
    }

    /// What a shield has counted.
    #[must_use]
    pub fn shield_counts(&self, number: u32) -> ShieldCounts {
        self.shield_counts.get(&number).copied().unwrap_or_default()
    }

    /// Buckets of sources and prefixes that were asked for.
    pub fn source_buckets(&self) -> impl Iterator<Item = (usize, &Bucket)> {
        self.source_buckets.touched()
    }

    /// Sets how much sources or prefixes have begun whose hash leads to a place.
    pub fn set_source_bucket(&mut self, place: u32, bucket: Bucket) {
        self.source_buckets.set(place, bucket);
    }

    /// Forgets how much sources have begun, and who sends most.
    pub fn forget_sources(&mut self) {
        self.source_buckets = Array::new(SOURCE_BUCKETS);
        self.hitters = Array::new(2 * HITTERS);
        self.hitters_v6 = Array::new(2 * HITTERS);
    }

    /// Sources that are verified, and until when.
    pub fn verified(&self) -> impl Iterator<Item = (&u32, &u64)> {
        self.verified.iter()
    }

    /// Enters a verified source.
    pub fn set_verified(&mut self, source: u32, until: u64) {
        self.verified.insert(source, until);
    }

    /// Networks of IPv6, by their first 64 bits, that are verified, and until when.
    pub fn verified_v6(&self) -> impl Iterator<Item = (&u64, &u64)> {
        self.verified_v6.iter()
    }

    /// Enters a verified network of IPv6.
    pub fn set_verified_v6(&mut self, network: u64, until: u64) {
        self.verified_v6.insert(network, until);
    }

    /// Admits a client of IPv6.
    pub fn set_admitted_v6(&mut self, key: AdmittedKeyV6, until: u64) {
        self.admitted_v6.insert(key, until);
    }

    /// Admits a client.
    pub fn set_admitted(&mut self, key: AdmittedKey, until: u64) {
        self.admitted.insert(key, until);
    }

    /// Slots that were asked for, with what packets changed in them.
    pub fn slot_states(&self) -> impl Iterator<Item = (usize, &SlotState)> {
        self.slot_states.touched()
    }

    /// Paths that were asked for, with what packets changed in them.
    pub fn path_states(&self) -> impl Iterator<Item = (usize, &PathState)> {
        self.path_states.touched()
    }

    /// Pairs that were asked for, with what packets changed in them.
    pub fn pair_states(&self) -> impl Iterator<Item = (usize, &PairState)> {
        self.pair_states.touched()
    }

    /// Targets of which packets have counted anything.
    pub fn target_signs(&self) -> impl Iterator<Item = (usize, &TargetSigns)> {
        self.target_signs.touched()
    }

    /// Replay windows that were asked for.
    pub fn windows(&self) -> impl Iterator<Item = (usize, &Window)> {
        self.windows.touched()
    }

    /// Windows of single paths that were asked for.
    pub fn own_windows(&self) -> impl Iterator<Item = (usize, &OwnWindow)> {
        self.own_windows.touched()
    }
}
