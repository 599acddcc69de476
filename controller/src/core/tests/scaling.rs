//! Services whose targets come and go by a hook.

use kuafu_model::compile::Server;
use kuafu_model::kinds::PortNumber;
use kuafu_model::state::TargetState;

use super::*;
use crate::core::Call;

const WEB: &str = "
kind: AddressPool
metadata: {name: asia}
spec: {addresses: [{node: osaka, public: 203.0.113.1}]}
---
kind: Service
metadata: {name: web}
spec:
  pool: asia
  listeners: [{protocol: tcp, port: 80}]
  targets: [{address: 198.51.100.1}]
  scaling: {min: 1, max: 3, flows_per_target: 10, interval_s: 2, drain_s: 100, hook: {url: \"http://192.0.2.9/web\"}}
";
const AT: UnixSeconds = 1_000_000;

/// A world in which osaka sends to `web`.
fn world() -> (World, Vec<Agent>) {
    let (mut world, mut agents) = three();
    world.apply(WEB).unwrap();
    settle(&mut world, &mut agents);
    assert_eq!(after(&mut world, 0), []);
    (world, agents)
}

/// Says what osaka has, by the last octets of addresses.
fn says(world: &mut World, agents: &[Agent], flows: &[(u8, u64)]) {
    one_says(world, &agents[0], flows);
}

fn one_says(world: &mut World, agent: &Agent, flows: &[(u8, u64)]) {
    let server = |(last, flows): &(u8, u64)| {
        let server = Server {
            service: "web".parse().unwrap(),
            address: format!("198.51.100.{last}").parse().unwrap(),
            port: PortNumber::new(80).unwrap(),
        };
        (server, *flows)
    };
    let flows = flows.iter().map(server).collect();
    world.core.handle_flows(world.now, agent.session, flows);
}

/// What is due after so many seconds.
fn after(world: &mut World, seconds: u64) -> Vec<Call> {
    world.now += seconds * 1_000;
    let (calls, commands) = world.core.handle_scaling(world.now, AT + world.now / 1_000);
    world.carry_out(commands);
    calls
}

fn answer(world: &mut World, call: &Call, answer: Result<Option<&str>, &str>) {
    let answer = answer.map_err(str::to_owned);
    let answer = answer.and_then(|text| text.map(|text| call.read(text)).transpose());
    let commands = world.core.handle_hook(AT + world.now / 1_000, call, answer);
    world.carry_out(commands);
}

/// The hook names these, of the net of targets, on the call that is due.
fn names(world: &mut World, named: &[u8]) {
    let [call] = &*after(world, 2) else {
        panic!("one call is due")
    };
    let target = |last: &u8| format!("{{\"address\": \"198.51.100.{last}\"}}");
    let targets: Vec<String> = named.iter().map(target).collect();
    let text = format!("{{\"targets\": [{}]}}", targets.join(", "));
    answer(world, call, Ok(Some(&text)));
}

/// The last octet of an IPv4 address.
fn last_of(address: std::net::IpAddr) -> u8 {
    match address {
        std::net::IpAddr::V4(address) => address.octets()[3],
        std::net::IpAddr::V6(_) => panic!("{address}"),
    }
}

/// Each target at osaka: its last octet, its weight, and its end.
fn targets(agent: &Agent) -> Vec<(u8, u32, Option<u64>)> {
    let state = agent.state.as_ref().unwrap();
    let target = |target: &TargetState| {
        assert_eq!(target.counted.as_deref(), Some("web"));
        let last = last_of(target.target.server().unwrap());
        (last, target.weight, target.ends_s)
    };
    state.services[0].targets.iter().map(target).collect()
}

fn fault(world: &World) -> Option<String> {
    world.core.scaling_views()[0].fault.clone()
}

#[test]
fn a_hook_is_told_what_is_wanted_and_its_targets_join() {
    let (mut world, mut agents) = world();
    assert_eq!(after(&mut world, 1), []);
    says(&mut world, &agents, &[(1, 11)]);
    let calls = after(&mut world, 2);
    assert_eq!((calls.len(), calls[0].url.as_str()), (1, "http://192.0.2.9/web"));
    let body: serde_json::Value = serde_json::from_str(&calls[0].body).unwrap();
    let expected = serde_json::json!({
        "service": "web", "has": 1, "wants": 2, "targets": [],
        "metric": {"flows": 11, "flows_per_target": 10},
    });
    assert_eq!(body, expected);
    assert_eq!(after(&mut world, 60), [], "one is under way");
    let named = r#"{"targets": [{"address": "198.51.100.2", "weight": 3}], "more": 1}"#;
    answer(&mut world, &calls[0], Ok(Some(named)));
    settle(&mut world, &mut agents);
    assert_eq!(targets(&agents[0]), [(1, 1, None), (2, 3, None)]);
    // What says nothing new changes nothing.
    let revision = world.core.revision();
    let calls = after(&mut world, 2);
    assert!(calls[0].body.contains(r#""has":2"#) && calls[0].body.contains("198.51.100.2"));
    answer(&mut world, &calls[0], Ok(None));
    names_again(&mut world, named);
    assert_eq!((world.core.revision(), fault(&world)), (revision, None));
    assert_eq!(
        world.core.history().len(),
        2,
        "it is no change of what is declared"
    );
}

fn names_again(world: &mut World, named: &str) {
    let calls = after(world, 2);
    answer(world, &calls[0], Ok(Some(named)));
}

#[test]
fn who_is_named_no_more_drains() {
    let (mut world, mut agents) = world();
    names(&mut world, &[2, 3]);
    settle(&mut world, &mut agents);
    names(&mut world, &[2]);
    settle(&mut world, &mut agents);
    let ends = Some(AT + world.now / 1_000 + 100);
    assert_eq!(targets(&agents[0]), [(1, 1, None), (2, 1, None), (3, 0, ends)]);
    // While it has flows, and while nobody says that it has none, it stays.
    says(&mut world, &agents, &[(1, 0), (2, 0), (3, 1)]);
    let call = &after(&mut world, 2)[0];
    assert!(!call.body.contains("198.51.100.3"), "it is named no more");
    answer(&mut world, call, Ok(None));
    after(&mut world, 20);
    says(&mut world, &agents, &[(1, 0), (2, 0), (3, 1)]);
    after(&mut world, 1);
    settle(&mut world, &mut agents);
    assert_eq!(targets(&agents[0]).len(), 3);
    says(&mut world, &agents, &[(1, 0), (2, 0), (3, 0)]);
    after(&mut world, 1);
    settle(&mut world, &mut agents);
    assert_eq!(targets(&agents[0]), [(1, 1, None), (2, 1, None)]);
}

#[test]
fn who_drains_is_gone_when_its_time_is_over_and_comes_back_when_it_is_named() {
    let (mut world, mut agents) = world();
    let named = |world: &mut World, agents: &mut Vec<Agent>, which: &[u8]| {
        names(world, which);
        settle(world, agents);
        targets(&agents[0]).len()
    };
    assert_eq!(named(&mut world, &mut agents, &[2, 3]), 3);
    assert_eq!(named(&mut world, &mut agents, &[2]), 3);
    named(&mut world, &mut agents, &[2, 3]);
    assert_eq!(targets(&agents[0])[2], (3, 1, None));
    assert_eq!(named(&mut world, &mut agents, &[2]), 3);
    after(&mut world, 108);
    settle(&mut world, &mut agents);
    assert_eq!(targets(&agents[0]).len(), 3);
    after(&mut world, 2);
    settle(&mut world, &mut agents);
    assert_eq!(targets(&agents[0]).len(), 2);
}

#[test]
fn what_is_wrong_with_an_answer_is_named_and_the_targets_stay() {
    let (mut world, mut agents) = world();
    names(&mut world, &[2]);
    settle(&mut world, &mut agents);
    let before = targets(&agents[0]);
    let wrong = [
        (Err("did not answer within 5 s"), "did not answer within 5 s"),
        (
            Ok(Some("[]")),
            "answers what is no JSON of the form {\"targets\": [...]}: ",
        ),
        (
            Ok(Some("{\"targets\": []}")),
            "names targets that cannot be: spec.targets: is empty",
        ),
        (
            Ok(Some(r#"{"targets": [{"address": "2001:db8::1"}]}"#)),
            "names targets that cannot be: 2001:db8::1 is of IPv6, which mode: nat does not have; choose ",
        ),
        (
            Ok(Some(
                r#"{"targets": [{"address": "198.51.100.2"}, {"address": "198.51.100.2"}]}"#,
            )),
            "names targets that cannot be: spec.targets[1]: ",
        ),
        (
            Ok(Some(r#"{"targets": [{"address": "198.51.100.1"}]}"#)),
            "names targets that cannot be: 198.51.100.1 is declared or selected already; leave it out",
        ),
        (
            Ok(Some(
                r#"{"targets": [{"address": "198.51.100.3", "drain": true}]}"#,
            )),
            "names targets that cannot be: targets[0].drain: a target that is left out drains by itself",
        ),
        (
            Ok(Some(r#"{"targets": [{"address": "198.51.100.3", "wieght": 2}]}"#)),
            "names targets that cannot be: spec.targets[0].wieght: unknown field; did you mean weight?",
        ),
        (
            Ok(Some(r#"{"targets": [{}, {}, {}, {}]}"#)),
            "names targets that cannot be: it names 4, and spec.scaling.max is 3",
        ),
    ];
    for (said, why) in wrong {
        let call = &after(&mut world, 2)[0];
        answer(&mut world, call, said);
        let fault = fault(&world).unwrap();
        assert!(fault.starts_with(why), "{fault}");
        settle(&mut world, &mut agents);
        assert_eq!(targets(&agents[0]), before);
    }
    let call = &after(&mut world, 2)[0];
    answer(&mut world, call, Ok(None));
    assert_eq!(fault(&world), None);
}

#[test]
fn what_a_hook_has_named_outlives_the_controller_and_goes_with_its_service() {
    let (mut world, mut agents) = world();
    names(&mut world, &[2, 3]);
    names(&mut world, &[2]);
    settle(&mut world, &mut agents);
    let named = world.core.intent().all_named_by_hooks().clone();
    assert_eq!(named.values().next().unwrap().len(), 2);
    let mut world = world.restart();
    assert_eq!(*world.core.intent().all_named_by_hooks(), named);
    // A change of something else, and its return, do not touch them.
    world
        .apply("kind: Vpc\nmetadata: {name: red}\nspec: {cidr: 10.0.0.0/24}")
        .unwrap();
    let before = world.core.history()[1].0;
    let declared = world.core.handle_rollback(world.now, before, Terms::default());
    world.carry_out(declared.unwrap().commands);
    assert!(world.core.intent().vpcs().is_empty());
    assert_eq!(*world.core.intent().all_named_by_hooks(), named);
    let without = WEB.replace("  scaling:", "  #");
    world.apply(&without).unwrap();
    assert!(world.core.intent().all_named_by_hooks().is_empty());
    let kept = world.store.list("named/").unwrap();
    assert!(kept.is_empty(), "{kept:?}");
}

/// Flows and targets wanted, as the call that is due says; nothing changes by it.
fn told(world: &mut World) -> (u64, u64) {
    let [call] = &*after(world, 2) else {
        panic!("one call is due")
    };
    answer(world, call, Ok(None));
    let body: serde_json::Value = serde_json::from_str(&call.body).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    (number(&body["metric"]["flows"]), number(&body["wants"]))
}

/// The last octets of the addresses that the hook has named, and whether they leave.
fn named(world: &World) -> Vec<(u8, bool)> {
    let lists = world.core.intent().all_named_by_hooks().values();
    let targets = lists.flat_map(|list| list.iter());
    let named = targets.map(|target| (last_of(target.address.get()), target.drain));
    named.collect()
}

/// A world in which osaka and cape-town send to `web`, which has three targets.
fn two_hosts() -> (World, Vec<Agent>) {
    let (mut world, mut agents) = three();
    let both = "[{node: osaka, public: 203.0.113.1}, {node: cape-town, public: 203.0.113.3}]";
    world
        .apply(&WEB.replace("[{node: osaka, public: 203.0.113.1}]", both))
        .unwrap();
    settle(&mut world, &mut agents);
    assert_eq!(after(&mut world, 0), []);
    names(&mut world, &[2, 3]);
    settle(&mut world, &mut agents);
    (world, agents)
}

const IDLE: [(u8, u64); 3] = [(1, 0), (2, 0), (3, 0)];

#[test]
fn while_a_host_has_not_said_what_it_has_no_fewer_are_wanted() {
    let (mut world, agents) = two_hosts();
    one_says(&mut world, &agents[0], &[(1, 9), (2, 9), (3, 0)]);
    one_says(&mut world, &agents[2], &[(1, 9), (2, 2), (3, 0)]);
    assert_eq!(told(&mut world), (29, 3));
    // A controller that starts anew has heard of none.
    let runs = agents.iter().map(Agent::revision).collect::<Vec<_>>();
    let mut world = world.restart();
    assert_eq!(after(&mut world, 0), []);
    for _ in 0..50 {
        assert_eq!(told(&mut world), (0, 3));
    }
    let osaka = world.connect("osaka", runs[0]);
    let cape_town = world.connect("cape-town", runs[2]);
    for _ in 0..50 {
        one_says(&mut world, &osaka, &IDLE);
        assert_eq!(told(&mut world), (0, 3), "cape-town may have some");
    }
    // What was not known was needed: from now on it counts that it is not.
    for _ in 0..29 {
        one_says(&mut world, &osaka, &IDLE);
        one_says(&mut world, &cape_town, &IDLE);
        assert_eq!(told(&mut world), (0, 3));
    }
    one_says(&mut world, &osaka, &IDLE);
    assert_eq!(told(&mut world), (0, 1));
}

#[test]
fn an_agent_that_is_away_counts_with_its_last_word_until_it_sends_no_more() {
    let (mut world, agents) = two_hosts();
    one_says(&mut world, &agents[2], &[(1, 9), (2, 2), (3, 0)]);
    for _ in 0..50 {
        one_says(&mut world, &agents[0], &IDLE);
        assert_eq!(told(&mut world), (11, 3));
    }
    // Its address is taken from it: it may lead flows of before, but nobody waits for its word.
    let pool = WEB.split("---").next().unwrap();
    world.apply(pool).unwrap();
    one_says(&mut world, &agents[0], &IDLE);
    assert_eq!(told(&mut world).0, 0);
    for _ in 0..30 {
        one_says(&mut world, &agents[0], &IDLE);
        told(&mut world);
    }
    assert_eq!(told(&mut world), (0, 1));
}

#[test]
fn what_is_no_server_of_a_host_is_not_counted_and_what_is_too_much_is_no_overflow() {
    let (mut world, agents) = two_hosts();
    one_says(&mut world, &agents[0], &[(1, u64::MAX), (2, u64::MAX), (3, 0)]);
    one_says(&mut world, &agents[1], &[(1, 100)]);
    one_says(&mut world, &agents[2], &[(1, 1), (77, 100)]);
    assert_eq!(told(&mut world), (u64::MAX, 3));
    one_says(&mut world, &agents[0], &IDLE);
    assert_eq!(told(&mut world).0, 1);
}

#[test]
fn an_answer_that_is_refused_begins_no_leave() {
    let (mut world, mut agents) = world();
    names(&mut world, &[2, 3]);
    settle(&mut world, &mut agents);
    // The first is declared: all of this is refused, and the third stays.
    for _ in 0..20 {
        says(&mut world, &agents, &IDLE);
        names(&mut world, &[1, 2]);
        assert_eq!(named(&world), [(2, false), (3, false)]);
    }
    names(&mut world, &[2]);
    settle(&mut world, &mut agents);
    for _ in 0..15 {
        says(&mut world, &agents, &IDLE);
        after(&mut world, 1);
        assert_eq!(named(&world), [(2, false), (3, true)]);
    }
    says(&mut world, &agents, &IDLE);
    after(&mut world, 1);
    assert_eq!(named(&world), [(2, false)]);
}

#[test]
fn who_leaves_waits_for_every_host_that_may_still_send_there() {
    let (mut world, mut agents) = two_hosts();
    let osaka = agents.remove(0);
    // It has heard of the leave, and says no word about it.
    names(&mut world, &[2]);
    settle(&mut world, &mut agents);
    let idle = |world: &mut World, both: [&Agent; 2]| {
        for _ in 0..20 {
            for agent in both {
                one_says(world, agent, &IDLE);
            }
            after(world, 1);
        }
        named(world)
    };
    assert_eq!(idle(&mut world, [&osaka, &agents[1]]), [(2, false), (3, true)]);
    // It refuses it, and goes on as before.
    let name = "osaka".parse().unwrap();
    let sent = world.core.fleet.get(&name).and_then(|running| running.newest());
    let (revision, node) = (sent.unwrap().revision, osaka.session);
    let refuses = world
        .core
        .handle_refused(world.now, node, revision, "no room", false);
    world.carry_out(refuses);
    assert!(world.core.fleet.get(&name).unwrap().is_settled());
    assert_eq!(idle(&mut world, [&osaka, &agents[1]]), [(2, false), (3, true)]);
    let runs = osaka.revision();
    let mut osaka = Agent {
        state: osaka.state,
        ..world.connect("osaka", runs)
    };
    assert_eq!(osaka.ack(&mut world), ["delta"]);
    for _ in 0..20 {
        one_says(&mut world, &osaka, &IDLE);
        // Who does not name it does not say that it has none.
        one_says(&mut world, &agents[1], &[(1, 0), (2, 0)]);
        after(&mut world, 1);
    }
    assert_eq!(named(&world), [(2, false), (3, true)]);
    one_says(&mut world, &agents[1], &IDLE);
    after(&mut world, 1);
    assert_eq!(named(&world), [(2, false)]);
}

#[test]
fn an_answer_for_a_service_that_is_another_by_now_says_nothing() {
    let (mut world, _agents) = world();
    let old = &after(&mut world, 2)[0];
    let web = [kuafu_model::kinds::ObjectRef::new(
        kuafu_model::kinds::Kind::Service,
        &old.service.metadata.name,
    )];
    let deleted = world.core.handle_delete(world.now, &web, Terms::default());
    world.carry_out(deleted.unwrap().commands);
    world.apply(WEB).unwrap();
    assert_eq!(after(&mut world, 0), []);
    let new = &after(&mut world, 2)[0];
    let two = Ok(Some(r#"{"targets": [{"address": "198.51.100.2"}]}"#));
    answer(&mut world, old, two);
    assert_eq!(named(&world), []);
    assert_eq!(after(&mut world, 2), [], "the new one's call is under way");
    // Nor for one that was declared otherwise meanwhile.
    world.apply(&WEB.replace("max: 3", "max: 4")).unwrap();
    answer(&mut world, new, two);
    assert_eq!(named(&world), []);
    let call = &after(&mut world, 2)[0];
    answer(&mut world, call, two);
    assert_eq!(named(&world), [(2, false)]);
    // Those of another mode are none.
    world
        .apply(&WEB.replace("scaling:", "mode: gue\n  scaling:"))
        .unwrap();
    assert_eq!(named(&world), []);
    assert!(world.store.list("named/").unwrap().is_empty());
}

#[test]
fn what_is_declared_later_too_counts_once_and_blocks_no_answer() {
    let (mut world, mut agents) = world();
    names(&mut world, &[2]);
    let both = "[{address: 198.51.100.1}, {address: 198.51.100.2}]";
    world
        .apply(&WEB.replace("[{address: 198.51.100.1}]", both))
        .unwrap();
    names(&mut world, &[2, 3]);
    settle(&mut world, &mut agents);
    assert_eq!(fault(&world), None);
    assert_eq!(targets(&agents[0]), [(1, 1, None), (2, 1, None), (3, 1, None)]);
}

const PORTS: &str = "
kind: Vpc
metadata: {name: red}
spec: {cidr: 198.51.100.0/24}
---
kind: Port
metadata: {name: one}
spec: {vpc: red, node: osaka, address: 198.51.100.1, interface: veth-1}
";
const SECOND: &str = "
kind: Port
metadata: {name: two}
spec: {vpc: red, node: osaka, address: 198.51.100.2, interface: veth-2}
";

#[test]
fn a_target_without_a_port_is_none_and_blocks_nothing() {
    let (mut world, _agents) = three();
    world.apply(PORTS).unwrap();
    let web = WEB.replace("scaling:", "mode: vxlan\n  vpc: red\n  scaling:");
    world.apply(&web).unwrap();
    let before = world.core.history()[0].0;
    world.apply(SECOND).unwrap();
    after(&mut world, 0);
    names(&mut world, &[2, 3]);
    let why = "names targets that cannot be: 198.51.100.3 is no port of vpc/red";
    assert!(fault(&world).unwrap().starts_with(why), "{:?}", fault(&world));
    names(&mut world, &[2]);
    assert_eq!((named(&world), fault(&world)), (vec![(2, false)], None));
    // Before the second port was declared.
    let declared = world.core.handle_rollback(world.now, before, Terms::default());
    world.carry_out(declared.unwrap().commands);
    assert_eq!(named(&world), []);
    world.apply(SECOND).unwrap();
    names(&mut world, &[2]);
    assert_eq!(named(&world), [(2, false)]);
    let two = ["port/two".parse().unwrap()];
    let deleted = world.core.handle_delete(world.now, &two, Terms::default());
    world.carry_out(deleted.unwrap().commands);
    assert_eq!(named(&world), []);
    let world = world.restart();
    assert_eq!(named(&world), []);
}

#[test]
fn a_rollback_leaves_out_the_targets_that_cannot_be() {
    let (mut world, _agents) = three();
    let web = WEB.replace("scaling:", "mode: ipip\n  scaling:");
    world.apply(&web).unwrap();
    let before = world.core.history()[0].0;
    world.apply(&web.replace("203.0.113.1", "203.0.113.2")).unwrap();
    after(&mut world, 0);
    let call = &after(&mut world, 2)[0];
    let text = r#"{"targets": [{"address": "198.51.100.2"}, {"address": "203.0.113.1"}, {"address": "198.51.100.3"}]}"#;
    answer(&mut world, call, Ok(Some(text)));
    assert_eq!((named(&world).len(), fault(&world)), (3, None));
    let declared = world.core.handle_rollback(world.now, before, Terms::default());
    world.carry_out(declared.unwrap().commands);
    assert_eq!(named(&world), [(2, false), (3, false)]);
    let mut world = world.restart();
    assert_eq!(named(&world), [(2, false), (3, false)]);
    world.apply(PORTS).unwrap();
}

#[test]
fn a_trial_that_is_undone_brings_its_targets_back() {
    let (mut world, _agents) = world();
    names(&mut world, &[2, 3]);
    names(&mut world, &[2]);
    let before = named(&world);
    let without = WEB.replace("  scaling:", "  #");
    let terms = Terms {
        confirm_s: Some(60),
        ..Terms::default()
    };
    let file = File {
        name: "a",
        text: &without,
    };
    let declared = world.core.handle_apply(world.now, &[file], terms);
    world.carry_out(declared.unwrap().commands);
    assert_eq!(named(&world), []);
    let mut world = world.restart();
    let ended = world.core.handle_undo(world.now, 1);
    world.carry_out(ended.unwrap().commands);
    assert_eq!(named(&world), before);
    let world = world.restart();
    assert_eq!(named(&world), before);
}

#[test]
fn who_has_too_few_is_called_at_once() {
    let (mut world, _agents) = three();
    world
        .apply(&WEB.replace("  targets: [{address: 198.51.100.1}]\n", ""))
        .unwrap();
    assert_eq!(after(&mut world, 0).len(), 1);
}

#[test]
fn what_cannot_be_read_in_the_store_is_dropped() {
    let (mut world, _agents) = world();
    names(&mut world, &[2]);
    let wrong = ["named/web", "named/no name"].map(|key| Write::Put(key.to_owned(), b"{".to_vec()));
    world.store.commit(&wrong).unwrap();
    let world = world.restart();
    assert_eq!(named(&world), []);
    assert!(world.store.list("named/").unwrap().is_empty());
}
