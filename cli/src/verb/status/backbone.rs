//! What does not come back on the backbone, by what stands behind it.
//!
//! Specification: a host whose agent answers, and whose prober lives, says of each of its paths whether probes return.
//! Of those that do not, the cause is
//! 1. a node, where nothing returns on any leg to it, of at least two, or of any if its agent is not connected;
//! 2. else a leg, there or back;
//! 3. else the path itself, whose legs all live.
//!
//! A path has the first cause among its nodes, then among its legs. A pair that is on its backup has its primary's.
//! A path and its twin are one, and so are a pair's two directions.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_proto::v1::{ClusterStatus, HostStatus, PairStatus, PathStatus};

/// A probe is due each second at least; so long after the last return nothing comes back.
const SILENT_MS: u64 = 5_000;
/// A leg that loses so much has a fault (see `topology::alarm`).
const LOSES: f64 = 0.03;

/// What stands behind faults of the backbone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// Nothing comes back from the node.
    Node(String),
    /// Nothing comes back on the leg between these.
    Leg(String, String),
    /// Nothing comes back on the path, though its legs live.
    Path(Vec<String>),
    /// The leg loses packets.
    Loss(String, String, u64),
}

/// Each cause with what follows from it, as far as it is seen.
pub(super) fn causes(status: &ClusterStatus) -> BTreeMap<Cause, BTreeSet<String>> {
    let seen = Seen::of(status);
    let mut causes: BTreeMap<Cause, BTreeSet<String>> = BTreeMap::new();
    for (node, dead) in &seen.dead_nodes {
        let from: Vec<&str> = dead.iter().map(String::as_str).collect();
        let legs = format!("nothing comes back on its legs with {}", from.join(", "));
        causes.entry(Cause::Node(node.clone())).or_default().insert(legs);
    }
    for host in seen.watching() {
        for path in host.paths.iter().filter(|path| !lives(path)) {
            let of = causes.entry(seen.cause(&path.nodes)).or_default();
            if path.nodes.len() > 2 {
                of.insert(format!("path {} is dead", one_way(&path.nodes).join(" > ")));
            }
        }
        for (pair, primary) in pairs(host) {
            if pair.down && !lives(primary) {
                let of = causes.entry(seen.cause(&primary.nodes)).or_default();
                of.insert(format!("{} is on its backup", named(host, pair)));
            }
        }
        for (pair, primary) in pairs(host) {
            for (a, b, percent) in seen.losses(&primary.nodes) {
                let of = causes.entry(Cause::Loss(a, b, percent)).or_default();
                of.insert(format!("{} leads over it", named(host, pair)));
            }
        }
    }
    for (a, b, percent) in &seen.lossy {
        causes
            .entry(Cause::Loss(a.clone(), b.clone(), *percent))
            .or_default();
    }
    // A path that is itself the cause does not follow from itself.
    for (cause, of) in &mut causes {
        if let Cause::Path(nodes) = cause {
            of.remove(&format!("path {} is dead", nodes.join(" > ")));
        }
    }
    causes
}

impl Cause {
    /// The host that is named first.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Node(node) => node,
            Self::Leg(from, _) | Self::Loss(from, ..) => from,
            Self::Path(nodes) => nodes.first().map_or("", String::as_str),
        }
    }

    /// It in words, where the host is connected.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Node(_) => "nothing comes back from it, though its agent is connected: does a firewall \
                              drop the backbone's UDP port, or does no program run there?"
                .to_owned(),
            Self::Leg(from, to) => {
                format!("leg {from} > {to}: nothing comes back, though both ends are reached by others")
            }
            Self::Path(nodes) => {
                format!(
                    "path {}: nothing comes back, though each of its legs lives",
                    nodes.join(" > ")
                )
            }
            Self::Loss(from, to, percent) => format!("leg {from} > {to} loses {percent} %"),
        }
    }
}

/// What the hosts say.
struct Seen<'a> {
    status: &'a ClusterStatus,
    /// Legs on which nothing comes back, each in one direction.
    dead_legs: BTreeSet<(&'a str, &'a str)>,
    /// Nodes that nothing comes back from, and who says so.
    dead_nodes: BTreeMap<String, BTreeSet<String>>,
    /// Legs that lose packets, and how many percent.
    lossy: BTreeSet<(String, String, u64)>,
}

