//! Intent to the state of each host.
//!
//! ```text
//! intent + choices --demand--> what is needed --allocate--> numbers, labels, keys --hosts--> a state per host
//!                                                                                     |
//!                    what each host may be running (Fleet) --------------------> next: what it gets now
//! ```
//!
//! [`compile`] says where the cluster should be; [`next`] says what each host can be given now so that no packet
//! ever meets a path that is only half there. Both are pure.
//!
//! Numbers stay: what was allocated once is kept in [`Allocations`] for as long as it is needed, and a number that
//! is no longer needed rests until no host can be using it any more ([`Allocations::release`]).

mod allocate;
mod allocations;
mod announced;
mod demand;
mod fleet;
mod hosts;
mod keys;
mod next;
mod services;
#[cfg(test)]
mod tests;
mod vpc;

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::{Class, HostIp, Name, ObjectRef, PortNumber, Vni};
use crate::manifest::Intent;
use crate::state::HostState;

pub use allocations::Allocations;
pub use announced::{Candidates, Holder, Holders, candidates};
pub use demand::{PairName, duplications, fallbacks, forbidden_relays, pairs};
pub use fleet::{Fleet, Running, unchanged};
pub use next::{Stage, next, stages};

/// In an exit's slot: no window, and no pair for answers. No data comes on such a path; windows and pairs have
/// numbers from 1.
pub const NO_PAIR: u32 = 0;

/// The paths that were chosen for a pair of nodes, for both directions: the way back passes the same nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The node where the path begins.
    pub entry: Name,
    /// The node where it ends.
    pub exit: Name,
    /// The class of traffic.
    pub class: Class,
    /// The relays of the path to use, from the entry on; empty for the direct one. `None`: no path lives.
    pub primary: Option<Vec<Name>>,
    /// The relays of the path to use when that is stale.
    pub backup: Option<Vec<Name>>,
    /// Whether each packet is sent over both.
    pub duplicate: bool,
}

/// What is compiled.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The cluster's id.
    pub cluster: &'a str,
    /// The revision that the states get.
    pub revision: u64,
    /// What is declared.
    pub intent: &'a Intent,
    /// The paths of the pairs. A pair without a choice takes the direct path.
    pub choices: &'a [Choice],
    /// Servers that are down, as those see them who send there.
    pub down: &'a Down,
    /// Who holds the addresses that one of several nodes may hold. One without a holder is the first node's.
    pub holders: &'a Holders,
}

/// Servers that are down, and the node from which they are.
pub type Down = BTreeSet<(Name, Server)>;

/// A server behind a service, by where packets for it go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// The service.
    pub service: Name,
    /// Its address.
    pub address: HostIp,
    /// Its port.
    pub port: PortNumber,
}

/// Compiles intent to the state that each host with an agent should have in the end, and brings the allocations up
/// to date.
///
/// - Every ordered pair of nodes with an agent has a leg: a path of length one, which is measured and carries no
///   data. A pair that goes direct has a path of its own over the same leg, since the slot where a path ends names
///   the one pair whose window its packets pass. Of paths over the same nodes, the leg's has the lowest id.
/// - Every two nodes that are entry and exit of a listener have a pair in each direction, with twin paths over the
///   chosen nodes. Of choices for the same nodes in opposite directions the first by (entry, exit) counts. A path
///   over a node that is gone is left out: the backup takes its place, else the direct path.
/// - A listener's exits are the nodes of its group's region. An entry that is one of them sends to the server
///   itself, and so does one none of whose exits has a living path.
/// - A listener is at each node that may carry its address: so a move takes nothing but another announcement, and what
///   still comes to the node before is served as well. An address at which nothing listens is not announced.
/// - A host knows the VPCs that it has ports of: their endpoints elsewhere, and the hosts that may send into them.
///
/// `random` is asked once for each new leg, and must return bits that nobody can guess.
///
/// The same input and allocations give the same states; a new node, pair or path changes no number of another.
///
/// # Errors
/// Where a number is not to be had; nothing is changed then.
pub fn compile(
    input: &Input<'_>,
    allocations: &mut Allocations,
    random: &mut dyn FnMut() -> [u8; 16],
) -> Result<BTreeMap<Name, HostState>, CompileError> {
    let mut next = allocations.clone();
    let demand = allocate::allocate(input, &mut next, random)?;
    let states = hosts::states(input, &next, &demand);
    *allocations = next;
    Ok(states)
}

/// Why intent cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A VPC wants a VNI that something else was given.
    #[error("{vpc}: spec.vni: VNI {vni} was given to {holder}; choose another, or leave it out")]
    VniTaken {
        /// The VPC.
        vpc: ObjectRef,
        /// The VNI.
        vni: Vni,
        /// The VPC, accelerator or service that has it.
        holder: ObjectRef,
    },
    /// All VNIs are given away.
    #[error(
        "{object}: all 16777214 VNIs are in use; delete a vpc, an accelerator or a service with a pool first"
    )]
    NoVni {
        /// The VPC, accelerator or service that needs one.
        object: ObjectRef,
    },
    /// All numbers of nodes were given away once.
    #[error("node/{node}: all 65535 numbers of nodes were used, and none is used twice; begin a new cluster")]
    NoNodeNumber {
        /// The node that needs one.
        node: Name,
    },
    /// A node's numbers of one sort are given away.
    #[error(
        "node/{node}: its maps hold {count} {sort}, and all are in use; take entries, regions or classes off the listeners \
         that it serves, or nodes out of the cluster"
    )]
    Full {
        /// The node.
        node: String,
        /// Labels, paths, pairs or windows.
        sort: &'static str,
        /// How many there are.
        count: u32,
    },
}
