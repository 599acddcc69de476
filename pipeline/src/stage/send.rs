//! The way onto the backbone: outer headers, sequence number and tag of the first leg.

use super::{BACKBONE, GENEVE, INNER, IP, L4, TTL, liveness, twice};
use crate::frame;
use crate::header::geneve::{Covered, Header, Word};
use crate::header::ipv4::{Fields, UDP};
use crate::header::{Ethernet, Geneve, Ipv4, Udp, ethernet};
use crate::map::{LANES, Leg, Neighbour, NodeConfig, PairState, PathState};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// A packet of a pair, with the number that it has on both of its paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The accelerator.
    pub vni: u32,
    /// Whether it is an endpoint's answer.
    pub reply: bool,
    /// The counter that gave the number.
    pub lane: u32,
    /// The number.
    pub sequence: u32,
}

/// Sends an IPv4 packet that fits over one of a pair's paths, or hands it over to be sent over both.
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
    let now = tables.jiffies();
    let (Some(paths), Some(state)) = (tables.pair(pair), tables.pair_state(pair)) else {
        return Err(Reason::NoPath);
    };
    if paths.duplicate != 0 && node.hand_over != 0 {
        return twice::hand_over(frame, tables, node, pair, &number(tables, state, packet));
    }
    let way = way(tables, liveness::choose(tables, paths, now, frame.len())?)?;
    over(frame, tables, node, &way, &number(tables, state, packet))
}

/// A path that packets can be sent over.
#[derive(Clone, Copy, Debug)]
pub struct Way<'t> {
    /// Its first leg.
    pub leg: &'t Leg,
    /// What packets change in it.
    pub state: &'t PathState,
    /// The neighbour that the leg leads through.
    pub neighbour: &'t Neighbour,
}

/// A path, where it can be sent over.
///
/// # Errors
/// `NoPath` where it is not installed, `NoNeighbour` where the way to its first node is not known.
#[inline(always)]
pub fn way<T: Tables>(tables: &T, index: u32) -> Result<Way<'_>, Reason> {
    let (Some(path), Some(state)) = (tables.path(index), tables.path_state(index)) else {
        return Err(Reason::NoPath);
    };
    Ok(Way {
        leg: &path.leg,
        state,
        neighbour: usable(tables, &path.leg)?,
    })
}

/// Sends a numbered packet over a path.
///
/// # Errors
/// Those of [`over_leg`].
#[inline(always)]
pub fn over<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    way: &Way<'_>,
    numbered: &Numbered,
) -> Outcome {
    let octets = frame.len();
    tables.add(&way.state.sent, 1);
    let header = numbered.header(tables, numbered.word(node, way.leg));
    over_leg(frame, node, way.leg, way.neighbour, &header)?;
    tables.count(numbered.event(), octets);
    Ok(Next::Transmit(way.neighbour.interface))
}

impl Numbered {
    /// The option's first word on a leg.
    #[inline(always)]
    #[must_use]
    pub const fn word(&self, node: &NodeConfig, leg: &Leg) -> Word {
        Word::new(leg.label, self.lane, node.incarnation, leg.epoch, self.reply)
    }

    /// The backbone's header; in one packet of 64 with the time.
    #[inline(always)]
    pub fn header<T: Tables>(&self, tables: &T, word: Word) -> Header {
        let timestamp = if self.sequence & 63 == 0 {
            microseconds(tables).max(1)
        } else {
            0
        };
        Header::new(false, self.vni, word, self.sequence, timestamp)
    }

    /// What it counts as.
    #[inline(always)]
    #[must_use]
    pub const fn event(&self) -> Event {
        if self.reply {
            Event::Returned
        } else {
            Event::Entered
        }
    }
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

/// Gives a packet of an accelerator, an answer or not, its number: the pair carries something.
#[inline(always)]
fn number<T: Tables>(tables: &T, state: &PairState, (vni, reply): (u32, bool)) -> Numbered {
    let (lane, now) = (tables.cpu() & (LANES as u32 - 1), tables.jiffies());
    if state.last_packet.get() != now {
        state.last_packet.set(now);
    }
    Numbered {
        vni,
        reply,
        lane,
        sequence: tables.add(&state.lanes[lane as usize & (LANES - 1)], 1) as u32,
    }
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
        ttl: TTL,
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
