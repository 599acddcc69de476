//! Both paths of a pair at once: the first copy wins at the exit.
//!
//! XDP cannot copy a packet. So the edge numbers it and hands it over to the port program of the system VPC, which
//! can: to `kuafu0`, with an [`Errand`].

use super::backbone::Outer;
use super::send::{self, Numbered, Way};
use super::{GENEVE, INNER, IP, TTL, liveness, relay};
use crate::header::geneve::{Covered, Header};
use crate::header::{Errand, Ethernet, Geneve, Ipv4, errand, ethernet};
use crate::map::{NO_PATH, NodeConfig, Pair};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Hands a packet over to the port program.
///
/// # Errors
/// `Truncated`.
#[inline(always)]
pub fn hand_over<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    pair: u32,
    numbered: &Numbered,
) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<IP>() else {
        return Err(Reason::Truncated);
    };
    let (vni, reply) = (numbered.vni, numbered.reply);
    Errand::at::<0, IP>(head).copy(
        &errand::Way { pair, vni, reply },
        numbered.lane,
        numbered.sequence,
    );
    tables.count(Event::HandedOver, octets);
    Ok(Next::Transmit(node.hand_over))
}

/// The pair of a packet that the edge handed over, and how it is numbered; `None`: it is something else.
#[inline(always)]
pub fn handed_over<F: Frame>(frame: &mut F) -> Option<(u32, Numbered)> {
    let head = frame.head::<IP>()?;
    if Ethernet::at::<0, IP>(head).ethertype() != ethernet::IPV4 {
        return None;
    }
    let (errand::Way { pair, vni, reply }, lane, sequence) = Errand::at::<0, IP>(head).to_copy()?;
    let numbered = Numbered {
        vni,
        reply,
        lane,
        sequence,
    };
    Some((pair, numbered))
}

/// Sends a packet over both paths of its pair; over one where the other is stale, or no copy can be made.
///
/// # Errors
/// `NoPath` where the pair or its path is not installed; those of [`send::over_leg`].
#[inline(always)]
pub fn over_both<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    pair: u32,
    numbered: &Numbered,
) -> Outcome {
    let (octets, now) = (frame.len(), tables.jiffies());
    let Some(paths) = tables.pair(pair) else {
        return Err(Reason::NoPath);
    };
    let index = liveness::choose(tables, paths, now, octets)?;
    let first = send::way(tables, index)?;
    let Some(second) = other(tables, paths, index, now) else {
        return send::over(frame, tables, node, &first, numbered);
    };
    tables.add(&first.state.sent, 1);
    let header = numbered.header(tables, numbered.word(node, first.leg).duplicated());
    send::over_leg(frame, node, first.leg, first.neighbour, &header)?;
    tables.count(numbered.event(), octets);
    if !frame.send_copy(first.neighbour.interface) {
        return Ok(Next::Transmit(first.neighbour.interface));
    }
    tables.add(&second.state.sent, 1);
    lead_over(frame, node, &second, header)?;
    tables.count(Event::Duplicated, octets);
    Ok(Next::Transmit(second.neighbour.interface))
}

/// The pair's other path, where it is not stale. That it was left as down, which lasts for a while so that the pair does
/// not flap, is no reason to send no copy over it.
#[inline(always)]
fn other<'t, T: Tables>(tables: &'t T, paths: &Pair, index: u32, now: u64) -> Option<Way<'t>> {
    let other = if index == paths.primary {
        paths.backup
    } else {
        paths.primary
    };
    if other == NO_PATH {
        return None;
    }
    let way = send::way(tables, other).ok()?;
    (!way.state.is_stale(now)).then_some(way)
}

/// Leads a packet that has the headers of one path over another.
#[inline(always)]
fn lead_over<F: Frame>(
    frame: &mut F,
    node: &NodeConfig,
    way: &Way<'_>,
    header: Header,
) -> Result<(), Reason> {
    let word = header.word().onward(way.leg.label, way.leg.epoch);
    let header = header.with(word);
    let covered = Covered::new(&header, frame.words(INNER as u32));
    let length = (frame.len() - IP as u32) as u16;
    let Some(head) = frame.head::<INNER>() else {
        return Err(Reason::NoRoom);
    };
    let outer = Outer {
        tos: Ipv4::at::<IP, INNER>(head).tos(),
        ttl: TTL,
        length,
        header,
    };
    relay::readdress(head, node, way.leg, way.neighbour, &outer);
    Geneve::at::<GENEVE, INNER>(head).relabel(&header, covered.tag(way.leg.key(word.epoch())));
    Ok(())
}
