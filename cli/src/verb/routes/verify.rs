//! The live routes against the oracle.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::thread;

use anyhow::{Context, ensure};
use kuafu_proto::v1::{LegCosts, RouteInfo};
use kuafu_topology::routes::{CostMatrix, MAX_RELAYS, Relay, Routes, best, oracle};
use kuafu_topology::{Cost, NodeId};

use crate::failure::{Failure, Result};
use crate::out;

/// Computes the paths of every pair of nodes from the costs of all legs and relays, checks them by the oracle, and the best path
/// that the controller found for each of these pairs by both. Says what was compared.
pub(super) fn check(costs: Vec<LegCosts>, live: &[RouteInfo]) -> Result {
    let mut text = String::new();
    let mut differ = 0;
    for class in costs {
        let names: Vec<String> = class.nodes.iter().map(|node| node.node.clone()).collect();
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let routes = best(matrix(&class)?, MAX_RELAYS, threads);
        let pairs = oracle::check(&routes).with_context(|| format!("class {}", class.class))?;
        let is_of = |route: &&RouteInfo| {
            let mut pairs = class.pairs.iter();
            route.class == class.class
                && pairs.any(|pair| pair.entry == route.entry && pair.exit == route.exit)
        };
        let live: Vec<&RouteInfo> = live.iter().filter(is_of).collect();
        let other = live.iter().filter_map(|route| other(route, &names, &routes));
        let other: Vec<String> = other.collect();
        writeln!(
            text,
            "{}: {pairs} pairs of {} nodes, all costs of 0 to 3 relays and all backups are the oracle's; {} of {} \
             pairs in use have its best path",
            class.class,
            names.len(),
            live.len() - other.len(),
            live.len()
        )?;
        differ += other.len();
        text.extend(other.into_iter().map(|line| line + "\n"));
    }
    if text.is_empty() {
        "nothing is measured yet\n".clone_into(&mut text);
    }
    out::print(&text)?;
    if differ == 0 { Ok(()) } else { Err(Failure::Told) }
}

fn matrix(class: &LegCosts) -> anyhow::Result<CostMatrix> {
    let n = class.nodes.len();
    ensure!(
        class.legs_us.len() == n * n,
        "{} costs for the legs of {n} nodes",
        class.legs_us.len()
    );
    let mut relays = Vec::with_capacity(n);
    for node in &class.nodes {
        let number = u16::try_from(node.number).ok().and_then(NodeId::new);
        relays.push(Relay {
            id: number.with_context(|| format!("{} is no node's number", node.number))?,
            site: node.site,
            provider: node.provider,
            transit: Cost::from_us(node.transit_us),
        });
    }
    let mut costs = CostMatrix::new(relays)?;
    for from in 0..n {
        for to in 0..n {
            costs.set(from, to, Cost::from_us(class.legs_us[n * from + to]));
        }
    }
    Ok(costs)
}

/// How the best path of a pair differs from the oracle's.
fn other(route: &RouteInfo, names: &[String], routes: &Routes) -> Option<String> {
    let index = |name: &String| names.iter().position(|known| known == name);
    let (from, to) = (index(&route.entry)?, index(&route.exit)?);
    let expected = routes.primary(from, to).map(|route| route.cost.ms());
    let same = match (route.best_cost_ms, expected) {
        (Some(found), Some(expected)) => (found - expected).abs() < 1e-3,
        (found, expected) => found.is_none() && expected.is_none(),
    };
    let cost = |ms: Option<f64>| ms.map_or("no path".to_owned(), |ms| format!("{ms:.3} ms"));
    (!same).then(|| {
        format!(
            "{} to {}: the best is {}, the oracle's {} (a path that is down is left out)",
            route.entry,
            route.exit,
            cost(route.best_cost_ms),
            cost(expected)
        )
    })
}

#[cfg(test)]
mod tests {
    use kuafu_proto::v1::{Ends, RelayCost};

    use super::*;

    fn class() -> LegCosts {
        let node = |number: u32| RelayCost {
            node: format!("n{number}"),
            number,
            site: number,
            provider: number,
            transit_us: 1_000,
        };
        LegCosts {
            pairs: vec![Ends {
                entry: "n1".to_owned(),
                exit: "n2".to_owned(),
            }],
            class: "game".to_owned(),
            nodes: (1..=3).map(node).collect(),
            legs_us: vec![0, 90_000, 30_000, 90_000, 0, 20_000, 30_000, 20_000, 0],
        }
    }

    fn live(best_cost_ms: f64) -> RouteInfo {
        RouteInfo {
            entry: "n1".to_owned(),
            exit: "n2".to_owned(),
            class: "game".to_owned(),
            best_cost_ms: Some(best_cost_ms),
            ..RouteInfo::default()
        }
    }

    #[test]
    fn the_oracle_agrees_or_the_pair_is_named() {
        assert!(check(vec![class()], &[live(51.0)]).is_ok());
        assert!(matches!(check(vec![class()], &[live(90.0)]), Err(Failure::Told)));
    }

    #[test]
    fn costs_of_other_nodes_are_refused() {
        let mut class = class();
        class.legs_us.pop();
        let error = matrix(&class).unwrap_err().to_string();
        assert_eq!(error, "8 costs for the legs of 3 nodes");
    }
}
