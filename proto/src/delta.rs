//! What changes one revision of a host's state into another.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use kuafu_model::HostState;
use kuafu_model::state::{
    Announcement, Host, PairState, PathState, PortState, PrefixListState, RemoteEndpoint, ServiceState,
    SlotState, VtepState,
};

use crate::state::{Read, StateError, address, all, ip, protocol};
use crate::v1;

/// An entry of a state's section, with the key by which a delta replaces or removes it.
pub trait Entry: Clone + PartialEq {
    /// Unique in the section.
    type Key: Ord + Clone + std::fmt::Debug + PartialEq;

    /// The entry's key.
    fn key(&self) -> Self::Key;
}

/// A VNI and an address.
pub type EndpointKey = (u32, Ipv4Addr);

/// Whether at the exit, and there whose number; accelerated address, protocol, the first port. In what is removed, an exit's
/// without a number means everybody's: controllers of before say none.
pub type ServiceKey = (bool, Option<u32>, IpAddr, u8, u16);

macro_rules! entries {
    ($( $entry:ty => $key:ty: |$it:ident| $expression:expr; )+) => {
        $( impl Entry for $entry {
            type Key = $key;

            fn key(&self) -> $key {
                let $it = self;
                $expression
            }
        } )+
    };
}

entries! {
    PortState => String: |it| it.name.clone();
    RemoteEndpoint => EndpointKey: |it| (it.vni, it.address);
    VtepState => EndpointKey: |it| (it.vni, it.address);
    SlotState => u32: |it| it.label;
    PathState => u32: |it| it.index;
    PairState => u32: |it| it.index;
    ServiceState => ServiceKey: |it| (
        it.at_exit, it.at_exit.then_some(it.vni), it.local, it.protocol, it.ports.first().get()
    );
    PrefixListState => String: |it| it.name.clone();
    Announcement => IpAddr: |it| it.local;
}

/// The changes of one section.
#[derive(Clone, Debug, PartialEq)]
pub struct Section<T: Entry> {
    /// New entries, and those that replace one of the same key.
    pub changed: Vec<T>,
    /// Keys of entries that are gone.
    pub removed: Vec<T::Key>,
}

impl<T: Entry> Section<T> {
    fn between(old: &[T], new: &[T]) -> Self {
        let mut old = by_key(old);
        let mut changed = Vec::new();
        for (key, entry) in by_key(new) {
            if old.remove(&key) != Some(entry) {
                changed.push(entry.clone());
            }
        }
        let removed = old.into_keys().collect();
        Self { changed, removed }
    }

    fn apply(&self, old: &[T]) -> Vec<T> {
        let mut entries = by_key(old);
        for key in &self.removed {
            entries.remove(key);
        }
        entries.extend(self.changed.iter().map(|entry| (entry.key(), entry)));
        entries.into_values().cloned().collect()
    }

    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

fn by_key<T: Entry>(entries: &[T]) -> BTreeMap<T::Key, &T> {
    entries.iter().map(|entry| (entry.key(), entry)).collect()
}

/// What changes one revision of a host's state into another, of the same cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The revision that it changes.
    pub from: u64,
    /// The revision that results.
    pub to: u64,
    /// The host itself, where that changed.
    pub node: Option<Host>,
    /// Its ports.
    pub ports: Section<PortState>,
    /// Endpoints on other hosts.
    pub endpoints: Section<RemoteEndpoint>,
    /// Hosts that may send into a VPC.
    pub vteps: Section<VtepState>,
    /// Labels.
    pub slots: Section<SlotState>,
    /// Paths.
    pub paths: Section<PathState>,
    /// Pairs.
    pub pairs: Section<PairState>,
    /// Listeners.
    pub services: Section<ServiceState>,
    /// Lists that shields name.
    pub prefix_lists: Section<PrefixListState>,
    /// Addresses that the host announces.
    pub announcements: Section<Announcement>,
}

/// A delta does not fit the state that it is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the delta changes revision {from}, and revision {have} is in force")]
pub struct WrongRevision {
    /// What the delta changes.
    pub from: u64,
    /// What is in force.
    pub have: u64,
}

impl Delta {
    /// The changes from `old` to `new`, both of one cluster.
    #[must_use]
    pub fn between(old: &HostState, new: &HostState) -> Self {
        Self {
            from: old.revision,
            to: new.revision,
            node: (old.node != new.node).then(|| new.node.clone()),
            ports: Section::between(&old.ports, &new.ports),
            endpoints: Section::between(&old.endpoints, &new.endpoints),
            vteps: Section::between(&old.vteps, &new.vteps),
            slots: Section::between(&old.slots, &new.slots),
            paths: Section::between(&old.paths, &new.paths),
            pairs: Section::between(&old.pairs, &new.pairs),
            services: Section::between(&old.services, &new.services),
            prefix_lists: Section::between(&old.prefix_lists, &new.prefix_lists),
            announcements: Section::between(&old.announcements, &new.announcements),
        }
    }

