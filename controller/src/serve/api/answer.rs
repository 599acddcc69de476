//! What the core says, as messages.

use kuafu_model::kinds::Name;
use kuafu_model::manifest::Change;
use kuafu_proto::v1;
use kuafu_proto::v1::query_answer::Answer;

use crate::core::{
    Cause, Core, DeclareError, Entry, FallbackView, HostView, LegCosts, LegView, Now, RouteView, ScalingView,
    TrialView, Verdict,
};

pub(super) fn changes(changes: &[Change], revision: u64, trial: Option<v1::OnTrial>) -> v1::ApplyAnswer {
    let change = |change: &Change| v1::Change {
        kind: change.object.kind.word().to_owned(),
        name: change.object.name.to_string(),
        change: change.outcome.word().to_owned(),
    };
    v1::ApplyAnswer {
        changes: changes.iter().map(change).collect(),
        errors: Vec::new(),
        revision,
        trial,
    }
}

pub(super) const fn trial(trial: TrialView) -> v1::OnTrial {
    v1::OnTrial {
        revision: trial.revision,
        left_ms: trial.left_ms,
    }
}

/// An error of several parts in one line.
pub(in crate::serve) fn words(error: &DeclareError) -> String {
    let parts = error.fields().into_iter().map(|error| error.message);
    parts.collect::<Vec<_>>().join("; ")
}

/// All changes, without what their objects were.
pub(super) fn history(core: &Core) -> Vec<v1::HistoryEntry> {
    let changes = core.history().into_iter();
    changes
        .map(|(revision, entry)| {
            let mut change = history_entry(revision, entry);
            change.objects.iter_mut().for_each(|object| object.before = None);
            change
        })
        .collect()
}

/// One change with its objects before and after.
pub(super) fn change(core: &Core, revision: u64) -> Result<v1::HistoryEntry, DeclareError> {
    let change = core.change(revision)?;
    let mut entry = history_entry(revision, &change.entry);
    for (object, after) in entry.objects.iter_mut().zip(change.after) {
        object.after = after;
    }
    Ok(entry)
}

fn history_entry(revision: u64, entry: &Entry) -> v1::HistoryEntry {
    let (cause, of) = match entry.cause {
        Cause::Apply => ("apply", None),
        Cause::Delete => ("delete", None),
        Cause::Rollback(to) => ("rollback", Some(to)),
        Cause::Return(undone) => ("return", Some(undone)),
    };
    let objects = entry.changes.iter().map(|change| {
        let (kind, name) = change.object.split_once('/').unwrap_or_default();
        v1::HistoryChange {
            kind: kind.to_owned(),
            name: name.to_owned(),
            change: change.change.clone(),
            before: change.before.clone(),
            after: None,
        }
    });
    v1::HistoryEntry {
        revision,
        at_unix_s: entry.at,
        cause: cause.to_owned(),
        of,
        trial: entry.trial.map(Verdict::word).unwrap_or_default().to_owned(),
        objects: objects.collect(),
    }
}

pub(super) fn errors(error: &DeclareError, revision: u64) -> v1::ApplyAnswer {
    let errors = error.fields().into_iter().map(|error| v1::FieldError {
        file: error.file,
        line: error.line,
        field: error.field,
        message: error.message,
    });
    v1::ApplyAnswer {
        changes: Vec::new(),
        errors: errors.collect(),
        revision,
        trial: None,
    }
}

pub(super) fn status(core: &Core, now: Now) -> v1::ClusterStatus {
    v1::ClusterStatus {
        cluster: core.cluster().to_owned(),
        revision: core.revision(),
        hosts: core.host_views(now).into_iter().map(host).collect(),
        faults: Vec::new(),
        trial: core.trial(now).map(trial),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        layout: 0,
        fallbacks: core.fallback_views().into_iter().map(fallback).collect(),
        scalings: core.scaling_views().into_iter().map(scaling).collect(),
        selecting_nobody: core.intent().selecting_nobody().map(Name::to_string).collect(),
    }
}

