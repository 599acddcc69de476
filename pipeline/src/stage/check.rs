//! Health checks of servers that answer their clients themselves: what this host's own sockets ask goes there as a
//! client's packets do.
//!
//! The agent's socket is bound to the host's own address, is connected to the service's, and has the mark
//! [`MARK`] | number of the target. The host's rule for that mark leads into `kuafu0`; where the packets arrive, the
//! port program wraps them for that target. The server answers the socket, by the underlay alone. What checks learn is
//! the agent's.

use super::direct::{self, Parcel};
use super::flow::Flow;
use super::{IP, L4, L4_V6, flow, served, slow_path};
use crate::header::{Ethernet, Ipv4, Ipv6, ethernet, ipv4};
use crate::map::{HopKind, IpKey, NextHop, NodeConfig, Service, Wrap};
use crate::{Event, Frame, Outcome, Reason, Tables};

/// What the socket mark of a check begins with; the target's number follows. No path has such an index.
pub const MARK: u32 = 0x4b00_0000;
/// The bits of a mark that say whether it is a check's.
pub const MASK: u32 = 0xff00_0000;

/// Octets up to the end of UDP's header, and the same of IPv6.
const HEADERS: usize = 42;
const HEADERS_V6: usize = 62;

const _: () = assert!(MARK & !MASK == 0 && slow_path::MARK & MASK != MARK);

/// Whether a packet with this mark is a check.
#[inline(always)]
#[must_use]
pub const fn is_marked(mark: u32) -> bool {
    mark & MASK == MARK
}

/// Sends a check to the target that its mark names.
///
/// # Errors
/// Of what no socket of this host sends there `Truncated`, `UnknownProtocol`, `IpOptions`, `Fragment`, `BadLength`,
/// `Spoofed`; `NoTarget` where the target is none, or is not reached directly; those of [`direct::to_server`],
/// [`direct::to_server_v6`] and [`served::deliver`], `NeedsFragmentation` where it is too large.
#[inline(always)]
pub fn depart<F: Frame, T: Tables>(frame: &mut F, tables: &T, node: &NodeConfig, mark: u32) -> Outcome {
    let Some(hop) = tables.target(mark & !MASK) else {
        return Err(Reason::NoTarget);
    };
    let HopKind::Direct(wrap) = hop.kind() else {
        return Err(Reason::NoTarget);
    };
    let Some(head) = frame.head::<IP>() else {
        return Err(Reason::Truncated);
    };
    match Ethernet::at::<0, IP>(head).ethertype() {
        ethernet::IPV4 => to_server(frame, tables, node, (hop, wrap)),
        ethernet::IPV6 => to_server_v6(frame, tables, node, (hop, wrap)),
        _ => Err(Reason::UnknownProtocol),
    }
}

/// A check by IPv4.
#[inline(always)]
fn to_server<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    (hop, wrap): (&NextHop, Wrap),
) -> Outcome {
    let parcel = parcel(frame, node)?;
    if matches!(wrap, Wrap::Vxlan) && hop.tunnel().host == node.local.get() {
        return served::deliver(frame, tables, &hop.tunnel());
    }
    // The agent's neighbours say themselves which interface leads to them.
    let (from, service) = ((node, node.underlay), &Service::default());
    direct::to_server(frame, tables, from, (service, hop, wrap), &parcel)
}

/// A check by IPv6.
#[inline(always)]
fn to_server_v6<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    (hop, wrap): (&NextHop, Wrap),
) -> Outcome {
    let parcel = parcel_v6(frame, node)?;
    let (from, service) = ((node, node.underlay), &Service::default());
    direct::to_server_v6(frame, tables, from, (service, hop, wrap), &parcel)
}

/// What a check is, as a parcel. Its sender learns from its route what fits, so nobody else says so.
#[inline(always)]
fn parcel<F: Frame>(frame: &mut F, node: &NodeConfig) -> Result<Parcel, Reason> {
    let octets = frame.len();
    let Some(head) = frame.head::<L4>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv4::at::<IP, L4>(head);
    if ip.version_and_length() != 0x45 {
        return Err(Reason::IpOptions);
    }
    if ip.is_fragment() {
        return Err(Reason::Fragment);
    }
    if ip.source() != node.local.get() {
        return Err(Reason::Spoofed);
    }
    let length = ip.total_length() as u32;
    let Some(head) = frame.head::<HEADERS>() else {
        return Err(Reason::Truncated);
    };
    let hash = flow::hash_of_packet::<IP, L4, HEADERS>(head);
    if length < (HEADERS - IP) as u32 || length + IP as u32 > octets {
        return Err(Reason::BadLength);
    }
    Ok(Parcel {
        length,
        largest: length,
        hash,
        refuser: 0,
        event: Event::CheckSent,
    })
}

/// The same of IPv6. TCP and UDP are what sockets ask by, and neither fragments nor extension headers.
#[inline(always)]
fn parcel_v6<F: Frame>(frame: &mut F, node: &NodeConfig) -> Result<Parcel<IpKey>, Reason> {
    let octets = frame.len();
    let Some(head) = frame.head::<HEADERS_V6>() else {
        return Err(Reason::Truncated);
    };
    let flow = Flow::of_v6::<IP, L4_V6, HEADERS_V6>(head);
    let ip = Ipv6::at::<IP, HEADERS_V6>(head);
    let (version, behind) = (ip.version(), ip.payload_length() as u32);
    if !matches!(flow.protocol, ipv4::TCP | ipv4::UDP) {
        return Err(Reason::UnknownProtocol);
    }
    if flow.source != node.local6 {
        return Err(Reason::Spoofed);
    }
    let is_whole = behind >= (HEADERS_V6 - L4_V6) as u32 && behind + L4_V6 as u32 <= octets;
    if version != 6 || !is_whole {
        return Err(Reason::BadLength);
    }
    let length = behind + (L4_V6 - IP) as u32;
    Ok(Parcel {
        length,
        largest: length,
        hash: flow.hash(),
        refuser: IpKey::default(),
        event: Event::CheckSent,
    })
}
