//! What must be shown in virtual time: calm under loss, few moves where a relay comes and goes, the same from run to
//! run, and packets that arrive.

mod moves;

use std::collections::BTreeMap;

use kuafu_lab::stream::{Answers, Gap, StreamConfig, gaps};
use kuafu_lab::virtual_time::StreamId;
use kuafu_lab::wan::Change;
use kuafu_lab::world::{DEMO, Site};
use kuafu_topology::{Event, NodeId, PairId, Recorded};

use super::*;
use crate::demo::intent::{self, GAME_PORT, GAMES, Game};

const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// What is waited before anything is asked: every leg is measured, and the dwell of the first choice is over.
const WARM: Duration = Duration::from_secs(60);
/// Packets a second of a player.
const RATE: u32 = 64;

/// Four points of presence of the demonstration's, one game whose best path has a relay.
fn small() -> WorldSpec {
    let kept = [
        "osaka",
        "cape-town",
        "hong-kong",
        "taipei",
        "client-osaka",
        "server-cape",
        "control",
    ];
    let mut spec = WorldSpec::parse(DEMO).unwrap();
    spec.sites.retain(|site| kept.contains(&site.name.as_str()));
    spec
}

fn started(spec: &WorldSpec, late: Option<&str>, games: &[Game]) -> Cluster {
    let manifests = |world: &World<Pop>| {
        let nodes = intent::nodes(world)?;
        let declared = nodes
            .split_inclusive("---\n")
            .filter(|node| late.is_none_or(|late| !node.contains(late)));
        let mut text: String = declared.collect();
        for game in games {
            text += &intent::accelerated(world, game)?;
        }
        Ok(text)
    };
    let mut cluster = Cluster::start(spec, late, manifests).unwrap();
    for game in games {
        cluster.world.guest(game.server).unwrap().echo(GAME_PORT);
    }
    cluster
}

/// Begins to play over the accelerator.
fn play(cluster: &mut Cluster, game: &Game, rate: u32, answers: Answers) -> StreamId {
    let (to, now) = (game.accelerated(&cluster.world).unwrap(), cluster.world.now());
    let config = StreamConfig {
        to: to.into(),
        id: 1,
        rate,
        bytes: 64,
        answers,
    };
    cluster.world.guest(game.player).unwrap().play(now, config)
}

fn route(cluster: &Cluster, game: &Game) -> RouteView {
    let mut routes = cluster.routes().into_iter();
    routes
        .find(|route| route.pair.entry.as_str() == game.entry && route.pair.exit.as_str() == game.exit)
        .unwrap()
}

/// What the controller was told and decided since a line of its recording.
#[derive(Debug, Default, PartialEq)]
struct Story {
    /// Alarms that rose, of legs and paths, with when.
    alarms: Vec<(u64, Event)>,
    /// Pairs that got another primary, in order, with when and why.
    moves: Vec<(u64, PairId, Vec<NodeId>, String)>,
}

impl Story {
    /// From when all was calm.
    fn since(cluster: &Cluster, from: usize) -> Self {
        let ticks: Vec<Recorded> = cluster
            .recording
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let (mut primaries, mut story) = (BTreeMap::new(), Self::default());
        for (number, tick) in ticks.into_iter().enumerate() {
            let now = tick.input.now.0;
            for change in tick.changes {
                let nodes: Vec<NodeId> = change
                    .primary
                    .iter()
                    .flat_map(|path| path.nodes().to_vec())
                    .collect();
                let before = primaries.insert(change.pair, nodes.clone());
                if number >= from && before.as_ref() != Some(&nodes) {
                    story
                        .moves
                        .push((now, change.pair, nodes, change.why.to_string()));
                }
            }
            let rose = |event: &Event| !matches!(event, Event::AlarmOver { .. } | Event::PathUp { .. });
            if number >= from {
                story.alarms.extend(
                    tick.input
                        .events
                        .into_iter()
                        .filter(rose)
                        .map(|event| (now, event)),
                );
            }
        }
        story
    }

