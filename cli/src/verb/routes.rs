//! `kuafu routes`.

mod matrix;
mod verify;

use std::path::PathBuf;

use kuafu_proto::v1::{
    HostStatus, PairStatus, PathStatus, RouteInfo, RoutesAnswer, RoutesRequest, StatusQuery,
};

use serde::Serialize;

use self::matrix::Asked;
use crate::args::Global;
use crate::ask::{self, Whom};
use crate::failure::Result;
use crate::out::{self, columns, ms, or_dash};

/// Print each pair of nodes: direct, best, path, backup, and why
///
/// Times are estimated round trips in milliseconds, costs what the choice is made by. A path is given by the nodes
/// between its ends. USD/GB is what the nodes' prices make a GB over the path in use cost, both directions alike.
///
/// With --matrix, nothing is asked of a cluster: printed are the exact paths of a matrix of measured round trips, for
/// every ordered pair, each cell taken as it is and X added for each relay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu routes
  kuafu routes --node osaka -o json
  kuafu routes --verify
  kuafu routes --matrix latency.csv --relay-ms 1 -o csv")]
pub(crate) struct Args {
    /// Only pairs that begin or end at this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Compute every pair's paths anew by a plain dynamic programme, and compare
    #[arg(long)]
    verify: bool,
    /// Of this matrix instead: CSV, a header of names, then a name and its round trips in ms per line; an empty cell
    /// is an unusable leg
    #[arg(long, value_name = "FILE")]
    matrix: Option<PathBuf>,
    #[command(flatten)]
    asked: Asked,
    /// Print as a table for people, or as JSON, YAML or CSV for programs
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// How routes are printed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// Columns, for people.
    Table,
    /// Indented JSON.
    Json,
    /// YAML.
    Yaml,
    /// CSV with a header.
    Csv,
}

impl Format {
    /// Prints a value: by `table` for people, its rows as CSV, else as it is.
    fn print<T: Serialize, R: Serialize>(
        self,
        value: &T,
        rows: &[R],
        table: impl FnOnce() -> String,
    ) -> Result {
        let format = match self {
            Self::Csv => return out::print(&csv(rows)?),
            Self::Table => out::Format::Table,
            Self::Json => out::Format::Json,
            Self::Yaml => out::Format::Yaml,
        };
        out::Output { format }.print(value, |_| table())
    }
}

fn csv(rows: &[impl Serialize]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    let octets = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
    Ok(String::from_utf8(octets)?)
}

pub(crate) fn run(global: &Global, args: Args) -> Result {
    match &args.matrix {
        Some(file) => matrix::print(file, &args),
        None => crate::verb::wait_for(live(global, args)),
    }
}

async fn live(global: &Global, args: Args) -> Result {
    let node = args.node.unwrap_or_default();
    let verify = args.verify;
    let mut answer = match Whom::find(global).await? {
        Whom::Controller(mut controller) => {
            let answer = controller.api.routes(RoutesRequest { node, verify }).await;
            controller.unwrap(answer)?
        }
        Whom::Agent(_) if verify => {
            return Err(anyhow::anyhow!("--verify needs the controller: a host alone knows no costs").into());
        }
        Whom::Agent(mut agent) => {
            let mut answer = of_host(&ask::unwrap_local(agent.status(StatusQuery {}).await)?);
            answer
                .routes
                .retain(|route| node.is_empty() || route.entry == node || route.exit == node);
            answer
        }
    };
    if verify {
        verify::check(std::mem::take(&mut answer.costs), &answer.routes)
    } else {
        let rows: Vec<Row<'_>> = answer.routes.iter().map(Row::of).collect();
        args.format.print(&answer, &rows, || table(&answer.routes))
    }
}

/// A line of CSV.
#[derive(Serialize)]
struct Row<'a> {
    src: &'a str,
    dst: &'a str,
    class: &'a str,
    direct_ms: Option<f64>,
    best_ms: Option<f64>,
    path_ms: Option<f64>,
    backup_ms: Option<f64>,
    direct_cost_ms: Option<f64>,
    best_cost_ms: Option<f64>,
    path_cost_ms: Option<f64>,
    backup_cost_ms: Option<f64>,
    usd_per_gb: f64,
    best: String,
    path: String,
    backup: String,
    why: &'a str,
}

