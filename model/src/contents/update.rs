//! From one contents to the next, in an order that shows no half state.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;

use kuafu_pipeline::map::{
    Endpoint, EndpointKey, Leg, Limit, MemberKey, NO_PATH, NextHop, NodeConfig, Pair, Path, Port,
    QuicServerKey, Service, ServiceKey, Shield, Slot, SlotKind, Vtep, VtepKey,
};

use super::Contents;

/// What must change in the maps. [`batches`](Self::batches) says in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    node: Option<NodeConfig>,
    neighbours: Changes<u32, IpAddr>,
    vteps: Changes<u32, Vtep>,
    windows: Vec<u32>,
    own_windows: Vec<u32>,
    slot_states: Vec<u32>,
    path_states: Vec<u32>,
    paths: Changes<u32, Path>,
    slots: Changes<u32, Slot>,
    pairs: Changes<u32, Pair>,
    targets: Changes<u32, NextHop>,
    rings: Vec<(u32, Vec<u32>)>,
    members: Changes<MemberKey, u32>,
    quic_targets: Changes<QuicServerKey, u32>,
    limits: Changes<u32, Limit>,
    shield_states: Vec<u32>,
    shields: Changes<u32, Shield>,
    list_areas: Changes<u32, u32>,
    listed: Changes<u64, u32>,
    list_marks: Changes<u32, u64>,
    services: Changes<ServiceKey, Service>,
    ports: Changes<u32, Port>,
    endpoints: Changes<EndpointKey, Endpoint>,
    senders: Changes<VtepKey, u32>,
}

/// Changes of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Changes<K, V> {
    set: Vec<(K, V)>,
    gone: Vec<K>,
}

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self {
            set: Vec::new(),
            gone: Vec::new(),
        }
    }
}

