//! The VPC: ports, endpoints, VTEPs and the neighbours that lead to them.

use super::{Be32, IpKey, Mac, MacPair, NextHop, map_types};

map_types! {
    /// A port of this host, found by its host-side interface.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Port {
        /// The one address that it may use.
        pub address: IpKey,
        /// Its VPC.
        pub vni: u32,
        /// The one Ethernet address that it may use.
        pub mac: Mac,
        /// Octets in the largest IP packet that it may send to another host.
        pub mtu: u16,
        /// Zero.
        pub spare: u32,
    }

    /// Names an endpoint: an address of a VPC, or a service's address at one of the ports that serve it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct EndpointKey {
        /// The address inside the VPC.
        pub address: IpKey,
        /// The VPC.
        pub vni: u32,
        /// 0: the address is the VPC's; 1: a service's, see [`served`](Self::served).
        kind: u32,
    }

    /// Where an address of a VPC is.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Endpoint {
        /// How it is reached.
        pub hop: NextHop,
        /// Its Ethernet address.
        pub mac: Mac,
        /// Zero.
        pub spare: u16,
    }

    /// Names a host that may send into a VPC.
    #[repr(align(8))]
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct VtepKey {
        /// The VPC.
        pub vni: u32,
        /// The host's address on the underlay, as its packets arrive with it.
        pub address: Be32,
    }

    /// Another host of a VPC.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Vtep {
        /// Its address on the underlay.
        pub address: Be32,
        /// The neighbour that leads there.
        pub neighbour: u32,
    }

    /// A gateway or next hop on a link, kept fresh by the agent. Number 0 stays unknown.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Neighbour {
        /// Its Ethernet address and that of our interface; all zero while it is not known.
        pub macs: MacPair,
        /// Our interface to it.
        pub interface: u32,
    }
}

impl Endpoint {
    /// What is reached so, and has this Ethernet address.
    #[must_use]
    pub const fn new(hop: NextHop, mac: Mac) -> Self {
        Self { hop, mac, spare: 0 }
    }
}

impl EndpointKey {
    /// Of an address in a VPC.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, address: IpKey) -> Self {
        Self {
            address,
            vni,
            kind: 0,
        }
    }

    /// A service's IPv4 address, in host order, at the port with this Ethernet address, which serves it (several ports
    /// of a VPC have the same one): one of the service's ports there, by its protocol. 0 and 0 stand for the address.
    #[inline(always)]
    #[must_use]
    pub const fn served(vni: u32, address: u32, mac: Mac, (protocol, port): (u8, u16)) -> Self {
        let mac = (mac.high() as u64) << 16 | mac.low() as u64;
        Self {
            address: IpKey::from_halves([mac << 16 | port as u64, (protocol as u64) << 32 | address as u64]),
            vni,
            kind: 1,
        }
    }
}
