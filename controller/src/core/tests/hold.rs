//! Addresses that one of several nodes holds: when they move, and when they do not.

use kuafu_model::compile::Server;
use kuafu_model::kinds::PortNumber;

use super::*;

const POOL: &str = "
kind: AddressPool
metadata: {name: rack}
spec:
  reach: arp
  addresses: [{nodes: [osaka, taipei, cape-town], public: 203.0.113.80}]
---
kind: Service
metadata: {name: web}
spec:
  pool: rack
  listeners: [{protocol: tcp, port: 80}]
  targets: [{address: 198.51.100.7}, {address: 198.51.100.8}]
";
const NODES_OF: [&str; 3] = ["osaka", "taipei", "cape-town"];
/// What agents keep to, and the controller.
const ALIVE_MS: Now = 200;
const LOOK_MS: Now = 50;

struct Rack {
    world: World,
    agents: Vec<Agent>,
    /// Whose agents say that they live.
    alive: [bool; 3],
}

impl Rack {
    fn new() -> Self {
        let (mut world, mut agents) = three();
        world.apply(POOL).unwrap();
        settle(&mut world, &mut agents);
        let mut rack = Self {
            world,
            agents,
            alive: [true; 3],
        };
        rack.pass(1_000);
        rack
    }

    /// Lets time pass, in which those that live say so, not all at once, and the controller looks.
    fn pass(&mut self, ms: Now) {
        let end = self.world.now + ms;
        while self.world.now < end {
            self.world.now += 10;
            self.say();
            if self.world.now.is_multiple_of(LOOK_MS) {
                self.look();
            }
        }
    }

    fn say(&mut self) {
        for (index, agent) in (0..).zip(&self.agents) {
            let is_due = self.world.now % ALIVE_MS == index * 60;
            if is_due && self.alive[usize::try_from(index).unwrap()] {
                self.world.core.handle_alive(self.world.now, agent.session);
            }
        }
    }

    fn look(&mut self) {
        let commands = self.world.core.handle_look(self.world.now);
        self.world.carry_out(commands);
        settle(&mut self.world, &mut self.agents);
    }

    /// How long until somebody else holds the address.
    fn until_moved(&mut self) -> Now {
        let (holder, began) = (self.holder(), self.world.now);
        while self.holder() == holder {
            assert!(self.world.now < began + 60_000, "it stays at {holder}");
            self.pass(10);
        }
        self.world.now - began
    }

    /// Who announces the address by its own state; exactly one does.
    fn holder(&self) -> &'static str {
        let holds = |agent: &Agent| agent.state.as_ref().unwrap().announcements[0].here;
        let all = NODES_OF.into_iter().zip(&self.agents);
        let holders: Vec<&str> = all
            .filter(|(_, agent)| holds(agent))
            .map(|(node, _)| node)
            .collect();
        let stored = &self.world.core.holders[&"203.0.113.80".parse().unwrap()];
        let [holder] = holders.as_slice() else {
            panic!("{holders:?}")
        };
        assert_eq!(stored.node.as_str(), *holder);
        holder
    }

    fn down(&mut self, host: usize, last: &[u8]) {
        let server = |last: &u8| Server {
            service: "web".parse().unwrap(),
            address: format!("198.51.100.{last}").parse().unwrap(),
            port: PortNumber::new(80).unwrap(),
        };
        let down = last.iter().map(server).collect();
        let commands = self.world.core.handle_health(self.agents[host].session, down);
        self.world.carry_out(commands);
    }

    fn drain(&mut self, node: &str, drain: bool) {
        let one = NODES.split("---").find(|one| one.contains(node)).unwrap();
        let text = one.replacen("spec: {", &format!("spec: {{drain: {drain}, "), 1);
        self.world.apply(&text).unwrap();
        self.pass(LOOK_MS);
    }
}

#[test]
fn all_listen_and_the_preferred_one_holds() {
    let mut rack = Rack::new();
    assert_eq!(rack.holder(), "osaka");
    for agent in &rack.agents {
        assert_eq!(agent.state.as_ref().unwrap().services.len(), 1);
    }
    rack.pass(5_000);
    assert_eq!(rack.holder(), "osaka");
}

