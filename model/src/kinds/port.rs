//! `Port`: where a VM, a container or a foreign host attaches to a VPC.

use serde::Serialize;

use super::network::{HostAddress, InterfaceName, Mac, Mtu};
use super::{Name, Resource, Vpc};
use crate::manifest::{Field, Place};

/// A VPC's attachment on a node.
pub type Port = Resource<PortSpec>;

/// ```yaml
/// kind: Port
/// metadata: {name: red-a}
/// spec: {vpc: red, node: osaka, address: 10.0.0.5, interface: veth-red-a}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortSpec {
    /// The VPC.
    pub vpc: Name,
    /// The node where it is.
    pub node: Name,
    /// Its address, inside the VPC's `cidr`.
    pub address: HostAddress,
    /// Its Ethernet address; on a foreign node it must be given. Default: [`PortSpec::mac`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The host's side of its veth or tap; needed where an agent runs, refused on a foreign node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceName>,
    /// The largest IP packet that it sends, in octets, at most the VPC's. Default: the VPC's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
}

impl PortSpec {
    /// Its Ethernet address: the one given, else `02:00` and the four octets of its address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac.unwrap_or(Mac::derived_from(self.address))
    }

    /// The largest IP packet that it sends, where that or its VPC's says so.
    #[must_use]
    pub fn mtu_in(&self, vpc: &Vpc) -> Option<Mtu> {
        self.mtu.or(vpc.spec.mtu)
    }
}

impl Field for PortSpec {
    const EXPECTS: &'static str = "a mapping with vpc, node, address and interface";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let vpc = fields.required("vpc");
            let node = fields.required("node");
            let address = fields.required("address");
            let mac = fields.optional("mac");
            let interface = fields.optional("interface");
            let mtu = fields.optional("mtu");
            Some(Self {
                vpc: vpc?,
                node: node?,
                address: address?,
                mac: mac?,
                interface: interface?,
                mtu: mtu?,
            })
        })
    }
}
