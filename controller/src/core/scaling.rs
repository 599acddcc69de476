//! How many targets services want, and those that their hooks name.
//!
//! ```text
//! agents --flows of each server--> wants --Call, each interval--> hook --its targets--> intent --> hosts
//! ```
//!
//! A service's hook is called again only when the call before has ended. Whatever goes wrong with it, the targets that it
//! named last stay, and nothing else is touched.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_model::compile::Server;
use kuafu_model::kinds::{Moment, Name, Object, Scaling, Service, Target};
use kuafu_model::manifest::{File, Intent, parse, to_json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Command, Core, Now, SessionId, UnixSeconds, key};
use crate::store::Write;

/// A target that leaves stays so long in any case: hosts have to hear that it takes nothing new, and to say what it has.
const LEAVES_MS: Now = 15_000;
/// Who has not said for so long how many flows its servers have is not believed: agents say it each 5 s.
const STALE_MS: Now = 15_000;
/// So long after its time is over a target is forgotten: hosts take its flows away by their own clocks.
const AFTER_S: UnixSeconds = 10;
/// Of an answer that cannot be read, so many errors are shown.
const SHOWN: usize = 3;

/// What is known of services that scale.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What hosts say of the servers, and when they said it.
    flows: BTreeMap<Name, (Now, BTreeMap<Server, u64>)>,
    services: BTreeMap<Name, One>,
}

impl State {
    /// A host is no member any more.
    pub(super) fn forget(&mut self, node: &Name) {
        self.flows.remove(node);
    }

    fn of_service(&self, service: &Name) -> u64 {
        let all = self.flows.values().flat_map(|(_, flows)| flows);
        all.filter(|(server, _)| server.service == *service)
            .map(|(_, flows)| flows)
            .sum()
    }
}

/// A service that scales.
#[derive(Debug)]
struct One {
    /// When it is called next.
    due: Now,
    is_under_way: bool,
    /// When so many targets as there are, or more, were needed last.
    needed: Now,
    has: usize,
    wants: usize,
    flows: u64,
    fault: Option<String>,
    /// Since when targets leave.
    leaving: BTreeMap<String, Now>,
}

/// A call of a hook, to be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The service.
    pub service: Name,
    /// Where.
    pub url: String,
    /// When it has failed.
    pub timeout_s: u8,
    /// What is posted: JSON.
    pub body: String,
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

/// What a hook answers.
#[derive(Deserialize)]
struct Answer {
    targets: Vec<Value>,
}

