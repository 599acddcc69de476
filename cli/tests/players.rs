//! One world, and what a player and an engineer must see in it: the gain, the way of every packet, a relay's death,
//! the death of every process of Kuafu, a host's reboot.
//!
//! The world is that of the demonstration; it is built once, and the parts follow one another in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; the demonstration's parts are used in parts"
)]

#[path = "../src/demo/cluster.rs"]
mod cluster;
mod common;
#[path = "../src/demo/failover.rs"]
mod failover;
#[path = "../src/demo/intent.rs"]
mod intent;
#[path = "../src/demo/play.rs"]
mod play;
#[path = "../src/demo/report.rs"]
mod report;
#[path = "../src/demo/tenants.rs"]
mod tenants;

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use cluster::Cluster;
use common::programs::{self, Capture};
use common::sizes::{self, Cut, LARGE, TRANSFER, Talk};
use common::{Stage, skipped, soon};
use failover::{FAILURE_RATE, Failover, Watch};
use indicatif::ProgressBar;
use intent::{GAMES, Game};
use kuafu_lab::stream::gaps;
use kuafu_lab::world::World;
use kuafu_proto::v1::{ClusterDrops, ClusterFlows, ClusterStatus, Flow, HostStatus};
use play::Servers;
use tenants::{HOSTS, Tenants};

/// For whatever is waited for.
const LIMIT: Duration = Duration::from_secs(120);
/// For every game to have the path that it will keep: what one of them gains is little more than what a move takes.
const SETTLED: Duration = Duration::from_secs(300);
/// What a player gains at least by the four games whose best path has a relay.
const GAIN: Duration = Duration::from_millis(5);
/// The game whose relay dies and whose agents end.
const GAME: &Game = &GAMES[2];
/// What a failover may cost where one is looked at, on a busy machine.
const GAP_AT_MOST: Duration = Duration::from_millis(1_500);
/// What it may cost in the median, beside the round trip from the sender to the relay.
const DETECTION: Duration = Duration::from_millis(300);
/// Failovers of which the median is taken.
const FAILOVERS: u32 = 5;
/// For an agent's death, its restart and its session; the control run takes as long.
const RESTART: Duration = Duration::from_secs(6);
const RESTARTS: u32 = 10;
/// Within this a host forwards again by what its disk says.
const REBOOT: Duration = Duration::from_secs(5);

#[test]
fn players_gain_and_survive() {
    if skipped() {
        return;
    }
    let (mut stage, servers) = settled();
    everyone_gains(&stage.world, &stage.cluster);
    the_wire_carries_what_it_should(&stage.world, &servers);
    a_relay_dies(&stage, &servers, 3_000);
    let loss = agents_are_restarted(&mut stage, &servers, 3_001, 3, Duration::ZERO);
    println!("3 restarts: {loss}");
    assert!(loss.is_small(), "{loss}");
    probers_die(&mut stage, &servers, 3_002);
    let mut tenants = rent(&stage);
    a_host_reboots(&mut stage, &mut tenants, "montreal", 3_003);
    drop(servers);
    large_packets_have_a_defined_result(&stage.world, &stage.cluster);
    unmodified_programs_work(&stage.world);
    let servers = Servers::start(&stage.world).unwrap();
    everything_but_the_programs_dies(&mut stage, &servers, 3_004);
}

#[test]
#[ignore = "minutes: cargo xtask soak game"]
fn soak_game() {
    if skipped() {
        return;
    }
    let (stage, servers) = settled();
    drop(servers);
    unmodified_programs_work(&stage.world);
}

#[test]
#[ignore = "minutes: cargo xtask soak failover"]
fn soak_failover() {
    if skipped() {
        return;
    }
    let (mut stage, servers) = settled();
    let alive: Vec<_> = (0..FAILOVERS)
        .map(|round| a_relay_dies(&stage, &servers, 4_000 + round))
        .collect();
    judge("with all processes alive", &alive);
    let alone: Vec<_> = (0..FAILOVERS)
        .map(|round| {
            let failed = everything_but_the_programs_dies(&mut stage, &servers, 5_000 + round);
            revive(&mut stage);
            failed
        })
        .collect();
    judge("with agents and controller dead", &alone);
    probers_die(&mut stage, &servers, 6_000);
    judge(
        "by the relay's namespace",
        &[a_relay_is_destroyed(&mut stage, &servers, 6_001)],
    );
}

