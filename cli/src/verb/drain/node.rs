//! A node: no path passes it, and what it announced others do.

use anyhow::{anyhow, ensure};
use kuafu_model::kinds::{Kind, Name};
use kuafu_proto::v1::{ClusterStatus, GetRequest, ManifestFile};
use serde_json::{Value, json};

use super::Left;
use crate::ask::Controller;

/// The node as it is declared, but for its drain.
pub(super) async fn declared(
    controller: &mut Controller,
    node: &Name,
    drain: bool,
) -> anyhow::Result<ManifestFile> {
    let request = GetRequest {
        kind: Kind::Node.word().to_owned(),
        name: node.to_string(),
    };
    let answer = controller.api.get(request).await;
    let answer = controller.unwrap(answer)?;
    ensure!(!answer.objects.is_empty(), "no node is called {node}");
    let mut object: Value = serde_json::from_str(&answer.json)?;
    let spec = object.get_mut("spec").and_then(Value::as_object_mut);
    let spec = spec.ok_or_else(|| anyhow!("the controller does not say how node/{node} is declared"))?;
    spec.insert("drain".to_owned(), json!(drain));
    Ok(ManifestFile {
        name: format!("node/{node}"),
        text: object.to_string(),
    })
}

/// The paths over it, and the addresses that it announces where another node may.
pub(super) fn left(status: &ClusterStatus, node: &Name) -> Left {
    let (over, announced) = (over(status, node.as_str()), announced(status, node.as_str()));
    let (what, advice) = match announced {
        0 => ("paths over", "kuafu routes says why each stays"),
        _ => (
            "paths over, or addresses at,",
            "kuafu routes and kuafu status say why each stays",
        ),
    };
    Left {
        count: over + announced,
        what: format!("{what} node/{node}"),
        gone: format!("Nothing passes node/{node} any more."),
        advice,
        silent: unknown(status),
    }
}

/// Paths in force that pass the node between their ends.
fn over(status: &ClusterStatus, node: &str) -> u64 {
    let hosts = status.hosts.iter().filter_map(|host| host.status.as_ref());
    let paths = hosts.flat_map(|host| &host.paths);
    let passes = |nodes: &[String]| match nodes {
        [_, relays @ .., _] => relays.iter().any(|relay| relay == node),
        _ => false,
    };
    paths.filter(|path| passes(&path.nodes)).count() as u64
}

/// Addresses that are for the node to announce, and that another host knows too.
fn announced(status: &ClusterStatus, node: &str) -> u64 {
    let hosts = || status.hosts.iter().filter_map(|host| host.status.as_ref());
    let own = hosts().filter(|host| host.node == node);
    let others = || hosts().filter(|host| host.node != node);
    let is_shared = |address: &str| {
        let mut known = others().flat_map(|host| &host.announcements);
        known.any(|one| one.address == address)
    };
    let here = own
        .flat_map(|host| &host.announcements)
        .filter(|one| one.standing != "standby");
    here.filter(|one| is_shared(&one.address)).count() as u64
}

/// Connected hosts that did not say how they are.
fn unknown(status: &ClusterStatus) -> Vec<String> {
    let silent = status
        .hosts
        .iter()
        .filter(|host| host.connected && host.status.is_none());
    silent.map(|host| host.node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use kuafu_proto::v1::{AnnouncementStatus, HostEntry, HostStatus, PathStatus};

    use super::*;

    #[test]
    fn what_a_node_announces_is_counted_where_others_may() {
        let host = |node: &str, announcements: &[(&str, &str)]| {
            let one = |(address, standing): &(&str, &str)| AnnouncementStatus {
                address: (*address).to_owned(),
                standing: (*standing).to_owned(),
                ..AnnouncementStatus::default()
            };
            HostEntry {
                status: Some(HostStatus {
                    node: node.to_owned(),
                    announcements: announcements.iter().map(one).collect(),
                    ..HostStatus::default()
                }),
                ..HostEntry::default()
            }
        };
        let of_x = [
            ("1", "announced"),
            ("2", "standby"),
            ("3", "failed"),
            ("4", "announced"),
        ];
        let others = [("1", "standby"), ("2", "announced"), ("3", "standby")];
        let status = ClusterStatus {
            hosts: vec![host("x", &of_x), host("y", &others)],
            ..ClusterStatus::default()
        };
        assert_eq!((announced(&status, "x"), announced(&status, "y")), (2, 1));
        assert_eq!(announced(&status, "z"), 0);
    }

    #[test]
    fn what_passes_a_node_is_counted_and_its_own_ends_are_not() {
        let path = |nodes: &[&str]| PathStatus {
            nodes: nodes.iter().map(ToString::to_string).collect(),
            ..PathStatus::default()
        };
        let host = |paths| HostEntry {
            connected: true,
            status: Some(HostStatus {
                paths,
                ..HostStatus::default()
            }),
            ..HostEntry::default()
        };
        let mut status = ClusterStatus {
            hosts: vec![
                host(vec![
                    path(&["a", "x", "b"]),
                    path(&["a", "x"]),
                    path(&["a", "y", "x", "b"]),
                ]),
                host(vec![path(&["x", "y", "b"]), path(&["b", "x", "a"])]),
            ],
            ..ClusterStatus::default()
        };
        assert_eq!(over(&status, "x"), 3);
        assert!(unknown(&status).is_empty());
        status.hosts[1].node = "b".to_owned();
        status.hosts[1].status = None;
        assert_eq!(unknown(&status), ["b"]);
    }
}
