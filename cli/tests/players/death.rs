//! A relay dies, in three ways.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kuafu_proto::v1::{PathExplanation, PathSwitch};

use super::GAME;
use super::common::Stage;
use super::failover::{self, Failover, Watch};
use super::play::{self, Servers};

/// What a failover may cost where one is looked at, on a busy machine.
const GAP_AT_MOST: Duration = Duration::from_millis(1_500);

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
    let relay = failover::relay_of(&stage.until_relayed(GAME)).unwrap();
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

/// The relay's host goes, with all that runs there.
pub(super) fn a_relay_is_destroyed(stage: &mut Stage, servers: &Servers, id: u32) -> Failover {
    stage.until_relayed(GAME);
    let watch = Watch::begin(&stage.world, GAME, id).unwrap();
    let route = play::route(&stage.world, &stage.cluster, GAME).unwrap();
    let relay = failover::relay_of(&route).unwrap();
    stage.world.destroy(&relay).unwrap();
    told(watch.end(&stage.world, servers, relay).unwrap())
}

fn told(failed: Failover) -> Failover {
    println!("{}", failed.told());
    failed
}

/// Something was lost, or the relay carried nothing; and not too much.
pub(super) fn bounded(failed: Failover) -> Failover {
    for gap in failed.gaps {
        assert!(gap > Duration::ZERO && gap < GAP_AT_MOST, "{}", failed.told());
    }
    failed
}
