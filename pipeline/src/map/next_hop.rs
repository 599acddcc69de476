//! The one thing that every look-up ends in.

use super::{Be16, IpKey, Mac, map_types};
use crate::frame::{self, Shim};
use crate::header::vxlan;

map_types! {
    /// Where a packet goes next: what a service's ring, an endpoint and (later) a route hold.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct NextHop {
        /// The server's address; of one behind VXLAN, what [`tunnel`](Self::tunnel) says.
        pub address: IpKey,
        /// Interface, VTEP or pair; of a server that is reached by encapsulation the neighbour that leads there.
        pub index: u32,
        /// A [`HopKind`] as a number; any other number is `Nowhere`.
        kind: u16,
        /// The server's port; 0 keeps the packet's. Of GUE and VXLAN, the outer destination port.
        pub port: Be16,
    }
}

/// What kind of next hop it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopKind {
    /// None: an entry that was never written.
    Nowhere,
    /// A port of this host, by its host-side interface.
    Port,
    /// Another host, by its index in the table of VTEPs.
    Vtep,
    /// A plain server, to which the packet is rewritten.
    Server,
    /// A path over the backbone, by its pair.
    Path,
    /// A server that answers its clients itself, through this encapsulation.
    Direct(Wrap),
}

/// What is put around a packet for a server that answers its clients itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// An IP header of its own family (RFC 2003, RFC 2473).
    Ipip,
    /// IP, UDP and GUE's header.
    Gue0,
    /// IP and UDP.
    Gue1,
    /// IPv4, UDP, VXLAN and Ethernet: the server is a port of a VPC.
    Vxlan,
}

/// Where a server behind VXLAN is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its host's address on the underlay, in host order.
    pub host: u32,
    /// Its VPC.
    pub vni: u32,
    /// Its Ethernet address.
    pub mac: Mac,
}

/// The kind of [`Wrap::Vxlan`].
const VXLAN: u16 = 8;

impl Wrap {
    /// Octets that it adds.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> u32 {
        match self {
            Self::Ipip => frame::Ipip::LEN,
            Self::Gue0 => frame::Gue0::LEN,
            Self::Gue1 => frame::Gue1::LEN,
            Self::Vxlan => frame::Vxlan::LEN,
        }
    }

    /// The same around an IPv6 packet.
    #[inline(always)]
    #[must_use]
    pub const fn octets_v6(self) -> u32 {
        match self {
            Self::Ipip => frame::Ip6ip6::LEN,
            Self::Gue0 => frame::Gue0V6::LEN,
            Self::Gue1 => frame::Gue1V6::LEN,
            // No VPC has IPv6: nothing is sent.
            Self::Vxlan => frame::Vxlan::LEN,
        }
    }
}

impl NextHop {
    /// A port of this host.
    #[must_use]
    pub const fn port(interface: u32) -> Self {
        Self::indexed(1, interface)
    }

    /// Another host.
    #[must_use]
    pub const fn vtep(index: u32) -> Self {
        Self::indexed(2, index)
    }

    /// A plain server; port 0 keeps the packet's.
    #[must_use]
    pub const fn server(address: IpKey, port: u16) -> Self {
        Self {
            kind: 3,
            index: 0,
            address,
            port: Be16::new(port),
        }
    }

    /// A path over the backbone.
    #[must_use]
    pub const fn path(pair: u32) -> Self {
        Self::indexed(4, pair)
    }

    /// A server that answers its clients itself, behind a neighbour. `port` is GUE's, else 0.
    #[must_use]
    pub const fn direct(wrap: Wrap, address: IpKey, port: u16, neighbour: u32) -> Self {
        let kind = match wrap {
            Wrap::Ipip => 5,
            Wrap::Gue0 => 6,
            Wrap::Gue1 => 7,
            Wrap::Vxlan => VXLAN,
        };
        Self {
            kind,
            index: neighbour,
            address,
            port: Be16::new(port),
        }
    }

    /// A port of a VPC that answers its clients itself, behind the neighbour that leads to its host.
    #[must_use]
    pub const fn tunnelled(tunnel: Tunnel, neighbour: u32) -> Self {
        let mac = (tunnel.mac.high() as u64) << 16 | tunnel.mac.low() as u64;
        Self {
            kind: VXLAN,
            index: neighbour,
            address: IpKey::from_halves([mac, (tunnel.vni as u64) << 32 | tunnel.host as u64]),
            port: Be16::new(vxlan::PORT),
        }
    }

    /// Where a server behind VXLAN is; of any other kind it says nothing.
    #[inline(always)]
    #[must_use]
    pub const fn tunnel(&self) -> Tunnel {
        let [mac, low] = self.address.halves();
        Tunnel {
            host: low as u32,
            vni: (low >> 32) as u32,
            mac: Mac::new((mac >> 16) as u32, mac as u16),
        }
    }

    /// Where packets for a server that answers itself go on the underlay, in host order, if that is IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn behind(&self) -> Option<u32> {
        match self.kind() {
            HopKind::Direct(Wrap::Vxlan) => Some(self.tunnel().host),
            _ => self.address.as_v4(),
        }
    }

    const fn indexed(kind: u16, index: u32) -> Self {
        Self {
            kind,
            index,
            address: IpKey::v4(0),
            port: Be16::new(0),
        }
    }

    /// Its kind.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> HopKind {
        match self.kind {
            1 => HopKind::Port,
            2 => HopKind::Vtep,
            3 => HopKind::Server,
            4 => HopKind::Path,
            5 => HopKind::Direct(Wrap::Ipip),
            6 => HopKind::Direct(Wrap::Gue0),
            7 => HopKind::Direct(Wrap::Gue1),
            VXLAN => HopKind::Direct(Wrap::Vxlan),
            _ => HopKind::Nowhere,
        }
    }
}
