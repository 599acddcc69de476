//! The exact paths of a matrix of measured round trips.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use anyhow::Context;
use kuafu_topology::routes::{CostMatrix, MAX_RELAYS, Route, Routes, best, oracle};
use kuafu_topology::{Cost, Matrix};
use serde::Serialize;

use super::Args;
use crate::args::milliseconds;
use crate::failure::Result;
use crate::out::{self, columns, or_dash};

/// What is asked of a matrix.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// Milliseconds that passing each relay adds
    #[arg(long, value_name = "MS", default_value = "0", requires = "matrix", value_parser = milliseconds)]
    relay_ms: f64,
    /// Relays on a path at most
    #[arg(long, value_name = "N", default_value_t = 3, requires = "matrix",
          value_parser = clap::value_parser!(u8).range(1..=3))]
    max_relays: u8,
}

/// A pair; nothing where there is no path. `T` is how a number of milliseconds is told.
#[derive(Debug, Serialize)]
struct Row<T> {
    src: String,
    dst: String,
    direct_ms: Option<T>,
    best_1relay_ms: Option<T>,
    best_2relay_ms: Option<T>,
    best_3relay_ms: Option<T>,
    path: Option<String>,
    backup: Option<String>,
    backup_ms: Option<T>,
}

pub(super) fn print(file: &Path, args: &Args) -> Result {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let matrix = Matrix::parse(&text).with_context(|| format!("{} is no latency matrix", file.display()))?;
    let transit = Cost::from_us_f64(args.asked.relay_ms * 1000.0);
    let costs = CostMatrix::of_matrix(&matrix, transit).with_context(|| file.display().to_string())?;
    if let Some(node) = &args.node
        && matrix.index_of(node).is_none()
    {
        return Err(anyhow::anyhow!("{} has no place {node:?}", file.display()).into());
    }
    let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let routes = best(costs, args.asked.max_relays.into(), threads);
    if args.verify {
        let pairs = oracle::check(&routes)?;
        return out::print(&format!(
            "{pairs} pairs: all costs of 0 to {} relays and all backups are the oracle's\n",
            args.asked.max_relays
        ));
    }
    let node = args.node.as_deref();
    let (numbers, digits) = (
        rows(&matrix, &routes, node, Cost::ms),
        rows(&matrix, &routes, node, digits),
    );
    args.format.print(&numbers, &digits, || table(&digits))
}

/// To the microsecond, as costs are kept.
fn digits(cost: Cost) -> String {
    format!("{:.3}", cost.ms())
}

/// Every ordered pair, in the order of the file.
fn rows<T>(matrix: &Matrix, routes: &Routes, node: Option<&str>, number: fn(Cost) -> T) -> Vec<Row<T>> {
    let names = matrix.names();
    let ends = (0..names.len()).flat_map(|from| (0..names.len()).map(move |to| (from, to)));
    let asked = |&(from, to): &(usize, usize)| {
        from != to && node.is_none_or(|node| names[from] == node || names[to] == node)
    };
    ends.filter(asked)
        .map(|ends| row(names, routes, ends, number))
        .collect()
}

fn row<T>(names: &[String], routes: &Routes, (from, to): (usize, usize), number: fn(Cost) -> T) -> Row<T> {
    let path = |route: &Route| {
        let nodes = [from].into_iter().chain(route.relays.iter().copied()).chain([to]);
        nodes
            .map(|node| names[node].as_str())
            .collect::<Vec<_>>()
            .join(">")
    };
    let cost = |route: &Route| number(route.cost);
    let least = |relays: usize| {
        let asked = relays <= routes.max_relays();
        asked
            .then(|| routes.within(from, to, relays))
            .flatten()
            .as_ref()
            .map(cost)
    };
    let (primary, backup) = (routes.primary(from, to), routes.backup(from, to));
    const { assert!(MAX_RELAYS == 3, "a column for each") };
    Row {
        src: names[from].clone(),
        dst: names[to].clone(),
        direct_ms: least(0),
        best_1relay_ms: least(1),
        best_2relay_ms: least(2),
        best_3relay_ms: least(3),
        path: primary.as_ref().map(path),
        backup: backup.as_ref().map(path),
        backup_ms: backup.as_ref().map(cost),
    }
}

fn table(rows: &[Row<String>]) -> String {
    let headings = [
        "SRC",
        "DST",
        "DIRECT",
        "1 RELAY",
        "2 RELAYS",
        "3 RELAYS",
        "PATH",
        "BACKUP",
        "BACKUP MS",
    ];
    let cells = |row: &Row<String>| {
        [
            row.src.clone(),
            row.dst.clone(),
            or_dash(row.direct_ms.as_ref()),
            or_dash(row.best_1relay_ms.as_ref()),
            or_dash(row.best_2relay_ms.as_ref()),
            or_dash(row.best_3relay_ms.as_ref()),
            or_dash(row.path.as_ref()),
            or_dash(row.backup.as_ref()),
            or_dash(row.backup_ms.as_ref()),
        ]
    };
    columns(headings, rows.iter().map(cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str, transit: Cost, max_relays: usize) -> Vec<Row<String>> {
        let matrix = Matrix::parse(text).unwrap();
        let routes = best(
            CostMatrix::of_matrix(&matrix, transit).unwrap(),
            max_relays,
            NonZeroUsize::MIN,
        );
        rows(&matrix, &routes, None, digits)
    }

    const FOUR: &str = ",a,b,c,d\na,0,10,,50\nb,10,0,10.25,40\nc,,10,0,10\nd,50,40,10,\n";

    #[test]
    fn a_matrix_as_csv() {
        insta::assert_snapshot!(
            super::super::csv(&routes(FOUR, Cost::from_us(1000), 3))
                .ok()
                .unwrap()
        );
    }

    #[test]
    fn a_matrix_as_a_table_with_one_relay_at_most() {
        insta::assert_snapshot!(table(&routes(FOUR, Cost::ZERO, 1)));
    }
}
