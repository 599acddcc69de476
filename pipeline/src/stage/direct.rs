//! To a server that answers its clients itself (direct server return): a client's packet goes there whole, behind an
//! outer header.

use super::{IP, L4, TTL, too_big};
use crate::frame;
use crate::header::ipv4::{Fields, IPIP, UDP};
use crate::header::{Ethernet, Gue, Ipv4, Udp, ethernet};
use crate::map::{MacPair, NextHop, NodeConfig, Service, Wrap, policy};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Octets up to the inner packet, by encapsulation.
const BEHIND_IPIP: usize = 34;
const BEHIND_GUE0: usize = 46;
const BEHIND_GUE1: usize = 42;

/// A client's packet for a server.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    /// Octets in the IP packet.
    pub length: u32,
    /// Octets in the largest packet that must fit: see [`Sane`](super::sanity::Sane).
    pub largest: u32,
    /// The hash of the flow, which is told by GUE's source port.
    pub hash: u32,
    /// The address that says if the packet is too large, the service's; 0: nothing is said.
    pub refuser: u32,
}

/// Sends a packet to a server. ECN is copied with the DSCP (RFC 6040, normal mode): who unwraps it knows what to do.
///
/// # Errors
/// `NoNeighbour`, `NoRoom`; of what the underlay or the service does not carry `NeedsFragmentation`, `TooBig` where the
/// service says nothing to anyone, and those of [`too_big::answer`]: nobody here fragments, whatever the sender allows.
#[inline(always)]
pub fn to_server<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    (node, interface): (&NodeConfig, u32),
    (service, hop, wrap): (&Service, &NextHop, Wrap),
    parcel: &Parcel,
) -> Outcome {
    let octets = frame.len();
    let mtu = match (node.mtu as u32).saturating_sub(wrap.octets()) {
        carried if service.largest != 0 => carried.min(service.largest),
        carried => carried,
    };
    if parcel.largest > mtu {
        if service.has(policy::SILENT) {
            return Err(Reason::TooBig);
        }
        if parcel.refuser == 0 {
            return Err(Reason::NeedsFragmentation);
        }
        return too_big::answer(frame, tables, interface, parcel.refuser, mtu as u16);
    }
    let neighbour = match tables.neighbour(hop.index) {
        Some(neighbour) if !neighbour.macs.is_unknown() => neighbour,
        _ => return Err(Reason::NoNeighbour),
    };
    let Some(head) = frame.head::<16>() else {
        return Err(Reason::NoRoom);
    };
    let total_length = (parcel.length + wrap.octets()) as u16;
    // A neighbour without an interface is where the packet came from, the gateway of a host with one link.
    let (macs, onward) = match neighbour.interface {
        0 => {
            let ours = Ethernet::at::<0, 16>(head).destination();
            (neighbour.macs.from(ours), interface)
        }
        onward => (neighbour.macs, onward),
    };
    let outer = Outer {
        macs,
        fields: Fields {
            tos: head[IP + 1],
            total_length,
            ttl: TTL,
            protocol: if matches!(wrap, Wrap::Ipip) { IPIP } else { UDP },
            source: node.local.get(),
            destination: hop.address.low(),
        },
        source_port: 0xc000 | parcel.hash as u16,
        port: hop.port.get(),
    };
    let wrapped = match wrap {
        Wrap::Ipip => frame.push::<frame::Ipip>() && outer.ipip(frame),
        Wrap::Gue0 => frame.push::<frame::Gue0>() && outer.gue0(frame),
        Wrap::Gue1 => frame.push::<frame::Gue1>() && outer.gue1(frame),
    };
    if !wrapped {
        return Err(Reason::NoRoom);
    }
    tables.count(Event::Exited, octets);
    Ok(Next::Transmit(onward))
}

/// What the outer headers say.
struct Outer {
    macs: MacPair,
    fields: Fields,
    source_port: u16,
    port: u16,
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

    #[inline(always)]
    fn udp<const N: usize>(&self, head: &mut [u8; N]) {
        self.ip(head);
        let length = self.fields.total_length - 20;
        Udp::at::<L4, N>(head).write(self.source_port, self.port, length);
    }

    #[inline(always)]
    fn ip<const N: usize>(&self, head: &mut [u8; N]) {
        let mut ethernet = Ethernet::at::<0, N>(head);
        ethernet.set_addresses(self.macs);
        ethernet.set_ethertype(ethernet::IPV4);
        Ipv4::at::<IP, N>(head).write(&self.fields);
    }
}
