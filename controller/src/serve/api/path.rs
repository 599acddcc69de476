//! Why a pair's path is what it is, as a message.

use kuafu_proto::v1;
use kuafu_topology::steering::{BackupReason, Fate, LegCost, PathCost, Rejected, WayCost, Words};
use kuafu_topology::{Cost, LegId, Millis, Path, TrafficClass};
use tonic::Status;

use super::super::shell::Shell;
use crate::core::{Names, PathAnswer, PathError, PathQuestion, Switch, When};

/// Answers from what is known now, or from the history.
#[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
pub(super) fn explain(shell: &Shell, request: &v1::PathRequest) -> Result<v1::PathExplanation, Status> {
    let question = PathQuestion {
        entry: request.entry.clone(),
        exit: request.exit.clone(),
        class: class(&request.class)?,
    };
    let when = match request.when {
        None => When::Now,
        Some(v1::path_request::When::AgoMs(ms)) => When::Ago(ms),
        Some(v1::path_request::When::AtUnixMs(at)) => When::At(at),
    };
    let refused = |error: PathError| match error {
        PathError::UnknownNode(_) | PathError::UnknownThen(_) => Status::not_found(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    };
    let chapter = shell
        .view(|core, now| core.history_of(now, when))
        .map_err(refused)?;
    let answer = match chapter {
        None => shell.view(|core, now| core.explain_path(now, &question, None)),
        Some((at, prefix)) => shell
            .view_of(&prefix, |core, now, values| {
                core.explain_path(now, &question, Some((at, values)))
            })
            .map_err(|error| Status::internal(error.to_string()))?,
    };
    answer.map(|answer| message(&answer)).map_err(refused)
}

#[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
fn class(word: &str) -> Result<Option<TrafficClass>, Status> {
    let known = TrafficClass::ALL.into_iter().find(|class| class.word() == word);
    if known.is_none() && !word.is_empty() {
        let words = TrafficClass::ALL.map(TrafficClass::word).join(", ");
        let error = format!("class: {word:?} is none; expected one of {words}");
        return Err(Status::invalid_argument(error));
    }
    Ok(known)
}

fn message(answer: &PathAnswer) -> v1::PathExplanation {
    let (explained, names) = (&answer.explanation, &answer.names);
    let since = |since: Millis| answer.at.saturating_sub(answer.now.since(since));
    let leg = |leg: &LegId| v1::LegName {
        from: names.node(leg.from),
        to: names.node(leg.to),
    };
    let [entry, exit] = answer.ends.clone();
    v1::PathExplanation {
        entry,
        exit,
        class: answer.class.word().to_owned(),
        known_at_unix_ms: answer.at,
        notes: answer.notes.clone(),
        why: explained.held.why.told_of(explained.held.duplicate, names),
        since_unix_ms: answer.is_used().then(|| since(explained.held.since)),
        chosen: explained.chosen.as_ref().map(|path| path_cost(path, names)),
        next: explained.next.iter().map(|path| rejected(path, names)).collect(),
        barred: explained
            .barred
            .iter()
            .map(|path| rejected(path, names))
            .collect(),
        backup: explained.backup.as_ref().map(|path| backup(path, names)),
        unmeasured: explained.unknown.iter().map(leg).collect(),
        switches: answer.switches.iter().map(switch).collect(),
        history_since_unix_ms: answer.history_since,
    }
}

fn usable_ms(cost: Cost) -> Option<f64> {
    cost.is_usable().then(|| cost.ms())
}

fn nodes(path: &Path, names: &Names) -> Vec<String> {
    path.nodes().iter().map(|&node| names.node(node)).collect()
}

fn path_cost(path: &PathCost, names: &Names) -> v1::PathCost {
    let relays = path.relays.iter().map(|(node, transit)| v1::RelayTransit {
        node: names.node(*node),
        cost_ms: transit.ms(),
    });
    v1::PathCost {
        nodes: nodes(&path.path, names),
        cost_ms: usable_ms(path.cost),
        legs: path.legs.iter().map(|leg| leg_cost(leg, names)).collect(),
        relays: relays.collect(),
        own_loss_ms: path.own_loss.ms(),
    }
}

fn leg_cost(leg: &LegCost, names: &Names) -> v1::LegCost {
    v1::LegCost {
        from: names.node(leg.leg.from),
        to: names.node(leg.leg.to),
        cost_ms: usable_ms(leg.cost),
        forward: leg.forward.map(way_cost),
        reverse: leg.reverse.map(way_cost),
    }
}

fn way_cost(way: WayCost) -> v1::WayCost {
    let loss_ms = way.terms.loss_ms / 2.0;
    v1::WayCost {
        rtt_ms: way.terms.rtt_us / 2000.0,
        jitter_ms: way.terms.jitter_us / 2000.0,
        loss_ms: loss_ms.is_finite().then_some(loss_ms),
        price_ms: way.terms.price_ms / 2.0,
        estimate_us: way.stats.rtt_us,
        jitter_us: way.stats.jitter_us,
        loss_ppm: way.stats.loss_ppm,
        alarm: way.alarm,
        state: match way.fate {
            Fate::Measured => "measured",
            Fate::Unknown => "unknown",
            Fate::Dead => "dead",
            Fate::Silent => "silent",
        }
        .to_owned(),
    }
}

fn rejected(path: &Rejected, names: &Names) -> v1::RejectedPath {
    v1::RejectedPath {
        path: Some(path_cost(&path.path, names)),
        reasons: path.reasons.iter().map(|reason| reason.told(names)).collect(),
    }
}

fn backup(backup: &BackupReason, names: &Names) -> v1::BackupPath {
    v1::BackupPath {
        path: Some(path_cost(&backup.path, names)),
        score_ms: usable_ms(backup.score),
        why: backup.told(names),
    }
}

fn switch(switch: &Switch) -> v1::PathSwitch {
    v1::PathSwitch {
        at_unix_ms: switch.at,
        from: switch.from.clone(),
        to: switch.to.clone(),
        backup: switch.backup.clone(),
        from_cost_ms: switch.from_cost_ms,
        to_cost_ms: switch.to_cost_ms,
        cause: switch.cause.clone(),
    }
}
