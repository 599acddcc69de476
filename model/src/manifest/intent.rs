//! Everything that is declared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Manifest;
use super::check::{self, FieldOf, Violation};
use super::error::{Conflict, DeleteError, ManifestError, Problem, nearest_object};
use crate::kinds::{
    Accelerator, AddressPool, HostAddress, Kind, Name, Node, Object, ObjectRef, PoolAddress, PoolEntry, Port,
    PrefixList, Service, Target, Vpc,
};

/// Objects of one kind by name.
type Table<T> = BTreeMap<Name, Arc<T>>;

/// Everything that is declared. Its objects agree with each other: what they refer to exists, and nothing that only
/// one may have is claimed by two. Cheap to clone: the objects are shared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Intent {
    nodes: Table<Node>,
    vpcs: Table<Vpc>,
    ports: Table<Port>,
    address_pools: Table<AddressPool>,
    prefix_lists: Table<PrefixList>,
    services: Table<Service>,
    accelerators: Table<Accelerator>,
    /// Targets that hooks have named, by service. No object, but they agree with all of these.
    pub(super) named_by_hooks: BTreeMap<Name, Arc<[Target]>>,
}

impl Intent {
    /// The intent with these objects added, or in place of those of the same kind and name.
    ///
    /// # Errors
    /// All that the manifests bring to disagree, in their order; `self` is as it was.
    pub fn apply(&self, manifests: &[Manifest]) -> Result<Self, Vec<ManifestError>> {
        let mut next = self.clone();
        let mut errors = Vec::new();
        let mut declared: HashMap<ObjectRef, usize> = HashMap::with_capacity(manifests.len());
        for (index, manifest) in manifests.iter().enumerate() {
            let object = manifest.object().id();
            if let Some(first) = declared.get(&object).map(|first| &manifests[*first]) {
                let (file, line) = (first.file().to_owned(), first.line());
                errors.push((
                    index,
                    manifest.error("", Problem::DeclaredTwice { object, file, line }),
                ));
                continue;
            }
            declared.insert(object, index);
            next.insert(manifest.object().clone());
        }
        next.forget_named(self);
        for violation in check::violations(&next, &declared) {
            // Without a manifest nothing changed, and nothing is violated.
            let changed = violation
                .objects()
                .find_map(|object| declared.get(object))
                .copied()
                .unwrap_or(0);
            errors.extend(
                manifests
                    .get(changed)
                    .map(|manifest| (changed, blame(violation, manifest))),
            );
        }
        errors.sort_by_key(|(index, error)| (*index, error.line));
        if errors.is_empty() {
            Ok(next)
        } else {
            Err(errors.into_iter().map(|(_, error)| error).collect())
        }
    }

    /// The intent without these objects.
    ///
    /// # Errors
    /// Objects that there are not, and those that others refer to which remain; `self` is as it was.
    pub fn delete(&self, objects: &[ObjectRef]) -> Result<Self, Vec<DeleteError>> {
        let mut next = self.clone();
        let mut errors = Vec::new();
        let deleted: BTreeSet<&ObjectRef> = objects.iter().collect();
        for object in &deleted {
            if !next.remove(object) {
                let near = nearest_object(object, self.names(object.kind));
                errors.push(DeleteError::NoSuchObject {
                    object: (*object).clone(),
                    near,
                });
            }
        }
        next.forget_named(self);
        let mut users: BTreeMap<ObjectRef, Vec<FieldOf>> = BTreeMap::new();
        for violation in check::violations(&next, &HashMap::new()) {
            let (object, field) = violation.subject;
            match violation.conflict {
                Conflict::NoSuchObject { object: used, .. } => {
                    users.entry(used).or_default().push((object, field))
                }
                conflict => errors.push(DeleteError::Needed {
                    object,
                    field,
                    conflict,
                }),
            }
        }
        errors.extend(
            users
                .into_iter()
                .map(|(object, by)| DeleteError::InUse { object, by }),
        );
        if errors.is_empty() { Ok(next) } else { Err(errors) }
    }

