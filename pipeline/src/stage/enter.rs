//! The entry: a client's packet to a listener goes over the backbone or to a server, unchanged.

use super::direct::Parcel;
use super::exit::Answers;
use super::flow::{Flow, Part};
use super::ring::NOBODY;
use super::sanity::{self, Sane};
use super::track::{Age, Subject};
use super::{
    BACKBONE, IP, L4, L4_V6, cache, direct, exit, limit, quic, send, shield, slow_path, too_big, track,
};
use crate::header::errand::Way;
use crate::header::{Icmp, Ipv4, Ipv6, tcp};
use crate::map::{HopKind, IpKey, NO_PATH, NextHop, NodeConfig, Service, Tracked};
use crate::{Event, Frame, Outcome, Reason, Tables};

/// Sends a client's packet to its flow's target: over a pair of paths; where this host is itself the exit, straight on
/// to the endpoint; to a server that answers directly.
///
/// # Errors
/// `Unverified`; those of [`sanity`], [`shield`], [`too_big`] (from the accelerated address), [`limit`], [`send`],
/// [`slow_path`], [`exit`] and [`direct`]; `NoTarget`.
#[inline(always)]
pub fn client_packet<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    (service, flow): (&Service, &Flow),
) -> Outcome {
    let sane = sanity::check(frame, tables, 0, flow)?;
    let subject = Subject::of(service, flow, sane.tcp_flags);
    // A shield is not asked about flows that it has let pass, but for what begins, and for what may answer its question.
    let is_new = service.shield != 0 && subject.age == Age::Begins;
    let cached = cache::target(tables, service, (flow, &subject));
    let mut known = if is_new || cached.is_some() {
        None
    } else {
        tables.tracked(&subject.key)
    };
    let mut remembered = true;
    let may_answer = sane.tcp_flags & tcp::RST as u32 != 0;
    if service.shield != 0 && cached.is_none() && (may_answer || !is_current(known, service)) {
        let looked_at = (sane.tcp_flags, &subject, known.is_some());
        match shield::pass(frame, tables, interface, (service, flow), looked_at) {
            Ok(may_be) => remembered = may_be,
            Err(ends) => return ends,
        }
        if is_new {
            known = tables.tracked(&subject.key);
        }
    }
    let number = match cached {
        Some(number) => number,
        None => {
            let datagram = (L4 as u32, sane.length.saturating_sub(20));
            let named = quic::server(frame, tables, service, flow, datagram);
            chosen(tables, service, (flow, &subject), (known, remembered), named)
        }
    };
    let hop = tables.target(number).ok_or(Reason::NoTarget)?;
    let (kind, fits) = (hop.kind(), sane.largest + BACKBONE <= node.mtu as u32);
    if !remembered && subject.age == Age::HasBegun && kind != HopKind::Server {
        track::follow(tables, service, &subject, known, number);
    }
    if kind == HopKind::Path && !fits && sane.dont_fragment {
        sanity::exact(frame, sane.length)?;
        return too_big::refuse(frame, tables, interface, flow.destination, backbone_mtu(node));
    }
    limit::admit(tables, (service.limit, service.vni), false, sane.length)?;
    if let HopKind::Direct(wrap) = kind {
        let parcel = Parcel {
            length: sane.length,
            largest: sane.largest,
            hash: subject.hash,
            refuser: match flow.part {
                Part::Later(_) => 0,
                _ => flow.destination,
            },
            event: Event::Exited,
        };
        return direct::to_server(frame, tables, (node, interface), (service, hop, wrap), &parcel);
    }
    sanity::exact(frame, sane.length)?;
    match kind {
        HopKind::Path if fits => send::over_pair(frame, tables, node, hop.index, (service.vni, false)),
        HopKind::Path => {
            let way = Way {
                pair: hop.index,
                vni: service.vni,
                reply: false,
            };
            slow_path::hand_over(frame, tables, node, &way)
        }
        HopKind::Server => {
            // What is in the midst of a connection opens none, if it may be made up.
            if !remembered && tables.connection(&flow.connection(service.vni)).is_none() {
                return Err(Reason::Unverified);
            }
            let answers = Answers {
                vni: service.vni,
                pair: NO_PATH,
            };
            exit::forward(frame, tables, node, &answers, (flow, &sane), |_| {
                Ok((number, hop, service.limit))
            })
        }
        _ => Err(Reason::NoTarget),
    }
}

