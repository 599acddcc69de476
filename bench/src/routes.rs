//! Exact routes with at most one relay, and their backups, of a whole network: against a scan of all relays by pair.

mod matrix;
mod reference;

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kuafu_topology::routes::{CostMatrix, Relay, Route, Routes, best};
use kuafu_topology::{Cost, NodeId};

use self::matrix::Matrix;
use crate::Common;
use crate::report::{Limit, Report, Row};
use crate::rounds::Rounds;

/// What the limit holds for.
const FULL_SIZE: usize = 1000;
const LIMIT_MS: f64 = 300.0;

/// The size and the draw of the network.
#[derive(clap::Args)]
pub(crate) struct Network {
    /// How many nodes
    #[arg(long, default_value_t = FULL_SIZE)]
    nodes: usize,
    /// Of the matrix
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Times both in turns, and compares all answers of the first round.
pub(crate) fn run(network: &Network, common: &Common) -> Result<Report> {
    let matrix = Matrix::seeded(network.nodes, network.seed);
    let costs = costs(&matrix)?;
    let (expected, found) = (RefCell::default(), RefCell::default());
    let rounds = Rounds::interleaved(
        common.rounds(5),
        || Ok(timed(&expected, || reference::routes(&matrix))),
        || Ok(timed(&found, || Some(best(&costs, NonZeroUsize::MIN)))),
    )?;
    let found = found.into_inner().context("nothing was computed")?;
    let pairs = compare(&matrix, &expected.into_inner(), &found)?;
    let limit = (network.nodes == FULL_SIZE).then_some(Limit::OursAtMost(LIMIT_MS));
    Ok(Report {
        benchmark: "routes",
        conditions: vec![
            format!(
                "{} nodes, each a site and a provider of its own; dense matrix of seed {}; one thread",
                network.nodes, network.seed
            ),
            format!("{pairs} pairs: cost and relay of primary and backup are the reference's, each of them"),
        ],
        rows: vec![Row::new(
            "one-relay routes with backup",
            "ms",
            "scan by pair",
            rounds,
            limit,
        )],
    })
}

/// How long it took in ms; the result is kept, so that it is computed.
fn timed<T>(result: &RefCell<T>, compute: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    let computed = compute();
    let took = start.elapsed();
    result.replace(computed);
    took.as_secs_f64() * 1e3
}

fn costs(matrix: &Matrix) -> Result<CostMatrix> {
    let mut relays = Vec::with_capacity(matrix.nodes());
    for number in 1..=matrix.nodes() {
        let number = u16::try_from(number).context("more nodes than there are node ids")?;
        relays.push(Relay {
            id: NodeId::new(number).context("node ids begin at 1")?,
            site: number.into(),
            provider: number.into(),
            transit: Cost::from_us(reference::RELAY_COST),
        });
    }
    let mut costs = CostMatrix::new(relays)?;
    for (from, to) in ends(matrix.nodes()) {
        costs.set(from, to, Cost::from_us(matrix.cost(from, to)));
    }
    Ok(costs)
}

/// Fails at the first pair whose answers differ; returns how many were compared.
fn compare(matrix: &Matrix, expected: &[reference::Pair], found: &Routes) -> Result<usize> {
    ensure!(!expected.is_empty(), "fewer than two nodes have no pair");
    for ((from, to), expected) in ends(matrix.nodes()).zip(expected) {
        let primary = found.primary(from, to).map(plain);
        let backup = found.backup(from, to).map(plain);
        ensure!(
            primary == Some(expected.primary) && backup == expected.backup,
            "node {from} to {to}: {primary:?} with {backup:?}, where the reference has {expected:?}"
        );
    }
    Ok(expected.len())
}

fn plain(route: Route) -> reference::Route {
    reference::Route {
        cost: route.cost.us(),
        relay: route.relay,
    }
}

/// Every ordered pair of different nodes, row by row.
fn ends(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |from| (0..nodes).filter(move |to| *to != from).map(move |to| (from, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_network_gives_the_same_answers() {
        let network = Network { nodes: 40, seed: 5 };
        let common = Common {
            rounds: Some(2),
            json: false,
        };
        let report = run(&network, &common).unwrap();
        assert_eq!(report.rows[0].ours_rounds.len(), 2);
        assert_eq!(report.rows[0].limit, None);
        assert!(
            report.conditions[1].starts_with("1560 pairs"),
            "{:?}",
            report.conditions
        );
    }
}
