//! A relay: the next leg's addresses, label and tag; everything else stays.

use super::backbone::Outer;
use super::{GENEVE, INNER, IP, L4, send};
use crate::header::geneve::Covered;
use crate::header::ipv4::{Fields, UDP};
use crate::header::{Ethernet, Geneve, Ipv4, Udp};
use crate::map::{Leg, Neighbour, NodeConfig, Slot};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Passes an authentic packet on.
///
/// # Errors
/// `Ttl`, `NoNeighbour`.
#[inline(always)]
pub fn pass_on<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    slot: &Slot,
    outer: &Outer,
    covered: &mut Covered,
) -> Outcome {
    if outer.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    let octets = frame.len();
    let neighbour = send::usable(tables, &slot.next)?;
    let Some(head) = frame.head::<INNER>() else {
        return Err(Reason::Truncated);
    };
    let onward = Outer {
        ttl: outer.ttl - 1,
        ..*outer
    };
    readdress(head, node, &slot.next, neighbour, &onward);
    let word = outer.header.word().onward(slot.next.label, slot.next.epoch);
    let header = outer.header.with(word);
    covered.relabel(&header);
    Geneve::at::<GENEVE, INNER>(head).relabel(&header, covered.tag(slot.next.key(word.epoch())));
    tables.count(Event::Relayed, octets);
    Ok(Next::Transmit(neighbour.interface))
}

/// Writes the outer headers of a leg around a packet that has outer headers already.
#[inline(always)]
pub fn readdress<const N: usize>(
    head: &mut [u8; N],
    node: &NodeConfig,
    leg: &Leg,
    neighbour: &Neighbour,
    outer: &Outer,
) {
    Ethernet::at::<0, N>(head).set_addresses(neighbour.macs);
    Ipv4::at::<IP, N>(head).write(&Fields {
        tos: outer.tos,
        total_length: outer.length,
        ttl: outer.ttl,
        protocol: UDP,
        source: node.local.get(),
        destination: leg.address.get(),
    });
    Udp::at::<L4, N>(head).write(leg.source_port.get(), leg.port.get(), outer.length - 20);
}
