//! A relay is emptied, so that it can be taken away.

use serde_json::Value;

use super::GAME;
use super::common::Stage;
use super::failover;
use super::play::{self, Servers};
use super::restarts::under_a_stream;

/// `kuafu drain` ends when nothing passes the relay any more, and no packet is lost on the way.
pub(super) fn a_relay_drains(stage: &mut Stage, servers: &Servers, id: u32) {
    let relay = failover::relay_of(&stage.until_relayed(GAME)).unwrap();
    let node = format!("node/{relay}");
    let loss = under_a_stream(stage, servers, GAME, id, |stage| {
        let drained: Result<Value, _> = stage.cluster.json(&stage.world, &["drain", &node]);
        drained.unwrap();
    });
    println!("{node} drained: {loss}");
    assert!(loss.is_small(), "{loss}");
    let after = play::route(&stage.world, &stage.cluster, GAME).unwrap();
    let passes = |nodes: &[String]| nodes.contains(&relay);
    assert!(!passes(&after.path) && !passes(&after.backup), "{after:?}");
    let undone: Result<Value, _> = stage.cluster.json(&stage.world, &["drain", &node, "--undo"]);
    undone.unwrap();
}
