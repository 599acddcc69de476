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

#[path = "players/back.rs"]
mod back;
#[path = "../src/demo/cluster.rs"]
mod cluster;
mod common;
#[path = "players/death.rs"]
mod death;
#[path = "players/drain.rs"]
mod drain;
#[path = "../src/demo/failover.rs"]
mod failover;
#[path = "players/figures.rs"]
mod figures;
#[path = "../src/demo/intent.rs"]
mod intent;
#[path = "players/keys.rs"]
mod keys;
#[path = "players/loss.rs"]
mod loss;
#[path = "../src/demo/play.rs"]
mod play;
#[path = "players/reboot.rs"]
mod reboot;
#[path = "../src/demo/report.rs"]
mod report;
#[path = "players/restarts.rs"]
mod restarts;
#[path = "../src/demo/tenants.rs"]
mod tenants;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use back::{a_relay_comes_back, a_relay_joins, the_controller_returns, without_controller_and_agents};
use cluster::Cluster;
use common::programs::{self, Capture};
use common::sizes::{self, Cut, LARGE, TRANSFER, Talk};
use common::{Stage, skipped};
use death::{
    a_relay_dies, a_relay_is_destroyed, bounded, everything_but_the_programs_dies, the_switch_has_its_cause,
};
use drain::a_relay_drains;
use figures::Figures;
use indicatif::ProgressBar;
use intent::{GAMES, Game};
use keys::keys_are_renewed;
use kuafu_lab::world::World;
use kuafu_proto::v1::{ClusterFlows, Flow};
use kuafu_topology::replay::{Policy, Recording};
use loss::{a_leg_loses, a_relay_loses_data};
use play::Servers;
use reboot::a_host_reboots;
use restarts::{agents_are_restarted, hosts_are_upgraded, probers_die, under_a_stream};
use tenants::Tenants;

/// For whatever is waited for.
const LIMIT: Duration = Duration::from_secs(120);
/// For every game to have the path that it will keep: what one of them gains is little more than what a move takes.
const SETTLED: Duration = Duration::from_secs(300);
/// What a player gains at least by the four games whose best path has a relay.
const GAIN: Duration = Duration::from_millis(5);
/// The game whose relay dies and whose agents end.
const GAME: &Game = &GAMES[2];
/// Failovers of which the median is taken.
const FAILOVERS: u32 = 5;
/// What a dead relay may cost in the median, beside the round trip from the sender to it; and a premium pair's.
const DETECTION: Duration = Duration::from_millis(300);
const PREMIUM_DETECTION: Duration = Duration::from_millis(120);
/// A leg that loses is left within this, at 100 packets a second.
const LEFT: Duration = Duration::from_secs(2);
/// A new relay carries within this.
const CARRIES: Duration = Duration::from_secs(5);
/// After an outage a pair is on its best path again within this.
const BACK: Duration = Duration::from_secs(10);
/// For an agent's death, its restart and its session; the control run takes as long.
const RESTART: Duration = Duration::from_secs(6);
const RESTARTS: u32 = 10;
const RENEWALS: u32 = 10;
/// Within this a host forwards again by what its disk says.
const REBOOT: Duration = Duration::from_secs(5);

