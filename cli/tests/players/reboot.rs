//! A host loses all but its disk.

use std::time::{Duration, Instant};

use kuafu_lab::world::World;
use kuafu_proto::v1::{ClusterDrops, ClusterStatus, HostStatus};

use super::GAME;
use super::common::{Stage, soon};
use super::failover::FAILURE_RATE;
use super::play;
use super::tenants::{self, HOSTS, Tenants};

/// With the controller down a host loses all but its disk. Its agent alone brings back what it carried, under a new
/// incarnation that everybody else takes for one. Returns how long the agent took.
pub(super) fn a_host_reboots(stage: &mut Stage, tenants: &mut Tenants, node: &str, id: u32) -> Duration {
    let relays = stage.until_relayed(GAME).path[1] == node;
    let to = GAME.accelerated(&stage.world).unwrap();
    let stream = play::stream(&stage.world, GAME, id, to, FAILURE_RATE).unwrap();
    let replied = |more: usize| {
        let enough = stream.trace().replies().len() + more;
        soon("replies", || {
            (stream.trace().replies().len() >= enough).then_some(())
        });
    };
    replied(1_000);
    stage.kill_controller();
    // By then what it had sent is in force.
    replied(2_000);
    let (before, refused) = (own_status(stage, node).unwrap(), replays(stage, node));
    stage.reboot(node);
    plug_in(&stage.world, tenants, node);
    let start = Instant::now();
    stage.start(node, "agent");
    let after = soon("the agent's state is in force", || {
        let after = own_status(stage, node)?;
        is_back(&before, &after).then_some(after)
    });
    let took = start.elapsed();
    stage.start(node, "probe");
    soon("the tenants' machines reach each other", || {
        tenants.are_connected().then_some(())
    });
    if relays {
        soon("the relay carries the game again", || {
            (carried(&stage.world, node, GAME.exit) > u64::from(FAILURE_RATE / 2)).then_some(())
        });
    }
    replied(1_000);
    drop(stream);
    println!(
        "{node} rebooted: {} paths and {} ports back after {took:?}, incarnation {} → {}",
        after.paths.len(),
        after.ports.len(),
        before.incarnation,
        after.incarnation,
    );
    assert_ne!(before.incarnation, after.incarnation);
    assert_eq!(refused, replays(stage, node));
    stage.start_controller(&[]);
    stage.until_connected(node);
    took
}

/// Builds the tenants' machines at a host anew: they went with it.
fn plug_in(world: &World, tenants: &mut Tenants, node: &str) {
    for at in (0..tenants.machines.len()).filter(|at| HOSTS[at % HOSTS.len()] == node) {
        let tenant = tenants.machines.remove(at).tenant;
        let number = u8::try_from(at % HOSTS.len() + 1).unwrap();
        let machine = tenants::machine(world, tenant, node, number).unwrap();
        tenants.machines.insert(at, machine);
    }
}

/// What a host's own agent says of it.
fn own_status(stage: &Stage, node: &str) -> Option<HostStatus> {
    let status: ClusterStatus = stage.own(node, "status")?;
    status.hosts.into_iter().next()?.status
}

/// Whether a host has in force again what it had.
fn is_back(before: &HostStatus, after: &HostStatus) -> bool {
    let facts = |status: &HostStatus| (status.revision, status.paths.len(), status.ports.clone());
    facts(before) == facts(after)
}

/// What every other host dropped as a replay, by host and reason.
fn replays(stage: &Stage, but: &str) -> Vec<(String, String, u64)> {
    let mut found = Vec::new();
    for node in stage.cluster.nodes.keys().filter(|node| *node != but) {
        let ClusterDrops { drops, .. } = stage.own(node, "drops").unwrap();
        let replays = ["duplicate", "late", "old_incarnation"];
        let drops = drops
            .into_iter()
            .filter(|drop| replays.contains(&drop.reason.as_str()));
        found.extend(drops.map(|drop| (node.clone(), drop.reason, drop.count)));
    }
    found
}

/// Frames that the wire carried from one site to another in the last second that is over.
fn carried(world: &World, from: &str, to: &str) -> u64 {
    let [from, to] = [from, to].map(|name| world.site(name).unwrap().id());
    let since = world.wan().elapsed().saturating_sub(Duration::from_secs(1));
    let log = world.wan().report().unwrap().log;
    let slices = log.direction(from, to).iter().rev();
    let recent = slices.take_while(|slice| slice.start() >= since);
    recent.map(|slice| u64::from(slice.frames())).sum()
}
