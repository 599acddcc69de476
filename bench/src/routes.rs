//! Exact routes with at most three relays, and their backups, of a whole network: against the oracle, which computes
//! the same by a plain dynamic programme and a scan of all relays, and compares every answer.

mod matrix;

use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Context, Result};
use kuafu_topology::routes::{CostMatrix, MAX_RELAYS, Relay, Routes, best, oracle};
use kuafu_topology::{Cost, NodeId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::matrix::Matrix;
use crate::report::{Limit, Report, Row};
use crate::rounds::{Rounds, median};
use crate::{Common, memory};

/// What a relay adds to a path's cost, in µs.
const RELAY_COST: Cost = Cost::from_us(1000);
/// The size that the first limits hold for.
const FULL_SIZE: usize = 1000;
/// Legs changed in a round.
const CHANGES: usize = 200;

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

/// Times both in turns, comparing all answers of each round.
pub(crate) fn run(network: &Network, common: &Common) -> Result<Report> {
    let rounds = common.rounds(3);
    let full = network.nodes == FULL_SIZE;
    let limit = |limit: f64| full.then_some(Limit::OursAtMost(limit));
    let own = costs(network, network.nodes, Places::Own)?;
    let shared = costs(network, network.nodes, Places::Shared)?;
    let small = costs(network, network.nodes * 3 / 10, Places::Own)?;
    let mut rows = vec![
        against_oracle("own sites", &own, rounds, limit(400.0))?,
        against_oracle("300 sites, 20 providers", &shared, rounds, limit(400.0))?,
        two_cores(&own, rounds)?,
        against_oracle("own sites", &small, rounds, limit(15.0))?,
        one_leg(network.seed, &own, rounds, limit(1.0))?,
    ];
    let mut growth = Vec::new();
    for nodes in [1, 2, 4, 8, 16].map(|eighth| network.nodes * eighth / 8) {
        let costs = costs(network, nodes, Places::Own)?;
        growth.push(format!("{nodes}: {:.1}", on_one_core(&costs, rounds)?));
    }
    rows.push(memory(network, limit(250.0))?);
    let dense = format!(
        "dense matrix of seed {}, a provider and a site for each node unless said; one core unless said",
        network.seed
    );
    let growth = format!("growth on one core, ms by nodes: {}", growth.join(", "));
    Ok(Report {
        benchmark: "routes",
        conditions: vec![
            dense,
            "all costs of 0 to 3 relays and all backups are the oracle's".to_owned(),
            growth,
        ],
        rows,
    })
}

/// How the nodes share sites and providers.
#[derive(Clone, Copy)]
enum Places {
    Own,
    Shared,
}

fn costs(network: &Network, nodes: usize, places: Places) -> Result<CostMatrix> {
    let matrix = Matrix::seeded(nodes, network.seed);
    let mut relays = Vec::with_capacity(nodes);
    for number in 1..=nodes {
        let number = u16::try_from(number).context("more nodes than there are node ids")?;
        let (site, provider) = match places {
            Places::Own => (number, number),
            Places::Shared => (number % 300, number % 20),
        };
        relays.push(Relay {
            id: NodeId::new(number).context("node ids begin at 1")?,
            site: site.into(),
            provider: provider.into(),
            transit: RELAY_COST,
        });
    }
    let mut costs = CostMatrix::new(relays)?;
    for from in 0..nodes {
        for to in (0..nodes).filter(|&to| to != from) {
            costs.set(from, to, Cost::from_us(matrix.cost(from, to)));
        }
    }
    Ok(costs)
}

fn against_oracle(places: &str, costs: &CostMatrix, rounds: usize, limit: Option<Limit>) -> Result<Row> {
    let routes = routes(costs, NonZeroUsize::MIN).1;
    let rounds = Rounds::interleaved(
        rounds,
        || {
            let start = Instant::now();
            oracle::check(&routes)?;
            Ok(ms(start))
        },
        || Ok(routes_ms(costs, NonZeroUsize::MIN)),
    )?;
    let what = format!("{} nodes, {places}", costs.len());
    Ok(Row::new(what, "ms", "oracle", rounds, limit))
}

fn two_cores(costs: &CostMatrix, rounds: usize) -> Result<Row> {
    let two = NonZeroUsize::MIN.saturating_add(1);
    let rounds = Rounds::interleaved(
        rounds,
        || Ok(routes_ms(costs, NonZeroUsize::MIN)),
        || Ok(routes_ms(costs, two)),
    )?;
    let what = format!("{} nodes, own sites, two cores", costs.len());
    Ok(Row::new(what, "ms", "one core", rounds, None))
}

/// The median time of a leg's change, of many in a row that raise and lower it by up to a half.
fn one_leg(seed: u64, costs: &CostMatrix, rounds: usize, limit: Option<Limit>) -> Result<Row> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut routes = routes(costs, NonZeroUsize::MIN).1;
    let rounds = Rounds::interleaved(
        rounds,
        || Ok(routes_ms(costs, NonZeroUsize::MIN)),
        || {
            let mut times = Vec::with_capacity(CHANGES);
            while times.len() < CHANGES {
                let (from, to) = (
                    random.random_range(0..costs.len()),
                    random.random_range(0..costs.len()),
                );
                let share = random.random_range(500..1500);
                let us = u64::from(costs.leg(from, to).us()) * share / 1000;
                let start = Instant::now();
                routes.set_leg(from, to, Cost::from_us(u32::try_from(us)?));
                times.push(ms(start));
            }
            median(&times).context("no leg was changed")
        },
    )?;
    oracle::check(&routes)?;
    let what = format!("{} nodes, one leg changed", costs.len());
    Ok(Row::new(what, "ms", "all pairs anew", rounds, limit))
}

/// The process's peak while it computes the routes of twice as many nodes, their costs included.
fn memory(network: &Network, limit: Option<Limit>) -> Result<Row> {
    let nodes = network.nodes * 2;
    let rounds = Rounds::interleaved(
        1,
        || {
            Ok(memory::mebibytes(u64::try_from(
                nodes * nodes * size_of::<u32>(),
            )?))
        },
        || {
            let costs = costs(network, nodes, Places::Own)?;
            memory::peak_mib(|| best(costs, MAX_RELAYS, NonZeroUsize::MIN))
        },
    )?;
    let what = format!("{nodes} nodes, peak memory of the process");
    Ok(Row::new(what, "MiB", "one matrix", rounds, limit))
}

fn on_one_core(costs: &CostMatrix, rounds: usize) -> Result<f64> {
    let times: Vec<f64> = (0..rounds).map(|_| routes_ms(costs, NonZeroUsize::MIN)).collect();
    median(&times).context("no round")
}

fn routes_ms(costs: &CostMatrix, threads: NonZeroUsize) -> f64 {
    routes(costs, threads).0
}

fn routes(costs: &CostMatrix, threads: NonZeroUsize) -> (f64, Routes) {
    let costs = costs.clone();
    let start = Instant::now();
    let routes = best(costs, MAX_RELAYS, threads);
    (ms(start), routes)
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
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
        assert_eq!(report.rows.len(), 6);
        assert!(report.rows.iter().all(|row| row.limit.is_none()));
    }
}
