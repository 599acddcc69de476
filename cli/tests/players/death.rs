//! A relay dies, in three ways.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kuafu_proto::v1::{PathExplanation, PathSwitch};

use super::GAME;
use super::common::Stage;
use super::failover::{self, Failover, Watch};
use super::play::{self, Servers};

/// What a failover may cost where one is looked at, on a busy machine.
const GAP_AT_MOST: Duration = Duration::from_millis(1_500);
/// What it may cost in the median, beside the round trip from the sender to the relay.
const DETECTION: Duration = Duration::from_millis(300);

/// The wire drops everything from and to the relay; then it is healed.
pub(super) fn a_relay_dies(stage: &Stage, servers: &Servers, id: u32) -> Failover {
    stage.until_relayed(GAME);
    told(failover::kill_relay(&stage.world, &stage.cluster, servers, GAME, id).unwrap())
}

/// `explain path` says when the pair left the dead relay, to which path and why, and what was known before.
pub(super) fn the_switch_has_its_cause(stage: &Stage, failed: &Failover) {
    let explain = |more: &[&str]| -> PathExplanation {
        let verb = [&["explain", "path", GAME.entry, GAME.exit][..], more].concat();
        stage.cluster.json(&stage.world, &verb).unwrap()
    };
    let said = explain(&[]);
    let passes = |nodes: &[String]| nodes.contains(&failed.relay);
    let left = |switch: &&PathSwitch| passes(&switch.from) && !passes(&switch.to);
    let switch = said.switches.iter().rfind(left).unwrap();
    println!("{:?} left for {:?}: {}", switch.from, switch.to, switch.cause);
    let causes = ["is down", "is unusable"];
    assert!(
        causes.iter().any(|cause| switch.cause.contains(cause)),
        "{switch:?}"
    );
    assert!(switch.to_cost_ms.is_some(), "{switch:?}");
    assert!(said.next.len() >= 5, "{said:?}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ago = now.as_secs() - switch.at_unix_ms / 1000 + 1;
    let before = explain(&["--at", &format!("-{ago}s")]);
    assert!(passes(&before.chosen.unwrap().nodes), "{ago} s ago");
    assert!(before.known_at_unix_ms < switch.at_unix_ms);
}

/// The kernel needs neither agent nor controller to leave a dead relay.
pub(super) fn everything_but_the_programs_dies(stage: &mut Stage, servers: &Servers, id: u32) -> Failover {
    stage.until_relayed(GAME);
    let route = play::route(&stage.world, &stage.cluster, GAME).unwrap();
    let relay = failover::relay_of(&route).unwrap();
    stage.kill_controller();
    let nodes = stage.nodes();
    for node in &nodes {
        stage.kill(node, "agent");
    }
    let site = stage.world.site(&relay).unwrap().id();
    let watch = Watch::begin(&stage.world, GAME, id).unwrap();
    stage.world.wan().kill(site).unwrap();
    let failed = watch.end(&stage.world, servers, relay).unwrap();
    stage.world.wan().heal(site).unwrap();
    told(failed)
}

/// Starts the controller and all agents again.
pub(super) fn revive(stage: &mut Stage) {
    stage.start_controller(&[]);
    let nodes = stage.nodes();
    for node in &nodes {
        stage.start(node, "agent");
    }
    for node in &nodes {
        stage.until_connected(node);
    }
}

/// The relay's host goes, with all that runs there.
pub(super) fn a_relay_is_destroyed(stage: &mut Stage, servers: &Servers, id: u32) -> Failover {
    stage.until_relayed(GAME);
    let watch = Watch::begin(&stage.world, GAME, id).unwrap();
    let route = play::route(&stage.world, &stage.cluster, GAME).unwrap();
    let relay = failover::relay_of(&route).unwrap();
    stage.world.destroy(&relay).unwrap();
    told(watch.end(&stage.world, servers, relay).unwrap())
}

/// Something was lost, or the relay carried nothing; and not too much.
fn told(failed: Failover) -> Failover {
    println!("{}", failed.told());
    for gap in failed.gaps {
        assert!(gap > Duration::ZERO && gap < GAP_AT_MOST, "{}", failed.told());
    }
    failed
}

/// Each direction's median, beside the round trip from its sender to the relay.
pub(super) fn judge(how: &str, failed: &[Failover]) {
    for (way, name) in ["towards the server", "back"].into_iter().enumerate() {
        let of = |failed: &Failover| (failed.gaps[way], failed.trips[way].unwrap());
        let gap = median(failed.iter().map(|failed| of(failed).0));
        let bound = median(failed.iter().map(|failed| DETECTION + of(failed).1));
        println!(
            "{how}, {name}: median {gap:?} of {}, bound {bound:?}",
            failed.len()
        );
        assert!(gap < bound, "{how}, {name}: {gap:?}, allowed {bound:?}");
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}