#[test]
fn a_holder_that_is_silent_loses_the_address_and_does_not_get_it_back() {
    let mut rack = Rack::new();
    rack.alive[0] = false;
    let ms = rack.until_moved();
    assert_eq!(rack.holder(), "taipei");
    assert!(ms <= 650, "{ms} ms");
    rack.alive[0] = true;
    rack.pass(5_000);
    assert_eq!(rack.holder(), "taipei", "it moves no more than it must");
    rack.alive[1] = false;
    rack.until_moved();
    assert_eq!(rack.holder(), "osaka", "the preferred of those that live");
    let term = |agent: &Agent| agent.state.as_ref().unwrap().announcements[0].term;
    assert_eq!(term(&rack.agents[0]), 2);
}

#[test]
fn a_stream_that_ends_is_a_death_unless_another_one_comes() {
    let mut rack = Rack::new();
    let end = |rack: &mut Rack| {
        let session = rack.agents[0].session;
        rack.world.core.handle_disconnected(rack.world.now, session);
        rack.alive[0] = false;
    };
    end(&mut rack);
    rack.pass(500);
    let revision = rack.agents[0].revision();
    let state = rack.agents[0].state.clone();
    rack.agents[0] = rack.world.connect("osaka", revision);
    rack.agents[0].state = state;
    rack.alive[0] = true;
    rack.pass(2_000);
    assert_eq!(rack.holder(), "osaka");
    end(&mut rack);
    let session = rack.agents[0].session;
    rack.pass(700);
    // The host has died: what is sent to it is lost.
    rack.world.sent.retain(|(to, _)| *to != session);
    assert_eq!(
        rack.world.core.holders.values().next().unwrap().node.as_str(),
        "taipei"
    );
}

#[test]
fn where_all_are_silent_nothing_moves() {
    for last in 0..20 {
        let mut rack = Rack::new();
        // Whatever who said last.
        rack.pass(last * 10);
        rack.alive = [false; 3];
        rack.pass(60_000);
        assert_eq!(rack.holder(), "osaka", "cut off {} ms after", last * 10);
        rack.alive = [true; 3];
        rack.pass(5_000);
        assert_eq!(rack.holder(), "osaka");
    }
}

#[test]
fn a_controller_that_stalled_has_heard_nobody_die() {
    let mut rack = Rack::new();
    for stall in [300, 700, 5_000] {
        rack.world.now += stall;
        rack.look();
        rack.pass(1_000);
        assert_eq!(rack.holder(), "osaka", "after {stall} ms");
    }
    rack.world.now += 5_000;
    rack.alive[0] = false;
    rack.look();
    rack.until_moved();
    assert_eq!(rack.holder(), "taipei", "who is dead is found dead thereafter");
}

#[test]
fn choices_survive_a_restart_and_nobody_is_dead_because_of_it() {
    let mut rack = Rack::new();
    rack.alive[0] = false;
    rack.until_moved();
    let states: Vec<HostState> = rack
        .agents
        .iter()
        .map(|agent| agent.state.clone().unwrap())
        .collect();
    let mut world = rack.world.restart();
    // The holder's agent dials last.
    let agents = [2, 0, 1].map(|index: usize| {
        world.now += 1_900;
        let commands = world.core.handle_look(world.now);
        world.carry_out(commands);
        let mut agent = world.connect(NODES_OF[index], states[index].revision);
        agent.state = Some(states[index].clone());
        (index, agent)
    });
    let mut agents = Vec::from(agents);
    agents.sort_by_key(|(index, _)| *index);
    let mut rack = Rack {
        world,
        agents: agents.into_iter().map(|(_, agent)| agent).collect(),
        alive: [true; 3],
    };
    rack.pass(20_000);
    assert_eq!(rack.holder(), "taipei");
    let term = rack.agents[1].state.as_ref().unwrap().announcements[0].term;
    assert_eq!(term, 1, "nothing has moved");
}

