//! The one thing that every look-up ends in.

use super::{Be16, IpKey, map_types};

map_types! {
    /// Where a packet goes next: what a service's ring, an endpoint and (later) a route hold.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct NextHop {
        /// The server's address.
        pub address: IpKey,
        /// Interface, VTEP or pair.
        pub index: u32,
        /// A [`HopKind`] as a number; any other number is `Nowhere`.
        kind: u16,
        /// The server's port; 0 keeps the packet's.
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
            _ => HopKind::Nowhere,
        }
    }
}
