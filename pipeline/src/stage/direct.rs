//! To a server that answers its clients itself (direct server return): a client's packet goes there whole, behind an
//! outer header. So does a [`check`](super::check).

use super::{IP, L4, L4_V6, TTL, sanity, too_big};
use crate::frame;
use crate::header::ipv4::{Fields, IPIP, UDP};
use crate::header::ipv6::{self, IPV6};
use crate::header::{Ethernet, Gue, Ipv4, Ipv6, Udp, Vxlan, be16, ethernet};
use crate::map::{IpKey, MacPair, NextHop, NodeConfig, Service, Tunnel, Wrap, policy};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Octets up to the inner packet, by encapsulation.
const BEHIND_IPIP: usize = 34;
const BEHIND_GUE0: usize = 46;
const BEHIND_GUE1: usize = 42;
/// The same up to the inner Ethernet header.
const BEHIND_VXLAN: usize = 50;
/// The same of IPv6.
const BEHIND_IP6IP6: usize = 54;
const BEHIND_GUE0_V6: usize = 66;
const BEHIND_GUE1_V6: usize = 62;

/// A packet for a server.
#[derive(Clone, Copy, Debug)]
pub struct Parcel<A = u32> {
    /// Octets in the IP packet.
    pub length: u32,
    /// Octets in the largest packet that must fit: see [`Sane`](super::sanity::Sane).
    pub largest: u32,
    /// The hash of the flow, which is told by GUE's source port.
    pub hash: u32,
    /// The address that says if the packet is too large, the service's; 0: nothing is said.
    pub refuser: A,
    /// What it is counted as when it has left.
    pub event: Event,
}

/// Sends a packet to a server, without what the link padded. ECN is copied with the DSCP (RFC 6040, normal mode): who
/// unwraps it knows what to do; but by VXLAN it is not (compatibility mode), since a port's own host would lose it.
///
/// # Errors
/// `NoTarget` where the server is of IPv6; `NoNeighbour`, `NoRoom`; of what the underlay or the service does not carry
/// `NeedsFragmentation`, `TooBig` where the service says nothing to anyone, and those of [`too_big::answer`]: nobody here
/// fragments, whatever the sender allows.
#[inline(always)]
pub fn to_server<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    (node, interface): (&NodeConfig, u32),
    (service, hop, wrap): (&Service, &NextHop, Wrap),
    parcel: &Parcel,
) -> Outcome {
    let octets = frame.len();
    let Some(server) = hop.behind() else {
        return Err(Reason::NoTarget);
    };
    let mtu = carried(node, service, wrap.octets());
    if parcel.largest > mtu {
        is_told(service, parcel.refuser != 0)?;
        return too_big::answer(frame, tables, interface, parcel.refuser, mtu as u16);
    }
    let is_here = matches!(wrap, Wrap::Vxlan) && server == node.local.get();
    let (tos, macs, onward) = if is_here {
        own(frame)?
    } else {
        way(frame, tables, hop, interface)?
    };
    sanity::exact(frame, parcel.length)?;
    let outer = Outer {
        macs,
        fields: Fields {
            tos: if matches!(wrap, Wrap::Vxlan) {
                tos as u8 & 0xfc
            } else {
                tos as u8
            },
            total_length: (parcel.length + wrap.octets()) as u16,
            ttl: TTL,
            protocol: if matches!(wrap, Wrap::Ipip) { IPIP } else { UDP },
            source: node.local.get(),
            destination: server,
        },
        ports: Ports::of(hop, parcel.hash),
    };
    let wrapped = match wrap {
        Wrap::Ipip => frame.push::<frame::Ipip>() && outer.ipip(frame),
        Wrap::Gue0 => frame.push::<frame::Gue0>() && outer.gue0(frame),
        Wrap::Gue1 => frame.push::<frame::Gue1>() && outer.gue1(frame),
        Wrap::Vxlan => outer.vxlan(frame, &hop.tunnel()),
    };
    if !wrapped {
        return Err(Reason::NoRoom);
    }
    tables.count(parcel.event, octets);
    Ok(if is_here {
        Next::Host
    } else {
        Next::Transmit(onward)
    })
}

