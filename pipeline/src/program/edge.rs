//! The edge: backbone, services and the exit's ports.

use super::edge_v6;
use crate::header::{Ethernet, Icmp, Ipv4, ethernet, ipv4};
use crate::map::{NodeConfig, Service, ServiceKey, policy};
use crate::stage::flow::{Address, Flow, Part};
use crate::stage::{answer, arp, backbone, echo, enter, fragment, icmp_error};
use crate::{Frame, Next, Outcome, Reason, Tables};

/// Bounded parse, service look-up, and only then sanity: what is not Kuafu's is passed on unread.
///
/// # Errors
/// Those of the stages.
#[inline(always)]
pub fn run<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32) -> Outcome {
    let Some(node) = tables.node() else {
        return Ok(Next::Pass);
    };
    let head = match frame.head::<42>() {
        Some(head) => head,
        None => match short(frame, tables) {
            Ok(head) => head,
            Err(_) => return Ok(Next::Pass),
        },
    };
    let ethernet = Ethernet::at::<0, 42>(head);
    // To a group: what leaves would come from that address.
    match (ethernet.is_to_group(), ethernet.ethertype()) {
        (false, ethernet::IPV4) => {}
        (is_to_group, ethernet::IPV6) => return edge_v6::run(frame, tables, node, (interface, is_to_group)),
        _ => return arp::at_edge(frame, tables, interface),
    }
    let icmp = Icmp::at::<34, 42>(head);
    let (is_error, is_echo) = (icmp.is_error(), icmp.is_echo_request());
    let ip = Ipv4::at::<14, 42>(head);
    let (version, is_fragment) = (ip.version_and_length(), ip.is_fragment());
    let flow = Flow::at::<14, 34, 42>(head);
    if version >> 4 != 4 {
        return unclaimed(tables, flow.destination, Reason::BadLength);
    }
    if version != 0x45 {
        return unless(tables, flow.destination, policy::PASS_OPTIONS, Reason::IpOptions);
    }
    let flow = match flow.protocol {
        ipv4::TCP | ipv4::UDP if is_fragment => {
            if let Some(whole) = whole(tables, flow.destination) {
                if whole.has(policy::PASS_FRAGMENTS) {
                    return Ok(Next::Pass);
                }
                if whole.has(policy::DROP_FRAGMENTS) {
                    return Err(Reason::Fragment);
                }
            }
            match fragment::locate(frame, tables, 0, &flow) {
                Some(first) if first.part == Part::First && is_backbone(node, &first) => {
                    return Err(Reason::Fragment);
                }
                Some(located) => located,
                None => return unless(tables, flow.destination, 0, Reason::Fragment),
            }
        }
        ipv4::UDP if is_backbone(node, &flow) => return backbone::receive(frame, tables, node),
        ipv4::TCP | ipv4::UDP => flow,
        ipv4::ICMP if is_fragment => {
            return unless(tables, flow.destination, policy::PASS_FRAGMENTS, Reason::Fragment);
        }
        ipv4::ICMP if is_error => return about(frame, tables, node, interface, flow.destination),
        ipv4::ICMP if is_echo => {
            return echo(tables, flow.destination, || {
                echo::answer(frame, tables, interface)
            });
        }
        _ => return unclaimed(tables, flow.destination, Reason::NoListener),
    };
    conversation(frame, tables, node, interface, &flow)
}

/// The head of a frame that is too short for ports, if it is the end of a datagram that is known here.
#[inline(always)]
fn short<'f, F: Frame, T: Tables>(frame: &'f mut F, tables: &T) -> Result<&'f mut [u8; 42], Reason> {
    let Some(head) = frame.head::<34>() else {
        return Err(Reason::Truncated);
    };
    let ethernet = Ethernet::at::<0, 34>(head);
    // What is passed on stays as long as it is.
    if ethernet.ethertype() != ethernet::IPV4 || ethernet.is_to_group() {
        return Err(Reason::UnknownProtocol);
    }
    fragment::lengthened(frame, tables, 0)
}

#[inline(always)]
fn is_backbone(node: &NodeConfig, flow: &Flow) -> bool {
    flow.destination_port == node.backbone_port.get() && flow.destination == node.local.get()
}

