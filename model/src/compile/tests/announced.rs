//! Addresses that hosts announce.

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
    announcements
        .map(|one| (one.public.octets()[3], one.term))
        .collect()
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
    assert_eq!((by_arp.local.octets()[3], &by_arp.way), (81, &Way::Arp));
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
