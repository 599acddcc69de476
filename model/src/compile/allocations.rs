//! The numbers that were given away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Fleet;
use crate::kinds::{Class, Name, ObjectRef, Vni};
use crate::state::LegKey;

/// A node's number, from 1, never used twice.
pub(super) type NodeId = u16;

/// The numbers, labels and keys that the cluster has given away. The controller keeps them in its store, together
/// with the intent that they belong to. They hold the keys of all legs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocations {
    /// Nodes with an agent.
    pub(super) nodes: BTreeMap<Name, NodeId>,
    /// The highest number that a node ever had.
    pub(super) last_node: NodeId,
    /// What VPCs and accelerators were given.
    #[serde(with = "entries")]
    pub(super) networks: BTreeMap<ObjectRef, Vni>,
    /// By the numbers of sender and receiver.
    #[serde(with = "entries")]
    pub(super) legs: BTreeMap<(NodeId, NodeId), Leg>,
    #[serde(with = "entries")]
    pub(super) couples: BTreeMap<CoupleKey, Couple>,
    #[serde(with = "entries")]
    pub(super) twins: BTreeMap<PathKey, Twins>,
    /// The highest number that a path ever had, in the cluster.
    pub(super) last_path: u64,
    /// How often keys were to be renewed.
    #[serde(default)]
    pub(super) renewals: u64,
    /// Numbers that nothing needs any more, and the nodes that may be using them still.
    #[serde(with = "entries")]
    pub(super) resting: BTreeMap<Number, BTreeSet<NodeId>>,
}

/// A directed leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leg {
    /// Its UDP source port.
    pub(super) source_port: u16,
    /// The valid keys, newest last: at most two.
    pub(super) keys: Vec<EpochKey>,
    /// Of [`Allocations::renewals`], the one that made the newest key.
    #[serde(default)]
    pub(super) renewal: u64,
}

/// One epoch's key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EpochKey {
    pub(super) epoch: u8,
    /// As a number, so that it is stored as one.
    key: u128,
}

impl EpochKey {
    pub(super) const fn new(epoch: u8, key: [u8; 16]) -> Self {
        Self {
            epoch: epoch & 3,
            key: u128::from_be_bytes(key),
        }
    }

    pub(super) const fn state(&self) -> LegKey {
        LegKey {
            epoch: self.epoch,
            key: self.key.to_be_bytes(),
        }
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochKey {{ epoch: {}, key: (secret) }}", self.epoch)
    }
}

/// Two nodes between which a class of traffic goes: the pairs of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct CoupleKey {
    /// The lower number first.
    pub(super) ends: [NodeId; 2],
    pub(super) class: Class,
}

impl CoupleKey {
    pub(super) fn new(entry: NodeId, exit: NodeId, class: Class) -> Self {
        let ends = [entry.min(exit), entry.max(exit)];
        Self { ends, class }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Couple {
    /// At each end.
    pub(super) ends: [End; 2],
}

/// What one end of a couple holds, by numbers of that host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// The pair that begins here.
    pub(super) pair: u32,
    /// The window of the pair that ends here.
    pub(super) window: u32,
}

/// A path and its twin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct PathKey {
    /// The nodes that it passes, from the end with the lower number.
    pub(super) nodes: Vec<NodeId>,
    /// The couple's class; `None`: it is the leg of two nodes.
    pub(super) class: Option<Class>,
}

impl PathKey {
    /// The leg between two nodes.
    pub(super) fn leg(a: NodeId, b: NodeId) -> Self {
        Self {
            nodes: vec![a.min(b), a.max(b)],
            class: None,
        }
    }
}

/// What a path and its twin were given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Twins {
    /// From the end with the lower number.
    pub(super) there: Way,
    /// Back.
    pub(super) back: Way,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Way {
    /// Its number in the cluster.
    pub(super) id: u64,
    /// Its number on the host where it begins.
    pub(super) index: u32,
    /// The labels of the nodes after the first.
    pub(super) labels: Vec<u32>,
}

/// A number that rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Number {
    Vni(u32),
    Label(NodeId, u32),
    Path(NodeId, u32),
    Pair(NodeId, u32),
    Window(NodeId, u32),
}

impl Number {
    /// The node whose number it is; `None`: the cluster's.
    pub(super) const fn node(self) -> Option<NodeId> {
        match self {
            Self::Vni(_) => None,
            Self::Label(node, _) | Self::Path(node, _) | Self::Pair(node, _) | Self::Window(node, _) => {
                Some(node)
            }
        }
    }
}

impl Allocations {
    /// The number of a node with an agent: its address in the system VPC is 100.64.0.0 plus this.
    #[must_use]
    pub fn node(&self, name: &Name) -> Option<u16> {
        self.nodes.get(name).copied()
    }

    /// The VNI of a VPC, or the number of an accelerator or a service that listens itself.
    #[must_use]
    pub fn vni(&self, object: &ObjectRef) -> Option<u32> {
        self.networks.get(object).map(|vni| vni.get())
    }

    /// Whether numbers rest that some host may be using still.
    #[must_use]
    pub fn has_resting(&self) -> bool {
        !self.resting.is_empty()
    }

    /// Lets go of resting numbers that no host uses in any state that it may be running. A number waits for the
    /// hosts that could use it: one of which nothing is known keeps it, one that has left the cluster does not.
    /// To be called when hosts have acknowledged something; what it changes need not be stored at once.
    pub fn release(&mut self, fleet: &Fleet) {
        let names: BTreeMap<NodeId, &Name> = self.nodes.iter().map(|(name, id)| (*id, name)).collect();
        self.resting.retain(|number, waits| {
            waits.retain(|node| match names.get(node) {
                Some(name) => fleet.may_use(name, *number, &names),
                None => false,
            });
            !waits.is_empty()
        });
    }
}

/// Maps as lists of entries, since formats such as JSON take only texts as keys.
mod entries {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
