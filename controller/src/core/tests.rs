//! The core in virtual time, with a store in memory.

use kuafu_model::HostState;
use kuafu_model::kinds::Name;
use kuafu_model::manifest::File;
use kuafu_topology::steering::Fate;

use super::*;
use crate::store::{Memory, Store};

mod cluster;
mod health;
mod hold;
mod keys;
mod papers;
mod past;
mod scaling;
mod steering;
mod trial;

const CA: [u8; 32] = [9; 32];

const NODES: &str = "
kind: Node
metadata: {name: osaka}
spec: {region: ap-northeast-3, address: {local: 192.0.2.1}}
---
kind: Node
metadata: {name: taipei}
spec: {region: ap-east-2, address: {local: 10.0.0.2, public: 192.0.2.2}}
---
kind: Node
metadata: {name: cape-town}
spec: {region: af-south-1, address: {local: 192.0.2.3}}
";

const ACCELERATOR: &str = "
kind: AddressPool
metadata: {name: asia}
spec: {addresses: [{node: osaka, public: 203.0.113.1}]}
---
kind: Service
metadata: {name: game}
spec: {targets: [{address: 198.51.100.7, port: 2342}]}
---
kind: Accelerator
metadata: {name: arena}
spec:
  pool: asia
  listeners: [{protocol: udp, port: 2342}]
  groups: [{service: game, region: af-south-1}]
";

/// A core, its store, and what its commands said to each session.
struct World {
    core: Core,
    store: Memory,
    now: Now,
    sent: Vec<(SessionId, Command)>,
    next_session: u64,
}

impl World {
    fn new() -> Self {
        Self::over(Memory::default())
    }

    fn over(mut store: Memory) -> Self {
        let mut seed = 0_u32;
        let random = Box::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (seed >> 24) as u8;
            }
        });
        let (core, writes) = Core::restore(store.list("").unwrap(), random).unwrap();
        if !writes.is_empty() {
            store.commit(&writes).unwrap();
        }
        Self {
            core,
            store,
            now: 0,
            sent: Vec::new(),
            next_session: 0,
        }
    }

    fn restart(self) -> Self {
        Self::over(self.store)
    }

    fn carry_out(&mut self, commands: Vec<Command>) {
        for command in commands {
            match &command {
                Command::Commit(writes) => drop(self.store.commit(writes).unwrap()),
                Command::Snapshot(session, _) | Command::Delta(session, _) | Command::Close(session, _) => {
                    self.sent.push((*session, command));
                }
                Command::Record(_) => {}
            }
        }
    }

    fn apply(&mut self, text: &str) -> Result<Vec<String>, Vec<FieldError>> {
        let file = File {
            name: "test.yaml",
            text,
        };
        let declared = self.core.handle_apply(self.now, &[file], Terms::default());
        let declared = declared.map_err(|error| error.fields())?;
        self.carry_out(declared.commands);
        Ok(declared.changes.iter().map(ToString::to_string).collect())
    }

    fn join(&mut self, node: &str) {
        let name: Name = node.parse().unwrap();
        let (token, commands) = self.core.handle_token(self.now, &name, CA).unwrap();
        self.carry_out(commands);
        let (_, token) = self.core.check_join(0, &token.to_string(), node, CA).unwrap();
        let commands = self.core.handle_joined(self.now, &name, &token, node.as_bytes());
        self.carry_out(commands);
    }

    fn hello(&mut self, node: &str, last_revision: u64) -> Hello {
        self.next_session += 1;
        Hello {
            session: SessionId(self.next_session),
            certified: node.parse().unwrap(),
            certificate: node.as_bytes().to_vec(),
            node: node.to_owned(),
            cluster: self.core.cluster().to_owned(),
            layout: 1,
            last_revision,
            incarnation: 1,
            version: "0.1.0".to_owned(),
        }
    }

    fn connect(&mut self, node: &str, last_revision: u64) -> Agent {
        let hello = self.hello(node, last_revision);
        let session = hello.session;
        let commands = self.core.handle_hello(self.now, hello).unwrap();
        self.carry_out(commands);
        Agent { session, state: None }
    }
}

