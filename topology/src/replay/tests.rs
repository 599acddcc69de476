//! Recordings made by hand and by seed.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::routes::seeded::Seeded;
use crate::steering::{Config, Input, LegInput, NodeInput, PairInput};
use crate::{LegId, LegStats, Millis, NodeId, PairId, Recorded, Steering, TrafficClass};

const AT_ONCE: &str = "
estimator: {kind: mean, window: 1}
guard: none
jitter_weight: 0
gate_ms: 0
gate_share: 0
hysteresis_ms: 0
hysteresis_share: 0
confirmations: 1
dwell_ticks: 0
flap_damping: false
";

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

/// CSV of legs there and back alike: by tick, the ms of each leg; `None` was lost.
fn csv(legs: &[(&str, &str)], ticks: &[&[Option<u32>]]) -> String {
    let mut text = "tick,src,dst,rtt_ms\n".to_owned();
    for (tick, row) in ticks.iter().enumerate() {
        for ((from, to), ms) in legs.iter().zip(*row) {
            let ms = ms.map(|ms| ms.to_string()).unwrap_or_default();
            writeln!(text, "{tick},{from},{to},{ms}\n{tick},{to},{from},{ms}").unwrap();
        }
    }
    text
}

fn replay(text: &str, policy: &Policy) -> Report {
    run(&Recording::parse(text).unwrap(), policy, || ()).unwrap()
}

const TRIANGLE: [(&str, &str); 3] = [("a", "b"), ("a", "c"), ("c", "b")];

#[test]
fn a_tick_goes_the_way_that_was_best_before_it() {
    let row = |ms: [u32; 3]| ms.map(Some);
    let ticks = [
        row([100, 30, 30]),
        row([100, 30, 30]),
        row([20, 30, 30]),
        row([20, 30, 30]),
    ];
    let ticks: Vec<&[Option<u32>]> = ticks.iter().map(<[_; 3]>::as_slice).collect();
    let report = replay(&csv(&TRIANGLE, &ticks), &policy(AT_ONCE));
    let pair = |entry: &str, exit: &str| {
        let found = |pair: &&PairReport| pair.entry == entry && pair.exit == exit;
        report.by_pair.iter().find(found).unwrap()
    };
    // a to b: direct, as nothing is known; then over c twice, the second time too late; then direct again.
    let ab = pair("a", "b");
    assert_eq!(
        (ab.mean_ms, ab.direct_mean_ms, ab.switches),
        ((100.0 + 61.0 + 61.0 + 20.0) / 4.0, 60.0, 2)
    );
    // c to b is 30 always.
    assert_eq!((pair("c", "b").mean_ms, pair("c", "b").switches), (30.0, 0));
    assert_eq!(
        (
            report.pairs,
            report.ticks,
            report.pairs_helped,
            report.pairs_harmed
        ),
        (6, 4, 0, 2)
    );
    assert_eq!(report.p99_ms, 100.0);
    let oracle = (2.0 * (61.0 + 61.0 + 20.0 + 20.0) + 4.0 * 4.0 * 30.0) / 24.0;
    assert!((report.oracle_mean_ms - oracle).abs() < 1e-9);
    assert!((report.switches_per_100 - 100.0 * 4.0 / 24.0).abs() < 1e-9);
}

#[test]
fn a_lost_leg_counts_as_clip_ms_and_carries_nobody() {
    let lost = [None, Some(30), Some(30)];
    let ticks: [&[Option<u32>]; 3] = [&lost, &lost, &lost];
    let text = csv(&TRIANGLE, &ticks);
    let report = replay(&text, &policy("clip_ms: 400\nrelay_ms: 2.5\nwarmup_ticks: 1"));
    let ab = &report.by_pair[0];
    assert_eq!((ab.mean_ms, ab.direct_mean_ms, report.ticks), (62.5, 400.0, 2));
    assert_eq!(ab.path, ["a", "c", "b"]);
    // Its first tick went direct.
    let all = replay(&text, &policy("clip_ms: 400\nrelay_ms: 2.5"));
    assert_eq!(all.by_pair[0].mean_ms, (400.0 + 62.5 + 62.5) / 3.0);
}

#[test]
fn the_policy_in_force_waits_for_three_ticks() {
    let calm = [Some(100), Some(80), Some(80)];
    let better = [Some(100), Some(10), Some(10)];
    let ticks: Vec<&[Option<u32>]> = (0..120)
        .map(|tick| if tick < 40 { &calm[..] } else { &better[..] })
        .collect();
    let text = csv(&TRIANGLE, &ticks);
    let patient = replay(&text, &Policy::default());
    let quick = replay(
        &text,
        &policy("guard: none\nestimator: {kind: mean, window: 1}\nconfirmations: 1\njitter_weight: 0"),
    );
    assert_eq!((patient.by_pair[0].switches, quick.by_pair[0].switches), (1, 1));
    let gains = differences(&patient, &quick);
    assert_eq!(gains.len(), 6);
    assert!(gains[0].gain_ms > 0.0, "{gains:?}");
    assert!(quick.mean_ms < patient.mean_ms && quick.oracle_mean_ms < quick.mean_ms);
}

