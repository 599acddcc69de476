//! The demonstration's ten nodes with their measured latencies, and agents that take what they are sent.

use std::collections::BTreeSet;
use std::time::Instant;

use kuafu_model::state::{LegState, SlotAction};
use kuafu_topology::Matrix;

use super::*;

const MANIFEST: &str = include_str!("../../../../model/tests/data/manifests/good/demo-accelerator.yaml");
const LATENCIES: &str = include_str!("../../../../lab/data/aws_cloudping_2025-07_p50.csv");
/// A relay's transit, ms.
const TRANSIT: f64 = 1.0;

/// The cluster in virtual time.
struct Cluster {
    world: World,
    agents: BTreeMap<String, Agent>,
    matrix: Matrix,
    regions: BTreeMap<String, usize>,
    /// Nodes that nothing passes.
    dead: BTreeSet<String>,
    /// Agents that take what they are sent and never say so.
    silent: BTreeSet<String>,
    seed: u64,
    messages: usize,
}

impl Cluster {
    /// All nodes have joined; nothing but nodes is declared.
    fn joined() -> Self {
        let matrix = Matrix::parse(LATENCIES).unwrap();
        let mut world = World::new();
        world
            .apply(MANIFEST.split_once("---\nkind: AddressPool").unwrap().0)
            .unwrap();
        let nodes = world.core.intent().nodes().iter();
        let regions: BTreeMap<String, usize> = nodes
            .map(|(name, node)| {
                let region = node.spec.region.to_string();
                (name.to_string(), matrix.index_of(&region).unwrap())
            })
            .collect();
        let mut cluster = Self {
            agents: BTreeMap::new(),
            dead: BTreeSet::new(),
            silent: BTreeSet::new(),
            seed: 1,
            messages: 0,
            world,
            matrix,
            regions,
        };
        for node in cluster.regions.clone().into_keys() {
            cluster.world.join(&node);
            let agent = cluster.world.connect(&node, 0);
            cluster.agents.insert(node, agent);
        }
        cluster.settle();
        cluster
    }

    /// The same with its accelerators, after a minute.
    fn steered() -> Self {
        let mut cluster = Self::joined();
        cluster.world.apply(MANIFEST).unwrap();
        cluster.settle();
        cluster.seconds(60);
        cluster
    }

    fn leg_ms(&self, from: &str, to: &str) -> f64 {
        let get = |from, to| self.matrix.get(self.regions[from], self.regions[to]).unwrap();
        f64::midpoint(get(from, to), get(to, from))
    }

    fn path_ms(&self, nodes: &[String]) -> f64 {
        let legs = nodes.windows(2).map(|leg| self.leg_ms(&leg[0], &leg[1]));
        let relays = u32::try_from(nodes.len() - 2).unwrap();
        legs.sum::<f64>() + TRANSIT * f64::from(relays)
    }

    /// Direct, or the cheapest path over one relay that answers if it passes the gate.
    fn expected(&self, entry: &str, exit: &str) -> Vec<String> {
        let path = |relay: Option<&String>| -> Vec<String> {
            let nodes = [Some(&entry.to_owned()), relay, Some(&exit.to_owned())];
            nodes.into_iter().flatten().cloned().collect()
        };
        let relays = self
            .regions
            .keys()
            .filter(|node| *node != entry && *node != exit && !self.silent.contains(*node));
        let best = relays
            .map(|relay| path(Some(relay)))
            .min_by(|a, b| self.path_ms(a).total_cmp(&self.path_ms(b)))
            .unwrap();
        let direct = path(None);
        let gain = self.path_ms(&direct) - self.path_ms(&best);
        if gain >= (self.path_ms(&direct) * 0.05).max(5.0) {
            best
        } else {
            direct
        }
    }

