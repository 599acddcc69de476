//! VXLAN from another host of the VPC.

use super::{IP, L4, arp, served};
use crate::frame;
use crate::header::vxlan::PORT;
use crate::header::{Ethernet, Ipv4, Udp, Vxlan, ethernet, ipv4};
use crate::map::{Be32, EndpointKey, HopKind, IpKey, NodeConfig, VtepKey};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Whether a frame is VXLAN for this host. Fragments are not: the host's stack may put them together, and finds no
/// socket.
#[inline(always)]
pub fn is_ours<F: Frame>(frame: &mut F, node: &NodeConfig) -> bool {
    let Some(head) = frame.head::<42>() else {
        return false;
    };
    if Ethernet::at::<0, 42>(head).ethertype() != ethernet::IPV4 {
        return false;
    }
    let port = Udp::at::<L4, 42>(head).destination();
    let ip = Ipv4::at::<IP, 42>(head);
    ip.version_and_length() == 0x45
        && ip.protocol() == ipv4::UDP
        && port == PORT
        && ip.destination() == node.local.get()
        && !ip.is_fragment()
}

/// Takes a frame out of VXLAN and hands it to the port that it is for.
///
/// # Errors
/// `Truncated`, `BadLength`, `BadVxlan`; `UnknownVtep` where the sender does not serve the VPC; what cannot be
/// delivered has the reasons of [`deliver`].
#[inline(always)]
pub fn receive<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<64>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv4::at::<IP, 64>(head);
    let sender = Be32::new(ip.source());
    if ip.total_length() as u32 + IP as u32 > octets {
        return Err(Reason::BadLength);
    }
    let Some(vni) = Vxlan::at::<42, 64>(head).vni() else {
        return Err(Reason::BadVxlan);
    };
    let inner = Ethernet::at::<50, 64>(head);
    let (ethertype, to_group) = (inner.ethertype(), inner.is_group());
    if !tables.may_send(&VtepKey { vni, address: sender }) {
        return Err(Reason::UnknownVtep);
    }
    match ethertype {
        ethernet::ARP => arp::from_vtep(frame, tables, interface, vni),
        ethernet::IPV4 if to_group => Err(Reason::Multicast),
        ethernet::IPV4 => deliver(frame, tables, vni),
        ethernet::IPV6 => Err(Reason::Ipv6NotYet),
        _ => Err(Reason::UnknownProtocol),
    }
}

/// Hands the inner frame to the port that has its destination address, or that serves it.
///
/// # Errors
/// `Truncated`; `NoEndpoint` where no port of this host has the address; `NoRoom`.
#[inline(always)]
fn deliver<F: Frame, T: Tables>(frame: &mut F, tables: &T, vni: u32) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<84>() else {
        return Err(Reason::Truncated);
    };
    let address = Ipv4::at::<64, 84>(head).destination();
    let mac = Ethernet::at::<50, 84>(head).destination();
    let endpoint = match tables.endpoint(&EndpointKey::new(vni, IpKey::v4(address))) {
        Some(endpoint) => endpoint,
        None => served::at(tables, vni, address, mac)?,
    };
    if endpoint.hop.kind() != HopKind::Port {
        return Err(Reason::NoEndpoint);
    }
    Ethernet::at::<50, 84>(head).set_destination(endpoint.mac);
    if !frame.pull::<frame::Vxlan>() {
        return Err(Reason::NoRoom);
    }
    tables.count(Event::VxlanReceived, octets);
    Ok(Next::Deliver(endpoint.hop.index))
}
