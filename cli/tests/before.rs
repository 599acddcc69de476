//! The verbs that answer from files alone: `design pops`, `replay`, and `apply --dry-run` where no controller answers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::path::Path;
use std::process::Command;

use kuafu_topology::steering::{Input, LegInput, NodeInput, PairInput};
use kuafu_topology::{Config, LegId, LegStats, Millis, NodeId, PairId, Recorded, Steering, TrafficClass};

/// Exit status, standard output, standard error.
fn kuafu(folder: &Path, arguments: &str) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kuafu"))
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// Five seconds as a controller records them: a pair that takes a relay.
fn recorded() -> Vec<Recorded> {
    let node = |number| NodeId::new(number).unwrap();
    let ends = [(1, 2, 300_000), (1, 3, 50_000), (3, 2, 100_000)];
    let both = ends
        .iter()
        .flat_map(|&(from, to, us)| [(from, to, us), (to, from, us)]);
    let leg = |(from, to, us): (u16, u16, u32)| LegInput {
        leg: LegId {
            from: node(from),
            to: node(to),
        },
        stats: LegStats {
            rtt_us: us,
            p50_us: us,
            p90_us: us,
            ..LegStats::default()
        },
    };
    let pair = PairInput {
        id: PairId(1),
        entry: node(1),
        exit: node(2),
        class: TrafficClass::Game,
    };
    let named = |(number, name): (u16, &str)| NodeInput {
        name: name.to_owned(),
        ..NodeInput::new(node(number))
    };
    let input = |second: u64| Input {
        now: Millis(second * 1000),
        nodes: [(1, "osaka"), (2, "cape-town"), (3, "taipei")]
            .map(named)
            .to_vec(),
        legs: both.clone().map(leg).collect(),
        pairs: vec![pair],
        ..Input::default()
    };
    let mut steering = Steering::new(Config::default());
    (0..5)
        .map(|second| Recorded::tick(&mut steering, input(second)))
        .collect()
}

fn lines(ticks: &[Recorded]) -> String {
    let lines = ticks
        .iter()
        .map(|tick| serde_json::to_string(tick).unwrap() + "\n");
    lines.collect()
}

#[test]
fn a_recording_is_decided_again_or_says_where_it_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let ticks = recorded();
    let mut other = ticks.clone();
    other[3].changes = other[0].changes.clone();
    let gap = [&ticks[..2], &ticks[3..]].concat();
    write(
        folder.path(),
        &[
            ("steering.jsonl", &lines(&ticks)),
            ("other.jsonl", &lines(&other)),
            ("gap.jsonl", &lines(&gap)),
            ("direct.yaml", "gate_ms: 1000\n"),
            ("mean.yaml", "estimator: {kind: mean, window: 3}\n"),
        ],
    );
    let (status, text, error) = kuafu(folder.path(), "replay steering.jsonl --policy direct.yaml");
    assert_eq!((status, error.as_str()), (0, ""));
    insta::assert_snapshot!(text);
    let cases = [
        (
            "replay other.jsonl",
            "kuafu: other.jsonl: line 4: another decision: tick 3 at 3000 ms",
        ),
        (
            "replay gap.jsonl",
            "kuafu: gap.jsonl: line 3: tick 3 where tick 2 belongs",
        ),
        ("replay none.jsonl", "kuafu: cannot read none.jsonl: No such file"),
        (
            "replay steering.jsonl --policy mean.yaml",
            "kuafu: mean.yaml: line 1: estimator: ",
        ),
    ];
    for (arguments, expected) in cases {
        let (status, text, error) = kuafu(folder.path(), arguments);
        assert_eq!((status, text.as_str()), (1, ""), "{arguments}");
        assert!(error.starts_with(expected), "{arguments}: {error}");
    }
}

#[test]
fn files_of_a_design_are_refused_by_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[
            (
                "rtt.csv",
                ",Rome,Lima,Osaka\nRome,,180,250\nLima,180,,300\nOsaka,250,300,\n",
            ),
            ("bad.csv", ",Rome,Lima\nRome,,18O\nLima,180,\n"),
            ("players.csv", "place,players\nOsaka,10\n"),
            ("nobody.csv", "place,players\nOsaka,0\n"),
            ("wrong.csv", "place,players\nOsaka,10\nLimma,4\n"),
            ("price.csv", "place,usd_per_month\nLima,cheap\n"),
        ],
    );
    let pops = "design pops --count 1 --matrix rtt.csv";
    let (status, text, error) = kuafu(folder.path(), &format!("{pops} -o json"));
    assert_eq!((status, error.as_str()), (0, ""));
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&answer["method"], &answer["pairs"]),
        (&"exact".into(), &6.into())
    );
    let cases = [
        (
            "design pops --count 1 --matrix bad.csv",
            "bad.csv: line 2, column 3 (Lima): \"18O\" is no time",
        ),
        (
            "design pops --count 9 --matrix rtt.csv",
            "--count 9: rtt.csv has only 3 places",
        ),
        (
            &format!("{pops} --players wrong.csv --servers Rome"),
            "wrong.csv: line 3, column 1: \"Limma\" is no place of the matrix; did you mean \"Lima\"?",
        ),
        (
            &format!("{pops} --players nobody.csv --servers Rome"),
            "nobody.csv: nobody plays",
        ),
        (
            &format!("{pops} --players players.csv --servers Roma"),
            "--servers: \"Roma\" is no place of the matrix; did you mean \"Rome\"?",
        ),
        (
            &format!("{pops} --players players.csv --servers Osaka"),
            "rtt.csv: no pair was measured directly",
        ),
        (
            &format!("{pops} --price price.csv"),
            "price.csv: line 2, column 2 (usd_per_month): \"cheap\"",
        ),
    ];
    for (arguments, expected) in cases {
        let (status, text, error) = kuafu(folder.path(), arguments);
        assert_eq!((status, text.as_str()), (1, ""), "{arguments}");
        assert!(
            error.starts_with(&format!("kuafu: {expected}")),
            "{arguments}: {error}"
        );
    }
}

#[test]
fn a_dry_run_without_a_controller_checks_the_files_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let node = "kind: Node\nmetadata: {name: osaka}\nspec: {region: asia, address: {local: 192.0.2.1}}\n";
    let vpc = "kind: Vpc\nmetadata: {name: red}\nspec: {cidr: 10.0.0.1/24}\n";
    write(folder.path(), &[("node.yaml", node), ("vpc.yaml", vpc)]);
    let (code, out, said) = kuafu(folder.path(), "--root here apply --dry-run -f node.yaml");
    assert_eq!((code, out.as_str()), (0, "node/osaka created\n"), "{said}");
    assert!(said.contains("Checked by themselves"), "{said}");
    assert!(said.contains("this was a dry run"), "{said}");
    let (code, _, said) = kuafu(folder.path(), "--root here apply --dry-run -f vpc.yaml");
    assert_eq!(code, 1);
    assert!(said.contains("vpc.yaml:3: spec.cidr: "), "{said}");
    let (code, _, said) = kuafu(folder.path(), "--root here apply -f node.yaml");
    assert_eq!(code, 1);
    assert!(said.contains("no admin's certificate"), "{said}");
}
