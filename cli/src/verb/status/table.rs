//! The hosts' status for people.

use kuafu_proto::v1::{ClusterStatus, Fault, HostEntry, HostStatus, MapStatus, Probing};

use crate::out::{ago, columns, or_dash, us_as_ms};
use crate::verb::apply::on_trial;

/// Hosts, programs, legs, announced addresses, services that scale, what is near its limit, faults; with `all` also ports, paths, servers and all limits.
pub(super) fn cluster(status: &ClusterStatus, all: bool) -> String {
    let mut text = format!("Cluster {}, revision {}\n", status.cluster, status.revision);
    if let Some(trial) = &status.trial {
        text += &on_trial(trial);
        text += "\n";
    }
    text += "\n";
    let sections = [
        hosts(status),
        programs(status),
        legs(status),
        announcements(status),
        scalings(status),
        if all { ports(status) } else { String::new() },
        if all { paths(status) } else { String::new() },
        if all { servers(status) } else { String::new() },
        limits(status, all),
    ];
    for section in sections.iter().filter(|section| !section.is_empty()) {
        text += section;
        text += "\n";
    }
    text + &told(&status.faults)
}

fn told(faults: &[Fault]) -> String {
    if faults.is_empty() {
        return "No faults.\n".to_owned();
    }
    let lines = faults.iter().map(|fault| {
        let follows = fault
            .consequences
            .iter()
            .map(|follows| format!("  so {follows}\n"));
        let follows: String = follows.collect();
        format!("FAULT {}: {}\n{follows}", fault.host, fault.fault)
    });
    lines.collect()
}

fn hosts(status: &ClusterStatus) -> String {
    let headings = [
        "HOST",
        "AGENT",
        "IN FORCE",
        "INCARNATION",
        "LIVENESS",
        "PROBING",
        "PORTS",
        "VERSION",
    ];
    columns(headings, status.hosts.iter().map(host))
}

fn host(host: &HostEntry) -> [String; 8] {
    let agent = match (host.foreign, host.connected) {
        (true, _) => "foreign",
        (false, true) => "connected",
        (false, false) => "away",
    };
    let in_force = if host.acked == host.revision {
        host.acked.to_string()
    } else {
        format!("{} (not {})", host.acked, host.revision)
    };
    let ports = host.status.as_ref().map(|status| {
        let attached = status.ports.iter().filter(|port| port.attached).count();
        format!("{attached}/{}", status.ports.len())
    });
    let liveness = host.liveness.map(|on| if on { "on" } else { "off" });
    let probing = host.status.as_ref().and_then(|status| status.probing);
    let known = |text: String| if host.foreign { "-".to_owned() } else { text };
    [
        host.node.clone(),
        agent.to_owned(),
        known(in_force),
        known(host.incarnation.to_string()),
        or_dash(liveness),
        or_dash(probing.map(of_budget)),
        or_dash(ports),
        or_dash(Some(&host.version).filter(|version| !version.is_empty())),
    ]
}

/// What probes take, of what they may.
fn of_budget(probing: Probing) -> String {
    let kilobits = |bits: u64| bits.div_ceil(1_000);
    format!(
        "{} of {} kb/s",
        kilobits(probing.bits_per_second),
        kilobits(probing.budget_bits_per_second)
    )
}

/// A table of what each host's own answer lists; empty when there is nothing.
fn listed<const N: usize>(
    status: &ClusterStatus,
    headings: [&str; N],
    rows: impl Fn(&HostStatus) -> Vec<[String; N]>,
) -> String {
    let rows: Vec<_> = status
        .hosts
        .iter()
        .filter_map(|host| host.status.as_ref())
        .flat_map(rows)
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        columns(headings, rows)
    }
}

fn programs(status: &ClusterStatus) -> String {
    listed(status, ["HOST", "PROGRAM", "INTERFACE", "HOOK", "ID"], |host| {
        let rows = host.programs.iter().map(|program| {
            let id = program.id.to_string();
            [
                host.node.clone(),
                program.name.clone(),
                program.interface.clone(),
                program.hook.clone(),
                id,
            ]
        });
        rows.collect()
    })
}