/// The same of an IPv6 packet, to a server of IPv6. UDP goes without a checksum (RFC 6935): the inner packet has its own,
/// and GUE's port takes nothing else.
///
/// # Errors
/// As [`to_server`]; `NoTarget` where the server or this host has no address of IPv6.
#[inline(always)]
pub fn to_server_v6<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    (node, interface): (&NodeConfig, u32),
    (service, hop, wrap): (&Service, &NextHop, Wrap),
    parcel: &Parcel<IpKey>,
) -> Outcome {
    let octets = frame.len();
    if hop.address.as_v4().is_some() || node.local6 == IpKey::default() {
        return Err(Reason::NoTarget);
    }
    let mtu = carried(node, service, wrap.octets_v6());
    if parcel.largest > mtu {
        is_told(service, parcel.refuser != IpKey::default())?;
        return too_big::answer_v6(frame, tables, interface, parcel.refuser, mtu);
    }
    let (class, macs, onward) = way(frame, tables, hop, interface)?;
    sanity::exact(frame, parcel.length)?;
    let outer = OuterV6 {
        macs,
        fields: ipv6::Fields {
            traffic_class: (class >> 4) as u8,
            flow_label: parcel.hash,
            payload_length: (parcel.length + wrap.octets_v6() - 40) as u16,
            next_header: if matches!(wrap, Wrap::Ipip) { IPV6 } else { UDP },
            hop_limit: TTL,
            source: node.local6,
            destination: hop.address,
        },
        ports: Ports::of(hop, parcel.hash),
    };
    let wrapped = match wrap {
        Wrap::Ipip => frame.push::<frame::Ip6ip6>() && outer.ip6ip6(frame),
        Wrap::Gue0 => frame.push::<frame::Gue0V6>() && outer.gue0(frame),
        Wrap::Gue1 => frame.push::<frame::Gue1V6>() && outer.gue1(frame),
        Wrap::Vxlan => return Err(Reason::NoTarget),
    };
    if !wrapped {
        return Err(Reason::NoRoom);
    }
    tables.count(parcel.event, octets);
    Ok(Next::Transmit(onward))
}

/// Octets in the largest IP packet of a client that fits behind an outer header of so many.
#[inline(always)]
fn carried(node: &NodeConfig, service: &Service, outer: u32) -> u32 {
    let carried = (node.mtu as u32).saturating_sub(outer);
    if service.largest != 0 {
        carried.min(service.largest)
    } else {
        carried
    }
}

/// Whether the sender of too large a packet is told.
///
/// # Errors
/// `TooBig`, `NeedsFragmentation` where it is not.
#[inline(always)]
fn is_told(service: &Service, has_refuser: bool) -> Result<(), Reason> {
    if service.has(policy::SILENT) {
        Err(Reason::TooBig)
    } else if has_refuser {
        Ok(())
    } else {
        Err(Reason::NeedsFragmentation)
    }
}

/// The first 16 bits of the packet behind its version and header length (in which DSCP and ECN are), and the way to a
/// server: Ethernet addresses and interface.
///
/// # Errors
/// `NoNeighbour`, `NoRoom`.
#[inline(always)]
fn way<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    hop: &NextHop,
    interface: u32,
) -> Result<(u16, MacPair, u32), Reason> {
    let neighbour = match tables.neighbour(hop.index) {
        Some(neighbour) if !neighbour.macs.is_unknown() => neighbour,
        _ => return Err(Reason::NoNeighbour),
    };
    let Some(head) = frame.head::<16>() else {
        return Err(Reason::NoRoom);
    };
    let first = be16::<IP, 16>(head);
    if neighbour.interface != 0 {
        return Ok((first, neighbour.macs, neighbour.interface));
    }
    // Without an interface it is where the packet came from, the gateway of a host with one link.
    let ours = Ethernet::at::<0, 16>(head).destination();
    Ok((first, neighbour.macs.from(ours), interface))
}

/// The same of a packet that stays on this host, whose own stack takes it: it has the Ethernet addresses for that.
///
/// # Errors
/// `NoRoom`.
#[inline(always)]
fn own<F: Frame>(frame: &mut F) -> Result<(u16, MacPair, u32), Reason> {
    let Some(head) = frame.head::<16>() else {
        return Err(Reason::NoRoom);
    };
    Ok((be16::<IP, 16>(head), Ethernet::at::<0, 16>(head).addresses(), 0))
}

