//! Ports of a VPC as targets of a service.

use std::net::Ipv4Addr;

use super::*;
use crate::state::{Encapsulation, Target};

const INTENT: &str = "
kind: Node
metadata: {name: left}
spec: {region: r1, address: {local: 10.1.0.1, public: 192.0.2.1}}
---
kind: Node
metadata: {name: right}
spec: {region: r1, address: {local: 10.1.0.2, public: 192.0.2.2}}
---
kind: Node
metadata: {name: rack}
spec: {region: r1, agent: false, address: {local: 192.0.2.3}}
---
kind: Vpc
metadata: {name: red}
spec: {cidr: 10.0.0.0/24, vni: 100}
---
kind: Port
metadata: {name: red-a}
spec: {vpc: red, node: left, address: 10.0.0.5, interface: a}
---
kind: Port
metadata: {name: red-b}
spec: {vpc: red, node: right, address: 10.0.0.6, interface: b}
---
kind: Port
metadata: {name: red-c}
spec: {vpc: red, node: rack, address: 10.0.0.7, mac: \"52:54:00:00:00:07\"}
---
kind: Port
metadata: {name: red-d}
spec: {vpc: red, node: right, address: 10.0.0.8, interface: d}
---
kind: AddressPool
metadata: {name: pool}
spec: {addresses: [{node: left, public: 203.0.113.9}]}
---
kind: Service
metadata: {name: web}
spec:
  pool: pool
  listeners: [{protocol: tcp, port: 80}]
  mode: vxlan
  vpc: red
  targets: [{address: 10.0.0.5}, {address: 10.0.0.6}, {address: 10.0.0.7}]
";

fn states(text: &str) -> States {
    compiled(
        (&intent(text), &[]),
        1,
        &mut Allocations::default(),
        &mut counted(),
    )
}

/// Where the service's packets go: each port's address, and its host's.
fn leads(states: &States) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let targets = states["left"]
        .services
        .iter()
        .flat_map(|service| &service.targets);
    let end = |target: &crate::state::TargetState| match target.target {
        Target::Direct {
            address,
            encapsulation: Encapsulation::Vxlan { vni: 100, host, .. },
        } => (address, host),
        other => panic!("{other:?}"),
    };
    targets.map(end).collect()
}

fn serve(states: &States, node: &str) -> Vec<(String, Vec<Ipv4Addr>)> {
    let ports = states[node].ports.iter();
    ports
        .map(|port| (port.name.clone(), port.serves.clone()))
        .collect()
}

fn senders(states: &States, node: &str) -> Vec<Ipv4Addr> {
    states[node].vteps.iter().map(|vtep| vtep.address).collect()
}

#[test]
fn ports_serve_and_their_hosts_take_it_from_the_senders() {
    let states = states(INTENT);
    let ip = |last| Ipv4Addr::new(192, 0, 2, last);
    let port = |last| Ipv4Addr::new(10, 0, 0, last);
    let own = Ipv4Addr::new(10, 1, 0, 1);
    assert_eq!(
        leads(&states),
        [(port(5), own), (port(6), ip(2)), (port(7), ip(3))],
        "its own port by its own address"
    );
    let address = Ipv4Addr::new(203, 0, 113, 9);
    assert_eq!(serve(&states, "left"), [("red-a".to_owned(), vec![address])]);
    assert_eq!(
        serve(&states, "right"),
        [("red-b".to_owned(), vec![address]), ("red-d".to_owned(), vec![])]
    );
    assert_eq!(senders(&states, "left"), [own, ip(2), ip(3)]);
    assert_eq!(senders(&states, "right"), [ip(1), ip(3)]);
}

/// A host is sent packets for a port once it is known to let the port serve; nobody is waited for who has no agent.
#[test]
fn a_port_is_led_to_once_it_serves() {
    let before = states(&INTENT.replace(", {address: 10.0.0.6}, {address: 10.0.0.7}", ""));
    let after = states(INTENT);
    let mut fleet = Fleet::settled(&before);
    let first = next(&fleet, &after);
    let there = |states: &States| {
        leads(states)
            .iter()
            .map(|(port, _)| port.octets()[3])
            .collect::<Vec<_>>()
    };
    assert_eq!(there(&first), [5, 7]);
    assert_eq!(serve(&first, "right")[0].1.len(), 1);
    fleet.restore(&name("right"), first["right"].clone());
    assert_eq!(there(&next(&fleet, &after)), [5, 6, 7]);
}
