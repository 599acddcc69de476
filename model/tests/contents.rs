//! A host's state as the contents of its maps.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use kuafu_model::contents::{
    self as contents_of, ArpFacts, Batch, Capacities, Contents, Error, HostFacts, contents, recovered,
};
use kuafu_model::health::{Servers, Subject, subjects, targets};
use kuafu_model::kinds::{
    ConfigNumber, ConnectionIds, Echo, Fragments, IdOctets, Options, Oversize, PacketPolicy, PortRange,
};
use kuafu_model::state::{
    Ask, Check, Host, HostState, LegKey, LegState, PairState, PathState, PortState, RemoteEndpoint,
    ServiceState, SlotAction, SlotState, Target, TargetState, VtepState,
};
use kuafu_pipeline::map::{
    Be16, EndpointKey, HopKind, IpKey, KEEPS, Limit, MemberKey, NO_PATH, NextHop, QuicServerKey, ServiceKey,
    SlotKind, policy,
};

#[path = "contents/health.rs"]
mod health;

const fn ip(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

fn facts() -> HostFacts {
    HostFacts {
        underlay: 2,
        underlay_mtu: 1500,
        incarnation: 17,
        hz: 250,
        interfaces: BTreeMap::from([("p1".into(), 11), ("p2".into(), 12)]),
        hand_over: 0,
        local6: None,
        capacities: Capacities::default(),
        now: 0,
        servers: Servers::default(),
        cookie_key: [1, 2],
        arp: ArpFacts::default(),
    }
}

fn port(name: &str, last: u8) -> PortState {
    PortState {
        name: name.into(),
        vni: 7,
        address: ip(10, 0, 0, last),
        mac: [2, 0, 0, 0, 0, last],
        interface: name.into(),
        mtu: None,
        serves: Vec::new(),
    }
}

fn remote(last: u8, host: Ipv4Addr) -> RemoteEndpoint {
    RemoteEndpoint {
        vni: 7,
        address: ip(10, 0, 0, last),
        mac: [2, 0, 0, 0, 0, last],
        host,
    }
}

fn leg(address: Ipv4Addr) -> LegState {
    LegState {
        keys: vec![LegKey {
            epoch: 1,
            key: *b"0123456789abcdef",
        }],
        label: 9,
        address,
        port: 6081,
        source_port: 50_000,
    }
}

fn state() -> HostState {
    let (there, beyond) = (ip(192, 0, 2, 2), ip(192, 0, 2, 3));
    HostState {
        cluster: "c".into(),
        revision: 1,
        node: Host {
            id: 1,
            name: "one".into(),
            local: ip(192, 0, 2, 1),
            public: ip(192, 0, 2, 1),
            overlay: ip(100, 64, 0, 1),
            udp_port: 6081,
            nat_ports: Some(10_000..=29_999),
        },
        ports: vec![port("p1", 1), port("p2", 2), port("p3", 3)],
        endpoints: vec![remote(21, there), remote(22, there), remote(31, beyond)],
        vteps: vec![VtepState {
            vni: 7,
            address: there,
        }],
        slots: vec![
            SlotState {
                label: 5,
                source: there,
                keys: leg(there).keys,
                action: SlotAction::Relay(leg(beyond)),
            },
            SlotState {
                label: 6,
                source: there,
                keys: leg(there).keys,
                action: SlotAction::Exit {
                    twin: 1,
                    window: 3,
                    answers: 4,
                },
            },
        ],
        paths: vec![PathState {
            index: 1,
            id: 77,
            nodes: vec!["one".into(), "two".into()],
            leg: leg(there),
            near: false,
        }],
        pairs: vec![PairState {
            index: 4,
            peer: "two".into(),
            class: "game".into(),
            premium: true,
            duplicate: true,
            primary: Some(1),
            backup: None,
        }],
        services: vec![service(true, 0), service(false, 0)],
        prefix_lists: Vec::new(),
        announcements: Vec::new(),
    }
}

/// At the exit with a server, at the entry with the pair, each with `more` further servers.
fn service(at_exit: bool, more: u8) -> ServiceState {
    let server = |last| {
        let (address, port) = (ip(203, 0, 113, last), Some(9000));
        TargetState::unchecked(1, Target::Server { address, port })
    };
    let first = if at_exit {
        server(1)
    } else {
        TargetState::unchecked(1, Target::Pair(4))
    };
    ServiceState {
        name: "game".into(),
        at_exit,
        whole_address: true,
        targets: std::iter::once(first).chain((2..2 + more).map(server)).collect(),
        ..ServiceState::blank(
            100,
            ip(198, 51, 100, 1).into(),
            (17, PortRange::literal(7000, 7000)),
        )
    }
}

fn compiled(state: &HostState, previous: Option<&Contents>) -> Contents {
    contents(state, &facts(), previous).expect("a state that this host can satisfy")
}

fn key(vni: u32, port: u16, protocol: u8) -> ServiceKey {
    ServiceKey {
        vni,
        address: IpKey::v4(u32::from(ip(198, 51, 100, 1))),
        port: Be16::new(port),
        protocol,
        ..ServiceKey::default()
    }
}

#[test]
fn listeners_that_lead_alike_have_one_ring() {
    let mut state = state();
    let other = |port| ServiceState {
        ports: PortRange::literal(port, port),
        ..service(true, 9)
    };
    state.services = vec![service(true, 9), other(7001), other(7002)];
    state.services[2].targets.pop();
    let before = compiled(&state, None);
    let firsts =
        |contents: &Contents| [7000, 7001, 7002].map(|port| contents.services[&key(100, port, 17)].first);
    let [one, two, three] = firsts(&before);
    assert_eq!((one, before.rings.len()), (two, 2));
    assert_ne!(one, three);
    // One of two that shared a ring goes on with it.
    state.services[0].targets.pop();
    let after = compiled(&state, Some(&before));
    assert_eq!(firsts(&after), [three, two, three]);
}

#[test]
fn ports_have_an_entry_each_and_all_ports_one() {
    let mut state = state();
    let range = |first, last| ServiceState {
        ports: PortRange::literal(first, last),
        own: true,
        ..service(false, 9)
    };
    state.services = vec![range(7000, 7099), range(7200, 7200)];
    let before = compiled(&state, None);
    assert_eq!(before.services.len(), 101 + 1);
    assert_eq!(before.rings.len(), 1, "one for all");
    assert!(before.services.contains_key(&key(0, 7099, 17)));
    assert!(!before.services.contains_key(&key(0, 7100, 17)));
    // Of a port that stays nothing changes.
    state.services[0] = range(6990, 7010);
    let after = compiled(&state, Some(&before));
    assert_eq!(after.services.len(), 22 + 1);
    let stays = key(0, 7005, 17);
    assert_eq!(after.services[&stays], before.services[&stays]);

    state.services = vec![range(1, u16::MAX)];
    let all = compiled(&state, Some(&after));
    assert_eq!(all.services.len(), 2);
    assert!(all.services.contains_key(&key(0, 0, 17)));
    let whole = all.services[&key(0, 0, 0)];
    assert!(whole.has(policy::ALL_UDP) && !whole.has(policy::ALL_TCP));
    state.services[0].whole_address = false;
    let refused = contents(&state, &facts(), None).unwrap_err();
    assert!(refused.to_string().contains("services[0].ports"), "{refused}");
}

/// Of QUIC each listener says how ids are laid out, and each service's ids name its own targets.
#[test]
fn connection_ids_name_targets_of_their_service() {
    let mut state = state();
    let mut quic = ServiceState {
        own: true,
        connection_ids: Some(ConnectionIds::QuicLb {
            config: ConfigNumber::new(2).unwrap(),
            octets: IdOctets::new(3).unwrap(),
        }),
        ..service(true, 2)
    };
    quic.at_exit = false;
    for (target, id) in quic.targets.iter_mut().zip([Some(7), None, Some(0x01_0203)]) {
        target.server_id = id;
    }
    let plain = ServiceState {
        vni: 101,
        ports: PortRange::literal(7001, 7001),
        connection_ids: None,
        ..quic.clone()
    };
    state.services = vec![quic, plain];
    let before = compiled(&state, None);
    let listener = before.services[&key(0, 7000, 17)];
    assert!(listener.has(policy::QUIC) && !before.services[&key(0, 7001, 17)].has(policy::QUIC));
    let named = |id: [u8; 3]| {
        let first = [0b0100_0000, id[0], id[1], id[2], 0, 0, 0, 0];
        let id = listener.connection_ids().server(first, 0, 8)?;
        let number = before.quic_targets.get(&QuicServerKey::new(listener.vni, id))?;
        Some(before.targets[number].address)
    };
    let server = |last| Some(IpKey::v4(u32::from(ip(203, 0, 113, last))));
    assert_eq!(named([0, 0, 7]), server(1));
    assert_eq!(named([1, 2, 3]), server(3));
    assert_eq!(named([0, 0, 8]), None);
    assert_eq!(before.quic_targets.len(), 2, "of one service alone");
    // One whose time is over is no member, and is named no more.
    let mut facts = facts();
    let over = (100, state.services[0].targets[0].target);
    facts.servers.ended.insert(over);
    let after = contents(&state, &facts, Some(&before)).unwrap();
    assert_eq!(after.quic_targets.len(), 1);
}

#[test]
fn every_map_has_its_entries() {
    let contents = compiled(&state(), None);
    assert_eq!(contents.node.incarnation, 1, "17 modulo 16");
    assert_eq!(
        (contents.node.first_port, contents.node.last_port),
        (10_000, 29_999)
    );
    let ports: Vec<_> = contents
        .ports
        .iter()
        .map(|(number, port)| (*number, port.mtu))
        .collect();
    assert_eq!(ports, [(11, 1450), (12, 1450)]);
    assert_eq!(contents.waiting.len(), 1);
    assert_eq!(contents.waiting[0].interface, "p3");
    assert_eq!(contents.endpoints.len(), 5, "the waiting port has none");
    let hop = |last| contents.endpoints[&EndpointKey::new(7, IpKey::v4(u32::from(ip(10, 0, 0, last))))].hop;
    assert_eq!((hop(1).kind(), hop(1).index), (HopKind::Port, 11));
    assert_eq!((hop(22).kind(), hop(22).index), (HopKind::Vtep, 1));
    assert_eq!(
        contents.neighbours,
        BTreeMap::from([(1, ip(192, 0, 2, 2).into()), (2, ip(192, 0, 2, 3).into())])
    );
    assert_eq!(contents.slots[&5].kind(), SlotKind::Relay);
    assert_eq!(
        (contents.slots[&5].next.neighbour, contents.slots[&5].next.epoch),
        (2, 1)
    );
    assert_eq!(contents.slots[&6].kind(), SlotKind::Exit);
    assert!(contents.slots[&6].key(1).is_some() && contents.slots[&6].key(0).is_none());
    assert_eq!(contents.paths[&1].leg.key(1).k0, u64::from_le_bytes(*b"01234567"));
    assert_eq!(
        (contents.pairs[&4].primary, contents.pairs[&4].backup),
        (1, NO_PATH)
    );
    assert_eq!(contents.services.len(), 3, "entry, exit, whole address");
    assert_eq!(contents.services[&key(0, 0, 0)].size, 0);
    let at = |vni| {
        let service = contents.services[&key(vni, 7000, 17)];
        let slots = &contents.rings[&service.first];
        assert_eq!((service.size, service.vni, slots.len()), (1, 100, 1));
        contents.targets[&slots[0]]
    };
    assert_eq!((at(0).kind(), at(0).index), (HopKind::Path, 4));
    assert_eq!((at(100).kind(), at(100).port.get()), (HopKind::Server, 9000));
}

#[test]
fn numbers_and_ranges_outlive_changes() {
    let first = compiled(&state(), None);
    assert!(first.update_from(&compiled(&state(), Some(&first))).is_empty());
    let mut changed = state();
    changed.endpoints = vec![remote(31, ip(192, 0, 2, 3)), remote(41, ip(192, 0, 2, 4))];
    changed.services[0] = service(true, 2);
    let second = compiled(&changed, Some(&first));
    let numbers: Vec<_> = second.vteps.keys().copied().collect();
    assert_eq!(numbers, [2, 3], "1 rests");
    let (before, after) = (
        first.services[&key(100, 7000, 17)],
        second.services[&key(100, 7000, 17)],
    );
    assert_eq!(after.size, 4093);
    assert_eq!(
        (after.previous_first, after.previous_size),
        (before.first, before.size)
    );
    assert_eq!(
        second.rings[&before.first], first.rings[&before.first],
        "it counts for a while"
    );
    assert!(after.first != before.first);
    let third = compiled(&state(), Some(&second));
    assert_eq!(
        third.vteps.keys().copied().collect::<Vec<_>>(),
        [1, 2],
        "1 is free again"
    );
    let ring = |contents: &Contents| {
        let service = contents.services[&key(0, 7000, 17)];
        (service.first, service.size)
    };
    assert_eq!(ring(&third), ring(&first));
}

#[test]
fn policies_are_those_of_listeners_and_of_whole_addresses() {
    let policies = |affinity: &str, packets: PacketPolicy| {
        let mut state = state();
        for service in &mut state.services {
            service.affinity = affinity.parse().unwrap();
            service.packets = packets;
        }
        let contents = compiled(&state, None);
        [key(0, 7000, 17), key(0, 0, 0)].map(|key| contents.services[&key].policy)
    };
    let usual = PacketPolicy::default();
    assert_eq!(policies("flow", usual), [0, 0], "an accelerator's");
    assert_eq!(policies("client", usual), [policy::BY_CLIENT, 0]);
    let silent = PacketPolicy {
        fragments: Fragments::Drop,
        ipv4_options: Options::Pass,
        echo: Some(Echo::Reply),
        oversize: Oversize::Drop,
    };
    let whole = policy::DROP_FRAGMENTS | policy::PASS_OPTIONS | policy::ANSWER_ECHO;
    assert_eq!(
        policies("port", silent),
        [policy::BY_PORT | policy::SILENT, whole]
    );
    let passing = PacketPolicy {
        fragments: Fragments::Pass,
        echo: Some(Echo::Pass),
        ..usual
    };
    assert_eq!(
        policies("flow", passing),
        [0, policy::PASS_FRAGMENTS | policy::PASS_ECHO]
    );
}

#[test]
fn a_listener_sends_on_what_its_targets_take() {
    let largest = |mtu| {
        let mut state = state();
        state.services.iter_mut().for_each(|service| service.mtu = mtu);
        compiled(&state, None).services[&key(0, 7000, 17)].largest
    };
    assert_eq!([None, Some(1400)].map(largest), [0, 1400]);
}

#[test]
fn limits_have_a_number_for_each_accelerator_and_keep_it() {
    let limited = |mbps: [Option<u32>; 2]| {
        let mut state = state();
        for (service, mbps) in state.services.iter_mut().zip(mbps) {
            service.bandwidth_mbps = mbps;
        }
        state
    };
    let none = compiled(&limited([None, None]), None);
    assert_eq!(none.limits, BTreeMap::from([(1, Limit::none(100))]));
    assert_eq!(none.services[&key(0, 7000, 17)].limit, 1);
    assert_eq!(none.services[&key(0, 0, 0)].limit, 0);

    let second = compiled(&limited([Some(50), Some(8)]), Some(&none));
    let least = Limit::new(100, 1_000_000, 50_000, 250);
    assert_eq!(second.limits, BTreeMap::from([(1, least)]), "8 Mb/s, 50 ms of it");
    assert_eq!(second.services, none.services);
    let slow = compiled(&limited([Some(1), None]), Some(&second));
    assert_eq!(
        slow.limits[&1],
        Limit::new(100, 125_000, 15_000, 250),
        "ten packets"
    );

    let mut other = limited([None, None]);
    other.services.iter_mut().for_each(|service| service.vni = 101);
    let other = compiled(&other, Some(&slow));
    assert_eq!(other.limits, BTreeMap::from([(2, Limit::none(101))]), "1 rests");

    for mbps in [0, 100_001] {
        let refused = contents(&limited([None, Some(mbps)]), &facts(), None).expect_err("refused");
        let field = format!("services[1].bandwidth_mbps is {mbps}; allowed: 1 to 100000, or none");
        assert_eq!(refused.to_string(), field);
    }
}

#[test]
fn an_update_never_names_what_is_not_there() {
    let first = compiled(&state(), None);
    let mut changed = state();
    changed.services[0] = service(true, 2);
    changed.services.remove(1);
    changed.endpoints.clear();
    let update = compiled(&changed, Some(&first)).update_from(&first);
    let names: Vec<_> = update
        .batches()
        .map(|batch| match batch {
            Batch::Targets(_) => "targets",
            Batch::Rings(_) => "rings",
            Batch::Members(_) => "members",
            Batch::NoMembers(_) => "no members",
            Batch::Services(_) => "services",
            Batch::NoEndpoints(keys) => {
                assert_eq!(keys.len(), 3);
                "no endpoints"
            }
            Batch::NoServices(keys) => {
                assert_eq!(keys.len(), 2);
                "no services"
            }
            Batch::NoTargets(_) => "no targets",
            Batch::NoVteps(_) => "no vteps",
            other => panic!("{other:?}"),
        })
        .collect();
    let order = [
        "targets",
        "rings",
        "members",
        "no members",
        "services",
        "no endpoints",
        "no services",
        "no targets",
        "no vteps",
    ];
    assert_eq!(names, order);
    let all = first.update_from(&Contents::default());
    assert!(matches!(all.batches().last(), Some(Batch::Node(_))));
    assert!(all.batches().any(|batch| batch == Batch::FreshWindows(&[3])));
}

#[test]
fn a_new_key_is_written_before_its_epoch() {
    let first = compiled(&state(), None);
    let mut changed = state();
    let next = |keys: &mut Vec<LegKey>| {
        let epoch = (keys[keys.len() - 1].epoch + 1) & 3;
        keys.drain(..keys.len() - 1);
        keys.push(LegKey {
            epoch,
            key: [epoch; 16],
        });
    };
    changed.paths.iter_mut().for_each(|path| next(&mut path.leg.keys));
    let renewed = compiled(&changed, Some(&first));
    let update = renewed.update_from(&first);
    let Some(Batch::Paths(writes)) = update.batches().next() else {
        panic!("{update:?}");
    };
    let (staged, last) = writes.split_at(writes.len() / 2);
    for ((index, staged), last) in staged.iter().zip(last) {
        let (old, new) = (&first.paths[index].leg, &renewed.paths[index].leg);
        assert_eq!((staged.leg.epoch, new.epoch), (old.epoch, (old.epoch + 1) & 3));
        assert!(staged.leg.key(old.epoch) == old.key(old.epoch));
        assert!(staged.leg.key(new.epoch) == new.key(new.epoch));
        assert_eq!(last, &(*index, renewed.paths[index]));
    }
}

#[test]
fn what_was_read_back_names_its_neighbours() {
    let whole = compiled(&state(), None);
    let mut read_back = whole.clone();
    read_back.neighbours.clear();
    read_back.recover_neighbours();
    assert_eq!(read_back.neighbours, whole.neighbours);
}

/// What is wrong with a state, and the message.
type Wrong = (fn(&mut HostState), &'static str);

#[test]
fn what_cannot_be_satisfied_is_named() {
    let wrong: [Wrong; 12] = [
        (
            |state| state.ports[1].interface = "p1".into(),
            "ports[1].interface: p1 is there twice; remove one of the two",
        ),
        (
            |state| state.ports[0].mtu = Some(1451),
            "ports[0].mtu is 1451; allowed: 576 to 1450, the underlay's MTU less 50",
        ),
        (
            |state| state.endpoints[0].address = ip(10, 0, 0, 1),
            "endpoints[0].address: 10.0.0.1 in VNI 7 is there twice; remove one of the two",
        ),
        (
            |state| state.endpoints[0].vni = 1 << 24,
            "endpoints[0].vni is 16777216; allowed: 1 to 16777215",
        ),
        (
            |state| state.slots[0].label = 65_536,
            "slots[0].label is 65536; allowed: 1 to 65535",
        ),
        (
            |state| state.slots[0].keys.clear(),
            "slots[0].keys is epochs []; allowed: one epoch of 0 to 3, or two that follow each other, the newer last",
        ),
        (
            |state| state.slots[1].label = 5,
            "slots[1].label: 5 is there twice; remove one of the two",
        ),
        (
            |state| state.pairs[0].backup = Some(2),
            "pairs[0].backup names 2, which is not among the paths of this host; add it or change the reference",
        ),
        (
            |state| state.services[1].targets[0].target = Target::Pair(3),
            "services[1].targets names 3, which is not among the pairs of this host; add it or change the reference",
        ),
        (
            |state| state.services[0].protocol = 1,
            "services[0].protocol is 1; allowed: 6 (TCP) or 17 (UDP)",
        ),
        (
            |state| state.services[0].targets[0].target = Target::Pair(4),
            "services[0].targets is a pair; allowed: servers, since this host is the listener's exit",
        ),
        (
            |state| state.node.nat_ports = Some(0..=4),
            "node.nat_ports is 0-4; allowed: a range within 1 to 65535, or none",
        ),
    ];
    for (spoil, message) in wrong {
        let mut state = state();
        spoil(&mut state);
        let error = contents(&state, &facts(), None).expect_err(message);
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn maps_that_are_too_small_are_named() {
    let mut small = facts();
    small.capacities.endpoints = 4;
    let error = contents(&state(), &small, None).expect_err("five endpoints");
    assert_eq!(
        error,
        Error::Full {
            map: "endpoints",
            capacity: 4,
            needed: 5
        }
    );
    let mut narrow = facts();
    narrow.underlay_mtu = 600;
    assert!(matches!(
        contents(&state(), &narrow, None),
        Err(Error::Underlay { mtu: 600, .. })
    ));
}