    fn next_random(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.seed >> 33).unwrap() % below
    }

    /// Messages arrive host by host in a random order until none is under way.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let waiting: Vec<String> = self
                .agents
                .iter()
                .filter(|(_, agent)| self.world.sent.iter().any(|(to, _)| *to == agent.session))
                .map(|(node, _)| node.clone())
                .collect();
            if waiting.is_empty() {
                return;
            }
            let node = waiting[self.next_random(waiting.len())].clone();
            let agent = self.agents.get_mut(&node).unwrap();
            self.messages += agent.take(&mut self.world).len();
            let (session, revision) = (agent.session, agent.revision());
            self.assert_whole(&node);
            if !self.silent.contains(&node) {
                let commands = self.world.core.handle_ack(self.world.now, session, revision);
                self.world.carry_out(commands);
            }
        }
        panic!("it does not settle");
    }

    /// Every path that a pair of any host holds leads over slots that are in force to its exit.
    fn assert_whole(&self, after: &str) {
        for state in self.agents.values().filter_map(|agent| agent.state.as_ref()) {
            for index in state
                .pairs
                .iter()
                .flat_map(|pair| pair.primary.into_iter().chain(pair.backup))
            {
                let path = state.paths.iter().find(|path| path.index == index).unwrap();
                assert_eq!(
                    self.lands(&path.leg),
                    path.nodes.last().cloned(),
                    "{:?} of {}, after {after} took its state",
                    path.nodes,
                    state.node.name
                );
            }
        }
    }

    /// The node whose exit slot a leg leads to.
    fn lands(&self, leg: &LegState) -> Option<String> {
        let mut states = self.agents.values().filter_map(|agent| agent.state.as_ref());
        let receiver = states.find(|state| state.node.public == leg.address)?;
        match &receiver.slots.iter().find(|slot| slot.label == leg.label)?.action {
            SlotAction::Exit { .. } => Some(receiver.node.name.clone()),
            SlotAction::Relay(onward) => self.lands(onward),
        }
    }

    fn passes_dead(&self, nodes: &[String]) -> bool {
        nodes.iter().any(|node| self.dead.contains(node))
    }

    /// A second: living agents report all their paths, and paths are chosen.
    fn second(&mut self) {
        self.world.now += 1000;
        let now = self.world.now;
        for (node, agent) in self.agents.iter().filter(|(node, _)| !self.dead.contains(*node)) {
            let paths = &agent.state.as_ref().unwrap().paths;
            let reports: Vec<LegReport> = paths
                .iter()
                .map(|path| self.report(path.id, &path.nodes))
                .collect();
            assert!(paths.iter().all(|path| path.nodes[0] == *node));
            let commands = self.world.core.handle_reports(now, agent.session, &reports);
            self.world.carry_out(commands);
        }
        let commands = self.world.core.handle_tick(now);
        self.world.carry_out(commands);
        self.settle();
    }

    fn seconds(&mut self, seconds: usize) {
        (0..seconds).for_each(|_| self.second());
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "round trips of the world"
    )]
    fn report(&self, path_id: u64, nodes: &[String]) -> LegReport {
        let rtt_us = (self.path_ms(nodes) * 1000.0) as u32;
        let lost = self.passes_dead(nodes);
        LegReport {
            path_id,
            sent: 20,
            received: if lost { 0 } else { 20 },
            rtt_p50_us: rtt_us,
            rtt_p90_us: rtt_us,
            rtt_ewma_us: rtt_us,
            // A window of 30 s forgets slowly: the alarm is what counts.
            loss: 0.0,
            age_ms: 0,
        }
    }

    /// A node is gone from one instant; everyone with a path over it says so.
    fn kill(&mut self, node: &str) {
        self.dead.insert(node.to_owned());
        self.alarm(node, Alarm::Dead);
        let session = self.agents[node].session;
        self.world.core.handle_disconnected(self.world.now, session);
    }

    /// It is back, with the state that it had.
    fn revive(&mut self, node: &str) {
        self.dead.remove(node);
        let (state, revision) = {
            let agent = &self.agents[node];
            (agent.state.clone(), agent.revision())
        };
        let session = self.world.connect(node, revision).session;
        self.agents.insert(node.to_owned(), Agent { session, state });
        self.alarm(node, Alarm::Clear);
    }

    fn alarm(&mut self, node: &str, alarm: Alarm) {
        let mut over = Vec::new();
        for (name, agent) in self.agents.iter().filter(|(name, _)| *name != node) {
            assert!(!self.dead.contains(name));
            let paths = &agent.state.as_ref().unwrap().paths;
            let passing = paths.iter().filter(|path| path.nodes.iter().any(|at| at == node));
            over.extend(passing.map(|path| (agent.session, path.id)));
        }
        for (session, id) in over {
            let now = self.world.now;
            let commands = self.world.core.handle_alarm(now, session, id, (alarm, 0.0));
            self.world.carry_out(commands);
        }
        self.settle();
    }

    /// The first of these nodes says so of the path over them that carries a pair, or of the leg.
    fn say(&mut self, nodes: &[String], leg: bool, alarm: (Alarm, f64)) {
        let agent = &self.agents[&nodes[0]];
        let (session, state) = (agent.session, agent.state.as_ref().unwrap());
        let over = state.paths.iter().filter(|path| path.nodes == nodes);
        let mut ids: Vec<u64> = over.map(|path| path.id).collect();
        ids.sort_unstable();
        let id = if leg { ids[0] } else { *ids.last().unwrap() };
        let commands = self.world.core.handle_alarm(self.world.now, session, id, alarm);
        self.world.carry_out(commands);
        self.settle();
    }

    fn route(&self, entry: &str, exit: &str) -> RouteView {
        let mut routes = self.world.core.route_views().into_iter();
        routes
            .find(|route| (route.pair.entry.as_str(), route.pair.exit.as_str()) == (entry, exit))
            .unwrap()
    }

    /// The nodes of the path that the entry's pair holds.
    fn in_force(&self, entry: &str, exit: &str) -> Vec<String> {
        let state = self.agents[entry].state.as_ref().unwrap();
        let pair = state.pairs.iter().find(|pair| pair.peer == exit).unwrap();
        let primary = pair.primary.unwrap();
        let path = state.paths.iter().find(|path| path.index == primary).unwrap();
        path.nodes.clone()
    }
}

