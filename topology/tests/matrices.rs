//! The routes of every measured matrix at hand against the oracle.

#![allow(
    clippy::unwrap_used,
    reason = "an unwrap that fails in a test is a failed test"
)]

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;

use kuafu_topology::routes::{CostMatrix, Routes, best, oracle};
use kuafu_topology::{Cost, Matrix};
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};

/// The project's own, then those that may lie beside it; names and round trips.
fn matrices() -> Vec<(String, Matrix)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for folder in ["lab/data", "../shared/data"] {
        let Ok(files) = std::fs::read_dir(root.join(folder)) else {
            // The harness captures what the print macros write.
            let _ = writeln!(std::io::stderr(), "skipped: {folder} is absent");
            continue;
        };
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            if !name.ends_with(".csv") || name.ends_with("_cities.csv") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            found.push((name, Matrix::parse(&text).unwrap()));
        }
    }
    found
}

fn routes(matrix: &Matrix, relay_ms: u32) -> Routes {
    let costs = CostMatrix::of_matrix(matrix, Cost::from_us(relay_ms * 1000)).unwrap();
    best(costs, 3, NonZeroUsize::MIN)
}

/// Only some of the places.
fn part(matrix: &Matrix, places: &[usize]) -> Matrix {
    let names: Vec<&str> = places
        .iter()
        .map(|&place| matrix.names()[place].as_str())
        .collect();
    let mut text = format!(",{}\n", names.join(","));
    for (&from, name) in places.iter().zip(&names) {
        let cells = places.iter().map(|&to| {
            let cell = matrix.get(from, to);
            cell.map_or(String::new(), |ms| ms.to_string())
        });
        text += &format!("{name},{}\n", cells.collect::<Vec<_>>().join(","));
    }
    Matrix::parse(&text).unwrap()
}

#[test]
fn all_pairs_of_every_matrix_are_the_oracles() {
    for (name, matrix) in matrices() {
        for relay_ms in [0, 1] {
            let pairs = oracle::check(&routes(&matrix, relay_ms));
            let n = matrix.names().len();
            assert_eq!(pairs, Ok(n * (n - 1)), "{name}, {relay_ms} ms a relay");
        }
    }
}

#[test]
fn two_hundred_parts_are_what_the_list_of_all_paths_says() {
    let matrices = matrices();
    let mut random = StdRng::seed_from_u64(4);
    for draw in 0..200 {
        let (name, whole) = &matrices[random.random_range(0..matrices.len())];
        let size = random.random_range(2..=12.min(whole.names().len()));
        let places = index::sample(&mut random, whole.names().len(), size).into_vec();
        let routes = routes(&part(whole, &places), draw % 2);
        for (from, to) in (0..size).flat_map(|from| (0..size).map(move |to| (from, to))) {
            for relays in (0..=3).filter(|_| from != to) {
                let least = oracle::all_paths(routes.costs(), from, to, relays)
                    .into_iter()
                    .next();
                let found = routes.within(from, to, relays);
                assert_eq!(found, least, "draw {draw} of {name}: {from} to {to}");
            }
        }
    }
}

#[test]
fn the_means_of_the_public_internet() {
    let matrices = matrices();
    let Some((_, matrix)) = matrices
        .iter()
        .find(|(name, _)| name == "wondernetwork_2018-11_clean.csv")
    else {
        let _ = writeln!(std::io::stderr(), "skipped: WonderNetwork's matrix is absent");
        return;
    };
    let routes = routes(matrix, 1);
    let n = matrix.names().len();
    let means = [0, 1, 2, 3].map(|relays| {
        let ends = (0..n).flat_map(|from| (0..n).map(move |to| (from, to)));
        let measured = ends.filter(|&(from, to)| from != to && routes.within(from, to, 0).is_some());
        let costs = measured.map(|(from, to)| routes.within(from, to, relays).unwrap().cost.ms());
        let costs: Vec<f64> = costs.collect();
        let count = u32::try_from(costs.len()).unwrap();
        format!("{:.2}", costs.iter().sum::<f64>() / f64::from(count))
    });
    assert_eq!(means, ["156.40", "136.31", "134.36", "134.06"]);
}