#[test]
#[ignore = "minutes: cargo xtask soak restarts"]
fn soak_restarts() {
    if skipped() {
        return;
    }
    let (mut stage, servers) = settled();
    let control = under_a_stream(&mut stage, &servers, GAME, 4_000, |_| {
        std::thread::sleep(RESTARTS * RESTART);
    });
    println!("control run: {control}");
    let loss = agents_are_restarted(&mut stage, &servers, 4_001, RESTARTS, RESTART);
    println!("{RESTARTS} restarts: {loss}");
    assert!(loss.is_no_more_than(control));
    let mut tenants = rent(&stage);
    // A relay with ports; then an exit, whose numbers begin anew before windows that have seen larger ones.
    for (node, id) in [("montreal", 5_000), ("calgary", 5_001)] {
        let took = a_host_reboots(&mut stage, &mut tenants, node, id);
        assert!(took < REBOOT, "{node} took {took:?}");
    }
}

/// The demonstration's world, with the paths that it will keep.
fn settled() -> (Stage, Servers) {
    let stage = Stage::build().unwrap();
    let servers = Servers::start(&stage.world).unwrap();
    play::settle(&stage.world, &stage.cluster, SETTLED).unwrap();
    (stage, servers)
}

fn everyone_gains(world: &World, cluster: &Cluster) {
    let played = play::play(world, cluster, 8, &ProgressBar::hidden()).unwrap();
    for game in &played {
        println!("{}", game.row().join(" | "));
    }
    let (straight, relayed) = played.split_last().unwrap();
    for game in relayed {
        let [direct, accelerated] = game.medians().map(Option::unwrap);
        assert!(accelerated + GAIN < direct, "{}", game.row().join(" | "));
        assert_eq!(game.route.path.len(), 3, "{}", game.route.why);
    }
    assert_eq!(straight.route.path.len(), 2);
    assert!(!straight.route.why.is_empty());
}