impl<'a> Row<'a> {
    fn of(route: &'a RouteInfo) -> Self {
        Self {
            src: &route.entry,
            dst: &route.exit,
            class: &route.class,
            direct_ms: route.direct_ms,
            best_ms: route.best_ms,
            path_ms: route.path_ms,
            backup_ms: route.backup_ms,
            direct_cost_ms: route.direct_cost_ms,
            best_cost_ms: route.best_cost_ms,
            path_cost_ms: route.path_cost_ms,
            backup_cost_ms: route.backup_cost_ms,
            usd_per_gb: route.usd_per_gb,
            best: route.best.join(">"),
            path: route.path.join(">"),
            backup: route.backup.join(">"),
            why: &route.why,
        }
    }
}

fn table(routes: &[RouteInfo]) -> String {
    let headings = [
        "ENTRY", "EXIT", "CLASS", "DIRECT", "BEST", "IN USE", "COST", "USD/GB", "PATH", "BACKUP", "WHY",
    ];
    columns(headings, routes.iter().map(row))
}

fn row(route: &RouteInfo) -> [String; 11] {
    [
        route.entry.clone(),
        route.exit.clone(),
        route.class.clone(),
        or_dash(route.direct_ms.map(ms)),
        or_dash(route.best_ms.map(ms)),
        or_dash(route.path_ms.map(ms)),
        or_dash(route.path_cost_ms.map(ms)),
        or_dash(Some(route.usd_per_gb).filter(|usd| *usd > 0.0)),
        way(&route.path),
        way(&route.backup),
        route.why.clone(),
    ]
}

/// A path by what is between its ends.
fn way(nodes: &[String]) -> String {
    match nodes {
        [] => "-".to_owned(),
        [_] | [_, _] => "direct".to_owned(),
        [_, relays @ .., _] => format!("via {}", relays.join(", ")),
    }
}

/// What a host without a controller knows of its own pairs.
fn of_host(status: &HostStatus) -> RoutesAnswer {
    let routes = status.pairs.iter().map(|pair| of_pair(status, pair)).collect();
    let costs = Vec::new();
    RoutesAnswer { routes, costs }
}

fn of_pair(status: &HostStatus, pair: &PairStatus) -> RouteInfo {
    let path =
        |index: Option<u32>| index.and_then(|index| status.paths.iter().find(|path| path.index == index));
    let (primary, backup) = (path(pair.primary), path(pair.backup));
    let direct = status
        .paths
        .iter()
        .find(|path| path.nodes.len() == 2 && path.nodes.last() == Some(&pair.peer));
    let time = |path: Option<&PathStatus>| {
        path.filter(|path| path.rtt_ewma_us != 0)
            .map(|path| f64::from(path.rtt_ewma_us) / 1000.0)
    };
    let nodes = |path: Option<&PathStatus>| path.map(|path| path.nodes.clone()).unwrap_or_default();
    let why = if pair.down {
        "the primary path is stale: the backup carries"
    } else {
        "as last told by the controller"
    };
    let used = if pair.down { backup } else { primary };
    RouteInfo {
        entry: status.node.clone(),
        exit: pair.peer.clone(),
        class: pair.class.clone(),
        direct_ms: time(direct),
        best_ms: None,
        path_ms: time(used),
        backup_ms: time(backup),
        best: Vec::new(),
        path: nodes(used),
        backup: nodes(backup),
        why: why.to_owned(),
        ..RouteInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_alone_knows_its_pairs_and_their_paths() {
        let path = |index, nodes: &[&str], rtt_ewma_us| PathStatus {
            index,
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            rtt_ewma_us,
            ..PathStatus::default()
        };
        let status = HostStatus {
            node: "osaka".to_owned(),
            paths: vec![
                path(1, &["osaka", "cape"], 374_000),
                path(2, &["osaka", "virginia", "cape"], 0),
            ],
            pairs: vec![PairStatus {
                peer: "cape".to_owned(),
                class: "game".to_owned(),
                primary: Some(2),
                backup: Some(1),
                down: true,
                ..PairStatus::default()
            }],
            ..HostStatus::default()
        };
        insta::assert_snapshot!(table(&of_host(&status).routes));
    }
}