#[test]
fn players_gain_and_survive() {
    let Some((mut stage, servers)) = settled() else {
        return;
    };
    everyone_gains(&stage.world, &stage.cluster);
    the_oracle_agrees(&stage);
    the_wire_carries_what_it_should(&stage.world, &servers);
    let failed = bounded(a_relay_dies(&stage, &servers, 3_000));
    the_switch_has_its_cause(&stage, &failed);
    every_decision_replays(&stage);
    a_leg_loses(&stage, &servers, 3_005);
    a_relay_drains(&mut stage, &servers, 3_007);
    let loss = agents_are_restarted(&mut stage, &servers, 3_001, 3, Duration::ZERO);
    println!("3 restarts: {loss}");
    assert!(loss.is_small(), "{loss}");
    let loss = keys_are_renewed(&mut stage, &servers, 3_008, 3);
    println!("3 renewals of all keys: {loss}");
    assert!(loss.is_small(), "{loss}");
    let loss = hosts_are_upgraded(&mut stage, &servers, 3_009);
    println!("to the previous layout and back, at each host of a path: {loss}");
    assert!(loss.is_small(), "{loss}");
    probers_die(&mut stage, &servers, 3_002);
    let mut tenants = Tenants::rent(&stage.world, &stage.cluster, LIMIT).unwrap();
    a_host_reboots(&mut stage, &mut tenants, "montreal", 3_003);
    drop(servers);
    nobody_fragments(&mut stage);
    large_packets_have_a_defined_result(&stage.world, &stage.cluster);
    unmodified_programs_work(&stage.world);
    let servers = Servers::start(&stage.world).unwrap();
    a_relay_loses_data(&stage, &servers, 3_006);
    bounded(everything_but_the_programs_dies(&mut stage, &servers, 3_004));
}

/// All paths by the live costs are those of a plain dynamic programme.
fn the_oracle_agrees(stage: &Stage) {
    // A path that is down at the moment is left out of the live ones.
    let verify = || stage.cluster.ask(&stage.world, &["routes", "--verify"]).ok();
    let said = stage.cluster.until("the oracle agrees", LIMIT, verify).unwrap();
    println!("{}", said.trim_end());
    assert!(said.starts_with("game: 90 pairs of 10 nodes"), "{said}");
}

/// What the controller recorded so far leads to the same decisions again.
fn every_decision_replays(stage: &Stage) {
    let text = std::fs::read_to_string(stage.recording()).unwrap();
    // The last line may be under way.
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let recording = Recording::parse(&text[..whole]).unwrap();
    let Recording::Controller(ticks) = &recording else {
        panic!("not a controller's recording")
    };
    kuafu_topology::replay(kuafu_topology::Config::default(), ticks).unwrap();
    let changes: usize = ticks.iter().map(|tick| tick.changes.len()).sum();
    println!("{} recorded ticks with {changes} changes replay", ticks.len());
    let report = kuafu_topology::replay::run(&recording, &Policy::default(), || ()).unwrap();
    assert!(report.pairs_helped > 0, "{report:?}");
}

#[test]
#[ignore = "minutes: cargo xtask soak game"]
fn soak_game() {
    let Some((stage, servers)) = settled() else {
        return;
    };
    drop(servers);
    unmodified_programs_work(&stage.world);
}

#[test]
#[ignore = "minutes: cargo xtask soak failover"]
fn soak_failover() {
    let Some((mut stage, servers)) = settled() else {
        return;
    };
    let mut figures = Figures::default();
    let lossy: Vec<_> = (0..FAILOVERS)
        .map(|round| a_leg_loses(&stage, &servers, 4_000 + round))
        .collect();
    let of = |which: usize| lossy.iter().map(|times| times[which]).collect();
    figures.add("a leg that loses 5 %, left", of(0), LEFT);
    figures.add("back after 15 s of that loss", of(1), BACK);
    let back = (0..FAILOVERS).map(|round| a_relay_comes_back(&stage, 4_100 + round));
    figures.add("back after a relay's outage of 15 s", back.collect(), BACK);
    a_relay_dies_often(&mut stage, &servers, "relay dead", 5_000, DETECTION, &mut figures);
    let premium = intent::accelerated(&stage.world, GAME).unwrap();
    let premium = premium.replace("class: game", "class: game\n  liveness: premium");
    stage
        .cluster
        .apply(&stage.world, "premium.yaml", &premium)
        .unwrap();
    a_relay_dies_often(
        &mut stage,
        &servers,
        "premium: relay dead",
        6_000,
        PREMIUM_DETECTION,
        &mut figures,
    );
    probers_die(&mut stage, &servers, 6_300);
    let destroyed = [a_relay_is_destroyed(&mut stage, &servers, 6_301)];
    figures.add_gaps(
        "premium: the relay's host destroyed",
        &destroyed,
        PREMIUM_DETECTION,
    );
    figures.judge();
}

