//! What hosts say of servers, at the entries.

use std::collections::BTreeSet;

use kuafu_model::compile::Server;
use kuafu_model::kinds::PortNumber;
use kuafu_model::state::{Target, TargetState};

use super::*;

const SECOND: &str = "
kind: Service
metadata: {name: match}
spec: {targets: [{address: 198.51.100.8, port: 2342}, {address: 198.51.100.9, port: 2342}]}
---
kind: Accelerator
metadata: {name: arena}
spec:
  pool: asia
  listeners: [{protocol: udp, port: 2342}]
  groups: [{service: game, region: af-south-1}, {service: match, region: ap-east-2}]
";

/// osaka is the entry; cape-town is the exit of `game`, taipei of `match`.
fn world() -> (World, [Agent; 3]) {
    let mut world = World::new();
    world.apply(NODES).unwrap();
    let nodes = ["osaka", "taipei", "cape-town"];
    let mut agents = nodes.map(|node| {
        world.join(node);
        world.connect(node, 0)
    });
    settle(&mut world, &mut agents);
    world.apply(ACCELERATOR).unwrap();
    world.apply(SECOND).unwrap();
    settle(&mut world, &mut agents);
    (world, agents)
}

fn servers(last: &[u8]) -> BTreeSet<Server> {
    let server = |last: &u8| Server {
        service: "match".parse().unwrap(),
        address: format!("198.51.100.{last}").parse().unwrap(),
        port: PortNumber::new(2342).unwrap(),
    };
    last.iter().map(server).collect()
}

/// What the entry leads to the exits, by node.
fn weights(entry: &Agent) -> BTreeMap<String, u32> {
    let state = entry.state.as_ref().unwrap();
    let weight = |target: &TargetState| {
        let Target::Pair(number) = target.target else {
            panic!("{target:?}")
        };
        let pair = state.pairs.iter().find(|pair| pair.index == number).unwrap();
        (pair.peer.clone(), target.weight)
    };
    state.services[0].targets.iter().map(weight).collect()
}

fn these(taipei: u32, cape_town: u32) -> BTreeMap<String, u32> {
    BTreeMap::from([("taipei".to_owned(), taipei), ("cape-town".to_owned(), cape_town)])
}

fn say(world: &mut World, agents: &mut [Agent; 3], host: usize, down: &[u8]) -> usize {
    let commands = world.core.handle_health(agents[host].session, servers(down));
    let count = commands.len();
    world.carry_out(commands);
    settle(world, agents);
    count
}

#[test]
fn an_exit_counts_less_by_what_it_has_lost() {
    let (mut world, mut agents) = world();
    assert_eq!(weights(&agents[0]), these(200, 100));
    say(&mut world, &mut agents, 1, &[8]);
    assert_eq!(weights(&agents[0]), these(100, 100));
    assert_eq!(say(&mut world, &mut agents, 1, &[8]), 0, "nothing new");
    // Who does not send there has nothing to say of it.
    say(&mut world, &mut agents, 2, &[8, 9]);
    assert_eq!(weights(&agents[0]), these(100, 100));
    say(&mut world, &mut agents, 1, &[8, 9]);
    let alone = BTreeMap::from([("cape-town".to_owned(), 100)]);
    assert_eq!(weights(&agents[0]), alone, "no flow stays where nothing serves");
    say(&mut world, &mut agents, 1, &[]);
    assert_eq!(weights(&agents[0]), these(200, 100));
}

#[test]
fn what_was_said_holds_over_a_restart_and_while_its_host_is_away() {
    let (mut world, mut agents) = world();
    say(&mut world, &mut agents, 1, &[8]);
    world.core.handle_disconnected(world.now, agents[1].session);
    let mut world = world.restart();
    let revision = agents[0].revision();
    let mut entry = world.connect("osaka", revision);
    entry.state = agents[0].state.clone();
    assert_eq!(
        entry.take(&mut world),
        [""; 0],
        "nothing has changed for the entry"
    );
    // A node that goes takes its word with it.
    let gone = ["accelerator/arena", "service/match", "node/taipei"].map(|object| object.parse().unwrap());
    assert_eq!(world.store.list(key::DOWN).unwrap().len(), 1);
    let deleted = world
        .core
        .handle_delete(world.now, &gone, Terms::default())
        .unwrap();
    world.carry_out(deleted.commands);
    assert_eq!(world.store.list(key::DOWN).unwrap(), []);
}
