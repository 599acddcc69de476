//! How many targets services want, and those that their hooks name.
//!
//! ```text
//! agents --flows of each server--> wants --Call, each interval--> hook --its targets--> intent --> hosts
//! ```
//!
//! A service's hook is called again only when the call before has ended. Whatever goes wrong with it, the targets that it
//! named last stay, and nothing else is touched.

mod answer;
mod flows;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kuafu_model::kinds::{Moment, Name, Scaling, Service, Target};
use kuafu_model::manifest::Intent;
use serde_json::json;

use super::{Command, Core, Now, SessionId, UnixSeconds, key};
use crate::store::Write;
pub use answer::Call;
use answer::refused;
pub(super) use answer::{read, written};
use flows::{Reports, STALE_MS};

/// A target stays so long in any case when no host leads new flows to it any more: hosts have to say what it has.
const LEAVES_MS: Now = STALE_MS;
/// So long after its time is over a target is forgotten: hosts take its flows away by their own clocks.
const AFTER_S: UnixSeconds = 10;

/// What is known of services that scale.
#[derive(Debug, Default)]
pub(super) struct State {
    reports: Reports,
    services: BTreeMap<Name, One>,
    /// Calls so far.
    calls: u64,
}

impl State {
    /// A host is no member any more.
    pub(super) fn forget(&mut self, node: &Name) {
        self.reports.forget(node);
    }

    /// Services that scale no more, or are reached otherwise from now on, begin anew: what was asked for them before
    /// says nothing.
    pub(super) fn forget_services(&mut self, before: &Intent, after: &Intent) {
        let is_reached = |intent: &Intent, name: &Name| {
            let spec = &intent.services().get(name)?.spec;
            Some((spec.scaling.is_some(), spec.mode, spec.vpc.clone()))
        };
        let is_same = |name: &Name| {
            let now = is_reached(after, name).filter(|(scales, ..)| *scales);
            now.is_some() && now == is_reached(before, name)
        };
        self.services.retain(|name, _| is_same(name));
    }
}

/// A service that scales.
#[derive(Debug)]
struct One {
    /// When it is called next.
    due: Now,
    /// The number of the call that has not ended.
    under_way: Option<u64>,
    /// When so many targets as there are, or more, were needed last.
    needed: Now,
    has: usize,
    wants: usize,
    flows: u64,
    fault: Option<String>,
    /// Since when no host leads new flows to targets that leave.
    leaving: BTreeMap<String, Now>,
}

/// A service that scales, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalingView {
    /// The service.
    pub service: Name,
    /// Its hook.
    pub url: String,
    /// Targets that take new flows, at the last call.
    pub has: usize,
    /// How many were wanted then.
    pub wants: usize,
    /// Open flows then.
    pub flows: u64,
    /// Why the last call changed nothing that it should have.
    pub fault: Option<String>,
    /// Targets that the hook has named.
    pub named: usize,
    /// Those of them that leave.
    pub leaving: usize,
}

/// How many targets a service wants that has so many, and so many open flows; and when it last needed as many as it has.
///
/// - It wants as many as its flows fill, between `min` and `max`.
/// - More at once; fewer only when as many as it has were not needed for `cooldown_s`.
/// - Where not all flows are known, as many as it has are needed.
fn wanted(
    scaling: &Scaling,
    (now, needed): (Now, Now),
    has: usize,
    (flows, is_known): (u64, bool),
) -> (usize, Now) {
    let least = usize::from(scaling.min.get());
    let most = usize::from(scaling.max.get());
    let filled = flows.div_ceil(scaling.flows_per_target.get().into());
    let filled = usize::try_from(filled).unwrap_or(usize::MAX);
    let needs = filled.clamp(least, most);
    if needs >= has || !is_known {
        return (needs.max(has).clamp(least, most), now);
    }
    let cooldown = Now::from(scaling.cooldown_s.get()) * 1_000;
    if now.saturating_sub(needed) >= cooldown {
        (needs, needed)
    } else {
        (has.clamp(least, most), needed)
    }
}

/// Whether a target is one that its hook names no more.
fn leaves(target: &Target) -> bool {
    target.drain && target.drain_until.is_some()
}

