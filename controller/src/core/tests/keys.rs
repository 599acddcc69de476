//! When keys are renewed, and how they reach both ends of a leg.

use super::*;

const DAY: UnixSeconds = 24 * 60 * 60;

/// The epochs of a host's slots and of the legs that it sends on: the valid ones, newest last.
fn epochs(agent: &Agent) -> Vec<Vec<u8>> {
    let state = agent.state.as_ref().unwrap();
    let keys = state.slots.iter().map(|slot| &slot.keys);
    let keys = keys.chain(state.paths.iter().map(|path| &path.leg.keys));
    let mut all: Vec<Vec<u8>> = keys
        .map(|keys| keys.iter().map(|key| key.epoch).collect())
        .collect();
    all.sort();
    all.dedup();
    all
}

/// A second passes, and everybody takes what comes of it. Was there anything?
fn second(world: &mut World, agents: &mut [Agent], at: UnixSeconds) -> bool {
    let commands = world.core.handle_keys(at);
    world.carry_out(commands);
    settle(world, agents) > 0
}

fn measured() -> (World, Vec<Agent>) {
    let (mut world, mut agents) = three();
    for agent in &agents {
        world.core.handle_rounds(agent.session, 0);
    }
    assert!(!second(&mut world, &mut agents, DAY));
    (world, agents)
}

#[test]
fn keys_are_renewed_each_day_across_restarts() {
    let (mut world, mut agents) = measured();
    assert!(!second(&mut world, &mut agents, 2 * DAY - 1));
    assert!(agents.iter().all(|agent| epochs(agent) == [[0]]));
    assert!(second(&mut world, &mut agents, 2 * DAY));
    assert!(agents.iter().all(|agent| epochs(agent) == [[0, 1]]));
    let mut world = world.restart();
    assert!(!second(&mut world, &mut agents, 3 * DAY - 1), "none is connected");
    let nodes = ["osaka", "taipei", "cape-town"].into_iter();
    let mut agents: Vec<Agent> = nodes
        .zip(agents)
        .map(|(node, agent)| Agent {
            state: agent.state.clone(),
            ..world.connect(node, agent.revision())
        })
        .collect();
    assert!(second(&mut world, &mut agents, 3 * DAY));
    assert!(agents.iter().all(|agent| epochs(agent) == [[1, 2]]));
    world.core.set_key_lifetime(1);
    for epoch in 3..9 {
        assert!(second(&mut world, &mut agents, 3 * DAY + epoch));
        let newest = u8::try_from(epoch & 3).unwrap();
        assert!(
            agents
                .iter()
                .all(|agent| epochs(agent) == [[newest.wrapping_sub(1) & 3, newest]])
        );
    }
}

#[test]
fn the_receiver_has_the_new_key_before_anybody_sends_under_it() {
    let (mut world, mut agents) = measured();
    let commands = world.core.handle_keys(2 * DAY);
    world.carry_out(commands);
    agents[0].ack(&mut world);
    agents[1].ack(&mut world);
    let state = agents[0].state.as_ref().unwrap();
    for path in &state.paths {
        let newest = path.leg.keys.last().unwrap().epoch;
        let expected = u8::from(path.nodes.last().unwrap() == "taipei");
        let path = &path.nodes;
        assert!(
            newest == 0 || newest == expected,
            "{path:?}: cape-town has not its key"
        );
    }
    settle(&mut world, &mut agents);
    assert!(agents.iter().all(|agent| epochs(agent) == [[0, 1]]));
}

#[test]
fn four_restarts_of_a_host_or_a_lane_that_goes_on_renew_keys() {
    let (mut world, mut agents) = measured();
    let reconnect = |world: &mut World, agents: &mut Vec<Agent>, incarnation| {
        let hello = Hello {
            incarnation,
            ..world.hello("taipei", agents[1].revision())
        };
        agents[1].session = hello.session;
        let commands = world.core.handle_hello(world.now, hello).unwrap();
        world.carry_out(commands);
        world.core.handle_rounds(agents[1].session, 0);
        second(world, agents, DAY + 1)
    };
    assert!(!reconnect(&mut world, &mut agents, 3));
    assert!(reconnect(&mut world, &mut agents, 4));
    assert!(agents.iter().all(|agent| epochs(agent) == [[0, 1]]));
    assert!(!reconnect(&mut world, &mut agents, 5));
    world.core.handle_rounds(agents[0].session, 1);
    assert!(second(&mut world, &mut agents, DAY + 2));
    assert!(!second(&mut world, &mut agents, DAY + 3));
    assert!(agents.iter().all(|agent| epochs(agent) == [[1, 2]]));
}

/// A node that was deleted is in no table of any other host, and its papers and keys are worth nothing.
#[test]
fn a_node_that_was_deleted_is_nowhere() {
    let (mut world, mut agents) = measured();
    let gone = agents.remove(1);
    let keys_of = |agents: &[Agent]| -> Vec<[u8; 16]> {
        let states = agents.iter().map(|agent| agent.state.as_ref().unwrap());
        let slots = states.clone().flat_map(|state| &state.slots);
        let legs = states.flat_map(|state| &state.paths);
        let keys = slots
            .map(|slot| &slot.keys)
            .chain(legs.map(|path| &path.leg.keys));
        keys.flatten().map(|key| key.key).collect()
    };
    let its = keys_of(std::slice::from_ref(&gone));
    let node = "node/taipei".parse().unwrap();
    let declared = world
        .core
        .handle_delete(world.now, &[node], Terms::default())
        .unwrap();
    world.carry_out(declared.commands);
    settle(&mut world, &mut agents);
    for agent in &agents {
        let text = format!("{:?}", agent.state.as_ref().unwrap());
        assert!(!text.contains("taipei") && !text.contains("192.0.2.2"), "{text}");
    }
    assert!(keys_of(&agents).iter().all(|key| !its.contains(key)));
    let hello = world.hello("taipei", gone.revision());
    let refused = world.core.handle_hello(world.now, hello);
    assert!(matches!(refused, Err(SessionRefusal::OldCertificate { .. })));
}
