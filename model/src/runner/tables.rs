//! The look-ups of one packet.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::Ipv4Addr;

use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Atomics, Bucket, CachedFlows, Connection, ConnectionKey, Endpoint,
    EndpointKey, FirstFragment, FragmentKey, Fragmenter, HITTERS, Hitter, HitterV6, IpKey, Limit, LimitState,
    MemberKey, Neighbour, NextHop, NodeConfig, OwnWindow, Pair, PairState, Path, PathState, Port, Question,
    QuicServerKey, SOURCE_BUCKETS, Sample, Seen, Service, ServiceKey, Shared, Shield, ShieldState,
    SingleThreaded, Slot, SlotState, Tally, TargetSigns, Tracked, Vtep, VtepKey, Window,
};
use kuafu_pipeline::{Event, Frame, Insertion, Outcome, Reason, Route, Tables, stage};

use super::host::{BLOCK, CACHE_LINES, SEEN};
use super::{Host, Step, trace};

/// Connections that one packet may open: both directions, with room for one that is taken back.
const OPENED: usize = 4;

/// A host while one packet is on its way: what the packet adds lies beside the host's tables, so that references
/// into both stay valid.
pub(super) struct Run<'h> {
    host: &'h Host,
    opened: [OnceCell<(ConnectionKey, Connection)>; OPENED],
    closed: RefCell<Vec<ConnectionKey>>,
    tracked: RefCell<Option<(ConnectionKey, Tracked)>>,
    remembered: Cell<Option<(FragmentKey, FirstFragment)>>,
    verified: Cell<Option<(u32, u64)>>,
    verified_v6: Cell<Option<(u64, u64)>>,
    tallies: RefCell<Vec<(u32, Tally)>>,
    samples: RefCell<Vec<Sample>>,
    counts: RefCell<Vec<(Event, u32)>>,
    steps: Option<RefCell<Vec<Step>>>,
    live: Cell<usize>,
}

/// What a packet leaves to the host.
pub(super) struct Effects {
    pub(super) closed: Vec<ConnectionKey>,
    pub(super) opened: Vec<(ConnectionKey, Connection)>,
    pub(super) tracked: Option<(ConnectionKey, Tracked)>,
    pub(super) remembered: Option<(FragmentKey, FirstFragment)>,
    pub(super) verified: Option<(u32, u64)>,
    pub(super) verified_v6: Option<(u64, u64)>,
    pub(super) tallies: Vec<(u32, Tally)>,
    pub(super) samples: Vec<Sample>,
    pub(super) counts: Vec<(Event, u32)>,
}

impl<'h> Run<'h> {
    /// Before the first look-up.
    pub(super) fn new(host: &'h Host, tracing: bool) -> Self {
        Self {
            host,
            opened: [const { OnceCell::new() }; OPENED],
            closed: RefCell::default(),
            tracked: RefCell::default(),
            remembered: Cell::default(),
            verified: Cell::default(),
            verified_v6: Cell::default(),
            tallies: RefCell::default(),
            samples: RefCell::default(),
            counts: RefCell::default(),
            steps: tracing.then(RefCell::default),
            live: Cell::new(host.connections.len()),
        }
    }

    /// After the last one.
    pub(super) fn finish(self) -> (Effects, Vec<Step>) {
        let closed = self.closed.into_inner();
        let opened = self
            .opened
            .into_iter()
            .filter_map(OnceCell::into_inner)
            .filter(|(key, _)| !closed.contains(key))
            .collect();
        let effects = Effects {
            closed,
            opened,
            tracked: self.tracked.into_inner(),
            remembered: self.remembered.into_inner(),
            verified: self.verified.into_inner(),
            verified_v6: self.verified_v6.into_inner(),
            tallies: self.tallies.into_inner(),
            samples: self.samples.into_inner(),
            counts: self.counts.into_inner(),
        };
        (effects, self.steps.map(RefCell::into_inner).unwrap_or_default())
    }

