//! A policy over a recording.

use std::collections::BTreeMap;

use thiserror::Error;

use super::leg::LegState;
use super::measurements::Measurements;
use super::policy::Policy;
use super::recording::Recording;
use super::report::Report;
use super::tally::{Rules, Tally, Weather};
use crate::cost::{Cost, TrafficClass};
use crate::estimate::LegStats;
use crate::id::{LegId, Millis, NodeId, PairId};
use crate::steering::{Config, Input, LegInput, NodeInput, PairInput, Recorded, Steering};

const TICK_MS: u64 = 1_000;
/// What passing through a relay costs where nobody says otherwise.
const RELAY_US: u32 = 1_000;

/// A policy that a recording cannot be replayed with.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The controller records estimates, not what they are made of.
    #[error(
        "line {line}: estimator: a controller's recording holds the estimates of its hosts (ewma, alpha 0.1), not their samples; leave it out"
    )]
    Estimator {
        /// The key's line.
        line: u64,
    },
    /// Nothing is left to count.
    #[error("nothing is counted: the recording has {ticks} ticks, warmup_ticks is {warmup_ticks}")]
    NoTick {
        /// Ticks of the recording.
        ticks: usize,
        /// Those that do not count.
        warmup_ticks: u64,
    },
}

/// What a policy makes of a recording. `progress` is told each tick.
///
/// # Errors
/// Keys that this recording has nothing for; no tick that counts.
pub fn run(recording: &Recording, policy: &Policy, mut progress: impl FnMut()) -> Result<Report, Refused> {
    let (tally, ticks, names) = match recording {
        Recording::Measurements(measured) => {
            let tally = over_measurements(measured, policy, &mut progress);
            (
                tally,
                measured.ticks(),
                measured.names().iter().cloned().collect(),
            )
        }
        Recording::Controller(recorded) => {
            if policy.estimator != Policy::default().estimator {
                let line = policy.estimator_line;
                return Err(Refused::Estimator { line });
            }
            let tally = over_recorded(recorded, policy, &mut progress);
            (tally, recorded.len(), names_of(recorded))
        }
    };
    if tally.realised.is_empty() {
        let warmup_ticks = policy.warmup_ticks;
        return Err(Refused::NoTick { ticks, warmup_ticks });
    }
    Ok(Report::new(tally, |node| {
        let name = names.get(&node).filter(|name| !name.is_empty());
        name.cloned().unwrap_or_else(|| format!("node {node}"))
    }))
}

fn names_of(recorded: &[Recorded]) -> BTreeMap<NodeId, String> {
    let nodes = recorded.iter().flat_map(|tick| &tick.input.nodes);
    nodes.map(|node| (node.id, node.name.clone())).collect()
}

fn over_measurements(measured: &Measurements, policy: &Policy, progress: &mut impl FnMut()) -> Tally {
    let relay_us = policy.relay_us.unwrap_or(RELAY_US);
    let legs = measured.legs();
    let mut input = input_of(measured, relay_us);
    let mut leg_states: Vec<LegState> = legs.iter().map(|_| LegState::new(policy)).collect();
    // No node is new because the recording begins.
    let config = Config {
        new_node_ms: 0,
        ..policy.config()
    };
    let (mut steering, mut tally) = (Steering::new(config), Tally::default());
    for (number, tick) in (0..).zip(0..measured.ticks()) {
        input.now = Millis(number * TICK_MS);
        let states = leg_states.iter_mut().zip(legs);
        let stats = states.filter_map(|(state, &leg)| {
            Some(LegInput {
                leg,
                stats: state.stats(input.now)?,
            })
        });
        input.legs = stats.collect();
        steering.tick(&input);
        let nodes = input.nodes.iter();
        let mut weather = Weather::new(nodes.map(|node| (node.id, Cost::from_us(relay_us), true)));
        for ((us, leg), state) in measured.tick(tick).zip(legs).zip(&mut leg_states) {
            weather.set(leg.from, leg.to, us.unwrap_or(policy.clip_us));
            state.observe(input.now.after(TICK_MS / 2), us);
        }
        tally.tick(
            &input.pairs,
            &steering,
            &weather,
            rules(policy, number >= policy.warmup_ticks),
        );
        progress();
    }
    tally
}

fn rules(policy: &Policy, counts: bool) -> Rules {
    Rules {
        counts,
        lost_us: policy.clip_us,
        max_relays: policy.max_relays,
    }
}

fn input_of(measured: &Measurements, relay_us: u32) -> Input {
    let named = |(id, name): &(NodeId, String)| NodeInput {
        name: name.clone(),
        transit_us: relay_us,
        ..NodeInput::new(*id)
    };
    let pair = |(id, leg): (u32, &LegId)| PairInput {
        id: PairId(id),
        entry: leg.from,
        exit: leg.to,
        class: TrafficClass::Game,
    };
    Input {
        nodes: measured.names().iter().map(named).collect(),
        pairs: (1..).zip(measured.legs()).map(pair).collect(),
        ..Input::default()
    }
}

fn over_recorded(ticks: &[Recorded], policy: &Policy, progress: &mut impl FnMut()) -> Tally {
    let (mut steering, mut tally) = (Steering::new(policy.config()), Tally::default());
    let (mut listed, mut counted, mut last): (Vec<PairInput>, u64, Option<Millis>) = (Vec::new(), 0, None);
    for tick in ticks {
        let input = applied(policy, &tick.input);
        // What an event made is no second of its own.
        if last.is_none_or(|last| input.now.since(last) * 2 >= TICK_MS) {
            if last.is_some() {
                let counts = counted >= policy.warmup_ticks;
                tally.tick(
                    &listed,
                    &steering,
                    &weather(policy, &input),
                    rules(policy, counts),
                );
                counted += 1;
            }
            last = Some(input.now);
        }
        steering.tick(&input);
        listed = input.pairs;
        progress();
    }
    tally
}

/// What the policy would have been told.
fn applied(policy: &Policy, recorded: &Input) -> Input {
    let mut input = recorded.clone();
    if let Some(relay_us) = policy.relay_us {
        input.nodes.iter_mut().for_each(|node| node.transit_us = relay_us);
    }
    if !policy.guard {
        input
            .legs
            .iter_mut()
            .for_each(|leg| leg.stats.rtt_us = unguarded(&leg.stats));
    }
    input
}

/// The estimate that was raised halfway to the 90th percentile, to 1 µs.
fn unguarded(stats: &LegStats) -> u32 {
    if stats.rtt_us >= stats.p90_us {
        stats.rtt_us
    } else {
        (2 * stats.rtt_us).saturating_sub(stats.p90_us)
    }
}

/// The medians that a tick was told. Any two nodes have a leg; one that has no quality is lost.
fn weather(policy: &Policy, input: &Input) -> Weather {
    let nodes = input.nodes.iter();
    let mut weather = Weather::new(nodes.map(|node| {
        (
            node.id,
            Cost::from_us(node.transit_us),
            node.relay && !node.draining,
        )
    }));
    for from in &input.nodes {
        for to in &input.nodes {
            weather.set(from.id, to.id, policy.clip_us);
        }
    }
    for leg in &input.legs {
        weather.set(leg.leg.from, leg.leg.to, leg.stats.p50_us);
    }
    weather
}