const PAIRS: [(&str, &str); 5] = [
    ("osaka", "cape-town"),
    ("hong-kong", "cape-town"),
    ("bahrain", "calgary"),
    ("calgary", "sao-paulo"),
    ("calgary", "oregon"),
];

#[test]
fn every_node_measures_every_other() {
    let cluster = Cluster::joined();
    for (node, agent) in &cluster.agents {
        let paths = &agent.state.as_ref().unwrap().paths;
        let to: BTreeSet<&str> = paths
            .iter()
            .filter(|path| path.nodes.len() == 2)
            .map(|path| path.nodes[1].as_str())
            .collect();
        let others = cluster.regions.keys().filter(|other| *other != node);
        assert_eq!(to, others.map(String::as_str).collect());
        assert_eq!(paths.len(), 9, "one leg to each, and no more");
    }
}

#[test]
fn each_pair_of_the_demonstration_goes_its_best_way() {
    let cluster = Cluster::steered();
    for (entry, exit) in PAIRS {
        let route = cluster.route(entry, exit);
        println!(
            "{entry} -> {exit}: direct {:.0?} ms, {:.0?} ms by {:?}, backup {:?}: {}",
            route.direct_ms, route.path_ms, route.path, route.backup, route.why
        );
        assert_eq!(route.path, cluster.expected(entry, exit));
        assert_eq!(cluster.in_force(entry, exit), route.path);
        assert!(route.backup.len() >= 2 && route.backup != route.path);
    }
    let left_alone = cluster.route("calgary", "oregon");
    assert_eq!(left_alone.path.len(), 2);
    assert!(left_alone.why.contains("direct"), "{}", left_alone.why);
}

#[test]
fn a_dead_relay_is_left_within_a_second_and_taken_again_after_the_dwell() {
    let mut cluster = Cluster::steered();
    let before: Vec<Vec<String>> = PAIRS
        .map(|(entry, exit)| cluster.route(entry, exit).path)
        .to_vec();
    let relay = before[0][1].clone();
    cluster.kill(&relay);
    cluster.second();
    for ((entry, exit), before) in PAIRS.into_iter().zip(&before) {
        let route = cluster.route(entry, exit);
        assert!(!route.path.contains(&relay), "{route:?}");
        assert!(!route.backup.contains(&relay), "{route:?}");
        assert_eq!(cluster.in_force(entry, exit), route.path);
        assert!(before.contains(&relay) || route.path == *before, "{route:?}");
    }
    cluster.seconds(2);
    cluster.revive(&relay);
    let (entry, exit) = PAIRS[0];
    for _ in 0..6 {
        cluster.second();
        assert!(!cluster.route(entry, exit).path.contains(&relay));
    }
    cluster.seconds(10);
    let after: Vec<Vec<String>> = PAIRS
        .map(|(entry, exit)| cluster.route(entry, exit).path)
        .to_vec();
    assert_eq!(after, before);
}

#[test]
fn an_alarm_that_its_agent_forgot_ends_with_the_next_returns() {
    let mut cluster = Cluster::steered();
    let (entry, exit) = PAIRS[0];
    let relay = cluster.route(entry, exit).path[1].clone();
    cluster.alarm(&relay, Alarm::Dead);
    cluster.second();
    assert!(!cluster.route(entry, exit).path.contains(&relay));
    cluster.seconds(30);
    assert!(cluster.route(entry, exit).path.contains(&relay));
}

