//! What is wrong with a cluster, by its hosts' own words and by what the controller sees of them.

use std::collections::BTreeSet;

use kuafu_proto::v1::{ClusterStatus, Fallback, Fault, HostEntry, HostStatus, ScalingStatus};

use super::backbone::{Cause, causes};
use crate::verb::version::misfit;

/// A map so full is a fault, in percent: the next apply may be refused.
const FULL: u64 = 90;

/// Every fault once, by its cause, with what follows from it.
pub(super) fn of(status: &ClusterStatus) -> Vec<Fault> {
    let mut causes = causes(status);
    let mut faults = Vec::new();
    for host in status.hosts.iter().filter(|host| !host.foreign) {
        let node = Cause::Node(host.node.clone());
        let dead = if host.connected {
            None
        } else {
            causes.remove(&node)
        };
        if let Some((fault, consequences)) = of_stream(host, dead.as_ref()) {
            faults.push(Fault {
                host: host.node.clone(),
                fault,
                consequences,
            });
        }
        faults.extend(
            misfit(status, host)
                .filter(|_| host.connected)
                .map(|fault| Fault {
                    host: host.node.clone(),
                    fault,
                    consequences: Vec::new(),
                }),
        );
        let own = host.status.as_ref().map(of_host).unwrap_or_default();
        faults.extend(own);
    }
    faults.extend(status.fallbacks.iter().map(without_a_path));
    let failing = status.scalings.iter().filter(|scaling| !scaling.fault.is_empty());
    faults.extend(failing.map(without_a_hook));
    faults.extend(status.selecting_nobody.iter().map(without_a_target));
    faults.extend(causes.into_iter().map(|(cause, follows)| Fault {
        host: cause.host().to_owned(),
        fault: cause.told(),
        consequences: follows.into_iter().collect(),
    }));
    faults
}

/// An entry that does without the backbone. Why no path lives is said by other faults, if anybody knows.
fn without_a_path(fallback: &Fallback) -> Fault {
    let (accelerator, exits) = (&fallback.accelerator, fallback.exits.join(", "));
    Fault {
        host: fallback.entry.clone(),
        fault: format!(
            "accelerator {accelerator}: no path to {exits} lives, so it forwards to the servers over the Internet"
        ),
        consequences: Vec::new(),
    }
}

/// A hook that does not say which targets there are.
fn without_a_hook(scaling: &ScalingStatus) -> Fault {
    let (service, url, why) = (&scaling.service, &scaling.url, &scaling.fault);
    Fault {
        host: "controller".to_owned(),
        fault: format!("service {service}: its scaling hook {url} {why}"),
        consequences: vec![format!(
            "service {service} keeps the {} targets that it named last",
            scaling.named
        )],
    }
}

/// A service that selects nobody.
fn without_a_target(service: &String) -> Fault {
    Fault {
        host: "controller".to_owned(),
        fault: format!("service {service}: nothing has the labels that it selects"),
        consequences: vec![format!(
            "service {service} has no target: packets to it are dropped (no_target)"
        )],
    }
}

/// What the controller sees of a host's stream; where it is away, with what no longer comes back from it.
fn of_stream(host: &HostEntry, dead: Option<&BTreeSet<String>>) -> Option<(String, Vec<String>)> {
    let plain = |fault: String| Some((fault, Vec::new()));
    if !host.connected {
        let joined = host.acked > 0 || !host.version.is_empty();
        let word = match (joined, dead) {
            (false, _) => "never connected: no agent has joined under this name (kuafu node token)",
            (true, None) => {
                "not connected: its agent is down, or cannot reach the controller; what it last had in force forwards on"
            }
            (true, Some(_)) => "down or cut off: its agent is not connected, and nothing comes back from it",
        };
        let follows = dead.map(|dead| dead.iter().cloned().collect());
        return Some((word.to_owned(), follows.unwrap_or_default()));
    }
    if !host.refused.is_empty() {
        return plain(format!("refuses revision {}: {}", host.revision, host.refused));
    }
    if host.status.is_none() {
        return plain("connected, but does not say how it is".to_owned());
    }
    None
}