fn scaling(scaling: ScalingView) -> v1::ScalingStatus {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::ScalingStatus {
        service: scaling.service.to_string(),
        url: scaling.url,
        has: count(scaling.has),
        wants: count(scaling.wants),
        flows: scaling.flows,
        fault: scaling.fault.unwrap_or_default(),
        named: count(scaling.named),
        leaving: count(scaling.leaving),
    }
}

fn fallback(fallback: FallbackView) -> v1::Fallback {
    v1::Fallback {
        accelerator: fallback.accelerator.to_string(),
        entry: fallback.entry.to_string(),
        exits: fallback.exits.iter().map(ToString::to_string).collect(),
    }
}

fn host(host: HostView) -> v1::HostEntry {
    v1::HostEntry {
        node: host.node.to_string(),
        connected: host.connected,
        revision: host.revision,
        acked: host.acknowledged,
        refused: host.refused.unwrap_or_default(),
        liveness: host.liveness,
        incarnation: host.incarnation,
        version: host.version,
        status: None,
        foreign: host.foreign,
        legs: host.legs.into_iter().map(leg).collect(),
        layout: host.layout,
    }
}

fn leg(leg: LegView) -> v1::LegInfo {
    v1::LegInfo {
        to: leg.to,
        rtt_p50_us: leg.rtt_p50_us,
        rtt_p90_us: leg.rtt_p90_us,
        rtt_ewma_us: leg.rtt_ewma_us,
        loss: leg.loss,
        age_ms: leg.age_ms,
        unknown: leg.unknown,
    }
}

pub(super) fn routes(core: &Core) -> Vec<v1::RouteInfo> {
    core.route_views().into_iter().map(route).collect()
}

/// What the choice was made by.
pub(super) fn costs(core: &Core) -> Vec<v1::LegCosts> {
    let costs = core.leg_costs().into_iter();
    let costs = costs.map(|LegCosts { pairs, nodes, costs }| {
        let class = pairs.first().map(|pair| pair.class.word());
        let nodes = costs
            .relays()
            .iter()
            .zip(nodes)
            .map(|(relay, node)| v1::RelayCost {
                node: node.to_string(),
                number: relay.id.get().into(),
                site: relay.site,
                provider: relay.provider,
                transit_us: relay.transit.us(),
            });
        let n = costs.len();
        let ends = (0..n).flat_map(|from| (0..n).map(move |to| (from, to)));
        let pairs = pairs.iter().map(|pair| v1::Ends {
            entry: pair.entry.to_string(),
            exit: pair.exit.to_string(),
        });
        v1::LegCosts {
            pairs: pairs.collect(),
            class: class.unwrap_or_default().to_owned(),
            nodes: nodes.collect(),
            legs_us: ends.map(|(from, to)| costs.leg(from, to).us()).collect(),
        }
    });
    costs.collect()
}

fn route(route: RouteView) -> v1::RouteInfo {
    let [direct_cost_ms, best_cost_ms, path_cost_ms, backup_cost_ms] = route.costs_ms;
    v1::RouteInfo {
        direct_cost_ms,
        best_cost_ms,
        path_cost_ms,
        backup_cost_ms,
        entry: route.pair.entry.to_string(),
        exit: route.pair.exit.to_string(),
        class: route.pair.class.word().to_owned(),
        direct_ms: route.direct_ms,
        best_ms: route.best_ms,
        path_ms: route.path_ms,
        backup_ms: route.backup_ms,
        best: route.best,
        path: route.path,
        backup: route.backup,
        why: route.why,
        usd_per_gb: route.usd_per_gb,
    }
}

/// A host that did not say what it was asked.
pub(super) fn host_error(node: &Name, answer: Result<Answer, String>) -> v1::HostError {
    let error = match answer {
        Ok(_) => "the agent answered another question".to_owned(),
        Err(error) => error,
    };
    v1::HostError {
        node: node.to_string(),
        error,
    }
}