#[test]
fn a_relay_that_loses_data_and_answers_probes_is_avoided_for_ten_minutes() {
    let mut cluster = Cluster::steered();
    let (entry, exit) = PAIRS[0];
    let path = cluster.route(entry, exit).path;
    cluster.say(&path, false, (Alarm::Loss, 0.2));
    let around = cluster.route(entry, exit);
    assert_ne!(around.path, path);
    assert_ne!(around.backup, path);
    assert_eq!(cluster.in_force(entry, exit), around.path);
    assert_eq!(around.why, "moved at once: the path before loses packets");
    cluster.seconds(590);
    assert_eq!(
        cluster.route(entry, exit).path,
        around.path,
        "its probes tell nothing"
    );
    cluster.seconds(20);
    assert_eq!(cluster.route(entry, exit).path, path, "it is tried again");
}

#[test]
fn a_loss_that_a_leg_explains_is_over_with_the_legs() {
    let mut cluster = Cluster::steered();
    let (entry, exit) = PAIRS[0];
    let path = cluster.route(entry, exit).path;
    cluster.say(&path, false, (Alarm::Loss, 0.05));
    assert_ne!(cluster.route(entry, exit).path, path);
    cluster.seconds(2);
    cluster.say(&path[path.len() - 2..], true, (Alarm::Loss, 0.05));
    cluster.seconds(20);
    assert_ne!(cluster.route(entry, exit).path, path);
    cluster.say(&path[path.len() - 2..], true, (Alarm::Clear, 0.0));
    cluster.seconds(4);
    assert_eq!(cluster.route(entry, exit).path, path);
}

#[test]
fn a_leg_that_lost_and_died_is_whole_when_it_is_clear() {
    let mut cluster = Cluster::steered();
    let (entry, exit) = PAIRS[0];
    let path = cluster.route(entry, exit).path;
    for alarm in [Alarm::Loss, Alarm::Dead, Alarm::Loss, Alarm::Dead] {
        cluster.say(&path[path.len() - 2..], true, (alarm, 0.3));
        cluster.seconds(1);
        assert_ne!(cluster.route(entry, exit).path, path);
    }
    cluster.say(&path[path.len() - 2..], true, (Alarm::Clear, 0.0));
    cluster.seconds(20);
    assert_eq!(cluster.route(entry, exit).path, path);
}

#[test]
fn a_node_that_drains_is_led_around_and_relays_again_after_that() {
    let mut cluster = Cluster::steered();
    let before = PAIRS.map(|(entry, exit)| cluster.route(entry, exit).path);
    let relay = before[0][1].clone();
    let (nodes, others) = MANIFEST.split_once("---\nkind: AddressPool").unwrap();
    let line = format!("name: {relay}");
    let at = nodes.find(&line).unwrap();
    let spec = at + nodes[at..].find("spec:\n").unwrap() + "spec:\n".len();
    let drained = format!("{}  drain: true\n{}", &nodes[..spec], &nodes[spec..]);
    cluster
        .world
        .apply(&format!("{drained}---\nkind: AddressPool{others}"))
        .unwrap();
    cluster.settle();
    cluster.second();
    for (name, agent) in &cluster.agents {
        for path in &agent.state.as_ref().unwrap().paths {
            let relays = &path.nodes[1..path.nodes.len() - 1];
            assert!(!relays.contains(&relay), "{name} has {:?}", path.nodes);
        }
    }
    cluster.world.apply(MANIFEST).unwrap();
    cluster.settle();
    cluster.seconds(30);
    assert_eq!(PAIRS.map(|(entry, exit)| cluster.route(entry, exit).path), before);
}

#[test]
fn a_host_that_never_acknowledges_holds_up_only_what_passes_it() {
    let mut cluster = Cluster::joined();
    let relay = cluster.expected("osaka", "cape-town")[1].clone();
    cluster.silent.insert(relay.clone());
    cluster.world.apply(MANIFEST).unwrap();
    cluster.settle();
    cluster.seconds(60);
    for (entry, exit) in PAIRS {
        let in_force = cluster.in_force(entry, exit);
        assert_eq!(in_force, cluster.expected(entry, exit), "the best without it");
        assert_eq!(in_force, cluster.route(entry, exit).path);
    }
    cluster.silent.clear();
    let agent = &cluster.agents[&relay];
    let (session, revision) = (agent.session, agent.revision());
    let commands = cluster
        .world
        .core
        .handle_ack(cluster.world.now, session, revision);
    cluster.world.carry_out(commands);
    cluster.settle();
    cluster.seconds(30);
    assert_eq!(
        cluster.in_force("osaka", "cape-town"),
        cluster.expected("osaka", "cape-town")
    );
}

