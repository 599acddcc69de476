//! Shields and their lists as the contents of maps, beside a plain search.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kuafu_model::contents::{ArpFacts, Batch, Capacities, Contents, Error, HostFacts, contents};
use kuafu_model::health::Servers;
use kuafu_model::kinds::{Cidr, PortRange};
use kuafu_model::state::{Host, HostState, PrefixListState, ServiceState, Shield, Target, TargetState};
use kuafu_pipeline::map::{JIFFY, Rate, guard, listed_key};
use proptest::prelude::*;

const fn ip(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

fn facts() -> HostFacts {
    HostFacts {
        underlay: 2,
        underlay_mtu: 1500,
        incarnation: 0,
        hz: 250,
        interfaces: BTreeMap::new(),
        hand_over: 0,
        local6: None,
        capacities: Capacities::default(),
        now: 0,
        servers: Servers::default(),
        arp: ArpFacts::default(),
        cookie_key: [3, 4],
    }
}

fn shield() -> Shield {
    Shield {
        enforces: true,
        alarm_new_per_s: Some(5000),
        hold_s: 60,
        syn_cookies: true,
        drop_amplifiers: true,
        admitted_only: false,
        source_new_per_s: 100,
        prefix_new_per_s: 2000,
        new_per_s: None,
        block: Vec::new(),
        allow: Vec::new(),
    }
}

fn service(vni: u32, at_exit: bool, shield: Option<Shield>) -> ServiceState {
    let port = u16::try_from(7000 + vni).unwrap();
    let server = Target::Server {
        address: ip(203, 0, 113, 1),
        port: None,
    };
    ServiceState {
        name: format!("service-{vni}"),
        at_exit,
        whole_address: true,
        targets: vec![TargetState::unchecked(1, server)],
        shield,
        ..ServiceState::blank(
            vni,
            ip(198, 51, 100, 1).into(),
            (6, PortRange::literal(port, port)),
        )
    }
}

fn state(services: Vec<ServiceState>, prefix_lists: Vec<PrefixListState>) -> HostState {
    let node = Host {
        id: 1,
        name: "one".into(),
        local: ip(192, 0, 2, 1),
        public: ip(192, 0, 2, 1),
        overlay: ip(100, 64, 0, 1),
        udp_port: 6081,
        nat_ports: Some(10_000..=29_999),
    };
    HostState {
        services,
        prefix_lists,
        ..HostState::blank("c".into(), 1, node)
    }
}

fn list(name: &str, prefixes: &[&str]) -> PrefixListState {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap());
    PrefixListState {
        name: name.into(),
        prefixes: prefixes.collect(),
    }
}

/// One service that blocks sources on all of these lists.
fn blocking(lists: Vec<PrefixListState>) -> HostState {
    let block = lists.iter().map(|list| list.name.clone()).collect();
    let shield = Shield { block, ..shield() };
    state(vec![service(100, false, Some(shield))], lists)
}

fn compiled(state: &HostState, previous: Option<&Contents>) -> Contents {
    contents(state, &facts(), previous).expect("a state that this host can satisfy")
}

