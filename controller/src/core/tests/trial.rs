//! Changes on trial, the history, and the way back.

use super::*;

const VPC: &str = "
kind: Vpc
metadata: {name: red}
spec: {cidr: 10.0.0.0/24}
---
kind: Port
metadata: {name: a}
spec: {vpc: red, node: osaka, address: 10.0.0.5, interface: veth-a}
";

impl World {
    /// Applies on trial of a minute; the change's revision.
    fn try_out(&mut self, text: &str) -> Result<u64, String> {
        let terms = Terms {
            at: self.now / 1000,
            confirm_s: Some(60),
            ..Terms::default()
        };
        let file = File { name: "a", text };
        let declared = self.core.handle_apply(self.now, &[file], terms);
        let declared = declared.map_err(|error| error.fields()[0].message.clone())?;
        self.carry_out(declared.commands);
        Ok(self.core.revision())
    }

    /// Time passes, and the controller looks at its clock.
    fn pass(&mut self, seconds: u64) -> Option<Ended> {
        self.now += seconds * 1000;
        let ended = self.core.handle_trial(self.now, self.now / 1000).unwrap();
        if let Some(ended) = &ended {
            self.carry_out(ended.commands.clone());
        }
        ended
    }

    fn confirm(&mut self) {
        let ended = self.core.handle_confirm().unwrap();
        self.carry_out(ended.commands);
    }
}

/// What the hosts run, revisions aside.
fn running(agents: &[Agent]) -> Vec<HostState> {
    let states = agents.iter().map(|agent| agent.state.clone().unwrap());
    states.map(|state| HostState { revision: 0, ..state }).collect()
}

/// What a host may go back to by itself, by revision.
fn kept(world: &World, node: &str) -> Vec<u64> {
    let running = world.core.fleet.get(&node.parse().unwrap()).unwrap();
    running.kept().iter().map(|state| state.revision).collect()
}

