//! A small world as a reviewed text, and what holds of every world.
//!
//! `KUAFU_BLESS=1 cargo test -p kuafu-model compile` writes the text anew, to be reviewed as a change.

mod announced;
mod prefixes;
mod rollout;
mod vxlan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{
    Allocations, Choice, CompileError, Down, Fleet, Holders, Input, PairName, Server, compile, fallbacks,
    forbidden_relays, next, pairs, stages, unchanged,
};
use crate::contents::{ArpFacts, Capacities, HostFacts, contents};
use crate::health::Servers;
use crate::kinds::{Class, Name, PortNumber};
use crate::manifest::{File, Intent};
use crate::state::{HostState, LegState, SlotAction, SlotState, Target, TargetState};

/// Three nodes, an accelerator, and a VPC with two ports and one on a foreign VTEP.
const SMALL: &str = include_str!("tests/small-world.yaml");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/compile/tests/small-world.txt");

pub(super) type States = BTreeMap<Name, HostState>;

pub(super) fn intent(text: &str) -> Intent {
    with(&Intent::default(), text)
}

fn with(intent: &Intent, text: &str) -> Intent {
    let file = File { name: "test", text };
    intent
        .apply_files(&[file])
        .unwrap_or_else(|errors| panic!("{errors:?}"))
        .intent
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Keys that are told apart: 1, 2, 3 and so on.
pub(super) fn counted() -> impl FnMut() -> [u8; 16] {
    let mut last = 0u128;
    move || {
        last += 1;
        last.to_be_bytes()
    }
}

fn choice(entry: &str, exit: &str, primary: &[&str], backup: Option<&[&str]>) -> Choice {
    let names = |relays: &[&str]| relays.iter().map(|relay| name(relay)).collect();
    Choice {
        entry: name(entry),
        exit: name(exit),
        class: Class::Game,
        primary: Some(names(primary)),
        backup: backup.map(names),
        duplicate: false,
    }
}

pub(super) fn compiled(
    (intent, choices): (&Intent, &[Choice]),
    revision: u64,
    allocations: &mut Allocations,
    random: &mut dyn FnMut() -> [u8; 16],
) -> States {
    let input = Input {
        cluster: "test",
        revision,
        intent,
        choices,
        down: &Down::new(),
        holders: &Holders::new(),
    };
    compile(&input, allocations, random).unwrap()
}

/// Where a leg leads: the host, its slot, and that the slot expects what comes on the leg.
pub(super) fn arrives<'a>(
    states: &'a States,
    sender: &HostState,
    leg: &LegState,
) -> Result<(&'a HostState, &'a SlotState), String> {
    let from = &sender.node.name;
    let receiver = states.values().find(|state| state.node.public == leg.address);
    let receiver = receiver.ok_or(format!("{from} sends to {}", leg.address))?;
    let slot = receiver.slots.iter().find(|slot| slot.label == leg.label);
    let to = format!("{} label {}", receiver.node.name, leg.label);
    let slot = slot.ok_or(format!("{from} sends to {to}, which is not there"))?;
    let knows_key = leg.keys.last().is_some_and(|newest| slot.keys.contains(newest));
    if !knows_key || slot.source != sender.node.public || receiver.node.udp_port != leg.port {
        return Err(format!("{to} does not expect {from}"));
    }
    Ok((receiver, slot))
}

/// Follows a path to its end: the nodes, and the slot there.
pub(super) fn walk<'a>(
    states: &'a States,
    sender: &HostState,
    first: &LegState,
) -> Result<(Vec<String>, &'a SlotState), String> {
    let mut nodes = vec![sender.node.name.clone()];
    let (mut at, mut slot) = arrives(states, sender, first)?;
    loop {
        nodes.push(at.node.name.clone());
        if nodes.len() > 10 {
            return Err(format!("{nodes:?} does not end"));
        }
        match &slot.action {
            SlotAction::Exit { .. } => return Ok((nodes, slot)),
            SlotAction::Relay(leg) => (at, slot) = arrives(states, at, leg)?,
        }
    }
}

