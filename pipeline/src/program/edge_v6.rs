//! The edge's IPv6: services alone, since the backbone is IPv4.

use super::edge::{self, any_port, left, listener, unclaimed, unless, whole};
use crate::header::{Icmp, Ipv6, ipv4, ipv6};
use crate::map::{IpKey, NodeConfig, policy};
use crate::stage::flow::Flow;
use crate::stage::{echo, enter, icmp_error, neighbour};
use crate::{Frame, Next, Outcome, Reason, Tables};

/// Octets up to the ports and what follows them.
const READ: usize = 62;

/// As [`edge::run`](super::edge::run), of a frame whose ethertype says IPv6; of one to a group, what asks for addresses
/// alone.
///
/// # Errors
/// Those of the stages.
#[inline(always)]
pub(super) fn run<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    (interface, is_to_group): (u32, bool),
) -> Outcome {
    let Some(head) = frame.head::<READ>() else {
        if is_to_group {
            return Ok(Next::Pass);
        }
        return short(frame, tables);
    };
    let icmp = Icmp::at::<54, READ>(head);
    let (is_error, is_echo) = (icmp.is_error_v6(), icmp.is_echo_request_v6());
    let version = Ipv6::at::<14, READ>(head).version();
    let flow = Flow::of_v6::<14, 54, READ>(head);
    let is_message = version == 6 && flow.protocol == ipv6::ICMP && !is_error && !is_echo;
    // Neighbour discovery is how the address is found at all.
    if is_to_group || is_message {
        let is_answered = is_message && neighbour::is_answered(frame, tables)?;
        return match tables.settled(if is_answered { interface } else { 0 }) {
            0 => Ok(Next::Pass),
            onward => Ok(Next::Transmit(onward)),
        };
    }
    // Keys hold IPv4 addresses so, and on a wire they are nobody's.
    if flow.destination.as_v4().is_some() {
        return Ok(Next::Pass);
    }
    if version != 6 {
        return unclaimed(tables, flow.destination, Reason::BadLength);
    }
    match flow.protocol {
        ipv4::TCP | ipv4::UDP => conversation(frame, tables, node, interface, &flow),
        ipv6::ICMP if is_error => about(frame, tables, node, interface, flow.destination),
        ipv6::ICMP => edge::echo(tables, flow.destination, || {
            echo::answer_v6(frame, tables, interface)
        }),
        ipv6::FRAGMENT => unless(tables, flow.destination, policy::PASS_FRAGMENTS, Reason::Fragment),
        ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::AUTHENTICATION | ipv6::DESTINATION_OPTIONS => {
            unless(tables, flow.destination, policy::PASS_OPTIONS, Reason::IpOptions)
        }
        _ => unclaimed(tables, flow.destination, Reason::NoListener),
    }
}

/// A frame that is too short for ports.
#[inline(always)]
fn short<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Outcome {
    match frame.head::<54>() {
        Some(head) => {
            let destination = Ipv6::at::<14, 54>(head).destination();
            unclaimed(tables, destination, Reason::Truncated)
        }
        None => Ok(Next::Pass),
    }
}

/// TCP or UDP: for a listener, or not.
#[inline(always)]
fn conversation<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    flow: &Flow<IpKey>,
) -> Outcome {
    let service = match tables.service(&flow.service(0)) {
        Some(service) => service,
        None => {
            let Some(whole) = whole(tables, flow.destination) else {
                return Ok(Next::Pass);
            };
            match any_port(tables, whole, flow) {
                Some(service) => service,
                None => return left(whole, Reason::NoListener),
            }
        }
    };
    enter::client_packet_v6(frame, tables, node, interface, (service, flow))
}

/// An ICMPv6 error: about an answer to a client, or the host's own.
#[inline(always)]
fn about<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    destination: IpKey,
) -> Outcome {
    let Ok(quoted) = icmp_error::quoted_v6(frame) else {
        return unclaimed(tables, destination, Reason::NoListener);
    };
    match listener(tables, &quoted, destination) {
        Some(service) => enter::icmp_error_v6(frame, tables, node, interface, (service, &quoted)),
        None => unclaimed(tables, destination, Reason::NoListener),
    }
}