#[test]
fn what_is_not_confirmed_is_undone_and_said() {
    let (mut world, mut agents) = three();
    let (before, intent) = (running(&agents), world.core.intent().clone());
    let revision = world.try_out(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    assert_ne!(running(&agents), before, "it takes effect");
    assert_eq!(world.pass(59), None);
    let ended = world.pass(1).unwrap();
    assert_eq!(ended.revision, revision);
    settle(&mut world, &mut agents);
    assert_eq!(running(&agents), before);
    assert_eq!(world.core.intent(), &intent);
    assert_eq!(kept(&world, "osaka"), [0; 0], "nothing holds it to the past");
    let history = world.core.history();
    let words: Vec<_> = history
        .iter()
        .map(|(_, entry)| (entry.cause, entry.trial))
        .collect();
    assert_eq!(
        words[..2],
        [
            (Cause::Return(revision), None),
            (Cause::Apply, Some(Verdict::Undone))
        ]
    );
    assert_eq!(ended.undone_by, Some(history[0].0));
    assert!(world.core.trial(world.now).is_none());
}

#[test]
fn what_is_confirmed_stays_and_hosts_keep_nothing() {
    let (mut world, mut agents) = three();
    world.try_out(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    let after = running(&agents);
    assert!(!kept(&world, "osaka").is_empty());
    world.confirm();
    let each: Vec<_> = agents.iter_mut().map(|agent| agent.ack(&mut world)).collect();
    assert!(
        each.iter().any(|came| came == &["delta"]),
        "who is on trial is told"
    );
    settle(&mut world, &mut agents);
    assert_eq!(running(&agents), after);
    assert_eq!(kept(&world, "osaka"), [0; 0]);
    assert_eq!(world.store.list("kept/").unwrap(), []);
    assert_eq!(world.pass(100), None);
    assert_eq!(world.core.history()[0].1.trial, Some(Verdict::Confirmed));
    assert!(matches!(world.core.handle_confirm(), Err(DeclareError::NoTrial)));
}

#[test]
fn nothing_else_is_changed_meanwhile() {
    let (mut world, _) = three();
    let revision = world.try_out(VPC).unwrap();
    let refused = world.apply(ACCELERATOR).unwrap_err();
    let message = &refused[0].message;
    assert!(
        message.contains(&format!("change {revision} is on trial for 60 s")),
        "{message}"
    );
    assert!(message.contains("kuafu confirm"), "{message}");
    let dry = Terms {
        dry_run: true,
        ..Terms::default()
    };
    let file = File {
        name: "a",
        text: ACCELERATOR,
    };
    assert!(world.core.handle_apply(0, &[file], dry).is_err());
    let osaka = "port/a".parse().unwrap();
    assert!(world.core.handle_delete(0, &[osaka], Terms::default()).is_err());
    world.confirm();
    world.apply(ACCELERATOR).unwrap();
}

#[test]
fn a_dry_run_puts_nothing_on_trial() {
    let (mut world, _) = three();
    let file = File { name: "a", text: VPC };
    let terms = Terms {
        dry_run: true,
        confirm_s: Some(60),
        at: 0,
    };
    assert_eq!(world.core.handle_apply(0, &[file], terms).unwrap().commands, []);
    let unchanged = Terms {
        dry_run: false,
        ..terms
    };
    let nodes = File {
        name: "a",
        text: NODES,
    };
    assert_eq!(
        world.core.handle_apply(0, &[nodes], unchanged).unwrap().commands,
        []
    );
    assert!(world.core.trial(0).is_none(), "nor does what changes nothing");
    let short = Terms {
        confirm_s: Some(4),
        ..unchanged
    };
    let message = world
        .core
        .handle_apply(0, &[file], short)
        .unwrap_err()
        .to_string();
    assert!(message.contains("expected 5 to 86400"), "{message}");
}

#[test]
fn what_cannot_be_undone_is_on_no_trial() {
    let (mut world, _) = three();
    let foreign = NODES.replace("192.0.2.3}", "192.0.2.3}, agent: false");
    let refused = world.try_out(&foreign).unwrap_err();
    assert!(
        refused.contains("node/cape-town would leave the cluster"),
        "{refused}"
    );
}

#[test]
fn a_host_that_was_cut_off_goes_back_by_itself_and_is_known() {
    let (mut world, mut agents) = three();
    let (before, revision) = (running(&agents), agents[0].revision());
    world.try_out(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    let trial = agents[0].state.clone().unwrap();
    assert!(trial.revision > revision);
    world.core.handle_disconnected(world.now, agents[0].session);
    // Every host but this one is led back; what it may send to stays.
    world.pass(60).unwrap();
    settle(&mut world, &mut agents[1..]);
    let exit = agents[2].state.clone().unwrap();
    assert!(
        exit.services.iter().any(|service| service.at_exit),
        "it may still be listened to"
    );
    agents[0] = world.connect("osaka", revision);
    agents[0].state = Some(HostState {
        revision,
        ..before[0].clone()
    });
    assert_eq!(agents[0].ack(&mut world), ["delta"], "no snapshot: it is known");
    settle(&mut world, &mut agents);
    assert_eq!(running(&agents), before);
    assert_eq!(kept(&world, "osaka"), [0; 0]);
}

#[test]
fn a_host_that_went_back_says_so_on_its_stream() {
    let (mut world, mut agents) = three();
    let (before, revision) = (running(&agents), agents[0].revision());
    world.try_out(VPC).unwrap();
    settle(&mut world, &mut agents);
    let (session, now) = (agents[0].session, world.now);
    agents[0].state = Some(HostState {
        revision,
        ..before[0].clone()
    });
    let commands = world.core.handle_ack(now, session, revision);
    world.carry_out(commands);
    let running_now = world.core.host_views(now);
    let osaka = running_now
        .iter()
        .find(|host| host.node.as_str() == "osaka")
        .unwrap();
    assert_eq!(osaka.acknowledged, revision);
    assert_eq!(
        agents[0].ack(&mut world),
        ["delta"],
        "it is still on trial, and tried again"
    );
    world.pass(60).unwrap();
    settle(&mut world, &mut agents);
    assert_eq!(running(&agents), before);
}

#[test]
fn a_trial_outlives_the_controller() {
    let (mut world, mut agents) = three();
    let (before, intent) = (running(&agents), world.core.intent().clone());
    world.try_out(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    let revision = world.core.trial(0).unwrap().revision;
    let mut world = world.restart();
    // By the calendar 40 s are left; the process's clock begins anew.
    assert_eq!(world.core.handle_trial(0, 20).unwrap(), None);
    assert_eq!(world.core.trial(0).unwrap().left_ms, 40_000);
    assert_eq!(world.core.trial(0).unwrap().revision, revision);
    for (node, agent) in ["osaka", "taipei", "cape-town"].into_iter().zip(&mut agents) {
        agent.session = world.connect(node, agent.revision()).session;
    }
    settle(&mut world, &mut agents);
    assert!(!kept(&world, "osaka").is_empty());
    let ended = world.core.handle_trial(40_000, 60).unwrap().unwrap();
    world.carry_out(ended.commands);
    settle(&mut world, &mut agents);
    assert_eq!(running(&agents), before);
    assert_eq!(world.core.intent(), &intent);
    assert_eq!(world.store.list("kept/").unwrap(), []);
}

#[test]
fn a_trial_that_ended_while_the_controller_was_away_is_undone_at_its_start() {
    let (mut world, mut agents) = three();
    let (before, revisions): (_, Vec<u64>) = (running(&agents), agents.iter().map(Agent::revision).collect());
    world.try_out(VPC).unwrap();
    settle(&mut world, &mut agents);
    let mut world = world.restart();
    let ended = world.core.handle_trial(0, 1_000).unwrap().unwrap();
    world.carry_out(ended.commands);
    for ((node, agent), (state, revision)) in ["osaka", "taipei", "cape-town"]
        .into_iter()
        .zip(&mut agents)
        .zip(before.iter().zip(revisions))
    {
        agent.session = world.connect(node, revision).session;
        agent.state = Some(HostState {
            revision,
            ..state.clone()
        });
    }
    settle(&mut world, &mut agents);
    assert_eq!(running(&agents), before);
    assert_eq!(kept(&world, "osaka"), [0; 0]);
}

#[test]
fn a_rollback_is_one_new_change() {
    let (mut world, mut agents) = three();
    let first = world.core.history()[0].0;
    let nodes = world.core.intent().clone();
    world.apply(VPC).unwrap();
    let second = world.core.history()[0].0;
    let with_vpc = world.core.intent().clone();
    world.apply(&VPC.replace("10.0.0.5", "10.0.0.6")).unwrap();
    world.apply(ACCELERATOR).unwrap();
    let all = world.core.intent().clone();
    let last = world.core.history()[0].0;

    let rolled = world.core.handle_rollback(0, second, Terms::default()).unwrap();
    world.carry_out(rolled.commands);
    assert_eq!(world.core.intent(), &with_vpc);
    assert_eq!(world.core.history()[0].1.cause, Cause::Rollback(second));
    let rolled = world.core.handle_rollback(0, first, Terms::default()).unwrap();
    world.carry_out(rolled.commands);
    assert_eq!(world.core.intent(), &nodes);
    let mut world = world.restart();
    let rolled = world.core.handle_rollback(0, last, Terms::default()).unwrap();
    world.carry_out(rolled.commands);
    assert_eq!(world.core.intent(), &all);
    settle(&mut world, &mut agents);

    let change = world.core.change(second + 1).unwrap();
    assert_eq!(change.entry.changes[0].object, "port/a");
    assert!(
        change.entry.changes[0]
            .before
            .as_ref()
            .unwrap()
            .contains("10.0.0.5")
    );
    assert!(change.after[0].as_ref().unwrap().contains("10.0.0.6"));
    let unknown = world
        .core
        .handle_rollback(0, 10_000, Terms::default())
        .unwrap_err();
    assert!(
        unknown.to_string().starts_with("no change is called 10000"),
        "{unknown}"
    );
}

#[test]
fn the_history_is_of_bounded_length() {
    let (mut world, _) = three();
    for host in 1..=150 {
        world
            .apply(&VPC.replace("10.0.0.5", &format!("10.0.0.{host}")))
            .unwrap();
    }
    assert_eq!(world.core.history().len(), 100);
    assert_eq!(world.store.list("history/").unwrap().len(), 100);
    assert_eq!(world.restart().core.history().len(), 100);
}