/// In a world of its own: in the other one pairs are damped by what their paths went through.
#[test]
#[ignore = "minutes: cargo xtask soak failover"]
fn soak_failover_to_a_new_relay() {
    let Some((mut stage, _servers)) = settled() else {
        return;
    };
    let joined = (0..FAILOVERS).map(|round| a_relay_joins(&mut stage, 4_200 + round));
    let mut figures = Figures::default();
    figures.add("new relay joined, carrying", joined.collect(), CARRIES);
    figures.judge();
}

/// With all processes alive; then without controller and agents, and the controller's return costs no packet.
fn a_relay_dies_often(
    stage: &mut Stage,
    servers: &Servers,
    what: &str,
    id: u32,
    detection: Duration,
    figures: &mut Figures,
) {
    // Where the relay carried nothing one way, as after a false alarm of a busy machine, there is nothing to measure.
    let rounds = (0..2 * FAILOVERS).map(|round| a_relay_dies(stage, servers, id + round));
    let carried = rounds.filter(|failed| failed.gaps.iter().all(|gap| *gap > Duration::ZERO));
    let alive: Vec<_> = carried.take(FAILOVERS as usize).collect();
    figures.add_gaps(what, &alive, detection);
    let ids = id + 100..id + 100 + FAILOVERS;
    let alone = without_controller_and_agents(stage, servers, GAME, ids);
    figures.add_gaps(&format!("{what}, no controller, no agents"), &alone, detection);
    let mut took = Vec::new();
    let loss = under_a_stream(stage, servers, GAME, id + 200, |stage| {
        took.push(the_controller_returns(stage));
    });
    println!("the controller returns: {loss}");
    assert!(loss.is_small(), "{loss}");
    figures.add("the controller's return, all hosts settled", took, LIMIT);
}

#[test]
#[ignore = "minutes: cargo xtask soak restarts"]
fn soak_restarts() {
    let Some((mut stage, servers)) = settled() else {
        return;
    };
    let control = under_a_stream(&mut stage, &servers, GAME, 4_000, |_| {
        std::thread::sleep(RESTARTS * RESTART);
    });
    println!("control run: {control}");
    let loss = agents_are_restarted(&mut stage, &servers, 4_001, RESTARTS, RESTART);
    println!("{RESTARTS} restarts: {loss}");
    assert!(loss.is_no_more_than(control));
    let loss = keys_are_renewed(&mut stage, &servers, 4_002, RENEWALS);
    println!("{RENEWALS} renewals of all keys: {loss}");
    assert!(loss.is_no_more_than(control));
    let mut tenants = Tenants::rent(&stage.world, &stage.cluster, LIMIT).unwrap();
    // A relay with ports; then an exit, whose numbers begin anew before windows that have seen larger ones.
    for (node, id) in [("montreal", 5_000), ("calgary", 5_001)] {
        let took = a_host_reboots(&mut stage, &mut tenants, node, id);
        assert!(took < REBOOT, "{node} took {took:?}");
    }
}

/// The demonstration's world, with the paths that it will keep; none where this machine can have none.
fn settled() -> Option<(Stage, Servers)> {
    if skipped() {
        return None;
    }
    let stage = Stage::build().unwrap();
    let servers = Servers::start(&stage.world).unwrap();
    play::settle(&stage.world, &stage.cluster, SETTLED).unwrap();
    Some((stage, servers))
}

