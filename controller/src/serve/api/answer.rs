//! What the core says, as messages.

use kuafu_model::kinds::Name;
use kuafu_model::manifest::Change;
use kuafu_proto::v1;
use kuafu_proto::v1::query_answer::Answer;

use crate::core::{Core, DeclareError, HostView, LegCosts, LegView, Now, RouteView};

pub(super) fn changes(changes: &[Change], revision: u64) -> v1::ApplyAnswer {
    let change = |change: &Change| v1::Change {
        kind: change.object.kind.word().to_owned(),
        name: change.object.name.to_string(),
        change: change.outcome.word().to_owned(),
    };
    v1::ApplyAnswer {
        changes: changes.iter().map(change).collect(),
        errors: Vec::new(),
        revision,
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
    }
}

pub(super) fn status(core: &Core, now: Now) -> v1::ClusterStatus {
    v1::ClusterStatus {
        cluster: core.cluster().to_owned(),
        revision: core.revision(),
        hosts: core.host_views(now).into_iter().map(host).collect(),
        faults: Vec::new(),
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