/// A hook's URL as people see it: what is secret in it stands in its query.
fn shown(url: &str) -> &str {
    url.split_once('?').map_or(url, |(shown, _)| shown)
}

impl Core {
    /// The calls that are due, and what follows from targets that have left. To be called twice a second.
    pub fn handle_scaling(&mut self, now: Now, at: UnixSeconds) -> (Vec<Call>, Vec<Command>) {
        let services = self.intent.services().values();
        let scales = services.filter(|service| service.spec.scaling.is_some());
        let services: Vec<Arc<Service>> = scales.cloned().collect();
        let mut calls = Vec::new();
        let mut stay = BTreeMap::new();
        for service in &services {
            calls.extend(self.due_call(now, service));
            stay.extend(self.who_stays(now, at, service));
        }
        (calls, self.let_go(stay))
    }

    fn due_call(&mut self, now: Now, service: &Arc<Service>) -> Option<Call> {
        let scaling = service.spec.scaling.as_ref()?;
        let name = &service.metadata.name;
        let one = self.scaling.services.get(name);
        if one.is_some_and(|one| one.under_way.is_some() || now < one.due) {
            return None;
        }
        let (flows, is_known) = self.flows_of(now, name);
        let targets = self.intent.targets(service);
        let has = targets.iter().filter(|target| target.share() > 0).count();
        let interval = Now::from(scaling.interval_s.get()) * 1_000;
        let lacks = has < usize::from(scaling.min.get());
        let services = &mut self.scaling.services;
        let one = services.entry(name.clone()).or_insert_with(|| One {
            due: if lacks { now } else { now + interval },
            under_way: None,
            needed: now,
            has,
            wants: has,
            flows,
            fault: None,
            leaving: BTreeMap::new(),
        });
        if now < one.due {
            return None;
        }
        let (wants, needed) = wanted(scaling, (now, one.needed), has, (flows, is_known));
        self.scaling.calls += 1;
        let number = self.scaling.calls;
        (one.due, one.under_way) = (now + interval, Some(number));
        (one.has, one.wants, one.flows, one.needed) = (has, wants, flows, needed);
        let named = self.intent.named_by_hook(service).iter();
        let named: Vec<&Target> = named.filter(|target| !leaves(target)).collect();
        let body = json!({
            "service": name,
            "has": has,
            "wants": wants,
            "metric": {"flows": flows, "flows_per_target": scaling.flows_per_target},
            "targets": named,
        });
        Some(Call {
            number,
            service: Arc::clone(service),
            url: scaling.hook.url.to_string(),
            timeout_s: scaling.hook.timeout_s.get(),
            body: body.to_string(),
        })
    }

    /// A call has ended: with a whole list of targets, with nothing that changes (`None`), or in words that go on after
    /// the hook's URL with why it failed. What was asked for a service that is another one by now says nothing.
    pub fn handle_hook(
        &mut self,
        at: UnixSeconds,
        call: &Call,
        answer: Result<Option<Vec<Target>>, String>,
    ) -> Vec<Command> {
        let name = &call.service.metadata.name;
        let one = self.scaling.services.get_mut(name);
        let Some(one) = one.filter(|one| one.under_way == Some(call.number)) else {
            return Vec::new();
        };
        one.under_way = None;
        let service = self.intent.services().get(name);
        let Some(service) = service
            .filter(|service| service.spec == call.service.spec)
            .cloned()
        else {
            return Vec::new();
        };
        let done = answer.and_then(|answer| match answer {
            None => Ok(Vec::new()),
            Some(named) => self.take_over(at, &service, named),
        });
        let (fault, commands) = match done {
            Ok(commands) => (None, commands),
            Err(why) => (Some(why), Vec::new()),
        };
        if let Some(one) = self.scaling.services.get_mut(name) {
            if let Some(why) = fault.as_ref().filter(|_| one.fault != fault) {
                let (service, url) = (name, shown(&call.url));
                tracing::warn!(%service, url, why, "a scaling hook fails; the targets before stay");
            }
            one.fault = fault;
        }
        commands
    }

