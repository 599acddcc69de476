//! VXLAN towards another host of the VPC.

use super::flow::hash_of_packet;
use super::{IP, L4};
use crate::frame;
use crate::header::ipv4::{Fields, TCP, UDP};
use crate::header::vxlan::PORT;
use crate::header::{Ethernet, Ipv4, Tcp, Udp, Vxlan, ethernet};
use crate::map::NodeConfig;
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Octets in front of the inner frame's payload.
const OUTER: usize = 64;

/// Sends a port's packet to the VTEP of that number. The packet's size was checked.
///
/// # Errors
/// `NoRoute` where there is no such VTEP, `NoNeighbour` where the way to it is not known, `NoRoom`.
#[inline(always)]
pub fn to_vtep<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    vni: u32,
    vtep: u32,
) -> Outcome {
    let Some(vtep) = tables.vtep(vtep) else {
        return Err(Reason::NoRoute);
    };
    let Some(neighbour) = tables.neighbour(vtep.neighbour) else {
        return Err(Reason::NoNeighbour);
    };
    if neighbour.macs.is_unknown() {
        return Err(Reason::NoNeighbour);
    }
    let (hash, tos) = describe(frame)?;
    let octets = frame.len() + frame::Vxlan::LEN_ON_WIRE;
    if octets > u16::MAX as u32 || !frame.push::<frame::Vxlan>() {
        return Err(Reason::NoRoom);
    }
    let Some(head) = frame.head::<OUTER>() else {
        return Err(Reason::NoRoom);
    };
    let mut ethernet = Ethernet::at::<0, OUTER>(head);
    ethernet.set_addresses(neighbour.macs);
    ethernet.set_ethertype(ethernet::IPV4);
    Ipv4::at::<IP, OUTER>(head).write(&Fields {
        tos,
        total_length: octets as u16,
        ttl: 64,
        protocol: UDP,
        source: node.local.get(),
        destination: vtep.address.get(),
    });
    let source_port = 0xc000 | hash as u16;
    Udp::at::<L4, OUTER>(head).write(source_port, PORT, (octets - 20) as u16);
    Vxlan::at::<42, OUTER>(head).write(vni);
    tables.count(Event::VxlanSent, octets);
    Ok(Next::Transmit(neighbour.interface))
}

impl frame::Vxlan {
    /// Octets of the outer IP packet around a frame.
    const LEN_ON_WIRE: u32 = 36;
}

/// A hash of the flow, and the outer TOS: the inner DSCP, without ECN (RFC 6040, compatibility mode).
#[inline(always)]
fn describe<F: Frame>(frame: &mut F) -> Result<(u32, u8), Reason> {
    if let Some(head) = frame.head::<38>() {
        let hash = hash_of_packet::<IP, L4, 38>(head);
        return Ok((hash, Ipv4::at::<IP, 38>(head).tos() & 0xfc));
    }
    let Some(head) = frame.head::<34>() else {
        return Err(Reason::Truncated);
    };
    Ok((0, Ipv4::at::<IP, 34>(head).tos() & 0xfc))
}

/// Whether the packet, or each of the segments that it will be cut into, fits `mtu`.
#[inline(always)]
pub fn fits<F: Frame>(frame: &mut F, mtu: u16) -> bool {
    let segment = frame.segment();
    if segment == 0 {
        return frame.len() <= mtu as u32 + IP as u32;
    }
    let Some(head) = frame.head::<54>() else {
        return false;
    };
    let header = match Ipv4::at::<IP, 54>(head).protocol() {
        TCP => Tcp::at::<L4, 54>(head).header_length(),
        _ => 8,
    };
    segment + header + 20 <= mtu as u32
}
