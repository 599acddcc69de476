//! ARP, answered on the host: inside a VPC, and for addresses that the host holds.

use super::{IP, L4};
use crate::header::ipv4::{Fields, UDP};
use crate::header::vxlan::PORT;
use crate::header::{Arp, Ethernet, Ipv4, Udp, ethernet};
use crate::map::{EndpointKey, HopKind, IpKey, MacPair, Port, policy};
use crate::program::edge::whole;
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// A port's ARP: a request for an endpoint of its VPC is answered with that endpoint's own Ethernet address.
///
/// # Errors
/// `Truncated`; `Spoofed` where the sender is not the port itself (an address probe, RFC 5227, names none);
/// `ArpUnanswered` for anything but a request for another endpoint.
#[inline(always)]
pub fn from_port<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32, port: &Port) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<42>() else {
        return Err(Reason::Truncated);
    };
    let arp = Arp::at::<IP, 42>(head);
    let sender = arp.sender();
    if arp.sender_mac() != port.mac || (sender != port.address.low() && sender != 0) {
        return Err(Reason::Spoofed);
    }
    if !arp.is_request() || arp.target() == port.address.low() {
        return Err(Reason::ArpUnanswered);
    }
    let key = EndpointKey::new(port.vni, IpKey::v4(arp.target()));
    let Some(endpoint) = tables.endpoint(&key) else {
        return Err(Reason::ArpUnanswered);
    };
    Arp::at::<IP, 42>(head).answer(endpoint.mac);
    Ethernet::at::<0, 42>(head).set_addresses(MacPair::new(port.mac, endpoint.mac));
    tables.count(Event::ArpAnswered, octets);
    Ok(Next::Transmit(interface))
}

/// A frame of the underlay that is neither IPv4 nor IPv6, or goes to a group: a request for an address that this host
/// holds is answered with the underlay's Ethernet address. All else is the host's own, so that nothing is refused.
///
/// # Errors
/// None.
#[inline(always)]
pub fn at_edge<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<42>() else {
        return Ok(Next::Pass);
    };
    if Ethernet::at::<0, 42>(head).ethertype() != ethernet::ARP {
        return Ok(Next::Pass);
    }
    let arp = Arp::at::<IP, 42>(head);
    let (asker, target) = (arp.sender_mac(), arp.target());
    // Who claims the address asks for it as its own.
    if !arp.is_request() || arp.sender() == target {
        return Ok(Next::Pass);
    }
    let mac = match whole(tables, target) {
        Some(whole) if whole.has(policy::ANSWER_ARP) => whole.mac(),
        _ => return Ok(Next::Pass),
    };
    Arp::at::<IP, 42>(head).answer(mac);
    Ethernet::at::<0, 42>(head).set_addresses(MacPair::new(asker, mac));
    tables.count(Event::ArpAnswered, octets);
    Ok(Next::Transmit(interface))
}

/// Octets in a frame with ARP inside VXLAN.
const TUNNELLED: usize = 92;

/// ARP that came in VXLAN from a host which may send into the VPC (a plain VXLAN device floods it): a request for a
/// port of this host is answered, in the same frame.
///
/// # Errors
/// `Truncated`; `ArpUnanswered` for anything else.
#[inline(always)]
pub fn from_vtep<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32, vni: u32) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<TUNNELLED>() else {
        return Err(Reason::Truncated);
    };
    let arp = Arp::at::<64, TUNNELLED>(head);
    if !arp.is_request() {
        return Err(Reason::ArpUnanswered);
    }
    let (asker, key) = (arp.sender_mac(), EndpointKey::new(vni, IpKey::v4(arp.target())));
    let Some(endpoint) = tables.endpoint(&key) else {
        return Err(Reason::ArpUnanswered);
    };
    if endpoint.hop.kind() != HopKind::Port {
        return Err(Reason::ArpUnanswered);
    }
    Arp::at::<64, TUNNELLED>(head).answer(endpoint.mac);
    Ethernet::at::<50, TUNNELLED>(head).set_addresses(MacPair::new(asker, endpoint.mac));
    send_back(head, octets);
    tables.count(Event::ArpAnswered, octets);
    Ok(Next::Transmit(interface))
}

/// Turns the outer headers round.
#[inline(always)]
fn send_back(head: &mut [u8; TUNNELLED], octets: u32) {
    let mut ethernet = Ethernet::at::<0, TUNNELLED>(head);
    ethernet.turn_round();
    ethernet.set_ethertype(ethernet::IPV4);
    let source_port = Udp::at::<L4, TUNNELLED>(head).source();
    let mut ip = Ipv4::at::<IP, TUNNELLED>(head);
    let fields = Fields {
        tos: 0,
        total_length: (octets - IP as u32) as u16,
        ttl: 64,
        protocol: UDP,
        source: ip.destination(),
        destination: ip.source(),
    };
    ip.write(&fields);
    Udp::at::<L4, TUNNELLED>(head).write(source_port, PORT, (octets - L4 as u32) as u16);
}
