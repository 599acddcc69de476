//! The targets of a service.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Intent, check};
use crate::kinds::{HostAddress, Kind, Name, ObjectRef, Port, Select, Service, Target};

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
        let mut taken: HashSet<HostAddress> = declared.collect();
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
            address: node.spec.address.local,
            port: select.port,
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
            address: port.spec.address,
            port: None,
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

    /// The intent with the targets that hooks have named by another one, as far as the services are there.
    #[must_use]
    pub fn with_named_of(mut self, other: &Self) -> Self {
        self.named_by_hooks.clone_from(&other.named_by_hooks);
        self.forget_targets_of_gone();
        self
    }

    /// The intent with these targets of a service in place of those that its hook has named before.
    ///
    /// # Errors
    /// All by which they do not agree with what is declared; `self` is as it was.
    pub fn with_named_by_hook(&self, service: &Name, targets: Vec<Target>) -> Result<Self, Vec<String>> {
        let mut next = self.clone();
        let mut errors = Vec::new();
        if let Some(declared) = self.services().get(service) {
            let mut without = self.clone();
            without.named_by_hooks.remove(service);
            let others = without.targets(declared);
            let taken: HashSet<String> = others.iter().map(Target::end).collect();
            let twice = targets.iter().filter(|target| !target.drain).map(Target::end);
            let twice = twice.filter(|end| taken.contains(end));
            errors.extend(twice.map(|end| format!("{end} is declared or selected already; leave it out")));
        }
        next.named_by_hooks.insert(service.clone(), targets.into());
        let violations = check::violations(&next, &HashMap::new());
        errors.extend(violations.into_iter().map(|violation| {
            let (object, field) = violation.subject;
            let conflict = violation.conflict;
            if object == ObjectRef::new(Kind::Service, service) {
                conflict.to_string()
            } else {
                format!("{object}: {field}: {conflict}")
            }
        }));
        if errors.is_empty() { Ok(next) } else { Err(errors) }
    }

    /// The same without asking whether they agree, as they did when they were kept.
    #[must_use]
    pub fn with_kept_by_hook(mut self, service: Name, targets: Vec<Target>) -> Self {
        self.named_by_hooks.insert(service, targets.into());
        self.forget_targets_of_gone();
        self
    }

    /// What hooks have named for services that are gone, or do not scale, is no target.
    pub(super) fn forget_targets_of_gone(&mut self) {
        let mut named = std::mem::take(&mut self.named_by_hooks);
        named.retain(|service, targets| {
            let service = self.services().get(service);
            !targets.is_empty() && service.is_some_and(|service| service.spec.scaling.is_some())
        });
        self.named_by_hooks = named;
    }
}
