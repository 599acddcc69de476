//! `kuafu routes`.

use kuafu_proto::v1::{
    HostStatus, PairStatus, PathStatus, RouteInfo, RoutesAnswer, RoutesRequest, StatusQuery,
};

use crate::args::Global;
use crate::ask::{self, Whom};
use crate::failure::Result;
use crate::out::{Output, columns, ms, or_dash};

/// Print each pair of nodes: direct, best, path, backup, and why
///
/// Times are estimated round trips in milliseconds. A path is given by the nodes between its ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu routes
  kuafu routes --node osaka -o json")]
pub(crate) struct Args {
    /// Only pairs that begin or end at this node
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let node = args.node.unwrap_or_default();
    let answer = match Whom::find(global).await? {
        Whom::Controller(mut controller) => {
            let answer = controller.api.routes(RoutesRequest { node }).await;
            controller.unwrap(answer)?
        }
        Whom::Agent(mut agent) => {
            let mut answer = of_host(&ask::unwrap_local(agent.status(StatusQuery {}).await)?);
            answer
                .routes
                .retain(|route| node.is_empty() || route.entry == node || route.exit == node);
            answer
        }
    };
    args.output.print(&answer, |answer| table(&answer.routes))
}

fn table(routes: &[RouteInfo]) -> String {
    let headings = [
        "ENTRY", "EXIT", "CLASS", "DIRECT", "BEST", "IN USE", "PATH", "BACKUP", "WHY",
    ];
    columns(headings, routes.iter().map(row))
}

fn row(route: &RouteInfo) -> [String; 9] {
    [
        route.entry.clone(),
        route.exit.clone(),
        route.class.clone(),
        or_dash(route.direct_ms.map(ms)),
        or_dash(route.best_ms.map(ms)),
        or_dash(route.path_ms.map(ms)),
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
    RoutesAnswer { routes }
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