    /// The targets that a hook has named are those of the service, and those that it names no more leave.
    fn take_over(
        &mut self,
        at: UnixSeconds,
        service: &Service,
        mut named: Vec<Target>,
    ) -> Result<Vec<Command>, String> {
        let before = self.intent.named_by_hook(service).to_vec();
        let scaling = service.spec.scaling.as_ref();
        let drain_s = scaling.map_or(0, |scaling| scaling.drain_s.get());
        let until = Moment::new(at.saturating_add(drain_s.into())).ok_or_else(|| {
            let why = format!("none could leave: {drain_s} s from now is no time (the controller's clock)");
            refused(&[why])
        })?;
        let stay: BTreeSet<String> = named.iter().map(Target::end).collect();
        let gone = before.iter().filter(|target| !stay.contains(&target.end()));
        named.extend(gone.map(|target| match target.drain_until {
            Some(_) => target.clone(),
            None => Target {
                drain: true,
                drain_until: Some(until),
                ..target.clone()
            },
        }));
        if named == before {
            return Ok(Vec::new());
        }
        self.install_named([(service.metadata.name.clone(), named)].into())
    }

    /// The targets of a service without those that have left, where some have: those that have no more flows, or whose
    /// time is over.
    fn who_stays(&mut self, now: Now, at: UnixSeconds, service: &Service) -> Option<(Name, Vec<Target>)> {
        let name = &service.metadata.name;
        let named = self.intent.named_by_hook(service);
        let leaving: Vec<&Target> = named.iter().filter(|target| leaves(target)).collect();
        let before = self.scaling.services.get(name).map(|one| &one.leaving);
        if leaving.is_empty() && before.is_none_or(BTreeMap::is_empty) {
            return None;
        }
        let addresses: BTreeSet<IpAddr> = leaving.iter().map(|target| target.address.get()).collect();
        let seen = self.seen_at_hosts(name, &addresses);
        let since: BTreeMap<String, Now> = leaving
            .iter()
            .map(|target| {
                let since = before.and_then(|before| before.get(&target.end())).copied();
                let since = since.filter(|_| self.gets_none(&seen, target));
                (target.end(), since.unwrap_or(now))
            })
            .collect();
        let has_left = |target: &Target| {
            let until = target.drain_until.map(Moment::unix_s);
            let is_over = until.is_some_and(|until| until.saturating_add(AFTER_S) <= at);
            let since = since.get(&target.end()).copied().unwrap_or(now);
            let is_known = now.saturating_sub(since) >= LEAVES_MS;
            leaves(target) && (is_over || (is_known && self.has_no_flow((since, now), name, &seen, target)))
        };
        let stay: Vec<Target> = named.iter().filter(|target| !has_left(target)).cloned().collect();
        let has_gone = stay.len() < named.len();
        if let Some(one) = self.scaling.services.get_mut(name) {
            one.leaving = since;
        }
        has_gone.then(|| (name.clone(), stay))
    }

    fn let_go(&mut self, stay: BTreeMap<Name, Vec<Target>>) -> Vec<Command> {
        if stay.is_empty() {
            return Vec::new();
        }
        self.install_named(stay).unwrap_or_else(|why| {
            tracing::warn!(why, "targets that have left cannot be forgotten");
            Vec::new()
        })
    }

    fn install_named(&mut self, lists: BTreeMap<Name, Vec<Target>>) -> Result<Vec<Command>, String> {
        let mut next = self.intent.clone();
        for (service, targets) in lists {
            let with = next.with_named_by_hook(&service, targets);
            next = with.map_err(|errors| refused(&errors))?;
        }
        let compiled = self.compile(&next, &self.choices.clone());
        let (target, allocations) = compiled.map_err(|error| refused(&[error.to_string()]))?;
        let mut writes = self.named_writes(&next);
        self.intent = next;
        writes.extend(self.install(target, allocations));
        Ok(self.roll_out(writes))
    }

    /// What is to be written where an intent's named targets are others than those now.
    pub(super) fn named_writes(&self, next: &Intent) -> Vec<Write> {
        let (before, after) = (self.intent.all_named_by_hooks(), next.all_named_by_hooks());
        let services: BTreeSet<&Name> = before.keys().chain(after.keys()).collect();
        let changed = services
            .into_iter()
            .filter(|service| before.get(*service) != after.get(*service));
        let write = |service: &Name| match after.get(service) {
            Some(targets) => Write::Put(key::named(service), written(service, targets).into_bytes()),
            None => Write::Delete(key::named(service)),
        };
        changed.map(write).collect()
    }