/// What a host says of itself.
fn of_host(own: &HostStatus) -> Vec<Fault> {
    let mut words = own.faults.clone();
    for (subject, fault) in of_own(own) {
        // What the host has named already is not named again.
        if !words.iter().any(|word| word.contains(&subject)) {
            words.push(fault);
        }
    }
    let unwatched = || {
        let pairs = own.pairs.iter();
        let pairs = pairs.map(|pair| {
            let (from, to, class) = (&own.node, &pair.peer, &pair.class);
            format!("pair {from} > {to} ({class}) does not fail over")
        });
        pairs.collect()
    };
    let fault = |fault: String| Fault {
        host: own.node.clone(),
        consequences: if fault.starts_with("liveness") {
            unwatched()
        } else {
            Vec::new()
        },
        fault,
    };
    words.into_iter().map(fault).collect()
}

/// What a host's own answer shows, each with the word by which it would be named.
fn of_own(status: &HostStatus) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    if !status.liveness && !status.paths.is_empty() {
        let fault = "liveness: off: the prober is silent, so no path fails over (kuafu probe)";
        faults.push(("liveness".to_owned(), fault.to_owned()));
    }
    for port in status.ports.iter().filter(|port| !port.attached) {
        let fault = format!("port {} waits for its interface {}", port.name, port.interface);
        faults.push((port.name.clone(), fault));
    }
    for one in &status.announcements {
        let (address, reach, reason) = (&one.address, &one.reach, &one.reason);
        let fault = match one.standing.as_str() {
            "failed" => format!("{address} is not announced by {reach}: {reason}"),
            "announced" if !reason.is_empty() => format!("{address} is announced by {reach}, but {reason}"),
            _ => continue,
        };
        faults.push((address.clone(), fault));
    }
    for map in status
        .maps
        .iter()
        .filter(|map| map.capacity > 0 && map.entries * 100 >= map.capacity * FULL)
    {
        let fault = format!(
            "the map {} is nearly full: {} of {} entries",
            map.name, map.entries, map.capacity
        );
        faults.push((format!("map {}", map.name), fault));
    }
    faults
}

#[cfg(test)]
mod tests {
    use kuafu_proto::v1::{AnnouncementStatus, LegInfo, PairStatus, PathStatus};

    use super::*;

    /// Hosts a, b and c, all measured; a's pair with c goes over b, and direct is its backup.
    fn cluster() -> ClusterStatus {
        let hosts = ["a", "b", "c"].map(|name| {
            let others = ["a", "b", "c"].into_iter().filter(|other| *other != name);
            let mut own = HostStatus {
                node: name.to_owned(),
                liveness: true,
                paths: others.clone().map(|other| path(&[name, other])).collect(),
                ..HostStatus::default()
            };
            for (index, path) in (1..).zip(&mut own.paths) {
                path.index = index;
            }
            HostEntry {
                node: name.to_owned(),
                connected: true,
                acked: 1,
                legs: others
                    .map(|other| LegInfo {
                        to: other.to_owned(),
                        ..LegInfo::default()
                    })
                    .collect(),
                status: Some(own),
                ..HostEntry::default()
            }
        });
        let mut status = ClusterStatus {
            hosts: hosts.to_vec(),
            ..ClusterStatus::default()
        };
        for (end, peer) in [("a", "c"), ("c", "a")] {
            let own = own(&mut status, end);
            own.paths.push(PathStatus {
                index: 9,
                ..path(&[end, "b", peer])
            });
            own.pairs.push(PairStatus {
                peer: peer.to_owned(),
                class: "game".to_owned(),
                primary: Some(9),
                ..PairStatus::default()
            });
        }
        status
    }

