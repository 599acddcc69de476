//! The exit: a client's packet leaves the backbone for its endpoint.

use super::backbone::Outer;
use super::flow::Flow;
use super::sanity::{self, Sane};
use super::{INNER, IP, L4, emit, enter, fragment, icmp_error as translate, rewrite, ring, sign};
use crate::frame;
use crate::header::{Ipv4, ipv4, tcp};
use crate::map::{Be16, Connection, ConnectionKey, HopKind, IpKey, NextHop, NodeConfig, Sign, Slot};
use crate::tables::Insertion;
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Ports of the exit's range that are tried for a new connection.
const TRIES: u32 = 32;
/// Octets up to the end of the inner IPv4 header.
const CARRIED: usize = INNER + 20;

/// Takes in an authentic data packet: sequence number, decapsulation, then onward by its direction.
///
/// The tag covers the length that the inner header says, not the octets behind its reach: a packet that was cut short
/// or lengthened on its way takes no number. Of a packet that comes over both paths of its pair the first copy goes on;
/// the second is counted as received, so that its path is not taken for a lossy one, and has done its work.
///
/// # Errors
/// `Truncated`, `BadLength`; `Duplicate`, `Late`, `OldIncarnation`; `NoPath` where the slot has no window; `NoRoom`;
/// `IpOptions`; `Fragment` where the ports are not known;
/// then those of [`forward`], [`icmp_error`] and [`emit`].
#[inline(always)]
pub fn arrive<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    slot: &Slot,
    outer: &Outer,
) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<CARRIED>() else {
        return Err(Reason::Truncated);
    };
    if Ipv4::at::<INNER, CARRIED>(head).total_length() as u32 + INNER as u32 != octets {
        return Err(Reason::BadLength);
    }
    let (Some(window), Some(state)) = (
        tables.window(slot.window),
        tables.slot_state(outer.header.word().label()),
    ) else {
        return Err(Reason::NoPath);
    };
    let word = outer.header.word();
    let admitted = window.admit(tables, word.incarnation(), word.lane(), outer.header.sequence());
    if word.is_duplicated() && is_own(tables, slot, outer) && admitted == Err(Reason::Duplicate) {
        tables.add(&state.received, 1);
        tables.count(Event::SecondCopy, octets);
        return Ok(Next::Consumed);
    }
    admitted?;
    tables.add(&state.received, 1);
    if !frame.pull::<frame::Backbone>() {
        return Err(Reason::NoRoom);
    }
    let head = match frame.head::<42>() {
        Some(head) => head,
        None => fragment::lengthened(frame, tables, outer.header.vni())?,
    };
    let ip = Ipv4::at::<IP, 42>(head);
    let (version, is_fragment) = (ip.version_and_length(), ip.is_fragment());
    if version != 0x45 {
        return Err(Reason::IpOptions);
    }
    let mut flow = Flow::at::<IP, L4, 42>(head);
    if is_fragment {
        let located = match flow.protocol {
            ipv4::TCP | ipv4::UDP => fragment::locate(frame, tables, outer.header.vni(), &flow),
            _ => None,
        };
        flow = located.ok_or(Reason::Fragment)?;
    }
    match (word.is_reply(), flow.protocol) {
        (true, _) => emit::to_client(frame, tables, outer.header.vni(), &flow),
        (false, ipv4::TCP | ipv4::UDP) => {
            let sane = sanity::check(frame, tables, outer.header.vni(), &flow)?;
            sanity::exact(frame, sane.length)?;
            let to = Answers {
                vni: outer.header.vni(),
                pair: slot.answers,
            };
            forward(frame, tables, node, &to, (&flow, &sane), |hash| {
                let Some(service) = tables.service(&flow.service(to.vni)) else {
                    return Err(Reason::NoListener);
                };
                let slot = ring::at_exit(hash);
                let number =
                    ring::number(tables, (service.first, service.size), slot).unwrap_or(ring::NOBODY);
                let target = tables.target(number);
                Ok((number, target.ok_or(Reason::NoTarget)?, service.limit))
            })
        }
        (false, ipv4::ICMP) => icmp_error(frame, tables, node, outer.header.vni()),
        _ => Err(Reason::UnknownProtocol),
    }
}

/// Whether a packet of which each path of the pair brings a copy is the first with its number on this path.
#[inline(always)]
fn is_own<T: Tables>(tables: &T, slot: &Slot, outer: &Outer) -> bool {
    let word = outer.header.word();
    let window = tables.own_window(slot.copies).filter(|_| slot.copies != 0);
    window.is_some_and(|window| {
        let admitted = window.admit(tables, word.incarnation(), word.lane(), outer.header.sequence());
        admitted.is_ok()
    })
}

/// The way of a connection's answers.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    /// The accelerator, or the service.
    pub vni: u32,
    /// The pair that they take; [`NO_PATH`](crate::map::NO_PATH) where the client came to this host itself.
    pub pair: u32,
}

