//! A seeded world over minutes: what hysteresis saves, and that a recording replays.

use super::*;
use crate::cost::TrafficClass;
use crate::estimate::LegStats;
use crate::routes::seeded::Seeded;

const NODES: u16 = 8;

fn node(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Eight nodes on a line with legs that wander, all pairs from the first four to the others.
struct Weather {
    random: Seeded,
    wander_us: Vec<u32>,
}

impl Weather {
    fn new(seed: u64) -> Self {
        Self {
            random: Seeded::new(seed),
            wander_us: vec![20_000; usize::from(NODES * NODES)],
        }
    }

    fn input(&mut self, second: u64) -> Input {
        let events = self.events();
        let mut legs = Vec::new();
        for from in 1..=NODES {
            for to in (1..=NODES).filter(|&to| to != from) {
                let wander_us = &mut self.wander_us[usize::from((from - 1) * NODES + to - 1)];
                *wander_us = (*wander_us + self.random.below(8_000))
                    .saturating_sub(4_000)
                    .min(60_000);
                let rtt_us = 15_000 * u32::from(from.abs_diff(to)) + *wander_us;
                let stats = LegStats {
                    rtt_us,
                    loss_ppm: self.random.below(800),
                    ..LegStats::default()
                };
                legs.push(LegInput {
                    leg: LegId {
                        from: node(from),
                        to: node(to),
                    },
                    stats,
                });
            }
        }
        let pair = |index: u16| PairInput {
            id: PairId(u32::from(index)),
            entry: node(1 + index / 4),
            exit: node(5 + index % 4),
            class: TrafficClass::Game,
        };
        let nodes = (1..=NODES).map(|number| NodeInput::new(node(number))).collect();
        Input {
            now: Millis(second * 1000),
            nodes,
            legs,
            pairs: (0..16).map(pair).collect(),
            events,
            ..Input::default()
        }
    }

    fn events(&mut self) -> Vec<Event> {
        let relay = node(1 + u16::try_from(self.random.below(8)).unwrap());
        let path = Path::new(node(1), &[relay], node(5));
        let leg = LegId {
            from: node(2),
            to: relay,
        };
        match self.random.below(40) {
            0 => vec![Event::PathDown { path }],
            1..4 => vec![Event::PathUp { path }],
            4 => vec![Event::Alarm {
                leg,
                loss_ppm: 40_000,
            }],
            5..8 => vec![Event::AlarmOver { leg }],
            _ => vec![],
        }
    }
}

fn run(config: &Config, seed: u64, events: bool) -> Vec<Recorded> {
    let (mut steering, mut weather) = (Steering::new(config.clone()), Weather::new(seed));
    let tick = |second| {
        let mut input = weather.input(second);
        if !events {
            input.events.clear();
        }
        Recorded::tick(&mut steering, input)
    };
    (1..=300).map(tick).collect()
}

fn moves(recording: &[Recorded]) -> usize {
    let mut primaries = BTreeMap::new();
    let changes = recording.iter().flat_map(|recorded| &recorded.changes);
    changes
        .filter(|change| primaries.insert(change.pair, &change.primary) != Some(&change.primary))
        .count()
        - 16
}

#[test]
fn hysteresis_removes_most_moves() {
    let off = Margin { us: 0, ppm: 0 };
    let eager = Config {
        hysteresis: off,
        confirmations: 1,
        dwell_ms: 0,
        damping_move: 0,
        ..Config::default()
    };
    for seed in 1..4 {
        let (without, with) = (
            moves(&run(&eager, seed, false)),
            moves(&run(&Config::default(), seed, false)),
        );
        println!("seed {seed}: {without} moves without hysteresis, {with} with it");
        assert!(
            with * 2 < without && with > 0,
            "seed {seed}: {without} without, {with} with"
        );
    }
}

#[test]
fn a_recording_replays_through_its_lines() {
    let recording = run(&Config::default(), 7, true);
    assert!(
        recording
            .iter()
            .map(|recorded| recorded.changes.len())
            .sum::<usize>()
            > 20
    );
    let lines: Vec<String> = recording
        .iter()
        .map(|recorded| serde_json::to_string(recorded).unwrap())
        .collect();
    let read: Vec<Recorded> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read, recording);
    let config: Config = serde_json::from_str("{}").unwrap();
    assert!(replay(config, &read).unwrap().decisions().count() == 16);
}

#[test]
fn a_replay_that_decides_otherwise_says_where() {
    let mut recording = run(&Config::default(), 7, true);
    let tick = (5..300)
        .find(|&tick| !recording[tick].changes.is_empty())
        .unwrap();
    recording[tick].changes.clear();
    let divergence = replay(Config::default(), &recording).unwrap_err();
    assert_eq!(
        (divergence.tick, divergence.now),
        (tick, recording[tick].input.now)
    );
    assert!(divergence.recorded.is_empty() && !divergence.replayed.is_empty());
}