    /// The state that results; the entries of each section are ordered by key.
    ///
    /// # Errors
    /// When `old` is of another revision than the delta changes.
    pub fn apply(&self, old: &HostState) -> Result<HostState, WrongRevision> {
        if old.revision != self.from {
            let (from, have) = (self.from, old.revision);
            return Err(WrongRevision { from, have });
        }
        Ok(HostState {
            cluster: old.cluster.clone(),
            revision: self.to,
            node: self.node.clone().unwrap_or_else(|| old.node.clone()),
            ports: self.ports.apply(&old.ports),
            endpoints: self.endpoints.apply(&old.endpoints),
            vteps: self.vteps.apply(&old.vteps),
            slots: self.slots.apply(&old.slots),
            paths: self.paths.apply(&old.paths),
            pairs: self.pairs.apply(&old.pairs),
            services: self.services.apply(&self.without_everybodys(&old.services)),
            prefix_lists: self.prefix_lists.apply(&old.prefix_lists),
            announcements: self.announcements.apply(&old.announcements),
        })
    }

    /// Listeners, but for those that are removed whosoever they are.
    fn without_everybodys(&self, services: &[ServiceState]) -> Vec<ServiceState> {
        let removed: HashSet<&ServiceKey> = self.services.removed.iter().collect();
        let is_kept = |service: &&ServiceState| {
            let (at_exit, _, local, protocol, port) = service.key();
            !removed.contains(&(at_exit, None, local, protocol, port))
        };
        services.iter().filter(is_kept).cloned().collect()
    }

    /// Does it change nothing but the revision?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.node.is_none()
            && self.ports.is_empty()
            && self.endpoints.is_empty()
            && self.vteps.is_empty()
            && self.slots.is_empty()
            && self.paths.is_empty()
            && self.pairs.is_empty()
            && self.services.is_empty()
            && self.prefix_lists.is_empty()
            && self.announcements.is_empty()
    }
}

impl From<&Delta> for v1::StateDelta {
    fn from(delta: &Delta) -> Self {
        let endpoint_key = |&(vni, address): &EndpointKey| v1::EndpointKey {
            vni,
            address: address.to_string(),
        };
        Self {
            from_revision: delta.from,
            to_revision: delta.to,
            node: delta.node.as_ref().map(Into::into),
            changed: Some(v1::state_delta::Entries {
                ports: messages(&delta.ports),
                endpoints: messages(&delta.endpoints),
                vteps: messages(&delta.vteps),
                slots: messages(&delta.slots),
                paths: messages(&delta.paths),
                pairs: messages(&delta.pairs),
                services: messages(&delta.services),
                prefix_lists: messages(&delta.prefix_lists),
                announcements: messages(&delta.announcements),
            }),
            removed: Some(v1::state_delta::Removals {
                ports: delta.ports.removed.clone(),
                endpoints: delta.endpoints.removed.iter().map(endpoint_key).collect(),
                vteps: delta.vteps.removed.iter().map(endpoint_key).collect(),
                slots: delta.slots.removed.clone(),
                paths: delta.paths.removed.clone(),
                pairs: delta.pairs.removed.clone(),
                services: delta.services.removed.iter().map(service_key).collect(),
                prefix_lists: delta.prefix_lists.removed.clone(),
                announcements: delta
                    .announcements
                    .removed
                    .iter()
                    .map(IpAddr::to_string)
                    .collect(),
            }),
        }
    }
}

fn messages<T: Entry, M: for<'a> From<&'a T>>(section: &Section<T>) -> Vec<M> {
    section.changed.iter().map(M::from).collect()
}

fn service_key(&(at_exit, vni, local, protocol, port): &ServiceKey) -> v1::ServiceKey {
    v1::ServiceKey {
        at_exit,
        vni,
        local: local.to_string(),
        protocol: protocol.into(),
        port: port.into(),
    }
}

impl TryFrom<v1::StateDelta> for Delta {
    type Error = StateError;