    /// The object of this identity.
    #[must_use]
    pub fn get(&self, object: &ObjectRef) -> Option<Object> {
        let name = &object.name;
        match object.kind {
            Kind::Node => self.nodes.get(name).cloned().map(Object::Node),
            Kind::Vpc => self.vpcs.get(name).cloned().map(Object::Vpc),
            Kind::Port => self.ports.get(name).cloned().map(Object::Port),
            Kind::AddressPool => self.address_pools.get(name).cloned().map(Object::AddressPool),
            Kind::PrefixList => self.prefix_lists.get(name).cloned().map(Object::PrefixList),
            Kind::Service => self.services.get(name).cloned().map(Object::Service),
            Kind::Accelerator => self.accelerators.get(name).cloned().map(Object::Accelerator),
        }
    }

    /// The objects of a kind, ordered by name.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> Vec<Object> {
        match kind {
            Kind::Node => self.nodes.values().cloned().map(Object::Node).collect(),
            Kind::Vpc => self.vpcs.values().cloned().map(Object::Vpc).collect(),
            Kind::Port => self.ports.values().cloned().map(Object::Port).collect(),
            Kind::AddressPool => self
                .address_pools
                .values()
                .cloned()
                .map(Object::AddressPool)
                .collect(),
            Kind::PrefixList => self
                .prefix_lists
                .values()
                .cloned()
                .map(Object::PrefixList)
                .collect(),
            Kind::Service => self.services.values().cloned().map(Object::Service).collect(),
            Kind::Accelerator => self
                .accelerators
                .values()
                .cloned()
                .map(Object::Accelerator)
                .collect(),
        }
    }

    /// Everything, ordered by kind and name.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        Kind::ALL.iter().flat_map(|kind| self.of_kind(*kind)).collect()
    }

    /// Nodes by name.
    #[must_use]
    pub const fn nodes(&self) -> &BTreeMap<Name, Arc<Node>> {
        &self.nodes
    }

    /// VPCs by name.
    #[must_use]
    pub const fn vpcs(&self) -> &BTreeMap<Name, Arc<Vpc>> {
        &self.vpcs
    }

    /// Ports by name.
    #[must_use]
    pub const fn ports(&self) -> &BTreeMap<Name, Arc<Port>> {
        &self.ports
    }

    /// Address pools by name.
    #[must_use]
    pub const fn address_pools(&self) -> &BTreeMap<Name, Arc<AddressPool>> {
        &self.address_pools
    }

    /// Lists of prefixes by name.
    #[must_use]
    pub const fn prefix_lists(&self) -> &BTreeMap<Name, Arc<PrefixList>> {
        &self.prefix_lists
    }

    /// Services by name.
    #[must_use]
    pub const fn services(&self) -> &BTreeMap<Name, Arc<Service>> {
        &self.services
    }

    /// Accelerators by name.
    #[must_use]
    pub const fn accelerators(&self) -> &BTreeMap<Name, Arc<Accelerator>> {
        &self.accelerators
    }

    /// Where an accelerator listens: the addresses of its pool that have one of its entries among their nodes.
    pub fn accelerated_addresses<'a>(
        &'a self,
        accelerator: &'a Accelerator,
    ) -> impl Iterator<Item = &'a PoolAddress> {
        self.accelerated_entries(accelerator)
            .flat_map(|(_, addresses)| addresses)
    }

    /// The nodes where an accelerator's packets enter, each with its addresses: all nodes of the addresses where it listens.
    pub fn entrances<'a>(
        &'a self,
        accelerator: &'a Accelerator,
    ) -> impl Iterator<Item = (&'a Name, &'a [PoolAddress])> {
        let entries = self.accelerated_entries(accelerator);
        entries.flat_map(|(entry, addresses)| entry.nodes.iter().map(move |node| (node, addresses)))
    }

    fn accelerated_entries<'a>(
        &'a self,
        accelerator: &'a Accelerator,
    ) -> impl Iterator<Item = (&'a PoolEntry, &'a [PoolAddress])> {
        let pool = self.address_pools.get(&accelerator.spec.pool);
        let entries = pool.into_iter().flat_map(|pool| pool.spec.by_entry());
        entries.filter(|(entry, _)| entry.nodes.iter().any(|node| accelerator.spec.enters_at(node)))
    }

    /// The ports of those VPCs whose ports are targets of services, by VPC and address.
    #[must_use]
    pub fn ports_of_services(&self) -> HashMap<(&Name, HostAddress), &Port> {
        let vpcs = self.services.values();
        let vpcs: BTreeSet<&Name> = vpcs.filter_map(|service| service.spec.vpc.as_ref()).collect();
        let ports = self.ports.values().filter(|port| vpcs.contains(&port.spec.vpc));
        ports
            .map(|port| ((&port.spec.vpc, port.spec.address), port.as_ref()))
            .collect()
    }

    pub(super) fn names(&self, kind: Kind) -> Box<dyn Iterator<Item = &Name> + '_> {
        match kind {
            Kind::Node => Box::new(self.nodes.keys()),
            Kind::Vpc => Box::new(self.vpcs.keys()),
            Kind::Port => Box::new(self.ports.keys()),
            Kind::AddressPool => Box::new(self.address_pools.keys()),
            Kind::PrefixList => Box::new(self.prefix_lists.keys()),
            Kind::Service => Box::new(self.services.keys()),
            Kind::Accelerator => Box::new(self.accelerators.keys()),
        }
    }

    /// The identities of everything, ordered by kind and name.
    pub(super) fn ids(&self) -> impl Iterator<Item = ObjectRef> + '_ {
        let of_kind = |kind| self.names(kind).map(move |name| ObjectRef::new(kind, name));
        Kind::ALL.iter().copied().flat_map(of_kind)
    }

    fn insert(&mut self, object: Object) {
        let name = object.metadata().name.clone();
        match object {
            Object::Node(node) => drop(self.nodes.insert(name, node)),
            Object::Vpc(vpc) => drop(self.vpcs.insert(name, vpc)),
            Object::Port(port) => drop(self.ports.insert(name, port)),
            Object::AddressPool(pool) => drop(self.address_pools.insert(name, pool)),
            Object::PrefixList(list) => drop(self.prefix_lists.insert(name, list)),
            Object::Service(service) => drop(self.services.insert(name, service)),
            Object::Accelerator(accelerator) => drop(self.accelerators.insert(name, accelerator)),
        }
    }

    /// Was it there?
    fn remove(&mut self, object: &ObjectRef) -> bool {
        let name = &object.name;
        match object.kind {
            Kind::Node => self.nodes.remove(name).is_some(),
            Kind::Vpc => self.vpcs.remove(name).is_some(),
            Kind::Port => self.ports.remove(name).is_some(),
            Kind::AddressPool => self.address_pools.remove(name).is_some(),
            Kind::PrefixList => self.prefix_lists.remove(name).is_some(),
            Kind::Service => self.services.remove(name).is_some(),
            Kind::Accelerator => self.accelerators.remove(name).is_some(),
        }
    }
}

/// A violation as an error of the manifest that brought it: at the field that is wrong, or at the one that makes
/// an object wrong which was declared before.
fn blame(violation: Violation, manifest: &Manifest) -> ManifestError {
    let Violation {
        subject: (object, field),
        because,
        conflict,
    } = violation;
    let declared = manifest.object().id();
    if object == declared {
        return manifest.error(&field, conflict);
    }
    let changed = because
        .iter()
        .find(|(object, _)| *object == declared)
        .map_or("", |(_, field)| field);
    manifest.error(
        changed,
        Problem::Elsewhere {
            object,
            field,
            conflict,
        },
    )
}
