//! The way onto the backbone: outer headers, sequence number and tag of the first leg.

use super::{BACKBONE, GENEVE, INNER, IP, L4, liveness};
use crate::frame;
use crate::header::geneve::{Covered, Header, Word};
use crate::header::ipv4::{Fields, UDP};
use crate::header::{Ethernet, Geneve, Ipv4, Udp, ethernet};
use crate::map::{LANES, Leg, Neighbour, NodeConfig, PairState};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Sends an IPv4 packet that fits over one of a pair's paths.
///
/// # Errors
/// `NoPath` where the pair or its path is not installed; those of [`over_leg`].
#[inline(always)]
pub fn over_pair<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    pair: u32,
    packet: (u32, bool),
) -> Outcome {
    let ((vni, reply), octets, now) = (packet, frame.len(), tables.jiffies());
    let (Some(paths), Some(state)) = (tables.pair(pair), tables.pair_state(pair)) else {
        return Err(Reason::NoPath);
    };
    let index = liveness::choose(tables, paths, now, octets)?;
    let (Some(path), Some(path_state)) = (tables.path(index), tables.path_state(index)) else {
        return Err(Reason::NoPath);
    };
    let neighbour = usable(tables, &path.leg)?;
    tables.add(&path_state.sent, 1);
    if state.last_packet.get() != now {
        state.last_packet.set(now);
    }
    let (lane, sequence, timestamp) = number(tables, state);
    let word = Word::new(path.leg.label, lane, node.incarnation, path.leg.epoch, reply);
    let header = Header::new(false, vni, word, sequence, timestamp);
    over_leg(frame, node, &path.leg, neighbour, &header)?;
    tables.count(if reply { Event::Returned } else { Event::Entered }, octets);
    Ok(Next::Transmit(neighbour.interface))
}

/// The neighbour that an installed leg leads through.
///
/// # Errors
/// `NoPath` where the leg is not installed, `NoNeighbour` where the way to it is not known.
#[inline(always)]
pub fn usable<'t, T: Tables>(tables: &'t T, leg: &Leg) -> Result<&'t Neighbour, Reason> {
    if leg.label == 0 {
        return Err(Reason::NoPath);
    }
    match tables.neighbour(leg.neighbour) {
        Some(neighbour) if !neighbour.macs.is_unknown() => Ok(neighbour),
        _ => Err(Reason::NoNeighbour),
    }
}

/// Lane, sequence number and, for one packet in 64, the time.
#[inline(always)]
fn number<T: Tables>(tables: &T, state: &PairState) -> (u32, u32, u32) {
    let lane = tables.cpu() & (LANES as u32 - 1);
    let sequence = tables.add(&state.lanes[lane as usize & (LANES - 1)], 1) as u32;
    let timestamp = if sequence & 63 == 0 {
        microseconds(tables).max(1)
    } else {
        0
    };
    (lane, sequence, timestamp)
}

#[inline(always)]
fn microseconds<T: Tables>(tables: &T) -> u32 {
    (tables.nanoseconds() / 1_000) as u32
}

/// Encapsulates an IPv4 packet for one leg.
///
/// # Errors
/// `NoRoom`.
#[inline(always)]
pub fn over_leg<F: Frame>(
    frame: &mut F,
    node: &NodeConfig,
    leg: &Leg,
    neighbour: &Neighbour,
    header: &Header,
) -> Result<(), Reason> {
    let length = frame.len() - IP as u32;
    let Some(head) = frame.head::<16>() else {
        return Err(Reason::NoRoom);
    };
    let tos = head[IP + 1] & 0xfc;
    if length + BACKBONE > node.mtu as u32 || !frame.push::<frame::Backbone>() {
        return Err(Reason::NoRoom);
    }
    let covered = Covered::new(header, frame.words(INNER as u32));
    let Some(head) = frame.head::<INNER>() else {
        return Err(Reason::NoRoom);
    };
    let mut ethernet = Ethernet::at::<0, INNER>(head);
    ethernet.set_addresses(neighbour.macs);
    ethernet.set_ethertype(ethernet::IPV4);
    Ipv4::at::<IP, INNER>(head).write(&Fields {
        tos,
        total_length: (length + BACKBONE) as u16,
        ttl: 64,
        protocol: UDP,
        source: node.local.get(),
        destination: leg.address.get(),
    });
    Udp::at::<L4, INNER>(head).write(
        leg.source_port.get(),
        leg.port.get(),
        (length + BACKBONE - 20) as u16,
    );
    Geneve::at::<GENEVE, INNER>(head).write(header, covered.tag(leg.key(header.word().epoch())));
    Ok(())
}
