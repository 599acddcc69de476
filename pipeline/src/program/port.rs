//! What a port sends.

use crate::header::ethernet;
use crate::map::{EndpointKey, HopKind, IpKey, NodeConfig, Port};
use crate::stage::{SYSTEM_VNI, arp, check, encapsulate, probe, served, slow_path, source, too_big, twice};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Anti-spoofing, ARP, then to the endpoint: a port of this host, or another host by VXLAN; answers of a service, which
/// the port serves, to their client. From the system VPC's port
/// come probes, whose path is named by `mark`, the packet's socket mark, health checks, whose target it names, what the
/// edge handed over, and what comes back from the slow path.
///
/// # Errors
/// Those of the stages.
#[inline(always)]
pub fn run<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32, mark: u32) -> Outcome {
    let (Some(node), Some(port)) = (tables.node(), tables.port(interface)) else {
        return Ok(Next::Pass);
    };
    if port.vni == SYSTEM_VNI {
        if mark == slow_path::MARK {
            return slow_path::take_back(frame, tables, node);
        }
        if check::is_marked(mark) {
            return check::depart(frame, tables, node, mark);
        }
        if let Some((pair, numbered)) = twice::handed_over(frame) {
            return twice::over_both(frame, tables, node, pair, &numbered);
        }
        return probe::depart(frame, tables, node, mark);
    }
    let sender = source::read(frame, port)?;
    match sender.ethertype {
        ethernet::ARP => arp::from_port(frame, tables, interface, port),
        ethernet::IPV4 => {
            if served::is_answer(tables, port, &sender) {
                return served::answer(frame, tables, node, (interface, port), &sender);
            }
            source::check(&sender, port)?;
            to_endpoint(frame, tables, (node, port, interface), sender.destination)
        }
        ethernet::IPV6 => Err(Reason::Ipv6NotYet),
        _ => Err(Reason::UnknownProtocol),
    }
}

/// Sends an IPv4 packet to the endpoint that has its destination address.
#[inline(always)]
fn to_endpoint<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    (node, port, interface): (&NodeConfig, &Port, u32),
    destination: u32,
) -> Outcome {
    let octets = frame.len();
    let key = EndpointKey::new(port.vni, IpKey::v4(destination));
    let Some(endpoint) = tables.endpoint(&key) else {
        return Err(Reason::NoEndpoint);
    };
    source::address_to(frame, endpoint.mac)?;
    match endpoint.hop.kind() {
        HopKind::Port => {
            tables.count(Event::DeliveredLocally, octets);
            Ok(Next::Deliver(endpoint.hop.index))
        }
        HopKind::Vtep if encapsulate::fits(frame, port.mtu) => {
            encapsulate::to_vtep(frame, tables, node, port.vni, endpoint.hop.index)
        }
        HopKind::Vtep => too_big::refuse(frame, tables, interface, destination, port.mtu),
        _ => Err(Reason::NoEndpoint),
    }
}
