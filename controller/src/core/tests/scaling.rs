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
    let server = |(last, flows): &(u8, u64)| {
        let server = Server {
            service: "web".parse().unwrap(),
            address: format!("198.51.100.{last}").parse().unwrap(),
            port: PortNumber::new(80).unwrap(),
        };
        (server, *flows)
    };
    let flows = flows.iter().map(server).collect();
    world.core.handle_flows(world.now, agents[0].session, flows);
}

/// What is due after so many seconds.
fn after(world: &mut World, seconds: u64) -> Vec<Call> {
    world.now += seconds * 1_000;
    let (calls, commands) = world.core.handle_scaling(world.now, AT + world.now / 1_000);
    world.carry_out(commands);
    calls
}

fn answer(world: &mut World, call: &Call, answer: Result<Option<&str>, &str>) {
    let answer = answer.map(|text| text.map(str::to_owned)).map_err(str::to_owned);
    let at = AT + world.now / 1_000;
    let commands = world.core.handle_hook(world.now, at, call, answer);
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

/// Each target at osaka: its last octet, its weight, and its end.
fn targets(agent: &Agent) -> Vec<(u8, u32, Option<u64>)> {
    let state = agent.state.as_ref().unwrap();
    let target = |target: &TargetState| {
        assert_eq!(target.counted.as_deref(), Some("web"));
        let last = target.target.server().unwrap().octets()[3];
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
            "names targets that cannot be: spec.targets[0].address: ",
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
