//! What hosts say of the flows of services that scale, and whether it can be believed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kuafu_model::compile::Server;
use kuafu_model::kinds::{Name, Target};
use kuafu_model::{HostState, health};

use super::{Core, Now, SessionId};

/// Who has not said for so long how many flows its servers have is not believed: agents say it each 5 s.
pub(super) const STALE_MS: Now = 15_000;

/// What hosts said last, by service and host.
#[derive(Debug, Default)]
pub(super) struct Reports(BTreeMap<Name, BTreeMap<Name, Report>>);

/// What a host said of the servers of a service: of one at least.
#[derive(Debug)]
struct Report {
    at: Now,
    flows: BTreeMap<Server, u64>,
}

impl Report {
    fn is_fresh(&self, now: Now) -> bool {
        now.saturating_sub(self.at) < STALE_MS
    }
}

impl Reports {
    /// A host is no member any more.
    pub(super) fn forget(&mut self, node: &Name) {
        for hosts in self.0.values_mut() {
            hosts.remove(node);
        }
        self.0.retain(|_, hosts| !hosts.is_empty());
    }

    /// All that a host says, in place of what it said before.
    fn take(&mut self, at: Now, node: &Name, flows: impl Iterator<Item = (Server, u64)>) {
        self.forget(node);
        for (server, count) in flows {
            let hosts = self.0.entry(server.service.clone()).or_default();
            let report = hosts.entry(node.clone()).or_insert_with(|| Report {
                at,
                flows: BTreeMap::new(),
            });
            report.flows.insert(server, count);
        }
    }

    fn of(&self, service: &Name, node: &Name) -> Option<&Report> {
        self.0.get(service)?.get(node)
    }
}

/// A server of a service, as it stands in a state of a host.
pub(super) struct Seen<'a> {
    node: &'a Name,
    address: IpAddr,
    port: u16,
    weight: u32,
}

impl Seen<'_> {
    fn is(&self, target: &Target) -> bool {
        let is_port = target.port.is_none_or(|port| port.get() == self.port);
        self.address == target.address.get() && is_port
    }
}

/// The servers of services that scale, by the service's name: address, port and weight.
fn counted(state: &HostState) -> impl Iterator<Item = (&str, IpAddr, u16, u32)> {
    health::targets(state).filter_map(|(service, target)| {
        let port = service.port_of(&target.target);
        Some((
            target.counted.as_deref()?,
            target.target.server()?,
            port,
            target.weight,
        ))
    })
}

impl Core {
    /// How many flows a host leads to each server of services that scale. What is no server of its own says nothing.
    pub fn handle_flows(&mut self, now: Now, session: SessionId, flows: BTreeMap<Server, u64>) {
        let Some(node) = self.node_of(session).cloned() else {
            return;
        };
        let own = self.target.get(&node).into_iter().flat_map(counted);
        let own: BTreeSet<_> = own
            .map(|(service, address, port, _)| (service, address, port))
            .collect();
        let is_own = |server: &Server| {
            let (address, port) = (server.address.get(), server.port.get());
            own.contains(&(server.service.as_str(), address, port))
        };
        let flows = flows.into_iter().filter(|(server, _)| is_own(server));
        self.scaling.reports.take(now, &node, flows);
    }

    /// The open flows of a service, and whether all hosts that send to it have said lately how many they have. Where
    /// one has not, its last word counts; that of a host which sends there no more does not.
    pub(super) fn flows_of(&self, now: Now, service: &Name) -> (u64, bool) {
        let sends = |state| counted(state).any(|(counted, ..)| counted == service.as_str());
        let senders = self.target.iter().filter(|(_, state)| sends(state));
        let senders: BTreeSet<&Name> = senders.map(|(node, _)| node).collect();
        let has_said = |node: &&Name| {
            let report = self.scaling.reports.of(service, node);
            report.is_some_and(|report| report.is_fresh(now))
        };
        let is_known = senders.iter().all(has_said);
        let reports = self.scaling.reports.0.get(service);
        let reports = reports.into_iter().flatten();
        let counts = reports.filter(|(node, report)| report.is_fresh(now) || senders.contains(node));
        let flows = counts.flat_map(|(_, report)| report.flows.values());
        (
            flows.fold(0, |sum: u64, flows| sum.saturating_add(*flows)),
            is_known,
        )
    }

    /// Where hosts have servers of a service with one of these addresses: in what they should run, and in all that they
    /// may be running or go back to.
    pub(super) fn seen_at_hosts(&self, service: &Name, addresses: &BTreeSet<IpAddr>) -> Vec<Seen<'_>> {
        let running = self.fleet.hosts();
        let running = running.flat_map(|(node, running)| running.states().map(move |state| (node, state)));
        let all = self.target.iter().chain(running);
        let all = all.flat_map(|(node, state)| counted(state).map(move |counted| (node, counted)));
        let its = all.filter(|(_, (of, address, ..))| *of == service.as_str() && addresses.contains(address));
        its.map(|(node, (_, address, port, weight))| Seen {
            node,
            address,
            port,
            weight,
        })
        .collect()
    }

    /// Whether no host leads new flows to a target, whichever of its states it runs.
    pub(super) fn gets_none(&self, seen: &[Seen<'_>], target: &Target) -> bool {
        let mut its = seen.iter().filter(|seen| seen.is(target));
        its.all(|seen| {
            let running = self.fleet.get(seen.node);
            seen.weight == 0 && running.is_some_and(|running| running.acknowledged().is_some())
        })
    }

    /// Whether all hosts that have a target say lately, and after that time, that it has no flow.
    pub(super) fn has_no_flow(
        &self,
        (since, now): (Now, Now),
        service: &Name,
        seen: &[Seen<'_>],
        target: &Target,
    ) -> bool {
        let its = seen.iter().filter(|seen| seen.is(target));
        let nodes: BTreeSet<&Name> = its.map(|seen| seen.node).collect();
        nodes.into_iter().all(|node| {
            let report = self.scaling.reports.of(service, node);
            let report = report.filter(|report| report.at >= since && report.is_fresh(now));
            report.is_some_and(|report| says_none(report, target))
        })
    }
}

/// Whether a report names a target, and with no flow.
fn says_none(report: &Report, target: &Target) -> bool {
    let is_it = |server: &Server| {
        let is_port = target.port.is_none_or(|port| port == server.port);
        server.address == target.address && is_port
    };
    let its = report.flows.iter().filter(|(server, _)| is_it(server));
    let counts: Vec<u64> = its.map(|(_, flows)| *flows).collect();
    !counts.is_empty() && counts.iter().all(|flows| *flows == 0)
}
