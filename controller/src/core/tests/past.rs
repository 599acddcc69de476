//! What is remembered of legs and decisions, and for how long.

use kuafu_topology::steering::Reason;
use kuafu_topology::{TrafficClass, Why};

use super::steering::{measured, second};
use super::*;
use crate::core::PathError::{Forgotten, Future, OneNode, UnknownNode};

const BEGAN: UnixMs = 1_700_000_000_000;

fn question(entry: &str, exit: &str) -> PathQuestion {
    PathQuestion {
        entry: entry.to_owned(),
        exit: exit.to_owned(),
        class: None,
    }
}

fn ask(world: &World, question: &PathQuestion, when: When) -> Result<PathAnswer, PathError> {
    let chapter = world.core.history_of(world.now, when)?;
    let Some((at, prefix)) = chapter else {
        return world.core.explain_path(world.now, question, None);
    };
    let entries = world.store.list(&prefix).unwrap().into_iter();
    let values: Vec<Vec<u8>> = entries.map(|(_, entry)| entry.value).collect();
    world.core.explain_path(world.now, question, Some((at, &values)))
}

fn chosen(answer: &PathAnswer) -> Vec<String> {
    use kuafu_topology::steering::Words;
    let path = &answer.explanation.chosen.as_ref().unwrap().path;
    path.nodes().iter().map(|&node| answer.names.node(node)).collect()
}

/// Osaka's pair goes over Taipei.
fn relayed() -> (World, Vec<Agent>) {
    let (mut world, mut agents) = three();
    world.core.tell_time(0, BEGAN);
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    for _ in 0..30 {
        second(&mut world, &mut agents);
    }
    (world, agents)
}

/// Osaka says that its path over Taipei is dead.
fn die(world: &mut World, agents: &mut [Agent]) {
    let entry = agents[0].state.as_ref().unwrap();
    let path = entry.paths.iter().find(|path| path.nodes.len() == 3).unwrap();
    let (id, session) = (path.id, agents[0].session);
    let commands = world
        .core
        .handle_alarm(world.now, session, id, (Alarm::Dead, 0.0));
    world.carry_out(commands);
    second(world, agents);
}

#[test]
fn each_switch_has_its_cause_and_what_was_known_survives_a_restart() {
    let (mut world, mut agents) = relayed();
    let pair = question("osaka", "cape-town");
    die(&mut world, &mut agents);
    let now = ask(&world, &pair, When::Now).unwrap();
    assert_eq!(chosen(&now), ["osaka", "cape-town"]);
    let barred = &now.explanation.barred[0];
    assert!(matches!(barred.reasons[..], [Reason::Down { .. }]), "{barred:?}");
    for _ in 0..5 {
        second(&mut world, &mut agents);
    }
    let mut world = world.restart();
    world.now = 60_000;
    world.core.tell_time(world.now, BEGAN + 3_600_000);
    let then = |ms: u64| ask(&world, &pair, When::At(BEGAN + ms)).unwrap();
    let before = then(29_000);
    assert_eq!(chosen(&before), ["osaka", "taipei", "cape-town"]);
    assert_eq!(before.switches.len(), 1, "what came later was not known");
    assert!(before.notes.is_empty(), "{:?}", before.notes);
    let gain_us = Some(82_000 - 1_000);
    assert_eq!(before.explanation.held.why, Why::RelayBest { gain_us });
    let after = then(33_000);
    assert_eq!(chosen(&after), ["osaka", "cape-town"]);
    let [first, second] = &after.switches[..] else {
        panic!("{:?}", after.switches)
    };
    assert_eq!(first.to, ["osaka", "taipei", "cape-town"]);
    assert!(first.cause.starts_with("first choice"), "{}", first.cause);
    assert_eq!((&second.from, second.at), (&first.to, BEGAN + 31_000));
    assert_eq!(second.to, ["osaka", "cape-town"]);
    assert_eq!(second.cause, "the path before is down");
    assert_eq!(
        (second.from_cost_ms, second.to_cost_ms),
        (Some(293.0), Some(374.0))
    );
}