#[test]
fn a_holder_that_never_came_back_is_dead_in_the_end() {
    let rack = Rack::new();
    let states: Vec<HostState> = rack
        .agents
        .iter()
        .map(|agent| agent.state.clone().unwrap())
        .collect();
    let mut world = rack.world.restart();
    let agents = [1, 2].map(|index: usize| {
        let mut agent = world.connect(NODES_OF[index], states[index].revision);
        agent.state = Some(states[index].clone());
        agent
    });
    let holder = |world: &World| world.core.holders.values().next().unwrap().node.to_string();
    let mut agents = Vec::from(agents);
    let mut look = |world: &mut World, ms: Now| {
        for _ in 0..ms / LOOK_MS {
            world.now += LOOK_MS;
            for agent in &agents {
                world.core.handle_alive(world.now, agent.session);
            }
            let commands = world.core.handle_look(world.now);
            world.carry_out(commands);
            settle(world, &mut agents);
        }
    };
    look(&mut world, 14_000);
    assert_eq!(holder(&world), "osaka");
    look(&mut world, 2_000);
    assert_eq!(holder(&world), "taipei");
}

#[test]
fn a_drained_holder_hands_over_to_one_that_is_not() {
    let mut rack = Rack::new();
    rack.drain("taipei", true);
    assert_eq!(rack.holder(), "osaka");
    rack.drain("osaka", true);
    assert_eq!(rack.holder(), "cape-town");
    rack.drain("cape-town", true);
    rack.pass(5_000);
    assert_eq!(rack.holder(), "cape-town", "there is none to go to");
    rack.drain("osaka", false);
    assert_eq!(rack.holder(), "osaka");
}

#[test]
fn an_address_leaves_where_nothing_serves_for_where_something_does() {
    let mut rack = Rack::new();
    rack.down(0, &[7]);
    rack.pass(5_000);
    assert_eq!(rack.holder(), "osaka", "one is left");
    // All find it out, one after the other.
    for host in 0..3 {
        rack.down(host, &[7, 8]);
        rack.pass(1_000);
    }
    rack.pass(5_000);
    assert_eq!(rack.holder(), "osaka", "it is nowhere better");
    // And that it is back.
    for host in [2, 1, 0] {
        rack.down(host, &[8]);
        rack.pass(1_000);
    }
    assert_eq!(rack.holder(), "osaka", "it is there too");
    rack.down(0, &[7, 8]);
    rack.pass(2_900);
    assert_eq!(rack.holder(), "osaka", "for a while");
    rack.pass(200);
    assert_eq!(rack.holder(), "taipei");
    // The dead go first, whatever they serve.
    rack.down(1, &[7, 8]);
    rack.down(2, &[7, 8]);
    rack.alive[1] = false;
    assert!(rack.until_moved() < 1_000);
    assert_eq!(rack.holder(), "osaka");
}

#[test]
fn a_node_that_is_no_candidate_any_more_holds_nothing() {
    let mut rack = Rack::new();
    rack.world
        .apply(&POOL.replace("[osaka, taipei, cape-town]", "[cape-town, taipei]"))
        .unwrap();
    let commands = rack.world.core.handle_look(rack.world.now);
    rack.world.carry_out(commands);
    settle(&mut rack.world, &mut rack.agents);
    assert!(rack.agents[0].state.as_ref().unwrap().announcements.is_empty());
    let held = &rack.agents[2].state.as_ref().unwrap().announcements[0];
    assert!(held.here && held.term == 1, "{held:?}");
    let pools = ["service/web", "addresspool/rack"].map(|object| object.parse().unwrap());
    let deleted = rack
        .world
        .core
        .handle_delete(rack.world.now, &pools, Terms::default());
    rack.world.carry_out(deleted.unwrap().commands);
    rack.pass(LOOK_MS);
    assert!(rack.world.core.holders.is_empty());
    assert!(rack.agents[2].state.as_ref().unwrap().announcements.is_empty());
}
