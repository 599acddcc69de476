//! `Vpc`: a private network.

use serde::Serialize;

use super::common::Invalid;
use super::network::{Cidr, HostAddress, Mtu, Vni, not_for_hosts};
use super::{Name, Resource};
use crate::manifest::{Field, Place};

/// A private network across hosts. Two of them may have the same addresses.
pub type Vpc = Resource<VpcSpec>;

/// ```yaml
/// kind: Vpc
/// metadata: {name: red}
/// spec: {cidr: 10.0.0.0/16}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VpcSpec {
    /// Whose network it is, as a label. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Name>,
    /// The addresses inside, /8 to /30.
    pub cidr: Cidr,
    /// Its VXLAN network identifier; one with ports on foreign nodes needs a known one. Default: allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// The largest IP packet inside, in octets. Default: what the hosts' underlay leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
}

impl VpcSpec {
    /// The first and the last address that a port may have: all of the prefix without the network's own and the
    /// broadcast address.
    #[must_use]
    pub fn port_addresses(&self) -> (std::net::Ipv4Addr, std::net::Ipv4Addr) {
        let prefix = self.cidr.get();
        let (network, broadcast) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
        ((network + 1).into(), (broadcast - 1).into())
    }

    /// May a port have this address?
    #[must_use]
    pub fn has_port_address(&self, address: HostAddress) -> bool {
        let (first, last) = self.port_addresses();
        (first..=last).contains(&address.get())
    }
}

impl Field for VpcSpec {
    const EXPECTS: &'static str = "a mapping with a cidr";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let tenant = fields.optional("tenant");
            let cidr = fields.required("cidr");
            let vni = fields.optional("vni");
            let mtu = fields.optional("mtu");
            let cidr = cidr?;
            if let Some(why) = unfit(cidr) {
                fields.refuse("cidr", Invalid::new(&cidr.to_string(), why));
                return None;
            }
            Some(Self {
                tenant: tenant?,
                cidr,
                vni: vni?,
                mtu: mtu?,
            })
        })
    }
}

/// Why a VPC cannot have this prefix.
fn unfit(cidr: Cidr) -> Option<String> {
    let prefix = cidr.get();
    if !(8..=30).contains(&prefix.prefix()) {
        return Some("is not between a /8 and a /30".to_owned());
    }
    let kind = not_for_hosts(prefix.network()).or_else(|| not_for_hosts(prefix.broadcast()))?;
    Some(format!(
        "holds {kind} addresses; choose private ones, for example 10.0.0.0/16"
    ))
}