fn everyone_gains(world: &World, cluster: &Cluster) {
    // What is played while a pair moves says nothing of either path: a machine that stalls makes paths look dead.
    let played = cluster.until("a game without a move", SETTLED, || {
        let before = play::paths(world, cluster).unwrap();
        let played = play::play(world, cluster, 8, &ProgressBar::hidden()).unwrap();
        for game in &played {
            println!("{}", game.row().join(" | "));
        }
        let after: Vec<_> = played.iter().map(|game| game.route.path.clone()).collect();
        if before == after {
            return Some(played);
        }
        println!("a pair has moved: played again");
        play::settle(world, cluster, SETTLED).unwrap();
        None
    });
    let played = played.unwrap();
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

/// While the probers of both ends are away, a datagram that may be cut and is too large for the backbone ends there.
fn nobody_fragments(stage: &mut Stage) {
    let game = &GAMES[3];
    let ends = [game.entry, game.exit];
    let liveness = |stage: &Stage, is_on| {
        let said = || {
            let are = ends.iter().all(|end| {
                stage
                    .status(end)
                    .is_some_and(|status| status.liveness == Some(is_on))
            });
            are.then_some(())
        };
        stage
            .cluster
            .until("the probers' absence shows", LIMIT, said)
            .unwrap();
    };
    ends.iter().for_each(|end| stage.kill(end, "probe"));
    liveness(stage, false);
    let host = |name| stage.world.netns(name).unwrap();
    let mut watch = sizes::Watch::start(ends.map(|end| (end, host(end))).to_vec());
    let talk = Talk::begin(
        host(game.player),
        host(game.server),
        game.accelerated(&stage.world).unwrap(),
    );
    watch.settle();
    for (who, end) in [(0, game.entry), (1, game.exit)] {
        talk.send(who, LARGE - 1, Cut::Freely).unwrap();
        watch.expect(&[(end, "needs_fragmentation", 1)]);
        talk.send(who, 10, Cut::Freely).unwrap();
        talk.arrives(1 - who, 10);
        watch.settle();
    }
    drop((talk, watch));
    ends.iter().for_each(|end| stage.start(end, "probe"));
    liveness(stage, true);
}

/// Datagrams whose packets have 1,500 octets where the backbone carries 1,440, some of 3,000 octets, and 10 MB of TCP.
///
/// | sender | must not be cut (DF) | may be cut |
/// |---|---|---|
/// | player, does not know 1,440 | `too_big`: it is told, by the accelerated address | `fragmented`: two packets |
/// | the same, 3,000 octets | | three fragments of its own, of which two are cut again: `fragmented`, five packets |
/// | player, was told | refused by its own stack | two fragments of its own |
/// | server, answering | the same, by the exit's address and counted there | the same |
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
    // What is counted of so many packets on their way, of which some were handed to the prober.
    let passed = |who, packets, cut| match who {
        0 => vec![
            (entry, "entered", packets),
            (entry, "fragmented", cut),
            (exit, "exited", packets),
        ],
        _ => vec![
            (entry, "emitted", packets),
            (exit, "fragmented", cut),
            (exit, "returned", packets),
        ],
    };
    for (who, where_) in [(0, entry), (1, exit)] {
        let mut arrives = |octets, cut, packets, handed| {
            talk.send(who, octets, cut).unwrap();
            talk.arrives(1 - who, octets);
            let mut counted = passed(who, packets, handed);
            counted.retain(|(.., count)| *count > 0);
            watch.expect(&counted);
        };
        arrives(largest, Cut::Never, 1, 0);
        arrives(largest + 1, Cut::Freely, 2, 1);
        arrives(LARGE, Cut::Freely, 2, 1);
        arrives(3_000, Cut::Freely, 5, 3);
        talk.send(who, LARGE, Cut::Never).unwrap();
        talk.is_told(who, 1_440);
        watch.expect(&[(where_, "too_big", 1)]);
        talk.is_refused(who);
        watch.expect(&[]);
        talk.send(who, LARGE, Cut::Freely).unwrap();
        talk.arrives(1 - who, LARGE);
        let mut counted = passed(who, 2, 0);
        counted.retain(|(.., count)| *count > 0);
        watch.expect(&counted);
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