/// The same of IPv6, whose targets are servers that answer themselves.
///
/// # Errors
/// Those of [`sanity`], [`shield`], [`limit`] and [`direct`]; `NoTarget`.
#[inline(always)]
pub fn client_packet_v6<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    (service, flow): (&Service, &Flow<IpKey>),
) -> Outcome {
    let Some(head) = frame.head::<L4_V6>() else {
        return Err(Reason::Truncated);
    };
    let behind = Ipv6::at::<IP, L4_V6>(head).payload_length() as u32;
    let tcp_flags = sanity::check_v6(frame, flow, behind)? as u32;
    let (length, subject) = (behind + 40, Subject::of(service, flow, tcp_flags));
    let is_new = service.shield != 0 && subject.age == Age::Begins;
    let mut known = if is_new {
        None
    } else {
        tables.tracked(&subject.key)
    };
    let mut remembered = true;
    let may_answer = tcp_flags & tcp::RST as u32 != 0;
    if service.shield != 0 && (may_answer || !is_current(known, service)) {
        let looked_at = (tcp_flags, &subject, known.is_some());
        match shield::pass(frame, tables, interface, (service, flow), looked_at) {
            Ok(may_be) => remembered = may_be,
            Err(ends) => return ends,
        }
        if is_new {
            known = tables.tracked(&subject.key);
        }
    }
    let datagram = (L4_V6 as u32, behind);
    let named = quic::server(frame, tables, service, flow, datagram);
    let number = target(tables, service, &subject, (known, remembered), named).unwrap_or(NOBODY);
    let hop = tables.target(number).ok_or(Reason::NoTarget)?;
    let HopKind::Direct(wrap) = hop.kind() else {
        return Err(Reason::NoTarget);
    };
    if !remembered && subject.age == Age::HasBegun {
        track::follow(tables, service, &subject, known, number);
    }
    limit::admit(tables, (service.limit, service.vni), false, length)?;
    let parcel = Parcel {
        length,
        largest: length,
        hash: subject.hash,
        refuser: flow.destination,
        event: Event::Exited,
    };
    direct::to_server_v6(frame, tables, (node, interface), (service, hop, wrap), &parcel)
}

/// Whether a flow has a target, and its service has not changed since it was looked at.
#[inline(always)]
fn is_current(known: Option<&Tracked>, service: &Service) -> bool {
    known.is_some_and(|known| known.choice().1 == service.generation)
}

/// Where a flow goes: to the target that its packet has `named`, unless that is [`NOBODY`], else to its own, which it has
/// if it is `known`; whether it may be `remembered`.
#[inline(always)]
fn target<T: Tables>(
    tables: &T,
    service: &Service,
    subject: &Subject,
    (known, remembered): (Option<&Tracked>, bool),
    named: u32,
) -> Option<u32> {
    if named == NOBODY {
        return track::target(tables, service, subject, known, remembered);
    }
    if remembered {
        track::follow(tables, service, subject, known, named);
    }
    Some(named)
}

/// The same of an IPv4 flow, of whose entry a copy is kept; [`NOBODY`] where there is none.
#[inline(always)]
fn chosen<T: Tables>(
    tables: &T,
    service: &Service,
    (flow, subject): (&Flow, &Subject),
    (known, remembered): (Option<&Tracked>, bool),
    named: u32,
) -> u32 {
    let number = target(tables, service, subject, (known, remembered), named);
    if let Some(known) = known {
        cache::keep(tables, service, (flow, subject), known);
    }
    number.unwrap_or(NOBODY)
}

/// A target, by its number.
#[inline(always)]
fn hop<T: Tables>(tables: &T, number: Option<u32>) -> Result<&NextHop, Reason> {
    number
        .and_then(|number| tables.target(number))
        .ok_or(Reason::NoTarget)
}

/// Octets in the largest IP packet that a path carries.
#[inline(always)]
#[must_use]
pub fn backbone_mtu(node: &NodeConfig) -> u16 {
    node.mtu.saturating_sub(BACKBONE as u16)
}

