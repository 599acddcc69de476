//! A packet's walk over a state file: the model alone, without agent or kernel.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result as Any};
use kuafu_model::HostState;
use kuafu_model::contents::{Capacities, HostFacts, contents};
use kuafu_model::runner::{Host, Step, VecFrame, Walk};
use kuafu_pipeline::map::{Mac, MacPair, Neighbour};
use kuafu_pipeline::{Next, Route};
use kuafu_proto::v1::{ExplainQuery, ExplainStep, Explanation};

/// The underlay's number in a host that is only a file; the ports' follow.
const UNDERLAY: u32 = 1;
const UNDERLAY_MTU: u32 = 1500;

/// A state, as an agent reads it: binary, or JSON where the first character says so.
pub(super) fn read(file: &Path) -> Any<HostState> {
    let octets = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let is_json = octets.iter().find(|octet| !octet.is_ascii_whitespace()) == Some(&b'{');
    let state = if is_json {
        kuafu_proto::state::from_json(&String::from_utf8_lossy(&octets))
    } else {
        kuafu_proto::state::from_bytes(&octets)
    };
    state.with_context(|| file.display().to_string())
}

/// Walks the packet over the tables that an agent would write, with every neighbour known and a default route.
pub(super) fn explain(state: &HostState, query: &ExplainQuery) -> Any<Explanation> {
    let names = interfaces(state);
    let port = names.get(&query.interface).copied();
    let facts = HostFacts {
        underlay: UNDERLAY,
        underlay_mtu: UNDERLAY_MTU,
        incarnation: 0,
        interfaces: names.clone(),
        capacities: Capacities::default(),
    };
    let tables = contents(state, &facts, None)?;
    let mut host = Host::new(&facts.capacities);
    host.set_tracing(true);
    host.program(&tables);
    host.set_route(
        "0.0.0.0/0".parse()?,
        Ok(Route {
            interface: UNDERLAY,
            macs: link(),
        }),
    );
    for address in tables.neighbours.values() {
        host.set_neighbour(
            *address,
            Neighbour {
                macs: link(),
                interface: UNDERLAY,
            },
        );
    }
    let mut frame = VecFrame::new(query.frame.clone());
    let (program, walk) = match port {
        Some(number) => ("port", host.port(&mut frame, number, query.mark)),
        None => at_underlay(&mut host, &mut frame),
    };
    let name = |number: u32| {
        let named = names
            .iter()
            .find(|(_, known)| **known == number)
            .map(|(name, _)| name.clone());
        named.unwrap_or_else(|| "the underlay".to_owned())
    };
    Ok(told(state, program, &walk, frame, name))
}

/// XDP first; what it passes on meets tcx.
fn at_underlay(host: &mut Host, frame: &mut VecFrame) -> (&'static str, Walk) {
    let edge = host.edge(frame, UNDERLAY);
    if edge.outcome != Ok(Next::Pass) {
        return ("edge", edge);
    }
    let mut underlay = host.underlay(frame, UNDERLAY);
    underlay.steps.splice(0..0, edge.steps);
    ("edge, then underlay", underlay)
}

fn interfaces(state: &HostState) -> BTreeMap<String, u32> {
    state
        .ports
        .iter()
        .map(|port| port.interface.clone())
        .zip(UNDERLAY + 1..)
        .collect()
}

/// Stand-ins: the real ones are the kernel's to know.
fn link() -> MacPair {
    let mac = |last| Mac::from_octets([2, 0, 0, 0, 0, last]);
    MacPair::new(mac(1), mac(2))
}

fn told(
    state: &HostState,
    program: &str,
    walk: &Walk,
    frame: VecFrame,
    name: impl Fn(u32) -> String,
) -> Explanation {
    let (verdict, interface) = match walk.outcome {
        Ok(Next::Pass) => ("pass", None),
        Ok(Next::Transmit(to)) => ("transmit", Some(to)),
        Ok(Next::Deliver(to)) => ("deliver", Some(to)),
        Ok(Next::Answer(to, _)) => ("answer", Some(to)),
        Ok(Next::Consumed) | Err(_) => ("drop", None),
    };
    Explanation {
        node: state.node.name.clone(),
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