    #[test]
    fn an_address_that_cannot_be_announced_is_a_fault_and_one_that_is_withheld_is_none() {
        let mut status = cluster();
        let one = |address: &str, standing: &str, reason: &str| AnnouncementStatus {
            address: address.to_owned(),
            reach: "bgp".to_owned(),
            standing: standing.to_owned(),
            reason: reason.to_owned(),
        };
        own(&mut status, "b").announcements = vec![
            one(
                "203.0.113.1",
                "failed",
                "gobgpd is not installed: apt install gobgpd",
            ),
            one("203.0.113.2", "withheld", "no server behind it serves"),
            one("203.0.113.3", "announced", ""),
            one(
                "203.0.113.4",
                "announced",
                "not to all routers: no BGP session with 192.0.2.253",
            ),
        ];
        let faults: Vec<String> = of(&status).into_iter().map(|fault| fault.fault).collect();
        assert_eq!(
            faults,
            [
                "203.0.113.1 is not announced by bgp: gobgpd is not installed: apt install gobgpd",
                "203.0.113.4 is announced by bgp, but not to all routers: no BGP session with 192.0.2.253"
            ]
        );
    }

    fn path(nodes: &[&str]) -> PathStatus {
        PathStatus {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            state: "fresh".to_owned(),
            last_echo_ms: Some(20),
            ..PathStatus::default()
        }
    }