/// Every path leads over its nodes to a slot that names its twin; the twin leads back and names the path; pairs name
/// paths of theirs, and their far end expects their packets in one window.
pub(super) fn check(states: &States) {
    for state in states.values() {
        let paths: BTreeMap<u32, _> = state.paths.iter().map(|path| (path.index, path)).collect();
        assert_eq!(paths.len(), state.paths.len(), "numbers of paths differ");
        let labels: BTreeSet<u32> = state.slots.iter().map(|slot| slot.label).collect();
        assert_eq!(labels.len(), state.slots.len(), "labels differ");
        for path in &state.paths {
            let (nodes, slot) = walk(states, state, &path.leg).unwrap();
            assert_eq!(nodes, path.nodes);
            let SlotAction::Exit { twin, .. } = slot.action else {
                panic!("a path ends at an exit");
            };
            let far = &states[&name(&nodes[nodes.len() - 1])];
            let twin = far.paths.iter().find(|path| path.index == twin).unwrap();
            assert!(twin.nodes.iter().eq(path.nodes.iter().rev()), "{twin:?} {path:?}");
            let (_, home) = walk(states, far, &twin.leg).unwrap();
            assert!(matches!(home.action, SlotAction::Exit { twin, .. } if twin == path.index));
        }
        for pair in &state.pairs {
            let far = &states[&name(&pair.peer)];
            let mut windows = BTreeSet::new();
            for index in pair.primary.iter().chain(&pair.backup) {
                let (nodes, slot) = walk(states, state, &paths[index].leg).unwrap();
                assert_eq!(nodes.last(), Some(&pair.peer));
                let SlotAction::Exit { window, answers, .. } = slot.action else {
                    panic!("a path ends at an exit");
                };
                windows.insert(window);
                let back = far.pairs.iter().find(|pair| pair.index == answers).unwrap();
                assert_eq!((&back.peer, &back.class), (&state.node.name, &pair.class));
            }
            assert!(
                windows.len() <= 1 && !windows.contains(&super::NO_PAIR),
                "{windows:?}"
            );
        }
    }
}

/// An agent takes the state.
pub(super) fn accepted(state: &HostState) {
    let host = HostFacts {
        underlay: 2,
        underlay_mtu: 1500,
        incarnation: 1,
        hz: 250,
        interfaces: BTreeMap::new(),
        hand_over: 0,
        local6: None,
        capacities: Capacities::default(),
        now: 0,
        servers: Servers::default(),
        cookie_key: [1, 2],
        arp: ArpFacts::default(),
    };
    contents(state, &host, None).unwrap_or_else(|error| panic!("{}: {error}", state.node.name));
}

/// A state, an entry a line, with the first octet that differs of each key.
fn shown(states: &States) -> String {
    let mut text = String::new();
    for (name, state) in states {
        let HostState {
            cluster, revision, ..
        } = state;
        writeln!(
            text,
            "== {name}: cluster {cluster}, revision {revision}\n{:?}",
            state.node
        )
        .unwrap();
        state
            .ports
            .iter()
            .for_each(|entry| writeln!(text, "{entry:?}").unwrap());
        state
            .endpoints
            .iter()
            .for_each(|entry| writeln!(text, "{entry:?}").unwrap());
        state
            .vteps
            .iter()
            .for_each(|entry| writeln!(text, "{entry:?}").unwrap());
        state
            .slots
            .iter()
            .for_each(|entry| writeln!(text, "{entry:?}").unwrap());
        state
            .paths
            .iter()
            .for_each(|entry| writeln!(text, "{entry:?}").unwrap());
        state
            .pairs
            .iter()
            .for_each(|entry| writeln!(text, "{entry:?}").unwrap());
        state
            .services
            .iter()
            .for_each(|entry| writeln!(text, "{entry:?}").unwrap());
        state
            .prefix_lists
            .iter()
            .for_each(|entry| writeln!(text, "{entry:?}").unwrap());
    }
    text
}

