//! `AddressPool`: public addresses and the nodes that carry them.

use serde::Serialize;

use super::common::words;
use super::network::HostAddress;
use super::{Name, Resource};
use crate::manifest::{Field, Place};

/// Public addresses. Each has one holder in the whole cluster.
pub type AddressPool = Resource<AddressPoolSpec>;

/// ```yaml
/// kind: AddressPool
/// metadata: {name: asia}
/// spec:
///   addresses:
///     - {node: osaka, public: 203.0.113.10}
///     - {node: hong-kong, public: 203.0.113.20, local: 10.1.0.20}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressPoolSpec {
    /// How packets for the addresses find their node. Default: routed.
    pub reach: Reach,
    /// The addresses, at least one.
    pub addresses: Vec<PoolAddress>,
}

impl Field for AddressPoolSpec {
    const EXPECTS: &'static str = "a mapping with addresses";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let reach = fields.or("reach", Reach::Routed);
            let addresses = fields.list("addresses", "at least one {node, public}");
            Some(Self {
                reach: reach?,
                addresses: addresses?,
            })
        })
    }
}

/// An address of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolAddress {
    /// The node that carries it.
    pub node: Name,
    /// The address that clients use, and that is shown.
    pub public: HostAddress,
    /// The address in packets as they reach the node; differs behind a 1:1 NAT, and may be the node's own.
    /// Default: `public`.
    pub local: HostAddress,
}

impl Field for PoolAddress {
    const EXPECTS: &'static str = "a mapping with node, public and, behind a NAT, local";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let node = fields.required("node");
            let public = fields.required("public");
            let local = fields.optional("local");
            let public = public?;
            Some(Self {
                node: node?,
                public,
                local: local?.unwrap_or(public),
            })
        })
    }
}

words! {
    /// How packets for a pool's addresses find their node.
    Reach {
        /// Somebody routes them there: the provider, or a 1:1 NAT.
        Routed = "routed"
    } not_yet ["arp", "bgp", "hook"]
}