    fn host<'a>(status: &'a mut ClusterStatus, name: &str) -> &'a mut HostEntry {
        let mut hosts = status.hosts.iter_mut();
        hosts.find(|host| host.node == name).unwrap()
    }

    fn own<'a>(status: &'a mut ClusterStatus, name: &str) -> &'a mut HostStatus {
        host(status, name).status.as_mut().unwrap()
    }

    /// Nothing comes back on what passes these nodes in a row.
    fn silence(status: &mut ClusterStatus, dead: impl Fn(&[String]) -> bool) {
        let owns = status.hosts.iter_mut().filter_map(|host| host.status.as_mut());
        for own in owns {
            for path in own.paths.iter_mut().filter(|path| dead(&path.nodes)) {
                path.state = "down".to_owned();
            }
            for pair in &mut own.pairs {
                let primary = own.paths.iter().find(|path| Some(path.index) == pair.primary);
                pair.down = primary.is_some_and(|path| path.state == "down");
            }
        }
    }

    fn told(status: &ClusterStatus) -> Vec<(String, String, Vec<String>)> {
        let faults = of(status).into_iter();
        faults
            .map(|fault| (fault.host, fault.fault, fault.consequences))
            .collect()
    }

    fn passes(node: &'static str) -> impl Fn(&[String]) -> bool {
        move |nodes| nodes.iter().any(|at| at == node)
    }

    #[test]
    fn a_whole_cluster_has_no_fault() {
        assert_eq!(told(&cluster()), []);
    }

    #[test]
    fn a_host_that_is_down_is_one_fault_with_what_follows() {
        let mut status = cluster();
        silence(&mut status, passes("b"));
        let down = host(&mut status, "b");
        (down.connected, down.status) = (false, None);
        let [(node, fault, follows)] = &told(&status)[..] else {
            panic!("{:?}", told(&status))
        };
        assert_eq!(node, "b");
        assert!(fault.starts_with("down or cut off"), "{fault}");
        let expected = [
            "nothing comes back on its legs with a, c",
            "pair a > c (game) is on its backup",
            "path a > b > c is dead",
        ];
        assert_eq!(follows, &expected);
    }

    #[test]
    fn a_host_whose_agent_alone_is_away_forwards_on() {
        let mut status = cluster();
        let away = host(&mut status, "b");
        (away.connected, away.status) = (false, None);
        let [(_, fault, follows)] = &told(&status)[..] else {
            panic!("{:?}", told(&status))
        };
        assert!(fault.contains("forwards on") && follows.is_empty(), "{fault}");
    }

    #[test]
    fn a_host_that_only_the_controller_reaches_is_named() {
        let mut status = cluster();
        silence(&mut status, passes("b"));
        let [(node, fault, follows)] = &told(&status)[..] else {
            panic!("{:?}", told(&status))
        };
        assert_eq!((node.as_str(), follows.len()), ("b", 3));
        assert!(fault.contains("firewall"), "{fault}");
    }

    #[test]
    fn a_dead_leg_is_one_fault_in_both_directions() {
        let mut status = cluster();
        silence(&mut status, |nodes| {
            let mut legs = nodes.windows(2);
            legs.any(|leg| leg == ["b", "c"] || leg == ["c", "b"])
        });
        let [(node, fault, follows)] = &told(&status)[..] else {
            panic!("{:?}", told(&status))
        };
        assert_eq!(node, "b");
        assert!(fault.starts_with("leg b > c: nothing comes back"), "{fault}");
        let expected = ["pair a > c (game) is on its backup", "path a > b > c is dead"];
        assert_eq!(follows, &expected);
    }

    #[test]
    fn a_path_whose_legs_live_is_a_fault_of_its_own() {
        let mut status = cluster();
        silence(&mut status, |nodes| nodes.len() == 3);
        let [(_, fault, follows)] = &told(&status)[..] else {
            panic!("{:?}", told(&status))
        };
        assert!(fault.starts_with("path a > b > c:"), "{fault}");
        assert_eq!(follows, &["pair a > c (game) is on its backup"]);
    }

    #[test]
    fn a_leg_that_loses_names_the_pairs_over_it() {
        let mut status = cluster();
        host(&mut status, "b").legs[0].loss = 0.052;
        let expected = (
            "b".to_owned(),
            "leg b > a loses 5 %".to_owned(),
            vec!["pair a > c (game) leads over it".to_owned()],
        );
        assert_eq!(told(&status), [expected]);
    }

    #[test]
    fn an_entry_that_does_without_the_backbone_is_named() {
        let mut status = cluster();
        status.fallbacks.push(Fallback {
            accelerator: "game".to_owned(),
            entry: "a".to_owned(),
            exits: vec!["b".to_owned(), "c".to_owned()],
        });
        let expected =
            "accelerator game: no path to b, c lives, so it forwards to the servers over the Internet";
        assert_eq!(told(&status), [("a".to_owned(), expected.to_owned(), Vec::new())]);
    }

    #[test]
    fn a_hook_that_fails_is_named_with_its_service() {
        let mut status = cluster();
        status.scalings.push(ScalingStatus {
            service: "web".to_owned(),
            url: "http://192.0.2.9/scale".to_owned(),
            named: 2,
            ..ScalingStatus::default()
        });
        assert_eq!(told(&status), []);
        "did not answer within 5 s".clone_into(&mut status.scalings[0].fault);
        let expected = (
            "controller".to_owned(),
            "service web: its scaling hook http://192.0.2.9/scale did not answer within 5 s".to_owned(),
            vec!["service web keeps the 2 targets that it named last".to_owned()],
        );
        assert_eq!(told(&status), [expected]);
    }

    #[test]
    fn a_service_that_selects_nobody_is_named() {
        let mut status = cluster();
        status.selecting_nobody.push("web".to_owned());
        let expected = (
            "controller".to_owned(),
            "service web: nothing has the labels that it selects".to_owned(),
            vec!["service web has no target: packets to it are dropped (no_target)".to_owned()],
        );
        assert_eq!(told(&status), [expected]);
    }

    #[test]
    fn a_silent_prober_is_one_fault_and_says_nothing_of_paths() {
        let mut status = cluster();
        own(&mut status, "a").liveness = false;
        silence(&mut status, |nodes| nodes[0] == "a");
        let [(node, fault, follows)] = &told(&status)[..] else {
            panic!("{:?}", told(&status))
        };
        assert_eq!(node, "a");
        assert!(fault.starts_with("liveness: off"), "{fault}");
        assert_eq!(follows, &["pair a > c (game) does not fail over"]);
    }
}
