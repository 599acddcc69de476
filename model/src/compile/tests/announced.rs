//! Addresses that hosts announce.

use std::net::IpAddr;

use super::super::{Holder, candidates};
use super::*;
use crate::state::Way;

const INTENT: &str = include_str!("../../../tests/data/manifests/good/announced.yaml");

fn services(pools: &[&str]) -> String {
    let service = |pool: &&str| {
        format!(
            "---\nkind: Service\nmetadata: {{name: of-{pool}}}\nspec: {{pool: {pool}, listeners: [{{protocol: tcp, \
             port: 80}}], targets: [{{address: 198.51.100.7}}, {{address: 198.51.100.8, port: 81}}]}}\n"
        )
    };
    pools.iter().map(service).collect()
}

fn states(intent: &Intent, holders: &Holders) -> States {
    let mut number = 0;
    let mut random = || {
        number += 1;
        [number; 16]
    };
    let input = Input {
        cluster: "test",
        revision: 1,
        intent,
        choices: &[],
        down: &Down::new(),
        holders,
    };
    compile(&input, &mut Allocations::default(), &mut random).unwrap()
}

/// What a host announces: the last octet of each address, and its term.
fn here(states: &States, node: &str) -> Vec<(u8, u64)> {
    let announcements = states[node].announcements.iter().filter(|one| one.here);
    announcements.map(|one| (last(one.public), one.term)).collect()
}

/// The last octet of an address.
fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

#[test]
fn a_holder_announces_and_all_candidates_listen() {
    let intent = intent(&format!("{INTENT}{}", services(&["by-arp", "by-hook", "by-bgp"])));
    let first = states(&intent, &Holders::new());
    assert_eq!(here(&first, "left"), [(80, 0), (82, 0), (83, 0)]);
    assert_eq!(
        here(&first, "right"),
        [(81, 0), (83, 0)],
        "nothing listens at the last one's"
    );
    let holder = Holder {
        node: "right".parse().unwrap(),
        term: 3,
    };
    let holders = Holders::from([("192.0.2.80".parse().unwrap(), holder)]);
    let moved = states(&intent, &holders);
    assert_eq!(here(&moved, "left"), [(82, 0), (83, 0)]);
    assert_eq!(here(&moved, "right"), [(80, 3), (81, 0), (83, 0)]);
    for node in ["left", "right"] {
        assert_eq!(moved[node].services, first[node].services);
        assert_eq!(moved[node].services.len(), 4);
        assert!(moved[node].services.iter().all(|service| service.whole_address));
        assert_eq!(
            moved[node].announcements.len(),
            4,
            "who holds an address or may hold it knows how"
        );
    }
    let by_arp = &moved["right"].announcements[1];
    assert_eq!((last(by_arp.local), &by_arp.way), (81, &Way::Arp));
}

#[test]
fn a_node_that_drains_withdraws_what_it_announces_by_bgp() {
    let text = format!("{INTENT}{}", services(&["by-bgp", "by-bgp-too"]));
    let drained = text.replacen(
        "metadata: {name: right}\nspec:\n",
        "metadata: {name: right}\nspec:\n  drain: true\n",
        1,
    );
    let (before, after) = (
        states(&intent(&text), &Holders::new()),
        states(&intent(&drained), &Holders::new()),
    );
    assert_eq!(here(&before, "right"), [(83, 0), (84, 0)]);
    assert_eq!(here(&after, "right"), []);
    assert_eq!(here(&after, "left"), [(83, 0)]);
    assert_eq!(after["right"].services, before["right"].services);
}

/// Pools of IPv6 beside those of [`INTENT`], by the same sessions.
const V6: &str = "---\nkind: AddressPool\nmetadata: {name: six-by-hook}\nspec:\n  reach: hook\n  hook: {command: \
                  /sbin/take}\n  addresses: [{nodes: [left, right], public: 2001:db8::82}]\n---\nkind: AddressPool\nmetadata: \
                  {name: six-by-bgp}\nspec:\n  reach: bgp\n  bgp:\n    daemon: frr\n    as: 65001\n    peers: [{address: \
                  192.0.2.254, as: 65000}, {address: 192.0.2.253, as: 4200000000, multihop: 2, password_file: \
                  /etc/kuafu/bgp-password}]\n    port: 1790\n    bfd: true\n  addresses: [{nodes: [left, right], public: \
                  \"2001:db8:5::80/124\"}, {node: right, public: 2001:db8::84}]\n";

#[test]
fn ipv6_is_announced_by_command_and_bgp() {
    let services = ["hook", "bgp"].map(|reach| {
        format!(
            "---\nkind: Service\nmetadata: {{name: six-{reach}}}\nspec: {{pool: six-by-{reach}, mode: gue, listeners: \
             [{{protocol: tcp, port: 80}}], targets: [{{address: 2001:db8:9::7}}]}}\n"
        )
    });
    let text = format!("{INTENT}{V6}{}", services.concat());
    let holder = Holder {
        node: "right".parse().unwrap(),
        term: 3,
    };
    let holders = Holders::from([("2001:db8::82".parse().unwrap(), holder)]);
    let states = states(&intent(&text), &holders);
    let announced = |node: &str| -> Vec<(String, u8, bool, u64)> {
        let all = states[node].announcements.iter();
        assert!(all.clone().all(|one| one.local == one.public));
        all.map(|one| (one.local.to_string(), one.length, one.here, one.term))
            .collect()
    };
    let own = |address: &str, length, here, term| (address.to_owned(), length, here, term);
    let prefix = || own("2001:db8:5::80", 124, true, 0);
    assert_eq!(announced("left"), [own("2001:db8::82", 128, false, 3), prefix()]);
    let single = own("2001:db8::84", 128, true, 0);
    assert_eq!(
        announced("right"),
        [own("2001:db8::82", 128, true, 3), single, prefix()]
    );
    for node in ["left", "right"] {
        let covers = |address: &str| {
            let mut all = states[node].announcements.iter();
            all.any(|one| one.covers(address.parse().unwrap()))
        };
        assert!(covers("2001:db8:5::8f") && !covers("2001:db8:5::90") && !covers("192.0.2.1"));
        let services = states[node].services.iter();
        assert!(services.clone().all(|service| service.whole_address));
        assert!(
            services
                .clone()
                .any(|service| service.local.to_string() == "2001:db8:5::8f")
        );
    }
}

#[test]
fn an_address_serves_where_one_server_of_one_listener_is_up() {
    let intent = intent(&format!("{INTENT}{}", services(&["by-arp"])));
    let server = |last: u8, port| Server {
        service: "of-by-arp".parse().unwrap(),
        address: format!("198.51.100.{last}").parse().unwrap(),
        port: PortNumber::new(port).unwrap(),
    };
    let serves = |down: &[(u8, u16)]| {
        let down = down.iter().map(|(last, port)| server(*last, *port)).collect();
        candidates(&intent).next().unwrap().serves(&down)
    };
    assert!(serves(&[]));
    assert!(serves(&[(7, 80)]));
    assert!(serves(&[(7, 80), (8, 80)]), "another port is another server");
    assert!(!serves(&[(7, 80), (8, 81)]));
    let unused = candidates(&intent).find(|one| one.public.to_string() == "203.0.113.82");
    assert!(unused.unwrap().serves(&BTreeSet::from([server(7, 80)])));
}