    fn note(&self, step: impl FnOnce() -> Step) {
        if let Some(steps) = &self.steps {
            steps.borrow_mut().push(step());
        }
    }

    /// Notes a look-up and passes its result on.
    fn looked_up<'v, V>(
        &self,
        map: &'static str,
        key: impl FnOnce() -> String,
        found: Option<&'v V>,
        value: impl FnOnce(&V) -> String,
    ) -> Option<&'v V> {
        self.note(|| Step::LookUp {
            map,
            key: key(),
            found: found.map(value),
        });
        found
    }

    /// The same for an array, all of whose entries are there: `empty` where they were never written.
    fn numbered<'v, V>(
        &self,
        (map, capacity): (&'static str, u32),
        number: u32,
        (found, empty): (Option<&'v V>, &'v V),
        value: impl FnOnce(&V) -> String,
    ) -> Option<&'v V> {
        self.looked_up(map, || number.to_string(), found, value)
            .or((number < capacity).then_some(empty))
    }

    fn find(&self, key: &ConnectionKey) -> Option<&Connection> {
        if self.closed.borrow().contains(key) {
            return None;
        }
        let mut opened = self.opened.iter().filter_map(OnceCell::get);
        match opened.find(|(known, _)| known == key) {
            Some((_, connection)) => Some(connection),
            None => self.host.connections.get(key),
        }
    }
}

impl Atomics for Run<'_> {
    fn add(&self, number: &Shared, more: u64) -> u64 {
        SingleThreaded.add(number, more)
    }

    fn exchange(&self, number: &Shared, from: u64, to: u64) -> bool {
        SingleThreaded.exchange(number, from, to)
    }
}

