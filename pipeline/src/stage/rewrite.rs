//! The one rewrite: a packet leaves with the addresses and ports of its connection.

use super::flow::{Flow, Part};
use super::{IP, L4};
use crate::header::{Ethernet, Ipv4, Tcp, Udp, ethernet, ipv4};
use crate::map::Connection;
use crate::tables::Route;
use crate::{Frame, Reason};

/// Rewrites addresses, ports and time to live of a sane TCP or UDP packet, with the checksums kept right. A fragment
/// that is not the first has no ports.
///
/// # Errors
/// `Ttl`, `Truncated`.
#[inline(always)]
pub fn apply<F: Frame>(frame: &mut F, connection: &Connection, flow: &Flow) -> Result<(), Reason> {
    let (source, destination) = (connection.source.low(), connection.destination.low());
    let (from, to) = (connection.source_port.get(), connection.destination_port.get());
    if let Part::Later(_) = flow.part {
        let Some(head) = frame.head::<34>() else {
            return Err(Reason::Truncated);
        };
        let mut ip = Ipv4::at::<IP, 34>(head);
        if ip.ttl() <= 1 {
            return Err(Reason::Ttl);
        }
        ip.readdress(source, destination);
    } else if flow.protocol == ipv4::TCP {
        let Some(head) = frame.head::<54>() else {
            return Err(Reason::Truncated);
        };
        let mut ip = Ipv4::at::<IP, 54>(head);
        if ip.ttl() <= 1 {
            return Err(Reason::Ttl);
        }
        let change = ip.readdress(source, destination);
        Tcp::at::<L4, 54>(head).replace_ports(from, to, change);
    } else {
        let Some(head) = frame.head::<42>() else {
            return Err(Reason::Truncated);
        };
        let mut ip = Ipv4::at::<IP, 42>(head);
        if ip.ttl() <= 1 {
            return Err(Reason::Ttl);
        }
        let change = ip.readdress(source, destination);
        Udp::at::<L4, 42>(head).replace_ports(from, to, change);
    }
    Ok(())
}

/// Writes the Ethernet header towards the next hop of a route.
///
/// # Errors
/// `Truncated`.
#[inline(always)]
pub fn address<F: Frame>(frame: &mut F, route: &Route) -> Result<(), Reason> {
    let Some(head) = frame.head::<14>() else {
        return Err(Reason::Truncated);
    };
    let mut ethernet = Ethernet::at::<0, 14>(head);
    ethernet.set_addresses(route.macs);
    ethernet.set_ethertype(ethernet::IPV4);
    Ok(())
}
