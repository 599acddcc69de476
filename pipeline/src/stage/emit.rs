//! The entry again: an answer leaves the backbone for its client, as it is.

use super::flow::{Flow, Part};
use super::{IP, fragment, icmp_error, rewrite};
use crate::header::ipv4;
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Sends an answer on to its client, provided that it comes from (or, an ICMP error, is about) a listener of the
/// accelerator here.
///
/// # Errors
/// `NoListener`, `UnknownProtocol`, `NoRoute`, `NoNeighbour`; those of [`icmp_error::quoted`] and [`rewrite`].
#[inline(always)]
pub fn to_client<F: Frame, T: Tables>(frame: &mut F, tables: &T, vni: u32, flow: &Flow) -> Outcome {
    let octets = frame.len();
    let asked = match flow.protocol {
        ipv4::TCP | ipv4::UDP => flow.turned_round(),
        ipv4::ICMP => icmp_error::quoted(frame)?,
        _ => return Err(Reason::UnknownProtocol),
    };
    match tables.service(&asked.service(0)) {
        Some(service) if service.vni == vni => {}
        _ => return Err(Reason::NoListener),
    }
    if flow.part == Part::First {
        fragment::remember(frame, tables, vni, flow, octets - IP as u32);
    }
    let route = tables.route(flow.source, flow.destination)?;
    rewrite::address(frame, &route)?;
    tables.count(Event::Emitted, octets);
    Ok(Next::Transmit(route.interface))
}