/// An agent that takes what it is sent.
struct Agent {
    session: SessionId,
    state: Option<HostState>,
}

impl Agent {
    /// Takes what was sent to it, without a word. Returns kinds of what came.
    fn take(&mut self, world: &mut World) -> Vec<&'static str> {
        let (mine, others) = world
            .sent
            .drain(..)
            .partition(|(session, _)| *session == self.session);
        world.sent = others;
        let mine: Vec<(SessionId, Command)> = mine;
        mine.into_iter()
            .map(|(_, command)| match command {
                Command::Snapshot(_, state) => {
                    self.state = Some(state);
                    "snapshot"
                }
                Command::Delta(_, delta) => {
                    let state = self.state.as_ref().expect("a delta needs a state");
                    self.state = Some(delta.apply(state).unwrap());
                    "delta"
                }
                _ => "close",
            })
            .collect()
    }

    fn revision(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.revision)
    }

    /// Takes and acknowledges.
    fn ack(&mut self, world: &mut World) -> Vec<&'static str> {
        let came = self.take(world);
        if !came.is_empty() {
            let commands = world.core.handle_ack(world.now, self.session, self.revision());
            world.carry_out(commands);
        }
        came
    }
}

/// All acknowledge until nothing is sent any more; the number of rounds.
fn settle(world: &mut World, agents: &mut [Agent]) -> usize {
    for round in 0..20 {
        let came: usize = agents.iter_mut().map(|agent| agent.ack(world).len()).sum();
        if came == 0 {
            return round;
        }
    }
    panic!("it does not settle");
}

fn three() -> (World, Vec<Agent>) {
    let mut world = World::new();
    world.apply(NODES).unwrap();
    let agents = ["osaka", "taipei", "cape-town"].map(|node| {
        world.join(node);
        world.connect(node, 0)
    });
    let mut agents = Vec::from(agents);
    settle(&mut world, &mut agents);
    (world, agents)
}

#[test]
fn an_agent_gets_a_snapshot_then_deltas() {
    let (mut world, mut agents) = three();
    let before = agents[0].revision();
    world.apply("kind: Vpc\nmetadata: {name: red}\nspec: {cidr: 10.0.0.0/24}\n---\nkind: Port\nmetadata: {name: a}\nspec: {vpc: red, node: osaka, address: 10.0.0.5, interface: veth-a}").unwrap();
    assert_eq!(agents[0].ack(&mut world), ["delta"]);
    assert_eq!(
        agents[1].ack(&mut world),
        [""; 0],
        "what does not concern a host is not sent"
    );
    let state = agents[0].state.as_ref().unwrap();
    assert!(state.revision > before);
    assert_eq!(state.ports[0].interface, "veth-a");
}

#[test]
fn a_wrong_manifest_changes_nothing() {
    let (mut world, _) = three();
    let (intent, revision) = (world.core.intent().clone(), world.store.revision().unwrap());
    let errors = world
        .apply(&format!(
            "{ACCELERATOR}\n---\nkind: Vpc\nmetadata: {{name: x}}\nspec: {{cidr: 10.0.0.1/24}}"
        ))
        .unwrap_err();
    assert_eq!(
        (errors[0].file.as_str(), errors[0].field.as_str()),
        ("test.yaml", "spec.cidr")
    );
    assert!(errors[0].line > 1);
    assert_eq!(world.core.intent(), &intent);
    assert_eq!(world.store.revision().unwrap(), revision);
    assert!(world.sent.is_empty());
}

#[test]
fn none_of_the_wrong_manifests_changes_anything() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/data/manifests/wrong");
    let mut world = World::new();
    world
        .apply(include_str!("../../../model/tests/data/manifests/good/base.yaml"))
        .unwrap();
    let (intent, revision) = (world.core.intent().clone(), world.store.revision().unwrap());
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let errors = world.apply(&text).expect_err(&path.display().to_string());
            assert!(!errors.is_empty() && errors.iter().all(|error| error.file == "test.yaml"));
            count += 1;
        }
    }
    assert!(count >= 25, "{count}");
    assert_eq!(world.core.intent(), &intent);
    assert_eq!(world.store.revision().unwrap(), revision);
    assert!(world.sent.is_empty());
}