/// Sends an ICMP error about an answer, whose quoted flow is `quoted`, to the exit or the server of that flow, unchanged.
///
/// # Errors
/// Those of [`exact`], [`shield`], [`limit`], [`send`], [`exit`] and [`direct`]; `NoTarget`.
#[inline(always)]
pub fn icmp_error<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    (service, quoted): (&Service, &Flow),
) -> Outcome {
    let sane = checked(frame)?;
    let subject = Subject::quoted(service, quoted);
    let known = tables.tracked(&subject.key);
    if service.shield != 0 && !is_current(known, service) {
        let passed = shield::pass_error(frame, tables, interface, (service, quoted), known.is_some());
        if let Err(ends) = passed {
            return ends;
        }
    }
    let hop = hop(tables, target(tables, service, &subject, (known, true), NOBODY))?;
    limit::admit(tables, (service.limit, service.vni), false, sane.length)?;
    match hop.kind() {
        HopKind::Path => {
            sanity::exact(frame, sane.length)?;
            send::over_pair(frame, tables, node, hop.index, (service.vni, false))
        }
        HopKind::Server => exit::icmp_error(frame, tables, node, service.vni),
        HopKind::Direct(wrap) => {
            let parcel = Parcel {
                length: sane.length,
                largest: sane.largest,
                hash: subject.hash,
                refuser: 0,
                event: Event::Exited,
            };
            direct::to_server(frame, tables, (node, interface), (service, hop, wrap), &parcel)
        }
        _ => Err(Reason::NoTarget),
    }
}

/// Sends an ICMPv6 error about an answer, whose quoted flow is `quoted`, to the server of that flow, unchanged.
///
/// # Errors
/// `Truncated`; those of [`sanity`], [`shield`], [`limit`] and [`direct`]; `NoTarget`.
#[inline(always)]
pub fn icmp_error_v6<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    (service, quoted): (&Service, &Flow<IpKey>),
) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<L4_V6>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv6::at::<IP, L4_V6>(head);
    let (behind, hops, ends) = (
        ip.payload_length() as u32,
        ip.hop_limit(),
        [ip.source(), ip.destination()],
    );
    let length = sanity::length_v6(octets, behind, hops, ends)?;
    if behind < 56 {
        return Err(Reason::BadLength);
    }
    let subject = Subject::quoted(service, quoted);
    let known = tables.tracked(&subject.key);
    if service.shield != 0 && !is_current(known, service) {
        let passed = shield::pass_error(frame, tables, interface, (service, quoted), known.is_some());
        if let Err(ends) = passed {
            return ends;
        }
    }
    let hop = hop(tables, target(tables, service, &subject, (known, true), NOBODY))?;
    let HopKind::Direct(wrap) = hop.kind() else {
        return Err(Reason::NoTarget);
    };
    limit::admit(tables, (service.limit, service.vni), false, length)?;
    let parcel = Parcel {
        length,
        largest: length,
        hash: subject.hash,
        refuser: IpKey::default(),
        event: Event::Exited,
    };
    direct::to_server_v6(frame, tables, (node, interface), (service, hop, wrap), &parcel)
}

/// Checks an ICMP error's IP header, and cuts off what the link padded.
///
/// # Errors
/// Those of [`checked`]; `NoRoom`.
#[inline(always)]
pub fn exact<F: Frame>(frame: &mut F) -> Result<Sane, Reason> {
    let sane = checked(frame)?;
    sanity::exact(frame, sane.length)?;
    Ok(sane)
}

/// Checks length, checksum, time to live and source of an ICMP error.
///
/// # Errors
/// `Truncated`, `BadLength`, `BadChecksum`, `Ttl`, `Martian`.
#[inline(always)]
fn checked<F: Frame>(frame: &mut F) -> Result<Sane, Reason> {
    let octets = frame.len();
    let Some(head) = frame.head::<42>() else {
        return Err(Reason::Truncated);
    };
    let is_error = Icmp::at::<L4, 42>(head).is_error();
    let ip = Ipv4::at::<IP, 42>(head);
    let (length, dont_fragment) = (ip.total_length() as u32, ip.dont_fragment());
    if !is_error || length + IP as u32 > octets || length < 56 {
        return Err(Reason::BadLength);
    }
    if !ip.checksum_is_right() {
        return Err(Reason::BadChecksum);
    }
    if ip.ttl() <= 1 {
        return Err(Reason::Ttl);
    }
    let (source, destination) = (ip.source(), ip.destination());
    if sanity::is_martian(source) || source == destination {
        return Err(Reason::Martian);
    }
    Ok(Sane {
        length,
        largest: length,
        tcp_flags: 0,
        dont_fragment,
    })
}
