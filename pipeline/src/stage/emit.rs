//! The entry again: an answer leaves the backbone for its client, as it is.

use super::flow::Flow;
use super::{IP, icmp_error, rewrite};
use crate::header::{Ipv4, ipv4};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Sends an answer on to its client, provided that it comes from (or, an ICMP error, is about) a listener of the
/// accelerator here.
///
/// # Errors
/// `BadLength`, `NoListener`, `UnknownProtocol`, `NoRoute`, `NoNeighbour`, `Truncated`.
#[inline(always)]
pub fn to_client<F: Frame, T: Tables>(frame: &mut F, tables: &T, vni: u32, flow: &Flow) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<34>() else {
        return Err(Reason::Truncated);
    };
    if Ipv4::at::<IP, 34>(head).total_length() as u32 + IP as u32 != octets {
        return Err(Reason::BadLength);
    }
    let asked = match flow.protocol {
        ipv4::TCP | ipv4::UDP => flow.turned_round(),
        ipv4::ICMP => icmp_error::quoted(frame)?,
        _ => return Err(Reason::UnknownProtocol),
    };
    match tables.service(&asked.service(0)) {
        Some(service) if service.vni == vni => {}
        _ => return Err(Reason::NoListener),
    }
    let route = tables.route(flow.source, flow.destination)?;
    rewrite::address(frame, &route)?;
    tables.count(Event::Emitted, octets);
    Ok(Next::Transmit(route.interface))
}
