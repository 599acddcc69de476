//! Where the targets of services are, and how far from who sends to them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use super::Intent;
use crate::kinds::{HostAddress, HostIp, Name, Node, NodeSpec, Port, Prefer, Service, Target};

/// Where targets are.
pub(crate) struct Locations<'a> {
    intent: &'a Intent,
    /// Ports that may be targets of services, by VPC and address.
    ports: HashMap<(&'a Name, HostAddress), &'a Port>,
    /// Whose an address is, if any service prefers what is near. Two nodes behind different NATs may have the same local
    /// one: it is nobody's.
    nodes: HashMap<HostAddress, Option<&'a Node>>,
}

impl<'a> Locations<'a> {
    pub(crate) fn new(intent: &'a Intent) -> Self {
        let mut services = intent.services().values();
        let prefers = services.any(|service| service.spec.prefer != Prefer::None);
        let nodes = intent.nodes().values().filter(|_| prefers);
        let mut all: HashMap<HostAddress, Option<&Node>> = HashMap::new();
        for node in nodes.map(AsRef::as_ref) {
            let address = node.spec.address;
            for address in [address.public, address.local] {
                match all.entry(address) {
                    Entry::Vacant(free) => drop(free.insert(Some(node))),
                    Entry::Occupied(mut held) => {
                        let whose = held.get_mut();
                        *whose = whose.filter(|other| other.metadata.name == node.metadata.name);
                    }
                }
            }
        }
        Self {
            intent,
            ports: intent.ports_of_services(),
            nodes: all,
        }
    }

    /// The port of this address of a VPC that has targets of services.
    pub(crate) fn port(&self, vpc: &Name, address: HostIp) -> Option<&'a Port> {
        self.ports.get(&(vpc, address.v4()?)).copied()
    }

    /// The node where a target is: the one whose address it has, or whose port it is.
    pub(crate) fn node(&self, service: &Service, target: &Target) -> Option<&'a Node> {
        match &service.spec.vpc {
            Some(vpc) => {
                let port = self.port(vpc, target.address)?;
                self.intent.nodes().get(&port.spec.node).map(AsRef::as_ref)
            }
            None => self.nodes.get(&target.address.v4()?).copied().flatten(),
        }
    }

    /// How far a target is from a node that sends there: 0 is nearest. Where it is, it says itself, or its node does; what
    /// is nowhere is far.
    pub(crate) fn rank(&self, service: &Service, from: &NodeSpec, target: &Target) -> u32 {
        let node = self.node(service, target).map(|node| &node.spec);
        let region = target.region.as_ref().or(node.map(|node| &node.region));
        let site = target.site.as_ref().or(node.and_then(|node| node.site.as_ref()));
        let is_of_region = region == Some(&from.region);
        let is_of_site = from.site.is_some() && site == from.site.as_ref();
        match service.spec.prefer {
            Prefer::None => 0,
            Prefer::Region => u32::from(!is_of_region),
            Prefer::Site if is_of_site => 0,
            Prefer::Site => 1 + u32::from(!is_of_region),
        }
    }

    /// The targets by their distance from a node: in each step, which of them are equally far.
    pub(crate) fn order(&self, service: &Service, from: &NodeSpec, targets: &[Target]) -> Vec<Vec<usize>> {
        let mut steps: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, target) in targets.iter().enumerate() {
            steps
                .entry(self.rank(service, from, target))
                .or_default()
                .push(at);
        }
        steps.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::File;

    #[test]
    fn an_address_of_two_nodes_behind_their_nats_is_nobodys() {
        let node = |name: &str, region: &str, local: &str, public: u8| {
            format!(
                "kind: Node\nmetadata: {{name: {name}}}\nspec: {{region: {region}, address: {{local: {local}, public: \
                 192.0.2.{public}}}}}\n---\n"
            )
        };
        let text = [
            node("one", "a", "10.0.0.1", 1),
            node("two", "b", "10.0.0.1", 2),
            node("three", "a", "10.0.0.3", 3),
            node("four", "a", "192.0.2.4", 4),
            "kind: Service\nmetadata: {name: web}\nspec: {targets: [{address: 10.0.0.1}, {address: 192.0.2.1}, {address: \
             192.0.2.2}, {address: 10.0.0.3}, {address: 192.0.2.4}, {address: 10.0.0.5}], prefer: region}\n"
                .to_owned(),
        ]
        .concat();
        let file = File {
            name: "t",
            text: &text,
        };
        let intent = Intent::default().apply_files(&[file]).unwrap().intent;
        let (locations, service) = (Locations::new(&intent), &intent.services()["web"]);
        let order = |node: &str| locations.order(service, &intent.nodes()[node].spec, &service.spec.targets);
        assert_eq!(order("one"), [vec![1, 3, 4], vec![0, 2, 5]]);
        assert_eq!(order("two"), [vec![2], vec![0, 1, 3, 4, 5]]);
    }
}
