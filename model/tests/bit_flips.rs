//! Nothing but an authentic packet moves any state: every single-bit flip under the tag, and every replay.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use std::collections::BTreeMap;

use common::case::{Input, Program, changes, counters, on_model};
use common::encode::encode;
use common::state::state;
use common::world;
use serde::Deserialize;

/// A packet of the backbone, and the reasons under which its flipped copies are dropped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flips {
    name: String,
    #[serde(rename = "in")]
    input: String,
    /// By reason, the bits: ranges of the 480 under the tag, and of the tag's own 64 behind them.
    reasons: BTreeMap<String, Vec<(usize, usize)>>,
    /// Why its replay is dropped; absent at a relay, which keeps no window.
    replay: Option<String>,
}

/// Octets of the frame that the tag covers, in its order, and then those of the tag.
fn places() -> Vec<usize> {
    (42..50).chain(54..66).chain(74..114).chain(66..74).collect()
}

fn cases() -> Vec<Flips> {
    let path = common::case::folder().join("flips/flips.yaml");
    let text = std::fs::read_to_string(path).expect("a file");
    serde_saphyr::from_str(&text).expect("cases")
}

fn edge(octets: Vec<u8>) -> Input {
    Input {
        program: Program::Edge,
        interface: world::UNDERLAY,
        mark: 0,
        segment: 0,
        octets,
    }
}

#[test]
fn a_flipped_bit_is_dropped_under_its_reason_and_moves_nothing() {
    for case in cases() {
        let frame = encode(&case.input);
        assert!(
            frame.len() >= 114,
            "{}: the tag covers all of its 40 inner octets",
            case.name
        );
        let mut host = world::named("host").model();
        let before = state(&host);
        let mut reasons: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
        for (at, place) in places().into_iter().enumerate() {
            for bit in 0..8 {
                let mut flipped = frame.clone();
                flipped[place] ^= 0x80 >> bit;
                let counted = counters(&host);
                let (_, done) = on_model(&mut host, &edge(flipped));
                assert_eq!(done.code, 1, "{}: octet {place}, bit {bit} is dropped", case.name);
                let counts = changes(&counted, &counters(&host));
                let (reason, times) = counts.first_key_value().expect("a reason");
                assert_eq!((counts.len(), *times), (1, 1), "{}: {counts:?}", case.name);
                extend(reasons.entry(reason.clone()).or_default(), at * 8 + bit);
            }
        }
        assert_eq!(reasons, case.reasons, "{}", case.name);
        assert_eq!(state(&host), before, "{}: nothing moves", case.name);
    }
}

/// Adds a number to ranges that are written with both of their ends.
fn extend(ranges: &mut Vec<(usize, usize)>, number: usize) {
    match ranges.last_mut() {
        Some((_, last)) if *last + 1 == number => *last = number,
        _ => ranges.push((number, number)),
    }
}

#[test]
fn a_replay_is_dropped_and_moves_nothing() {
    for case in cases() {
        let Some(due) = case.replay else { continue };
        let mut host = world::named("host").model();
        let frame = encode(&case.input);
        on_model(&mut host, &edge(frame.clone()));
        let (before, counted) = (state(&host), counters(&host));
        let (_, done) = on_model(&mut host, &edge(frame));
        assert_eq!(done.code, 1, "{}", case.name);
        let counts = changes(&counted, &counters(&host));
        assert_eq!(counts, BTreeMap::from([(due, 1)]), "{}", case.name);
        assert_eq!(state(&host), before, "{}", case.name);
    }
}
