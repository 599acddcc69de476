//! `AddressPool`: public addresses and the nodes that carry them.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::common::{Invalid, refuse_twice};
use super::host_prefix::HostPrefix;
use super::network::HostIp;
use super::reach::{Bgp, Hook, Reach};
use super::{Name, PacketPolicy, Resource};
use crate::manifest::{Field, Fields, Place, Problem};

/// Public addresses, and how packets find them. Each is at one node, or at one of several, or at each of them, as
/// `reach` says.
pub type AddressPool = Resource<AddressPoolSpec>;

/// ```yaml
/// kind: AddressPool
/// metadata: {name: asia}
/// spec:
///   addresses:
///     - {node: osaka, public: 203.0.113.10}
///     - {node: hong-kong, public: 203.0.113.20, local: 10.1.0.20}
/// ---
/// kind: AddressPool
/// metadata: {name: rack}
/// spec:
///   reach: arp
///   addresses: [{nodes: [left, right], public: 192.0.2.80}]
/// ---
/// kind: AddressPool
/// metadata: {name: arcade}
/// spec:
///   addresses: [{node: osaka, public: 198.51.100.0/24}]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressPoolSpec {
    /// How packets for the addresses find their node. Default: routed.
    pub reach: Reach,
    /// Of reach bgp, and there required: with whom the nodes speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<Bgp>,
    /// Of reach hook, and there required: what brings an address to its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
    /// What becomes of unusual packets to those of the addresses that are no node's own. Default: as the fields say.
    #[serde(skip_serializing_if = "PacketPolicy::is_default")]
    pub packets: PacketPolicy,
    /// What is declared: at least one address, or prefix that stands for its addresses.
    #[serde(rename = "addresses")]
    pub entries: Vec<PoolEntry>,
    /// The addresses of all entries, in their order.
    #[serde(skip)]
    pub addresses: Vec<PoolAddress>,
}

impl Field for AddressPoolSpec {
    const EXPECTS: &'static str = "a mapping with addresses";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let reach = fields.or("reach", Reach::Routed);
            let bgp = fields.optional("bgp");
            let hook = fields.optional("hook");
            let packets = fields.or("packets", PacketPolicy::default());
            let entries: Option<Vec<PoolEntry>> = fields.list("addresses", "at least one {node, public}");
            let entries = entries?;
            let spec = Self {
                reach: reach?,
                bgp: bgp?,
                hook: hook?,
                packets: packets?,
                addresses: entries
                    .iter()
                    .enumerate()
                    .flat_map(PoolEntry::addresses)
                    .collect(),
                entries,
            };
            spec.refuse_what_cannot_be(fields);
            Some(spec)
        })
    }
}

impl AddressPoolSpec {
    /// Fields that say nothing of this reach, or are missing.
    fn refuse_what_cannot_be(&self, fields: &Fields<'_>) {
        let of_reach = [
            ("bgp", self.bgp.is_some(), Reach::Bgp, Bgp::EXPECTS),
            ("hook", self.hook.is_some(), Reach::Hook, Hook::EXPECTS),
        ];
        for (name, is_given, reach, expects) in of_reach {
            if is_given && self.reach != reach {
                let why = format!("is for reach: {reach} alone; choose that, or leave it out");
                fields.refuse(name, Invalid::new("this", why));
            }
            if !is_given && self.reach == reach {
                fields.refuse(name, Problem::Missing { expects });
            }
        }
        for (index, entry) in self.entries.iter().enumerate() {
            let count = entry.nodes.iter().count();
            if count > 1 && self.reach == Reach::Routed {
                let why = "are too many: somebody routes packets to one; name that alone, or choose reach: arp, bgp or \
                           hook";
                let field = format!("addresses[{index}].nodes");
                fields.refuse(&field, Invalid::new(&count.to_string(), why));
            }
            if entry.is_prefix() && self.reach == Reach::Hook {
                let why = "is a prefix, and the command of reach: hook brings one address; name each address, or choose \
                           reach: routed, arp or bgp";
                let field = format!("addresses[{index}].public");
                fields.refuse(&field, Invalid::new(&entry.public.to_string(), why));
            }
        }
        let prefixes = self.entries.iter().filter(|entry| entry.is_prefix());
        let (count, most) = (
            prefixes.map(|entry| entry.public.count()).sum::<usize>(),
            HostPrefix::MOST,
        );
        if count > most {
            let why = format!("stand for {count} addresses; at most {most}, or make several pools");
            fields.refuse("addresses", Invalid::new("prefixes", why));
        }
        self.refuse_mixed_families(fields);
    }

    /// Addresses are of one family.
    fn refuse_mixed_families(&self, fields: &Fields<'_>) {
        let Some(first) = self.entries.first().map(|entry| entry.public) else {
            return;
        };
        let family = first.first().family();
        for (index, entry) in self.entries.iter().enumerate() {
            for (name, one) in [("public", entry.public), ("local", entry.local)] {
                // A local one that is not given is the public one.
                let is_given = name == "public" || entry.local != entry.public;
                let its = one.first().family();
                if its != family && is_given {
                    let why = format!(
                        "is of {its}, and {first} of {family}: the addresses of a pool are of one family; declare a pool for each"
                    );
                    let field = format!("addresses[{index}].{name}");
                    fields.refuse(&field, Invalid::new(&one.to_string(), why));
                }
            }
        }
    }