#[test]
fn a_restart_without_another_path_is_no_switch() {
    let (world, agents) = relayed();
    let revisions: Vec<u64> = agents.iter().map(Agent::revision).collect();
    let mut world = world.restart();
    world.core.tell_time(0, BEGAN + 100_000);
    let mut agents: Vec<Agent> = agents
        .into_iter()
        .zip(["osaka", "taipei", "cape-town"])
        .zip(revisions)
        .map(|((agent, node), revision)| Agent {
            session: world.connect(node, revision).session,
            ..agent
        })
        .collect();
    settle(&mut world, &mut agents);
    let pair = question("osaka", "cape-town");
    second(&mut world, &mut agents);
    second(&mut world, &mut agents);
    let answer = ask(&world, &pair, When::Now).unwrap();
    assert_eq!(chosen(&answer), ["osaka", "taipei", "cape-town"]);
    assert_eq!(answer.switches.len(), 1);
    let before = ask(&world, &pair, When::Ago(90_000)).unwrap();
    assert_eq!(before.at, BEGAN + 1_000, "nothing has changed since");
}

#[test]
fn history_is_of_bounded_size_and_written_seldom() {
    const LIMIT: usize = 20_000;
    let (mut world, mut agents) = relayed();
    world.core.keep_history(LIMIT);
    let stored = |world: &World| -> usize {
        let of = |prefix| world.store.list(prefix).unwrap();
        let entries = of("legs/").into_iter().chain(of("switch/"));
        entries.map(|(key, entry)| key.len() + entry.value.len()).sum()
    };
    let (mut most, mut writes) = (0, 0);
    for round in 0..6_000_u32 {
        // Every leg wanders by more than what is notable, each second.
        world.now += 1_000;
        measured(&mut world, &agents, 2_000 * (round % 7));
        let commands = world.core.handle_tick(world.now);
        writes += commands
            .iter()
            .filter(|one| matches!(one, Command::Commit(_)))
            .count();
        world.carry_out(commands);
        if round % 100 == 0 {
            settle(&mut world, &mut agents);
            let bytes = stored(&world);
            assert_eq!(world.core.past().0, bytes);
            assert!(bytes <= LIMIT, "{bytes}");
            most = most.max(bytes);
        }
    }
    println!("at most {most} octets of {LIMIT}, {writes} commits in 6000 s");
    assert!(most > LIMIT / 2 && writes <= 650, "{most} {writes}");
    let pair = question("osaka", "cape-town");
    let recent = ask(&world, &pair, When::Ago(100_000)).unwrap();
    assert_eq!(chosen(&recent), ["osaka", "taipei", "cape-town"]);
    let old = ask(&world, &pair, When::At(BEGAN + 60_000));
    assert!(matches!(old, Err(Forgotten(why)) if why.contains("begins")));
    let world = world.restart();
    assert_eq!(world.core.past().0, stored(&world));
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let (mut world, mut agents) = three();
    world.core.keep_history(0);
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    for _ in 0..30 {
        second(&mut world, &mut agents);
    }
    assert_eq!(world.store.list("legs/").unwrap(), []);
    assert_eq!(world.store.list("switch/").unwrap(), []);
    let pair = question("osaka", "cape-town");
    assert!(ask(&world, &pair, When::Now).is_ok());
    let then = ask(&world, &pair, When::Ago(5_000));
    assert!(matches!(then, Err(Forgotten(why)) if why.contains("no history")));
}

#[test]
fn questions_without_an_answer_say_why() {
    let (world, _) = relayed();
    let notes = |entry, exit, when| ask(&world, &question(entry, exit), when).map(|answer| answer.notes);
    let osaka = || "osaka".to_owned();
    assert_eq!(notes("osaka", "osaka", When::Now), Err(OneNode(osaka())));
    assert_eq!(
        notes("osaka", "kyoto", When::Now),
        Err(UnknownNode("kyoto".to_owned()))
    );
    assert_eq!(notes("osaka", "taipei", When::At(BEGAN + 31_000)), Err(Future));
    let unused = notes("osaka", "taipei", When::Now).unwrap();
    assert_eq!(
        unused,
        ["no accelerator uses this pair: this is what would be chosen"]
    );
    let back = notes("cape-town", "osaka", When::Now).unwrap();
    assert!(back[0].contains("from osaka to cape-town backwards"), "{back:?}");
    let bulk = PathQuestion {
        class: Some(TrafficClass::Bulk),
        ..question("osaka", "cape-town")
    };
    let bulk = ask(&world, &bulk, When::Now).unwrap();
    assert!(bulk.notes[0].starts_with("no accelerator"));
}
