//! A port that serves a service's address (direct server return): clients' packets come to it whole, and it answers
//! from that address.
//!
//! Several ports of a VPC serve the same address; the Ethernet address says which one is meant. Answers leave the VPC by
//! the host's own routes.

use super::source::{self, Sender};
use super::{IP, rewrite};
use crate::header::{Ethernet, Ipv4};
use crate::map::{Endpoint, EndpointKey, HopKind, Mac, NodeConfig, Port, Tunnel};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// The port of this host with an Ethernet address, which serves an address.
///
/// # Errors
/// `NoEndpoint` where there is none.
#[inline(always)]
pub fn at<T: Tables>(tables: &T, vni: u32, address: u32, mac: Mac) -> Result<&Endpoint, Reason> {
    tables
        .endpoint(&EndpointKey::served(vni, address, mac))
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

/// Sends an answer to its client, as a router does; one for this host itself, which has asked, to its stack.
///
/// # Errors
/// `Multicast` where the destination is no single host, `Truncated`, `Ttl`, `NoRoute`, `NoNeighbour`.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T, node: &NodeConfig, sender: &Sender) -> Outcome {
    let octets = frame.len();
    source::is_for_one(sender)?;
    if sender.destination == node.local.get() {
        return Ok(Next::Host);
    }
    let route = tables.route(node.local.get(), sender.destination)?;
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