#[test]
fn a_dry_run_changes_nothing() {
    let (mut world, _) = three();
    let file = File {
        name: "a",
        text: ACCELERATOR,
    };
    let declared = {
        let terms = Terms {
            dry_run: true,
            ..Terms::default()
        };
        world.core.handle_apply(0, &[file], terms).unwrap()
    };
    assert_eq!(declared.changes.len(), 3);
    assert!(declared.commands.is_empty());
    assert_eq!(world.core.objects(None, None).len(), 3);
}

#[test]
fn the_exit_has_its_slot_before_the_entry_sends_there() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    // Osaka takes what it is sent before Cape Town has said a word.
    agents[0].ack(&mut world);
    let entry = |agents: &[Agent]| agents[0].state.clone().unwrap();
    let leads = |state: &HostState| state.services.iter().any(|service| !service.targets.is_empty());
    assert!(!leads(&entry(&agents)), "{:?}", entry(&agents).services);
    settle(&mut world, &mut agents);
    assert!(leads(&entry(&agents)));
    let exit = agents[2].state.as_ref().unwrap();
    assert!(exit.services.iter().any(|service| service.at_exit));
}

#[test]
fn a_refused_state_is_not_sent_again_until_it_changes() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    assert_eq!(agents[2].take(&mut world), ["delta"]);
    let before = world.core.host_views(0)[0].acknowledged;
    let (session, revision) = (agents[2].session, agents[2].revision());
    let commands = world
        .core
        .handle_refused(0, session, revision, "nat_ports: 10000 listens", false);
    world.carry_out(commands);
    assert_eq!(agents[2].take(&mut world), [""; 0]);
    let view = &world.core.host_views(0)[0];
    assert_eq!(view.refused.as_deref(), Some("nat_ports: 10000 listens"));
    assert_eq!(view.acknowledged, before, "what was in force stays");
    let nodes = world.core.history().last().unwrap().0;
    let back = world.core.handle_rollback(0, nodes, Terms::default()).unwrap();
    world.carry_out(back.commands);
    let view = &world.core.host_views(0)[0];
    assert_eq!(view.refused, None, "it is asked for no more");
}

#[test]
fn an_agent_that_lost_track_gets_a_snapshot() {
    let (mut world, mut agents) = three();
    let session = agents[1].session;
    let commands = world
        .core
        .handle_refused(0, session, 1, "the delta does not fit", true);
    world.carry_out(commands);
    assert_eq!(agents[1].ack(&mut world), ["snapshot"]);
}

#[test]
fn a_token_is_for_one_use_and_one_node() {
    let mut world = World::new();
    let osaka: Name = "osaka".parse().unwrap();
    let (token, commands) = world.core.handle_token(0, &osaka, CA).unwrap();
    world.carry_out(commands);
    let text = token.to_string();
    let refused =
        |world: &World, text: &str, node: &str| world.core.check_join(1, text, node, CA).unwrap_err();
    assert!(matches!(
        refused(&world, &text, "taipei"),
        JoinRefusal::OtherNode { .. }
    ));
    assert_eq!(
        world.core.check_join(1, &text, "osaka", [8; 32]).unwrap_err(),
        JoinRefusal::ForeignToken
    );
    let late = |at| world.core.check_join(at, &text, "osaka", CA);
    assert!(late(86_399).is_ok());
    assert!(matches!(late(86_400), Err(JoinRefusal::Expired { .. })));
    let commands = world.core.handle_joined(0, &osaka, &token, b"certificate");
    world.carry_out(commands);
    assert!(matches!(
        refused(&world, &text, "osaka"),
        JoinRefusal::Used { .. }
    ));
    let world = world.restart();
    assert!(matches!(
        refused(&world, &text, "osaka"),
        JoinRefusal::Used { .. }
    ));
    let other = kuafu_proto::JoinToken {
        secret: [1; 16],
        ..token
    };
    assert_eq!(refused(&world, &other.to_string(), "osaka"), JoinRefusal::Unknown);
}