fn small_choices() -> Vec<Choice> {
    vec![choice("osaka", "cape-town", &["singapore"], Some(&[]))]
}

#[test]
fn a_small_world_is_as_reviewed() {
    let (intent, choices) = (intent(SMALL), small_choices());
    let states = compiled(
        (&intent, &choices),
        7,
        &mut Allocations::default(),
        &mut counted(),
    );
    check(&states);
    states.values().for_each(accepted);
    let found = shown(&states);
    if std::env::var_os("KUAFU_BLESS").is_some() {
        std::fs::write(GOLDEN, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(GOLDEN).unwrap());
}

#[test]
fn what_is_compiled_again_is_the_same() {
    let (intent, choices, mut random) = (intent(SMALL), small_choices(), counted());
    let mut allocations = Allocations::default();
    let first = compiled((&intent, &choices), 1, &mut allocations, &mut random);
    let stored = serde_json::to_string(&allocations).unwrap();
    let mut restored: Allocations = serde_json::from_str(&stored).unwrap();
    assert_eq!(restored, allocations);
    let second = compiled((&intent, &choices), 1, &mut restored, &mut || {
        panic!("no new key is needed")
    });
    assert_eq!(first, second);
    assert_eq!(restored, allocations);
    assert!(
        !format!("{allocations:?}").contains("key: 1"),
        "keys are not shown"
    );
}

#[test]
fn a_new_node_changes_nothing_of_the_others() {
    let (before, choices, mut random) = (intent(SMALL), small_choices(), counted());
    let mut allocations = Allocations::default();
    let old = compiled((&before, &choices), 1, &mut allocations, &mut random);
    let text = "kind: Node\nmetadata: {name: aden}\nspec: {region: r, address: {local: 192.0.2.77}}\n";
    let after = with(&before, text);
    let new = compiled((&after, &choices), 1, &mut allocations, &mut random);
    check(&new);
    assert_eq!(new.len(), old.len() + 1);
    for (name, old) in &old {
        let new = &new[name];
        assert!(old.slots.iter().all(|slot| new.slots.contains(slot)), "{name}");
        assert!(old.paths.iter().all(|path| new.paths.contains(path)), "{name}");
        assert_eq!(
            (&old.pairs, &old.services, &old.node),
            (&new.pairs, &new.services, &new.node)
        );
    }
}

#[test]
fn a_node_number_is_not_used_twice() {
    let (all, mut random, mut allocations) = (intent(SMALL), counted(), Allocations::default());
    compiled((&all, &[]), 1, &mut allocations, &mut random);
    let singapore = name("singapore");
    let before = allocations.node(&singapore).unwrap();
    let without = all
        .delete(&["node/singapore", "port/red-b"].map(|id| id.parse().unwrap()))
        .unwrap();
    compiled((&without, &[]), 2, &mut allocations, &mut random);
    assert_eq!(allocations.node(&singapore), None);
    compiled((&all, &[]), 3, &mut allocations, &mut random);
    assert!(allocations.node(&singapore).unwrap() > before);
}

#[test]
fn a_label_rests_until_its_upstream_has_let_go() {
    let (intent, mut random, mut allocations) = (intent(SMALL), counted(), Allocations::default());
    let relayed = small_choices();
    let direct = [choice("osaka", "cape-town", &[], None)];
    let first = compiled((&intent, &relayed), 1, &mut allocations, &mut random);
    let mut fleet = Fleet::settled(&first);
    let second = compiled((&intent, &direct), 2, &mut allocations, &mut random);
    assert!(allocations.has_resting());
    allocations.release(&fleet);
    let third = compiled((&intent, &relayed), 3, &mut allocations, &mut random);
    let labels = |states: &States| -> BTreeSet<u32> {
        states[&name("singapore")]
            .slots
            .iter()
            .map(|slot| slot.label)
            .collect()
    };
    let old: BTreeSet<u32> = labels(&first).difference(&labels(&second)).copied().collect();
    assert_eq!(old.len(), 2);
    assert!(labels(&third).is_disjoint(&old), "the entry may still use them");

    // Once every host runs the second state, they are free.
    let mut allocations_2 = allocations.clone();
    compiled((&intent, &direct), 4, &mut allocations_2, &mut random);
    second
        .iter()
        .for_each(|(host, state)| fleet.restore(host, state.clone()));
    allocations_2.release(&fleet);
    assert!(!allocations_2.has_resting());

    // A host of which nothing is known keeps what it may use.
    fleet.forget(&name("osaka"));
    allocations.release(&fleet);
    assert!(allocations.has_resting());
}

#[test]
fn a_declared_vni_that_was_given_away_is_refused() {
    let (small, mut allocations) = (intent(SMALL), Allocations::default());
    compiled((&small, &[]), 1, &mut allocations, &mut counted());
    let arena = allocations.vni(&"accelerator/arena".parse().unwrap()).unwrap();
    let blue = format!("kind: Vpc\nmetadata: {{name: blue}}\nspec: {{cidr: 10.0.0.0/8, vni: {arena}}}\n");
    let wrong = with(&small, &blue);
    let input = Input {
        cluster: "test",
        revision: 2,
        intent: &wrong,
        choices: &[],
        down: &Down::new(),
        holders: &Holders::new(),
    };
    let before = allocations.clone();
    let error = compile(&input, &mut allocations, &mut counted()).unwrap_err();
    assert!(matches!(error, CompileError::VniTaken { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "vpc/blue: spec.vni: VNI {arena} was given to accelerator/arena; choose another, or leave it out"
        )
    );
    assert_eq!(allocations, before);
}

#[test]
fn rules_about_relays_are_those_of_all_accelerators_that_use_a_pair() {
    let node = |name: &str, number: u32, place: &str| {
        format!(
            "kind: Node\nmetadata: {{name: {name}}}\nspec: {{region: {name}, address: {{local: 192.0.2.{number}}}, \
             {place}}}\n---\n"
        )
    };
    let accelerator = |name: &str, port: u32, rules: &str| {
        format!(
            "kind: Accelerator\nmetadata: {{name: {name}}}\nspec: {{pool: p, listeners: [{{protocol: udp, port: \
             {port}}}], groups: [{{service: s, region: exit}}], relays: {rules}}}\n---\n"
        )
    };
    let world = [
        node("entry", 1, "country: JP"),
        node("exit", 2, "country: ZA"),
        node("taipei", 3, "country: TW, provider: one"),
        node("virginia", 4, "country: US, provider: two"),
        node("nowhere", 5, "provider: two"),
        "kind: AddressPool\nmetadata: {name: p}\nspec: {addresses: [{node: entry, public: 203.0.113.1}]}\n---\n".into(),
        "kind: Service\nmetadata: {name: s}\nspec: {targets: [{address: 198.51.100.1, port: 9}]}\n---\n".into(),
        accelerator("one", 7000, "{never: {countries: [TW]}}"),
        accelerator("two", 7001, "{only: {providers: [two]}, strict: true}"),
    ];
    let intent = intent(&world.concat());
    let [pair] = pairs(&intent).try_into().unwrap();
    let names = |names: &[&str]| names.iter().map(|text| name(text)).collect::<BTreeSet<_>>();
    let forbidden = forbidden_relays(&intent);
    let of_pair: BTreeSet<Name> = forbidden[&pair].iter().copied().cloned().collect();
    assert_eq!(of_pair, names(&["entry", "exit", "nowhere", "taipei"]));
    assert_eq!(forbidden.len(), 2, "the pair and its reverse");
}

/// An accelerator over services in two regions, and an entry that is an exit of one.
fn two_regions() -> Intent {
    two_regions_and("{address: 198.51.100.4, weight: 2}")
}

/// The same, with this server in the second region.
fn two_regions_and(server: &str) -> Intent {
    let node = |name: &str, region: &str, number: u32| {
        format!(
            "kind: Node\nmetadata: {{name: {name}}}\nspec: {{region: {region}, address: {{local: 192.0.2.{number}}}}}\n---\n"
        )
    };
    let world = [
        node("entry", "home", 1),
        node("a1", "a", 2),
        node("a2", "a", 3),
        node("b", "b", 4),
        "kind: AddressPool\nmetadata: {name: p}\nspec:\n  addresses: [{node: entry, public: 203.0.113.1}, \
         {node: a1, public: 203.0.113.2}]\n---\n"
            .into(),
        "kind: Service\nmetadata: {name: s}\nspec:\n  targets: [{address: 198.51.100.1, port: 9}, \
         {address: 198.51.100.2, port: 9, weight: 3}, {address: 198.51.100.3, weight: 0}]\n---\n"
            .into(),
        format!("kind: Service\nmetadata: {{name: t}}\nspec: {{targets: [{server}]}}\n---\n"),
        "kind: Accelerator\nmetadata: {name: one}\nspec: {pool: p, listeners: [{protocol: udp, port: 7000}], \
         groups: [{service: s, region: a}, {service: t, region: b, dial: 50}]}\n---\n"
            .into(),
    ];
    intent(&world.concat())
}

/// What each target of a host's listener gets, by exit or server.
fn shares(states: &States, node: &str, listener: usize) -> BTreeMap<String, u32> {
    let state = &states[&name(node)];
    let share = |target: &TargetState| {
        let to = match &target.target {
            Target::Pair(pair) => {
                let pair = state.pairs.iter().find(|known| known.index == *pair);
                pair.unwrap().peer.clone()
            }
            Target::Server { address, .. } => address.to_string(),
            Target::Direct { address, .. } => address.to_string(),
        };
        (to, target.weight)
    };
    state.services[listener].targets.iter().map(share).collect()
}

fn these(shares: &[(&str, u32)]) -> BTreeMap<String, u32> {
    let owned = shares.iter().map(|(to, share)| ((*to).to_owned(), *share));
    owned.collect()
}

#[test]
fn several_groups_share_by_their_dials_and_their_targets_weights() {
    let (intent, mut allocations) = (two_regions(), Allocations::default());
    let states = compiled((&intent, &[]), 1, &mut allocations, &mut counted());
    check(&states);
    let shares = |node, listener| shares(&states, node, listener);
    assert_eq!(shares("entry", 0), these(&[("a1", 400), ("a2", 400), ("b", 200)]));
    // One without weight is there for the flows that it has.
    let of_s = these(&[("198.51.100.1", 100), ("198.51.100.2", 300), ("198.51.100.3", 0)]);
    assert_eq!(shares("a2", 0), of_s);
    assert_eq!(shares("b", 0), these(&[("198.51.100.4", 100)]));
    // What is an exit for one group and an entry for the other.
    let a1 = &states[&name("a1")];
    let at_exit: Vec<bool> = a1.services.iter().map(|service| service.at_exit).collect();
    assert_eq!(at_exit, [false, true]);
    let mixed = [
        ("198.51.100.1", 100),
        ("198.51.100.2", 300),
        ("198.51.100.3", 0),
        ("b", 100),
    ];
    assert_eq!(shares("a1", 0), these(&mixed));
    assert_eq!(shares("a1", 1), of_s);
    let names = |pair: PairName| (pair.entry.to_string(), pair.exit.to_string());
    let wanted: Vec<_> = pairs(&intent).into_iter().map(names).collect();
    let expected = [("a1", "b"), ("entry", "a1"), ("entry", "a2"), ("entry", "b")];
    assert_eq!(
        wanted,
        expected.map(|(entry, exit)| (entry.to_owned(), exit.to_owned()))
    );
}

#[test]
fn an_exit_counts_by_the_servers_that_serve_as_it_sees_them() {
    let (intent, mut allocations) = (two_regions(), Allocations::default());
    let mut of_entry = |down: &[(&str, &str, u8)]| {
        let server = |(node, service, last): &(&str, &str, u8)| {
            // What has no port of its own is asked at the listener's.
            let port = if *last < 3 { 9 } else { 7000 };
            let server = Server {
                service: name(service),
                address: format!("198.51.100.{last}").parse().unwrap(),
                port: PortNumber::new(port).unwrap(),
            };
            (name(node), server)
        };
        let input = Input {
            cluster: "test",
            revision: 1,
            intent: &intent,
            choices: &[],
            down: &down.iter().map(server).collect(),
            holders: &Holders::new(),
        };
        let states = compile(&input, &mut allocations, &mut counted()).unwrap();
        shares(&states, "entry", 0)
    };
    let all = these(&[("a1", 400), ("a2", 400), ("b", 200)]);
    assert_eq!(of_entry(&[]), all);
    // 198.51.100.2 has three quarters of the weight.
    let half = these(&[("a1", 100), ("a2", 400), ("b", 200)]);
    assert_eq!(of_entry(&[("a1", "s", 2)]), half);
    // The third has no weight, and its flows.
    let kept = these(&[("a1", 0), ("a2", 400), ("b", 200)]);
    assert_eq!(of_entry(&[("a1", "s", 1), ("a1", "s", 2)]), kept);
    let gone = these(&[("a2", 400), ("b", 200)]);
    assert_eq!(of_entry(&[("a1", "s", 1), ("a1", "s", 2), ("a1", "s", 3)]), gone);
    let everywhere = [
        ("a1", "s", 1),
        ("a1", "s", 2),
        ("a2", "s", 1),
        ("a2", "s", 2),
        ("b", "t", 4),
    ];
    assert_eq!(of_entry(&everywhere), all, "where none serves, all count");
}

#[test]
fn behind_an_exit_whose_servers_end_no_flow_stays() {
    let until = "{address: 198.51.100.4, drain: true, drain_until: 2026-12-01T06:00:00Z}";
    let (intent, mut allocations) = (two_regions_and(until), Allocations::default());
    let states = compiled((&intent, &[]), 1, &mut allocations, &mut counted());
    check(&states);
    let ends = |node: &str, listener: usize| -> Vec<(u32, Option<u64>)> {
        let targets = states[&name(node)].services[listener].targets.iter();
        targets.map(|target| (target.weight, target.ends_s)).collect()
    };
    assert_eq!(ends("b", 0), [(0, Some(1_796_104_800))]);
    assert_eq!(
        shares(&states, "entry", 0),
        these(&[("a1", 400), ("a2", 400), ("b", 0)])
    );
    let of_entry = ends("entry", 0);
    let ending = of_entry.iter().filter(|(_, ends_s)| ends_s.is_some());
    assert_eq!(ending.collect::<Vec<_>>(), [&(0, Some(1_796_104_800))]);
}

#[test]
fn without_a_living_path_an_entry_sends_to_the_server_itself() {
    let (intent, mut allocations) = (intent(SMALL), Allocations::default());
    assert_eq!(pairs(&intent).len(), 1);
    let none = Choice {
        primary: None,
        ..choice("osaka", "cape-town", &[], None)
    };
    let states = compiled((&intent, &[none]), 1, &mut allocations, &mut counted());
    let osaka = &states[&name("osaka")];
    let targets: Vec<_> = osaka.services[0]
        .targets
        .iter()
        .map(|target| &target.target)
        .collect();
    assert!(matches!(*targets, [Target::Server { .. }]));
    assert!(osaka.node.nat_ports.is_some());
    let none = Choice {
        primary: None,
        ..choice("osaka", "cape-town", &[], None)
    };
    let said: Vec<_> = fallbacks(&intent, &[none]);
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].1.as_str(), said[0].2.len()), ("osaka", 1));
    assert!(fallbacks(&intent, &small_choices()).is_empty() && fallbacks(&intent, &[]).is_empty());

    // A choice over a node that is gone: the backup takes its place.
    let gone = choice("osaka", "cape-town", &["atlantis"], Some(&["singapore"]));
    let states = compiled((&intent, &[gone]), 2, &mut allocations, &mut counted());
    check(&states);
    let osaka = &states[&name("osaka")];
    let primary = osaka
        .paths
        .iter()
        .find(|path| Some(path.index) == osaka.pairs[0].primary);
    assert_eq!(primary.unwrap().nodes, ["osaka", "singapore", "cape-town"]);
}