/// Sends a client's packet on to the endpoint of its connection, which it opens if it is the first: then `choose` says
/// by the flow's hash the endpoint, with its number, and under which limit.
///
/// A connection follows its client to another pair.
///
/// # Errors
/// Those of `choose`, [`open`] and [`rewrite`]; `NoRoute`, `NoNeighbour`.
#[inline(always)]
pub fn forward<'t, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &'t T,
    node: &NodeConfig,
    answers: &Answers,
    (flow, sane): (&Flow, &Sane),
    choose: impl FnOnce(u32) -> Result<(u32, &'t NextHop, u32), Reason>,
) -> Outcome {
    let (octets, now, key) = (frame.len(), tables.jiffies(), flow.connection(answers.vni));
    let connection = match tables.connection(&key) {
        Some(connection) if !begins_anew(tables, connection, (&key, sane.tcp_flags)) => connection,
        _ => {
            let hash = flow.hash();
            let (number, hop, limit) = choose(hash)?;
            // What a server says to the midst of a connection that it does not know is no sign.
            let number = if sane.may_begin() { number } else { 0 };
            open(tables, node, answers, (&key, hash), (number, hop, limit), octets)?
        }
    };
    if connection.pair() != answers.pair {
        follow(tables, connection, flow.protocol, answers.pair);
    }
    let route = tables.route(node.local.get(), connection.destination.low())?;
    rewrite::apply(frame, connection, flow)?;
    rewrite::address(frame, &route)?;
    connection.count(tables, sane.length, sane.tcp_flags, now);
    tables.count(Event::Exited, octets);
    Ok(Next::Transmit(route.interface))
}

/// Whether a client uses the port of a connection that is over for one that begins, which has nothing to do with that:
/// then both directions of the old one go.
#[inline(always)]
fn begins_anew<T: Tables>(
    tables: &T,
    connection: &Connection,
    (key, tcp_flags): (&ConnectionKey, u32),
) -> bool {
    if !tcp::begins(tcp_flags as u8) {
        return false;
    }
    let back_key = back_key(connection, key.protocol as u8);
    match tables.connection(&back_key) {
        Some(back) if connection.is_over_for_server(back) => {}
        _ => return false,
    }
    tables.close(&back_key);
    tables.close(key);
    true
}

/// Sends answers over another pair from now on.
#[inline(always)]
fn follow<T: Tables>(tables: &T, connection: &Connection, protocol: u8, answers: u32) {
    connection.follow(answers);
    if let Some(back) = tables.connection(&back_key(connection, protocol)) {
        back.follow(answers);
    }
}

/// The key under which the answers to a connection's packets arrive.
#[inline(always)]
fn back_key(connection: &Connection, protocol: u8) -> ConnectionKey {
    ConnectionKey::new(
        0,
        [connection.destination, connection.source],
        [connection.destination_port, connection.source_port],
        protocol as u32,
    )
}

/// Opens a connection to an endpoint, whose number is 0 where that is no sign, under a limit: a port of the exit's range
/// that is free towards it, and both directions in the table.
///
/// # Errors
/// `NoTarget` where it is no endpoint; `PortsExhausted` where none of the ports that were tried is free;
/// `ConnectionsFull`.
#[inline(always)]
fn open<'t, T: Tables>(
    tables: &'t T,
    node: &NodeConfig,
    answers: &Answers,
    (key, hash): (&ConnectionKey, u32),
    (number, target, limit): (u32, &NextHop, u32),
    octets: u32,
) -> Result<&'t Connection, Reason> {
    if target.kind() != HopKind::Server {
        return Err(Reason::NoTarget);
    }
    let (now, &Answers { vni, pair }) = (tables.jiffies(), answers);
    let kept = target.port.get() == 0;
    let port = if kept { key.destination_port } else { target.port };
    let addresses = [IpKey::v4(node.local.get()), target.address];
    let mut leaves = ConnectionKey::new(0, addresses, [Be16::new(0), port], key.protocol);
    let back = key.turned_round(0);
    leaves.source_port = claim(tables, node, hash, &leaves, || {
        Connection::new(vni, pair, &back, now).under(limit).with(number)
    })?;
    let forward = tables.open(key, Connection::new(vni, pair, &leaves, now));
    if forward.is_err() {
        // Another CPU opened the same connection first, or the table is full: the port goes back.
        tables.close(&leaves.turned_round(0));
    } else {
        tables.count(Event::ConnectionOpened, octets);
        sign::count(tables, number, Sign::Opened);
    }
    tables.connection(key).ok_or(Reason::ConnectionsFull)
}

/// Claims a port of the exit's range by entering the direction of the answers under it. A port serves as many
/// connections as there are endpoints.
#[inline(always)]
fn claim<T: Tables>(
    tables: &T,
    node: &NodeConfig,
    hash: u32,
    leaves: &ConnectionKey,
    back: impl Fn() -> Connection,
) -> Result<Be16, Reason> {
    let range = (node.last_port as u32 + 1).saturating_sub(node.first_port as u32);
    if node.last_port == 0 || range == 0 {
        return Err(Reason::PortsExhausted);
    }
    for attempt in 0..TRIES {
        let port = node.first_port as u32 + (hash.wrapping_add(attempt)) % range;
        let mut key = leaves.turned_round(0);
        key.destination_port = Be16::new(port as u16);
        match tables.open(&key, back()) {
            Ok(()) => return Ok(key.destination_port),
            Err(Insertion::Full) => return Err(Reason::ConnectionsFull),
            Err(Insertion::Exists) => {}
        }
    }
    Err(Reason::PortsExhausted)
}

/// Sends a client's ICMP error about an answer on to the endpoint that sent the answer.
///
/// # Errors
/// Those of [`enter::exact`] and [`translate`]; `NoConnection`; `NoRoute`, `NoNeighbour`.
#[inline(always)]
pub fn icmp_error<F: Frame, T: Tables>(frame: &mut F, tables: &T, node: &NodeConfig, vni: u32) -> Outcome {
    let octets = frame.len();
    enter::exact(frame)?;
    let quoted = translate::quoted(frame)?;
    let key = quoted.turned_round().connection(vni);
    let Some(connection) = tables.connection(&key) else {
        return Err(Reason::NoConnection);
    };
    let route = tables.route(node.local.get(), connection.destination.low())?;
    translate::apply(frame, connection)?;
    rewrite::address(frame, &route)?;
    tables.count(Event::Exited, octets);
    Ok(Next::Transmit(route.interface))
}