/// A seeded recording: places on a circle, legs that wander, some lost.
fn seeded(seed: u64, places: u32, ticks: u32, lost_in_1000: u32) -> String {
    let mut random = Seeded::new(seed);
    let mut text = "tick,src,dst,rtt_ms\n".to_owned();
    for tick in 0..ticks {
        for from in 0..places {
            for to in (0..places).filter(|&to| to != from) {
                let ms = 5 + 10 * from.abs_diff(to) + random.below(60);
                let ms = if random.below(1000) < lost_in_1000 {
                    String::new()
                } else {
                    format!("{ms}.{:03}", random.below(1000))
                };
                writeln!(text, "{tick},p{from},p{to},{ms}").unwrap();
            }
        }
    }
    text
}

/// The mean of what comes of always taking the path that was best, there and back, a tick ago.
fn of_the_tick_before(text: &str) -> f64 {
    let Recording::Measurements(measured) = Recording::parse(text).unwrap() else {
        panic!("measurements")
    };
    let places: Vec<NodeId> = measured.names().iter().map(|name| name.0).collect();
    let at = |tick: usize, from: NodeId, to: NodeId| {
        let number = measured
            .legs()
            .iter()
            .position(|leg| *leg == LegId { from, to })
            .unwrap();
        measured.tick(tick).nth(number).unwrap().unwrap()
    };
    let both =
        |tick, from, to| f64::midpoint(f64::from(at(tick, from, to)), f64::from(at(tick, to, from))).round();
    let (mut sum, mut count) = (0, 0);
    for tick in 0..measured.ticks() {
        for leg in measured.legs() {
            let (from, to) = (leg.from, leg.to);
            let relay = places
                .iter()
                .copied()
                .filter(|&via| via != from && via != to && tick > 0)
                .min_by(|&a, &b| {
                    let cost = |via| both(tick - 1, from, via) + both(tick - 1, via, to);
                    cost(a).total_cmp(&cost(b))
                });
            let better = relay.filter(|&via| {
                both(tick - 1, from, via) + 1000.0 + both(tick - 1, via, to) < both(tick - 1, from, to)
            });
            sum += better.map_or(at(tick, from, to), |via| {
                at(tick, from, via) + 1000 + at(tick, via, to)
            });
            count += 1;
        }
    }
    f64::from(sum) / f64::from(count) / 1000.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn without_any_brake_the_path_is_the_best_of_the_tick_before(seed: u64, places in 3_u32..6, ticks in 1_u32..12) {
        let text = seeded(seed, places, ticks, 0);
        let report = replay(&text, &Policy { max_relays: 1, ..policy(AT_ONCE) });
        prop_assert!((report.mean_ms - of_the_tick_before(&text)).abs() < 1e-9);
    }

    #[test]
    fn nobody_beats_the_oracle_and_nothing_depends_on_the_run(seed: u64, brakes: bool) {
        let text = seeded(seed, 5, 40, 30);
        let policy = if brakes { Policy::default() } else { policy(AT_ONCE) };
        let report = replay(&text, &policy);
        prop_assert_eq!(&report, &replay(&text, &policy));
        prop_assert!(report.oracle_mean_ms <= report.mean_ms && report.oracle_mean_ms <= report.direct_mean_ms);
        prop_assert!(report.p50_ms <= report.p95_ms && report.p95_ms <= report.p99_ms);
        prop_assert!(report.pairs_helped + report.pairs_harmed <= report.pairs);
    }
}

