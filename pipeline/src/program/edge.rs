//! The edge: backbone, services and the exit's ports.

use crate::header::{Ethernet, Icmp, Ipv4, ethernet, ipv4};
use crate::map::{IpKey, NodeConfig, Service, ServiceKey};
use crate::stage::flow::Flow;
use crate::stage::flow::Part;
use crate::stage::{answer, backbone, enter, fragment, icmp_error};
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
    if Ethernet::at::<0, 42>(head).ethertype() != ethernet::IPV4 {
        return Ok(Next::Pass);
    }
    let is_error = Icmp::at::<34, 42>(head).is_error();
    let ip = Ipv4::at::<14, 42>(head);
    let (version, is_fragment) = (ip.version_and_length(), ip.is_fragment());
    let flow = Flow::at::<14, 34, 42>(head);
    if version != 0x45 {
        return unclaimed(
            tables,
            flow.destination,
            if version >> 4 == 4 {
                Reason::IpOptions
            } else {
                Reason::BadLength
            },
        );
    }
    let flow = match flow.protocol {
        ipv4::TCP | ipv4::UDP if is_fragment => match fragment::locate(frame, tables, 0, &flow) {
            Some(first) if first.part == Part::First && is_backbone(node, &first) => {
                return Err(Reason::Fragment);
            }
            Some(located) => located,
            None => return unclaimed(tables, flow.destination, Reason::Fragment),
        },
        ipv4::UDP if is_backbone(node, &flow) => return backbone::receive(frame, tables, node),
        ipv4::TCP | ipv4::UDP => flow,
        ipv4::ICMP if is_error && !is_fragment => return about(frame, tables, node, flow.destination),
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
    if Ethernet::at::<0, 34>(head).ethertype() != ethernet::IPV4 {
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
    if let Some(service) = tables.service(&flow.service(0)) {
        return enter::client_packet(frame, tables, node, interface, (service, flow));
    }
    if flow.destination == node.local.get() && answer::is_ours(node, flow.destination_port) {
        return answer::from_endpoint(frame, tables, node, interface, flow);
    }
    unclaimed(tables, flow.destination, Reason::NoListener)
}

/// An ICMP error: about a packet that the exit sent to an endpoint, about an answer to a client, or the host's own.
#[inline(always)]
fn about<F: Frame, T: Tables>(frame: &mut F, tables: &T, node: &NodeConfig, destination: u32) -> Outcome {
    let Ok(quoted) = icmp_error::quoted(frame) else {
        return unclaimed(tables, destination, Reason::NoListener);
    };
    if let Some(service) = listener(tables, &quoted, destination) {
        return enter::icmp_error(frame, tables, node, service, &quoted);
    }
    let to_us = destination == node.local.get() && quoted.source == destination;
    if to_us && answer::is_ours(node, quoted.source_port) {
        return answer::icmp_about(frame, tables, node, &quoted);
    }
    unclaimed(tables, destination, Reason::NoListener)
}

/// The listener whose answer is quoted, where the error was sent to it.
#[inline(always)]
fn listener<'t, T: Tables>(tables: &'t T, quoted: &Flow, destination: u32) -> Option<&'t Service> {
    if quoted.source != destination {
        return None;
    }
    tables.service(&quoted.turned_round().service(0))
}

/// A packet that no stage takes: the host's own, unless the whole address is Kuafu's.
#[inline(always)]
fn unclaimed<T: Tables>(tables: &T, destination: u32, reason: Reason) -> Outcome {
    let whole = ServiceKey {
        address: IpKey::v4(destination),
        ..ServiceKey::default()
    };
    if tables.service(&whole).is_some() {
        Err(reason)
    } else {
        Ok(Next::Pass)
    }
}
