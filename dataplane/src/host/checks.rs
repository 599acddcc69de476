//! The way of health checks out of the host, where a server is to be asked that answers its clients itself: the agent's
//! sockets say by their mark which one (`kuafu_pipeline::stage::check`), and what has such a mark leaves by `kuafu0`, at
//! whose other end the port program takes it.
//!
//! A rule leads there, by a routing table of its own with one route. Answers come over the underlay as any host's. A
//! service's address that is also the host's own cannot be asked this way: the kernel's rule for own addresses is
//! before every other.

use std::net::Ipv4Addr;

use kuafu_model::HostState;
use kuafu_model::state::Target;
use kuafu_pipeline::map::Wrap;
use kuafu_pipeline::stage::check::{MARK, MASK};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric, RouteScope};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::net::{Net, Way};
use super::overlay;
use crate::error::Result;

/// The routing table, 0x4b as the mark.
const TABLE: u8 = 75;
/// The rule's place: behind the one for the host's own addresses, before all that say where other packets go.
const PRIORITY: u32 = 75;
/// An address that nobody has (RFC 1112, class E): where a packet to it goes, all go that are marked alike.
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 1);

/// Whether a state has a server that is asked through its encapsulation.
pub(super) fn are_wanted(state: &HostState) -> bool {
    let mut targets = state.services.iter().flat_map(|service| &service.targets);
    targets.any(|target| target.check.is_some() && matches!(target.target, Target::Direct { .. }))
}

/// Leads checks out of this interface, in packets that fit behind any encapsulation. Where they are led there already,
/// nothing is touched.
pub(super) fn lead(net: &Net, interface: u32, underlay_mtu: u32) -> Result<()> {
    let way = Way {
        interface,
        mtu: Some(underlay_mtu.saturating_sub(largest_wrap())),
    };
    if net.way_of(ANYWHERE, MARK)? == Some(way) {
        return Ok(());
    }
    // The rule first: a kernel without tables beside its own refuses it, and would take the route for a usual one.
    net.add_rule("lead health checks to their route", rule())?;
    net.set_route("route health checks", route(way))
}

/// Leads checks nowhere any more; whether they were led.
pub(crate) fn stop(net: &Net) -> Result<bool> {
    let had_rule = net.remove_rule("remove the rule of health checks", rule())?;
    let Some(overlay) = net.named(overlay::NAME)? else {
        // The route went with it.
        return Ok(had_rule);
    };
    let (interface, mtu) = (overlay.index, None);
    let had_route = net.remove_route("remove the route of health checks", route(Way { interface, mtu }))?;
    Ok(had_rule || had_route)
}

/// Octets of the largest encapsulation.
fn largest_wrap() -> u32 {
    let wraps = [Wrap::Ipip, Wrap::Gue0, Wrap::Gue1, Wrap::Vxlan];
    wraps.map(Wrap::octets).into_iter().fold(0, u32::max)
}

fn rule() -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.header.table = TABLE;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(MARK),
        RuleAttribute::FwMask(MASK),
    ];
    rule
}

/// The table's one route.
fn route(Way { interface, mtu }: Way) -> RouteMessage {
    let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
        .table_id(TABLE.into())
        .scope(RouteScope::Link)
        .output_interface(interface)
        .build();
    let mtu = mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    route.attributes.extend(mtu);
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_encapsulation_is_vxlan() {
        assert_eq!(largest_wrap(), 50);
    }
}
