//! The way of health checks out of the host, where a server is to be asked that answers its clients itself: the agent's
//! sockets say by their mark which one (`kuafu_pipeline::stage::check`), and what has such a mark leaves by `kuafu0`, at
//! whose other end the port program takes it.
//!
//! A rule leads there, by a routing table of its own with one route. Answers come over the underlay as any host's. A
//! service's address that is also the host's own cannot be asked this way: the kernel's rule for own addresses is
//! before every other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
use crate::family::Family;

/// The routing table, 0x4b as the mark.
const TABLE: u8 = 75;
/// The rule's place: behind the one for the host's own addresses, before all that say where other packets go.
const PRIORITY: u32 = 75;

/// An address that nobody has (RFC 1112, class E; RFC 6666): where a packet to it goes, all go that are marked alike.
const fn anywhere(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1)),
    }
}

/// Whether a state has a server of a family that is asked through its encapsulation.
pub(super) fn are_wanted(state: &HostState, family: Family) -> bool {
    let mut targets = state.services.iter().flat_map(|service| &service.targets);
    targets.any(|target| match target.target {
        Target::Direct { address, .. } => target.check.is_some() && Family::of(address) == family,
        Target::Pair(_) | Target::Server { .. } => false,
    })
}

/// Octets of a family's largest encapsulation.
fn largest_wrap(family: Family) -> u32 {
    let octets = |wrap: Wrap| match family {
        Family::V4 => wrap.octets(),
        Family::V6 => wrap.octets_v6(),
    };
    let wraps = [Wrap::Ipip, Wrap::Gue0, Wrap::Gue1, Wrap::Vxlan];
    wraps.map(octets).into_iter().fold(0, u32::max)
}

/// Leads the checks that a state has out of this interface, in packets that fit behind any encapsulation. Where they are
/// led there already, nothing is touched.
pub(super) fn lead(net: &Net, state: &HostState, interface: u32, underlay_mtu: u32) -> Result<()> {
    for family in Family::BOTH
        .into_iter()
        .filter(|family| are_wanted(state, *family))
    {
        let way = Way {
            interface,
            mtu: Some(underlay_mtu.saturating_sub(largest_wrap(family))),
        };
        if net.way_of(anywhere(family), MARK)? == Some(way) {
            continue;
        }
        // The rule first: a kernel without tables beside its own refuses it, and would take the route for a usual one.
        net.add_rule("lead health checks to their route", rule(family))?;
        net.set_route("route health checks", route(family, way))?;
    }
    Ok(())
}

/// Leads the checks nowhere any more that a state has none of.
pub(super) fn keep_only(net: &Net, state: &HostState) -> Result<()> {
    for family in Family::BOTH
        .into_iter()
        .filter(|family| !are_wanted(state, *family))
    {
        stop_of(net, family)?;
    }
    Ok(())
}

/// Leads checks nowhere any more; whether they were led.
pub(crate) fn stop(net: &Net) -> Result<bool> {
    Ok(stop_of(net, Family::V4)? | stop_of(net, Family::V6)?)
}

fn stop_of(net: &Net, family: Family) -> Result<bool> {
    let had_rule = net.remove_rule("remove the rule of health checks", rule(family))?;
    let Some(overlay) = net.named(overlay::NAME)? else {
        // The route went with it.
        return Ok(had_rule);
    };
    let (interface, mtu) = (overlay.index, None);
    let route = route(family, Way { interface, mtu });
    let had_route = net.remove_route("remove the route of health checks", route)?;
    Ok(had_rule || had_route)
}

fn rule(family: Family) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
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
fn route(family: Family, Way { interface, mtu }: Way) -> RouteMessage {
    let mut route = match family {
        Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new()
            .table_id(TABLE.into())
            .scope(RouteScope::Link)
            .output_interface(interface)
            .build(),
        Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new()
            .table_id(TABLE.into())
            .output_interface(interface)
            .build(),
    };
    let mtu = mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    route.attributes.extend(mtu);
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_encapsulation_is_vxlan_and_of_ipv6_gue() {
        assert_eq!(Family::BOTH.map(largest_wrap), [50, 52]);
    }
}