impl<'a> Seen<'a> {
    fn of(status: &'a ClusterStatus) -> Self {
        let mut seen = Self {
            status,
            dead_legs: BTreeSet::new(),
            dead_nodes: BTreeMap::new(),
            lossy: BTreeSet::new(),
        };
        // By node: who says that it lives, and that it does not.
        let mut said: BTreeMap<&str, [BTreeSet<&str>; 2]> = BTreeMap::new();
        let legs: Vec<(&str, &str, bool)> = seen.watching().flat_map(legs).collect();
        for (from, to, lives) in legs {
            for (node, by) in [(from, to), (to, from)] {
                said.entry(node).or_default()[usize::from(!lives)].insert(by);
            }
            if !lives {
                let leg = if from < to { (from, to) } else { (to, from) };
                seen.dead_legs.insert(leg);
            }
        }
        for (node, [alive, dead]) in said {
            let connected = status
                .hosts
                .iter()
                .any(|host| host.node == node && host.connected);
            let many = if connected { 2 } else { 1 };
            if alive.is_empty() && dead.len() >= many {
                let dead = dead.into_iter().map(str::to_owned).collect();
                seen.dead_nodes.insert(node.to_owned(), dead);
            }
        }
        seen.lossy = seen.all_losses();
        seen
    }

    fn watching(&self) -> impl Iterator<Item = &'a HostStatus> + use<'a> {
        let hosts = self.status.hosts.iter().filter(|host| host.connected);
        hosts
            .filter_map(|host| host.status.as_ref())
            .filter(|status| status.liveness)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "percent of a share of 0 to 1"
    )]
    fn all_losses(&self) -> BTreeSet<(String, String, u64)> {
        let hosts = self.status.hosts.iter().filter(|host| host.connected);
        let legs = hosts.flat_map(|host| host.legs.iter().map(|leg| (host.node.as_str(), leg)));
        let dead = |from: &str, to: &str| {
            let leg = if from < to { (from, to) } else { (to, from) };
            self.dead_legs.contains(&leg)
        };
        legs.filter(|(from, leg)| leg.age_ms < SILENT_MS && leg.loss >= LOSES && !dead(from, &leg.to))
            .map(|(from, leg)| (from.to_owned(), leg.to.clone(), (leg.loss * 100.0).round() as u64))
            .collect()
    }

    fn losses(&self, path: &[String]) -> Vec<(String, String, u64)> {
        let over = |(from, to, _): &&(String, String, u64)| {
            let mut legs = path.windows(2);
            legs.any(|leg| (&leg[0], &leg[1]) == (from, to) || (&leg[1], &leg[0]) == (from, to))
        };
        self.lossy.iter().filter(over).cloned().collect()
    }

    /// Why nothing comes back on a path.
    fn cause(&self, nodes: &[String]) -> Cause {
        let dead = |node: &&String| self.dead_nodes.contains_key(*node);
        // From the far end: a host that says so is there itself.
        if let Some(node) = nodes.iter().rev().find(dead) {
            return Cause::Node(node.clone());
        }
        let mut legs = nodes.windows(2).map(|leg| {
            let (a, b) = (leg[0].as_str(), leg[1].as_str());
            if a < b { (a, b) } else { (b, a) }
        });
        match legs.find(|leg| self.dead_legs.contains(leg)) {
            Some((a, b)) => Cause::Leg(a.to_owned(), b.to_owned()),
            None => Cause::Path(one_way(nodes)),
        }
    }
}

/// Whether probes come home; where none has left yet, nothing says that they do not.
fn lives(path: &PathStatus) -> bool {
    path.state == "fresh" && path.last_echo_ms.is_none_or(|ms| ms < SILENT_MS)
}

/// A host's legs, each by the path of two nodes with the lowest number, and whether they live.
fn legs(host: &HostStatus) -> impl Iterator<Item = (&str, &str, bool)> {
    let mut legs: BTreeMap<(&str, &str), &PathStatus> = BTreeMap::new();
    for path in &host.paths {
        if let [from, to] = path.nodes.as_slice() {
            let leg = legs.entry((from, to)).or_insert(path);
            if path.id < leg.id {
                *leg = path;
            }
        }
    }
    legs.into_iter().map(|((from, to), path)| (from, to, lives(path)))
}

/// A host's pairs with their primary paths.
fn pairs(host: &HostStatus) -> impl Iterator<Item = (&PairStatus, &PathStatus)> {
    host.pairs.iter().filter_map(|pair| {
        let mut paths = host.paths.iter();
        Some((pair, paths.find(|path| Some(path.index) == pair.primary)?))
    })
}

fn named(host: &HostStatus, pair: &PairStatus) -> String {
    let ends = one_way(&[host.node.clone(), pair.peer.clone()]);
    format!("pair {} ({})", ends.join(" > "), pair.class)
}

/// A path or its twin.
fn one_way(nodes: &[String]) -> Vec<String> {
    let mut nodes = nodes.to_vec();
    if nodes.first() > nodes.last() {
        nodes.reverse();
    }
    nodes
}