#[test]
fn who_is_not_who_it_says_is_refused() {
    let (mut world, _) = three();
    let mut refuse = |change: &dyn Fn(&mut Hello)| {
        let mut hello = world.hello("osaka", 0);
        change(&mut hello);
        world.core.handle_hello(0, hello).unwrap_err()
    };
    let other = refuse(&|hello| hello.node = "taipei".to_owned());
    assert!(matches!(other, SessionRefusal::OtherNode { .. }));
    let other = refuse(&|hello| hello.cluster = "ffff".to_owned());
    assert!(matches!(other, SessionRefusal::OtherCluster { .. }));
    let other = refuse(&|hello| hello.certificate = b"an older one".to_vec());
    assert!(matches!(other, SessionRefusal::OldCertificate { .. }));
}

#[test]
fn a_newer_stream_takes_over() {
    let (mut world, mut agents) = three();
    let revision = agents[0].revision();
    let second = world.connect("osaka", revision);
    assert_eq!(agents[0].take(&mut world), ["close"]);
    world.core.handle_disconnected(0, agents[0].session);
    assert_eq!(
        world.core.session(&"osaka".parse().unwrap()),
        Some(second.session)
    );
}

#[test]
fn a_restarted_controller_goes_on_where_it_was() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    let (cluster, intent) = (world.core.cluster().to_owned(), world.core.intent().clone());
    let mut world = world.restart();
    assert_eq!(
        (world.core.cluster(), world.core.intent()),
        (cluster.as_str(), &intent)
    );
    for (node, agent) in ["osaka", "taipei", "cape-town"].into_iter().zip(&mut agents) {
        agent.session = world.connect(node, agent.revision()).session;
        assert_eq!(agent.take(&mut world), [""; 0], "{node} has what it should have");
    }
    world.apply("kind: Node\nmetadata: {name: rack}\nspec: {region: x, address: {local: 192.0.2.9}, agent: false}\n---\nkind: Vpc\nmetadata: {name: red}\nspec: {cidr: 10.0.0.0/24}\n---\nkind: Port\nmetadata: {name: a}\nspec: {vpc: red, node: osaka, address: 10.0.0.5, interface: veth-a}").unwrap();
    assert_eq!(
        agents[0].ack(&mut world),
        ["delta"],
        "revisions are known across the restart"
    );
}

#[test]
fn a_deleted_node_is_out() {
    let (mut world, mut agents) = three();
    let taipei = "node/taipei".parse().unwrap();
    let declared = world.core.handle_delete(0, &[taipei], Terms::default()).unwrap();
    world.carry_out(declared.commands);
    assert_eq!(agents[1].take(&mut world), ["close"]);
    let hello = world.hello("taipei", 0);
    let refused = world.core.handle_hello(0, hello).unwrap_err();
    assert!(matches!(refused, SessionRefusal::OldCertificate { .. }));
}

#[test]
fn reports_are_of_the_hosts_own_legs() {
    let (mut world, agents) = three();
    let state = agents[0].state.as_ref().unwrap();
    let leg = state
        .paths
        .iter()
        .find(|path| path.nodes == ["osaka", "taipei"])
        .unwrap();
    let report = LegReport {
        path_id: leg.id,
        sent: 1,
        received: 1,
        rtt_p50_us: 50_000,
        rtt_p90_us: 52_000,
        rtt_ewma_us: 50_500,
        loss: 0.0,
        age_ms: 0,
    };
    let commands = world.core.handle_reports(1000, agents[2].session, &[report]);
    world.carry_out(commands);
    assert!(
        world
            .core
            .host_views(1000)
            .iter()
            .all(|host| host.legs.is_empty())
    );
    let commands = world.core.handle_reports(1000, agents[0].session, &[report]);
    world.carry_out(commands);
    let views = world.core.host_views(1500);
    let osaka = views.iter().find(|host| host.node.as_str() == "osaka").unwrap();
    assert_eq!((osaka.legs[0].to.as_str(), osaka.legs[0].age_ms), ("taipei", 500));
    assert!(
        matches!(world.core.handle_tick(2000).as_slice(), [Command::Record(line), ..] if line.contains("51250"))
    );
}