/// An exit takes more ports before an entry does, and lets go of those that are no more; what stays has no gap.
#[test]
fn ports_are_led_on_once_the_exit_takes_them() {
    let (mut random, mut allocations) = (counted(), Allocations::default());
    let direct = [choice("osaka", "cape-town", &[], None)];
    let mut of = |revision, listeners: &str| {
        let text = SMALL.replace("{protocol: udp, port: 2342}", listeners);
        compiled((&intent(&text), &direct), revision, &mut allocations, &mut random)
    };
    let udp = |states: &BTreeMap<Name, HostState>, node: &str| -> Vec<(u16, u16)> {
        let services = states[&name(node)].services.iter();
        let ports = services
            .filter(|service| service.protocol == 17)
            .map(|service| service.ports);
        ports
            .map(|ports| (ports.first().get(), ports.last().get()))
            .collect()
    };
    let states = [
        of(1, "{protocol: udp, ports: 2340-2349}"),
        of(2, "{protocol: udp, ports: 2330-2345}"),
        of(
            3,
            "{protocol: udp, ports: 2330-2337}, {protocol: udp, ports: 2338-2345}",
        ),
        of(4, "{protocol: udp, ports: 2330-2400}"),
    ];
    for (old, new) in states.iter().zip(&states[1..]) {
        let mut fleet = Fleet::settled(old);
        let first = next(&fleet, new);
        assert_eq!(
            udp(&first, "cape-town"),
            udp(new, "cape-town"),
            "the exit at once"
        );
        let numbers = |states: &BTreeMap<Name, HostState>| -> BTreeSet<u16> {
            let ranges = udp(states, "osaka").into_iter();
            ranges.flat_map(|(first, last)| first..=last).collect()
        };
        let (was, now, will_be) = (numbers(old), numbers(&first), numbers(new));
        assert!(now.is_subset(&was) || now == will_be, "{now:?}");
        assert!(
            was.intersection(&will_be).all(|port| now.contains(port)),
            "{now:?}"
        );
        fleet.restore(&name("cape-town"), first[&name("cape-town")].clone());
        assert_eq!(udp(&next(&fleet, new), "osaka"), udp(new, "osaka"));
    }
}