impl Tables for Run<'_> {
    fn node(&self) -> Option<&NodeConfig> {
        let node = &self.host.contents.node;
        let found = (node.local.get() != 0).then_some(node);
        self.looked_up("node", String::new, found, |node| {
            format!("this host is {}", Ipv4Addr::from(node.local.get()))
        })
    }

    fn port(&self, interface: u32) -> Option<&Port> {
        let found = self.host.contents.ports.get(&interface);
        self.looked_up(
            "ports",
            || interface.to_string(),
            found,
            |port| format!("{} in VNI {}", trace::address(port.address), port.vni),
        )
    }

    fn endpoint(&self, key: &EndpointKey) -> Option<&Endpoint> {
        let found = self.host.contents.endpoints.get(key);
        self.looked_up(
            "endpoints",
            || trace::endpoint(key),
            found,
            |endpoint| trace::next_hop(&endpoint.hop),
        )
    }

    fn may_send(&self, key: &VtepKey) -> bool {
        let found = self.host.contents.senders.get(key);
        self.looked_up("senders", || trace::sender(key), found, |_| "may send".into())
            .is_some()
    }

    fn vtep(&self, index: u32) -> Option<&Vtep> {
        let found = self.host.contents.vteps.get(&index);
        self.numbered(
            ("vteps", self.host.capacities.vteps),
            index,
            (found, &self.host.empty.vtep),
            |vtep| Ipv4Addr::from(vtep.address.get()).to_string(),
        )
    }

    fn neighbour(&self, index: u32) -> Option<&Neighbour> {
        let found = self.host.neighbours.get(&index);
        self.numbered(
            ("neighbours", self.host.capacities.neighbours),
            index,
            (found, &self.host.empty.neighbour),
            |link| format!("out of interface {}", link.interface),
        )
    }

    fn slot(&self, label: u32) -> Option<&Slot> {
        let found = self.host.contents.slots.get(&label);
        self.numbered(
            ("slots", self.host.capacities.slots),
            label,
            (found, &self.host.empty.slot),
            |slot| trace::slot_kind(slot.kind()).into(),
        )
    }

    fn slot_state(&self, label: u32) -> Option<&SlotState> {
        self.host.slot_states.get(label)
    }

    fn path(&self, index: u32) -> Option<&Path> {
        let found = self.host.contents.paths.get(&index);
        self.numbered(
            ("paths", self.host.capacities.paths),
            index,
            (found, &self.host.empty.path),
            |path| {
                let next = Ipv4Addr::from(path.leg.address.get());
                format!("next node {next}, label {}", path.leg.label)
            },
        )
    }

    fn path_state(&self, index: u32) -> Option<&PathState> {
        let found = self.host.path_states.get(index);
        self.looked_up(
            "path_states",
            || index.to_string(),
            found,
            |state| {
                if state.is_fresh(self.host.jiffies) {
                    "fresh".into()
                } else {
                    "down or stale".into()
                }
            },
        )
    }

    fn pair(&self, index: u32) -> Option<&Pair> {
        let found = self.host.contents.pairs.get(&index);
        self.numbered(
            ("pairs", self.host.capacities.pairs),
            index,
            (found, &self.host.empty.pair),
            |pair| {
                format!(
                    "path {}, backup {}",
                    pair.primary.cast_signed(),
                    pair.backup.cast_signed()
                )
            },
        )
    }

    fn pair_state(&self, index: u32) -> Option<&PairState> {
        self.host.pair_states.get(index)
    }

    fn window(&self, index: u32) -> Option<&Window> {
        self.host.windows.get(index)
    }

    fn own_window(&self, index: u32) -> Option<&OwnWindow> {
        self.host.own_windows.get(index)
    }

    fn service(&self, key: &ServiceKey) -> Option<&Service> {
        let found = self.host.contents.services.get(key);
        self.looked_up("services", || trace::service(key), found, trace::service_value)
    }

    fn ring(&self, index: u32) -> Option<u32> {
        let below = self.host.contents.rings.range(..=index).next_back();
        let found = below.and_then(|(first, slots)| slots.get((index - first) as usize));
        self.numbered(
            ("rings", self.host.capacities.rings),
            index,
            (found, &0),
            |target| format!("target {target}"),
        )
        .copied()
    }

    fn target(&self, index: u32) -> Option<&NextHop> {
        let found = self.host.contents.targets.get(&index);
        self.numbered(
            ("targets", self.host.capacities.targets),
            index,
            (found, &self.host.empty.target),
            trace::next_hop,
        )
    }

    fn target_signs(&self, index: u32) -> Option<&TargetSigns> {
        self.host.target_signs.get(index)
    }

    fn member(&self, key: &MemberKey) -> Option<u32> {
        let found = self.host.contents.members.get(key);
        self.looked_up(
            "members",
            || format!("target {} of {}", key.target, key.vni),
            found,
            trace::takes,
        )
        .copied()
    }

    fn tracked(&self, key: &ConnectionKey) -> Option<&Tracked> {
        let found = self.host.tracked.get(key);
        self.looked_up(
            "tracked",
            || trace::connection(key),
            found,
            |flow| format!("target {}", flow.choice().0),
        )
    }

    fn track(&self, key: &ConnectionKey, value: Tracked) -> Result<(), Insertion> {
        let result = if self.host.tracked.contains_key(key) {
            Err(Insertion::Exists)
        } else if self.host.tracked.len() >= self.host.tracked_room {
            Err(Insertion::Full)
        } else {
            *self.tracked.borrow_mut() = Some((*key, value));
            Ok(())
        };
        self.note(|| Step::Do {
            what: "remember the target of",
            with: trace::connection(key),
            done: result.is_ok(),
        });
        result
    }

    fn cached_flows(&self, hash: u32) -> Option<&CachedFlows> {
        let line = hash % CACHE_LINES;
        let lines = self.host.flow_cache.get(line / BLOCK)?;
        lines.0.get((line % BLOCK) as usize)
    }

    fn seen(&self, hash: u32) -> Option<&Seen> {
        let place = hash % SEEN;
        let marks = self.host.seen.get(place / BLOCK)?;
        marks.0.get((place % BLOCK) as usize)
    }

    fn quic_target(&self, key: &QuicServerKey) -> Option<u32> {
        let found = self.host.contents.quic_targets.get(key);
        self.looked_up(
            "quic_targets",
            || format!("{} of {}", key.id, key.vni),
            found,
            |target| format!("target {target}"),
        )
        .copied()
    }

    fn limit(&self, number: u32) -> Option<&Limit> {
        let found = self.host.contents.limits.get(&number);
        self.numbered(
            ("limits", self.host.capacities.limits),
            number,
            (found, &self.host.empty.limit),
            trace::limit,
        )
    }

    fn limit_state(&self, number: u32) -> Option<&LimitState> {
        self.host.limit_states.get(number)
    }

    fn shield(&self, number: u32) -> Option<&Shield> {
        let found = self.host.contents.shields.get(&number);
        self.numbered(
            ("shields", self.host.capacities.shields),
            number,
            (found, &self.host.empty.shield),
            trace::shield,
        )
    }

    fn shield_state(&self, number: u32) -> Option<&ShieldState> {
        self.host.shield_states.get(number)
    }

    fn shielded<F: Frame>(
        &self,
        frame: &mut F,
        interface: u32,
        question: &Question,
    ) -> Result<bool, Outcome> {
        stage::shield::decide(frame, self, interface, question)
    }

    fn shielded_v6<F: Frame>(
        &self,
        frame: &mut F,
        interface: u32,
        question: &Question<IpKey>,
    ) -> Result<bool, Outcome> {
        stage::shield::decide(frame, self, interface, question)
    }

    fn tally(&self, number: u32, what: Tally) {
        self.tallies.borrow_mut().push((number, what));
    }

    fn source_bucket(&self, hash: u32) -> Option<&Bucket> {
        self.host.source_buckets.get(hash % SOURCE_BUCKETS)
    }

    fn hitter(&self, hash: u32, is_prefix: bool) -> Option<&Hitter> {
        let place = hash % HITTERS + HITTERS * u32::from(is_prefix);
        self.host.hitters.get(place)
    }

    fn hitter_v6(&self, hash: u32, is_prefix: bool) -> Option<&HitterV6> {
        let place = hash % HITTERS + HITTERS * u32::from(is_prefix);
        self.host.hitters_v6.get(place)
    }

    fn verified(&self, source: u32) -> Option<u64> {
        let found = self.host.verified.get(&source);
        self.looked_up(
            "verified",
            || Ipv4Addr::from(source).to_string(),
            found,
            |until| trace::until(*until, self.host.jiffies),
        )
        .copied()
    }

    fn verify(&self, source: u32, until: u64) {
        self.verified.set(Some((source, until)));
        self.note(|| Step::Do {
            what: "count as verified",
            with: Ipv4Addr::from(source).to_string(),
            done: true,
        });
    }

    fn verified_v6(&self, network: u64) -> Option<u64> {
        let found = self.host.verified_v6.get(&network);
        self.looked_up(
            "verified_v6",
            || trace::network(network),
            found,
            |until| trace::until(*until, self.host.jiffies),
        )
        .copied()
    }

    fn verify_v6(&self, network: u64, until: u64) {
        self.verified_v6.set(Some((network, until)));
        self.note(|| Step::Do {
            what: "count as verified",
            with: trace::network(network),
            done: true,
        });
    }

    fn admitted(&self, key: &AdmittedKey) -> Option<u64> {
        let found = self.host.admitted.get(key);
        self.looked_up(
            "admitted",
            || format!("{} to {}", Ipv4Addr::from(key.client), key.vni),
            found,
            |until| trace::until(*until, self.host.jiffies),
        )
        .copied()
    }

    fn admitted_v6(&self, key: &AdmittedKeyV6) -> Option<u64> {
        let found = self.host.admitted_v6.get(key);
        self.looked_up(
            "admitted_v6",
            || format!("{} to {}", trace::address(key.client), key.vni),
            found,
            |until| trace::until(*until, self.host.jiffies),
        )
        .copied()
    }

    fn list_marks(&self, place: u32) -> Option<u64> {
        let marks = self.host.contents.list_marks.get(&place);
        Some(marks.copied().unwrap_or_default())
    }

    fn list_area(&self, network: u32) -> Option<u32> {
        let lists = self.host.contents.list_areas.get(&network);
        Some(lists.copied().unwrap_or_default())
    }

    fn listed(&self, key: u64) -> Option<u32> {
        let found = self.host.contents.listed.get(&key);
        self.looked_up(
            "listed",
            || trace::listed(key),
            found,
            |lists| format!("lists {lists:b}"),
        )
        .copied()
    }

    fn connection(&self, key: &ConnectionKey) -> Option<&Connection> {
        let found = self.find(key);
        self.looked_up(
            "connections",
            || trace::connection(key),
            found,
            trace::connection_value,
        )
    }

    fn open(&self, key: &ConnectionKey, value: Connection) -> Result<(), Insertion> {
        let free = self.opened.iter().find(|entry| entry.get().is_none());
        let result = match free {
            _ if self.find(key).is_some() => Err(Insertion::Exists),
            Some(entry) if self.live.get() < self.host.room => {
                self.live.set(self.live.get() + 1);
                self.closed.borrow_mut().retain(|closed| closed != key);
                entry.set((*key, value)).map_err(|_| Insertion::Full)
            }
            _ => Err(Insertion::Full),
        };
        self.note(|| Step::Do {
            what: "open connection",
            with: trace::connection(key),
            done: result.is_ok(),
        });
        result
    }

    fn close(&self, key: &ConnectionKey) {
        if self.find(key).is_some() {
            self.live.set(self.live.get() - 1);
            self.closed.borrow_mut().push(*key);
        }
    }

    fn route(&self, from: u32, to: u32) -> Result<Route, Reason> {
        let mut routes = self.host.routes.iter();
        let set = routes.find(|(network, _)| network.contains(Ipv4Addr::from(to)));
        let route = match (set, &self.host.router) {
            (Some((_, route)), _) => *route,
            (None, Some(router)) => (router.0)(from, to),
            (None, None) => Err(Reason::NoRoute),
        };
        self.note(|| Step::LookUp {
            map: "routes",
            key: format!("from {} to {}", Ipv4Addr::from(from), Ipv4Addr::from(to)),
            found: route.as_ref().ok().map(trace::route),
        });
        route
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FirstFragment> {
        let found = self.host.fragments.get(key);
        self.looked_up(
            "fragments",
            || trace::fragment(key),
            found,
            |first| trace::first_fragment(first, self.host.nanoseconds),
        )
        .copied()
    }

    fn remember(&self, key: &FragmentKey, value: FirstFragment) {
        self.remembered.set(Some((*key, value)));
        self.note(|| Step::Do {
            what: "remember ports of",
            with: trace::fragment(key),
            done: true,
        });
    }

    fn fragmenter(&self) -> Option<&Fragmenter> {
        let found = &self.host.fragmenter;
        self.looked_up("fragmenter", String::new, Some(found), |fragmenter| {
            let is_there = self.host.jiffies < fragmenter.until.get();
            if is_there { "there" } else { "away" }.into()
        })
    }

    fn icmp_bucket(&self) -> Option<&Bucket> {
        self.host.buckets.get(self.host.cpu as usize)
    }

    fn sample(&self, sample: &Sample) -> bool {
        let mut samples = self.samples.borrow_mut();
        let room = self.host.samples.len() + samples.len() < self.host.sample_capacity;
        if room {
            samples.push(*sample);
        }
        room
    }

    fn count(&self, event: Event, octets: u32) {
        self.counts.borrow_mut().push((event, octets));
        self.note(|| Step::Count(event));
    }

    fn jiffies(&self) -> u64 {
        self.host.jiffies
    }

    fn nanoseconds(&self) -> u64 {
        self.host.nanoseconds
    }

    fn cpu(&self) -> u32 {
        self.host.cpu
    }
}
