//! The targets of a service.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::error::Conflict;
use super::{Intent, check};
use crate::kinds::{HostIp, Kind, Name, ObjectRef, Port, Select, Service, Target};

impl Intent {
    /// The targets of a service: those that it declares, those that it selects (nodes, or ports of its VPC), in the order of
    /// their names, and those that its hook has named. Of what is the same the first counts.
    #[must_use]
    pub fn targets<'a>(&self, service: &'a Service) -> Cow<'a, [Target]> {
        let vpc = service
            .spec
            .vpc
            .as_ref()
            .filter(|_| service.spec.select.is_some());
        let ports = self.ports().values().filter(|port| vpc == Some(&port.spec.vpc));
        self.targets_among(service, ports)
    }

    /// The services that select their targets, and have none.
    pub fn selecting_nobody(&self) -> impl Iterator<Item = &Name> {
        let targets = self.all_targets();
        let services = self.services().iter();
        let selecting = services.filter(|(_, service)| service.spec.select.is_some());
        let without = selecting.filter(move |(name, _)| targets[*name].is_empty());
        without.map(|(name, _)| name)
    }

    /// The targets of all services.
    #[must_use]
    pub fn all_targets(&self) -> HashMap<&Name, Cow<'_, [Target]>> {
        let selecting = self
            .services()
            .values()
            .filter(|service| service.spec.select.is_some());
        let vpcs = selecting.filter_map(|service| service.spec.vpc.as_ref());
        let mut ports: HashMap<&Name, Vec<&Arc<Port>>> = vpcs.map(|vpc| (vpc, Vec::new())).collect();
        if !ports.is_empty() {
            for port in self.ports().values() {
                ports.entry(&port.spec.vpc).and_modify(|ports| ports.push(port));
            }
        }
        let ports_of = |service: &Service| {
            let ports = service.spec.vpc.as_ref().and_then(|vpc| ports.get(vpc));
            ports.into_iter().flatten().copied()
        };
        let services = self.services().iter();
        let services = services.map(|(name, service)| (name, service.as_ref()));
        services
            .map(|(name, service)| (name, self.targets_among(service, ports_of(service))))
            .collect()
    }

    /// The targets of a service, whose VPC has these ports.
    fn targets_among<'a, 'p>(
        &self,
        service: &'a Service,
        ports: impl Iterator<Item = &'p Arc<Port>>,
    ) -> Cow<'a, [Target]> {
        let spec = &service.spec;
        let named = self.named_by_hook(service);
        if spec.select.is_none() && named.is_empty() {
            return Cow::Borrowed(&spec.targets);
        }
        let mut targets = spec.targets.clone();
        let declared = spec.targets.iter().map(|target| target.address);
        let mut taken: HashSet<HostIp> = declared.collect();
        if let Some(select) = &spec.select {
            let selected: Vec<Target> = match &spec.vpc {
                None => self.selected_nodes(select).collect(),
                Some(_) => self.selected_ports(ports, select).collect(),
            };
            targets.extend(selected.into_iter().filter(|target| taken.insert(target.address)));
        }
        let mut taken: HashSet<String> = targets.iter().map(Target::end).collect();
        let named = named.iter().filter(|target| taken.insert(target.end()));
        targets.extend(named.cloned());
        Cow::Owned(targets)
    }

    /// The nodes of these labels. One that drains gets no new flows.
    fn selected_nodes(&self, select: &Select) -> impl Iterator<Item = Target> {
        let nodes = self.nodes().values();
        let nodes = nodes.filter(|node| select.takes(&node.metadata.labels));
        nodes.map(|node| Target {
            address: node.spec.address.local.into(),
            port: select.port,
            server_id: None,
            weight: select.weight,
            drain: node.spec.drain,
            drain_until: None,
            region: Some(node.spec.region.clone()),
            site: node.spec.site.clone(),
        })
    }

    /// Those of a VPC's ports that have these labels. Where they are, their nodes say; that of one that drains gets no new
    /// flows.
    fn selected_ports<'p>(
        &self,
        ports: impl Iterator<Item = &'p Arc<Port>>,
        select: &Select,
    ) -> impl Iterator<Item = Target> {
        let ports = ports.filter(|port| select.takes(&port.metadata.labels));
        ports.map(|port| Target {
            address: port.spec.address.into(),
            port: None,
            server_id: None,
            weight: select.weight,
            drain: self
                .nodes()
                .get(&port.spec.node)
                .is_some_and(|node| node.spec.drain),
            drain_until: None,
            region: None,
            site: None,
        })
    }

    /// The targets of a service that its hook has named, if it scales.
    #[must_use]
    pub fn named_by_hook(&self, service: &Service) -> &[Target] {
        let named = self.named_by_hooks.get(&service.metadata.name);
        let named = named.filter(|_| service.spec.scaling.is_some());
        named.map_or(&[], AsRef::as_ref)
    }

    /// All that hooks have named, by service.
    #[must_use]
    pub const fn all_named_by_hooks(&self) -> &BTreeMap<Name, Arc<[Target]>> {
        &self.named_by_hooks
    }

    /// The intent with the targets that hooks have named by another one, and with further ones, by service, beside them: as
    /// far as they agree with what is declared here.
    #[must_use]
    pub fn with_named_of(mut self, other: &Self, further: &BTreeMap<Name, Vec<Target>>) -> Self {
        self.named_by_hooks.clone_from(&other.named_by_hooks);
        self.forget_named(other);
        for (service, targets) in further {
            let list = self.named_by_hooks.get(service).map_or(&[][..], AsRef::as_ref);
            let taken: HashSet<String> = list.iter().map(Target::end).collect();
            let new = targets.iter().filter(|target| !taken.contains(&target.end()));
            let list = list.iter().chain(new).cloned().collect();
            self.named_by_hooks.insert(service.clone(), list);
        }
        self.forget_named(&self.clone());
        if !self.agrees() {
            for (service, targets) in std::mem::take(&mut self.named_by_hooks) {
                self.add_what_agrees(&service, &targets);
            }
        }
        self
    }

    fn agrees(&self) -> bool {
        check::violations(self, &HashMap::new()).is_empty()
    }

    /// Adds to the named targets of a service these: all, or of each half what can be.
    fn add_what_agrees(&mut self, service: &Name, targets: &[Target]) {
        let before = self.named_by_hooks.get(service).cloned();
        let list = before.iter().flat_map(|before| before.iter());
        let list = list.chain(targets).cloned().collect();
        self.named_by_hooks.insert(service.clone(), list);
        if self.agrees() {
            return;
        }
        match before {
            Some(before) => drop(self.named_by_hooks.insert(service.clone(), before)),
            None => drop(self.named_by_hooks.remove(service)),
        }
        if let [_, _, ..] = targets {
            let (first, second) = targets.split_at(targets.len() / 2);
            self.add_what_agrees(service, first);
            self.add_what_agrees(service, second);
        }
    }

    /// The intent with these targets of a service in place of those that its hook has named before. Without a new one
    /// among them nothing can be wrong.
    ///
    /// # Errors
    /// All by which the new ones do not agree with what is declared; `self` is as it was.
    pub fn with_named_by_hook(&self, service: &Name, targets: Vec<Target>) -> Result<Self, Vec<String>> {
        let before = self.named_by_hooks.get(service).map_or(&[][..], AsRef::as_ref);
        let before: HashSet<String> = before.iter().map(Target::end).collect();
        let new = targets.iter().filter(|target| !before.contains(&target.end()));
        let new: Vec<Target> = new.cloned().collect();
        let mut next = self.clone();
        if targets.is_empty() {
            next.named_by_hooks.remove(service);
        } else {
            next.named_by_hooks.insert(service.clone(), targets.into());
        }
        if new.is_empty() {
            return Ok(next);
        }
        let mut errors = self.services().get(service).map_or_else(Vec::new, |declared| {
            self.twice(declared, &new)
                .chain(self.without_port(declared, &new))
                .collect()
        });
        let mut found = words_of_violations(&next, service);
        if !found.is_empty() {
            let known = words_of_violations(self, service);
            found.retain(|violation| !known.contains(violation));
        }
        errors.extend(found);
        if errors.is_empty() { Ok(next) } else { Err(errors) }
    }

    /// Errors for those of these targets that a service has in another way.
    fn twice<'a>(&self, service: &Service, targets: &'a [Target]) -> impl Iterator<Item = String> + use<'a> {
        let mut without = self.clone();
        without.named_by_hooks.remove(&service.metadata.name);
        let others = without.targets(service);
        let taken: HashSet<String> = others.iter().map(Target::end).collect();
        let twice = targets.iter().map(Target::end);
        let twice = twice.filter(move |end| taken.contains(end));
        twice.map(|end| format!("{end} is declared or selected already; leave it out"))
    }

    /// Errors for those of these targets that are to be ports of a service's VPC and are none.
    fn without_port<'a>(
        &self,
        service: &'a Service,
        targets: &'a [Target],
    ) -> impl Iterator<Item = String> + use<'a> {
        let ports = self.addresses_in_vpc(service);
        let vpc = service.spec.vpc.as_ref();
        let without = targets.iter().filter(move |target| !has_port(&ports, target));
        without.filter_map(move |target| {
            let vpc = ObjectRef::new(Kind::Vpc, vpc?);
            let address = target.address;
            Some(Conflict::NoPortOf { address, vpc }.to_string())
        })
    }

    /// The addresses of the ports of a service's VPC; `None`: its targets are in none.
    fn addresses_in_vpc(&self, service: &Service) -> Option<HashSet<HostIp>> {
        let vpc = service.spec.vpc.as_ref()?;
        let ports = self.ports().values().filter(|port| port.spec.vpc == *vpc);
        Some(ports.map(|port| port.spec.address.into()).collect())
    }

    /// The same without asking whether they agree, as they did when they were kept.
    #[must_use]
    pub fn with_kept_by_hook(mut self, service: Name, targets: Vec<Target>) -> Self {
        self.named_by_hooks.insert(service, targets.into());
        self.forget_named(&self.clone());
        self
    }

    /// What hooks have named is no target any more where the service is gone, does not scale, or is reached otherwise
    /// than in `before`; nor is in a VPC what has no port there.
    pub(super) fn forget_named(&mut self, before: &Self) {
        let mut named = std::mem::take(&mut self.named_by_hooks);
        named.retain(|name, targets| {
            let service = self.services().get(name);
            let service = service.filter(|service| service.spec.scaling.is_some());
            let was = before.services().get(name);
            let is_as_it_was = |service: &&Arc<Service>| {
                was.is_none_or(|was| (was.spec.mode, &was.spec.vpc) == (service.spec.mode, &service.spec.vpc))
            };
            let Some(service) = service.filter(is_as_it_was) else {
                return false;
            };
            let ports = self.addresses_in_vpc(service);
            if !targets.iter().all(|target| has_port(&ports, target)) {
                let with_port = targets.iter().filter(|target| has_port(&ports, target));
                *targets = with_port.cloned().collect();
            }
            !targets.is_empty()
        });
        self.named_by_hooks = named;
    }
}

/// Whether a target is one of these ports, where it is to be one.
fn has_port(ports: &Option<HashSet<HostIp>>, target: &Target) -> bool {
    ports.as_ref().is_none_or(|ports| ports.contains(&target.address))
}

/// All that does not agree in an intent, as the hook of a service is told.
fn words_of_violations(intent: &Intent, service: &Name) -> Vec<String> {
    let violations = check::violations(intent, &HashMap::new()).into_iter();
    let words = violations.map(|violation| {
        let (object, field) = violation.subject;
        let conflict = violation.conflict;
        if object == ObjectRef::new(Kind::Service, service) {
            conflict.to_string()
        } else {
            format!("{object}: {field}: {conflict}")
        }
    });
    words.collect()
}