    /// The most moves of one pair.
    fn most_moves(&self) -> usize {
        let of = |pair: &PairId| self.moves.iter().filter(|(_, moved, ..)| moved == pair).count();
        self.moves.iter().map(|(_, pair, ..)| of(pair)).max().unwrap_or(0)
    }
}

/// Loss on the lines between all points of presence, both ways.
fn lose_everywhere(cluster: &mut Cluster, share: f64) {
    let nodes: Vec<SiteId> = cluster.world.with_role(Role::Node).map(Site::id).collect();
    for from in &nodes {
        for to in &nodes {
            cluster.world.apply(Change::Loss {
                from: *from,
                to: *to,
                share,
            });
        }
    }
}

fn site(cluster: &Cluster, name: &str) -> SiteId {
    cluster.world.site(name).unwrap().id()
}

/// A small world whose game is being played, a minute after the start; and the line where its recording is.
fn playing(seed: u64, rate: u32, answers: Answers) -> (Cluster, StreamId, usize) {
    let mut cluster = started(&WorldSpec { seed, ..small() }, None, &GAMES[..1]);
    let stream = play(&mut cluster, &GAMES[0], rate, answers);
    cluster.run(WARM).unwrap();
    assert_eq!(route(&cluster, &GAMES[0]).path, ["osaka", "taipei", "cape-town"]);
    let from = cluster.recording.len();
    (cluster, stream, from)
}

#[test]
fn a_loss_of_three_in_a_thousand_everywhere_moves_nothing_in_ten_minutes() {
    for seed in 1..=seeds() {
        let (mut cluster, _, from) = playing(seed, RATE, Answers::ByClock);
        lose_everywhere(&mut cluster, 0.003);
        cluster.run(10 * MINUTE).unwrap();
        let story = Story::since(&cluster, from);
        println!(
            "seed {seed}: {} packets lost of {}",
            cluster.world.counters().lost,
            cluster.world.counters().entered
        );
        assert_eq!(story, Story::default(), "seed {seed}");
    }
}

#[test]
fn a_loss_of_a_hundredth_on_one_leg_moves_a_pair_once_at_most() {
    for seed in 1..=seeds() {
        let (mut cluster, _, start) = playing(seed, RATE, Answers::ByClock);
        let [from, to] = ["osaka", "taipei"].map(|name| site(&cluster, name));
        cluster.world.apply(Change::Loss {
            from,
            to,
            share: 0.01,
        });
        cluster.run(10 * MINUTE).unwrap();
        let story = Story::since(&cluster, start);
        println!("seed {seed}: {story:?}");
        assert!(story.most_moves() <= 1, "seed {seed}: {story:?}");
    }
}