/// UDP's ports in front of GUE and VXLAN.
struct Ports {
    source: u16,
    destination: u16,
}

impl Ports {
    /// Constant for a flow.
    #[inline(always)]
    const fn of(hop: &NextHop, hash: u32) -> Self {
        Self {
            source: 0xc000 | hash as u16,
            destination: hop.port.get(),
        }
    }
}

/// What the outer headers say.
struct Outer {
    macs: MacPair,
    fields: Fields,
    ports: Ports,
}

impl Outer {
    #[inline(always)]
    fn ipip<F: Frame>(&self, frame: &mut F) -> bool {
        frame.head::<BEHIND_IPIP>().map(|head| self.ip(head)).is_some()
    }

    #[inline(always)]
    fn gue0<F: Frame>(&self, frame: &mut F) -> bool {
        let Some(head) = frame.head::<BEHIND_GUE0>() else {
            return false;
        };
        self.udp(head);
        Gue::at::<42, BEHIND_GUE0>(head).write(IPIP);
        true
    }

    #[inline(always)]
    fn gue1<F: Frame>(&self, frame: &mut F) -> bool {
        frame.head::<BEHIND_GUE1>().map(|head| self.udp(head)).is_some()
    }

    /// The Ethernet header that the packet has becomes the inner one: the port's, from this host.
    #[inline(always)]
    fn vxlan<F: Frame>(&self, frame: &mut F, tunnel: &Tunnel) -> bool {
        let Some(head) = frame.head::<14>() else {
            return false;
        };
        Ethernet::at::<0, 14>(head).set_addresses(self.macs.to(tunnel.mac));
        if !frame.push::<frame::Vxlan>() {
            return false;
        }
        let Some(head) = frame.head::<BEHIND_VXLAN>() else {
            return false;
        };
        self.udp(head);
        Vxlan::at::<42, BEHIND_VXLAN>(head).write(tunnel.vni);
        true
    }

    #[inline(always)]
    fn udp<const N: usize>(&self, head: &mut [u8; N]) {
        self.ip(head);
        let length = self.fields.total_length - 20;
        Udp::at::<L4, N>(head).write(self.ports.source, self.ports.destination, length);
    }

    #[inline(always)]
    fn ip<const N: usize>(&self, head: &mut [u8; N]) {
        let mut ethernet = Ethernet::at::<0, N>(head);
        ethernet.set_addresses(self.macs);
        ethernet.set_ethertype(ethernet::IPV4);
        Ipv4::at::<IP, N>(head).write(&self.fields);
    }
}

/// The same of IPv6.
struct OuterV6 {
    macs: MacPair,
    fields: ipv6::Fields,
    ports: Ports,
}

impl OuterV6 {
    #[inline(always)]
    fn ip6ip6<F: Frame>(&self, frame: &mut F) -> bool {
        frame.head::<BEHIND_IP6IP6>().map(|head| self.ip(head)).is_some()
    }

    #[inline(always)]
    fn gue0<F: Frame>(&self, frame: &mut F) -> bool {
        let Some(head) = frame.head::<BEHIND_GUE0_V6>() else {
            return false;
        };
        self.udp(head);
        Gue::at::<62, BEHIND_GUE0_V6>(head).write(IPV6);
        true
    }

    #[inline(always)]
    fn gue1<F: Frame>(&self, frame: &mut F) -> bool {
        frame
            .head::<BEHIND_GUE1_V6>()
            .map(|head| self.udp(head))
            .is_some()
    }

    #[inline(always)]
    fn udp<const N: usize>(&self, head: &mut [u8; N]) {
        self.ip(head);
        let length = self.fields.payload_length;
        Udp::at::<L4_V6, N>(head).write(self.ports.source, self.ports.destination, length);
    }

    #[inline(always)]
    fn ip<const N: usize>(&self, head: &mut [u8; N]) {
        let mut ethernet = Ethernet::at::<0, N>(head);
        ethernet.set_addresses(self.macs);
        ethernet.set_ethertype(ethernet::IPV6);
        Ipv6::at::<IP, N>(head).write(&self.fields);
    }
}