/// How many targets a service wants that has so many, and so many open flows; and when it last needed as many as it has.
///
/// - It wants as many as its flows fill, between `min` and `max`.
/// - More at once; fewer only when as many as it has were not needed for `cooldown_s`.
fn wanted(scaling: &Scaling, (now, needed): (Now, Now), has: usize, flows: u64) -> (usize, Now) {
    let least = usize::from(scaling.min.get());
    let most = usize::from(scaling.max.get());
    let filled = flows.div_ceil(scaling.flows_per_target.get().into());
    let needs = usize::try_from(filled).unwrap_or(usize::MAX).clamp(least, most);
    if needs >= has {
        return (needs, now);
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

impl Core {
    /// How many flows a host leads to each server of services that scale.
    pub fn handle_flows(&mut self, now: Now, session: SessionId, flows: BTreeMap<Server, u64>) {
        if let Some(node) = self.node_of(session).cloned() {
            self.scaling.flows.insert(node, (now, flows));
        }
    }

    /// The calls that are due, and what follows from targets that have left. To be called twice a second.
    pub fn handle_scaling(&mut self, now: Now, at: UnixSeconds) -> (Vec<Call>, Vec<Command>) {
        let services = self.intent.services().values();
        let scales = services.filter(|service| service.spec.scaling.is_some());
        let services: Vec<_> = scales.cloned().collect();
        let names: BTreeSet<&Name> = services.iter().map(|service| &service.metadata.name).collect();
        self.scaling.services.retain(|name, _| names.contains(name));
        let (mut calls, mut commands) = (Vec::new(), Vec::new());
        for service in &services {
            calls.extend(self.due_call(now, service));
            commands.extend(self.let_go(now, at, service));
        }
        (calls, commands)
    }

    fn due_call(&mut self, now: Now, service: &Service) -> Option<Call> {
        let scaling = service.spec.scaling.as_ref()?;
        let name = &service.metadata.name;
        let interval = Now::from(scaling.interval_s.get()) * 1_000;
        let flows = self.scaling.of_service(name);
        let targets = self.intent.targets(service);
        let has = targets.iter().filter(|target| target.share() > 0).count();
        let one = self.scaling.services.entry(name.clone()).or_insert_with(|| One {
            due: now + interval,
            is_under_way: false,
            needed: now,
            has,
            wants: has,
            flows,
            fault: None,
            leaving: BTreeMap::new(),
        });
        if one.is_under_way || now < one.due {
            return None;
        }
        let (wants, needed) = wanted(scaling, (now, one.needed), has, flows);
        (one.due, one.is_under_way) = (now + interval, true);
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
            service: name.clone(),
            url: scaling.hook.url.to_string(),
            timeout_s: scaling.hook.timeout_s.get(),
            body: body.to_string(),
        })
    }

    /// A call has ended: with a whole list of targets, with nothing that changes (`None`), or in words that go on after
    /// the hook's URL with why it failed.
    pub fn handle_hook(
        &mut self,
        now: Now,
        at: UnixSeconds,
        call: &Call,
        answer: Result<Option<String>, String>,
    ) -> Vec<Command> {
        let Some(one) = self.scaling.services.get_mut(&call.service) else {
            return Vec::new();
        };
        one.is_under_way = false;
        let Some(service) = self.intent.services().get(&call.service).cloned() else {
            return Vec::new();
        };
        let scaling = service.spec.scaling.as_ref();
        let Some(scaling) = scaling.filter(|scaling| scaling.hook.url.as_str() == call.url) else {
            return Vec::new();
        };
        let done = match answer {
            Ok(None) => Ok(Vec::new()),
            Ok(Some(text)) => targets_of(&service, scaling, &text)
                .and_then(|named| self.take_over(now, at, (&service, scaling), named)),
            Err(why) => Err(why),
        };
        let (fault, commands) = match done {
            Ok(commands) => (None, commands),
            Err(why) => {
                let (service, url) = (&call.service, &call.url);
                tracing::warn!(%service, url, why, "a scaling hook fails; the targets before stay");
                (Some(why), Vec::new())
            }
        };
        if let Some(one) = self.scaling.services.get_mut(&call.service) {
            one.fault = fault;
        }
        commands
    }

    /// The targets that a hook has named are those of the service, and those that it names no more leave.
    fn take_over(
        &mut self,
        now: Now,
        at: UnixSeconds,
        (service, scaling): (&Service, &Scaling),
        mut named: Vec<Target>,
    ) -> Result<Vec<Command>, String> {
        let name = &service.metadata.name;
        let before = self.intent.named_by_hook(service).to_vec();
        let stay: BTreeSet<String> = named.iter().map(Target::end).collect();
        let until = Moment::new(at.saturating_add(scaling.drain_s.get().into()));
        let gone = before.iter().filter(|target| !stay.contains(&target.end()));
        named.extend(gone.map(|target| match target.drain_until {
            Some(_) => target.clone(),
            None => Target {
                drain: true,
                drain_until: until,
                ..target.clone()
            },
        }));
        if let Some(one) = self.scaling.services.get_mut(name) {
            let leaving = named.iter().filter(|target| leaves(target));
            let since = |target: &Target| {
                (
                    target.end(),
                    one.leaving.get(&target.end()).copied().unwrap_or(now),
                )
            };
            one.leaving = leaving.map(since).collect();
        }
        if named == before {
            return Ok(Vec::new());
        }
        self.install_named(name, named)
    }

    /// Targets that leave are gone when they have no more flows, or their time is over.
    fn let_go(&mut self, now: Now, at: UnixSeconds, service: &Service) -> Vec<Command> {
        let name = &service.metadata.name;
        let named = self.intent.named_by_hook(service);
        if !named.iter().any(leaves) {
            return Vec::new();
        }
        let has_left = |target: &Target| {
            let is_over = target
                .drain_until
                .is_some_and(|until| until.unix_s() + AFTER_S <= at);
            leaves(target) && (is_over || self.has_no_flow(now, name, target))
        };
        let left: Vec<Target> = named.iter().filter(|target| !has_left(target)).cloned().collect();
        if left.len() == named.len() {
            return Vec::new();
        }
        match self.install_named(name, left) {
            Ok(commands) => commands,
            Err(why) => {
                tracing::warn!(service = %name, why, "targets that have left cannot be forgotten");
                Vec::new()
            }
        }
    }

    /// Whether a target that leaves has none, as all hosts say that send there.
    fn has_no_flow(&self, now: Now, service: &Name, target: &Target) -> bool {
        let one = self.scaling.services.get(service);
        let since = one.and_then(|one| one.leaving.get(&target.end()));
        // After a restart of the controller its time alone counts.
        if since.is_none_or(|since| now.saturating_sub(*since) < LEAVES_MS) {
            return false;
        }
        let sends = |state: &kuafu_model::HostState| {
            let targets = kuafu_model::health::targets(state);
            let mut counted = targets.map(|(_, target)| target.counted.as_deref());
            counted.any(|counted| counted == Some(service.as_str()))
        };
        let mut senders = self.target.iter().filter(|(_, state)| sends(state));
        senders.all(|(node, _)| self.says_none(now, node, service, target))
    }

    fn says_none(&self, now: Now, node: &Name, service: &Name, target: &Target) -> bool {
        let Some((at, flows)) = self.scaling.flows.get(node) else {
            return false;
        };
        let is_it = |server: &Server| {
            let is_port = target.port.is_none_or(|port| port == server.port);
            server.service == *service && server.address == target.address && is_port
        };
        let mut its = flows.iter().filter(|(server, _)| is_it(server));
        now.saturating_sub(*at) < STALE_MS && its.all(|(_, flows)| *flows == 0)
    }

    fn install_named(&mut self, service: &Name, targets: Vec<Target>) -> Result<Vec<Command>, String> {
        let write = if targets.is_empty() {
            Write::Delete(key::named(service))
        } else {
            let text = written(service, &targets);
            Write::Put(key::named(service), text.into_bytes())
        };
        let next = self.intent.with_named_by_hook(service, targets);
        let next = next.map_err(|errors| refused(&errors))?;
        let compiled = self.compile(&next, &self.choices.clone());
        let (target, allocations) = compiled.map_err(|error| refused(&[error.to_string()]))?;
        self.intent = next;
        let mut writes = vec![write];
        writes.extend(self.install(target, allocations));
        Ok(self.roll_out(writes))
    }

    /// What is to be deleted of services that scale no more in an intent.
    pub(super) fn forget_named(&self, next: &Intent) -> Vec<Write> {
        let named = self.intent.all_named_by_hooks().keys();
        let gone = named.filter(|service| !next.all_named_by_hooks().contains_key(*service));
        gone.map(|service| Write::Delete(key::named(service))).collect()
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
                url: scaling.hook.url.to_string(),
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

/// Why an answer is not taken.
fn refused(errors: &[String]) -> String {
    let shown = errors.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    let more = errors.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("; and {more} more"));
    format!(
        "names targets that cannot be: {shown}{}",
        more.unwrap_or_default()
    )
}

/// The targets of an answer, read as the service's own are.
fn targets_of(service: &Service, scaling: &Scaling, text: &str) -> Result<Vec<Target>, String> {
    let answer: Answer = serde_json::from_str(text)
        .map_err(|error| format!("answers what is no JSON of the form {{\"targets\": [...]}}: {error}"))?;
    let (count, most) = (answer.targets.len(), scaling.max.get());
    if count > usize::from(most) {
        return Err(refused(&[format!(
            "it names {count}, and spec.scaling.max is {most}"
        )]));
    }
    let of_us = |target: &Value| {
        let drains = ["drain", "drain_until"];
        drains.iter().any(|field| target.get(field).is_some())
    };
    if let Some(index) = answer.targets.iter().position(of_us) {
        let why = format!("targets[{index}].drain: a target that is left out drains by itself");
        return Err(refused(&[why]));
    }
    let object = Object::Service(service.clone().into());
    let written = to_json(std::slice::from_ref(&object)).map_err(|error| error.to_string())?;
    let written: Value = serde_json::from_str(&written).map_err(|error| error.to_string())?;
    let mut object = match written {
        Value::Array(mut objects) => objects.pop().unwrap_or_default(),
        object => object,
    };
    object["spec"]["targets"] = Value::Array(answer.targets);
    read(&object.to_string()).map_err(|problem| refused(&[problem]))
}

/// Targets as the store keeps them: a service that has them and nothing else.
fn written(service: &Name, targets: &[Target]) -> String {
    json!({"kind": "Service", "metadata": {"name": service}, "spec": {"targets": targets}}).to_string()
}

/// The targets of a service that is written in JSON.
///
/// # Errors
/// Each of what is wrong with it, in words.
pub(super) fn read(text: &str) -> Result<Vec<Target>, String> {
    let file = File { name: "", text };
    let manifests = parse(&[file]).map_err(|errors| {
        let words = errors
            .iter()
            .map(|error| format!("{}: {}", error.field, error.problem));
        let words: Vec<String> = words.take(SHOWN).collect();
        words.join("; ")
    })?;
    match manifests.first().map(|manifest| manifest.object()) {
        Some(Object::Service(service)) => Ok(service.spec.targets.clone()),
        _ => Err("it is no service".to_owned()),
    }
}

#[cfg(test)]
mod tests {
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
        let wants = |has, flows| wanted(&scaling(2, 5, 0), (1_000, 0), has, flows).0;
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
        let wants = |now, needed, has, flows| wanted(&scaling, (now, needed), has, flows);
        assert_eq!(wants(59_000, 0, 3, 11), (3, 0));
        assert_eq!(wants(60_000, 0, 3, 11), (2, 0));
        // What is needed meanwhile begins the time anew.
        assert_eq!(wants(59_000, 0, 3, 21), (3, 59_000));
        assert_eq!(wants(118_000, 59_000, 3, 0), (3, 59_000));
        assert_eq!(wants(119_000, 59_000, 3, 0), (1, 59_000));
        assert_eq!(wants(10, 0, 3, 45), (5, 10), "more at once");
        assert_eq!(wants(10, 0, 9, 0), (5, 0), "never beyond max");
    }
}
