//! Ports of a VPC as targets of a service.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::state::{Encapsulation, Served, Target, TargetState};

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
  health: {type: udp, port: 81, send: hi}
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
    let end = |target: &TargetState| match target.target {
        Target::Direct {
            address: IpAddr::V4(address),
            encapsulation: Encapsulation::Vxlan { vni: 100, host, .. },
        } => (address, host),
        other => panic!("{other:?}"),
    };
    targets.map(end).collect()
}

/// What ports serve, by their names.
fn serve(states: &States, node: &str) -> Vec<(String, Vec<String>)> {
    let one = |served: &Served| format!("{}:{}:{}", served.address, served.protocol, served.ports.first());
    let ports = states[node].ports.iter();
    ports
        .map(|port| (port.name.clone(), port.serves.iter().map(one).collect()))
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
    let web = ["203.0.113.9:6:80", "203.0.113.9:17:81"].map(str::to_owned);
    assert_eq!(serve(&states, "left"), [("red-a".to_owned(), web.to_vec())]);
    assert_eq!(
        serve(&states, "right"),
        [("red-b".to_owned(), web.to_vec()), ("red-d".to_owned(), vec![])]
    );
    assert_eq!(senders(&states, "left"), [own, ip(2), ip(3)]);
    assert_eq!(senders(&states, "right"), [ip(1), ip(3)]);
}

/// The narrowest of the ports decides what a sender may send.
#[test]
fn a_vpc_says_how_large_packets_may_be() {
    let mtu = |text: &str| states(text)["left"].services[0].mtu;
    assert_eq!(mtu(INTENT), None);
    let narrow = INTENT.replace("vni: 100", "vni: 100, mtu: 1400");
    assert_eq!(mtu(&narrow), Some(1400));
    let one = narrow.replace("interface: b", "interface: b, mtu: 1300");
    assert_eq!(mtu(&one), Some(1300));
    let other = narrow.replace("interface: d", "interface: d, mtu: 1300");
    assert_eq!(mtu(&other), Some(1400), "no target");
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
    assert_eq!(serve(&first, "right")[0].1.len(), 2);
    fleet.restore(&name("right"), first["right"].clone());
    assert_eq!(there(&next(&fleet, &after)), [5, 6, 7]);
}

const ALONE: &str = "addresses: [{node: left, public: 203.0.113.9}]";
const BOTH: &str = "reach: arp\n  addresses: [{nodes: [left, third], public: 203.0.113.9}]";
const THIRD: &str = "
---
kind: Node
metadata: {name: third}
spec: {region: r1, address: {local: 10.1.0.3, public: 192.0.2.4}}
";

fn with_third(pool: &str) -> States {
    let pool = INTENT.replace(&format!("spec: {{{ALONE}}}"), &format!("spec:\n  {pool}"));
    states(&(pool + THIRD))
}

/// Another sender leads to a port once the port's host takes packets from there; one that goes is listened to until it
/// leads there no more.
#[test]
fn a_sender_comes_and_goes_without_a_gap() {
    let (alone, both) = (with_third(ALONE), with_third(BOTH));
    let leads_of = |states: &States| {
        states["third"]
            .services
            .iter()
            .map(|one| one.targets.len())
            .sum::<usize>()
    };
    let third = Ipv4Addr::new(192, 0, 2, 4);
    let mut fleet = Fleet::settled(&alone);
    let first = next(&fleet, &both);
    assert_eq!(leads_of(&first), 1, "the foreign one, of which nobody tells");
    assert!(senders(&first, "left").contains(&third) && senders(&first, "right").contains(&third));
    fleet.restore(&name("left"), first["left"].clone());
    assert_eq!(leads_of(&next(&fleet, &both)), 2);

    let mut fleet = Fleet::settled(&both);
    let first = next(&fleet, &alone);
    assert_eq!(leads_of(&first), 0);
    assert!(senders(&first, "right").contains(&third), "it may still send");
    fleet.restore(&name("third"), first["third"].clone());
    assert!(!senders(&next(&fleet, &alone), "right").contains(&third));
    assert!(unchanged(&next(&fleet, &alone)["right"], &alone["right"]));
}

#[test]
fn a_port_serves_until_nobody_leads_there() {
    let two = "listeners: [{protocol: tcp, port: 80}, {protocol: udp, port: 90}]";
    let text = INTENT.replace("listeners: [{protocol: tcp, port: 80}]", two);
    let before = states(&text);
    let after = states(&text.replace(", {address: 10.0.0.6}", ""));
    let mut fleet = Fleet::settled(&before);
    let first = next(&fleet, &after);
    // What only checks reach goes at once.
    assert_eq!(
        serve(&first, "right")[0].1,
        ["203.0.113.9:6:80", "203.0.113.9:17:90"]
    );
    fleet.restore(&name("left"), first["left"].clone());
    assert_eq!(serve(&next(&fleet, &after), "right")[0].1, Vec::<String>::new());
}

/// Ports are selected by their labels, and are near where their nodes are.
#[test]
fn ports_are_selected_and_near() {
    let text = INTENT
        .replace("{name: red-b}", "{name: red-b, labels: {app: web}}")
        .replace("{name: red-d}", "{name: red-d, labels: {app: web}}")
        .replace(
            "{name: right}\nspec: {region: r1",
            "{name: right}\nspec: {region: r2",
        )
        .replace(
            "targets: [{address: 10.0.0.5}, {address: 10.0.0.6}, {address: 10.0.0.7}]",
            "targets: [{address: 10.0.0.5}]\n  select: {labels: {app: web}}\n  prefer: region",
        );
    let states = states(&text);
    let last = |(port, _): (Ipv4Addr, Ipv4Addr)| port.octets()[3];
    assert_eq!(
        leads(&states).into_iter().map(last).collect::<Vec<_>>(),
        [5, 6, 8]
    );
    let ranks = states["left"].services[0]
        .targets
        .iter()
        .map(|target| target.rank);
    assert_eq!(ranks.collect::<Vec<_>>(), [0, 1, 1]);
    assert_eq!(
        serve(&states, "right")[1].1.len(),
        2,
        "the selected one serves too"
    );
}
