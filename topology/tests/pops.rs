//! Places to rent, from measured matrices.

#![allow(
    clippy::unwrap_used,
    reason = "an unwrap that fails in a test is a failed test"
)]

use std::io::Write as _;
use std::num::NonZeroU8;

use kuafu_topology::Matrix;
use kuafu_topology::pops::{Demand, Design, Method, Plan, design};

/// Between 242 cities over the public Internet; not part of the project, it may lie beside it.
const CITIES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../shared/data/wondernetwork_2018-11_clean.csv"
);

/// The matrix of a file; `None` where it is absent.
fn read(file: &str) -> Option<Matrix> {
    let Ok(text) = std::fs::read_to_string(file) else {
        // The harness captures what the print macros write.
        let _ = writeln!(std::io::stderr(), "skipped: {file} is absent");
        return None;
    };
    Some(Matrix::parse(&text).unwrap())
}

fn twenty(matrix: &Matrix, max_relays: u8) -> Design {
    let plan = Plan {
        count: 20,
        relay_us: 1_000,
        max_relays: NonZeroU8::new(max_relays).unwrap(),
    };
    design(matrix, &Demand::of_all(matrix), plan, |_| ())
}

#[test]
fn twenty_of_242_cities() {
    let Some(cities) = read(CITIES) else { return };
    for (max_relays, required_ms) in [(1, 17.6), (3, 19.1)] {
        let design = twenty(&cities, max_relays);
        let gain_ms = design.chosen[19].mean_gain_ms;
        println!(
            "at most {max_relays} relays: {gain_ms:.2} of {:.2} ms, {:?}",
            design.direct_ms, design.method
        );
        assert!(gain_ms >= required_ms);
    }
}

#[test]
fn a_cloud_gains_little() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../lab/data/aws_cloudping_2025-07_p50.csv"
    );
    let Some(regions) = read(file) else { return };
    let design = twenty(&regions, 1);
    assert!(matches!(design.method, Method::Greedy { settled: true, .. }));
    assert_eq!((design.pairs, design.chosen.len()), (33 * 32, 20));
    // All 33 bring 2.87 ms.
    let gain_ms = design.chosen[19].mean_gain_ms;
    assert!((2.8..=2.88).contains(&gain_ms), "{gain_ms}");
}
