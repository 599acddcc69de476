//! Three nodes: a relay that gains, dies, and is away.

use super::*;

fn leg_report(agents: &[Agent], from: usize, to: &str, rtt_us: u32) -> LegReport {
    let state = agents[from].state.as_ref().unwrap();
    let legs = state.paths.iter().filter(|path| path.nodes[1..] == [to]);
    LegReport {
        path_id: legs.map(|path| path.id).min().unwrap(),
        sent: 20,
        received: 20,
        rtt_p50_us: rtt_us,
        rtt_p90_us: rtt_us,
        rtt_ewma_us: rtt_us,
        loss: 0.0,
        age_ms: 0,
    }
}

/// A second in which everything is measured: Osaka to Cape Town 374 ms, over Taipei 292 ms.
pub(super) fn second(world: &mut World, agents: &mut [Agent]) -> Vec<String> {
    world.now += 1000;
    measured(world, agents, 0);
    let commands = world.core.handle_tick(world.now);
    let lines = commands.iter().filter_map(|command| match command {
        Command::Record(line) => Some(line.clone()),
        _ => None,
    });
    let lines = lines.collect();
    world.carry_out(commands);
    settle(world, agents);
    lines
}

/// Everything is measured, each leg so many µs longer.
pub(super) fn measured(world: &mut World, agents: &[Agent], more_us: u32) {
    const NAMES: [&str; 3] = ["osaka", "taipei", "cape-town"];
    for (from, to, rtt_us) in [(0, 1, 42_000), (0, 2, 374_000), (1, 2, 250_000)] {
        for (a, b) in [(from, to), (to, from)] {
            let report = leg_report(agents, a, NAMES[b], rtt_us + more_us);
            let commands = world.core.handle_reports(world.now, agents[a].session, &[report]);
            world.carry_out(commands);
        }
    }
}

#[test]
fn a_relay_that_gains_is_taken_and_left_when_its_path_dies() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    let lines: Vec<String> = (0..5).flat_map(|_| second(&mut world, &mut agents)).collect();
    let route = world.core.route_views().remove(0);
    assert_eq!(route.path, ["osaka", "taipei", "cape-town"], "{route:?}");
    assert_eq!(route.backup, ["osaka", "cape-town"]);
    assert_eq!((route.direct_ms, route.path_ms), (Some(374.0), Some(292.0)));
    let entry = agents[0].state.as_ref().unwrap();
    let primary = entry.pairs[0].primary.unwrap();
    let path = entry.paths.iter().find(|path| path.index == primary).unwrap();
    assert_eq!(path.nodes, ["osaka", "taipei", "cape-town"]);

    let recording: Vec<kuafu_topology::Recorded> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    kuafu_topology::replay(kuafu_topology::Config::default(), &recording).unwrap();

    let (id, session) = (path.id, agents[0].session);
    let commands = world
        .core
        .handle_alarm(world.now, session, id, (Alarm::Dead, 0.0));
    world.carry_out(commands);
    let route = world.core.route_views().remove(0);
    assert_eq!(route.path.len(), 3, "its host sends over the backup: {route:?}");
    assert_eq!(route.why, "died just now: packets go over the backup");
    second(&mut world, &mut agents);
    let route = world.core.route_views().remove(0);
    assert_eq!(route.path, ["osaka", "cape-town"], "{route:?}");
    let before = route.path;
    let world = world.restart();
    assert_eq!(
        world.core.route_views().remove(0).path,
        before,
        "choices are kept"
    );
}

#[test]
fn nothing_moves_while_agents_are_away() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    for _ in 0..5 {
        second(&mut world, &mut agents);
    }
    let before = world.core.route_views().remove(0).path;
    for agent in &agents {
        world.core.handle_disconnected(world.now, agent.session);
    }
    for _ in 0..60 {
        world.now += 1000;
        let commands = world.core.handle_tick(world.now);
        world.carry_out(commands);
    }
    assert_eq!(world.core.route_views().remove(0).path, before);
}

#[test]
fn a_relay_with_a_price_is_left_by_bulk_traffic() {
    let (mut world, mut agents) = three();
    world
        .apply(&ACCELERATOR.replace("  pool: asia", "  pool: asia\n  class: bulk"))
        .unwrap();
    settle(&mut world, &mut agents);
    for _ in 0..5 {
        second(&mut world, &mut agents);
    }
    let route = world.core.route_views().remove(0);
    assert_eq!((route.path.len(), route.usd_per_gb), (3, 0.0));
    let address = "address: {local: 10.0.0.2, public: 192.0.2.2}";
    let priced = NODES.replace(address, &format!("{address}, price: 0.5"));
    world.apply(&priced).unwrap();
    settle(&mut world, &mut agents);
    second(&mut world, &mut agents);
    assert_eq!(world.core.route_views().remove(0).usd_per_gb, 0.5);
    for _ in 0..30 {
        second(&mut world, &mut agents);
    }
    let route = world.core.route_views().remove(0);
    assert_eq!((route.path.len(), route.usd_per_gb), (2, 0.0), "{}", route.why);
}

/// Legs that wait for their turn to be probed count as their last turn came out, are said to be unknown, and are left
/// when that is too old.
#[test]
fn a_leg_that_rests_counts_as_last_measured_until_that_is_too_old() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    (0..5).for_each(|_| drop(second(&mut world, &mut agents)));
    let rest = |world: &mut World, agents: &[Agent], age_ms| {
        for (from, to) in [(1, "cape-town"), (2, "taipei")] {
            let report = LegReport {
                age_ms,
                ..leg_report(agents, from, to, 250_000)
            };
            let commands = world
                .core
                .handle_reports(world.now, agents[from].session, &[report]);
            world.carry_out(commands);
        }
        // Direct is measured on, and so is the leg to the relay.
        for (from, to, rtt_us) in [
            (0, "taipei", 42_000),
            (1, "osaka", 42_000),
            (0, "cape-town", 374_000),
            (2, "osaka", 374_000),
        ] {
            let report = leg_report(agents, from, to, rtt_us);
            let commands = world
                .core
                .handle_reports(world.now, agents[from].session, &[report]);
            world.carry_out(commands);
        }
        world.now += 1000;
        let commands = world.core.handle_tick(world.now);
        world.carry_out(commands);
        world.core.route_views().remove(0)
    };
    let route = rest(&mut world, &agents, 300_000);
    assert_eq!(route.path, ["osaka", "taipei", "cape-town"]);
    let unknown = "unknown at the moment, counted as last measured: cape-town > taipei, taipei > cape-town";
    assert!(route.why.ends_with(unknown), "{}", route.why);
    let views = world.core.host_views(world.now);
    let taipei = views.iter().find(|host| host.node.as_str() == "taipei").unwrap();
    let leg = taipei.legs.iter().find(|leg| leg.to == "cape-town").unwrap();
    assert_eq!((leg.unknown, leg.age_ms), (true, 301_000));
    let question = PathQuestion {
        entry: "osaka".to_owned(),
        exit: "cape-town".to_owned(),
        class: None,
    };
    let answer = world.core.explain_path(world.now, &question, None).unwrap();
    let chosen = answer.explanation.chosen.unwrap();
    let fates: Vec<Fate> = chosen.legs.iter().map(|leg| leg.forward.unwrap().fate).collect();
    assert_eq!(fates, [Fate::Measured, Fate::Unknown]);

    let route = rest(&mut world, &agents, 600_000);
    assert_eq!(route.path, ["osaka", "cape-town"], "{}", route.why);
}
