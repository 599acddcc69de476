//! A packet's walk over a state file: the model alone, without agent or kernel.

use std::collections::BTreeMap;

use anyhow::Result as Any;
use kuafu_dataplane::explain::{at_underlay, told};
use kuafu_model::HostState;
use kuafu_model::contents::{ArpFacts, Capacities, HostFacts, contents};
use kuafu_model::health::Servers;
use kuafu_model::runner::{Host, VecFrame};
use kuafu_pipeline::Route;
use kuafu_pipeline::map::{Mac, MacPair, Neighbour};
use kuafu_proto::v1::{ExplainQuery, Explanation};

/// The underlay's number in a host that is only a file; the ports' follow.
const UNDERLAY: u32 = 1;
const UNDERLAY_MTU: u32 = 1500;
const HZ: u64 = 250;

/// Walks the packet over the tables that an agent would write, with every neighbour known and a default route.
pub(super) fn explain(state: &HostState, query: &ExplainQuery) -> Any<Explanation> {
    let names = interfaces(state);
    let port = names.get(&query.interface).copied();
    let facts = HostFacts {
        underlay: UNDERLAY,
        underlay_mtu: UNDERLAY_MTU,
        incarnation: 0,
        hz: HZ,
        interfaces: names.clone(),
        hand_over: 0,
        local6: None,
        capacities: Capacities::default(),
        now: 0,
        servers: Servers::default(),
        cookie_key: [0; 2],
        arp: ArpFacts::default(),
    };
    let tables = contents(state, &facts, None)?;
    let mut host = Host::new(&facts.capacities);
    host.set_tracing(true);
    host.program(&tables);
    host.set_route(
        "0.0.0.0/0".parse()?,
        Ok(Route {
            interface: UNDERLAY,
            macs: link(),
        }),
    );
    for address in tables.neighbours.values() {
        host.set_neighbour(
            *address,
            Neighbour {
                macs: link(),
                interface: UNDERLAY,
            },
        );
    }
    let mut frame = VecFrame::new(query.frame.clone());
    let (program, walk) = match port {
        Some(number) => ("port", host.port(&mut frame, number, query.mark)),
        None => at_underlay(&mut host, &mut frame, UNDERLAY),
    };
    let name = |number: u32| {
        let named = names
            .iter()
            .find(|(_, known)| **known == number)
            .map(|(name, _)| name.clone());
        named.unwrap_or_else(|| "the underlay".to_owned())
    };
    Ok(told(&state.node.name, program, &walk, frame, name))
}

fn interfaces(state: &HostState) -> BTreeMap<String, u32> {
    state
        .ports
        .iter()
        .map(|port| port.interface.clone())
        .zip(UNDERLAY + 1..)
        .collect()
}

/// Stand-ins: the real ones are the kernel's to know.
fn link() -> MacPair {
    let mac = |last| Mac::from_octets([2, 0, 0, 0, 0, last]);
    MacPair::new(mac(1), mac(2))
}
