//! What is wrong with a cluster, by its hosts' own words and by what the controller sees of them.

use kuafu_proto::v1::{ClusterStatus, Fault, HostEntry, HostStatus};

use crate::verb::version::misfit;

/// A map so full is a fault, in percent: the next apply may be refused.
const FULL: u64 = 90;

/// Every fault, once.
pub(super) fn of(status: &ClusterStatus) -> Vec<Fault> {
    let mut faults = Vec::new();
    for host in status.hosts.iter().filter(|host| !host.foreign) {
        let mut words = of_stream(host);
        words.extend(misfit(status, host).filter(|_| host.connected));
        if let Some(own) = &host.status {
            words.extend(own.faults.iter().cloned());
            for (subject, fault) in of_own(own) {
                // What the host has named already is not named again.
                if !words.iter().any(|word| word.contains(&subject)) {
                    words.push(fault);
                }
            }
        }
        let host = &host.node;
        faults.extend(words.into_iter().map(|fault| Fault {
            host: host.clone(),
            fault,
        }));
    }
    faults
}

/// What the controller sees of a host's stream.
fn of_stream(host: &HostEntry) -> Vec<String> {
    if !host.connected {
        let joined = host.acked > 0 || !host.version.is_empty();
        let word = if joined {
            "not connected: its agent is down, or cannot reach the controller; what it last had in force forwards on"
        } else {
            "never connected: no agent has joined under this name (kuafu node token)"
        };
        return vec![word.to_owned()];
    }
    if !host.refused.is_empty() {
        return vec![format!("refuses revision {}: {}", host.revision, host.refused)];
    }
    if host.status.is_none() {
        return vec!["connected, but does not say how it is".to_owned()];
    }
    Vec::new()
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
