//! Keys of legs are renewed, and no packet is lost by it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::allocations::{EpochKey, NodeId};
use super::fleet::legs;
use super::{Allocations, Fleet};
use crate::kinds::Name;
use crate::state::{HostState, LegKey};

impl Allocations {
    /// Every leg is to get a new key, as soon as [`renew`](Self::renew) can give it one.
    pub const fn ask_for_keys(&mut self) {
        self.renewals += 1;
    }

    /// Whether a leg waits for a new key.
    #[must_use]
    pub fn wants_keys(&self) -> bool {
        self.legs.values().any(|leg| leg.renewal < self.renewals)
    }

    /// Gives new keys to the legs that wait for one, where nobody sends under an older key than the newest any more.
    /// What is compiled from now on has the new key under the next epoch (modulo 4), and the one before beside it;
    /// the one before that is worth nothing. [`next`](super::next()) brings the new key to the receiver first.
    /// Returns whether there was such a leg.
    ///
    /// A host that is away holds up its own legs: they keep their keys, however long.
    pub fn renew(
        &mut self,
        fleet: &Fleet,
        target: &BTreeMap<Name, HostState>,
        random: &mut dyn FnMut() -> [u8; 16],
    ) -> bool {
        let hosts: BTreeMap<NodeId, (&Name, Ipv4Addr)> = self
            .nodes
            .iter()
            .filter_map(|(name, id)| Some((*id, (name, target.get(name)?.node.public))))
            .collect();
        let in_use = KeysInUse::of(fleet);
        let mut renewed = false;
        for ((from, to), leg) in &mut self.legs {
            let (Some((sender, _)), Some((_, address))) = (hosts.get(from), hosts.get(to)) else {
                continue;
            };
            let newest = leg.keys.last().map(EpochKey::state);
            if leg.renewal == self.renewals || !in_use.only(sender, *address, newest.as_ref()) {
                continue;
            }
            let newest = newest.map_or(0, |newest| newest.epoch);
            leg.keys.drain(..leg.keys.len().saturating_sub(1));
            leg.keys.push(EpochKey::new(newest + 1, random()));
            leg.renewal = self.renewals;
            renewed = true;
        }
        renewed
    }
}

/// The keys under which hosts may be sending, by sender and receiver's address.
struct KeysInUse<'a> {
    known: BTreeSet<&'a Name>,
    keys: BTreeMap<(&'a Name, Ipv4Addr), Vec<&'a LegKey>>,
}

impl<'a> KeysInUse<'a> {
    fn of(fleet: &'a Fleet) -> Self {
        let known = fleet.hosts().filter(|(_, running)| running.surely(|_| true));
        let known: BTreeSet<&Name> = known.map(|(name, _)| name).collect();
        let mut keys: BTreeMap<(&Name, Ipv4Addr), Vec<&LegKey>> = BTreeMap::new();
        for (name, running) in fleet.hosts() {
            for leg in running.states().flat_map(legs) {
                let of_leg = keys.entry((name, leg.address)).or_default();
                of_leg.extend(leg.keys.last().filter(|key| !of_leg.contains(key)));
            }
        }
        Self { known, keys }
    }

    /// Whether a host surely sends to an address under this key alone, if at all.
    fn only(&self, sender: &Name, address: Ipv4Addr, key: Option<&LegKey>) -> bool {
        let mut used = self.keys.get(&(sender, address)).into_iter().flatten();
        self.known.contains(sender) && used.all(|used| Some(*used) == key)
    }
}
