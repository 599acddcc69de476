//! Prefixes of pools: their addresses as hosts get them.

use super::*;
use crate::state::{ServiceState, Way};

const NODES: &str = "kind: Node
metadata: {name: left}
spec: {region: eu-central-1, address: {local: 192.0.2.1}}
---
kind: Node
metadata: {name: right}
spec: {region: eu-central-1, address: {local: 192.0.2.2}}
---
kind: Node
metadata: {name: far}
spec: {region: us-east-1, address: {local: 10.0.0.2, public: 192.0.2.3}}
---
kind: Service
metadata: {name: game}
spec: {targets: [{address: 198.51.100.7}, {address: 198.51.100.8}]}
---
";
const SERVICE: &str = "---
kind: Service
metadata: {name: web}
spec:
  pool: arcade
  listeners: [{protocol: tcp, port: 80}, {protocol: udp, ports: 7000-7009}]
  targets: [{address: 198.51.100.7}, {address: 198.51.100.8}]
";

fn pool(rest: &str) -> String {
    format!("{NODES}kind: AddressPool\nmetadata: {{name: arcade}}\nspec:\n{rest}\n{SERVICE}")
}

fn states(text: &str) -> States {
    let intent = intent(text);
    compiled((&intent, &[]), 1, &mut Allocations::default(), &mut counted())
}

/// Where a host listens in public, and what packets say: by the ports' first, the last octets.
fn listens(state: &HostState, takes: impl Fn(&ServiceState) -> bool) -> Vec<(u16, String, String)> {
    let taken = state.services.iter().filter(|service| takes(service));
    let mut all: Vec<_> = taken
        .map(|one| {
            (
                one.ports.first().get(),
                one.public.to_string(),
                one.local.to_string(),
            )
        })
        .collect();
    all.sort();
    all
}

/// Of a prefix of four behind a NAT.
fn all_of_four(ports: &[u16]) -> Vec<(u16, String, String)> {
    let of_port = |port: &u16| {
        let port = *port;
        (0..4).map(move |host| {
            (
                port,
                format!("203.0.113.{}", 96 + host),
                format!("10.1.0.{}", 4 + host),
            )
        })
    };
    ports.iter().flat_map(of_port).collect()
}

#[test]
fn a_service_listens_at_each_address_of_a_prefix() {
    let states = states(&pool(
        "  addresses: [{node: far, public: 203.0.113.96/30, local: 10.1.0.4/30}]",
    ));
    let far = &states[&name("far")];
    assert_eq!(listens(far, |_| true), all_of_four(&[80, 7000]));
    let first = &far.services[0];
    assert!(
        far.services
            .iter()
            .all(|one| one.targets == first.targets && one.whole_address)
    );
    assert_eq!(first.targets.len(), 2);
    assert!(states[&name("left")].services.is_empty());
}

#[test]
fn an_accelerator_listens_at_each_address_of_a_prefix_and_so_does_its_exit() {
    let accelerator = "---\nkind: Accelerator\nmetadata: {name: arena}\nspec:\n  pool: arcade\n  listeners: [{protocol: udp, \
                       port: 2342}]\n  groups: [{service: game, region: eu-central-1}]\n";
    let text = pool("  addresses: [{node: far, public: 203.0.113.96/30, local: 10.1.0.4/30}]");
    let states = states(&(text + accelerator));
    let of_arena = |service: &ServiceState| service.name == "arena";
    for node in ["far", "left", "right"] {
        let state = &states[&name(node)];
        assert_eq!(listens(state, of_arena), all_of_four(&[2342]), "{node}");
        let services = state.services.iter().filter(|one| of_arena(one));
        assert!(services.clone().all(|one| one.at_exit == (node != "far")));
        assert!(services.clone().all(|one| one.targets.len() == 2));
    }
}