fn legs(status: &ClusterStatus) -> String {
    let rows: Vec<[String; 7]> = status
        .hosts
        .iter()
        .flat_map(|host| {
            host.legs.iter().map(|leg| {
                [
                    host.node.clone(),
                    leg.to.clone(),
                    us_as_ms(leg.rtt_p50_us),
                    us_as_ms(leg.rtt_p90_us),
                    us_as_ms(leg.rtt_ewma_us),
                    format!("{:.1} %", leg.loss * 100.0),
                    if leg.unknown {
                        format!("unknown for {}", ago(leg.age_ms))
                    } else {
                        ago(leg.age_ms)
                    },
                ]
            })
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    columns(
        ["LEG FROM", "TO", "P50 MS", "P90 MS", "MEAN MS", "LOSS", "AGE"],
        rows,
    )
}

fn announcements(status: &ClusterStatus) -> String {
    listed(status, ["HOST", "ADDRESS", "REACH", "STANDING", "WHY"], |host| {
        let rows = host.announcements.iter().map(|one| {
            [
                host.node.clone(),
                one.address.clone(),
                one.reach.clone(),
                one.standing.clone(),
                or_dash(Some(&one.reason).filter(|reason| !reason.is_empty())),
            ]
        });
        rows.collect()
    })
}

/// Services whose targets come and go by a hook.
fn scalings(status: &ClusterStatus) -> String {
    let rows: Vec<_> = status
        .scalings
        .iter()
        .map(|scaling| {
            [
                scaling.service.clone(),
                scaling.has.to_string(),
                scaling.wants.to_string(),
                scaling.flows.to_string(),
                scaling.named.to_string(),
                scaling.leaving.to_string(),
                scaling.url.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let headings = ["SERVICE", "HAS", "WANTS", "FLOWS", "NAMED", "LEAVING", "HOOK"];
    columns(headings, rows)
}

fn ports(status: &ClusterStatus) -> String {
    listed(
        status,
        ["HOST", "PORT", "VNI", "ADDRESS", "INTERFACE", "STATE"],
        |host| {
            let rows = host.ports.iter().map(|port| {
                let state = if port.attached { "attached" } else { "waiting" };
                let (vni, address) = (port.vni.to_string(), port.address.clone());
                [
                    host.node.clone(),
                    port.name.clone(),
                    vni,
                    address,
                    port.interface.clone(),
                    state.to_owned(),
                ]
            });
            rows.collect()
        },
    )
}

fn paths(status: &ClusterStatus) -> String {
    listed(
        status,
        [
            "HOST",
            "PATH",
            "NODES",
            "STATE",
            "P50 MS",
            "SENT",
            "HOME",
            "LAST ECHO",
        ],
        |host| {
            let rows = host.paths.iter().map(|path| {
                [
                    host.node.clone(),
                    path.index.to_string(),
                    path.nodes.join(" > "),
                    path.state.clone(),
                    us_as_ms(path.rtt_p50_us),
                    path.sent.to_string(),
                    path.received.to_string(),
                    or_dash(path.last_echo_ms.map(|ms| ago(ms) + " ago")),
                ]
            });
            rows.collect()
        },
    )
}

fn servers(status: &ClusterStatus) -> String {
    listed(
        status,
        ["HOST", "SERVICE", "SERVER", "ASKED AT", "STANDING", "FOR", "WHY"],
        |host| {
            let rows = host.servers.iter().map(|server| {
                [
                    host.node.clone(),
                    server.service.clone(),
                    server.address.clone(),
                    server.asked.clone(),
                    server.standing.clone(),
                    ago(server.since_ms),
                    or_dash(Some(&server.reason).filter(|reason| !reason.is_empty())),
                ]
            });
            rows.collect()
        },
    )
}

/// Every map's limit, or those of which at least half is used.
fn limits(status: &ClusterStatus, all: bool) -> String {
    let shown = |map: &&MapStatus| all || map.entries * 2 >= map.capacity.max(1);
    listed(status, ["HOST", "MAP", "ENTRIES", "LIMIT"], |host| {
        let rows = host.maps.iter().filter(shown).map(|map| {
            [
                host.node.clone(),
                map.name.clone(),
                map.entries.to_string(),
                map.capacity.to_string(),
            ]
        });
        rows.collect()
    })
}