    /// The entries, each with its addresses.
    pub fn by_entry(&self) -> impl Iterator<Item = (&PoolEntry, &[PoolAddress])> {
        let addresses = self.addresses.chunk_by(|one, next| one.entry == next.entry);
        self.entries.iter().zip(addresses)
    }

    /// Whether a prefix is among its entries.
    #[must_use]
    pub fn has_prefix(&self) -> bool {
        self.entries.iter().any(PoolEntry::is_prefix)
    }

    /// Whether its addresses are of IPv6.
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.addresses
            .first()
            .is_some_and(|address| address.public.is_v6())
    }
}

/// An address of a pool, or a prefix, as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolEntry {
    /// The nodes that may carry it, as `node: x` or as `nodes: [x, y]`.
    #[serde(flatten)]
    pub nodes: Carriers,
    /// What clients use, and what is shown.
    pub public: HostPrefix,
    /// The same in packets as they reach the node, address by address; differs behind a 1:1 NAT. A single one may be the
    /// node's own. Default: `public`.
    pub local: HostPrefix,
}

impl Field for PoolEntry {
    const EXPECTS: &'static str = "a mapping with node, public and, behind a NAT, local";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let nodes = Carriers::read(fields);
            let public: Option<HostPrefix> = fields.required("public");
            let local: Option<Option<HostPrefix>> = fields.optional("local");
            let public = public?;
            let local = local?.unwrap_or(public);
            if local.count() != public.count() {
                let (count, wanted) = (local.count(), public.count());
                let why = format!(
                    "has {count} of the {wanted} addresses that {public} is to be here; write as many, or leave it out"
                );
                fields.refuse("local", Invalid::new(&local.to_string(), why));
            }
            Some(Self {
                nodes: nodes?,
                public,
                local,
            })
        })
    }
}

impl PoolEntry {
    /// Whether it has several addresses.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        self.public.only().is_none()
    }

    /// The addresses of the entry of that number.
    fn addresses((entry, it): (usize, &Self)) -> impl Iterator<Item = PoolAddress> {
        let addresses = it.public.addresses().zip(it.local.addresses());
        addresses.map(move |(public, local)| PoolAddress {
            nodes: it.nodes.clone(),
            public,
            local,
            entry,
        })
    }
}

/// An address of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolAddress {
    /// The nodes that may carry it.
    pub nodes: Carriers,
    /// The address that clients use, and that is shown.
    pub public: HostIp,
    /// The address in packets as they reach the node; differs behind a 1:1 NAT, and may be the node's own.
    pub local: HostIp,
    /// Which of the pool's entries has it.
    pub entry: usize,
}

/// The nodes that may carry an address, at least one, the preferred first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carriers {
    preferred: Name,
    others: Vec<Name>,
}

impl Carriers {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Name> + Clone {
        std::iter::once(&self.preferred).chain(&self.others)
    }

    /// The first.
    #[must_use]
    pub const fn preferred(&self) -> &Name {
        &self.preferred
    }

    /// Whether a node is one of them.
    #[must_use]
    pub fn contains(&self, node: &Name) -> bool {
        self.iter().any(|one| one == node)
    }

    /// Whether a node is the only one.
    #[must_use]
    pub fn is_alone(&self, node: &Name) -> bool {
        self.preferred == *node && self.others.is_empty()
    }

    /// The field in which a manifest names one of them.
    #[must_use]
    pub fn field(&self, index: usize) -> String {
        if self.others.is_empty() {
            "node".to_owned()
        } else {
            format!("nodes[{index}]")
        }
    }

    fn read(fields: &Fields<'_>) -> Option<Self> {
        let node: Option<Option<Name>> = fields.optional("node");
        let nodes = fields.optional_list("nodes", "at least one node, the preferred first");
        refuse_twice(fields, "nodes", nodes.iter().flatten().flatten());
        let mut all = match (node?, nodes?) {
            (Some(node), None) => vec![node],
            (None, Some(nodes)) => nodes,
            (None, None) => {
                let expects = "the node that carries the address, or nodes of which one or each does";
                fields.refuse("node", Problem::Missing { expects });
                return None;
            }
            (Some(_), Some(_)) => {
                let why = "stands beside nodes; name all of them there, and leave this out";
                fields.refuse("node", Invalid::new("this", why));
                return None;
            }
        };
        let others = all.split_off(1);
        let preferred = all.pop()?;
        Some(Self { preferred, others })
    }
}

impl Serialize for Carriers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        if self.others.is_empty() {
            map.serialize_entry("node", &self.preferred)?;
        } else {
            map.serialize_entry("nodes", &self.iter().collect::<Vec<_>>())?;
        }
        map.end()
    }
}
