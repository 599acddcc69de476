//! What people ask: how each host is, and which way each pair goes.

use std::collections::BTreeSet;

use kuafu_model::compile::{Choice, PairName, fallbacks, pairs};
use kuafu_model::kinds::Name;
use kuafu_topology::Cost;

use super::measure::Reported;
use super::{Core, Now};

/// A host as the controller sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct HostView {
    /// Its name.
    pub node: Name,
    /// Whether its agent's stream is open.
    pub connected: bool,
    /// Whether it is declared with `agent: false`.
    pub foreign: bool,
    /// What it was sent last, else what it acknowledged; 0: nothing.
    pub revision: u64,
    /// What it acknowledged; 0: nothing.
    pub acknowledged: u64,
    /// Why it refused a state.
    pub refused: Option<String>,
    /// Whether its paths are watched; `None`: not said yet.
    pub liveness: Option<bool>,
    /// Its incarnation.
    pub incarnation: u32,
    /// Its agent's version.
    pub version: String,
    /// Layout of its agent's maps; 0: not known.
    pub layout: u32,
    /// The legs that begin there.
    pub legs: Vec<LegView>,
}

/// A directed leg as last reported.
#[derive(Clone, Debug, PartialEq)]
pub struct LegView {
    /// Where it ends.
    pub to: String,
    /// Round trip, µs.
    pub rtt_p50_us: u32,
    /// Its 90th percentile.
    pub rtt_p90_us: u32,
    /// Smoothed.
    pub rtt_ewma_us: u32,
    /// 0 to 1.
    pub loss: f64,
    /// Milliseconds since it was measured.
    pub age_ms: u64,
    /// Whether it waits for its turn to be measured again.
    pub unknown: bool,
}

/// A pair, the best that there is, and what is used.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    /// The pair.
    pub pair: PairName,
    /// Estimated round trip of the direct path, ms; `None`: not measured.
    pub direct_ms: Option<f64>,
    /// Of the best path.
    pub best_ms: Option<f64>,
    /// Of the path in use.
    pub path_ms: Option<f64>,
    /// Of the backup.
    pub backup_ms: Option<f64>,
    /// The nodes of the best path.
    pub best: Vec<String>,
    /// The nodes of the path in use; empty: none lives.
    pub path: Vec<String>,
    /// The nodes of the backup.
    pub backup: Vec<String>,
    /// Why the path is what it is.
    pub why: String,
    /// What direct, the best path, the one in use and the backup cost, in ms; `None`: unusable, or nothing was chosen
    /// yet.
    pub costs_ms: [Option<f64>; 4],
    /// What a GB over the path in use costs, in US dollars: the mean of both directions.
    pub usd_per_gb: f64,
}

/// An entry that forwards an accelerator's packets to the servers over the Internet, since no path lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FallbackView {
    /// The accelerator.
    pub accelerator: Name,
    /// The entry.
    pub entry: Name,
    /// The exits that no path leads to.
    pub exits: Vec<Name>,
}

/// Why a pair has no path.
const NO_PATH: &str = "no path lives: entries without another exit forward to the servers over the Internet";

impl Core {
    /// Every node that is declared, and every host that has connected, by name.
    #[must_use]
    pub fn host_views(&self, now: Now) -> Vec<HostView> {
        let names: BTreeSet<&Name> = self.intent.nodes().keys().chain(self.hosts.keys()).collect();
        names.into_iter().map(|name| self.host_view(now, name)).collect()
    }

    fn host_view(&self, now: Now, name: &Name) -> HostView {
        let host = self.hosts.get(name).cloned().unwrap_or_default();
        let declared = self.intent.nodes().get(name);
        let running = self.fleet.get(name);
        let newest = running.and_then(|running| running.newest());
        let acknowledged = running.and_then(|running| running.acknowledged());
        HostView {
            node: name.clone(),
            connected: host.session.is_some(),
            foreign: declared.is_some_and(|declared| !declared.spec.agent),
            revision: newest.map_or(0, |state| state.revision),
            acknowledged: acknowledged.map_or(0, |state| state.revision),
            refused: host.refused.map(|refused| refused.reason),
            liveness: host.liveness,
            incarnation: host.incarnation,
            version: host.version,
            layout: host.layout,
            legs: self.leg_views(now, name),
        }
    }