#[test]
fn a_restart_of_the_controller_changes_no_host() {
    let mut cluster = Cluster::steered();
    let states = |cluster: &Cluster| -> Vec<HostState> {
        let states = cluster.agents.values().map(|agent| agent.state.clone().unwrap());
        states.map(|state| HostState { revision: 0, ..state }).collect()
    };
    let before = states(&cluster);
    cluster.world = cluster.world.restart();
    for node in cluster.regions.clone().into_keys() {
        // One by one, with a tick between.
        let agent = &cluster.agents[&node];
        let (state, revision) = (agent.state.clone(), agent.revision());
        let session = cluster.world.connect(&node, revision).session;
        cluster.agents.insert(node, Agent { session, state });
        let now = cluster.world.now;
        let commands = cluster.world.core.handle_tick(now);
        cluster.world.carry_out(commands);
        cluster.settle();
    }
    cluster.messages = 0;
    cluster.seconds(30);
    assert_eq!(states(&cluster), before);
    assert_eq!(cluster.messages, 0, "who has what it should have is sent nothing");
}

/// 200 nodes, of which ten are entries and ten are exits: how long a tick takes is printed, not judged.
#[test]
fn a_tick_of_two_hundred_nodes() {
    const NODES: u16 = 200;
    let mut world = World::new();
    let node = |id: u16| {
        let region = if id >= NODES - 10 {
            "exits".to_owned()
        } else {
            format!("r{id}")
        };
        format!(
            "kind: Node\nmetadata: {{name: n{id}}}\nspec: {{region: {region}, address: {{local: 192.0.2.{id}}}}}\n---\n"
        )
    };
    let nodes: String = (1..=NODES).map(node).collect();
    let addresses = (1..=10)
        .map(|id| format!("{{node: n{id}, public: 203.0.113.{id}}}"))
        .collect::<Vec<_>>()
        .join(", ");
    let accelerator = ACCELERATOR
        .replace("{node: osaka, public: 203.0.113.1}", &addresses)
        .replace("af-south-1", "exits");
    let began = Instant::now();
    world.apply(&format!("{nodes}{accelerator}")).unwrap();
    println!("apply of {NODES} nodes: {:?}", began.elapsed());
    let mut agents: Vec<Agent> = (1..=NODES)
        .map(|id| {
            let node = format!("n{id}");
            world.join(&node);
            let agent = world.connect(&node, 0);
            world.now += 1;
            agent
        })
        .collect();
    println!("all connected: {:?}", began.elapsed());
    for agent in &mut agents {
        agent.take(&mut world);
        let now = world.now;
        let reports: Vec<LegReport> = agent
            .state
            .as_ref()
            .unwrap()
            .paths
            .iter()
            .map(|path| some_report(path.id))
            .collect();
        let commands = world.core.handle_reports(now, agent.session, &reports);
        world.carry_out(commands);
    }
    let began = Instant::now();
    world.now += 1000;
    let commands = world.core.handle_tick(world.now);
    println!("first tick, {} commands: {:?}", commands.len(), began.elapsed());
    world.carry_out(commands);
    let began = Instant::now();
    world.now += 1000;
    let commands = world.core.handle_tick(world.now);
    let bytes: usize = commands
        .iter()
        .map(|command| match command {
            Command::Record(line) => line.len(),
            _ => 0,
        })
        .sum();
    println!("next tick: {:?}, {bytes} bytes recorded", began.elapsed());
    assert!(!world.core.route_views().is_empty());
}

fn some_report(path_id: u64) -> LegReport {
    let rtt_us = 20_000 + u32::try_from(path_id.wrapping_mul(2_654_435_761) % 300_000).unwrap();
    LegReport {
        path_id,
        sent: 1,
        received: 1,
        rtt_p50_us: rtt_us,
        rtt_p90_us: rtt_us,
        rtt_ewma_us: rtt_us,
        loss: 0.0,
        age_ms: 0,
    }
}