#[test]
fn arp_answers_for_each_address_of_a_prefix() {
    let text = pool(
        "  reach: arp\n  addresses: [{nodes: [left, right], public: 192.0.2.96/30}, {node: right, public: 192.0.2.9}]",
    );
    let states = states(&text);
    let announced = |node: &str| -> Vec<(String, u8, bool)> {
        let all = states[&name(node)].announcements.iter();
        assert!(
            all.clone()
                .all(|one| one.way == Way::Arp && one.local == one.public)
        );
        all.map(|one| (one.public.to_string(), one.length, one.here))
            .collect()
    };
    let of_prefix = |here| (96..100).map(move |last| (format!("192.0.2.{last}"), 32, here));
    assert_eq!(announced("left"), of_prefix(true).collect::<Vec<_>>());
    let single = std::iter::once(("192.0.2.9".to_owned(), 32, true));
    assert_eq!(
        announced("right"),
        single.chain(of_prefix(false)).collect::<Vec<_>>()
    );
    let candidates = super::super::candidates(&intent(&text)).count();
    assert_eq!(candidates, 5, "each address has a holder");
}

#[test]
fn bgp_announces_a_prefix_as_it_is_declared() {
    let text = pool(
        "  reach: bgp\n  bgp: {as: 65001, peers: [{address: 192.0.2.254, as: 65000}]}\n  addresses: [{nodes: [left, far], public: \
         203.0.113.96/30, local: 10.1.0.4/30}, {node: far, public: 203.0.113.9}]",
    );
    let announced = |states: &States, node: &str| -> Vec<(String, String, u8, bool)> {
        let all = states[&name(node)].announcements.iter();
        all.map(|one| {
            (
                one.public.to_string(),
                one.local.to_string(),
                one.length,
                one.here,
            )
        })
        .collect()
    };
    let prefix = |here| ("203.0.113.96".to_owned(), "10.1.0.4".to_owned(), 30, here);
    let address = |here| ("203.0.113.9".to_owned(), "203.0.113.9".to_owned(), 32, here);
    let before = states(&text);
    assert_eq!(announced(&before, "left"), [prefix(true)]);
    assert_eq!(announced(&before, "far"), [prefix(true), address(true)]);
    let drained = text.replacen(
        "spec: {region: us-east-1",
        "spec: {drain: true, region: us-east-1",
        1,
    );
    let after = states(&drained);
    assert_eq!(announced(&after, "far"), [prefix(false), address(false)]);
    assert_eq!(announced(&after, "left"), [prefix(true)]);
}

#[test]
fn servers_that_answer_themselves_are_asked_at_the_first_address_of_a_prefix() {
    let text =
        pool("  addresses: [{node: left, public: 203.0.113.96/30}, {node: left, public: 203.0.113.9}]");
    let text =
        text.replacen("udp, ports: 7000-7009", "tcp, port: 443", 1) + "  mode: gue\n  health: {type: tcp}\n";
    let states = states(&text);
    let subjects = crate::health::subjects(&states[&name("left")]);
    let asked: Vec<String> = subjects
        .iter()
        .map(|subject| format!("{} of {}", subject.to, subject.server))
        .collect();
    let of = |server: u8| {
        [
            "203.0.113.9:80",
            "203.0.113.9:443",
            "203.0.113.96:80",
            "203.0.113.96:443",
        ]
        .map(|to| format!("{to} of 198.51.100.{server}"))
    };
    let mut expected = [of(7), of(8)].concat();
    expected.sort();
    let mut sorted = asked.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
}

/// As large as may be declared: the places in a host's table, and one ring.
#[test]
fn a_prefix_takes_a_place_for_each_port_and_one_more_at_each_address() {
    let text = pool("  addresses: [{node: left, public: 203.0.113.0/24}]");
    let states = states(&text.replacen("7000-7009", "7000-7036", 1));
    let facts = HostFacts {
        underlay: 2,
        local6: None,
        underlay_mtu: 1500,
        incarnation: 1,
        hz: 250,
        interfaces: BTreeMap::new(),
        hand_over: 0,
        capacities: Capacities::default(),
        now: 0,
        servers: Servers::default(),
        cookie_key: [1, 2],
        arp: ArpFacts::default(),
    };
    let contents = contents(&states[&name("left")], &facts, None).unwrap();
    assert_eq!(contents.services.len(), 256 * (1 + 37 + 1));
    assert_eq!((contents.rings.len(), contents.targets.len()), (1, 2));
    let rings: BTreeSet<u32> = contents.services.values().map(|one| one.size).collect();
    assert_eq!(rings, BTreeSet::from([0, 251]), "whole addresses have none");
}
