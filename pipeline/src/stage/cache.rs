//! The targets of IPv4 flows that were heard lately, a cache line away.
//!
//! A flow's entry in the kernel's table lies behind a bucket and a long key, which costs three cache lines or more where
//! flows are many. Here is a copy of it, which counts as long as the entry itself would have nothing to note of the packet:
//! while its service has not changed, and for [`Tracked::GRAIN`] after the last packet that was noted. So a copy may be
//! lost, be left from before or be taken by another flow at any time. Where one flow's packets are on two CPUs at the same
//! moment, one that begins it anew and one from its midst, the latter may be copied last.

use super::flow::Flow;
use super::track::{Age, Subject};
use crate::Tables;
use crate::map::{CachedFlow, Phase, Service, Tracked, policy};

/// The number of a flow's target, if its packet is one from the flow's midst.
#[inline(always)]
pub fn target<T: Tables>(tables: &T, service: &Service, (flow, subject): (&Flow, &Subject)) -> Option<u32> {
    if !is_in_midst(subject.age) || service.has(policy::QUIC) {
        return None;
    }
    let name = name(service, flow);
    let line = tables.cached_flows(subject.hash)?;
    let copy = line.flows.iter().find(|copy| copy.is_of(name))?;
    copy.target(name, service.generation, tables.jiffies())
}

/// Copies the entry of a flow whose packet this is, or forgets the copy where the flow begins anew. Where two other flows
/// that were heard lately have the line, they keep it.
#[inline(always)]
pub fn keep<T: Tables>(tables: &T, service: &Service, (flow, subject): (&Flow, &Subject), known: &Tracked) {
    if service.has(policy::QUIC) || matches!(subject.age, Age::Ends | Age::Quoted) {
        return;
    }
    let Some(line) = tables.cached_flows(subject.hash) else {
        return;
    };
    let (name, now) = (name(service, flow), tables.jiffies());
    let [first, second] = &line.flows;
    if !is_in_midst(subject.age) || known.phase() != Phase::Open {
        for copy in [first, second] {
            if copy.is_of(name) {
                copy.forget();
            }
        }
        return;
    }
    let is_for_it = |copy: &CachedFlow| copy.is_of(name) || !copy.is_fresh(now);
    if first.is_of(name) {
        first.copy(tables, name, known);
    } else if is_for_it(second) {
        second.copy(tables, name, known);
    } else if is_for_it(first) {
        first.copy(tables, name, known);
    }
}

/// Whether a packet changes nothing of what is known of its flow.
#[inline(always)]
const fn is_in_midst(age: Age) -> bool {
    matches!(age, Age::HasBegun | Age::Unknown)
}

/// A flow to a service, as copies have it.
#[inline(always)]
const fn name(service: &Service, flow: &Flow) -> [u64; 2] {
    CachedFlow::name(
        service.vni,
        [flow.source, flow.destination],
        [flow.source_port, flow.destination_port],
        flow.protocol,
    )
}
