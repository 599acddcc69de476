//! A walk as the message that people are shown.

use kuafu_model::runner::{Host, Step, VecFrame, Walk};
use kuafu_pipeline::Next;
use kuafu_proto::v1::{ExplainStep, Explanation};

/// What meets a packet on the underlay: XDP first; what that passes on meets tcx. Returns the programs' names.
pub fn at_underlay(host: &mut Host, frame: &mut VecFrame, interface: u32) -> (&'static str, Walk) {
    let edge = host.edge(frame, interface);
    if !matches!(edge.outcome, Ok(Next::Pass | Next::Host)) {
        return ("edge", edge);
    }
    let mut underlay = host.underlay(frame, interface);
    underlay.steps.splice(0..0, edge.steps);
    ("edge, then underlay", underlay)
}

/// The walk of `frame` through `program` on a node; `name` knows the interfaces.
#[must_use]
pub fn told(
    node: &str,
    program: &str,
    walk: &Walk,
    frame: VecFrame,
    name: impl Fn(u32) -> String,
) -> Explanation {
    let (verdict, interface) = match walk.outcome {
        Ok(Next::Pass | Next::Host) => ("pass", None),
        Ok(Next::Transmit(to)) => ("transmit", Some(to)),
        Ok(Next::Arrive(at)) => ("arrive", Some(at)),
        Ok(Next::Deliver(to)) => ("deliver", Some(to)),
        Ok(Next::Answer(to, _)) => ("answer", Some(to)),
        Ok(Next::Consumed) | Err(_) => ("drop", None),
    };
    Explanation {
        node: node.to_owned(),
        program: program.to_owned(),
        steps: walk.steps.iter().map(step).collect(),
        verdict: verdict.to_owned(),
        reason: walk
            .reason()
            .map(|reason| reason.word().to_owned())
            .unwrap_or_default(),
        interface: interface.map(name).unwrap_or_default(),
        frame: frame.into_octets(),
    }
}

fn step(step: &Step) -> ExplainStep {
    match step {
        Step::LookUp { map, key, found } => ExplainStep {
            stage: (*map).to_owned(),
            text: format!("{key}: {}", found.as_deref().unwrap_or("nothing")),
            found: Some(found.is_some()),
        },
        Step::Count(event) => ExplainStep {
            stage: "count".to_owned(),
            text: event.word().to_owned(),
            found: None,
        },
        Step::Do { what, with, done } => ExplainStep {
            stage: (*what).to_owned(),
            text: with.clone(),
            found: Some(*done),
        },
    }
}