fn shield_numbers(contents: &Contents) -> Vec<(u32, u32)> {
    let mut numbers: Vec<(u32, u32)> = contents
        .services
        .iter()
        .filter(|(key, _)| key.port.get() != 0)
        .map(|(key, service)| (key.vni, service.shield))
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_shield_says_what_its_state_says() {
    let contents = compiled(
        &state(vec![service(100, false, Some(shield()))], Vec::new()),
        None,
    );
    let made = contents.shields[&1];
    assert_eq!(
        (made.vni, made.key, made.blocked, made.allowed),
        (100, [3, 4], 0, 0)
    );
    assert_eq!(
        made.flags,
        guard::ENFORCES | guard::COOKIES | guard::NO_AMPLIFIERS
    );
    assert_eq!((made.hold, made.verified_for), (60 * 250, 600 * 250));
    let a_second = 250 * JIFFY;
    assert_eq!(made.source, Rate::new(200, 400, 250), "two packets a flow");
    assert_eq!(made.source.depth.div_ceil(a_second), 2, "what comes in 2 s");
    assert_eq!(made.prefix.depth.div_ceil(a_second), 1);
    assert_eq!(made.alarm, Rate::new(10_000, 5000, 250));
    assert_eq!(made.budget, Rate::default());
    assert_eq!(shield_numbers(&contents), [(0, 1)]);

    let observing = Shield {
        enforces: false,
        alarm_new_per_s: None,
        syn_cookies: false,
        drop_amplifiers: false,
        admitted_only: true,
        source_new_per_s: 1,
        new_per_s: Some(100_000_000),
        ..shield()
    };
    let second = compiled(
        &state(vec![service(100, false, Some(observing))], Vec::new()),
        Some(&contents),
    );
    let made = second.shields[&1];
    assert_eq!(made.flags, guard::ALWAYS | guard::ADMISSION);
    assert_eq!(made.source, Rate::new(2, 20, 250), "ten at once at least");
    assert_eq!(made.budget, Rate::new(200_000_000, 200_000_000, 250));
    assert_eq!(made.alarm, Rate::default());
    assert_eq!(second.services, contents.services);
}

#[test]
fn shields_have_numbers_and_keep_them() {
    let of = |vnis: &[u32]| {
        let entries = vnis.iter().map(|vni| service(*vni, false, Some(shield())));
        let exit = service(90, true, None);
        let plain = service(91, false, None);
        state(entries.chain([exit, plain]).collect(), Vec::new())
    };
    let first = compiled(&of(&[100, 101]), None);
    assert_eq!(shield_numbers(&first), [(0, 0), (0, 1), (0, 2), (90, 0)]);
    let second = compiled(&of(&[101, 102]), Some(&first));
    let vnis: Vec<_> = second
        .shields
        .iter()
        .map(|(number, shield)| (*number, shield.vni))
        .collect();
    assert_eq!(vnis, [(2, 101), (3, 102)], "1 rests");
    let third = compiled(&of(&[101, 102, 103]), Some(&second));
    assert_eq!(third.shields[&1].vni, 103);
    let none = compiled(&of(&[]), Some(&third));
    assert!(none.shields.is_empty());
    assert_eq!(shield_numbers(&none), [(0, 0), (90, 0)]);
}

#[test]
fn what_cannot_be_is_named() {
    let refused = |change: fn(&mut Shield)| {
        let mut wrong = shield();
        change(&mut wrong);
        let state = state(
            vec![service(100, false, Some(wrong))],
            vec![list("bots", &["10.0.0.0/8"])],
        );
        contents(&state, &facts(), None).expect_err("refused").to_string()
    };
    let range = "allowed: 1 to 100000000";
    assert_eq!(
        refused(|shield| shield.source_new_per_s = 0),
        format!("services[0].shield.source_new_per_s is 0; {range}")
    );
    assert_eq!(
        refused(|shield| shield.alarm_new_per_s = Some(100_000_001)),
        format!("services[0].shield.alarm_new_per_s is 100000001; {range}")
    );
    assert_eq!(
        refused(|shield| shield.hold_s = 0),
        "services[0].shield.hold_s is 0; allowed: 1 to 3600"
    );
    assert_eq!(
        refused(|shield| shield.allow = vec!["bosts".into()]),
        "services[0].shield.allow is bosts; allowed: names of this host's prefix_lists"
    );
}

#[test]
fn lists_keep_their_bits_and_freed_ones_rest() {
    let bits = |contents: &Contents| -> Vec<(String, u32)> {
        let lists = contents.lists.iter();
        lists.map(|(name, list)| (name.clone(), list.bit)).collect()
    };
    let of = |names: &[&str]| blocking(names.iter().map(|name| list(name, &["10.0.0.0/8"])).collect());
    let first = compiled(&of(&["b", "c"]), None);
    assert_eq!(bits(&first), [("b".into(), 1), ("c".into(), 2)]);
    assert_eq!(first.shields[&1].blocked, 3);
    let second = compiled(&of(&["a", "c"]), Some(&first));
    assert_eq!(bits(&second), [("a".into(), 4), ("c".into(), 2)], "1 rests");
    let third = compiled(&of(&["a", "b", "c"]), Some(&second));
    assert_eq!(bits(&third), [("a".into(), 4), ("b".into(), 1), ("c".into(), 2)]);

    let names: Vec<String> = (10..43).map(|number| format!("list-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = compiled(&of(&names[..32]), None);
    assert_eq!(all.shields[&1].blocked, u32::MAX);
    let other = compiled(&of(&names[1..]), Some(&all));
    assert_eq!(other.lists["list-42"].bit, 1, "where none rested");
    let refused = contents(&of(&names), &facts(), None).expect_err("33 lists");
    assert!(matches!(refused, Error::Full { map: "lists", .. }), "{refused}");
}

#[test]
fn known_flows_are_looked_at_once_more_when_lists_change() {
    let generation = |contents: &Contents| {
        let mut services = contents.services.iter();
        services
            .find(|(key, _)| key.port.get() != 0)
            .unwrap()
            .1
            .generation
    };
    let without = state(vec![service(100, false, Some(shield()))], Vec::new());
    let first = compiled(&without, None);
    let (named, again) = (
        blocking(vec![list("a", &["203.0.113.0/24"])]),
        blocking(vec![list("a", &["203.0.113.7/32"])]),
    );
    let second = compiled(&named, Some(&first));
    let third = compiled(&named, Some(&second));
    let fourth = compiled(&again, Some(&third));
    let mut observing = again.clone();
    observing.services[0].shield.as_mut().unwrap().enforces = false;
    let observed = compiled(&observing, Some(&fourth));
    assert_ne!(
        generation(&observed),
        generation(&compiled(&again, Some(&observed))),
        "what it let pass it refuses now"
    );
    let fifth = compiled(&without, Some(&fourth));
    let generations = [&first, &second, &third, &fourth, &fifth].map(generation);
    assert_ne!(generations[0], generations[1], "a list is named");
    assert_eq!(generations[1], generations[2], "nothing changes");
    assert_ne!(generations[2], generations[3], "the list says something else");
    assert_eq!(
        generations[3], generations[4],
        "what no list refuses passes anyway"
    );
}

#[test]
fn only_lists_that_an_entry_names_are_there() {
    let mut state = blocking(vec![list("bots", &["10.0.0.0/8"])]);
    state.prefix_lists.push(list("others", &["11.0.0.0/8"]));
    let made = compiled(&state, None);
    assert_eq!(
        made.list_areas.keys().copied().collect::<Vec<_>>(),
        (0x0a00..0x0b00).collect::<Vec<_>>()
    );
    state.services[0].at_exit = true;
    assert_eq!(compiled(&state, None).lists, BTreeMap::new());
}

#[test]
fn longer_prefixes_than_fit_are_refused_by_the_lists_name() {
    let facts = HostFacts {
        capacities: Capacities {
            listed: 256,
            ..Capacities::default()
        },
        ..facts()
    };
    let short = list("a", &["10.0.0.0/17"]);
    let fits = blocking(vec![
        short.clone(),
        list("b", &["11.0.0.0/17", "12.0.0.0/8", "10.0.0.0/18"]),
    ]);
    assert_eq!(contents(&fits, &facts, None).unwrap().listed.len(), 256);
    let one_more = blocking(vec![short, list("b", &["11.0.0.0/17", "11.0.0.1/32"])]);
    let refused = contents(&one_more, &facts, None).expect_err("257 entries");
    assert_eq!(
        refused,
        Error::ListsTooLong {
            list: "b".into(),
            capacity: 256
        }
    );
}

/// Tables before shields, and shields before what names them.
#[test]
fn a_shield_finds_its_lists() {
    let shielded = compiled(
        &blocking(vec![list("bots", &["10.0.0.0/8", "11.0.0.1/32"])]),
        None,
    );
    let order = |after: &Contents, before: &Contents| -> Vec<&str> {
        let update = after.update_from(before);
        let name = |batch| match batch {
            Batch::Listed(_) | Batch::ListAreas(_) | Batch::ListMarks(_) => Some("lists"),
            Batch::NoListed(_) | Batch::NoListAreas(_) | Batch::NoListMarks(_) => Some("no lists"),
            Batch::Shields(_) => Some("shields"),
            Batch::NoShields(_) => Some("no shields"),
            Batch::Services(_) => Some("services"),
            _ => None,
        };
        update.batches().filter_map(name).collect()
    };
    let bare = compiled(&state(vec![service(100, false, None)], Vec::new()), None);
    assert_eq!(
        order(&shielded, &bare),
        ["lists", "lists", "lists", "shields", "services"]
    );
    assert_eq!(
        order(&bare, &shielded),
        ["no lists", "no lists", "no lists", "services", "no shields"]
    );
}

/// What the program finds of an address: the most specific entry alone.
fn found(contents: &Contents, address: u32) -> u32 {
    let network = address >> 8;
    let marks = contents.list_marks.get(&(network >> 6)).copied().unwrap_or(0);
    let listed = |bits| contents.listed.get(&listed_key(address, bits)).copied();
    let longer = (marks >> (network & 63) & 1 != 0)
        .then(|| listed(32).or_else(|| listed(24)))
        .flatten();
    let area = || contents.list_areas.get(&(address >> 16)).copied().unwrap_or(0);
    longer.unwrap_or_else(area)
}

/// The lists of which any prefix covers the address.
fn searched(contents: &Contents, address: u32) -> u32 {
    let covers = |prefix: &Cidr| prefix.get().contains(address.into());
    let lists = contents.lists.values();
    lists
        .filter(|list| list.prefixes.iter().any(covers))
        .map(|list| list.bit)
        .sum()
}

/// Prefixes that often lie within each other.
fn prefixes() -> impl Strategy<Value = Vec<String>> {
    let address = prop_oneof![any::<u32>(), (0u32..1 << 17).prop_map(|low| 0x0a00_0000 + low)];
    let length = prop_oneof![Just(0u32), 8u32..=32, 22u32..=26, 15u32..=18];
    let prefix = (address, length).prop_map(|(address, length)| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        format!("{}/{length}", Ipv4Addr::from(address & mask))
    });
    let prefixes = prop::collection::btree_set(prefix, 1..12);
    prefixes.prop_map(|prefixes| prefixes.into_iter().collect())
}

fn lists() -> impl Strategy<Value = Vec<PrefixListState>> {
    prop::collection::vec(prefixes(), 1..5).prop_map(|lists| {
        let list = |(at, prefixes): (usize, &Vec<String>)| {
            let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
            list(&format!("list-{at}"), &prefixes)
        };
        lists.iter().enumerate().map(list).collect()
    })
}

/// The ends of all prefixes, their neighbours, and these.
fn addresses(contents: &Contents, more: &[u32]) -> Vec<u32> {
    let prefixes = contents.lists.values().flat_map(|list| &*list.prefixes);
    let ends = prefixes.flat_map(|prefix| [prefix.get().network(), prefix.get().broadcast()].map(u32::from));
    let near = ends.flat_map(|end| {
        [
            end,
            end.wrapping_sub(1),
            end.wrapping_add(1),
            end ^ 0x80,
            end ^ 0x100,
        ]
    });
    near.chain(more.iter().copied()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: prop::test_runner::RngSeed::Fixed(11),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_address_is_on_the_lists_that_cover_it(
        before in lists(),
        lists in lists(),
        more in prop::collection::vec(any::<u32>(), 20),
    ) {
        let before = compiled(&blocking(before), None);
        let made = compiled(&blocking(lists), Some(&before));
        for address in addresses(&made, &more) {
            prop_assert_eq!(
                found(&made, address),
                searched(&made, address),
                "{}",
                Ipv4Addr::from(address)
            );
        }
        prop_assert!(made.list_areas.values().all(|lists| *lists != 0));
    }
}