/// Ten minutes as a controller records them: legs that wander, an alarm now and then.
fn recorded(seconds: u64) -> String {
    let mut random = Seeded::new(7);
    let (mut steering, mut text) = (Steering::new(Config::default()), String::new());
    let node = |number: u16| NodeId::new(number).unwrap();
    let ends = || {
        (1..=4_u16)
            .flat_map(|from| (1..=4_u16).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
    };
    let leg = |(from, to): (u16, u16)| LegId {
        from: node(from),
        to: node(to),
    };
    let pair = |(id, (entry, exit)): (u32, (u16, u16))| PairInput {
        id: PairId(id),
        entry: node(entry),
        exit: node(exit),
        class: TrafficClass::Voice,
    };
    for second in 0..seconds {
        let mut stats = || {
            let p50_us = 20_000 + random.below(60_000);
            let p90_us = p50_us + random.below(9_000);
            LegStats {
                rtt_us: u32::midpoint(p50_us, p90_us),
                p50_us,
                p90_us,
                jitter_us: p90_us - p50_us,
                loss_ppm: 0,
                samples: 30,
            }
        };
        let named = |number: u16| NodeInput {
            name: format!("host-{number}"),
            ..NodeInput::new(node(number))
        };
        let input = Input {
            now: Millis(5_000 + second * 1_000),
            nodes: (1..=4).map(named).collect(),
            legs: ends()
                .map(|ends| LegInput {
                    leg: leg(ends),
                    stats: stats(),
                })
                .collect(),
            pairs: (1..).zip(ends()).map(pair).collect(),
            ..Input::default()
        };
        let at_once = Input {
            now: input.now.after(100),
            ..input.clone()
        };
        for input in [Some(input), (second % 50 == 9).then_some(at_once)]
            .into_iter()
            .flatten()
        {
            text += &serde_json::to_string(&Recorded::tick(&mut steering, input)).unwrap();
            text.push('\n');
        }
    }
    text
}

#[test]
fn a_controllers_recording_replays_and_another_policy_differs() {
    let text = recorded(600);
    let recording = Recording::parse(&text).unwrap();
    let Recording::Controller(ticks) = &recording else {
        panic!("a controller's")
    };
    let steering = crate::replay(Config::default(), ticks).unwrap();
    assert_eq!(steering.ticks(), 612);
    let in_force = run(&recording, &Policy::default(), || ()).unwrap();
    // The first tick has none before it, and those that an event made do not count.
    assert_eq!((in_force.pairs, in_force.ticks), (12, 599));
    assert_eq!(in_force.by_pair[0].entry, "host-1");
    let eager = run(
        &recording,
        &policy("confirmations: 1\ndwell_ticks: 0\nflap_damping: false\nguard: none"),
        || (),
    )
    .unwrap();
    assert!(eager.switches_per_100 > 2.0 * in_force.switches_per_100);
    let gains = differences(&in_force, &eager);
    assert!(gains.iter().any(|pair| pair.gain_ms < 0.0), "{gains:?}");
    let refused = run(
        &recording,
        &policy("guard: p90\nestimator: {kind: mean, window: 9}"),
        || (),
    )
    .unwrap_err();
    assert!(
        refused.to_string().starts_with("line 2: estimator: "),
        "{refused}"
    );
    let refused = run(&recording, &policy("warmup_ticks: 700"), || ()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "nothing is counted: the recording has 612 ticks, warmup_ticks is 700"
    );
}

#[test]
fn a_recording_with_a_gap_or_a_bad_line_is_refused_by_line() {
    let head = "tick,src,dst,rtt_ms\n0,a,b,1\n0,b,a,1\n";
    let with = |more: &str| format!("{head}{more}");
    let lines: Vec<String> = recorded(4).lines().map(str::to_owned).collect();
    let of = |numbers: &[usize]| {
        numbers
            .iter()
            .map(|&number| format!("{}\n", lines[number]))
            .collect::<String>()
    };
    let cases = [
        (String::new(), "line 1: no recording"),
        ("tick,src,dst,rtt_ms\n".to_owned(), "line 1: no recording"),
        (
            "tick,from,to,ms\n0,a,b,1\n".to_owned(),
            "line 1: found \"tick,from,to,ms\"",
        ),
        (
            with("2,a,b,1\n"),
            "line 4: tick 2 follows tick 0: expected 0 or 1",
        ),
        (
            with("1,a,b,1\n1,b,a,1\n0,a,b,1\n"),
            "line 6: tick 0 follows tick 1",
        ),
        (with("1,a,b,1\n2,a,b,1\n"), "line 5: tick 1 ends without b to a"),
        (with("1,a,b,1\n"), "line 4: tick 1 ends without b to a"),
        (with("1,a,c,1\n"), "line 4: a to c is not in the first tick"),
        (with("0,a,b,1\n"), "line 4: a to b is in tick 0 already"),
        (
            with("1,a,b,fast\n"),
            "line 4: column 4 (rtt_ms): \"fast\" is no time in ms",
        ),
        (with("1,a,b,-1\n"), "\"-1\" is no time"),
        (with("1,a,b,nan\n"), "\"nan\" is no time"),
        (with("x,a,b,1\n"), "line 4: column 1 (tick): \"x\""),
        (with("1,,b,1\n"), "line 4: column 2 has no name"),
        (with("1,a,b\n"), "line 4: CSV error"),
        (of(&[0, 1, 3]), "line 3: tick 3 where tick 2 belongs"),
        (of(&[0, 2, 1]), "line 2: tick 2 where tick 1 belongs"),
        (of(&[1, 2]), "line 1: it begins with tick 1"),
        (of(&[0]) + "{\"tick\":", "line 2: no recorded tick"),
        (of(&[0]) + "\n", "line 2: no recorded tick"),
        (
            of(&[0]) + &lines[1].replace("\"now\":6000", "\"now\":1"),
            "line 2: 1 ms is before the tick before, at 5000 ms",
        ),
    ];
    for (text, expected) in cases {
        let message = Recording::parse(&text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    // From a place to itself, blanks and any first tick are no faults.
    assert!(
        Recording::parse("tick, src, dst, rtt_ms\n7,a,b, 1\n7,a,a,0\n7,b,a,\n8,a,b,1\n8,b,a,2\n").is_ok()
    );
}

#[test]
fn a_policy_names_its_line_and_what_is_allowed() {
    let cases = [
        ("gate_ms: 5\ngate: 1\n", "line 2: ", "gate_ms"),
        (
            "guard: p95",
            "line 1: guard: \"p95\" is not allowed; expected p90 or none",
            "",
        ),
        (
            "\nestimator: {kind: median}",
            "line 2: estimator.kind: \"median\" is not allowed; expected ewma or mean",
            "",
        ),
        (
            "estimator: {kind: mean}",
            "line 1: estimator.kind: \"mean\" is not allowed; expected a window",
            "",
        ),
        (
            "estimator:\n  kind: mean\n  window: 0",
            "line 3: estimator.window: 0 is not allowed",
            "from 1 to",
        ),
        (
            "estimator: {kind: ewma, window: 3}",
            "estimator.window",
            "no window",
        ),
        (
            "estimator: {kind: ewma, alpha: 1.5}",
            "line 1: estimator.alpha: 1.5 is not allowed",
            "",
        ),
        ("estimator: {kind: ewma, beta: 1.5}", "line 1: ", "alpha"),
        (
            "gate_share: 1.5",
            "line 1: gate_share: 1.5 is not allowed; expected a number from 0 to 1",
            "",
        ),
        ("gate_ms: -1", "gate_ms: -1", "from 0 to 500000"),
        ("gate_ms: .nan", "line 1: ", ""),
        (
            "hysteresis_ms: much",
            "line 1: hysteresis_ms: \"much\" is not allowed",
            "a number",
        ),
        ("hysteresis_ms: [1]", "line 1: ", ""),
        ("confirmations: 0", "confirmations: 0", "from 1 to"),
        ("dwell_ticks: 1.5", "line 1: dwell_ticks: 1.5", "a whole number"),
        ("flap_damping: perhaps", "line 1: flap_damping: ", "true or false"),
        ("max_relays: 4", "max_relays: 4 is not allowed", "from 1 to 3"),
        ("- gate_ms", "line 1: ", ""),
        ("gate_ms: 1\ngate_ms: 2", "line 2: ", "gate_ms"),
        ("gate_ms: [", "line ", ""),
    ];
    for (text, place, allowed) in cases {
        let message = Policy::parse(text).unwrap_err().to_string();
        println!("{message}");
        assert!(
            message.contains(place) && message.contains(allowed),
            "{text:?}: {message}"
        );
    }
    for same in [
        "",
        "# nothing\n",
        "guard: p90",
        "gate_ms: 5",
        "hysteresis_share: 0.1",
        "dwell_ticks: 10",
    ] {
        assert_eq!(policy(same), Policy::default(), "{same:?}");
    }
    let all = policy("max_relays: 1\nclip_ms: 250\nrelay_ms: 0.5\nwarmup_ticks: 30\ngate_share: 0.025");
    assert_eq!(
        (all.clip_us, all.relay_us, all.warmup_ticks, all.gate.ppm),
        (250_000, Some(500), 30, 25_000)
    );
}

#[test]
fn fifty_places() {
    // A thousand ticks with the optimiser, less without.
    let ticks = if cfg!(debug_assertions) { 10 } else { 1000 };
    let text = seeded(1, 50, ticks, 5);
    let began = std::time::Instant::now();
    let recording = Recording::parse(&text).unwrap();
    let read = began.elapsed();
    let report = run(&recording, &Policy::default(), || ()).unwrap();
    println!(
        "{ticks} ticks of 50 places: read in {read:?}, with the replay {:?}: {report:?}",
        began.elapsed(),
        report = Report {
            by_pair: Vec::new(),
            ..report.clone()
        }
    );
    assert_eq!((report.pairs, report.ticks), (50 * 49, u64::from(ticks)));
}
