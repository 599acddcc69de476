//! Agents and probers die under a stream.

use std::fmt;
use std::time::{Duration, Instant};

use kuafu_dataplane::bpf::{Bpf, Sizes};
use kuafu_lab::stream::gaps;

use super::common::Stage;
use super::failover::FAILURE_RATE;
use super::intent::{GAMES, Game};
use super::play::{self, Servers};
use super::{GAME, LIMIT};

/// The object of the layout before the present one.
const PREVIOUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane/tests/data/kuafu-v5.o");
const PREVIOUS_LAYOUT: u32 = 5;

/// Packets sent each way, and those missing: towards the server, and back.
#[derive(Clone, Copy)]
pub(super) struct Loss {
    sent: u64,
    missing: [u64; 2],
}

impl Loss {
    /// At most one in a thousand each way: what a busy machine may cost.
    pub(super) fn is_small(&self) -> bool {
        self.missing.iter().all(|missing| *missing <= self.sent / 1_000)
    }

    /// No more than the control run's, but for one in ten thousand: what a busy machine drops in one run and not in
    /// another.
    pub(super) fn is_no_more_than(&self, control: Self) -> bool {
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
pub(super) fn under_a_stream(
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
    let gaps = [there, trace.gaps_back()];
    let loss = Loss {
        sent: trace.sent_count(),
        missing: gaps
            .each_ref()
            .map(|gaps| gaps.iter().map(|gap| gap.missing).sum()),
    };
    if !loss.is_small() {
        println!("{loss}: {gaps:?}; dropped by now: {}", stage.dropped());
        for (from, to) in [(game.entry, game.exit), (game.exit, game.entry)] {
            let why = stage.cluster.ask(&stage.world, &["explain", "path", from, to]);
            println!("{}", why.unwrap_or_else(|error| error.to_string()));
        }
    }
    loss
}

/// Programs, maps and links are adopted: no packet is lost by restarts at entry, relay and exit, one each `pace`.
pub(super) fn agents_are_restarted(
    stage: &mut Stage,
    servers: &Servers,
    id: u32,
    restarts: u32,
    pace: Duration,
) -> Loss {
    let route = stage.until_relayed(GAME);
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

/// Every host of the game's path runs the previous object over its layout, and is upgraded from it: maps, windows and
/// sequence numbers go along both times.
pub(super) fn hosts_are_upgraded(stage: &mut Stage, servers: &Servers, id: u32) -> Loss {
    let path = stage.until_relayed(GAME).path;
    let (previous, layout) = (std::fs::read(PREVIOUS).unwrap(), PREVIOUS_LAYOUT);
    under_a_stream(stage, servers, GAME, id, |stage| {
        for node in &path {
            stage.kill(node, "probe");
            stage.kill(node, "agent");
            Bpf::hand_over(&previous, &stage.layout(node, layout), &Sizes::default()).unwrap();
            std::thread::sleep(Duration::from_secs(1));
            stage.start(node, "agent");
            stage.until_connected(node);
            stage.start(node, "probe");
        }
    })
}

/// A silent prober makes nothing stale.
pub(super) fn probers_die(stage: &mut Stage, servers: &Servers, id: u32) {
    let game = &GAMES[0];
    let before = stage.until_relayed(game);
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