#[test]
fn exits_come_first_and_entries_let_go_first() {
    let (intent, mut random, mut allocations) = (intent(SMALL), counted(), Allocations::default());
    let direct = [choice("osaka", "cape-town", &[], None)];
    let old = compiled((&intent, &direct), 1, &mut allocations, &mut random);
    let new = compiled((&intent, &small_choices()), 2, &mut allocations, &mut random);
    let stages = stages(&old, &new);
    let relay = |state: &HostState| {
        state
            .slots
            .iter()
            .filter(|slot| matches!(slot.action, SlotAction::Relay(_)))
            .count()
    };
    let hosts: Vec<Vec<&str>> = stages
        .iter()
        .map(|stage| stage.states.keys().map(Name::as_str).collect())
        .collect();
    assert_eq!(
        hosts,
        [
            vec!["cape-town", "osaka"],
            vec!["singapore"],
            vec!["cape-town", "osaka"]
        ]
    );
    assert_eq!(relay(&stages[1].states[&name("singapore")]), 2);
    let (before, after) = (
        &stages[0].states[&name("osaka")],
        &stages[2].states[&name("osaka")],
    );
    assert_eq!(before.pairs, old[&name("osaka")].pairs);
    assert_eq!(after.pairs, new[&name("osaka")].pairs);

    let back = super::stages(&new, &old);
    let hosts: Vec<Vec<&str>> = back
        .iter()
        .map(|stage| stage.states.keys().map(Name::as_str).collect())
        .collect();
    assert_eq!(
        hosts,
        [
            vec!["cape-town", "osaka"],
            vec!["singapore"],
            vec!["cape-town", "osaka"]
        ]
    );
}