/// A player's machine sees the accelerated address alone, a server an exit's; tshark finds nothing malformed.
fn the_wire_carries_what_it_should(world: &World, servers: &Servers) {
    let game = &GAMES[2];
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let player = Capture::start(world.netns(game.player).unwrap(), "eth0", &file("player.pcap"));
    let entry = Capture::start(world.netns(game.entry).unwrap(), "eth0", &file("entry.pcap"));
    let to = game.accelerated(world).unwrap();
    let stream = play::stream(world, game, 2_900, to, 64).unwrap();
    let deadline = Instant::now() + LIMIT;
    while stream.trace().replies().len() < 32 {
        assert!(Instant::now() < deadline, "no replies");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(stream);
    let exit = world.site(game.exit).unwrap().address().public;
    let seen = servers.of(game).unwrap().peer(2_900).unwrap();
    assert_eq!(seen.ip().to_string(), exit.to_string());
    let own = world.site(game.player).unwrap().address().local.to_string();
    let addresses: BTreeSet<String> = player
        .decode("ip", &["ip.src", "ip.dst"])
        .iter()
        .flat_map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(addresses, BTreeSet::from([own, to.ip().to_string()]));
    let geneve = entry.decode("geneve", &["geneve.vni"]);
    assert!(!geneve.is_empty());
    let malformed = programs::decode(&file("entry.pcap"), "_ws.malformed", &["frame.number"]);
    assert_eq!(malformed, Vec::<String>::new());
}

/// Datagrams whose packets have 1,500 octets where the backbone carries 1,440, and 10 MB of TCP.
///
/// | sender | must not be cut (DF) | may be cut |
/// |---|---|---|
/// | player, does not know 1,440 | `too_big`: it is told, by the accelerated address | `needs_fragmentation` |
/// | player, was told | refused by its own stack | two fragments: `fragment`, twice |
/// | server, answering | the same, by the exit's address and counted there | the same, but `fragment` once |
///
/// A fragment without ports is dropped where the whole address is Kuafu's; the exit's is also the host's own.
fn large_packets_have_a_defined_result(world: &World, cluster: &Cluster) {
    let game = &GAMES[3];
    let host = |name| world.netns(name).unwrap();
    let (player, server) = (host(game.player), host(game.server));
    let (entry, exit) = (game.entry, game.exit);
    let mut watch = sizes::Watch::start(vec![(entry, host(entry)), (exit, host(exit))]);
    let talk = Talk::begin(player, server, game.accelerated(world).unwrap());
    watch.expect(&[
        (entry, "entered", 1),
        (exit, "connection_opened", 1),
        (exit, "exited", 1),
    ]);

    let largest = LARGE - 60;
    for (from, to, counted) in [
        (0, 1, [(entry, "entered", 1), (exit, "exited", 1)]),
        (1, 0, [(entry, "emitted", 1), (exit, "returned", 1)]),
    ] {
        talk.send(from, largest, Cut::Never).unwrap();
        talk.arrives(to, largest);
        watch.expect(&counted);
    }
    for (who, where_, fragments) in [(0, entry, 2), (1, exit, 1)] {
        talk.send(who, LARGE, Cut::Freely).unwrap();
        watch.expect(&[(where_, "needs_fragmentation", 1)]);
        talk.send(who, LARGE, Cut::Never).unwrap();
        talk.is_told(who, 1_440);
        watch.expect(&[(where_, "too_big", 1)]);
        talk.is_refused(who);
        watch.expect(&[]);
        talk.send(who, LARGE, Cut::Freely).unwrap();
        watch.expect(&[(where_, "fragment", fragments)]);
    }
    ten_megabytes_pass(world, cluster, &GAMES[4]);
}

/// Both ends learn what the backbone carries while they talk.
fn ten_megabytes_pass(world: &World, cluster: &Cluster, game: &Game) {
    let host = |name| world.netns(name).unwrap();
    let (entry, exit) = (game.entry, game.exit);
    let mut watch = sizes::Watch::start(vec![(entry, host(entry)), (exit, host(exit))]);
    let to = game.accelerated(world).unwrap();
    let change = sizes::transfer(&mut watch, host(game.player), host(game.server), to);
    let of = |host: &str, word: &str| change[&(host.to_owned(), word.to_owned())];
    for (host, word) in [
        (entry, "entered"),
        (exit, "exited"),
        (exit, "returned"),
        (entry, "emitted"),
    ] {
        assert!(of(host, word)[1] > TRANSFER as u64, "{host} {word}");
    }
    assert!(of(entry, "too_big")[0] > 0 && of(exit, "too_big")[0] > 0);
    assert_eq!(of(exit, "connection_opened")[0], 1);
    assert_eq!(change.len(), 7, "nothing else was counted");
    let flows: ClusterFlows = cluster.json(world, &["flows"]).unwrap();
    let ours = |flow: &&Flow| flow.accelerator == game.name && flow.protocol == 6;
    let flow = flows.flows.iter().find(ours).unwrap();
    assert_eq!(flow.packets_to_server, of(exit, "exited")[0]);
    assert_eq!(flow.packets_to_client, of(exit, "returned")[0]);
    assert!(flow.bytes_to_server.min(flow.bytes_to_client) > TRANSFER as u64);
}

/// Unmodified programs: the servers of the streams make room for a web server and a game.
fn unmodified_programs_work(world: &World) {
    if let Some(absent) = programs::absent() {
        return kuafu_lab::skip(format!("no {absent}: cargo xtask setup"));
    }
    let folder = tempfile::tempdir().unwrap();
    programs::download(world, &GAMES[3], folder.path());
    let seconds = std::env::var("KUAFU_SOAK_GAME_S").map_or(30, |text| text.parse().unwrap());
    let looks = programs::play_doom(world, &GAMES[0], Duration::from_secs(seconds), folder.path());
    println!("in the game for {seconds} s, at each of {looks} looks");
}

/// The wire drops everything from and to the relay; then it is healed.
fn a_relay_dies(stage: &Stage, servers: &Servers, id: u32) -> Failover {
    stage.until_relayed(GAME);
    told(failover::kill_relay(&stage.world, &stage.cluster, servers, GAME, id).unwrap())
}

/// The kernel needs neither agent nor controller to leave a dead relay.
fn everything_but_the_programs_dies(stage: &mut Stage, servers: &Servers, id: u32) -> Failover {
    stage.until_relayed(GAME);
    let route = play::route(&stage.world, &stage.cluster, GAME).unwrap();
    let relay = failover::relay_of(&route).unwrap();
    stage.kill_controller();
    let nodes: Vec<_> = stage.cluster.nodes.keys().cloned().collect();
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
fn revive(stage: &mut Stage) {
    stage.start_controller();
    let nodes: Vec<_> = stage.cluster.nodes.keys().cloned().collect();
    for node in &nodes {
        stage.start(node, "agent");
    }
    for node in &nodes {
        stage.until_connected(node);
    }
}

/// The relay's host goes, with all that runs there.
fn a_relay_is_destroyed(stage: &mut Stage, servers: &Servers, id: u32) -> Failover {
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
fn judge(how: &str, failed: &[Failover]) {
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

/// Packets sent each way, and those missing: towards the server, and back.
#[derive(Clone, Copy)]
struct Loss {
    sent: u64,
    missing: [u64; 2],
}

impl Loss {
    /// At most one in a thousand each way: what a busy machine may cost.
    fn is_small(&self) -> bool {
        self.missing.iter().all(|missing| *missing <= self.sent / 1_000)
    }

    /// No more than the control run's, but for one in ten thousand: what a busy machine drops in one run and not in
    /// another.
    fn is_no_more_than(&self, control: Self) -> bool {
        let each = self.missing.iter().zip(control.missing);
        each.into_iter()
            .all(|(missing, control)| *missing <= control + self.sent / 10_000)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, [there, back]) = (self.sent, self.missing);
        write!(
            f,
            "{sent} sent each way, missing {there} towards the server, {back} back"
        )
    }
}

/// What a stream of [`FAILURE_RATE`] each way loses meanwhile.
fn under_a_stream(
    stage: &mut Stage,
    servers: &Servers,
    game: &Game,
    id: u32,
    meanwhile: impl FnOnce(&mut Stage),
) -> Loss {
    let stream = play::duplex(&stage.world, game, id, FAILURE_RATE).unwrap();
    meanwhile(stage);
    let trace = stream.finish(play::STRAGGLERS);
    let there = gaps(0..trace.sent_count(), servers.of(game).unwrap().arrived(id));
    let missing = [there, trace.gaps_back()].map(|gaps| gaps.iter().map(|gap| gap.missing).sum());
    Loss {
        sent: trace.sent_count(),
        missing,
    }
}

/// Programs, maps and links are adopted: no packet is lost by restarts at entry, relay and exit, one each `pace`.
fn agents_are_restarted(
    stage: &mut Stage,
    servers: &Servers,
    id: u32,
    restarts: u32,
    pace: Duration,
) -> Loss {
    stage.until_relayed(GAME);
    let route = play::route(&stage.world, &stage.cluster, GAME).unwrap();
    under_a_stream(stage, servers, GAME, id, |stage| {
        for (_, node) in (0..restarts).zip(route.path.iter().cycle()) {
            let start = Instant::now();
            stage.kill(node, "agent");
            stage.start(node, "agent");
            stage.until_connected(node);
            std::thread::sleep(pace.saturating_sub(start.elapsed()));
        }
    })
}

/// A silent prober makes nothing stale.
fn probers_die(stage: &mut Stage, servers: &Servers, id: u32) {
    let game = &GAMES[0];
    stage.until_relayed(game);
    let before = play::route(&stage.world, &stage.cluster, game).unwrap();
    let loss = under_a_stream(stage, servers, game, id, |stage| {
        stage.kill(game.entry, "probe");
        let off = || (stage.status(game.entry)?.liveness == Some(false)).then_some(());
        stage
            .cluster
            .until("status says that liveness is off", LIMIT, off)
            .unwrap();
    });
    println!("the prober of {} dead: {loss}", game.entry);
    assert!(loss.is_small(), "{loss}");
    let after = play::route(&stage.world, &stage.cluster, game).unwrap();
    assert_eq!(before.path, after.path);
    assert!(stage.is_on_primaries(game.entry));
    stage.start(game.entry, "probe");
}

/// Two tenants whose machines reach each other.
fn rent(stage: &Stage) -> Tenants {
    let tenants = Tenants::build(&stage.world).unwrap();
    let manifests = Tenants::manifests().unwrap();
    stage
        .cluster
        .apply(&stage.world, "tenants.yaml", &manifests)
        .unwrap();
    let connected = || tenants.are_connected().then_some(());
    stage
        .cluster
        .until("the tenants' machines reach each other", LIMIT, connected)
        .unwrap();
    tenants
}

/// With the controller down a host loses all but its disk. Its agent alone brings back what it carried, under a new
/// incarnation that everybody else takes for one. Returns how long the agent took.
fn a_host_reboots(stage: &mut Stage, tenants: &mut Tenants, node: &str, id: u32) -> Duration {
    stage.until_relayed(GAME);
    let relays = play::route(&stage.world, &stage.cluster, GAME).unwrap().path[1] == node;
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
    stage.start_controller();
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