/// Writes to one map, to be done together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch<'u> {
    /// Find the way to these hosts and keep it in their neighbours' entries, from now on. Wait for none.
    Neighbours(&'u [(u32, IpAddr)]),
    /// Keep these no longer; write empty entries.
    ForgetNeighbours(&'u [u32]),
    /// Begin these replay windows anew: write zeros.
    FreshWindows(&'u [u32]),
    /// Begin these windows of single paths anew: write zeros.
    FreshOwnWindows(&'u [u32]),
    /// Begin what packets change in these slots anew: write zeros.
    FreshSlotStates(&'u [u32]),
    /// Begin what packets change in these paths anew: write zeros.
    FreshPathStates(&'u [u32]),
    /// Write these VTEPs.
    Vteps(&'u [(u32, Vtep)]),
    /// Write empty entries.
    NoVteps(&'u [u32]),
    /// Write these paths.
    Paths(&'u [(u32, Path)]),
    /// Write empty entries.
    NoPaths(&'u [u32]),
    /// Write these slots.
    Slots(&'u [(u32, Slot)]),
    /// Write empty entries.
    NoSlots(&'u [u32]),
    /// Write these pairs.
    Pairs(&'u [(u32, Pair)]),
    /// Write [`NO_PAIR`].
    NoPairs(&'u [u32]),
    /// Write these targets.
    Targets(&'u [(u32, NextHop)]),
    /// Write empty entries.
    NoTargets(&'u [u32]),
    /// Write these slots of rings, from the number in front on.
    Rings(&'u [(u32, Vec<u32>)]),
    /// Enter or replace what these targets take.
    Members(&'u [(MemberKey, u32)]),
    /// Delete these.
    NoMembers(&'u [MemberKey]),
    /// Enter or replace these servers of connection ids.
    QuicTargets(&'u [(QuicServerKey, u32)]),
    /// Delete these.
    NoQuicTargets(&'u [QuicServerKey]),
    /// Write these limits.
    Limits(&'u [(u32, Limit)]),
    /// Write empty entries.
    NoLimits(&'u [u32]),
    /// Begin what packets change in these shields anew: write zeros.
    FreshShieldStates(&'u [u32]),
    /// Write these shields.
    Shields(&'u [(u32, Shield)]),
    /// Write empty entries.
    NoShields(&'u [u32]),
    /// Write these networks of lists.
    ListAreas(&'u [(u32, u32)]),
    /// Write empty entries.
    NoListAreas(&'u [u32]),
    /// Enter or replace these prefixes of lists.
    Listed(&'u [(u64, u32)]),
    /// Delete these.
    NoListed(&'u [u64]),
    /// Write where lists have longer prefixes.
    ListMarks(&'u [(u32, u64)]),
    /// Write empty entries.
    NoListMarks(&'u [u32]),
    /// Enter or replace these listeners.
    Services(&'u [(ServiceKey, Service)]),
    /// Delete these.
    NoServices(&'u [ServiceKey]),
    /// Enter or replace these ports.
    Ports(&'u [(u32, Port)]),
    /// Delete these.
    NoPorts(&'u [u32]),
    /// Enter or replace these endpoints.
    Endpoints(&'u [(EndpointKey, Endpoint)]),
    /// Delete these.
    NoEndpoints(&'u [EndpointKey]),
    /// Enter these.
    Senders(&'u [(VtepKey, u32)]),
    /// Delete these.
    NoSenders(&'u [VtepKey]),
    /// Write the host itself.
    Node(&'u NodeConfig),
}

/// What stands for a pair that is not there.
pub const NO_PAIR: Pair = Pair {
    primary: NO_PATH,
    backup: NO_PATH,
    premium: 0,
    duplicate: 0,
};

impl Contents {
    /// What leads from `before` to these contents.
    #[must_use]
    pub fn update_from(&self, before: &Self) -> Update {
        Update {
            node: (self.node != before.node).then_some(self.node),
            neighbours: ordered(&before.neighbours, &self.neighbours),
            vteps: ordered(&before.vteps, &self.vteps),
            windows: self.windows.difference(&before.windows).copied().collect(),
            own_windows: renewed(&before.own_windows, &self.own_windows, |old, new| old == new),
            slot_states: renewed(&before.slots, &self.slots, |old, new| {
                (old.kind(), old.source) == (new.kind(), new.source)
            }),
            path_states: renewed(&before.paths, &self.paths, |_, _| true),
            paths: keys_first(&before.paths, ordered(&before.paths, &self.paths), |path| {
                Some(&mut path.leg)
            }),
            slots: keys_first(&before.slots, ordered(&before.slots, &self.slots), |slot| {
                (slot.kind() == SlotKind::Relay).then_some(&mut slot.next)
            }),
            pairs: ordered(&before.pairs, &self.pairs),
            targets: ordered(&before.targets, &self.targets),
            rings: ordered(&before.rings, &self.rings).set,
            members: hashed(&before.members, &self.members),
            quic_targets: hashed(&before.quic_targets, &self.quic_targets),
            limits: ordered(&before.limits, &self.limits),
            shield_states: renewed(&before.shields, &self.shields, |old, new| old.vni == new.vni),
            shields: ordered(&before.shields, &self.shields),
            list_areas: ordered(&before.list_areas, &self.list_areas),
            listed: hashed(&before.listed, &self.listed),
            list_marks: ordered(&before.list_marks, &self.list_marks),
            services: hashed(&before.services, &self.services),
            ports: ordered(&before.ports, &self.ports),
            endpoints: hashed(&before.endpoints, &self.endpoints),
            senders: hashed(&before.senders, &self.senders),
        }
    }
}

impl Update {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches().next().is_none()
    }

    /// The writes in their order; empty ones are left out.
    ///
    /// First what nothing names yet, then what names it, then, with every reference gone, what is not used any more.
    /// Members, servers that QUIC's ids name, and prefixes of lists go before the services that lost them: a flow asks for
    /// them when it sees that its service has changed.
    /// The host itself comes last of what is written: without its entry the programs pass everything.
    pub fn batches(&self) -> impl Iterator<Item = Batch<'_>> {
        self.additions()
            .into_iter()
            .chain(self.node.iter().map(Batch::Node))
            .chain(self.removals())
            .filter(|batch| !batch.is_empty())
    }

    fn additions(&self) -> [Batch<'_>; 28] {
        [
            Batch::Neighbours(&self.neighbours.set),
            Batch::FreshWindows(&self.windows),
            Batch::FreshOwnWindows(&self.own_windows),
            Batch::FreshSlotStates(&self.slot_states),
            Batch::FreshPathStates(&self.path_states),
            Batch::Vteps(&self.vteps.set),
            Batch::Paths(&self.paths.set),
            Batch::Slots(&self.slots.set),
            Batch::Pairs(&self.pairs.set),
            Batch::Targets(&self.targets.set),
            Batch::Rings(&self.rings),
            Batch::Members(&self.members.set),
            Batch::NoMembers(&self.members.gone),
            Batch::QuicTargets(&self.quic_targets.set),
            Batch::NoQuicTargets(&self.quic_targets.gone),
            Batch::Limits(&self.limits.set),
            Batch::Listed(&self.listed.set),
            Batch::ListAreas(&self.list_areas.set),
            Batch::ListMarks(&self.list_marks.set),
            Batch::FreshShieldStates(&self.shield_states),
            Batch::Shields(&self.shields.set),
            Batch::NoListMarks(&self.list_marks.gone),
            Batch::NoListAreas(&self.list_areas.gone),
            Batch::NoListed(&self.listed.gone),
            Batch::Services(&self.services.set),
            Batch::Ports(&self.ports.set),
            Batch::Endpoints(&self.endpoints.set),
            Batch::Senders(&self.senders.set),
        ]
    }

    fn removals(&self) -> [Batch<'_>; 12] {
        [
            Batch::NoSenders(&self.senders.gone),
            Batch::NoEndpoints(&self.endpoints.gone),
            Batch::NoPorts(&self.ports.gone),
            Batch::NoServices(&self.services.gone),
            Batch::NoLimits(&self.limits.gone),
            Batch::NoShields(&self.shields.gone),
            Batch::NoTargets(&self.targets.gone),
            Batch::NoSlots(&self.slots.gone),
            Batch::NoPairs(&self.pairs.gone),
            Batch::NoPaths(&self.paths.gone),
            Batch::NoVteps(&self.vteps.gone),
            Batch::ForgetNeighbours(&self.neighbours.gone),
        ]
    }
}

impl Batch<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Node(_) => false,
            Self::QuicTargets(entries) => entries.is_empty(),
            Self::NoQuicTargets(keys) => keys.is_empty(),
            Self::Neighbours(entries) => entries.is_empty(),
            Self::Vteps(entries) => entries.is_empty(),
            Self::Paths(entries) => entries.is_empty(),
            Self::Slots(entries) => entries.is_empty(),
            Self::Pairs(entries) => entries.is_empty(),
            Self::Targets(entries) => entries.is_empty(),
            Self::Rings(entries) => entries.is_empty(),
            Self::Members(entries) => entries.is_empty(),
            Self::Limits(entries) => entries.is_empty(),
            Self::Services(entries) => entries.is_empty(),
            Self::Ports(entries) => entries.is_empty(),
            Self::Endpoints(entries) => entries.is_empty(),
            Self::Senders(entries) => entries.is_empty(),
            Self::Shields(entries) => entries.is_empty(),
            Self::ListAreas(entries) => entries.is_empty(),
            Self::Listed(entries) => entries.is_empty(),
            Self::ListMarks(entries) => entries.is_empty(),
            Self::NoListed(keys) => keys.is_empty(),
            Self::NoServices(keys) => keys.is_empty(),
            Self::NoMembers(keys) => keys.is_empty(),
            Self::NoEndpoints(keys) => keys.is_empty(),
            Self::NoSenders(keys) => keys.is_empty(),
            Self::FreshWindows(numbers)
            | Self::FreshOwnWindows(numbers)
            | Self::FreshSlotStates(numbers)
            | Self::FreshPathStates(numbers)
            | Self::FreshShieldStates(numbers)
            | Self::NoPorts(numbers)
            | Self::NoVteps(numbers)
            | Self::NoPaths(numbers)
            | Self::NoSlots(numbers)
            | Self::NoPairs(numbers)
            | Self::NoTargets(numbers)
            | Self::NoLimits(numbers)
            | Self::NoShields(numbers)
            | Self::NoListAreas(numbers)
            | Self::NoListMarks(numbers)
            | Self::ForgetNeighbours(numbers) => numbers.is_empty(),
        }
    }
}

fn ordered<K: Copy + Ord, V: Clone + PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> Changes<K, V> {
    Changes {
        set: after
            .iter()
            .filter(|(key, value)| before.get(key) != Some(value))
            .map(|(key, value)| (*key, value.clone()))
            .collect(),
        gone: before
            .keys()
            .filter(|key| !after.contains_key(key))
            .copied()
            .collect(),
    }
}

/// A leg's new key is written before its new epoch: a packet never meets the one without the other.
fn keys_first<V: Clone>(
    before: &BTreeMap<u32, V>,
    mut changes: Changes<u32, V>,
    leg: impl Fn(&mut V) -> Option<&mut Leg>,
) -> Changes<u32, V> {
    let under_old_epoch = |(number, new): &(u32, V)| {
        let (mut old, mut new) = (before.get(number)?.clone(), new.clone());
        let (old_leg, new_leg) = (leg(&mut old)?, leg(&mut new)?);
        let epoch = old_leg.epoch;
        let moves_on = epoch != new_leg.epoch && old_leg.key(epoch) == new_leg.key(epoch);
        new_leg.epoch = epoch;
        moves_on.then_some((*number, new))
    };
    let first: Vec<(u32, V)> = changes.set.iter().filter_map(under_old_epoch).collect();
    changes.set.splice(0..0, first);
    changes
}

fn hashed<K: Copy + Eq + Hash, V: Copy + PartialEq>(
    before: &HashMap<K, V>,
    after: &HashMap<K, V>,
) -> Changes<K, V> {
    Changes {
        set: after
            .iter()
            .filter(|(key, value)| before.get(key) != Some(value))
            .map(|(key, value)| (*key, *value))
            .collect(),
        gone: before
            .keys()
            .filter(|key| !after.contains_key(key))
            .copied()
            .collect(),
    }
}

/// Entries that are new, or no longer the same thing.
fn renewed<V>(
    before: &BTreeMap<u32, V>,
    after: &BTreeMap<u32, V>,
    same: impl Fn(&V, &V) -> bool,
) -> Vec<u32> {
    after
        .iter()
        .filter(|(number, value)| before.get(number).is_none_or(|old| !same(old, value)))
        .map(|(number, _)| *number)
        .collect()
}