#[test]
fn a_first_rollout_ends_at_the_target() {
    let (intent, mut allocations) = (intent(SMALL), Allocations::default());
    let target = compiled((&intent, &small_choices()), 1, &mut allocations, &mut counted());
    let mut last = BTreeMap::new();
    for stage in stages(&BTreeMap::new(), &target) {
        last.extend(stage.states);
    }
    assert!(target.iter().all(|(name, state)| unchanged(state, &last[name])));
    // Hosts of which nothing is known get their target whole.
    assert_eq!(next(&Fleet::default(), &target), target);
}

/// Two carriers of a pool in two regions, one of them with a site, and a service that prefers something.
fn preferring(prefer: &str) -> Intent {
    let node = |name: &str, region: &str, site: &str, last: u8| {
        format!(
            "kind: Node\nmetadata: {{name: {name}}}\nspec: {{region: {region}, {site}address: {{local: 10.0.0.{last}, \
             public: 192.0.2.{last}}}}}\n---\n"
        )
    };
    let world = [
        node("a1", "a", "site: a-1, ", 1),
        node("a2", "a", "site: a-2, ", 2),
        node("b1", "b", "", 3),
        "kind: AddressPool\nmetadata: {name: pool}\nspec: {addresses: [{node: a1, public: 203.0.113.1}, {node: b1, public: \
         203.0.113.2}]}\n---\n"
            .to_owned(),
        format!(
            "kind: Service\nmetadata: {{name: s}}\nspec: {{pool: pool, listeners: [{{protocol: udp, port: 9}}], targets: \
             [{{address: 198.51.100.1, region: a, site: a-1}}, {{address: 192.0.2.2}}, {{address: 10.0.0.3}}, {{address: \
             198.51.100.4}}, {{address: 10.0.0.2, region: b}}], prefer: {prefer}}}\n---\n"
        ),
        "kind: Accelerator\nmetadata: {name: acc}\nspec: {pool: pool, listeners: [{protocol: udp, port: 10}], groups: \
         [{service: s, region: a}]}\n"
            .to_owned(),
    ];
    intent(&world.concat())
}

