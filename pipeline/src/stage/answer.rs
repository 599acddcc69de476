//! The exit again: an endpoint's answer goes back to its client's entry.

use super::enter::{backbone_mtu, exact};
use super::flow::Flow;
use super::{BACKBONE, L4, icmp_error, limit, rewrite, sanity, send, sign, slow_path, too_big};
use crate::header::errand::Way;
use crate::header::{Icmp, tcp};
use crate::map::{Connection, NO_PATH, NodeConfig, Sign};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Whether a port belongs to the exit's range.
#[inline(always)]
#[must_use]
pub const fn is_ours(node: &NodeConfig, port: u16) -> bool {
    node.last_port != 0 && port >= node.first_port && port <= node.last_port
}

/// Sends an endpoint's answer over the pair of its connection; it then reads accelerated address → client.
///
/// # Errors
/// `NoConnection`; those of [`sanity`], [`too_big`] (from this host's address), [`limit`], [`rewrite`], [`slow_path`] and
/// [`send`].
#[inline(always)]
pub fn from_endpoint<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    flow: &Flow,
) -> Outcome {
    let Some(connection) = tables.connection(&flow.connection(0)) else {
        return Err(Reason::NoConnection);
    };
    let sane = sanity::check(frame, tables, 0, flow)?;
    sanity::exact(frame, sane.length)?;
    let pair = connection.pair();
    let fits = pair == NO_PATH || sane.largest + BACKBONE <= node.mtu as u32;
    if !fits && sane.dont_fragment {
        return too_big::refuse(frame, tables, interface, node.local.get(), backbone_mtu(node));
    }
    limit::admit(tables, (connection.limit(), connection.vni), true, sane.length)?;
    rewrite::apply(frame, connection, flow)?;
    if connection.count(tables, sane.length, sane.tcp_flags, tables.jiffies()) {
        let refuses = sane.tcp_flags & tcp::RST as u32 != 0;
        let sign = if refuses { Sign::Refused } else { Sign::Answered };
        sign::count(tables, connection.target(), sign);
    }
    if !fits {
        let way = Way {
            pair,
            vni: connection.vni,
            reply: true,
        };
        return slow_path::hand_over(frame, tables, node, &way);
    }
    onward(frame, tables, node, connection)
}

/// Sends an ICMP error about a packet to an endpoint back to the client that sent the packet.
///
/// # Errors
/// `NoConnection`; those of [`exact`], [`limit`], [`icmp_error`] and [`send`].
#[inline(always)]
pub fn icmp_about<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    quoted: &Flow,
) -> Outcome {
    let sane = exact(frame)?;
    let key = quoted.turned_round().connection(0);
    let Some(connection) = tables.connection(&key) else {
        return Err(Reason::NoConnection);
    };
    limit::admit(tables, (connection.limit(), connection.vni), true, sane.length)?;
    icmp_error::apply(frame, connection)?;
    let head = frame.head::<42>();
    if head.is_some_and(|head| Icmp::at::<L4, 42>(head).says_nobody()) && connection.is_refused(tables) {
        sign::count(tables, connection.target(), Sign::Refused);
    }
    onward(frame, tables, node, connection)
}

/// Over the backbone, or straight on where the client came to this host itself.
#[inline(always)]
fn onward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    connection: &Connection,
) -> Outcome {
    let pair = connection.pair();
    if pair != NO_PATH {
        return send::over_pair(frame, tables, node, pair, (connection.vni, true));
    }
    let octets = frame.len();
    let route = tables.route(connection.source.low(), connection.destination.low())?;
    rewrite::address(frame, &route)?;
    tables.count(Event::Emitted, octets);
    Ok(Next::Transmit(route.interface))
}
