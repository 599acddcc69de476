//! A packet of the backbone arrives: is it ours, whole and authentic, and what does its label mean here?

use super::{GENEVE, INNER, IP, L4, exit, probe, relay};
use crate::header::geneve::{Covered, Header};
use crate::header::{Geneve, Ipv4, Udp};
use crate::map::{NodeConfig, SlotKind};
use crate::{Frame, Outcome, Reason, Tables};

/// What the outer headers of an authentic packet said.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Octets in the IP packet.
    pub length: u16,
    /// Geneve's header with the option.
    pub header: Header,
}

/// Verifies the packet and carries it on.
///
/// Nothing but the counters of reasons moves before the tag is verified: source, key and tag bind the packet to its
/// leg, its label to this slot.
///
/// # Errors
/// `Truncated`, `BadLength`, `BadChecksum`, `Fragment`, `BadGeneve`, `NoPath`, `WrongSource`, `BadTag`; then those of
/// [`relay`], [`exit`] and [`probe`].
#[inline(always)]
pub fn receive<F: Frame, T: Tables>(frame: &mut F, tables: &T, node: &NodeConfig) -> Outcome {
    let octets = frame.len();
    if octets <= INNER as u32 {
        return Err(Reason::Truncated);
    }
    let Some(head) = frame.head::<INNER>() else {
        return Err(Reason::Truncated);
    };
    let source = whole(head, octets)?;
    let (outer, tag) = read(head)?;
    let Some(slot) = tables.slot(outer.header.word().label()) else {
        return Err(Reason::NoPath);
    };
    let kind = slot.kind();
    if kind == SlotKind::Free {
        return Err(Reason::NoPath);
    }
    if slot.source.get() != source {
        return Err(Reason::WrongSource);
    }
    let Some(key) = slot.key(outer.header.word().epoch()) else {
        return Err(Reason::BadTag);
    };
    let mut covered = Covered::new(&outer.header, frame.words(INNER as u32));
    if covered.tag(key) != tag {
        return Err(Reason::BadTag);
    }
    match kind {
        SlotKind::Relay => relay::pass_on(frame, tables, node, slot, &outer, &mut covered),
        _ if outer.header.is_probe() => probe::arrive(frame, tables, node, slot, &outer),
        _ => exit::arrive(frame, tables, node, slot, &outer),
    }
}

/// Checks that lengths and checksum fit the frame; returns the outer source.
#[inline(always)]
fn whole(head: &mut [u8; INNER], octets: u32) -> Result<u32, Reason> {
    let length = Udp::at::<L4, INNER>(head).length() as u32;
    let ip = Ipv4::at::<IP, INNER>(head);
    if ip.total_length() as u32 + IP as u32 != octets || length + L4 as u32 != octets {
        return Err(Reason::BadLength);
    }
    if !ip.checksum_is_right() {
        return Err(Reason::BadChecksum);
    }
    Ok(ip.source())
}

/// Reads the outer headers and the tag.
#[inline(always)]
fn read(head: &mut [u8; INNER]) -> Result<(Outer, u64), Reason> {
    let ip = Ipv4::at::<IP, INNER>(head);
    let (tos, ttl, length) = (ip.tos(), ip.ttl(), ip.total_length());
    let geneve = Geneve::at::<GENEVE, INNER>(head);
    let Some(header) = geneve.read() else {
        return Err(Reason::BadGeneve);
    };
    let outer = Outer {
        tos,
        ttl,
        length,
        header,
    };
    Ok((outer, geneve.tag()))
}