#[test]
fn a_target_has_a_rank_by_the_place_where_packets_leave_to_it() {
    let of = |prefer: &str| {
        let (intent, mut allocations) = (preferring(prefer), Allocations::default());
        let states = compiled((&intent, &[]), 1, &mut allocations, &mut counted());
        check(&states);
        let ranks = |node: &str, at_exit: bool, own: bool| -> Vec<(u32, u32)> {
            let mut services = states[&name(node)].services.iter();
            let service = services.find(|service| service.at_exit == at_exit && service.own == own);
            let targets = service.unwrap().targets.iter();
            targets
                .filter(|target| !matches!(target.target, Target::Pair(_)))
                .map(|target| (target.group, target.rank))
                .collect()
        };
        [
            ranks("a1", false, true),
            ranks("b1", false, true),
            ranks("a2", true, false),
        ]
    };
    let ranked = |ranks: [u32; 5]| ranks.map(|rank| (1, rank)).to_vec();
    assert_eq!(of("none"), [[(0, 0); 5], [(0, 0); 5], [(0, 0); 5]]);
    let [a1, b1, a2] = of("region");
    assert_eq!(a1, ranked([0, 0, 1, 1, 1]));
    assert_eq!(b1, ranked([1, 1, 0, 1, 0]));
    assert_eq!(a2, ranked([0, 0, 1, 1, 1]));
    let [a1, b1, a2] = of("site");
    assert_eq!(a1, ranked([0, 1, 2, 2, 2]));
    // It has no site: nothing is nearer there than its region.
    assert_eq!(b1, ranked([2, 2, 1, 2, 1]));
    assert_eq!(a2, ranked([1, 0, 2, 2, 0]));
}