    fn leg_views(&self, now: Now, name: &Name) -> Vec<LegView> {
        let legs = self.measured.legs().filter(|(from, ..)| *from == name.as_str());
        legs.map(|(_, to, reported)| LegView {
            to: to.to_owned(),
            rtt_p50_us: reported.report.rtt_p50_us,
            rtt_p90_us: reported.report.rtt_p90_us,
            rtt_ewma_us: reported.report.rtt_ewma_us,
            loss: reported.report.loss,
            age_ms: reported.age(now),
            unknown: reported.rests(),
        })
        .collect()
    }

    /// The entries that do without the backbone.
    #[must_use]
    pub fn fallback_views(&self) -> Vec<FallbackView> {
        let fallbacks = fallbacks(&self.intent, &self.choices).into_iter();
        let view = |(accelerator, entry, exits): (&Name, &Name, BTreeSet<&Name>)| FallbackView {
            accelerator: accelerator.clone(),
            entry: entry.clone(),
            exits: exits.into_iter().cloned().collect(),
        };
        fallbacks.map(view).collect()
    }

    /// Every pair that listeners need.
    #[must_use]
    pub fn route_views(&self) -> Vec<RouteView> {
        pairs(&self.intent)
            .into_iter()
            .map(|pair| self.route_view(pair))
            .collect()
    }

    fn route_view(&self, pair: PairName) -> RouteView {
        let choice = self.choices.iter().find(|choice| is_for(choice, &pair));
        let nodes = |relays: &[Name]| -> Vec<String> {
            let ends = [&pair.entry].into_iter().chain(relays).chain([&pair.exit]);
            ends.map(ToString::to_string).collect()
        };
        let direct = nodes(&[]);
        let path = match choice {
            Some(choice) => choice.primary.as_deref().map(nodes).unwrap_or_default(),
            None => direct.clone(),
        };
        let backup = choice
            .and_then(|choice| choice.backup.as_deref().map(nodes))
            .unwrap_or_default();
        let steered = self.steered(&pair);
        let measured = |nodes: &[String]| self.measured.round_trip_ms(nodes).filter(|_| !nodes.is_empty());
        let best = steered
            .as_ref()
            .map_or_else(|| path.clone(), |steered| nodes(&steered.best));
        RouteView {
            direct_ms: measured(&direct),
            best_ms: measured(&best),
            path_ms: measured(&path),
            backup_ms: measured(&backup),
            costs_ms: steered
                .as_ref()
                .map_or([None; 4], |steered| steered.costs.map(|cost| cost.map(Cost::ms))),
            why: match (steered, choice) {
                _ if path.is_empty() => NO_PATH.to_owned(),
                (Some(steered), _) => steered.why + &self.unknown_legs([&best, &path, &backup]),
                (None, Some(_)) => "chosen before the controller's start: nothing is measured yet".to_owned(),
                (None, None) => "nothing is measured yet: direct".to_owned(),
            },
            usd_per_gb: self.usd_per_gb(&path),
            best,
            path,
            backup,
            pair,
        }
    }

    /// The legs of paths of which it is not known how they are now, in words.
    fn unknown_legs(&self, paths: [&[String]; 3]) -> String {
        let legs = paths.into_iter().flat_map(|nodes| nodes.windows(2));
        let mut unknown: Vec<String> = legs
            .flat_map(|leg| [(&leg[0], &leg[1]), (&leg[1], &leg[0])])
            .filter(|(from, to)| self.measured.leg(from, to).is_some_and(Reported::rests))
            .map(|(from, to)| format!("{from} > {to}"))
            .collect();
        unknown.sort();
        unknown.dedup();
        if unknown.is_empty() {
            return String::new();
        }
        format!(
            "; unknown at the moment, counted as last measured: {}",
            unknown.join(", ")
        )
    }

    /// Each node emits what passes it, the ends in one direction only.
    fn usd_per_gb(&self, path: &[String]) -> f64 {
        let price = |name: &String| {
            let node = name
                .parse()
                .ok()
                .and_then(|name: Name| self.intent.nodes().get(&name));
            node.map_or(0.0, |node| node.spec.price.usd_per_gb())
        };
        let ends = [path.first(), path.last()].into_iter().flatten();
        path.iter().map(price).sum::<f64>() - ends.map(price).sum::<f64>() / 2.0
    }
}

/// Whether a choice is this pair's.
pub(super) fn is_for(choice: &Choice, pair: &PairName) -> bool {
    (&choice.entry, &choice.exit, choice.class) == (&pair.entry, &pair.exit, pair.class)
}