/// TCP or UDP: for a listener, for the exit's ports, or neither.
#[inline(always)]
fn conversation<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    flow: &Flow,
) -> Outcome {
    let service = match tables.service(&flow.service(0)) {
        Some(service) => service,
        None => {
            if flow.destination == node.local.get() && answer::is_ours(node, flow.destination_port) {
                return answer::from_endpoint(frame, tables, node, interface, flow);
            }
            let Some(whole) = whole(tables, flow.destination) else {
                return Ok(Next::Pass);
            };
            match any_port(tables, whole, flow) {
                Some(service) => service,
                None => return left(whole, Reason::NoListener),
            }
        }
    };
    enter::client_packet(frame, tables, node, interface, (service, flow))
}

/// An ICMP error: about a packet that the exit sent to an endpoint, about an answer to a client, or the host's own.
#[inline(always)]
fn about<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    interface: u32,
    destination: u32,
) -> Outcome {
    let Ok(quoted) = icmp_error::quoted(frame) else {
        return unclaimed(tables, destination, Reason::NoListener);
    };
    if let Some(service) = listener(tables, &quoted, destination) {
        return enter::icmp_error(frame, tables, node, interface, (service, &quoted));
    }
    let to_us = destination == node.local.get() && quoted.source == destination;
    if to_us && answer::is_ours(node, quoted.source_port) {
        return answer::icmp_about(frame, tables, node, &quoted);
    }
    unclaimed(tables, destination, Reason::NoListener)
}

/// The listener whose answer is quoted, where the error was sent to it.
#[inline(always)]
pub(super) fn listener<'t, T: Tables, A: Address + PartialEq>(
    tables: &'t T,
    quoted: &Flow<A>,
    destination: A,
) -> Option<&'t Service> {
    if quoted.source != destination {
        return None;
    }
    let asked = quoted.turned_round();
    match tables.service(&asked.service(0)) {
        Some(service) => Some(service),
        None => any_port(tables, whole(tables, destination)?, &asked),
    }
}

/// An echo request: the service's address answers, or leaves it to the host; or it is the host's own.
#[inline(always)]
pub(super) fn echo<T: Tables, A: Address>(
    tables: &T,
    destination: A,
    answer: impl FnOnce() -> Outcome,
) -> Outcome {
    match whole(tables, destination) {
        Some(whole) if whole.has(policy::ANSWER_ECHO) => answer(),
        Some(whole) if whole.has(policy::PASS_ECHO) => Ok(Next::Pass),
        Some(whole) => left(whole, Reason::NoListener),
        None => Ok(Next::Pass),
    }
}

/// The address as a whole, where it is Kuafu's.
#[inline(always)]
pub(crate) fn whole<T: Tables, A: Address>(tables: &T, destination: A) -> Option<&Service> {
    tables.service(&ServiceKey {
        address: destination.key(),
        ..ServiceKey::default()
    })
}

/// The listener for all ports of an address.
#[inline(always)]
pub(super) fn any_port<'t, T: Tables, A: Address>(
    tables: &'t T,
    whole: &Service,
    flow: &Flow<A>,
) -> Option<&'t Service> {
    let all = if flow.protocol == ipv4::TCP {
        policy::ALL_TCP
    } else {
        policy::ALL_UDP
    };
    if whole.has(all) {
        tables.service(&flow.any_port())
    } else {
        None
    }
}

/// A packet to an address of Kuafu's that no stage takes: dropped, unless what is left is the host's own.
#[inline(always)]
pub(super) const fn left(whole: &Service, reason: Reason) -> Outcome {
    if whole.has(policy::OPEN) {
        Ok(Next::Pass)
    } else {
        Err(reason)
    }
}

/// A packet that no stage takes: the host's own, unless the whole address is Kuafu's.
#[inline(always)]
pub(super) fn unclaimed<T: Tables, A: Address>(tables: &T, destination: A, reason: Reason) -> Outcome {
    match whole(tables, destination) {
        Some(whole) => left(whole, reason),
        None => Ok(Next::Pass),
    }
}

/// A packet of a kind that services do not take: the host's own, unless the whole address is Kuafu's and its policy does
/// not leave that kind to the host.
#[inline(always)]
pub(super) fn unless<T: Tables, A: Address>(
    tables: &T,
    destination: A,
    passed: u32,
    reason: Reason,
) -> Outcome {
    match whole(tables, destination) {
        Some(whole) if !whole.has(passed) => Err(reason),
        _ => Ok(Next::Pass),
    }
}