    /// Named targets that are none any more in an intent, by service.
    pub(super) fn named_lost(&self, next: &Intent) -> BTreeMap<Name, Vec<Target>> {
        let after = next.all_named_by_hooks();
        let lost = self.intent.all_named_by_hooks().iter().map(|(service, before)| {
            let after = after.get(service).map_or(&[][..], AsRef::as_ref);
            let stay: BTreeSet<String> = after.iter().map(Target::end).collect();
            let lost = before.iter().filter(|target| !stay.contains(&target.end()));
            (service.clone(), lost.cloned().collect::<Vec<Target>>())
        });
        lost.filter(|(_, targets)| !targets.is_empty()).collect()
    }

    /// The services that scale, by name.
    #[must_use]
    pub fn scaling_views(&self) -> Vec<ScalingView> {
        let view = |service: &Service| {
            let scaling = service.spec.scaling.as_ref()?;
            let one = self.scaling.services.get(&service.metadata.name);
            let named = self.intent.named_by_hook(service);
            Some(ScalingView {
                service: service.metadata.name.clone(),
                url: shown(scaling.hook.url.as_str()).to_owned(),
                has: one.map_or(0, |one| one.has),
                wants: one.map_or(0, |one| one.wants),
                flows: one.map_or(0, |one| one.flows),
                fault: one.and_then(|one| one.fault.clone()),
                named: named.len(),
                leaving: named.iter().filter(|target| leaves(target)).count(),
            })
        };
        let services = self.intent.services().values();
        services.filter_map(|service| view(service)).collect()
    }
}

#[cfg(test)]
mod tests {
    use kuafu_model::kinds::Object;
    use kuafu_model::manifest::{File, parse};

    use super::*;

    fn scaling(min: u16, max: u16, cooldown_s: u32) -> Scaling {
        let text = format!(
            "kind: Service\nmetadata: {{name: web}}\nspec: {{scaling: {{min: {min}, max: {max}, flows_per_target: 10, \
             cooldown_s: {cooldown_s}, hook: {{url: \"http://192.0.2.9/\"}}}}}}\n"
        );
        let file = File {
            name: "t",
            text: &text,
        };
        let manifests = parse(&[file]).unwrap();
        let Object::Service(service) = manifests[0].object() else {
            panic!("no service")
        };
        service.spec.scaling.clone().unwrap()
    }

    #[test]
    fn as_many_are_wanted_as_flows_fill() {
        let wants = |has, flows| wanted(&scaling(2, 5, 0), (1_000, 0), has, (flows, true)).0;
        assert_eq!(wants(2, 0), 2, "at least min");
        assert_eq!(wants(2, 20), 2);
        assert_eq!(wants(2, 21), 3);
        assert_eq!(wants(2, 1_000), 5, "at most max");
        assert_eq!(wants(2, u64::MAX), 5);
        assert_eq!(wants(0, 0), 2);
        assert_eq!(wants(4, 21), 3, "without a cooldown fewer at once");
        assert_eq!(wants(9, 1_000), 5);
    }

    #[test]
    fn fewer_are_wanted_only_after_a_time_without_need() {
        let scaling = scaling(1, 5, 60);
        let wants = |now, needed, has, flows| wanted(&scaling, (now, needed), has, (flows, true));
        assert_eq!(wants(59_000, 0, 3, 11), (3, 0));
        assert_eq!(wants(60_000, 0, 3, 11), (2, 0));
        // What is needed meanwhile begins the time anew.
        assert_eq!(wants(59_000, 0, 3, 21), (3, 59_000));
        assert_eq!(wants(118_000, 59_000, 3, 0), (3, 59_000));
        assert_eq!(wants(119_000, 59_000, 3, 0), (1, 59_000));
        assert_eq!(wants(10, 0, 3, 45), (5, 10), "more at once");
        assert_eq!(wants(10, 0, 9, 0), (5, 0), "never beyond max");
        // Where not all is known, as many as it has are needed.
        let wants = |has, flows| wanted(&scaling, (90_000, 0), has, (flows, false));
        assert_eq!(wants(3, 0), (3, 90_000));
        assert_eq!(wants(3, 45), (5, 90_000));
        assert_eq!(wants(9, 0), (5, 90_000));
    }
}