    fn try_from(message: v1::StateDelta) -> Result<Self, StateError> {
        let changed = message.changed.unwrap_or_default();
        let removed = message.removed.unwrap_or_default();
        let services: Result<_, _> = removed.services.into_iter().map(read_service_key).collect();
        let announcements = removed.announcements.iter();
        let announcements = announcements.map(|local| ip("removed.announcements", local));
        let announcements: Result<_, _> = announcements.collect();
        Ok(Self {
            from: message.from_revision,
            to: message.to_revision,
            node: message.node.map(Host::read).transpose()?,
            ports: section("ports", changed.ports, removed.ports)?,
            endpoints: section("endpoints", changed.endpoints, keys(removed.endpoints)?)?,
            vteps: section("vteps", changed.vteps, keys(removed.vteps)?)?,
            slots: section("slots", changed.slots, removed.slots)?,
            paths: section("paths", changed.paths, removed.paths)?,
            pairs: section("pairs", changed.pairs, removed.pairs)?,
            services: section("services", changed.services, services?)?,
            prefix_lists: section("prefix_lists", changed.prefix_lists, removed.prefix_lists)?,
            announcements: section("announcements", changed.announcements, announcements?)?,
        })
    }
}

fn section<T: Entry + Read>(
    field: &str,
    changed: Vec<T::Message>,
    removed: Vec<T::Key>,
) -> Result<Section<T>, StateError> {
    Ok(Section {
        changed: all(&format!("changed.{field}"), changed)?,
        removed,
    })
}

fn keys(keys: Vec<v1::EndpointKey>) -> Result<Vec<EndpointKey>, StateError> {
    let keys = keys.into_iter();
    keys.map(|key| Ok((key.vni, address("removed.address", &key.address)?)))
        .collect()
}

fn read_service_key(key: v1::ServiceKey) -> Result<ServiceKey, StateError> {
    let local = ip("removed.local", &key.local)?;
    let port = u16::try_from(key.port).map_err(|_| StateError::Field {
        field: "removed.port".to_owned(),
        value: key.port.to_string(),
        expected: "0 to 65,535",
    })?;
    let vni = key.vni.filter(|_| key.at_exit);
    Ok((key.at_exit, vni, local, protocol(key.protocol)?, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::sample;

    #[test]
    fn a_delta_gives_the_new_state() {
        let old = sample();
        let mut new = old.clone();
        new.revision = 8;
        new.node.udp_port = 7000;
        new.ports[0].mtu = None;
        new.slots.remove(0);
        new.services.clear();
        new.prefix_lists.clear();
        new.announcements.remove(0);
        new.announcements[0].here = true;
        new.vteps.push(VtepState {
            vni: 2,
            address: Ipv4Addr::new(203, 0, 113, 77),
        });
        let delta = Delta::between(&old, &new);
        let wire = v1::StateDelta::from(&delta);
        let read = Delta::try_from(wire).expect("a delta that we wrote");
        assert_eq!(read, delta);
        assert_eq!(read.apply(&old), Ok(new));
    }

    /// Entries of two accelerators, behind different NATs, may have one local address, and one exit.
    #[test]
    fn listeners_of_two_accelerators_at_an_exit_stay_two() {
        let mut old = sample();
        let mut one = old.services[0].clone();
        (one.vni, one.at_exit) = (1 << 20, true);
        let mut other = one.clone();
        other.vni += 1;
        old.services = vec![one.clone(), other.clone()];
        let through = |new: &HostState| {
            let delta = Delta::between(&old, new);
            let read = Delta::try_from(v1::StateDelta::from(&delta)).expect("a delta that we wrote");
            assert_eq!(read, delta);
            read.apply(&old)
        };
        let mut new = HostState {
            revision: 8,
            ..old.clone()
        };
        assert_eq!(through(&new), Ok(new.clone()));
        new.services[0].idle_timeout_s += 1;
        assert_eq!(through(&new), Ok(new.clone()));
        new.services = vec![other];
        assert_eq!(through(&new), Ok(new.clone()));
        // As controllers of before have said it.
        new.services.clear();
        let mut wire = v1::StateDelta::from(&Delta::between(&old, &new));
        for key in &mut wire.removed.as_mut().unwrap().services {
            assert!(key.vni.take().is_some());
        }
        let read = Delta::try_from(wire).expect("a delta without numbers");
        assert_eq!(read.apply(&old), Ok(new));
    }

    /// One that follows another one at an entry is entered in its place, by whichever version.
    #[test]
    fn a_listener_of_an_entry_is_nobodys_in_particular() {
        let old = sample();
        let mut new = HostState {
            revision: 8,
            ..old.clone()
        };
        new.services[0].vni += 1;
        assert!(!new.services[0].at_exit);
        let delta = Delta::between(&old, &new);
        assert_eq!(delta.services.removed, []);
        assert_eq!(delta.apply(&old), Ok(new));
    }

    #[test]
    fn a_delta_of_nothing_is_empty_and_fits_one_revision() {
        let old = sample();
        let mut new = old.clone();
        new.revision = 9;
        let delta = Delta::between(&old, &new);
        assert!(delta.is_empty());
        assert_eq!(delta.apply(&new), Err(WrongRevision { from: 7, have: 9 }));
    }
}
