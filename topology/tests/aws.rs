//! The demonstration's pairs, from the measured matrix that comes with the project.

#![allow(
    clippy::unwrap_used,
    reason = "an unwrap that fails in a test is a failed test"
)]

use std::io::Write as _;

use kuafu_topology::steering::NodeInput;
use kuafu_topology::{
    Config, Input, LegId, LegStats, Matrix, Millis, NodeId, PairId, Steering, TrafficClass, Why,
    steering::{LegInput, PairInput},
};

/// The ten nodes of lab/worlds/demo.yaml, numbered from 1.
const REGIONS: [&str; 10] = [
    "ap-northeast-3",
    "af-south-1",
    "ap-east-1",
    "me-south-1",
    "ca-west-1",
    "sa-east-1",
    "us-west-2",
    "ap-east-2",
    "ca-central-1",
    "us-east-1",
];
const TAIPEI: usize = 7;
const MONTREAL: usize = 8;
const VIRGINIA: usize = 9;

fn node(index: usize) -> NodeId {
    NodeId::new(u16::try_from(index + 1).unwrap()).unwrap()
}

fn rtt_us(matrix: &Matrix, from: usize, to: usize) -> u32 {
    let index = |region: usize| matrix.index_of(REGIONS[region]).unwrap();
    let ms = matrix.get(index(from), index(to)).unwrap();
    kuafu_topology::Cost::from_us_f64(ms * 1000.0).us()
}

/// A tick over the medians, for these (entry, exit); `None` where the data are absent.
fn decide(pairs: &[(usize, usize)]) -> Option<Steering> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../lab/data/aws_cloudping_2025-07_p50.csv"
    );
    let Ok(text) = std::fs::read_to_string(file) else {
        // The harness captures what the print macros write.
        let _ = writeln!(std::io::stderr(), "skipped: {file} is absent");
        return None;
    };
    let matrix = Matrix::parse(&text).unwrap();
    assert_eq!(matrix.names().len(), 33);
    let ends = (0..10)
        .flat_map(|from| (0..10).map(move |to| (from, to)))
        .filter(|(from, to)| from != to);
    let legs = ends.map(|(from, to)| LegInput {
        leg: LegId {
            from: node(from),
            to: node(to),
        },
        stats: LegStats {
            rtt_us: rtt_us(&matrix, from, to),
            ..LegStats::default()
        },
    });
    let pair = |(id, &(entry, exit)): (u32, &(usize, usize))| PairInput {
        id: PairId(id),
        entry: node(entry),
        exit: node(exit),
        class: TrafficClass::Game,
    };
    let input = Input {
        now: Millis(1000),
        nodes: (0..10).map(|index| NodeInput::new(node(index))).collect(),
        legs: legs.collect(),
        pairs: (0..).zip(pairs).map(pair).collect(),
        ..Input::default()
    };
    let mut steering = Steering::new(Config::default());
    steering.tick(&input);
    Some(steering)
}

#[test]
fn four_pairs_gain_by_one_relay() {
    // Entry, exit, ms direct, ms over the relay with its 1 ms of transit, the relay.
    let cases = [
        (0, 1, 374, 293, TAIPEI),
        (2, 1, 350, 276, TAIPEI),
        (3, 4, 256, 213, MONTREAL),
        (4, 5, 194, 168, VIRGINIA),
    ];
    let pairs: Vec<_> = cases.iter().map(|&(entry, exit, ..)| (entry, exit)).collect();
    let Some(steering) = decide(&pairs) else { return };
    for (decision, (entry, exit, direct, best, relay)) in steering.decisions().zip(cases) {
        let primary = decision.primary.as_ref().unwrap();
        let relays = primary.path.relays();
        let what = format!("{} to {}", REGIONS[entry], REGIONS[exit]);
        assert_eq!(
            (decision.direct.ms().round(), relays),
            (f64::from(direct), &[node(relay)][..]),
            "{what}"
        );
        assert_eq!(primary.cost.ms().round(), f64::from(best), "{what}");
        assert!(
            matches!(decision.why, Why::RelayBest { .. }),
            "{what}: {}",
            decision.why
        );
        let backup = decision.backup.as_ref().unwrap();
        assert!(!backup.path.relays().contains(&node(relay)), "{what}");
    }
}

#[test]
fn calgary_to_oregon_stays_direct_and_says_why() {
    let Some(steering) = decide(&[(4, 6)]) else { return };
    let decision = steering.decision(PairId(0)).unwrap();
    assert!(decision.primary.as_ref().unwrap().path.is_direct());
    assert_eq!(decision.why.to_string(), "direct is best by 89.9 ms");
}
