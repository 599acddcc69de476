//! A port that serves a service's address (direct server return): clients' packets come to it whole, and it answers
//! from that address.
//!
//! Several ports of a VPC serve the same address; the Ethernet address says which one is meant. Answers leave the VPC by
//! the host's own routes, from the service's own ports alone: the address may be another tenant's too.

use super::source::{self, Sender};
use super::{IP, L4, OWN_MAC, encapsulate, rewrite, too_big};
use crate::header::ipv4::{ICMP, TCP, UDP};
use crate::header::{Ethernet, Ipv4, Tcp, Udp, tcp};
use crate::map::{Endpoint, EndpointKey, HopKind, Mac, NodeConfig, Port, Tunnel};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// The port of this host with an Ethernet address, which serves an address.
///
/// # Errors
/// `NoEndpoint` where there is none.
#[inline(always)]
pub fn at<T: Tables>(tables: &T, vni: u32, address: u32, mac: Mac) -> Result<&Endpoint, Reason> {
    tables
        .endpoint(&EndpointKey::served(vni, address, mac, (0, 0)))
        .ok_or(Reason::NoEndpoint)
}

/// Hands a check of this host to a port of its own.
///
/// # Errors
/// `Truncated`; `NoEndpoint` where there is no such port, or it does not serve the address.
#[inline(always)]
pub fn deliver<F: Frame, T: Tables>(frame: &mut F, tables: &T, tunnel: &Tunnel) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<34>() else {
        return Err(Reason::Truncated);
    };
    let address = Ipv4::at::<IP, 34>(head).destination();
    let endpoint = at(tables, tunnel.vni, address, tunnel.mac)?;
    if endpoint.hop.kind() != HopKind::Port {
        return Err(Reason::NoEndpoint);
    }
    Ethernet::at::<0, 34>(head).set_destination(endpoint.mac);
    tables.count(Event::CheckSent, octets);
    Ok(Next::Deliver(endpoint.hop.index))
}

/// Whether a port sends from an address that it serves.
#[inline(always)]
pub fn is_answer<T: Tables>(tables: &T, port: &Port, sender: &Sender) -> bool {
    sender.version == 4
        && sender.source != port.address.low()
        && at(tables, port.vni, sender.source, port.mac).is_ok()
}

/// Whether a frame of the underlay is what a port of this host answers to a check.
#[inline(always)]
pub fn is_for_host<F: Frame>(frame: &mut F) -> bool {
    let head = frame.head::<14>();
    head.is_some_and(|head| Ethernet::at::<0, 14>(head).destination() == OWN_MAC)
}

/// Sends an answer to its client, as a router does; one to a check of this host goes the way of all answers to checks,
/// in by the underlay.
///
/// # Errors
/// `Multicast` where the destination is no single host, `Truncated`, `BadLength`, `IpOptions`; `Spoofed` from a port that
/// is not the service's, of what begins a connection, of other protocols, and of all but TCP and UDP to this host; `Ttl`,
/// `NoRoute`, `NoNeighbour`, those of [`too_big`].
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    (interface, port): (u32, &Port),
    sender: &Sender,
) -> Outcome {
    let octets = frame.len();
    source::is_for_one(sender)?;
    let is_conversation = is_of_service(frame, tables, port, sender)?;
    if sender.destination == node.local.get() {
        if !is_conversation {
            return Err(Reason::Spoofed);
        }
        source::address_to(frame, OWN_MAC)?;
        return Ok(Next::Arrive(node.underlay));
    }
    if !encapsulate::fits(frame, node.mtu) {
        return too_big::refuse(frame, tables, interface, sender.destination, node.mtu);
    }
    let route = tables.route(sender.source, sender.destination)?;
    let Some(head) = frame.head::<34>() else {
        return Err(Reason::Truncated);
    };
    let mut ip = Ipv4::at::<IP, 34>(head);
    if ip.ttl() <= 1 {
        return Err(Reason::Ttl);
    }
    ip.readdress(sender.source, sender.destination);
    rewrite::address(frame, &route)?;
    tables.count(Event::Emitted, octets);
    Ok(Next::Transmit(route.interface))
}

/// Whether an answer is TCP or UDP from one of the service's ports; else it is ICMP, or a fragment without ports.
#[inline(always)]
fn is_of_service<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    port: &Port,
    sender: &Sender,
) -> Result<bool, Reason> {
    let octets = frame.len();
    let Some(head) = frame.head::<34>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv4::at::<IP, 34>(head);
    if ip.version_and_length() != 0x45 {
        return Err(Reason::IpOptions);
    }
    if ip.total_length() as u32 + IP as u32 > octets {
        return Err(Reason::BadLength);
    }
    let protocol = ip.protocol();
    if ip.fragment_offset() != 0 && matches!(protocol, TCP | UDP) {
        return Ok(false);
    }
    let from = match protocol {
        TCP => {
            let Some(head) = frame.head::<54>() else {
                return Err(Reason::Truncated);
            };
            if Tcp::at::<L4, 54>(head).flags() & (tcp::SYN | tcp::ACK) == tcp::SYN {
                return Err(Reason::Spoofed);
            }
            Udp::at::<L4, 54>(head).source()
        }
        UDP => {
            let Some(head) = frame.head::<42>() else {
                return Err(Reason::Truncated);
            };
            Udp::at::<L4, 42>(head).source()
        }
        ICMP => return Ok(false),
        _ => return Err(Reason::Spoofed),
    };
    let key = EndpointKey::served(port.vni, sender.source, port.mac, (protocol, from));
    match tables.endpoint(&key) {
        Some(_) => Ok(true),
        None => Err(Reason::Spoofed),
    }
}