#[test]
fn a_relay_that_comes_and_goes_each_five_seconds_moves_a_pair_four_times_at_most() {
    for seed in 1..=seeds() {
        let (mut cluster, _, from) = playing(seed, RATE, Answers::ByClock);
        let relay = site(&cluster, "taipei");
        for _ in 0..60 {
            cluster.world.apply(Change::Kill(relay));
            cluster.run(5 * S).unwrap();
            cluster.world.apply(Change::Heal(relay));
            cluster.run(5 * S).unwrap();
        }
        let story = Story::since(&cluster, from);
        println!("seed {seed}: {:?}", story.moves);
        assert!((1..=4).contains(&story.most_moves()), "seed {seed}: {story:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let run = |seed| {
        let (mut cluster, stream, _) = playing(seed, RATE, Answers::ByClock);
        lose_everywhere(&mut cluster, 0.01);
        cluster.run(30 * S).unwrap();
        let replies = cluster
            .world
            .trace(GAMES[0].player, stream)
            .unwrap()
            .replies()
            .to_vec();
        (cluster.recording, replies, cluster.world.counters())
    };
    let first = run(1);
    assert!(first == run(1), "the same seed");
    assert!(first != run(2), "another seed");
}

#[test]
fn a_dead_relay_is_left_by_the_packets_themselves() {
    let (mut cluster, stream, _) = playing(1, 1_000, Answers::ByClock);
    let relay = site(&cluster, "taipei");
    let entry = site(&cluster, "osaka");
    let exit = site(&cluster, "cape-town");
    let trips = [entry, exit].map(|end| cluster.world.delay(end, relay) + cluster.world.delay(relay, end));
    cluster.world.apply(Change::Kill(relay));
    cluster.run(5 * S).unwrap();
    cluster.world.guest(GAMES[0].player).unwrap().stop(stream);
    cluster.run(2 * S).unwrap();
    let trace = cluster.world.trace(GAMES[0].player, stream).unwrap();
    let arrived = cluster.world.guest(GAMES[0].server).unwrap().arrived(1);
    let missed = [gaps(0..trace.sent_count(), arrived), trace.gaps_back()];
    // The first packets left before anything was installed.
    let late = |gaps: Vec<Gap>| gaps.into_iter().filter(|gap| gap.first > 1_000);
    let missed = missed.map(|gaps| late(gaps).map(|gap| gap.length(1_000)).sum::<Duration>());
    let failed_over = cluster
        .world
        .pop(entry)
        .unwrap()
        .host()
        .counter(kuafu_pipeline::Event::FailedOver);
    assert!(failed_over.packets > 0, "by the packets");
    println!("missed {missed:?}, round trips to the relay {trips:?}");
    for (missed, trip) in missed.into_iter().zip(trips) {
        assert!(missed > Duration::ZERO && missed <= Duration::from_millis(300) + trip);
    }
    assert!(!route(&cluster, &GAMES[0]).path.contains(&"taipei".to_owned()));
}

/// How many of the game's packets the server gets in ten seconds.
fn arrive(cluster: &mut Cluster) -> usize {
    let mut count = |time| {
        cluster.run(time).unwrap();
        cluster.world.guest(GAMES[0].server).unwrap().arrived(1).len()
    };
    let before = count(Duration::ZERO);
    count(10 * S) - before
}

#[test]
fn without_a_living_exit_the_entry_forwards_by_itself() {
    let (mut cluster, _, _) = playing(1, RATE, Answers::ByClock);
    let exit = site(&cluster, "cape-town");
    // Ten seconds' packets; one may be under way at either end.
    let all = 10 * RATE as usize - 1;
    cluster.world.apply(Change::Kill(exit));
    assert!(arrive(&mut cluster) < all / 2);
    assert!(
        cluster.core.fallback_views().is_empty(),
        "a pair is not given up at once"
    );
    cluster.run(MINUTE).unwrap();
    let said = cluster.core.fallback_views();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].entry.as_str(), "osaka");
    assert!(arrive(&mut cluster) >= all);
    cluster.world.apply(Change::Heal(exit));
    cluster.run(MINUTE).unwrap();
    assert!(cluster.core.fallback_views().is_empty());
    assert_eq!(route(&cluster, &GAMES[0]).path, ["osaka", "taipei", "cape-town"]);
    assert!(arrive(&mut cluster) >= all);
}

#[test]
fn octets_arrive_equal_over_an_accelerated_connection() {
    let (mut cluster, ..) = playing(1, RATE, Answers::Each);
    let octets: Vec<u8> = (0..2_000_000_u32)
        .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let to = GAMES[0].accelerated(&cluster.world).unwrap();
    cluster.world.guest(GAMES[0].server).unwrap().accept(GAME_PORT);
    cluster
        .world
        .guest(GAMES[0].player)
        .unwrap()
        .upload(to, octets.clone());
    cluster.run(MINUTE).unwrap();
    let received = cluster.world.guest(GAMES[0].server).unwrap().received();
    assert!(received == octets, "{} of {}", received.len(), octets.len());
}

/// How many seeds are tried; more by `KUAFU_SOAK_SEEDS`.
fn seeds() -> u64 {
    std::env::var("KUAFU_SOAK_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1)
}
